//! Where a service is, and whom to believe that it is there.

use http::uri::{Authority, Uri};

use super::files;
use super::parse;
use super::raw::{Mismatch, Parsed, Raw};
use super::reader::Reader;
use super::section::Section;
use super::suggest::closest;
use crate::services::{BuiltIn, CATALOGUE, Environment, Trust};

/// The base URL: given, or the catalogue's for the environment.
pub(super) fn url(
    section: &mut Section<'_>,
    name: &str,
    built_in: Option<&'static BuiltIn>,
    environment: Option<Environment>,
) -> Option<(Authority, Box<str>)> {
    let given = section.has("url");
    let found = section.take("url", https_url);
    if given {
        return found.map(|found| found.value);
    }
    // Without an environment (itself an error) nobody can say whether the catalogue has a URL.
    let known = built_in.map(|built_in| environment.map(|environment| built_in.url(environment)));
    let hint = match known {
        Some(None) => return None,
        Some(Some(Some(url))) => return parse_https(url),
        Some(Some(None)) => format!("the {} URL of {name:?} is not built in", environment?),
        None => match closest(name, CATALOGUE.iter().map(|service| service.name)) {
            Some(close) => format!("{name:?} is not a built-in service: did you mean {close:?}?"),
            None => format!("{name:?} is not a built-in service ({})", built_in_names()),
        },
    };
    section.missing(
        "url",
        "an https URL, such as \"https://service.example/base\"",
        Some(hint),
    );
    None
}

fn https_url(raw: &Raw<'_>) -> Parsed<(Authority, Box<str>)> {
    let expected = || {
        Mismatch::expected(
            "an https URL without user, query or fragment, such as \"https://service.example/base\"",
        )
    };
    let text = raw.text().ok_or_else(expected)?;
    parse_https(text).ok_or_else(|| {
        let mut mismatch = expected();
        // A user may come with a password, and a query with a key.
        if text.contains('@') {
            mismatch.found = Some("a URL with a user".to_owned());
        } else if text.contains(['?', '#']) {
            mismatch.found = Some("a URL with a query or fragment".to_owned());
        }
        if text.starts_with("http:") {
            mismatch = mismatch.hint("services are reached over TLS only");
        }
        mismatch
    })
}

/// Authority and base path, which is empty or starts with `/` and ends without.
fn parse_https(text: &str) -> Option<(Authority, Box<str>)> {
    // `Uri` drops a fragment without a word.
    if text.contains(['#', '?']) {
        return None;
    }
    let uri: Uri = text.parse().ok()?;
    let is_https = uri.scheme_str() == Some("https");
    let authority = uri.authority().filter(|_| is_https)?;
    let bare = match authority.port() {
        Some(port) => format!("{}:{}", authority.host(), port.as_str()),
        None => authority.host().to_owned(),
    };
    if bare != authority.as_str() || authority.host().is_empty() || authority.port_u16() == Some(0)
    {
        return None;
    }
    let lower = authority.as_str().to_lowercase().parse().ok()?;
    Some((lower, uri.path().trim_end_matches('/').into()))
}

/// An address to connect to in place of the URL's host.
pub(super) fn address(raw: &Raw<'_>) -> Parsed<std::net::SocketAddr> {
    let address = parse::socket(raw)?;
    match address.port() {
        0 => Err(Mismatch::expected("an address with a port other than 0")),
        _ => Ok(address),
    }
}

/// The trust anchors: given, or the web's where the catalogue says so.
pub(super) fn trust(
    section: &mut Section<'_>,
    built_in: Option<&BuiltIn>,
    environment: Option<Environment>,
) -> Option<Trust> {
    let given = section.has("trust");
    let found = section.take("trust", anchors(section.reader));
    if given {
        return found.map(|found| found.value);
    }
    if built_in.is_some_and(|known| known.public_trust.value) {
        return Some(Trust::Public);
    }
    section.missing(
        "trust",
        "a PEM file with certificates, or \"public\"",
        Some(trust_hint(built_in.is_some(), environment)),
    );
    None
}

/// A file of trust anchors, or the web's.
pub(super) fn anchors(reader: &Reader<'_>) -> impl Fn(&Raw<'_>) -> Parsed<Trust> {
    move |raw| {
        if raw.text() == Some("public") {
            return Ok(Trust::Public);
        }
        let path = parse::path(&reader.base)(raw)
            .map_err(|_| Mismatch::expected("a PEM file with certificates, or \"public\""))?;
        reader.look(&path, files::certificates)?;
        Ok(Trust::File(path))
    }
}

/// Which files to put together, and from where.
fn trust_hint(built_in: bool, environment: Option<Environment>) -> String {
    let signed = if built_in {
        "IGC-Santé signs it"
    } else {
        "if IGC-Santé signs it"
    };
    let (prefix, folder, also) = match environment {
        Some(Environment::Test) => (
            "TEST ",
            "PC%20TEST/",
            "; some test platforms show the production chain instead",
        ),
        Some(Environment::Production) | None => ("", "PC/", ""),
    };
    format!(
        "{signed}: put \"{prefix}AC RACINE IGC-SANTE ELEMENTAIRE\" and \"{prefix}AC IGC-SANTE ELEMENTAIRE \
         ORGANISATIONS\" (http://igc-sante.esante.gouv.fr/{folder}) in one PEM file, and name it here{also}"
    )
}

/// The names of the catalogue, for hints.
pub(super) fn built_in_names() -> String {
    let names: Vec<&str> = CATALOGUE.iter().map(|service| service.name).collect();
    names.join(", ")
}
