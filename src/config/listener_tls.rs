//! `[listeners.tls]`: what a listener proves itself with, and which certificates it asks of applications. And
//! `[listeners.intercept]`: what it proves in a service's place.

use std::path::PathBuf;

use super::problem::What;
use super::raw::{Mismatch, Parsed, Raw};
use super::reader::Reader;
use super::section::Section;
use super::{ClientCertificates, Intercept, ListenerTls, files, parse};

/// Whether applications must show a certificate.
const CLIENT_CERTIFICATE: &[(&str, bool)] = &[("required", true), ("optional", false)];

/// Reads the section of one listener.
pub(super) fn read(mut section: Section<'_>) -> Option<ListenerTls> {
    let reader = section.reader;
    let chain = |raw: &Raw<'_>| file(raw, reader, files::certificates, "with certificates");
    let certificate = section.require("certificate", chain);
    let key = section.require("key", |raw| {
        file(raw, reader, files::readable, "with a private key")
    });
    let asks = section.has("client_authorities");
    let authorities = section.take("client_authorities", chain);
    let is_required = section.take("client_certificate", parse::word(CLIENT_CERTIFICATE));
    let crls = section.take(
        "crls",
        parse::list(
            "a list of files with revocation lists, such as [\"clients.crl\"]",
            |text| {
                let path = reader.base.join(text);
                let looked = reader.look(&path, files::readable);
                looked.map(|()| path).map_err(|mismatch| mismatch.hint)
            },
        ),
    );
    // Either would promise a check that nobody makes.
    for spot in [
        is_required.as_ref().map(|found| &found.spot),
        crls.as_ref().map(|found| &found.spot),
    ] {
        if let Some(spot) = spot.filter(|_| !asks) {
            let text = "nobody is asked for a certificate here".to_owned();
            let hint = "name the authorities whose certificates are taken: client_authorities";
            reader.error(spot, What::Rule(text), Some(hint.to_owned()));
        }
    }
    section.finish();
    let (certificate, key) = (certificate?.value, key?.value);
    let clients = match asks {
        // A key that cannot be read must not leave a listener that asks for nothing.
        true => Some(ClientCertificates {
            authorities: authorities?.value,
            is_required: is_required.is_none_or(|found| found.value),
            crls: crls.map(|found| found.value).unwrap_or_default(),
        }),
        false => None,
    };
    Some(ListenerTls {
        certificate,
        key,
        clients,
    })
}

/// Reads what CONNECT is answered under.
pub(super) fn intercept(mut section: Section<'_>) -> Option<Intercept> {
    let reader = section.reader;
    let authority = section.require("authority", |raw| {
        file(raw, reader, files::certificates, "with certificates")
    });
    let key = section.require("key", |raw| {
        file(raw, reader, files::readable, "with a private key")
    });
    section.finish();
    Some(Intercept {
        authority: authority?.value,
        key: key?.value,
    })
}

fn file(
    raw: &Raw<'_>,
    reader: &Reader<'_>,
    look: impl FnOnce(&std::path::Path) -> Result<(), Mismatch>,
    what: &str,
) -> Parsed<PathBuf> {
    let expected = |mismatch| Mismatch {
        expected: format!("a PEM file {what}"),
        ..mismatch
    };
    let path = parse::path(&reader.base)(raw).map_err(expected)?;
    reader.look(&path, look).map_err(expected)?;
    Ok(path)
}
