//! The configuration file as TOML, and where each of its keys and values stands.
//!
//! The `config` crate merges layers into a tree without positions; this index keeps them by key path.

use std::collections::HashMap;
use std::path::Path;

use ::config::{Map, Value, ValueKind};
use toml::de::{DeTable, DeValue};

use super::problem::{Place, Problem, What};

/// A parsed file.
pub(super) struct Document {
    /// Its content, in the form that the `config` crate merges.
    pub(super) table: Map<String, Value>,
    /// Byte offset of each key and value, by key path.
    spans: HashMap<String, Span>,
}

#[derive(Clone, Copy)]
struct Span {
    key: usize,
    value: usize,
}

impl Document {
    /// Parses the text of a file; the path is only for the message.
    pub(super) fn parse(text: &str, path: &Path) -> Result<Self, Box<Problem>> {
        let mut spans = HashMap::new();
        let parsed = DeTable::parse(text).map_err(|error| Box::new(syntax(&error, text, path)))?;
        let table = convert_table(parsed.get_ref(), "", &mut spans);
        Ok(Self { table, spans })
    }

    /// Where the key of that path was written.
    pub(super) fn key_offset(&self, path: &str) -> Option<usize> {
        self.spans.get(path).map(|span| span.key)
    }

    /// Where the value of that path was written.
    pub(super) fn value_offset(&self, path: &str) -> Option<usize> {
        self.spans.get(path).map(|span| span.value)
    }
}

/// `section.key`, with quotes where TOML would need them.
pub(super) fn join(section: &str, key: &str) -> String {
    match (section.is_empty(), is_bare(key)) {
        (true, true) => key.to_owned(),
        (true, false) => format!("{key:?}"),
        (false, true) => format!("{section}.{key}"),
        (false, false) => format!("{section}.{key:?}"),
    }
}

/// Whether TOML takes a key without quotes.
pub(super) fn is_bare(key: &str) -> bool {
    let is_of_bare = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    !key.is_empty() && key.bytes().all(is_of_bare)
}

/// A text whose lines have been counted, so that a file of thousands of entries can be reported on.
pub(super) struct Lines<'a> {
    text: &'a str,
    /// The byte offset of each line.
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    /// Counts the lines of a text.
    pub(super) fn new(text: &'a str) -> Self {
        let breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            text,
            starts: std::iter::once(0).chain(breaks).collect(),
        }
    }

    /// Line and column, from 1, of a byte offset; the column counts characters.
    pub(super) fn line_column(&self, offset: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|&start| start <= offset);
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        let start = self.starts[line - 1];
        let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
        (line, column)
    }
}

fn convert_table(
    table: &DeTable<'_>,
    path: &str,
    spans: &mut HashMap<String, Span>,
) -> Map<String, Value> {
    let mut converted = Map::new();
    for (key, value) in table {
        let path = join(path, key.get_ref());
        let span = Span {
            key: key.span().start,
            value: value.span().start,
        };
        spans.insert(path.clone(), span);
        converted.insert(
            key.get_ref().to_string(),
            convert(value.get_ref(), &path, spans),
        );
    }
    converted
}

fn convert(value: &DeValue<'_>, path: &str, spans: &mut HashMap<String, Span>) -> Value {
    let kind = match value {
        DeValue::String(text) => ValueKind::String(text.to_string()),
        // A number too large for any key stays a number, so that the message can say so.
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(
                |_| ValueKind::Float(number.as_str().parse().unwrap_or(f64::INFINITY)),
                ValueKind::I64,
            ),
        DeValue::Float(number) => ValueKind::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(flag) => ValueKind::Boolean(*flag),
        DeValue::Datetime(date) => ValueKind::String(date.to_string()),
        DeValue::Table(table) => ValueKind::Table(convert_table(table, path, spans)),
        DeValue::Array(items) => {
            let convert_item = |(index, item): (usize, &toml::Spanned<DeValue<'_>>)| {
                let path = format!("{path}[{index}]");
                let start = item.span().start;
                let span = Span {
                    key: start,
                    value: start,
                };
                spans.insert(path.clone(), span);
                convert(item.get_ref(), &path, spans)
            };
            ValueKind::Array(items.iter().enumerate().map(convert_item).collect())
        }
    };
    Value::new(None, kind)
}

/// A syntax error as one problem, with the line and a caret below the spot.
fn syntax(error: &toml::de::Error, text: &str, path: &Path) -> Problem {
    let offset = error.span().map_or(0, |span| span.start);
    let (line, column) = Lines::new(text).line_column(offset);
    let excerpt = match may_hold_secret(text, line) {
        true => format!("  {line} | (not shown: a secret may stand there)"),
        false => {
            let source = text.lines().nth(line - 1).unwrap_or_default();
            let gutter = line.to_string().len();
            format!("  {line} | {source}\n  {:gutter$} | {:>column$}", "", "^")
        }
    };
    let message = error
        .message()
        .trim()
        .trim_end_matches(", expected nothing")
        .to_owned();
    let hint = message.contains("leading zero").then(|| {
        "a FINESS number is text: write it between quotes, such as \"060785003\"".to_owned()
    });
    Problem {
        place: Place::File {
            path: path.to_owned(),
            line,
            column,
        },
        key: String::new(),
        what: What::Syntax { message, excerpt },
        hint,
    }
}

/// What is written of secrets, or beside them: the sections and keys that hold some, and those that somebody might think
/// of. Enough of each word to find it misspelt.
const SECRETS: [&str; 5] = ["header", "notice", "passw", "token", "webhook"];

/// Whether a line of a text that is no TOML, counted from 1, may hold a secret: something is said of one since its
/// section began. More cannot be known, since a text without its end takes others in.
fn may_hold_secret(text: &str, line: usize) -> bool {
    let lines: Vec<_> = text.lines().take(line).collect();
    let begins = |line: &&str| {
        let line = line.split('#').next().unwrap_or_default().trim();
        let is_of_name =
            |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'[' | b']' | b'_' | b'-' | b'.');
        line.starts_with('[') && line.ends_with(']') && line.bytes().all(is_of_name)
    };
    // The line itself begins none that is right.
    let before = &lines[..lines.len().saturating_sub(1)];
    let start = before.iter().rposition(begins);
    lines[start.unwrap_or(0)..].iter().any(|line| {
        let line = line.to_lowercase();
        // A user in a URL may come with a password, and a query with a key.
        let in_url = line.contains('@') || line.contains("://") && line.contains('?');
        in_url || SECRETS.iter().any(|word| line.contains(word))
    })
}
