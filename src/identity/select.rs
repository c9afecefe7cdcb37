//! Which of a structure's certificates may be shown to a service.

use std::sync::Arc;

use crate::identity::generation::Generation;
use crate::identity::profile::{InsiMode, Profile, Usage};
use crate::services::{Environment, Service, WantedCertificate};

/// Why none of a structure's certificates may be shown. There is no default to fall back on.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Two certificates are equally right, and nothing says which is meant.
    #[error("two certificates are equally right: {0} and {1}")]
    Ambiguous(String, String),
    /// The last one that was right has ended.
    #[error("{0} has expired")]
    Expired(String),
    /// There is none of the kind that the service wants.
    #[error("there is no {} certificate for {environment}{}", wanted.as_str(), aside(.passed_over))]
    Missing {
        /// What the service wants.
        wanted: WantedCertificate,
        /// The environment that it is in.
        environment: Environment,
        /// A certificate of another kind that the structure does have, and why it does not serve.
        passed_over: Option<String>,
    },
    /// The only ones of the right kind have not begun.
    #[error("{0} is not valid yet")]
    NotYetValid(String),
    /// There are certificates, but a rule keeps each of them from this service.
    #[error("{0}")]
    Rule(String),
}

/// Picks the certificate for `service` among those of one structure: the latest that has begun.
///
/// # Errors
/// Why there is none, or that two cannot be told apart.
pub fn select<'a>(
    generations: &'a [Arc<Generation>],
    service: &Service,
    now: i64,
) -> Result<&'a Arc<Generation>, Refusal> {
    let right: Vec<_> = generations
        .iter()
        .filter(|one| suits(profile(one), service))
        .collect();
    if right.is_empty() {
        return Err(why_none(generations, service));
    }
    let begun = |one: &&Arc<Generation>| profile(one).not_before;
    let mut valid: Vec<_> = right
        .iter()
        .copied()
        .filter(|one| profile(one).is_valid_at(now))
        .collect();
    // The sort keeps the order of ties, so which two are named does not change from one request to the next.
    valid.sort_by_key(|one| std::cmp::Reverse(begun(one)));
    // Only a tie for the first place is one: older certificates are kept beside a renewal, copies included.
    if let [first, second, ..] = valid[..]
        && begun(&first) == begun(&second)
    {
        return Err(Refusal::Ambiguous(described(first), described(second)));
    }
    let latest = valid.first().copied();
    latest.ok_or_else(
        || match right.iter().find(|one| profile(one).not_before > now) {
            Some(early) => Refusal::NotYetValid(described(early)),
            None => Refusal::Expired(described(right[0])),
        },
    )
}

fn suits(profile: &Profile, service: &Service) -> bool {
    objection(profile, service.certificate, service.environment).is_none()
}

/// Why a certificate must not be shown to a service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Objection {
    /// It is meant for other services; the right one is simply not there.
    OtherKind(&'static str),
    /// A rule forbids it.
    Rule(String),
}

impl Objection {
    /// The end of a sentence that begins with the certificate.
    pub fn as_str(&self) -> &str {
        match self {
            Self::OtherKind(text) => text,
            Self::Rule(text) => text,
        }
    }
}

/// Why this certificate must not be shown to a service that wants `wanted` in `environment`, whatever the time.
pub fn objection(
    profile: &Profile,
    wanted: WantedCertificate,
    environment: Environment,
) -> Option<Objection> {
    if profile.usage != Usage::AuthCli {
        let usage = profile.usage;
        return Some(Objection::Rule(format!(
            "is for {usage} by its key usage, and only AUTH_CLI opens TLS connections"
        )));
    }
    if profile.environment != Some(environment) {
        return Some(Objection::Rule(match profile.environment {
            Some(own) => format!("is a {own} certificate, and the service is {environment}"),
            None => "was not issued by IGC-Santé".to_owned(),
        }));
    }
    if let Some(mode) = profile.insi_near_miss() {
        return Some(Objection::Rule(format!(
            "was meant for INSi and is not {mode} to the letter: it has to be ordered again"
        )));
    }
    let other = match (wanted, profile.insi) {
        (WantedCertificate::OrgAuthCli, None)
        | (WantedCertificate::InsiAuto, Some(InsiMode::Auto))
        | (WantedCertificate::InsiManu, Some(InsiMode::Manu)) => return None,
        (WantedCertificate::OrgAuthCli, Some(_)) => "is for INSi alone, as its CN says",
        (WantedCertificate::None, _) => "is not wanted: the service is shown no certificate",
        (WantedCertificate::InsiAuto, _) => "has not the CN INSI-AUTO that INSi requires",
        (WantedCertificate::InsiManu, _) => "has not the CN INSI-MANU that INSi requires",
    };
    Some(Objection::OtherKind(other))
}

/// Of several objections one is told, a forbidden certificate before one of another kind: it is the one that
/// somebody expected to work. The command line's check lists them all.
fn why_none(generations: &[Arc<Generation>], service: &Service) -> Refusal {
    let mut passed_over = None;
    for one in generations {
        match objection(profile(one), service.certificate, service.environment) {
            Some(Objection::Rule(rule)) => {
                return Refusal::Rule(format!("{} {rule}", described(one)));
            }
            Some(Objection::OtherKind(kind)) => {
                passed_over.get_or_insert_with(|| format!("{} {kind}", described(one)));
            }
            None => {}
        }
    }
    Refusal::Missing {
        wanted: service.certificate,
        environment: service.environment,
        passed_over,
    }
}

fn aside(passed_over: &Option<String>) -> String {
    passed_over
        .as_ref()
        .map_or_else(String::new, |text| format!("; {text}"))
}

fn profile(generation: &Arc<Generation>) -> &Profile {
    &generation.identity().profile
}

fn described(generation: &Arc<Generation>) -> String {
    let profile = profile(generation);
    let name = profile.common_name.as_deref().unwrap_or("without CN");
    format!("certificate \"{name}\" (serial {})", profile.serial)
}

#[cfg(test)]
pub(crate) mod tests;
