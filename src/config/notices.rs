//! `[notices]`: whom to tell what needs somebody's attention.

use std::net::IpAddr;
use std::path::Path;

use http::{HeaderName, HeaderValue, Uri};
use zeroize::Zeroizing;

use super::raw::{Mismatch, Parsed, Raw};
use super::section::Section;
use super::{Notices, files, parse, target};
use crate::services::Trust;

pub(super) fn read(mut section: Section<'_>) -> Option<Notices> {
    let base = &section.reader.base;
    let webhook = section.require("webhook", webhook);
    let header = section.take("header_file", |raw| header(raw, base));
    let trust = section.take("trust", target::anchors(base));
    section.finish();
    Some(Notices {
        webhook: webhook?.value,
        header: header.map(|found| found.value),
        trust: trust.map_or(Trust::Public, |found| found.value),
    })
}

fn webhook(raw: &Raw<'_>) -> Parsed<Uri> {
    let refused = || {
        let mut mismatch = Mismatch::expected("an https URL, or an http one of this machine");
        // Its path is often a secret.
        mismatch.found = raw.text().map(|_| "something else".to_owned());
        mismatch
    };
    let text = raw.text().filter(|text| !text.contains('#'));
    let uri: Uri = text
        .and_then(|text| text.parse().ok())
        .ok_or_else(refused)?;
    let authority = uri.authority().ok_or_else(refused)?;
    if authority.as_str().contains('@') || authority.port_u16() == Some(0) {
        return Err(
            refused().hint("no user before the host: put what identifies Relais in header_file")
        );
    }
    match uri.scheme_str() {
        Some("https") => Ok(uri),
        Some("http") if is_local(authority.host()) => Ok(uri),
        Some("http") => Err(refused().hint("notices name structures and certificates: use https")),
        _ => Err(refused()),
    }
}

fn is_local(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || bare
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

/// The field in a file of one line, `Name: value`.
fn header(raw: &Raw<'_>, base: &Path) -> Parsed<(HeaderName, HeaderValue)> {
    let expected =
        || Mismatch::expected("a file with one line, such as \"Authorization: Bearer …\"");
    let content = files::content(&parse::path(base)(raw)?).map(Zeroizing::new)?;
    let line = content.trim_ascii();
    let colon = line
        .iter()
        .position(|byte| *byte == b':')
        .ok_or_else(expected)?;
    let name = HeaderName::from_bytes(&line[..colon]).map_err(|_| expected())?;
    let value = line[colon + 1..].trim_ascii();
    let mut value = HeaderValue::from_bytes(value).map_err(|_| expected())?;
    value.set_sensitive(true);
    Ok((name, value))
}
