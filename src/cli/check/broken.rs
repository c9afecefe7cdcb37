//! Which rules are broken, by what: each rule is told once, with every case of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::cli::check::findings::Finding;
use crate::config::BoundBy;
use crate::gateway::table::{Table, finess_of};
use crate::identity::finess::Finess;
use crate::identity::generation::Generation;
use crate::identity::profile::{Authority, Profile};
use crate::identity::registry::Registry;
use crate::identity::revocation::Revocations;
use crate::identity::rules::{Rule, Severity};
use crate::identity::select::{Refusal, objection_to_all};
use crate::identity::states::{State, now, timestamp};
use crate::services::{Environment, Owner, Trust, WantedCertificate};

/// Files named where many hold one key; the others are counted.
const NAMED_FILES: usize = 5;

/// Broken rules, each with its cases.
#[derive(Debug, Default)]
pub(super) struct Broken(BTreeMap<Rule, Cases>);

#[derive(Debug, Default)]
struct Cases {
    /// Something that is meant to work will not, however harmless the rule itself.
    is_fatal: bool,
    lines: Vec<String>,
}

impl Broken {
    pub(super) fn add(&mut self, rule: Rule, case: impl Into<String>) {
        self.0.entry(rule).or_default().lines.push(case.into());
    }

    fn add_fatal(&mut self, rule: Rule, case: impl Into<String>) {
        self.add(rule, case);
        if let Some(cases) = self.0.get_mut(&rule) {
            cases.is_fatal = true;
        }
    }

    /// One finding for each rule.
    pub(super) fn into_findings(self) -> impl Iterator<Item = Finding> {
        self.0.into_iter().map(|(rule, cases)| Finding {
            severity: if cases.is_fatal {
                Severity::Error
            } else {
                rule.severity()
            },
            rule: Some(rule.id()),
            message: rule.text().to_owned(),
            cases: cases.lines,
            hint: rule.remedy().to_owned(),
        })
    }

    /// What certificates break by themselves, whatever service they are meant for.
    pub(super) fn by_certificates(&mut self, table: &Table) {
        let environments: BTreeSet<&str> = (table.services().iter())
            .filter(|one| one.service.certificate != WantedCertificate::None)
            .map(|one| one.service.environment.as_str())
            .collect();
        let now = now();
        for generation in table.generations() {
            let identity = generation.identity();
            let profile = &identity.profile;
            let place = identity.path.display();
            if let Some((rule, text)) = objection_to_all(profile) {
                self.add(rule, format!("{place}: {} {text}", named(profile)));
                continue;
            }
            if let Some(own) = profile.environment.map(Environment::as_str)
                && !environments.is_empty()
                && !environments.contains(own)
            {
                let text = format!("{place}: {} is for {own}", named(profile));
                self.add(Rule::Environment, text);
            }
            if let Some((rule, case)) = standing(profile, table.revocations(), now) {
                self.add(rule, format!("{place}: {} {case}", named(profile)));
            }
            self.by_structure(generation, table.registry());
        }
        self.by_shared_keys(table.generations());
    }

    fn by_structure(&mut self, generation: &Generation, registry: &Registry) {
        let identity = generation.identity();
        let place = identity.path.display();
        let structure = identity.profile.structure.as_ref();
        if structure.is_some_and(|structure| registry.is_vendor(structure)) {
            return;
        }
        let Some(finess) = finess_of(generation) else {
            let text = match structure {
                Some(other) => {
                    format!("{place}: {other} is no FINESS number, so no tenant can use it")
                }
                None => format!("{place}: no OU, or several, that name a structure"),
            };
            return self.add(Rule::StructureId, text);
        };
        if !finess.has_valid_key() {
            self.add(Rule::FinessKey, format!("{place}: {finess}"));
        }
        let known = registry.structures.get(finess);
        if let Some(entity) = known.and_then(|known| known.legal_entity)
            && known
                .and_then(|known| known.sector)
                .is_some_and(|sector| sector.site_is_only_tolerated())
        {
            let text = format!("{place}: {finess} is a site of {entity}");
            self.add(Rule::SectorLegalEntity, text);
        }
    }

    fn by_shared_keys(&mut self, generations: &[std::sync::Arc<Generation>]) {
        let mut by_key: HashMap<_, Vec<_>> = HashMap::new();
        for generation in generations {
            let identity = generation.identity();
            by_key
                .entry(identity.profile.public_key)
                .or_default()
                .push(identity);
        }
        let mut shared: Vec<_> = by_key
            .into_values()
            .filter(|users| users.len() > 1)
            .collect();
        shared.sort_by(|one, other| one[0].path.cmp(&other[0].path));
        for users in shared {
            let files: Vec<_> = users
                .iter()
                .take(NAMED_FILES)
                .map(|identity| identity.path.display().to_string())
                .collect();
            let more = match users.len() - files.len() {
                0 => String::new(),
                others => format!(" and {others} others"),
            };
            let text = format!("one key in {}{more}", files.join(" and "));
            self.add(Rule::KeyShared, text);
        }
    }

    /// What is refused to tenants because of a rule; the others are told elsewhere.
    pub(super) fn by_refusal(&mut self, tenant: Finess, service: &str, refusal: &Refusal) {
        let text = format!("{tenant} cannot use {service}: {refusal}");
        match refusal {
            Refusal::Ambiguous(..) => self.add_fatal(Rule::Ambiguous, text),
            Refusal::Ending(_) | Refusal::Expired(_) | Refusal::NotYetValid(_) => {
                self.add_fatal(Rule::Validity, text)
            }
            Refusal::Revoked(_) => self.add_fatal(Rule::Revoked, text),
            // Told of the certificate itself already.
            Refusal::Rule(Rule::AuthCli | Rule::IgcSante | Rule::Environment | Rule::InsiCn, _) => {
            }
            Refusal::Rule(rule, _) | Refusal::Pinned(rule, _) => self.add(*rule, text),
            Refusal::Missing { .. }
            | Refusal::Changing
            | Refusal::Unbound(_)
            | Refusal::Unknown(_) => {}
        }
    }

    /// What bindings break, beyond what they keep tenants from.
    pub(super) fn by_bindings(&mut self, table: &Table) {
        for binding in table.registry().bindings() {
            let owner = table
                .service(&binding.service)
                .map(|(_, one)| one.service.owner);
            // By its CN it may be each tenant's own.
            let is_one = !matches!(binding.certificate, BoundBy::CommonName(_));
            let is_for_all = binding.tenant.is_none() && is_one;
            if is_for_all && owner.is_ok_and(|owner| owner == Owner::Structure) {
                let text = format!(
                    "{} is bound for all tenants to {}",
                    binding.certificate, binding.service
                );
                self.add(Rule::Vendor, text);
            }
        }
        for (fingerprint, clients) in table.shared_clients() {
            let text = format!(
                "SHA-256 {fingerprint} is bound to {}",
                clients.join(" and ")
            );
            self.add(Rule::PscClient, text);
        }
    }

    /// What trust files hold that production should not trust.
    pub(super) fn by_trust(&mut self, table: &Table) {
        let mut looked_at = BTreeSet::new();
        for service in table.services().iter().map(|one| &one.service) {
            let Trust::File(path) = &service.trust else {
                continue;
            };
            if service.environment != Environment::Production || !looked_at.insert(path) {
                continue;
            }
            // That the file is well formed was found out before.
            let Ok(anchors) = CertificateDer::pem_file_iter(path) else {
                continue;
            };
            let profiles = anchors
                .flatten()
                .filter_map(|anchor| Profile::parse(&anchor).ok());
            for profile in profiles {
                let what = match Authority::of(&profile) {
                    Authority::Official | Authority::Other => continue,
                    Authority::Test => "is of the test hierarchy",
                    Authority::Unofficial => "is none of the official authorities",
                };
                let text = format!(
                    "{}: {} (SHA-256 {}) {what}",
                    path.display(),
                    profile.subject,
                    profile.fingerprint
                );
                self.add(Rule::OfficialTrust, text);
            }
        }
    }
}

fn named(profile: &Profile) -> String {
    match &profile.common_name {
        Some(name) => format!("the certificate {name:?}"),
        None => "a certificate without CN".to_owned(),
    }
}

/// What a certificate's state at that moment breaks.
fn standing(profile: &Profile, revocations: &Revocations, now: i64) -> Option<(Rule, String)> {
    let (rule, case) = match State::of(profile, revocations, now) {
        State::Valid => return None,
        State::Revoked => (Rule::Revoked, "is revoked".to_owned()),
        State::Expired => (
            Rule::Validity,
            format!("ended on {}", timestamp(profile.not_after)),
        ),
        State::NotYetValid => (
            Rule::Validity,
            format!("is not valid before {}", timestamp(profile.not_before)),
        ),
        State::Expiring => (
            Rule::Validity,
            format!("ends on {}", timestamp(profile.not_after)),
        ),
    };
    Some((rule, case))
}
