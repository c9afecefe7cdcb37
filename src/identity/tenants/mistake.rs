//! What can be wrong with a table of structures, line by line, and what to do about it.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use thiserror::Error;

use super::SectorError;
use crate::identity::finess::{Finess, FinessError};

/// Something wrong at one place; everything else is used all the same.
#[derive(Debug)]
pub struct Mistake {
    /// Where.
    pub place: Place,
    /// What is wrong there.
    pub kind: MistakeKind,
}

/// Where a structure was named.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Place {
    /// In an entry of `[[tenants]]`.
    Configuration,
    /// In a file.
    Line {
        /// The file.
        path: Arc<Path>,
        /// The line, from 1; 1 also where the whole file is meant.
        line: u64,
    },
}

/// What is wrong. Every structure concerned is left without legal entity, or left out where it cannot be named.
#[derive(Debug, Error)]
pub enum MistakeKind {
    /// The system refuses to read the file.
    #[error("the file cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    /// A folder, a pipe, a device.
    #[error("not a regular file")]
    NotAFile,
    /// More bytes than any table of structures has. Nothing of the file is used.
    #[error("the file has {size} bytes, more than the {limit} that are read")]
    TooLarge {
        /// Its size.
        size: u64,
        /// The largest size accepted.
        limit: u64,
    },
    /// More lines than any table of structures has. Nothing of the file is used.
    #[error("the file has more than {limit} lines")]
    TooManyLines {
        /// The most lines accepted.
        limit: usize,
    },
    /// Nothing, or lines about something else.
    #[error("the file names no structure")]
    Empty,
    /// The first line names no column of FINESS numbers. Nothing of the file is used.
    #[error("the first line names no column `finess` or `nofinesset`")]
    NoFinessColumn,
    /// The first line names no column of legal entities.
    #[error(
        "the first line names no column `legal_entity` or `nofinessej`, so none of these sites can use the \
         certificate of its legal entity"
    )]
    NoLegalEntityColumn,
    /// A line that ends before its last known column.
    #[error("the line has {found} columns, at least {needed} are expected")]
    Short {
        /// The columns that it has.
        found: usize,
        /// The columns that are read.
        needed: usize,
    },
    /// A quoted value that does not end on its line.
    #[error("a value begins with a quote that is not closed on the same line")]
    OpenQuote,
    /// The structure's own number is malformed.
    #[error("the structure: {0}")]
    Finess(#[source] FinessError),
    /// The number of its legal entity is malformed.
    #[error("its legal entity: {0}")]
    LegalEntity(#[source] FinessError),
    /// Its sector is unknown.
    #[error(transparent)]
    Sector(#[from] SectorError),
    /// The same structure a second time, with the same legal entity and sector.
    #[error("{finess} is in the table already ({first}), and what that says is used")]
    Repeated {
        /// The structure.
        finess: Finess,
        /// Where it was named first.
        first: Place,
    },
    /// The same structure a second time, with another legal entity or sector.
    #[error(
        "{finess} has another legal entity or sector here than before ({first}), so it cannot use the certificate \
         of either"
    )]
    Contradicted {
        /// The structure.
        finess: Finess,
        /// Where it was named first.
        first: Place,
    },
    /// A legal entity that is itself a site.
    #[error(
        "{finess} is a site of {legal_entity} here, and the legal entity of {sites} structures such as {site} \
         elsewhere; none of them can use the certificate of its legal entity"
    )]
    SiteWithSites {
        /// The structure that is both.
        finess: Finess,
        /// The legal entity that it has.
        legal_entity: Finess,
        /// How many structures have it for legal entity.
        sites: usize,
        /// One of them.
        site: Finess,
    },
    /// There are more mistakes than are listed.
    #[error("{errors} more errors and {warnings} more warnings are not listed")]
    Others {
        /// Errors left out.
        errors: usize,
        /// Warnings left out.
        warnings: usize,
    },
}

impl Mistake {
    /// What the operator can do. Never empty.
    pub fn hint(&self) -> &'static str {
        match &self.kind {
            MistakeKind::Unreadable(_) => "check that the account Relais runs under may read it",
            MistakeKind::NotAFile => "name a CSV file",
            MistakeKind::TooLarge { .. } | MistakeKind::TooManyLines { .. } => {
                "keep only the structures that are served here"
            }
            MistakeKind::Empty => {
                "copy it again; of the FINESS register's extracts, that of sites (`structureet`) is read"
            }
            MistakeKind::NoFinessColumn => {
                "begin with `finess,legal_entity,name,sector` (`;` and tabs separate as well), in UTF-8 or \
                 Windows-1252; the FINESS register's extract is read as it is published"
            }
            MistakeKind::NoLegalEntityColumn => {
                "add the column, left blank for legal entities themselves"
            }
            MistakeKind::Short { .. } => "write every separator, also before values left blank",
            MistakeKind::OpenQuote => {
                "close the quote, or write the value on one line; a quote within quotes is doubled"
            }
            MistakeKind::Finess(FinessError::Length(8))
            | MistakeKind::LegalEntity(FinessError::Length(8)) => {
                "a spreadsheet may have dropped the leading zero: make the column text before saving as CSV"
            }
            MistakeKind::Finess(_) | MistakeKind::LegalEntity(_) => {
                "correct the number, as the FINESS register has it"
            }
            MistakeKind::Sector(_) => {
                "write hospital, medico-social, officine, spsti or other, or leave it blank"
            }
            MistakeKind::Repeated { .. } => "keep one of the two",
            MistakeKind::Contradicted { .. } => {
                "keep the one that is right; the FINESS register tells a site's legal entity"
            }
            MistakeKind::SiteWithSites { .. } => {
                "a site belongs to a legal entity directly: look both numbers up in the FINESS register"
            }
            MistakeKind::Others { .. } => "correct those that are listed first",
        }
    }

    /// Whether every structure is used as it was meant nonetheless.
    pub fn is_warning(&self) -> bool {
        matches!(
            self.kind,
            MistakeKind::NoLegalEntityColumn
                | MistakeKind::Repeated { .. }
                | MistakeKind::Others { errors: 0, .. }
        )
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.place, self.kind, self.hint())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration => f.write_str("[[tenants]]"),
            Self::Line { path, line } => write!(f, "{}:{line}", path.display()),
        }
    }
}
