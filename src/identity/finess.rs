//! FINESS numbers, as tenants are named and as the OU of a certificate carries them.
//!
//! The shape is strict, because a tenant is chosen by comparing these nine characters. The key (the last digit) is
//! not: numbers with a wrong key exist in the field, so [`Finess::has_valid_key`] is for warnings alone.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use thiserror::Error;

/// A FINESS number whose shape has been checked: a department of two characters, then seven digits.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
pub struct Finess([u8; 9]);

impl Hash for Finess {
    /// In two steps instead of one for each character: every request is looked up by it, several times.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [first @ .., last] = self.0;
        state.write_u64(u64::from_ne_bytes(first));
        state.write_u8(last);
    }
}

/// Why a text is not a FINESS number.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum FinessError {
    /// Not nine characters.
    #[error(
        "a FINESS number has 9 characters, {0} found; leading zeros count, and the OU's type digit `1` is no part of it"
    )]
    Length(usize),
    /// A lower-case letter.
    #[error(
        "letter {found:?} at position {position} is lower-case; write a FINESS number in upper case"
    )]
    LowerCase {
        /// The letter.
        found: char,
        /// Counted from 1.
        position: usize,
    },
    /// Anything else where it may not be.
    #[error(
        "{found:?} at position {position} has no place in a FINESS number; 9 digits are expected, \
         of which the second may be a letter (`2A` and `2B`, `9A` to `9F`, `0B` in tests)"
    )]
    Character {
        /// The character.
        found: char,
        /// Counted from 1.
        position: usize,
    },
}

impl Finess {
    /// Reads a FINESS number; neither spaces nor lower-case letters are tolerated.
    pub fn parse(text: &str) -> Result<Self, FinessError> {
        // Characters before length, so that a stray space or accent is named rather than counted.
        for (index, found) in text.chars().take(9).enumerate() {
            let position = index + 1;
            match found {
                '0'..='9' => {}
                'A'..='Z' if position == 2 => {}
                'a'..='z' if position == 2 => {
                    return Err(FinessError::LowerCase { found, position });
                }
                _ => return Err(FinessError::Character { found, position }),
            }
        }
        match <[u8; 9]>::try_from(text.as_bytes()) {
            Ok(bytes) => Ok(Self(bytes)),
            Err(_) => Err(FinessError::Length(text.chars().count())),
        }
    }

    /// The nine characters.
    pub fn as_str(&self) -> &str {
        // Always ASCII: `parse` is the only way in.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Whether the last digit is the Luhn key of the others, letters counting as their rank (A is 1, B is 2).
    ///
    /// A wrong key deserves a warning and no more: some numbers in use do not satisfy it.
    pub fn has_valid_key(&self) -> bool {
        let sum: u32 = (self.0.iter().rev().enumerate())
            .map(|(rank, &character)| {
                let value = match character {
                    b'0'..=b'9' => u32::from(character - b'0'),
                    // Nothing beyond F is known in use; the modulo only keeps the sum defined.
                    _ => u32::from(character.saturating_sub(b'A') + 1) % 10,
                };
                let weighted = if rank % 2 == 1 { value * 2 } else { value };
                weighted / 10 + weighted % 10
            })
            .sum();
        sum.is_multiple_of(10)
    }
}

impl FromStr for Finess {
    type Err = FinessError;

    fn from_str(text: &str) -> Result<Self, FinessError> {
        Self::parse(text)
    }
}

impl fmt::Debug for Finess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Finess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn accepts_mainland_corsican_overseas_and_test_numbers() {
        for text in [
            "060785003",
            "2A0000154",
            "2B0000020",
            "9A0000001",
            "970100228",
            "0B0127189",
        ] {
            assert_eq!(Finess::parse(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn tells_a_lower_case_letter_from_a_wrong_one() {
        let error = Finess::parse("2a0000154").unwrap_err();
        assert_eq!(
            error,
            FinessError::LowerCase {
                found: 'a',
                position: 2
            }
        );
        assert!(error.to_string().contains("upper case"));
        for (text, found, position) in [
            ("06O785003", 'O', 3),
            (" 60785003", ' ', 1),
            ("A60785003", 'A', 1),
            ("0607850é3", 'é', 8),
            ("06078500\0", '\0', 9),
        ] {
            assert_eq!(
                Finess::parse(text).unwrap_err(),
                FinessError::Character { found, position }
            );
        }
    }

    #[test]
    fn counts_characters_without_echoing_them() {
        assert_eq!(Finess::parse(""), Err(FinessError::Length(0)));
        assert_eq!(Finess::parse("60785003"), Err(FinessError::Length(8)));
        assert_eq!(Finess::parse("1060785003"), Err(FinessError::Length(10)));
        let error = Finess::parse(&"1".repeat(100_000)).unwrap_err();
        assert!(error.to_string().len() < 200);
    }

    #[test]
    fn checks_the_key_with_letters_counting_as_their_rank() {
        for text in [
            "060785003",
            "0B0127189",
            "0B0135356",
            "0B0152872",
            "0B0167011",
            "0B0307377",
        ] {
            assert!(Finess::parse(text).unwrap().has_valid_key(), "{text}");
        }
        for text in ["060785004", "0A0127189"] {
            assert!(!Finess::parse(text).unwrap().has_valid_key(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_displays_what_it_parsed(text in "\\PC{0,12}") {
            if let Ok(finess) = Finess::parse(&text) {
                prop_assert_eq!(finess.to_string(), text);
                let _ = finess.has_valid_key();
            }
        }

        #[test]
        fn accepts_every_well_shaped_number(text in "[0-9][0-9A-Z][0-9]{7}") {
            prop_assert_eq!(Finess::parse(&text).unwrap().to_string(), text);
        }
    }
}
