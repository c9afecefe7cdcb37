//! `[revocation]`: where lists of revoked certificates come from.

use std::path::PathBuf;

use http::Uri;

use super::raw::{Mismatch, Parsed, Raw};
use super::reader::Reader;
use super::section::Section;
use super::{CrlSource, Revocation, Unknown, files, parse};

const UNKNOWN: &[(&str, Unknown)] = &[("accept", Unknown::Accept), ("refuse", Unknown::Refuse)];

const EXPECTED: &str = "a list of files and http URLs, such as [\"http://igc-sante.esante.gouv.fr/CRL/ACI-EL-ORG.crl\"]";

pub(super) fn read(mut section: Section<'_>) -> Option<Revocation> {
    let reader = section.reader;
    let path = parse::path(&reader.base);
    let crls = section.take("crls", |raw| {
        let sources = parse::list(EXPECTED, |text| source(text, reader))(raw);
        sources.map_err(|mismatch| without_user(mismatch, raw))
    });
    let keeps = section.has("cache");
    let cache = section.take("cache", |raw| {
        let path = path(raw)?;
        files::creatable(&path).map(|()| path)
    });
    let refresh = section.require("refresh", parse::duration);
    let timeout = section.require("timeout", parse::duration);
    let trust = section.take("trust", |raw| trust(raw, reader));
    let unknown = section.require("unknown", parse::word(UNKNOWN));
    let crls = crls.map(|found| found.value).unwrap_or_default();
    let fetches = crls.iter().any(|one| matches!(one, CrlSource::Url(_)));
    if fetches && !keeps {
        let hint = "without it, a restart while the server is down would forget who is revoked";
        section.missing(
            "cache",
            "a folder to keep fetched lists in",
            Some(hint.to_owned()),
        );
    }
    section.finish();
    Some(Revocation {
        crls,
        cache: cache.map(|found| found.value),
        refresh: refresh?.value,
        timeout: timeout?.value,
        trust: trust.map(|found| found.value),
        unknown: unknown?.value,
    })
}

/// A user in a URL may come with a password.
fn without_user(mismatch: Mismatch, raw: &Raw<'_>) -> Mismatch {
    let found = mismatch.found.as_deref().or_else(|| raw.text());
    match found.is_some_and(|found| found.contains('@')) {
        true => mismatch.hidden(),
        false => mismatch,
    }
}

/// What is wrong with one source is told in a hint.
fn source(text: &str, reader: &Reader<'_>) -> Result<CrlSource, Option<String>> {
    let Some((scheme, _)) = text.split_once("://") else {
        let path = reader.base.join(text);
        let looked = reader.look(&path, files::readable);
        looked.map_err(|mismatch| mismatch.hint)?;
        return Ok(CrlSource::File(path));
    };
    if scheme != "http" {
        return Err(Some(format!(
            "{scheme} is not spoken here: lists are signed, so authorities give them over http, as their certificates \
             say under CRL distribution points"
        )));
    }
    let uri: Uri = text.parse().map_err(|_| None)?;
    let is_plain = uri.authority().is_some_and(|authority| {
        !authority.as_str().contains('@') && authority.port_u16() != Some(0)
    });
    let is_plain = is_plain && !text.contains('#');
    is_plain.then_some(CrlSource::Url(uri)).ok_or(None)
}

fn trust(raw: &Raw<'_>, reader: &Reader<'_>) -> Parsed<PathBuf> {
    let path = parse::path(&reader.base)(raw)?;
    let expected = |mismatch| Mismatch {
        expected: "a PEM file with certificates".to_owned(),
        ..mismatch
    };
    reader.look(&path, files::certificates).map_err(expected)?;
    Ok(path)
}
