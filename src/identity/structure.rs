//! National structure identifiers (idNat_Struct): a type digit and a number, as the OU of a certificate carries them.
//!
//! Shapes are checked, check digits are not: La Poste's SIRET numbers and some FINESS ones break Luhn's rule.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::finess::{Finess, FinessError};

/// Which register a structure's number comes from (nomenclature TRE_G07).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum StructureKind {
    /// `0`: a practice known by its practitioner's ADELI number and a rank.
    Adeli,
    /// `1`: a FINESS number; the digit does not say whether of a legal entity or of a site.
    Finess,
    /// `2`: a SIREN number.
    Siren,
    /// `3`: a SIRET number.
    Siret,
    /// `4`: a practice known by its practitioner's RPPS number and a rank.
    Rpps,
}

impl StructureKind {
    /// The digit that starts the OU.
    pub fn digit(self) -> char {
        match self {
            Self::Adeli => '0',
            Self::Finess => '1',
            Self::Siren => '2',
            Self::Siret => '3',
            Self::Rpps => '4',
        }
    }

    /// The register's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Adeli => "ADELI",
            Self::Finess => "FINESS",
            Self::Siren => "SIREN",
            Self::Siret => "SIRET",
            Self::Rpps => "RPPS",
        }
    }

    fn from_digit(digit: char) -> Option<Self> {
        [
            Self::Adeli,
            Self::Finess,
            Self::Siren,
            Self::Siret,
            Self::Rpps,
        ]
        .into_iter()
        .find(|kind| kind.digit() == digit)
    }
}

/// The structure that a certificate speaks for.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct StructureId {
    /// The register.
    pub kind: StructureKind,
    /// The number in it, without the type digit.
    pub number: Box<str>,
}

/// Why a text is not a structure identifier.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum StructureIdError {
    /// Nothing at all.
    #[error(
        "a structure identifier is empty; a type digit and a number are expected, such as `1060785003`"
    )]
    Empty,
    /// It starts with something other than a known type digit.
    #[error(
        "a structure identifier starts with {0:?}; \
         0 (ADELI), 1 (FINESS), 2 (SIREN), 3 (SIRET) or 4 (RPPS) is expected"
    )]
    Kind(char),
    /// A FINESS number of the wrong shape.
    #[error("after the type digit 1: {0}")]
    Finess(#[from] FinessError),
    /// A number of another register, of the wrong shape.
    #[error("after the type digit {digit}: {expected}", digit = .0.digit(), expected = expected_shape(*.0))]
    Number(StructureKind),
}

fn expected_shape(kind: StructureKind) -> &'static str {
    match kind {
        StructureKind::Adeli => {
            "an ADELI number and its rank are 9 to 11 digits, of which the second may be a letter"
        }
        StructureKind::Finess => "a FINESS number has 9 characters",
        StructureKind::Siren => "a SIREN number has 9 digits",
        StructureKind::Siret => "a SIRET number has 14 digits",
        StructureKind::Rpps => "an RPPS number and its rank have 14 digits (11 and 3)",
    }
}

impl StructureId {
    /// Reads the text of an OU, such as `1060785003` or `339172288100052`.
    pub fn parse(text: &str) -> Result<Self, StructureIdError> {
        let digit = text.chars().next().ok_or(StructureIdError::Empty)?;
        let kind = StructureKind::from_digit(digit).ok_or(StructureIdError::Kind(digit))?;
        let number = &text[1..];
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        let right = match kind {
            StructureKind::Finess => {
                Finess::parse(number)?;
                true
            }
            // Departments may be `2A` and `2B`, as in FINESS numbers.
            StructureKind::Adeli => {
                (9..=11).contains(&number.len())
                    && number.bytes().enumerate().all(|(index, b)| {
                        b.is_ascii_digit() || (index == 1 && b.is_ascii_uppercase())
                    })
            }
            StructureKind::Siren => number.len() == 9 && digits(number),
            StructureKind::Siret | StructureKind::Rpps => number.len() == 14 && digits(number),
        };
        if !right {
            return Err(StructureIdError::Number(kind));
        }
        Ok(Self {
            kind,
            number: number.into(),
        })
    }

    /// Its FINESS number, if that is what it is.
    pub fn finess(&self) -> Option<Finess> {
        match self.kind {
            StructureKind::Finess => Finess::parse(&self.number).ok(),
            StructureKind::Adeli
            | StructureKind::Siren
            | StructureKind::Siret
            | StructureKind::Rpps => None,
        }
    }
}

impl From<Finess> for StructureId {
    fn from(finess: Finess) -> Self {
        Self {
            kind: StructureKind::Finess,
            number: finess.as_str().into(),
        }
    }
}

impl FromStr for StructureId {
    type Err = StructureIdError;

    fn from_str(text: &str) -> Result<Self, StructureIdError> {
        Self::parse(text)
    }
}

impl fmt::Debug for StructureId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for StructureId {
    /// The OU's text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.kind.digit(), self.number)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_every_register_and_gives_the_ou_back() {
        for (text, kind) in [
            ("0061234567", StructureKind::Adeli),
            ("02A123456701", StructureKind::Adeli),
            ("1060785003", StructureKind::Finess),
            ("10B0127189", StructureKind::Finess),
            ("2391722881", StructureKind::Siren),
            ("339172288100052", StructureKind::Siret),
            ("499700735741008", StructureKind::Rpps),
        ] {
            let id = StructureId::parse(text).unwrap();
            assert_eq!(id.kind, kind);
            assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn only_a_finess_structure_has_a_finess_number() {
        let finess = StructureId::parse("10B0127189").unwrap().finess();
        assert_eq!(finess, Some(Finess::parse("0B0127189").unwrap()));
        // Nine digits as well, of another register.
        assert_eq!(StructureId::parse("2060785003").unwrap().finess(), None);
    }

    #[test]
    fn refuses_what_authority_names_and_dummies_carry() {
        for text in [
            "",
            "0002 187512751",
            "IGC-SANTE",
            "33333333333",
            "1060785003 ",
            "12a0000154",
            "2B1234567",
            "5060785003",
            "é60785003",
            "4123",
        ] {
            let error = StructureId::parse(text).unwrap_err();
            assert!(error.to_string().len() < 250, "{error}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_displays_what_it_parsed(text in "[0-5]?\\PC{0,15}") {
            if let Ok(id) = StructureId::parse(&text) {
                prop_assert_eq!(id.to_string(), text);
                let _ = id.finess();
            }
        }

        #[test]
        fn accepts_every_well_shaped_identifier(
            text in "1[0-9][0-9A-Z][0-9]{7}|2[0-9]{9}|[34][0-9]{14}|0[0-9]{9,11}"
        ) {
            prop_assert_eq!(StructureId::parse(&text).unwrap().to_string(), text);
        }
    }
}
