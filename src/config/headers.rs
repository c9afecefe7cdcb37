//! `[services.NAME.headers]`: fields that Relais puts on each request, so that applications need not hold an API key.

use std::cell::RefCell;
use std::collections::HashSet;

use ::config::ValueKind;
use http::header::{self, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::files;
use super::raw::{Mismatch, Parsed, Raw};
use super::reader::Reader;
use super::section::Section;
use crate::gateway::address::X_FINESS;
use crate::gateway::credentials::X_RELAIS_TOKEN;
use crate::gateway::headers::HOP_BY_HOP;

/// Fields that HTTP itself or the gateway sets, besides those that speak of one connection only.
const NOT_FREE: [HeaderName; 6] = [
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::HOST,
    header::TRAILER,
    X_FINESS,
    X_RELAIS_TOKEN,
];

fn is_free(name: &HeaderName) -> bool {
    // Servers that fold underscores into hyphens would take one field for another (CVE-2025-64484).
    !name.as_str().contains('_') && !NOT_FREE.contains(name) && !HOP_BY_HOP.contains(name)
}

/// Reads all fields of a service.
pub(super) fn read(section: Section<'_>) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let reader = section.reader;
    let seen = RefCell::new(HashSet::new());
    section.secret_values(|name, raw| {
        let (name, value) = field(name, raw, reader)?;
        if !seen.borrow_mut().insert(name.clone()) {
            let expected = "each field once: names differ by more than capitals";
            return Err(Mismatch::expected(expected));
        }
        Ok((name, value))
    })
}

fn field(name: &str, raw: &Raw<'_>, reader: &Reader<'_>) -> Parsed<(HeaderName, HeaderValue)> {
    let name = HeaderName::from_bytes(name.as_bytes())
        .ok()
        .filter(is_free)
        .ok_or_else(|| {
            Mismatch::expected(
                "the name of a field that neither HTTP nor Relais sets itself, such as ESANTE-API-KEY",
            )
        })?;
    let expected = || {
        Mismatch::expected(
            "the field's value as text, or { file = \"PATH\" } of a file that holds it",
        )
    };
    let text = match raw.kind {
        ValueKind::Table(table) => {
            let only = table.get("file").filter(|_| table.len() == 1);
            let file = only.map(Raw::from);
            let path = file.as_ref().and_then(Raw::text).ok_or_else(expected)?;
            {
                let path = reader.base.join(path);
                reader.reads.borrow_mut().insert(path.clone());
                files::secret(&path)?
            }
        }
        _ => Zeroizing::new(raw.text().ok_or_else(expected)?.to_owned()),
    };
    let mut value = HeaderValue::from_str(&text).map_err(|_| {
        expected().hint("a field's value is one line of visible characters, without accents")
    })?;
    value.set_sensitive(true);
    Ok((name, value))
}
