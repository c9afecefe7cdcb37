//! Takes keys out of the merged tree one by one, and remembers every problem on the way.
//!
//! Nothing here stops at the first error: a key that cannot be read yields `None`, and its problem is kept.
//! What nobody took by the end of a section is an unknown key.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use ::config::{Map, Value, ValueKind};

use super::document::{Document, join, line_column};
use super::layers::Variable;
use super::parse::{Mismatch, Raw, describe, list_of_tables, table};
use super::problem::{Place, Problem, What};
use super::suggest::closest;

/// Where values came from, and what was wrong with them.
pub(super) struct Reader<'a> {
    pub(super) document: &'a Document,
    pub(super) text: &'a str,
    pub(super) variables: &'a [Variable],
    pub(super) path: &'a Path,
    /// The folder that relative paths start from.
    pub(super) base: PathBuf,
    pub(super) errors: RefCell<Vec<Problem>>,
    pub(super) warnings: RefCell<Vec<Problem>>,
    /// The keys that were asked for, as `services.*.tls`: what the reference must describe.
    #[cfg(test)]
    pub(super) asked: RefCell<std::collections::BTreeSet<String>>,
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

/// A table being read.
pub(super) struct Section<'r> {
    pub(super) reader: &'r Reader<'r>,
    pub(super) spot: Spot,
    /// The path with `*` and `[]` for what the user names.
    pattern: String,
    table: Map<String, Value>,
    asked: Vec<&'static str>,
}

impl Reader<'_> {
    /// The whole tree as a section.
    pub(super) fn root(&self, table: Map<String, Value>) -> Section<'_> {
        let place = self.file_place(0);
        let key = String::new();
        self.section(table, Spot { key, place }, String::new())
    }

    /// Reports an error.
    pub(super) fn error(&self, spot: &Spot, what: What, hint: Option<String>) {
        self.errors.borrow_mut().push(problem(spot, what, hint));
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

    fn refuse(&self, spot: &Spot, value: &Value, mismatch: Mismatch) {
        let found = mismatch.found.unwrap_or_else(|| describe(&value.kind));
        let expected = mismatch.expected;
        self.error(spot, What::Mismatch { found, expected }, mismatch.hint);
    }

    fn section(&self, table: Map<String, Value>, spot: Spot, pattern: String) -> Section<'_> {
        Section {
            reader: self,
            spot,
            pattern,
            table,
            asked: Vec::new(),
        }
    }

    fn file_place(&self, offset: usize) -> Place {
        let (line, column) = line_column(self.text, offset);
        Place::File {
            path: self.path.to_owned(),
            line,
            column,
        }
    }

    /// The variable that set it, else its line, else the variable that set something below.
    fn place_of(&self, key: &str, offset: Option<usize>) -> Option<Place> {
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

impl<'r> Section<'r> {
    /// Whether some layer has the key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// A key that may be absent.
    pub(super) fn take<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&Raw<'_>) -> Result<T, Mismatch>,
    ) -> Option<Found<T>> {
        self.ask(key);
        let value = self.table.remove(key)?;
        let spot = self.value_spot(key);
        match parse(&Raw::from(&value)) {
            Ok(value) => Some(Found { value, spot }),
            Err(mismatch) => {
                self.reader.refuse(&spot, &value, mismatch);
                None
            }
        }
    }

    /// A key that must be there, or have a default.
    pub(super) fn require<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&Raw<'_>) -> Result<T, Mismatch>,
    ) -> Option<Found<T>> {
        if self.has(key) {
            return self.take(key, parse);
        }
        self.ask(key);
        // A parser refuses "nothing", and says in doing so what it expects.
        let mismatch = parse(&Raw::from(&Value::new(None, ValueKind::Nil))).err()?;
        self.missing(key, mismatch.expected, mismatch.hint);
        None
    }

    /// Reports a key that must be there.
    pub(super) fn missing(&self, key: &str, expected: impl Into<String>, hint: Option<String>) {
        let spot = Spot {
            key: join(&self.spot.key, key),
            place: self.spot.place.clone(),
        };
        let expected = expected.into();
        self.reader.error(&spot, What::Missing { expected }, hint);
    }

    /// A table below this one, if there is one.
    pub(super) fn section(&mut self, key: &'static str) -> Option<Self> {
        let spot = self.key_spot(key);
        let table = self.take(key, table)?;
        let pattern = join(&self.pattern, key);
        Some(self.reader.section(table.value, spot, pattern))
    }

    /// Tables whose names the user chose, in the order of the file.
    pub(super) fn named_sections(&mut self, key: &'static str) -> Vec<(String, Self)> {
        let pattern = format!("{}.*", join(&self.pattern, key));
        let Some(mut section) = self.section(key) else {
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (name, value) in std::mem::take(&mut section.table) {
            let spot = section.key_spot(&name);
            match table(&Raw::from(&value)) {
                Ok(table) => {
                    sections.push((name, self.reader.section(table, spot, pattern.clone())))
                }
                Err(mismatch) => self.reader.refuse(&spot, &value, mismatch),
            }
        }
        sections.sort_by(|(a, x), (b, y)| (&x.spot.place, a).cmp(&(&y.spot.place, b)));
        sections
    }

    /// The tables of a list (`[[key]]`).
    pub(super) fn list_of_sections(&mut self, key: &'static str) -> Vec<Self> {
        let pattern = format!("{}[]", join(&self.pattern, key));
        let Some(items) = self.take(key, list_of_tables) else {
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (index, value) in items.value.into_iter().enumerate() {
            let key = format!("{}[{index}]", items.spot.key);
            let place = self
                .reader
                .place_of(&key, self.reader.document.key_offset(&key));
            let place = place.unwrap_or_else(|| items.spot.place.clone());
            let spot = Spot { key, place };
            match table(&Raw::from(&value)) {
                Ok(table) => sections.push(self.reader.section(table, spot, pattern.clone())),
                Err(mismatch) => self.reader.refuse(&spot, &value, mismatch),
            }
        }
        sections
    }

    /// Reports the keys that nobody took.
    pub(super) fn finish(self) {
        for key in self.table.keys() {
            let hint = match closest(key, self.asked.iter().copied()) {
                Some(known) => format!("did you mean {known:?}?"),
                None => format!("keys here: {}", self.asked.join(", ")),
            };
            self.reader
                .error(&self.key_spot(key), What::UnknownKey, Some(hint));
        }
    }

    fn ask(&mut self, key: &'static str) {
        self.asked.push(key);
        #[cfg(test)]
        self.reader
            .asked
            .borrow_mut()
            .insert(join(&self.pattern, key));
    }

    fn key_spot(&self, key: &str) -> Spot {
        let path = join(&self.spot.key, key);
        self.spot_at(self.reader.document.key_offset(&path), path)
    }

    fn value_spot(&self, key: &str) -> Spot {
        let path = join(&self.spot.key, key);
        self.spot_at(self.reader.document.value_offset(&path), path)
    }

    fn spot_at(&self, offset: Option<usize>, key: String) -> Spot {
        let place = self.reader.place_of(&key, offset);
        let place = place.unwrap_or_else(|| self.spot.place.clone());
        Spot { key, place }
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
