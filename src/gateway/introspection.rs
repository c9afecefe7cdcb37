//! `GET /-/identity/{service}`: which certificate would be shown, for applications that must repeat what it says
//! (`Emetteur` at INSi, `Identifiant_Structure` in a VIHF).

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode};
use serde::Serialize;

use crate::gateway::address::Address;
use crate::gateway::reply::{Code, Problem};
use crate::gateway::table::Table;
use crate::identity::profile::Profile;
use crate::identity::states::timestamp;

#[derive(Serialize)]
struct Identity<'a> {
    service: &'a str,
    tenant: Option<&'a str>,
    /// The structure identifier, type digit included.
    ou: Option<String>,
    cn: Option<&'a str>,
    o: Option<&'a str>,
    /// RFC 4514.
    subject: &'a str,
    issuer: &'a str,
    serial: &'a str,
    sha256: String,
    not_before: String,
    not_after: String,
}

/// Answers a request whose path begins with `/-/`, as far as the caller `may` use a service.
///
/// # Errors
/// When it asks for something else, or there is no certificate to tell of.
pub(super) fn answer(
    table: &Table,
    method: &Method,
    address: &Address<'_>,
    may: impl FnOnce(&str) -> Result<(), Problem>,
) -> Result<Response<Bytes>, Problem> {
    let path = address.remainder.split('?').next().unwrap_or_default();
    let Some(name) = path.strip_prefix("/identity/") else {
        return Err(Problem::new(
            Code::ServiceUnknown,
            "paths that begin with /-/ are Relais's own, and this is none of them",
            "GET /-/identity/SERVICE tells which certificate the service would be shown",
        ));
    };
    may(name)?;
    let (index, offered) = table.service(name)?;
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut refused = Response::new(Bytes::new());
        *refused.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        refused
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(refused);
    }
    let pool = table.serving(table.pool(address.tenant, index)?);
    let Some(generation) = pool.generation() else {
        return Err(Problem::new(
            Code::CertificateMissing,
            format!("{} is never shown a certificate", offered.service.name),
            "",
        )
        .with_status(StatusCode::NOT_FOUND));
    };
    let profile = &generation.identity().profile;
    let tenant = address.tenant.as_ref().map(|tenant| tenant.as_str());
    let body = serde_json::to_vec(&describe(profile, &offered.service.name, tenant))
        .expect("strings always serialise");
    let mut response = Response::new(Bytes::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn describe<'a>(profile: &'a Profile, service: &'a str, tenant: Option<&'a str>) -> Identity<'a> {
    Identity {
        service,
        tenant,
        ou: profile.structure.as_ref().map(ToString::to_string),
        cn: profile.common_name.as_deref(),
        o: profile.organization.as_deref(),
        subject: &profile.subject,
        issuer: &profile.issuer,
        serial: &profile.serial,
        sha256: profile.fingerprint.to_string(),
        not_before: timestamp(profile.not_before),
        not_after: timestamp(profile.not_after),
    }
}
