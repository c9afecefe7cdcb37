//! `[services.NAME]`: what the catalogue knows, and what the configuration says instead.

use std::num::NonZeroU32;
use std::sync::Arc;

use bytesize::ByteSize;
use http::Uri;
use http::uri::Authority;

use super::headers;
use super::parse;
use super::problem::What;
use super::raw::{Mismatch, Parsed, Raw};
use super::reader::{Found, Reader, Spot};
use super::section::Section;
use super::suggest::closest;
use super::target;
use super::whole::ENVIRONMENTS;
use crate::services::{
    BuiltIn, CATALOGUE, Environment, HttpVersions, OnRejection, Owner, PoolLimits, RequestLimits,
    Retry, Service, Target, Timeouts, TlsVersions, WantedCertificate, is_service_name,
};

const CERTIFICATES: &[(&str, WantedCertificate)] = &[
    ("org-auth-cli", WantedCertificate::OrgAuthCli),
    ("insi-auto", WantedCertificate::InsiAuto),
    ("insi-manu", WantedCertificate::InsiManu),
    ("none", WantedCertificate::None),
];
const OWNERS: &[(&str, Owner)] = &[("structure", Owner::Structure), ("vendor", Owner::Vendor)];
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

const ON_REJECTION: &[(&str, OnRejection)] = &[
    ("previous", OnRejection::Previous),
    ("fail", OnRejection::Fail),
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
            target::built_in_names()
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

/// The name of a service that has a section.
pub(super) fn declared(raw: &Raw<'_>, names: &[String]) -> Parsed<String> {
    let expected = || Mismatch::expected("the name of a service of this configuration");
    let name = parse::text(raw).map_err(|_| expected())?;
    if names.contains(&name) {
        return Ok(name);
    }
    Err(match closest(&name, names.iter().map(String::as_str)) {
        Some(known) => expected().hint(format!("did you mean {known:?}?")),
        None => expected().hint(format!(
            "add a [services.NAME] section; there are: {}",
            names.join(", ")
        )),
    })
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
    let url = target::url(&mut section, name, built_in, environment);
    let address = section.take("address", target::address);
    let certificate = section.take("certificate", parse::word(CERTIFICATES));
    let owner = section.take("owner", parse::word(OWNERS));
    let trust = target::trust(&mut section, built_in, environment);
    let tls = section.take("tls", parse::word(TLS));
    let http = section.require("http", parse::word(HTTP));
    let retry = section.require("retry", parse::word(RETRY));
    let on_rejection = section.require("on_rejection", parse::word(ON_REJECTION));
    // Beyond a thousand a second a limit protects nobody.
    let rate = section.take("rate", parse::count(1..=1000));
    let rate_per_tenant = section.take("rate_per_tenant", parse::count(1..=1000));
    let breaker = section.require("breaker", parse::flag);
    let headers = section.section("headers").map(headers::read);
    let timeouts = section.section("timeouts").and_then(timeouts);
    let pool = section.section("pool").and_then(pool);
    let limits = section.section("limits").and_then(request_limits);
    let (reader, spot) = (section.reader, section.spot.clone());
    section.finish();
    if let Some(known) = built_in {
        refuse_other_certificate(reader, known, certificate.as_ref());
        warn_lent(reader, known, owner.as_ref());
    }
    if let (Some(environment), Some((authority, _))) = (environment, &url) {
        refuse_other_environment(reader, &spot, environment, authority);
    }
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
        owner: owner.map_or_else(|| default_owner(built_in), |found| found.value),
        trust: trust?,
        tls: tls.map_or_else(
            || built_in.map_or(TlsVersions::Tls12And13, |known| known.tls.value),
            |found| found.value,
        ),
        http: http?.value,
        timeouts: timeouts?,
        pool: pool?,
        retry: retry?.value,
        on_rejection: on_rejection?.value,
        limits: limits?,
        headers: headers.unwrap_or_else(|| Some(Vec::new()))?,
        rate: rate.and_then(a_second),
        rate_per_tenant: rate_per_tenant.and_then(a_second),
        breaker: breaker?.value,
    })
}

fn a_second(found: Found<usize>) -> Option<NonZeroU32> {
    u32::try_from(found.value).ok().and_then(NonZeroU32::new)
}

/// A declared service wants what most do. `none` would send requests without identity: it has to be asked for.
fn default_certificate(built_in: Option<&BuiltIn>) -> WantedCertificate {
    built_in.map_or(WantedCertificate::OrgAuthCli, |known| {
        known.certificate.value
    })
}

/// What is nobody's to lend has to be lent expressly.
fn default_owner(built_in: Option<&BuiltIn>) -> Owner {
    built_in.map_or(Owner::Structure, |known| known.owner.value)
}

/// INSi takes its own certificates alone, and some services must never see one: whatever the configuration says, that is
/// no longer this service.
fn refuse_other_certificate(
    reader: &Reader<'_>,
    known: &BuiltIn,
    given: Option<&Found<WantedCertificate>>,
) {
    let wanted = known.certificate.value;
    let Some(given) = given.filter(|given| given.value != wanted) else {
        return;
    };
    if wanted == WantedCertificate::OrgAuthCli {
        return;
    }
    let text = format!(
        "{} takes {:?} and nothing else",
        known.name,
        wanted.as_str()
    );
    let hint = "remove the line; to try something else, declare a service of another name";
    reader.error(&given.spot, What::Rule(text), Some(hint.to_owned()));
}

fn warn_lent(reader: &Reader<'_>, known: &BuiltIn, given: Option<&Found<Owner>>) {
    let is_lent = |given: &&Found<Owner>| {
        given.value == Owner::Vendor && known.owner.value == Owner::Structure
    };
    if let Some(given) = given.filter(is_lent) {
        let text = format!("{} wants the structure's own certificate", known.name);
        let hint = "remove the line, unless the service has agreed to be shown the éditeur's";
        reader.warning(&given.spot, text, hint);
    }
}

/// Test certificates never reach a production service, nor the reverse: not by a mistaken URL either.
fn refuse_other_environment(
    reader: &Reader<'_>,
    spot: &Spot,
    environment: Environment,
    authority: &Authority,
) {
    let other = match environment {
        Environment::Production => Environment::Test,
        Environment::Test => Environment::Production,
    };
    let is_at = |known: &&BuiltIn, environment| {
        let url: Option<Uri> = known.url(environment).and_then(|url| url.parse().ok());
        // Annuaire Santé and its like are shown no certificate, and may be the same for both.
        known.certificate.value != WantedCertificate::None
            && url.is_some_and(|url| url.host() == Some(authority.host()))
    };
    let Some(known) = CATALOGUE.iter().find(|known| is_at(known, other)) else {
        return;
    };
    let text = format!(
        "{} is where {} is in {other}, and this is a {environment} service",
        authority.host(),
        known.name
    );
    let hint = format!("correct the url, or set environment = \"{other}\" for this service");
    reader.error(spot, What::Rule(text), Some(hint));
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
    // More would be opened in vain: connections that requests need beyond these resume a session.
    let prewarm = section.require("prewarm", parse::count(0..=64));
    let drain = section.require("drain", parse::duration);
    section.finish();
    Some(PoolLimits {
        idle_timeout: idle_timeout?.value,
        max_lifetime: max_lifetime?.value,
        max_connections: max_connections?.value,
        prewarm: prewarm?.value,
        drain: drain?.value,
    })
}

fn request_limits(mut section: Section<'_>) -> Option<RequestLimits> {
    // Bodies are streamed, so the upper bound only keeps typing errors out.
    let most = section.require(
        "request_body",
        parse::size(ByteSize::b(1)..=ByteSize::gib(10)),
    );
    // As many as connections of applications at the most: beyond, a limit protects nobody.
    let requests = section.take("requests", parse::count(1..=1_000_000));
    let per_tenant = section.require("requests_per_tenant", parse::count(1..=1_000_000));
    section.finish();
    Some(RequestLimits {
        request_body: most?.value,
        requests: requests.map(|found| found.value),
        requests_per_tenant: per_tenant?.value,
    })
}
