//! A value before its type is known, and what was expected when it cannot be given one.

use ::config::{Map, Value, ValueKind};

/// A value before its type is known.
pub(super) struct Raw<'a> {
    pub(super) kind: &'a ValueKind,
    /// From the environment or the defaults, where everything is text: numbers and lists are read from it.
    pub(super) is_text: bool,
}

/// What a parser expected.
pub(super) struct Mismatch {
    /// Shown instead of the value, if the value should not be shown as it is.
    pub(super) found: Option<String>,
    pub(super) expected: String,
    pub(super) hint: Option<String>,
}

/// What a parser gives.
pub(super) type Parsed<T> = Result<T, Mismatch>;

impl<'a> From<&'a Value> for Raw<'a> {
    fn from(value: &'a Value) -> Self {
        Self {
            kind: &value.kind,
            is_text: value.origin().is_some(),
        }
    }
}

impl Raw<'_> {
    /// The text, if it is text and not empty.
    pub(super) fn text(&self) -> Option<&str> {
        match self.kind {
            ValueKind::String(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// A whole number, zero or more.
    pub(super) fn integer(&self) -> Option<u64> {
        match self.kind {
            ValueKind::I64(number) => u64::try_from(*number).ok(),
            ValueKind::String(text) if self.is_text => text.parse().ok(),
            _ => None,
        }
    }
}

impl Mismatch {
    /// Only what was expected.
    pub(super) fn expected(expected: impl Into<String>) -> Self {
        Self {
            found: None,
            expected: expected.into(),
            hint: None,
        }
    }

    /// Does not say what was found, which may be a secret.
    pub(super) fn hidden(mut self) -> Self {
        self.found = Some("something else".to_owned());
        self
    }

    /// The same of a value that holds secrets in its turn, if any: that it is a table, a list or nothing may be said.
    pub(super) fn hide(self, raw: &Raw<'_>) -> Self {
        match raw.kind {
            ValueKind::Table(_) | ValueKind::Array(_) | ValueKind::Nil => self,
            _ => self.hidden(),
        }
    }

    /// What to do about it.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// A value as messages show it: short, on one line.
pub(super) fn describe(kind: &ValueKind) -> String {
    // As much as an address or a path needs; more is no help.
    const LONGEST: usize = 120;
    match kind {
        ValueKind::Nil => "nothing".to_owned(),
        ValueKind::Table(_) => "a table".to_owned(),
        ValueKind::Array(_) => "a list".to_owned(),
        ValueKind::String(text) if text.chars().count() > LONGEST => {
            let start: String = text.chars().take(LONGEST).collect();
            format!("{:?}", start + "…")
        }
        ValueKind::String(text) => format!("{text:?}"),
        ValueKind::Boolean(flag) => flag.to_string(),
        ValueKind::Float(number) => number.to_string(),
        ValueKind::I64(number) => number.to_string(),
        ValueKind::I128(number) => number.to_string(),
        ValueKind::U64(number) => number.to_string(),
        ValueKind::U128(number) => number.to_string(),
    }
}

/// A table. What stands in its place may be all that belongs into it, with the secrets of `headers`.
pub(super) fn table(raw: &Raw<'_>) -> Parsed<Map<String, Value>> {
    match raw.kind {
        ValueKind::Table(table) => Ok(table.clone()),
        _ => Err(Mismatch::expected("a table").hide(raw)),
    }
}

/// A list of what should be tables, which may be in place of it as well; the key is for the hint.
pub(super) fn list_of_tables(key: &str) -> impl Fn(&Raw<'_>) -> Parsed<Vec<Value>> {
    move |raw| match raw.kind {
        ValueKind::Array(items) => Ok(items.clone()),
        _ => Err(Mismatch::expected("a list of tables")
            .hide(raw)
            .hint(format!("write [[{key}]] with two brackets for each"))),
    }
}
