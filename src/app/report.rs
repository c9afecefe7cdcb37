//! What a reload tells.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

pub use super::difference::Restart;
use super::sources::Reading;
use crate::config::{self, What};
use crate::identity::generation::Generation;
use crate::identity::load;
use crate::identity::tenants::Mistake;
use crate::inbound::tls::TermsError;
use crate::outbound::trust::TrustError;

/// What a reload has changed.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whether anything is in use that was not before.
    pub changed: bool,
    /// What of the configuration was taken up, by section: `services.dmp`, `listeners`.
    pub configuration: Vec<String>,
    /// What of it needs a restart, and is as it was.
    pub restart: Vec<Restart>,
    /// The trust files that name other authorities than before.
    pub trust: Vec<String>,
    /// How many certificates there are now.
    pub certificates: usize,
    /// The new ones.
    pub added: Vec<Entry>,
    /// The ones that are no longer used.
    pub removed: Vec<Entry>,
    /// The ones whose file is no longer in order, and which are used as they were.
    pub kept: Vec<Entry>,
    /// What is wrong with files.
    pub problems: Vec<Trouble>,
    /// How long it took.
    pub milliseconds: u64,
}

/// A certificate in a report.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// Its file.
    pub file: String,
    /// Its subject (RFC 4514).
    pub subject: String,
    /// Its serial number.
    pub serial: String,
}

/// What is wrong with a file.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize)]
pub struct Trouble {
    /// The file, with line and column where they are known; or the environment variable.
    pub file: String,
    /// What is wrong.
    pub reason: String,
    /// What to do; may be empty.
    pub hint: String,
}

impl Report {
    pub(super) fn new(reading: &Reading, begun: Instant) -> Self {
        let entries = |generations: &[Arc<Generation>]| generations.iter().map(Entry::of).collect();
        let change = &reading.certificates;
        Self {
            changed: reading.is_change,
            configuration: reading.configuration.clone(),
            restart: reading.restart.clone(),
            trust: (reading.trust.iter())
                .map(|path| path.display().to_string())
                .collect(),
            certificates: change.generations.len(),
            added: entries(&change.added),
            removed: entries(&change.removed),
            kept: entries(&change.kept),
            problems: reading.troubles.clone(),
            milliseconds: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl Entry {
    fn of(generation: &Arc<Generation>) -> Self {
        let identity = generation.identity();
        Self {
            file: identity.path.display().to_string(),
            subject: identity.profile.subject.to_string(),
            serial: identity.profile.serial.to_string(),
        }
    }
}

impl Trouble {
    /// A configuration that cannot be taken up, although nothing in it is wrong.
    pub(super) fn refused(file: &Path, error: &anyhow::Error) -> Self {
        Self {
            file: file.display().to_string(),
            reason: format!("it cannot be taken up: {error:#}"),
            hint: "the configuration stays as it was".to_owned(),
        }
    }
}

impl From<&Mistake> for Trouble {
    fn from(mistake: &Mistake) -> Self {
        Self {
            file: mistake.place.to_string(),
            reason: mistake.kind.to_string(),
            hint: mistake.hint().to_owned(),
        }
    }
}

impl From<&load::Problem> for Trouble {
    fn from(problem: &load::Problem) -> Self {
        Self {
            file: problem.path.display().to_string(),
            reason: problem.kind.to_string(),
            hint: problem.hint.clone(),
        }
    }
}

impl From<&config::Problem> for Trouble {
    fn from(problem: &config::Problem) -> Self {
        let key = match &*problem.key {
            "" => String::new(),
            key => format!("{key}: "),
        };
        // The line of the file may hold a secret, and a report is for whoever may ask and goes into logs.
        let what = match &problem.what {
            What::Syntax { message, .. } => format!("not TOML: {message}"),
            what => what.to_string(),
        };
        Self {
            file: problem.place.to_string(),
            reason: format!("{key}{what}"),
            hint: problem.hint.clone().unwrap_or_default(),
        }
    }
}

impl From<&TrustError> for Trouble {
    fn from(error: &TrustError) -> Self {
        Self {
            file: error.path().display().to_string(),
            reason: error.reason(),
            hint: "the authorities that it named before are believed on; put a PEM file with certificates in its place"
                .to_owned(),
        }
    }
}

impl From<&TermsError> for Trouble {
    fn from(error: &TermsError) -> Self {
        Self {
            file: error.path.display().to_string(),
            reason: error.reason.clone(),
            hint: match &*error.hint {
                "" => "the listener goes by what it was before".to_owned(),
                hint => hint.to_owned(),
            },
        }
    }
}
