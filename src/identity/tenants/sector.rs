//! Sectors of activity: they decide whether a structure's certificates are ordered for its sites or its legal entity.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The sector in which a structure works, as far as certificates differ by it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Sector {
    /// A hospital: certificates of the legal entity (ANS hospital guide v0.8).
    Hospital,
    /// The médico-social sector (ESSMS): certificates of the legal entity are the target; those of sites are tolerated
    /// until they are renewed (ANS guide 001, Ségur couloir médico-social v0.6).
    MedicoSocial,
    /// A pharmacy: certificates of the site (ANS guide 003, couloir officine).
    Officine,
    /// An occupational health service: certificates of the site "and not of the legal entity" (ANS guide 000, SPSTI).
    Spsti,
    /// Any other; no guide says more about it.
    Other,
}

/// A word that names no sector.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{0:?} is no sector")]
pub struct SectorError(String);

impl Sector {
    /// The words of the configuration, and what they mean.
    pub const WORDS: &[(&str, Self)] = &[
        ("hospital", Self::Hospital),
        ("medico-social", Self::MedicoSocial),
        ("officine", Self::Officine),
        ("spsti", Self::Spsti),
        ("other", Self::Other),
    ];

    /// What French files call sectors, without accents.
    const SYNONYMS: &[(&str, Self)] = &[
        ("hopital", Self::Hospital),
        ("hospitalier", Self::Hospital),
        ("sanitaire", Self::Hospital),
        ("essms", Self::MedicoSocial),
        ("medicosocial", Self::MedicoSocial),
        ("pharmacie", Self::Officine),
        ("sante-au-travail", Self::Spsti),
        ("autre", Self::Other),
    ];

    /// Whether a certificate of the legal entity may be used for one of its sites.
    pub fn legal_entity_may_speak(self) -> bool {
        match self {
            Self::Hospital | Self::MedicoSocial | Self::Other => true,
            Self::Officine | Self::Spsti => false,
        }
    }

    /// Whether the legal entity's certificate is what should be ordered, one of the site itself being only tolerated.
    pub fn site_is_only_tolerated(self) -> bool {
        matches!(self, Self::Hospital | Self::MedicoSocial)
    }

    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hospital => "hospital",
            Self::MedicoSocial => "medico-social",
            Self::Officine => "officine",
            Self::Spsti => "spsti",
            Self::Other => "other",
        }
    }
}

impl FromStr for Sector {
    type Err = SectorError;

    /// Accepts the words of the configuration and their French synonyms, whatever their case and accents.
    fn from_str(text: &str) -> Result<Self, SectorError> {
        // As much of a wrong word as a message needs.
        const SHOWN: usize = 40;
        let plain: String = text.chars().take(SHOWN).map(without_accent).collect();
        let mut words = Self::WORDS.iter().chain(Self::SYNONYMS);
        let found = words.find(|(word, _)| *word == plain);
        found
            .map(|&(_, sector)| sector)
            .ok_or_else(|| SectorError(text.chars().take(SHOWN).collect()))
    }
}

/// Lower case, unaccented, and one kind of separator: as far as the words above need it.
fn without_accent(c: char) -> char {
    match c {
        'é' | 'É' | 'è' | 'È' => 'e',
        'ô' | 'Ô' => 'o',
        ' ' | '_' => '-',
        _ => c.to_ascii_lowercase(),
    }
}

impl fmt::Display for Sector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_read_as_people_write_them() {
        for (text, sector) in [
            ("hospital", Sector::Hospital),
            ("HÔPITAL", Sector::Hospital),
            ("Sanitaire", Sector::Hospital),
            ("Médico-Social", Sector::MedicoSocial),
            ("medico_social", Sector::MedicoSocial),
            ("Pharmacie", Sector::Officine),
            ("SPSTI", Sector::Spsti),
            ("santé au travail", Sector::Spsti),
            ("autre", Sector::Other),
        ] {
            assert_eq!(text.parse(), Ok(sector), "{text}");
        }
        for &(word, sector) in Sector::WORDS {
            assert_eq!((word.parse(), sector.as_str()), (Ok(sector), word));
        }
    }

    #[test]
    fn another_word_is_refused_and_shown_shortened() {
        let error = "oficine".repeat(100).parse::<Sector>().unwrap_err();
        assert!(error.to_string().len() < 60, "{error}");
        assert!("".parse::<Sector>().is_err());
    }

    #[test]
    fn pharmacies_and_occupational_health_speak_for_their_site_alone() {
        for sector in [Sector::Officine, Sector::Spsti] {
            assert!(!sector.legal_entity_may_speak() && !sector.site_is_only_tolerated());
        }
        for sector in [Sector::Hospital, Sector::MedicoSocial] {
            assert!(sector.legal_entity_may_speak() && sector.site_is_only_tolerated());
        }
        assert!(Sector::Other.legal_entity_may_speak() && !Sector::Other.site_is_only_tolerated());
    }
}
