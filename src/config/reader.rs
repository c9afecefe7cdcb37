//! Where each value came from, and what was wrong with them so far.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use ::config::{Map, Value};

use super::document::{Document, Lines};
use super::layers::Variable;
use super::problem::{Place, Problem, What};
use super::raw::{Mismatch, describe};
use super::section::Section;

/// Where values came from, and what was wrong with them.
pub(super) struct Reader<'a> {
    pub(super) document: &'a Document,
    pub(super) lines: Lines<'a>,
    pub(super) variables: &'a [Variable],
    pub(super) path: &'a Path,
    /// The folder that relative paths start from.
    pub(super) base: PathBuf,
    /// The files and folders that the gateway uses already.
    pub(super) in_use: &'a HashSet<PathBuf>,
    /// The files and folders that were named to be read.
    pub(super) reads: RefCell<BTreeSet<PathBuf>>,
    pub(super) errors: RefCell<Vec<Problem>>,
    pub(super) warnings: RefCell<Vec<Problem>>,
    /// The keys that were asked for, as `services.*.tls`: what the reference must describe.
    #[cfg(test)]
    pub(super) asked: RefCell<BTreeSet<String>>,
}

/// A key and where it was written: enough to report a problem later.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    pub(super) key: String,
    pub(super) place: Place,
}

/// A value and its spot.
#[derive(Clone, Debug)]
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) spot: Spot,
}

impl Reader<'_> {
    /// The whole tree as a section.
    pub(super) fn root(&self, table: Map<String, Value>) -> Section<'_> {
        let place = self.file_place(0);
        let key = String::new();
        Section::new(self, table, Spot { key, place }, String::new())
    }

    /// Reports an error.
    pub(super) fn error(&self, spot: &Spot, what: What, hint: Option<String>) {
        self.errors.borrow_mut().push(problem(spot, what, hint));
    }

    /// Looks at something on disk, unless it is in use already: what is wrong with it now is told by whoever reads it
    /// again, who uses on what was read before. It makes no error of the configuration.
    pub(super) fn look(
        &self,
        path: &Path,
        at: impl FnOnce(&Path) -> Result<(), Mismatch>,
    ) -> Result<(), Mismatch> {
        self.reads.borrow_mut().insert(path.to_owned());
        match self.in_use.contains(path) {
            true => Ok(()),
            false => at(path),
        }
    }

    /// How many errors there are so far: whether an empty answer was already explained.
    pub(super) fn error_count(&self) -> usize {
        self.errors.borrow().len()
    }

    /// Reports something that works but deserves a look.
    pub(super) fn warning(&self, spot: &Spot, text: impl Into<String>, hint: impl Into<String>) {
        let warning = problem(spot, What::Rule(text.into()), Some(hint.into()));
        self.warnings.borrow_mut().push(warning);
    }

    /// Reports a value that its parser refused.
    pub(super) fn refuse(&self, spot: &Spot, value: &Value, mismatch: Mismatch) {
        let found = mismatch.found.unwrap_or_else(|| describe(&value.kind));
        let expected = mismatch.expected;
        self.error(spot, What::Mismatch { found, expected }, mismatch.hint);
    }

    fn file_place(&self, offset: usize) -> Place {
        let (line, column) = self.lines.line_column(offset);
        Place::File {
            path: self.path.to_owned(),
            line,
            column,
        }
    }

    /// Where a key was written: the variable that set it, else its line, else the variable that set something below.
    pub(super) fn place_of(&self, key: &str, offset: Option<usize>) -> Option<Place> {
        let named = |variable: &Variable| Place::Variable(variable.name.clone());
        let exact = self
            .variables
            .iter()
            .find(|variable| variable.path == key)
            .map(named);
        let below = || {
            self.variables
                .iter()
                .find(|variable| variable.is_at_or_below(key))
                .map(named)
        };
        exact
            .or_else(|| offset.map(|offset| self.file_place(offset)))
            .or_else(below)
    }
}

fn problem(spot: &Spot, what: What, hint: Option<String>) -> Problem {
    Problem {
        place: spot.place.clone(),
        key: spot.key.clone(),
        what,
        hint,
    }
}
