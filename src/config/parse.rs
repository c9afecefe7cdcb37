//! Parsers: from a raw value to a typed one, or to what was expected instead.
//!
//! A parser refuses "nothing" too: that is how a missing key learns what to ask for.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::config::ValueKind;
use bytesize::ByteSize;

use super::raw::{Mismatch, Parsed, Raw};
use super::suggest::closest;
use crate::identity::finess::Finess;

/// One of a few words.
pub(super) fn word<T: Copy>(words: &[(&str, T)]) -> impl Fn(&Raw<'_>) -> Parsed<T> {
    move |raw| {
        let found = raw
            .text()
            .and_then(|text| words.iter().find(|(word, _)| *word == text));
        if let Some(&(_, value)) = found {
            return Ok(value);
        }
        let quoted: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        let mismatch = Mismatch::expected(format!("one of {}", quoted.join(", ")));
        match raw
            .text()
            .and_then(|text| closest(text, words.iter().map(|(word, _)| *word)))
        {
            // Between "1.1" and "1.2" the expectation says enough.
            Some(word) if word.len() > 3 => Err(mismatch.hint(format!("did you mean {word:?}?"))),
            _ => Err(mismatch),
        }
    }
}

/// A whole number within bounds.
pub(super) fn count(range: RangeInclusive<usize>) -> impl Fn(&Raw<'_>) -> Parsed<usize> {
    move |raw| {
        let number = raw
            .integer()
            .and_then(|number| usize::try_from(number).ok());
        number
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                Mismatch::expected(format!(
                    "a whole number from {} to {}",
                    range.start(),
                    range.end()
                ))
            })
    }
}

/// Yes or no.
pub(super) fn flag(raw: &Raw<'_>) -> Parsed<bool> {
    let said = match raw.kind {
        ValueKind::Boolean(flag) => Some(*flag),
        ValueKind::String(text) if raw.is_text => text.parse().ok(),
        _ => None,
    };
    said.ok_or_else(|| Mismatch::expected("true or false"))
}

/// A size within bounds: `"50MB"`, `"32KiB"`, or bytes.
pub(super) fn size(range: RangeInclusive<ByteSize>) -> impl Fn(&Raw<'_>) -> Parsed<u64> {
    move |raw| {
        let size = raw
            .integer()
            .map(ByteSize::b)
            .or_else(|| raw.text()?.parse().ok());
        size.filter(|size| range.contains(size))
            .map(|size| size.as_u64())
            .ok_or_else(|| {
                let bounds = format!("{} to {}", range.start(), range.end()).replace(".0 ", " ");
                Mismatch::expected(format!(
                    "a size from {bounds}, such as \"50MB\", \"32KiB\" or a number of bytes"
                ))
            })
    }
}

/// A duration above zero and below a day: longer ones are typing errors here.
pub(super) fn duration(raw: &Raw<'_>) -> Parsed<Duration> {
    const EXPECTED: &str = "a duration above zero and below a day, such as \"30s\" or \"500ms\"";
    let duration = below_a_day(raw, EXPECTED)?;
    let is_one = !duration.is_zero();
    is_one
        .then_some(duration)
        .ok_or_else(|| Mismatch::expected(EXPECTED))
}

/// How long beforehand: nothing, or less than a day.
pub(super) fn margin(raw: &Raw<'_>) -> Parsed<Duration> {
    below_a_day(raw, "a duration below a day, such as \"30s\" or \"0s\"")
}

fn below_a_day(raw: &Raw<'_>, expected: &str) -> Parsed<Duration> {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let duration = raw
        .text()
        .and_then(|text| humantime::parse_duration(text).ok());
    duration.filter(|duration| *duration < DAY).ok_or_else(|| {
        let mismatch = Mismatch::expected(expected);
        match raw.integer() {
            Some(number) => {
                mismatch.hint(format!("give the unit: \"{number}s\" or \"{number}ms\""))
            }
            None => mismatch,
        }
    })
}

/// Any text but an empty one.
pub(super) fn text(raw: &Raw<'_>) -> Parsed<String> {
    raw.text()
        .map(str::to_owned)
        .ok_or_else(|| Mismatch::expected("text"))
}

/// A path; relative ones start from the configuration file's folder.
pub(super) fn path(base: &Path) -> impl Fn(&Raw<'_>) -> Parsed<PathBuf> {
    move |raw| {
        let path = raw.text().map(|text| base.join(text));
        path.ok_or_else(|| Mismatch::expected("a path, as text"))
    }
}

/// A literal IP address and port.
pub(super) fn socket(raw: &Raw<'_>) -> Parsed<SocketAddr> {
    let address = raw.text().and_then(|text| text.parse().ok());
    address.ok_or_else(|| {
        let mismatch = Mismatch::expected(
            "an IP address and a port, such as \"127.0.0.1:8080\" or \"[::1]:8080\"",
        );
        match raw.text().and_then(|text| text.strip_prefix("localhost:")) {
            Some(port) => mismatch.hint(format!(
                "names are not resolved here: write \"127.0.0.1:{port}\""
            )),
            None => mismatch,
        }
    })
}

/// A FINESS number.
pub(super) fn finess(raw: &Raw<'_>) -> Parsed<Finess> {
    let expected = || {
        Mismatch::expected(
            "a FINESS number: nine characters, such as \"060785003\" or \"2A0000253\"",
        )
    };
    match raw.text() {
        Some(text) => text.parse().map_err(|_| expected()),
        None if raw.integer().is_some() => {
            Err(expected().hint("write it between quotes: numbers lose their leading zero"))
        }
        None => Err(expected()),
    }
}

/// `Host` names without port, lower-cased.
pub(super) fn hosts(raw: &Raw<'_>) -> Parsed<Vec<String>> {
    let bare = |text: &str| {
        let authority: http::uri::Authority = text.parse().ok()?;
        let is_bare = authority.host() == authority.as_str();
        is_bare.then(|| authority.as_str().to_lowercase())
    };
    let bare = |text: &str| bare(text).ok_or(None);
    list(
        "a list of host names without port, such as [\"gateway.internal\"]",
        bare,
    )(raw)
}

/// A list of texts, separated by commas where everything is text; blanks around each do not count. The error of `one`
/// is a hint.
pub(super) fn list<T>(
    expected: &str,
    one: impl Fn(&str) -> Result<T, Option<String>>,
) -> impl Fn(&Raw<'_>) -> Parsed<Vec<T>> {
    move |raw| {
        let item = |text: &str| {
            one(text.trim()).map_err(|hint| Mismatch {
                found: Some(format!("{text:?}")),
                expected: expected.to_owned(),
                hint,
            })
        };
        match raw.kind {
            ValueKind::Array(items) => {
                let is_text = |value| {
                    Raw::from(value)
                        .text()
                        .map_or_else(|| Err(Mismatch::expected(expected)), item)
                };
                items.iter().map(is_text).collect()
            }
            ValueKind::String(list) if raw.is_text => list.split(',').map(item).collect(),
            _ => Err(Mismatch::expected(expected)),
        }
    }
}
