//! What is wrong with a configuration: one [`Problem`] each, all of them together in [`Problems`].

use std::fmt;
use std::path::PathBuf;

/// Where the offending value was written, or where the missing one should be.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Place {
    /// In the configuration file.
    File {
        /// The file, as it was named.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
    },
    /// In an environment variable of this name.
    Variable(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// What is wrong at a place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum What {
    /// The file cannot be read.
    Unreadable(String),
    /// The file is not TOML.
    Syntax {
        /// What the parser says.
        message: String,
        /// The line, and a caret under the offending character.
        excerpt: String,
    },
    /// No key of that name exists there.
    UnknownKey,
    /// A key that must be given is not.
    Missing {
        /// What would do.
        expected: String,
    },
    /// A value of the wrong type, form or range.
    Mismatch {
        /// The value, shortened, without secrets.
        found: String,
        /// What would do.
        expected: String,
    },
    /// Values that are well formed but break a rule; the text says which.
    Rule(String),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(reason) => write!(f, "configuration file not readable: {reason}"),
            Self::Syntax { message, excerpt } => write!(f, "not TOML: {message}\n{excerpt}"),
            Self::UnknownKey => f.write_str("unknown key"),
            Self::Missing { expected } => write!(f, "missing, expected {expected}"),
            Self::Mismatch { found, expected } => write!(f, "found {found}, expected {expected}"),
            Self::Rule(text) => f.write_str(text),
        }
    }
}

/// One error or warning of a configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// The key, as `services.dmp.tls` or `listeners[0].address`; empty when the whole file is meant.
    pub key: String,
    /// What is wrong.
    pub what: What,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}", self.what)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with a configuration that cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{}", listed(.errors))]
pub struct Problems {
    /// What must be corrected, in the order of the file. Never empty.
    pub errors: Vec<Problem>,
    /// What should be looked at.
    pub warnings: Vec<Problem>,
}

fn listed(errors: &[Problem]) -> String {
    let lines: Vec<String> = errors.iter().map(Problem::to_string).collect();
    lines.join("\n")
}
