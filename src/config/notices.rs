//! `[notices]`: whom to tell what needs somebody's attention.

use std::net::IpAddr;

use http::Uri;

use super::raw::{Mismatch, Parsed, Raw};
use super::section::Section;
use super::{Notices, headers, target};
use crate::services::Trust;

pub(super) fn read(mut section: Section<'_>) -> Option<Notices> {
    let webhook = section.require("webhook", webhook);
    let trust = section.take("trust", target::anchors(section.reader));
    let headers = section.section("headers").map(headers::read);
    section.finish();
    Some(Notices {
        webhook: webhook?.value,
        headers: headers.unwrap_or_else(|| Some(Vec::new()))?,
        trust: trust.map_or(Trust::Public, |found| found.value),
    })
}

fn webhook(raw: &Raw<'_>) -> Parsed<Uri> {
    // Its path is often a secret.
    let refused = || Mismatch::expected("an https URL, or an http one of this machine").hidden();
    let text = raw.text().filter(|text| !text.contains('#'));
    let uri: Uri = text
        .and_then(|text| text.parse().ok())
        .ok_or_else(refused)?;
    let authority = uri.authority().ok_or_else(refused)?;
    if authority.as_str().contains('@') || authority.port_u16() == Some(0) {
        return Err(
            refused().hint("no user before the host: put what identifies Relais in headers")
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
