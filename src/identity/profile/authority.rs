//! Whose authority a certificate of an authority is: IGC-Santé's own, its test hierarchy's, or one that only says so.

use std::str::FromStr as _;

use super::{Fingerprint, Profile};
use crate::services::Environment;

/// The production authorities, by the SHA-256 of their certificates, as published on
/// <http://igc-sante.esante.gouv.fr/PC/>. Both end in June 2033.
pub const OFFICIAL: [(&str, &str); 2] = [
    (
        "AC RACINE IGC-SANTE ELEMENTAIRE",
        "2D9E22CA19F777C6B745257C723ECB8DF3C35FA6F1F6EC36B83600C97346967F",
    ),
    (
        "AC IGC-SANTE ELEMENTAIRE ORGANISATIONS",
        "D834EE5B40686B73573F60547BF6052C6D404D942A5665CDB2C0B9137B5D27B2",
    ),
];

/// What is known of an authority's certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Authority {
    /// One of [`OFFICIAL`].
    Official,
    /// Of the test hierarchy, by its name.
    Test,
    /// It bears the name of IGC-Santé's production hierarchy and is not one of those known.
    Unofficial,
    /// It has nothing to do with IGC-Santé.
    Other,
}

impl Authority {
    /// Tells what an authority's certificate is.
    pub fn of(profile: &Profile) -> Self {
        let is_official = |(_, pinned): &(_, &str)| {
            Fingerprint::from_str(pinned).is_ok_and(|pinned| pinned == profile.fingerprint)
        };
        if OFFICIAL.iter().any(is_official) {
            return Self::Official;
        }
        match profile.hierarchy {
            Some(Environment::Production) => Self::Unofficial,
            Some(Environment::Test) => Self::Test,
            None => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::pki::shared;

    fn of(der: &[u8]) -> Authority {
        Authority::of(&Profile::parse(der).unwrap())
    }

    #[test]
    fn authorities_that_only_bear_the_name_are_not_official() {
        assert_eq!(of(shared::PRODUCTION.root_der()), Authority::Unofficial);
        assert_eq!(of(shared::PRODUCTION.issuing_der()), Authority::Unofficial);
        assert_eq!(of(shared::TEST.root_der()), Authority::Test);
    }

    #[test]
    fn the_pinned_certificates_are_official_whatever_they_say() {
        let mut profile = Profile::parse(shared::TEST.root_der()).unwrap();
        for (_, pinned) in OFFICIAL {
            profile.fingerprint = pinned.parse().unwrap();
            assert_eq!(Authority::of(&profile), Authority::Official);
        }
    }
}
