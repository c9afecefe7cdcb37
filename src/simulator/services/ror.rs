//! ROR: a token for a certificate whose subject is known, and FHIR for a token and the user's profile.

use http::{Method, StatusCode};

use super::json::{form, oauth_error};
use super::{Answer, Call, Register, fhir};

const ISSUER: &str = "ror";

/// The fields by which a request tells for whom it is made.
const USER_FIELDS: [&str; 4] = [
    "ror-profil-utilisateur-code",
    "ror-profil-utilisateur-system",
    "ror-role-metier-code",
    "ror-role-metier-system",
];

/// The token endpoint: the subject of the certificate was told to ROR when the software was registered, so another
/// one is not known, be it of the same structure.
pub(super) fn token(call: &Call<'_>, register: &Register) -> Answer {
    let invalid = |status, error, description| oauth_error(status, error, description);
    if !(call.head.uri.path()).ends_with("/protocol/openid-connect/token") {
        return invalid(
            StatusCode::NOT_FOUND,
            "invalid_request",
            "the endpoint is …/protocol/openid-connect/token",
        );
    }
    let fields = form(call.body).unwrap_or_default();
    let field = |name| fields.get(name).map(String::as_str);
    if call.head.method != Method::POST || field("grant_type").is_none() {
        return invalid(
            StatusCode::BAD_REQUEST,
            "invalid_request",
            "a form with grant_type is expected",
        );
    }
    if field("grant_type") != Some("client_credentials") {
        return invalid(
            StatusCode::BAD_REQUEST,
            "unsupported_grant_type",
            "client_credentials is expected",
        );
    }
    let known = (call.profile).is_some_and(|profile| register.subjects.contains(&*profile.subject));
    let Some(client_id) = field("client_id").filter(|id| known && !id.is_empty()) else {
        return invalid(
            StatusCode::UNAUTHORIZED,
            "invalid_client",
            "client_id is missing, or the subject of this certificate is not known: tell ROR when it changes",
        );
    };
    register.tokens.grant(ISSUER, client_id, None, call.time)
}

/// The FHIR interface, which wants no certificate.
pub(super) fn fhir(call: &Call<'_>, register: &Register) -> Answer {
    if call.profile.is_some() {
        return fhir::outcome(
            StatusCode::BAD_REQUEST,
            "security",
            "a client certificate has no place here",
        );
    }
    let good = call
        .bearer()
        .and_then(|token| register.tokens.read(token, ISSUER, call.time));
    if good.is_none() {
        return fhir::outcome(
            StatusCode::UNAUTHORIZED,
            "login",
            "a token of ROR's is expected in Authorization: Bearer",
        );
    }
    let missing = USER_FIELDS
        .iter()
        .find(|name| call.field(name).is_none_or(str::is_empty));
    match missing {
        Some(name) => fhir::outcome(
            StatusCode::BAD_REQUEST,
            "required",
            &format!("the field {name} is missing"),
        ),
        None => fhir::bundle(call),
    }
}
