//! What a request asks for, in the layout of IGC-Santé's organisation certificates:
//! `C=FR, ST=<department>, O=<structure>, OU=1<FINESS>, CN=<service name>`, in this order.
//!
//! The platform replaces all but the key by what its register says, so ST and O may be left out.

use std::str::FromStr;

use rcgen::{DistinguishedName, DnType, DnValue};
use thiserror::Error;

use crate::identity::finess::Finess;
use crate::identity::profile::InsiMode;
use crate::identity::structure::StructureId;

/// The name that is asked for.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The structure, whose number goes into the OU.
    pub finess: Finess,
    /// The CN.
    pub service_name: ServiceName,
    /// The O: the structure's name.
    pub organization: Option<Organization>,
    /// The ST: the structure's department, such as `Paris (75)`.
    pub department: Option<Department>,
}

/// A text of at most so many characters, without control characters and without blanks at either end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Text<const MOST: usize>(String);

/// 64 is X.520's upper bound for an organisation name.
pub type Organization = Text<64>;

/// 128 is X.520's upper bound for a state or province name.
pub type Department = Text<128>;

/// The name of the application, or exactly `INSI-AUTO` or `INSI-MANU`: what goes into the platform's field
/// "Service applicatif" and becomes the CN. 64 is X.520's upper bound for a common name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServiceName(Text<64>);

/// Why a text does not go into a certificate.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum TextError {
    /// Nothing.
    #[error("it is empty")]
    Empty,
    /// Blanks that nobody sees, and that services compare.
    #[error("it begins or ends with a blank: leave that out")]
    Blank,
    /// A line break, a tab, or worse.
    #[error("it has a control character: leave that out")]
    Control,
    /// Longer than X.520 allows.
    #[error("it has {found} characters, and certificates take at most {most}: shorten it")]
    TooLong {
        /// Its length.
        found: usize,
        /// The most allowed.
        most: usize,
    },
    /// Almost a name that INSi compares to the letter.
    #[error("INSi takes {0} and nothing that only looks like it: did you mean {0}?")]
    NearMiss(InsiMode),
}

/// A warning of a number that may have been mistyped. The register has some like that, too.
pub fn doubt(finess: Finess) -> Option<String> {
    (!finess.has_valid_key()).then(|| {
        format!(
            "the last digit of FINESS {finess} is not the key of the others: compare it with the register"
        )
    })
}

impl<const MOST: usize> Text<MOST> {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MOST: usize> FromStr for Text<MOST> {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        let found = text.chars().count();
        if text.is_empty() {
            Err(TextError::Empty)
        } else if text.chars().any(char::is_control) {
            Err(TextError::Control)
        } else if text.trim() != text {
            Err(TextError::Blank)
        } else if found > MOST {
            Err(TextError::TooLong { found, most: MOST })
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

impl FromStr for ServiceName {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        match InsiMode::near_miss(text) {
            Some(mode) => Err(TextError::NearMiss(mode)),
            None => text.parse().map(Self),
        }
    }
}

impl ServiceName {
    /// The CN.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl Subject {
    /// The name as certificates have it: UTF8String, but for the country, which X.520 wants as a PrintableString.
    pub(super) fn distinguished_name(&self) -> DistinguishedName {
        let mut name = DistinguishedName::new();
        let country = "FR".try_into().expect("letters are printable");
        name.push(DnType::CountryName, DnValue::PrintableString(country));
        if let Some(Text(department)) = &self.department {
            name.push(DnType::StateOrProvinceName, department.as_str());
        }
        if let Some(Text(organization)) = &self.organization {
            name.push(DnType::OrganizationName, organization.as_str());
        }
        let structure = StructureId::from(self.finess).to_string();
        name.push(DnType::OrganizationalUnitName, structure);
        name.push(DnType::CommonName, self.service_name.as_str());
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> TextError {
        text.parse::<ServiceName>().unwrap_err()
    }

    #[test]
    fn insi_names_are_taken_to_the_letter_alone() {
        for exact in [
            "INSI-AUTO",
            "INSI-MANU",
            "Proxy DMP CHU Nantes",
            "INSI-AUTO 2",
        ] {
            assert_eq!(exact.parse::<ServiceName>().unwrap().as_str(), exact);
        }
        for near in [
            "insi-auto",
            "INSI_AUTO",
            "INSI-AUTO ",
            "INSI\u{2013}AUTO",
            "INSI AUTO",
        ] {
            assert_eq!(
                refusal(near),
                TextError::NearMiss(InsiMode::Auto),
                "{near:?}"
            );
            assert!(
                refusal(near)
                    .to_string()
                    .contains("did you mean INSI-AUTO?")
            );
        }
        assert_eq!(refusal("insi manu"), TextError::NearMiss(InsiMode::Manu));
    }

    #[test]
    fn what_nobody_would_see_is_refused() {
        assert_eq!(refusal(""), TextError::Empty);
        assert_eq!(refusal(" "), TextError::Blank);
        assert_eq!(refusal("DUI "), TextError::Blank);
        assert_eq!(refusal("\u{a0}DUI"), TextError::Blank);
        assert_eq!(refusal("DUI\n"), TextError::Control);
        assert_eq!(refusal("D\0UI"), TextError::Control);
    }

    #[test]
    fn lengths_are_those_of_x520_in_characters() {
        assert!("é".repeat(64).parse::<ServiceName>().is_ok());
        let error = refusal(&"é".repeat(200));
        assert_eq!(
            error,
            TextError::TooLong {
                found: 200,
                most: 64
            }
        );
        assert!("é".repeat(65).parse::<Organization>().is_err());
        assert!("é".repeat(128).parse::<Department>().is_ok());
        assert!("é".repeat(129).parse::<Department>().is_err());
    }
}
