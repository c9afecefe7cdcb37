//! Requests as applications make them through the gateway, one of each kind that the simulators know.

use bytes::Bytes;
use http::Request;
use http::request::Builder;

use crate::gateway::address::X_FINESS;
use crate::identity::finess::Finess;
use crate::simulator::services::{SAMPLE_NAME, SOFTWARE_NUMBER};

const SOAP: &str = "application/soap+xml; charset=utf-8";

/// A GET that names no tenant but in its path.
pub fn bare(path: &str) -> Request<Bytes> {
    finished(Request::get(path), "")
}

/// A GET for a tenant.
pub fn get(tenant: Finess, path: &str) -> Request<Bytes> {
    finished(Request::get(path).header(X_FINESS, tenant.as_str()), "")
}

/// A SOAP message for a tenant.
pub fn soap(tenant: Finess, path: &str, message: String) -> Request<Bytes> {
    let request = Request::post(path)
        .header(X_FINESS, tenant.as_str())
        .header("content-type", SOAP);
    finished(request, message)
}

/// What a tenant sends to DMP when its assertion names the structure `claimed`.
pub fn dmp(tenant: Finess, claimed: Finess) -> Request<Bytes> {
    soap(tenant, "/dmp/v2/services/repository", dmp_message(claimed))
}

/// A search by identity traits at INSi, sent to a service of that name by the software of that number.
pub fn insi(tenant: Finess, service: &str, software: &str) -> Request<Bytes> {
    let message = insi_message(tenant, software);
    soap(tenant, &format!("/{service}/lps"), message)
}

/// A tenant's request for a token, as an application of that `client_id`; `service` is `psc` or `ror`.
pub fn token(tenant: Finess, service: &str, client_id: &str) -> Request<Bytes> {
    let request = Request::post(format!("/{service}/protocol/openid-connect/token"))
        .header(X_FINESS, tenant.as_str())
        .header("content-type", "application/x-www-form-urlencoded");
    finished(
        request,
        format!("grant_type=client_credentials&client_id={client_id}"),
    )
}

/// A search in ROR with a token, if there is one.
pub fn ror_search(tenant: Finess, token: Option<&str>) -> Request<Bytes> {
    let request = Request::get("/ror-fhir/Organization?_count=1")
        .header(X_FINESS, tenant.as_str())
        .header("Ror-Profil-Utilisateur-Code", "10")
        .header("Ror-Profil-Utilisateur-System", "urn:relais:simulateur")
        .header("Ror-Role-Metier-Code", "10")
        .header("Ror-Role-Metier-System", "urn:relais:simulateur");
    let bearer = token.map(|token| format!("Bearer {token}"));
    let request = match bearer {
        Some(bearer) => request.header("authorization", bearer),
        None => request,
    };
    finished(request, "")
}

/// A search in Annuaire Santé, sent to a service of that name, with an API key if the gateway does not put one on it.
pub fn annuaire(tenant: Finess, service: &str, api_key: Option<&str>) -> Request<Bytes> {
    let path = format!("/{service}/Practitioner?_count=1");
    let request = Request::get(path).header(X_FINESS, tenant.as_str());
    let request = match api_key {
        Some(key) => request.header("esante-api-key", key),
        None => request,
    };
    finished(request, "")
}

/// A message to DMP whose assertion names this structure. It is shaped like a real one and signed by nobody.
pub fn dmp_message(claimed: Finess) -> String {
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<soap:Envelope xmlns:soap="http://www.w3.org/2003/05/soap-envelope">
  <soap:Header>
    <wsse:Security xmlns:wsse="http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd">
      <saml:Assertion xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion" Version="2.0">
        <saml:AttributeStatement>
          <saml:Attribute Name="Identifiant_Structure">
            <saml:AttributeValue>1{claimed}</saml:AttributeValue>
          </saml:Attribute>
        </saml:AttributeStatement>
      </saml:Assertion>
    </wsse:Security>
  </soap:Header>
  <soap:Body/>
</soap:Envelope>
"#
    )
}

/// A message to INSi from this structure's software of that number, about the sample person.
pub fn insi_message(emitter: Finess, software: &str) -> String {
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<soap:Envelope xmlns:soap="http://www.w3.org/2003/05/soap-envelope">
  <soap:Header>
    <bam:ContexteBAM xmlns:bam="urn:siram:bam:ctxbam" Version="01_02">
      <bam:Emetteur>1{emitter}</bam:Emetteur>
    </bam:ContexteBAM>
    <lps:ContexteLPS xmlns:lps="urn:siram:lps:ctxlps" Nature="CTXLPS" Version="01_00">
      <lps:Emetteur>1{emitter}</lps:Emetteur>
      <lps:LPS><lps:IDAM R="4">{software}</lps:IDAM></lps:LPS>
    </lps:ContexteLPS>
  </soap:Header>
  <soap:Body>
    <ins:RECSANSVITALE xmlns:ins="http://www.cnamts.fr/INSiRecSans">
      <ins:NomNaissance>{SAMPLE_NAME}</ins:NomNaissance>
      <ins:Prenom>CAMILLE</ins:Prenom>
      <ins:Sexe>F</ins:Sexe>
      <ins:DateNaissance>2000-01-01</ins:DateNaissance>
    </ins:RECSANSVITALE>
  </soap:Body>
</soap:Envelope>
"#
    )
}

/// What each built-in service takes from a tenant: a request that its rules let through. `token` is ROR's.
pub fn right(tenant: Finess, service: &str, token: Option<&str>) -> Request<Bytes> {
    match service {
        "dmp" => dmp(tenant, tenant),
        "insi-auto" | "insi-manu" => insi(tenant, service, SOFTWARE_NUMBER),
        "psc" | "ror" => self::token(tenant, service, &client_id(tenant)),
        "ror-fhir" => ror_search(tenant, token),
        "annuaire" => annuaire(tenant, service, None),
        _ => get(tenant, &format!("/{service}/check")),
    }
}

/// The `client_id` of a tenant's application.
pub fn client_id(tenant: Finess) -> String {
    format!("demonstration-{tenant}")
}

fn finished(request: Builder, body: impl Into<Bytes>) -> Request<Bytes> {
    request
        .body(body.into())
        .expect("paths and fields are visible ASCII")
}
