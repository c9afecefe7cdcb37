//! `[services.NAME]`: what the catalogue knows, and what the configuration says instead.

use std::sync::Arc;

use bytesize::ByteSize;
use http::uri::{Authority, Uri};

use super::files;
use super::parse::{self, Mismatch, Parsed, Raw};
use super::problem::What;
use super::reader::{Found, Section};
use super::suggest::closest;
use super::whole::ENVIRONMENTS;
use crate::services::{
    BuiltIn, CATALOGUE, Environment, HttpVersions, PoolLimits, Retry, Service, Target, Timeouts,
    TlsVersions, Trust, WantedCertificate, is_service_name,
};

const CERTIFICATES: &[(&str, WantedCertificate)] = &[
    ("org-auth-cli", WantedCertificate::OrgAuthCli),
    ("insi-auto", WantedCertificate::InsiAuto),
    ("insi-manu", WantedCertificate::InsiManu),
    ("none", WantedCertificate::None),
];
const TLS: &[(&str, TlsVersions)] = &[
    ("1.2", TlsVersions::Only12),
    ("1.3", TlsVersions::Only13),
    ("1.2+", TlsVersions::Tls12And13),
];
const HTTP: &[(&str, HttpVersions)] = &[
    ("auto", HttpVersions::Auto),
    ("h1", HttpVersions::H1),
    ("h2", HttpVersions::H2),
];
const RETRY: &[(&str, Retry)] = &[
    ("never", Retry::Never),
    ("unsent", Retry::Unsent),
    ("idempotent", Retry::Idempotent),
];

/// Reads the sections of all services; the names of all that were written, good or not, go to `names`.
pub(super) fn read(
    root: &mut Section<'_>,
    environment: Option<Environment>,
    names: &mut Vec<String>,
) -> Option<Vec<Service>> {
    let errors_before = root.reader.error_count();
    let sections = root.named_sections("services");
    if sections.is_empty() && root.reader.error_count() == errors_before {
        let hint = format!(
            "add [services.NAME] for each service to reach; built in: {}",
            built_in_names()
        );
        root.missing("services", "at least one service", Some(hint));
    }
    names.extend(sections.iter().map(|(name, _)| name.clone()));
    let services: Vec<Option<Service>> = sections
        .into_iter()
        .map(|(name, section)| service(&name, section, environment))
        .collect();
    services.into_iter().collect()
}

fn service(
    name: &str,
    mut section: Section<'_>,
    environment: Option<Environment>,
) -> Option<Service> {
    if !is_service_name(name) {
        let text = "not a service name: lower-case letters, digits and hyphens, 64 at most, not a hyphen first";
        let hint = closest(name, CATALOGUE.iter().map(|service| service.name));
        let hint = hint.map(|known| format!("did you mean {known:?}?"));
        section
            .reader
            .error(&section.spot, What::Rule(text.to_owned()), hint);
    }
    let built_in = BuiltIn::find(name);
    let own_environment = section.take("environment", parse::word(ENVIRONMENTS));
    warn_other_environment(&section, environment, own_environment.as_ref());
    let environment = own_environment.map(|found| found.value).or(environment);
    let url = url(&mut section, name, built_in, environment);
    let address = section.take("address", service_address);
    let certificate = section.take("certificate", parse::word(CERTIFICATES));
    let trust = trust(&mut section, built_in, environment);
    let tls = section.take("tls", parse::word(TLS));
    let http = section.require("http", parse::word(HTTP));
    let retry = section.require("retry", parse::word(RETRY));
    let timeouts = section.section("timeouts").and_then(timeouts);
    let pool = section.section("pool").and_then(pool);
    let limits = section.section("limits").and_then(request_body);
    section.finish();
    let (authority, base_path) = url?;
    Some(Service {
        name: Arc::from(name),
        target: Target {
            authority,
            base_path,
            address: address.map(|found| found.value),
        },
        environment: environment?,
        certificate: certificate.map_or_else(|| default_certificate(built_in), |found| found.value),
        trust: trust?,
        tls: tls.map_or_else(
            || built_in.map_or(TlsVersions::Tls12And13, |known| known.tls),
            |found| found.value,
        ),
        http: http?.value,
        timeouts: timeouts?,
        pool: pool?,
        retry: retry?.value,
        max_request_body: limits?,
    })
}

/// A service that nobody described wants what most do; showing no certificate by mistake is the safer surprise
/// only where the configuration asks for it.
fn default_certificate(built_in: Option<&BuiltIn>) -> WantedCertificate {
    built_in.map_or(WantedCertificate::OrgAuthCli, |known| known.certificate)
}

fn warn_other_environment(
    section: &Section<'_>,
    whole: Option<Environment>,
    own: Option<&Found<Environment>>,
) {
    let (Some(whole), Some(own)) = (whole, own) else {
        return;
    };
    if own.value != whole {
        let text = format!("{} service in a {whole} gateway", own.value);
        let hint = format!(
            "it will be shown {} certificates only; make sure that this is meant",
            own.value
        );
        section.reader.warning(&own.spot, text, hint);
    }
}

fn url(
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
        let authority = text
            .split("//")
            .nth(1)
            .and_then(|rest| rest.split(['/', '?', '#']).next());
        // A user in a URL may come with a password.
        if authority.is_some_and(|authority| authority.contains('@')) {
            mismatch.found = Some("a URL with a user".to_owned());
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

fn service_address(raw: &Raw<'_>) -> Parsed<std::net::SocketAddr> {
    let address = parse::socket(raw)?;
    match address.port() {
        0 => Err(Mismatch::expected("an address with a port other than 0")),
        _ => Ok(address),
    }
}

fn trust(
    section: &mut Section<'_>,
    built_in: Option<&BuiltIn>,
    environment: Option<Environment>,
) -> Option<Trust> {
    let base = &section.reader.base;
    let parse = |raw: &Raw<'_>| {
        if raw.text() == Some("public") {
            return Ok(Trust::Public);
        }
        let path = parse::path(base)(raw)
            .map_err(|_| Mismatch::expected("a PEM file with certificates, or \"public\""))?;
        files::certificates(&path).map(|()| Trust::File(path))
    };
    let given = section.has("trust");
    let found = section.take("trust", parse);
    if given {
        return found.map(|found| found.value);
    }
    if built_in.is_some_and(|known| known.public_trust) {
        return Some(Trust::Public);
    }
    section.missing(
        "trust",
        "a PEM file with certificates, or \"public\"",
        Some(trust_hint(environment)),
    );
    None
}

/// Which files to put together, and from where.
fn trust_hint(environment: Option<Environment>) -> String {
    let (prefix, folder, also) = match environment {
        Some(Environment::Test) => (
            "TEST ",
            "PC%20TEST/",
            "; some test platforms show the production chain instead",
        ),
        Some(Environment::Production) | None => ("", "PC/", ""),
    };
    format!(
        "IGC-Santé signs it: put \"{prefix}AC RACINE IGC-SANTE ELEMENTAIRE\" and \"{prefix}AC IGC-SANTE ELEMENTAIRE \
         ORGANISATIONS\" (http://igc-sante.esante.gouv.fr/{folder}) in one PEM file, and name it here{also}"
    )
}

fn timeouts(mut section: Section<'_>) -> Option<Timeouts> {
    let connect = section.require("connect", parse::duration);
    let handshake = section.require("handshake", parse::duration);
    let response = section.require("response", parse::duration);
    let body = section.require("body", parse::duration);
    section.finish();
    Some(Timeouts {
        connect: connect?.value,
        handshake: handshake?.value,
        response: response?.value,
        body: body?.value,
    })
}

fn pool(mut section: Section<'_>) -> Option<PoolLimits> {
    let idle_timeout = section.require("idle_timeout", parse::duration);
    let max_lifetime = section.require("max_lifetime", parse::duration);
    // More than 10,000 connections from one structure to one service would be an attack on it.
    let max_connections = section.require("max_connections", parse::count(1..=10_000));
    section.finish();
    Some(PoolLimits {
        idle_timeout: idle_timeout?.value,
        max_lifetime: max_lifetime?.value,
        max_connections: max_connections?.value,
    })
}

fn request_body(mut section: Section<'_>) -> Option<u64> {
    // Bodies are streamed, so the upper bound only keeps typing errors out.
    let most = section.require(
        "request_body",
        parse::size(ByteSize::b(1)..=ByteSize::gib(10)),
    );
    section.finish();
    Some(most?.value)
}

fn built_in_names() -> String {
    let names: Vec<&str> = CATALOGUE.iter().map(|service| service.name).collect();
    names.join(", ")
}
