//! What a check finds, and how bad it is.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use serde::Serialize;

use crate::cli::check::broken::Broken;
use crate::config::{self, Config, Identities, KeyReaders};
use crate::gateway::caller::Caller;
use crate::gateway::table::{Offered, Table};
use crate::identity::finess::Finess;
use crate::identity::load::{self, Identity, ProblemKind};
use crate::identity::revocation::Revocations;
use crate::identity::rules::{Rule, Severity};
use crate::identity::select::Refusal;
use crate::identity::states::{State, timestamp};
use crate::identity::tenants::Mistake;
use crate::inbound::listener::describe;
use crate::inbound::tls::Terms;
use crate::services::{Service, WantedCertificate};

/// Tenants named in a finding about many; the others are counted.
const NAMED_TENANTS: usize = 5;

/// One thing found, or one rule broken by several.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    /// The broken rule's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rule: Option<&'static str>,
    /// Where and what; for a rule, what it says.
    pub(super) message: String,
    /// Where a rule is broken, and by what.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) cases: Vec<String>,
    /// The way out.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) hint: String,
}

/// Everything found, in the order in which it was.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub(super) struct Findings(Vec<Finding>);

impl Finding {
    pub(super) fn error(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            rule: None,
            message: message.into(),
            cases: Vec::new(),
            hint: hint.into(),
        }
    }

    fn warning(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(message, hint)
        }
    }

    fn note(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            severity: Severity::Note,
            ..Self::error(message, hint)
        }
    }
}

impl From<&config::Problem> for Finding {
    fn from(problem: &config::Problem) -> Self {
        let whole = config::Problem {
            hint: None,
            ..problem.clone()
        };
        Self::warning(whole.to_string(), problem.hint.clone().unwrap_or_default())
    }
}

impl From<&load::Problem> for Finding {
    fn from(problem: &load::Problem) -> Self {
        let message = format!("{}: {}", problem.path.display(), problem.kind);
        Self::error(message, problem.hint.clone())
    }
}

impl From<&Mistake> for Finding {
    fn from(mistake: &Mistake) -> Self {
        let severity = if mistake.is_warning() {
            Severity::Warning
        } else {
            Severity::Error
        };
        let message = format!("{}: {}", mistake.place, mistake.kind);
        Self {
            severity,
            ..Self::error(message, mistake.hint())
        }
    }
}

impl Findings {
    pub(super) fn push(&mut self, finding: Finding) {
        self.0.push(finding);
    }

    pub(super) fn extend(&mut self, findings: impl IntoIterator<Item = Finding>) {
        self.0.extend(findings);
    }

    pub(super) fn worst(&self) -> Option<Severity> {
        self.0.iter().map(|finding| finding.severity).min()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.0.iter()
    }

    pub(super) fn count(&self, severity: Severity) -> usize {
        self.0
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    }
}

/// What is wrong with the files of the folder. A certificate that is there twice breaks a rule; the rest is unusable.
pub(super) fn of_files(problems: &[load::Problem], broken: &mut Broken) -> Vec<Finding> {
    let mut found = Vec::new();
    for problem in problems {
        match &problem.kind {
            ProblemKind::Duplicate { first, .. } => broken.add(
                Rule::KeyShared,
                format!(
                    "one certificate in {} and {}",
                    first.display(),
                    problem.path.display()
                ),
            ),
            _ => found.push(Finding::from(problem)),
        }
    }
    found
}

/// Folders of keys into which others can write: whoever can may put another key and certificate there, and take these
/// away.
pub(super) fn of_folders(config: &Identities, identities: &[Arc<Identity>]) -> Vec<Finding> {
    let excess = match config.key_readers {
        KeyReaders::Owner => 0o022,
        KeyReaders::Group => 0o002,
        KeyReaders::Anyone => return Vec::new(),
    };
    let of_keys = identities.iter().filter_map(|one| one.path.parent());
    let folders: BTreeSet<_> = of_keys.chain([&*config.directory]).collect();
    let open = folders.into_iter().filter_map(|folder| {
        let mode = fs::metadata(folder).ok()?.permissions().mode() & 0o7777;
        (mode & excess != 0).then(|| {
            let folder = (folder.display(), load::shell_word(folder));
            Finding::warning(
                format!(
                    "{}: others can write into this folder of keys (mode {mode:04o})",
                    folder.0
                ),
                format!("run: chmod {:o} {}", mode & !excess, folder.1),
            )
        })
    });
    open.collect()
}

/// What is wrong with what listeners speak TLS with.
pub(super) fn of_listeners(config: &Config, now: i64) -> Vec<Finding> {
    let found = |listener: &config::Listener| {
        let read = Terms::read(listener.tls.as_ref()?, config.identities.key_readers);
        let terms = match read {
            Ok(terms) => terms,
            Err(error) => return Some(Finding::error(error.to_string(), error.hint)),
        };
        let profile = terms.profile();
        let (is_usable, says) = match State::of(profile, &Revocations::default(), now) {
            State::Valid | State::Revoked => return None,
            State::Expiring => (true, format!("ends on {}", timestamp(profile.not_after))),
            State::Expired => (false, format!("ended on {}", timestamp(profile.not_after))),
            State::NotYetValid => {
                let begins = timestamp(profile.not_before);
                (false, format!("is not valid before {begins}"))
            }
        };
        let address = describe(&listener.address);
        let message = format!("the certificate of the listener {address} {says}");
        let hint = "put another in the place of its files: it is taken up without a restart";
        Some(match is_usable {
            true => Finding::warning(message, hint),
            false => Finding::error(message, hint),
        })
    };
    config.listeners.iter().filter_map(found).collect()
}

/// What is wrong with revocation lists, as far as it can be told without fetching any.
pub(super) fn of_lists(revocations: &Revocations) -> Vec<Finding> {
    let mut found = Vec::new();
    for list in revocations.lists() {
        match (&list.problem, &list.crl) {
            (Some(problem), _) => found.push(Finding::warning(
                format!("revocation list {}: {problem}", list.source),
                problem.hint(),
            )),
            (None, None) => found.push(Finding::note(
                format!("revocation list {}: not fetched yet", list.source),
                "`relais serve` fetches it and keeps it in revocation.cache",
            )),
            (None, Some(_)) => {}
        }
    }
    found
}

/// What the choice of certificates will not do.
pub(super) fn of_table(table: &Table, broken: &mut Broken) -> Vec<Finding> {
    broken.by_certificates(table);
    broken.by_bindings(table);
    broken.by_trust(table);
    let mut unserved = BTreeMap::new();
    let mut found = Vec::new();
    let tenants = tenants(table);
    let is_shown =
        |one: &&(usize, &Arc<Offered>)| one.1.service.certificate != WantedCertificate::None;
    let services: Vec<_> = table.services().iter().enumerate().collect();
    for (index, offered) in services.iter().filter(is_shown) {
        let service = &offered.service;
        for tenant in &tenants {
            match table.choose(*tenant, *index) {
                Ok(_) => {}
                Err(Refusal::Missing { .. }) => unserved
                    .entry(*index)
                    .or_insert_with(Vec::new)
                    .push(*tenant),
                Err(refusal @ Refusal::Unbound(_)) => found.push(Finding::error(
                    format!("{tenant} cannot use {}: {refusal}", service.name),
                    "put it in the folder, or correct the binding",
                )),
                Err(refusal) => broken.by_refusal(*tenant, &service.name, &refusal),
            }
        }
    }
    let missing = unserved
        .into_iter()
        .map(|(index, tenants)| without(&table.services()[index].service, &tenants));
    found.extend(missing);
    found.extend(sites_without_sector(table));
    if table.generations().is_empty() && services.iter().any(|one| is_shown(&one)) {
        found.push(Finding::error(
            "no certificate of a structure is loaded",
            "put certificates and keys into identities.directory",
        ));
    }
    found
}

/// Whom callers are to speak for and nobody knows here.
pub(super) fn of_callers(callers: &[Caller], table: &Table) -> Vec<Finding> {
    let mut found = Vec::new();
    for caller in callers {
        let mut unknown: Vec<_> = (caller.tenants.listed.iter())
            .filter(|tenant| !table.knows(**tenant))
            .map(ToString::to_string)
            .collect();
        if !unknown.is_empty() {
            unknown.sort_unstable();
            let unknown = unknown.join(", ");
            found.push(Finding::warning(
                format!(
                    "the caller {caller} may speak for {unknown}, of whom nothing is known here"
                ),
                "correct its tenants, or put their certificates into the folder",
            ));
        }
        let structures = &table.registry().structures;
        for entity in &caller.tenants.legal_entities {
            if structures.sites(*entity) == 0 {
                found.push(Finding::warning(
                    format!("the caller {caller} may speak for the sites of {entity}, of which there are none"),
                    "give the table of structures under [tenants], or list the sites as tenants",
                ));
            }
        }
    }
    found
}

/// Where nothing says that a site is a pharmacy or an SPSTI, its legal entity's certificate is used for it.
fn sites_without_sector(table: &Table) -> Option<Finding> {
    let holders: HashSet<_> = table
        .tenants()
        .into_iter()
        .map(|(finess, _)| finess)
        .collect();
    let structures = table.registry().structures.iter();
    let without = structures.filter(|(finess, structure)| {
        let entity = structure.legal_entity;
        structure.sector.is_none()
            && !holders.contains(finess)
            && entity.is_some_and(|entity| holders.contains(&entity))
    });
    let count = without.count();
    (count > 0).then(|| {
        Finding::note(
            format!("{count} sites of unknown sector use the certificate of their legal entity"),
            "pharmacies (officines) and SPSTI must not: give the `sector` of such sites in the table of structures",
        )
    })
}

/// Whoever has a certificate, or would be expected to use that of its legal entity.
fn tenants(table: &Table) -> Vec<Finess> {
    let mut tenants: Vec<_> = table
        .tenants()
        .into_iter()
        .map(|(finess, _)| finess)
        .collect();
    let holders: HashSet<_> = tenants.iter().copied().collect();
    let sites = (table.registry().structures.iter())
        .filter(|(finess, structure)| {
            !holders.contains(finess)
                && structure
                    .legal_entity
                    .is_some_and(|entity| holders.contains(&entity))
        })
        .map(|(finess, _)| finess);
    tenants.extend(sites);
    tenants.sort_unstable();
    tenants
}

/// The tenants that a service cannot serve for want of a certificate: no mistake, where they do not use it.
fn without(service: &Service, tenants: &[Finess]) -> Finding {
    let named: Vec<_> = tenants
        .iter()
        .take(NAMED_TENANTS)
        .map(ToString::to_string)
        .collect();
    let more = match tenants.len() - named.len() {
        0 => String::new(),
        others => format!(" and {others} others"),
    };
    let message = format!(
        "{}{more} cannot use {}: no {} certificate for {}",
        named.join(", "),
        service.name,
        service.certificate.as_str(),
        service.environment
    );
    Finding::note(message, "")
}
