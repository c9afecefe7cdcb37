//! Which of a structure's certificates may be shown to a service.

use std::sync::Arc;

use crate::identity::generation::Generation;
use crate::identity::profile::{InsiMode, Profile, Usage};
use crate::services::{Service, WantedCertificate};

/// Why none of a structure's certificates may be shown. There is no default to fall back on (invariant 2).
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Two certificates are equally right, and nothing says which is meant.
    #[error("two certificates are equally right: {0} and {1}")]
    Ambiguous(String, String),
    /// The last one that was right has ended.
    #[error("{0} has expired")]
    Expired(String),
    /// There is none of the kind that the service wants.
    #[error("there is no {wanted} certificate for {environment}", wanted = .0.as_str(), environment = .1)]
    Missing(WantedCertificate, crate::services::Environment),
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
        .filter(|one| objection(profile(one), service).is_none())
        .collect();
    if right.is_empty() {
        return Err(why_none(generations, service));
    }
    let begun = |one: &&Arc<Generation>| profile(one).not_before;
    let mut valid: Vec<_> = right
        .iter()
        .copied()
        .filter(|one| is_valid(profile(one), now))
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

/// Why this certificate must not be shown to this service, whatever the time.
fn objection(profile: &Profile, service: &Service) -> Option<String> {
    if profile.usage != Usage::AuthCli {
        return Some(
            "is not an AUTH_CLI certificate (key usage and extended key usage say so)".to_owned(),
        );
    }
    if profile.environment != Some(service.environment) {
        return Some(match profile.environment {
            Some(environment) => format!(
                "is a {environment} certificate, and the service is {}",
                service.environment
            ),
            None => "was not issued by IGC-Santé".to_owned(),
        });
    }
    match (service.certificate, profile.insi) {
        (WantedCertificate::OrgAuthCli, None)
        | (WantedCertificate::InsiAuto, Some(InsiMode::Auto))
        | (WantedCertificate::InsiManu, Some(InsiMode::Manu)) => None,
        (WantedCertificate::OrgAuthCli, Some(_)) => {
            Some("is for INSi alone, as its CN says".to_owned())
        }
        (WantedCertificate::None, _) => {
            Some("is not wanted: the service is shown no certificate".to_owned())
        }
        (WantedCertificate::InsiAuto, _) => {
            Some("has not the CN INSI-AUTO that INSi requires".to_owned())
        }
        (WantedCertificate::InsiManu, _) => {
            Some("has not the CN INSI-MANU that INSi requires".to_owned())
        }
    }
}

fn why_none(generations: &[Arc<Generation>], service: &Service) -> Refusal {
    // One objection is told in full; the command line's check lists them all.
    let objection = generations.iter().find_map(|one| {
        objection(profile(one), service).map(|objection| format!("{} {objection}", described(one)))
    });
    match (objection, generations.len()) {
        (Some(objection), 1) => Refusal::Rule(objection),
        (Some(objection), count) => Refusal::Rule(format!(
            "none of {count} certificates may be shown; for one, {objection}"
        )),
        (None, _) => Refusal::Missing(service.certificate, service.environment),
    }
}

fn profile(generation: &Arc<Generation>) -> &Profile {
    &generation.identity().profile
}

fn is_valid(profile: &Profile, now: i64) -> bool {
    (profile.not_before..profile.not_after).contains(&now)
}

fn described(generation: &Arc<Generation>) -> String {
    let profile = profile(generation);
    let name = profile.common_name.as_deref().unwrap_or("without CN");
    format!("certificate \"{name}\" (serial {})", profile.serial)
}

#[cfg(test)]
pub(crate) mod tests;
