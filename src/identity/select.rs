//! Which of several certificates may be shown to a service, and which of those is.

use std::sync::Arc;

use crate::identity::clock::Validity;
use crate::identity::finess::Finess;
use crate::identity::generation::Generation;
use crate::identity::profile::{InsiMode, Offer, Profile, Usage};
use crate::identity::registry::Relation;
use crate::identity::revocation::Revocations;
use crate::identity::rules::Rule;
use crate::services::{Environment, Owner, Service, WantedCertificate};

/// Why none of a structure's certificates may be shown. There is no default to fall back on.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Two certificates are equally right, and nothing says which is meant.
    #[error("two certificates are equally right: {0} and {1}")]
    Ambiguous(String, String),
    /// The last one that was right is about to end.
    #[error("{0} ends within identities.retire_before_expiry")]
    Ending(String),
    /// The last one that was right has ended.
    #[error("{0} has expired")]
    Expired(String),
    /// There is none of the kind that the service wants.
    #[error(
        "there is no {} certificate for {environment}{}{}", wanted.as_str(), of_entity(.legal_entity), aside(.passed_over)
    )]
    Missing {
        /// What the service wants.
        wanted: WantedCertificate,
        /// The environment that it is in.
        environment: Environment,
        /// The structure's legal entity, which has none either.
        legal_entity: Option<Finess>,
        /// A certificate of another kind that the structure does have, and why it does not serve.
        passed_over: Option<String>,
    },
    /// The only ones of the right kind have not begun.
    #[error("{0} is not valid yet")]
    NotYetValid(String),
    /// The only ones of the right kind are revoked.
    #[error("{0} is revoked")]
    Revoked(String),
    /// There are certificates, but a rule keeps each of them from this service.
    #[error("{1}")]
    Rule(Rule, String),
    /// A rule keeps the certificate that is pinned from this service.
    #[error("{1}")]
    Pinned(Rule, String),
    /// A certificate began or ended a moment ago, and another is being chosen.
    #[error("a certificate began or ended this very moment, and another is being chosen")]
    Changing,
    /// A certificate is pinned that is not loaded.
    #[error("the certificate that [[bindings]] names for this is not loaded: {0}")]
    Unbound(String),
    /// No such structure is known.
    #[error("no certificate of structure {0} is loaded, nor one of its legal entity")]
    Unknown(Finess),
}

impl Refusal {
    /// Whether the certificate of the legal entity may be used instead: there is none of the structure's own that was
    /// ever right here. One that has ended, is revoked or cannot be told from another is a mistake to mend, and no
    /// reason to appear under another identity.
    pub fn gives_way(&self) -> bool {
        matches!(
            self,
            Self::Missing { .. } | Self::NotYetValid(_) | Self::Rule(..) | Self::Unknown(_)
        )
    }
}

/// Certificates to choose among, and for whom.
pub struct Choice<'a> {
    /// The service that one of them is for.
    pub service: &'a Service,
    /// The moment, in seconds since 1970.
    pub now: i64,
    /// Which certificates are in their time.
    pub validity: &'a Validity,
    /// What is revoked.
    pub revocations: &'a Revocations,
    /// What a certificate's structure is to the tenant.
    pub relation: &'a dyn Fn(&Profile) -> Relation,
}

impl std::fmt::Debug for Choice<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Choice")
            .field("service", &self.service.name)
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

impl Choice<'_> {
    /// Picks one certificate: of those that may be shown, the tenant's own before its legal entity's before the
    /// éditeur's, and of several the latest that has begun.
    ///
    /// # Errors
    /// Why there is none, or that two cannot be told apart.
    pub fn among<'g>(
        &self,
        generations: &'g [Arc<Generation>],
    ) -> Result<&'g Arc<Generation>, Refusal> {
        let right: Vec<_> = generations
            .iter()
            .filter(|one| self.objection(profile(one)).is_none())
            .collect();
        if right.is_empty() {
            return Err(self.why_none(generations));
        }
        let rank = |one: &&Arc<Generation>| {
            let begun = profile(one).not_before;
            ((self.relation)(profile(one)), std::cmp::Reverse(begun))
        };
        let mut valid: Vec<_> = right
            .iter()
            .copied()
            .filter(|one| {
                self.validity.holds(profile(one).dates(), self.now) && !self.is_revoked(one)
            })
            .collect();
        // The sort keeps the order of ties, so which two are named does not change from one request to the next.
        valid.sort_by_key(rank);
        // Only a tie for the first place is one: older certificates are kept beside a renewal, copies included.
        if let [first, second, ..] = valid[..]
            && rank(&first) == rank(&second)
        {
            return Err(Refusal::Ambiguous(described(first), described(second)));
        }
        valid
            .first()
            .copied()
            .ok_or_else(|| self.why_not_now(&right))
    }

    fn is_revoked(&self, generation: &Arc<Generation>) -> bool {
        self.revocations.is_revoked(profile(generation))
    }

    /// Why a certificate must not be shown, whatever the time.
    fn objection(&self, profile: &Profile) -> Option<Objection> {
        let service = self.service;
        let standing = || objection_to_holder((self.relation)(profile), service.owner);
        objection(profile, service.certificate, service.environment).or_else(standing)
    }

    fn why_not_now(&self, right: &[&Arc<Generation>]) -> Refusal {
        let early = right.iter().find(|one| profile(one).not_before > self.now);
        let revoked = right.iter().find(|one| self.is_revoked(one));
        let ending = right.iter().find(|one| profile(one).is_valid_at(self.now));
        match (revoked, ending, early) {
            (Some(revoked), ..) => Refusal::Revoked(described(revoked)),
            (None, Some(ending), _) => Refusal::Ending(described(ending)),
            (None, None, Some(early)) => Refusal::NotYetValid(described(early)),
            (None, None, None) => Refusal::Expired(described(right[0])),
        }
    }

    /// Of several objections one is told, a forbidden certificate before one of another kind: it is the one that
    /// somebody expected to work. The command line's check lists them all.
    fn why_none(&self, generations: &[Arc<Generation>]) -> Refusal {
        let mut passed_over = None;
        for one in generations {
            match self.objection(profile(one)) {
                Some(Objection::Rule(rule, text)) => {
                    return Refusal::Rule(rule, format!("{} {text}", described(one)));
                }
                Some(Objection::OtherKind(kind)) => {
                    passed_over.get_or_insert_with(|| format!("{} {kind}", described(one)));
                }
                None => {}
            }
        }
        Refusal::Missing {
            wanted: self.service.certificate,
            environment: self.service.environment,
            legal_entity: None,
            passed_over,
        }
    }
}

/// Why a certificate must not be shown to a service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Objection {
    /// It is meant for other services; the right one is simply not there.
    OtherKind(&'static str),
    /// A rule forbids it.
    Rule(Rule, String),
}

impl Objection {
    /// The end of a sentence that begins with the certificate.
    pub fn as_str(&self) -> &str {
        match self {
            Self::OtherKind(text) => text,
            Self::Rule(_, text) => text,
        }
    }
}

/// Why this certificate must not be shown to a service that wants `wanted` in `environment`, whatever the time and
/// the tenant.
pub fn objection(
    profile: &Profile,
    wanted: WantedCertificate,
    environment: Environment,
) -> Option<Objection> {
    if let Some((rule, text)) = objection_to_all(profile) {
        return Some(Objection::Rule(rule, text));
    }
    if let Some(own) = profile.environment.filter(|own| *own != environment) {
        let text = format!("is a {own} certificate, and the service is {environment}");
        return Some(Objection::Rule(Rule::Environment, text));
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

/// The rule that keeps a certificate from every service, and the end of a sentence that begins with the certificate.
pub fn objection_to_all(profile: &Profile) -> Option<(Rule, String)> {
    if profile.usage != Usage::AuthCli {
        let text = format!(
            "is for {} by its key usage, and only AUTH_CLI opens TLS connections",
            profile.usage
        );
        return Some((Rule::AuthCli, text));
    }
    if let Some(offer) = profile.offer.filter(|offer| *offer != Offer::Org) {
        let text = format!("is of the offer {offer}, and only ORG AUTH_CLI opens TLS connections");
        return Some((Rule::AuthCli, text));
    }
    if profile.environment.is_none() {
        return Some((Rule::IgcSante, "was not issued by IGC-Santé".to_owned()));
    }
    let mode = profile.insi_near_miss()?;
    let text = format!("was meant for INSi and is not {mode} to the letter");
    Some((Rule::InsiCn, text))
}

/// Why a certificate of a structure that is this to the tenant must not be shown where `owner` says whose it may be.
fn objection_to_holder(relation: Relation, owner: Owner) -> Option<Objection> {
    let (rule, text) = match (relation, owner) {
        (Relation::Own | Relation::LegalEntity, _) | (Relation::Vendor, Owner::Vendor) => {
            return None;
        }
        (Relation::SilentLegalEntity, _) => (
            Rule::SectorSite,
            "is the legal entity's, which does not speak for its sites in this sector",
        ),
        (Relation::Vendor, Owner::Structure) => (
            Rule::Vendor,
            "is the éditeur's, and the service wants the structure's own",
        ),
        (Relation::Stranger, _) => (
            Rule::OwnStructure,
            "is neither the tenant's own nor that of its legal entity",
        ),
    };
    Some(Objection::Rule(rule, text.to_owned()))
}

fn aside(passed_over: &Option<String>) -> String {
    passed_over
        .as_ref()
        .map_or_else(String::new, |text| format!("; {text}"))
}

fn of_entity(legal_entity: &Option<Finess>) -> String {
    legal_entity.map_or_else(String::new, |entity| {
        format!(", nor has its legal entity {entity} one")
    })
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
