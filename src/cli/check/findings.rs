//! What a check finds, and how bad it is.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::config;
use crate::gateway::table::{Table, finess_of};
use crate::identity::finess::Finess;
use crate::identity::load;
use crate::identity::profile::Usage;
use crate::identity::select::Refusal;
use crate::services::WantedCertificate;

/// Tenants named in a finding about many; the others are counted.
const NAMED_TENANTS: usize = 5;

/// How bad a finding is. The order is from bad to harmless.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// Something that is meant to work will not.
    Error,
    /// Something may not be meant.
    Warning,
    /// Something to know.
    Note,
}

/// One thing found.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    /// Where and what.
    pub(super) message: String,
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
            message: message.into(),
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
        let severity = if problem.is_warning() {
            Severity::Warning
        } else {
            Severity::Error
        };
        let message = format!("{}: {}", problem.path.display(), problem.kind);
        Self {
            severity,
            message,
            hint: problem.hint.clone(),
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

/// What the choice of certificates will not do.
pub(super) fn of_table(table: &Table) -> Vec<Finding> {
    let mut found = Vec::new();
    for generation in table.generations() {
        let identity = generation.identity();
        let place = identity.path.display();
        if identity.profile.usage != Usage::AuthCli {
            found.push(Finding::warning(
                format!(
                    "{place}: a certificate for {}, which opens no TLS connection",
                    identity.profile.usage
                ),
                "keep it out of this folder: only AUTH_CLI certificates are shown to services",
            ));
        } else if finess_of(generation).is_none() {
            found.push(Finding::warning(
                format!("{place}: the certificate names no structure by a FINESS number, so no tenant can use it"),
                "its OU should be 1 and the FINESS number",
            ));
        } else if let Some(finess) = finess_of(generation).filter(|finess| !finess.has_valid_key())
        {
            found.push(Finding::note(
                format!("{place}: the last digit of FINESS {finess} is not the key of the others"),
                "some real numbers are like that; compare it with the FINESS register",
            ));
        }
        if let Some(mode) = identity.profile.insi_near_miss() {
            found.push(Finding::warning(
                format!("{place}: the CN looks like {mode} without being it to the letter, so INSi will refuse it"),
                "INSi wants the CN in capitals, with a plain hyphen and no space: order the certificate again",
            ));
        }
    }
    found.extend(refusals(table));
    found
}

/// Refusals by service: those that many tenants share are told once.
fn refusals(table: &Table) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut unserved: BTreeMap<&str, Vec<Finess>> = BTreeMap::new();
    let tenants = table.tenants();
    for (finess, _) in &tenants {
        for (index, offered) in table.services().iter().enumerate() {
            let service = &offered.service;
            match table.choose(*finess, index) {
                Ok(_) => {}
                Err(Refusal::Missing { .. }) => unserved.entry(&service.name).or_default().push(*finess),
                Err(refusal @ Refusal::Rule(_)) => found.push(Finding::warning(
                    format!("{finess} cannot use {}: {refusal}", service.name),
                    "order the certificate that the service wants, or keep this one out of the folder",
                )),
                Err(refusal) => found.push(Finding::error(
                    format!("{finess} cannot use {}: {refusal}", service.name),
                    "until then its requests are refused",
                )),
            }
        }
    }
    for offered in table.services() {
        let service = &offered.service;
        let Some(without) = unserved.get(&*service.name) else {
            continue;
        };
        let wanted = service.certificate.as_str();
        let named: Vec<_> = without
            .iter()
            .take(NAMED_TENANTS)
            .map(ToString::to_string)
            .collect();
        let others = without.len() - named.len();
        let more = if others > 0 {
            format!(" and {others} others")
        } else {
            String::new()
        };
        found.push(Finding::note(
            format!(
                "{}{more} cannot use {}: no {wanted} certificate for {}",
                named.join(", "),
                service.name,
                service.environment
            ),
            "",
        ));
    }
    let wants = |one: &crate::services::Service| one.certificate != WantedCertificate::None;
    if tenants.is_empty()
        && table
            .services()
            .iter()
            .any(|offered| wants(&offered.service))
    {
        found.push(Finding::error(
            "no certificate of a structure is loaded",
            "put certificates and keys into identities.directory",
        ));
    }
    found
}
