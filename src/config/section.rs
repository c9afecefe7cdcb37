//! Takes keys out of the merged tree one by one, and remembers every problem on the way.
//!
//! Nothing here stops at the first error: a key that cannot be read yields `None`, and its problem is kept.
//! What nobody took by the end of a section is an unknown key.

use ::config::{Map, Value, ValueKind};

use super::document::{is_bare, join};
use super::parse;
use super::problem::What;
use super::raw::{Mismatch, Raw, list_of_tables, table};
use super::reader::{Found, Reader, Spot};
use super::suggest::closest;
use crate::identity::finess::Finess;

/// A table being read.
pub(super) struct Section<'r> {
    pub(super) reader: &'r Reader<'r>,
    pub(super) spot: Spot,
    /// The path with `*` and `[]` for what the user names.
    pattern: String,
    table: Map<String, Value>,
    asked: Vec<&'static str>,
}

impl<'r> Section<'r> {
    /// A table to read, and the pattern of its path.
    pub(super) fn new(
        reader: &'r Reader<'r>,
        table: Map<String, Value>,
        spot: Spot,
        pattern: String,
    ) -> Self {
        Self {
            reader,
            spot,
            pattern,
            table,
            asked: Vec::new(),
        }
    }

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

    /// A FINESS number that may be absent. A wrong key is a warning: some real numbers have one.
    pub(super) fn take_finess(&mut self, key: &'static str) -> Option<Found<Finess>> {
        let finess = self.take(key, parse::finess)?;
        if !finess.value.has_valid_key() {
            let text = format!(
                "the key of FINESS number {} does not match: its last digit is not the Luhn key of the others",
                finess.value
            );
            let hint = "check for a typing error; a few real numbers are like that";
            self.reader.warning(&finess.spot, text, hint);
        }
        Some(finess)
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
        Some(Self::new(self.reader, table.value, spot, pattern))
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
                    sections.push((name, Self::new(self.reader, table, spot, pattern.clone())))
                }
                Err(mismatch) => self.reader.refuse(&spot, &value, mismatch),
            }
        }
        sections.sort_by(|(a, x), (b, y)| (&x.spot.place, a).cmp(&(&y.spot.place, b)));
        sections
    }

    /// Values whose names the user chose, all of them or none, in the order of their names. No message repeats one:
    /// they are secrets more often than not.
    pub(super) fn secret_values<T>(
        mut self,
        parse: impl Fn(&str, &Raw<'_>) -> Result<T, Mismatch>,
    ) -> Option<Vec<T>> {
        let mut entries: Vec<_> = std::mem::take(&mut self.table).into_iter().collect();
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        let read = |(name, value): &(String, Value)| {
            let raw = Raw::from(value);
            parse(name, &raw)
                .map_err(|mismatch| mismatch.hide(&raw))
                .map_err(|mismatch| self.reader.refuse(&self.secret_spot(name), value, mismatch))
                .ok()
        };
        // All are read before any is missed, so that each mistake is told.
        let read: Vec<_> = entries.iter().map(read).collect();
        read.into_iter().collect()
    }

    /// The tables of a list (`[[key]]`).
    pub(super) fn list_of_sections(&mut self, key: &'static str) -> Vec<Self> {
        let pattern = format!("{}[]", join(&self.pattern, key));
        let Some(items) = self.take(key, list_of_tables(key)) else {
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
                Ok(table) => sections.push(Self::new(self.reader, table, spot, pattern.clone())),
                Err(mismatch) => self.reader.refuse(&spot, &value, mismatch),
            }
        }
        sections
    }

    /// The tables of a list (`[[key]]`), of which a single one may be written `[key]`.
    pub(super) fn one_or_more_sections(&mut self, key: &'static str) -> Vec<Self> {
        match self.table.get(key).map(|value| &value.kind) {
            Some(ValueKind::Table(_)) => {
                let mut section = self.section(key);
                (section.iter_mut()).for_each(|section| section.pattern.push_str("[]"));
                section.into_iter().collect()
            }
            _ => self.list_of_sections(key),
        }
    }

    /// Reports the keys that nobody took.
    pub(super) fn finish(self) {
        // Those of one variable share a place, by which the report is sorted; their order must not vary.
        let mut unknown: Vec<&String> = self.table.keys().collect();
        unknown.sort_unstable();
        for key in unknown {
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

    /// That of a value with a name that may have taken in the value: `"ESANTE-API-KEY: …"`.
    fn secret_spot(&self, name: &str) -> Spot {
        let spot = self.value_spot(name);
        match is_bare(name) {
            true => spot,
            false => Spot {
                key: self.spot.key.clone(),
                ..spot
            },
        }
    }

    fn spot_at(&self, offset: Option<usize>, key: String) -> Spot {
        let place = self.reader.place_of(&key, offset);
        let place = place.unwrap_or_else(|| self.spot.place.clone());
        Spot { key, place }
    }
}
