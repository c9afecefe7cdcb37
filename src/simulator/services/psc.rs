//! Pro Santé Connect, endpoints that servers call: a `client_id` belongs to one certificate, and so does a token.

use std::collections::HashMap;

use http::{Method, StatusCode};
use serde_json::json;

use super::json::{form, json as reply, oauth_error};
use super::tokens::{Claims, thumbprint};
use super::{Answer, Call, Register};
use crate::identity::profile::{Fingerprint, Profile};

const ISSUER: &str = "psc";

/// A stand-in remembers no more applications than this.
const CLIENTS_MAX: usize = 10_000;

/// Grants that servers ask for (RFC 6749, RFC 8693, OpenID CIBA). Codes and refresh tokens are not verified.
const GRANTS: [&str; 5] = [
    "authorization_code",
    "refresh_token",
    "client_credentials",
    "urn:ietf:params:oauth:grant-type:token-exchange",
    "urn:openid:params:grant-type:ciba",
];

/// The certificate of each application. The first one that an application shows is taken for its own, where the real
/// service is told beforehand.
#[derive(Debug, Default)]
pub(crate) struct Clients(HashMap<String, Fingerprint>);

pub(super) fn answer(call: &Call<'_>, register: &Register, clients: &mut Clients) -> Answer {
    let endpoint = call
        .head
        .uri
        .path()
        .split_once("/protocol/openid-connect/")
        .map_or("", |(_, endpoint)| endpoint);
    let Some(profile) = call.profile else {
        return oauth_error(
            StatusCode::UNAUTHORIZED,
            "invalid_client",
            "no certificate was shown",
        );
    };
    match (endpoint, &call.head.method) {
        ("token", &Method::POST) => token(call, profile, register, clients),
        ("userinfo", &Method::GET | &Method::POST) => userinfo(call, profile, register),
        ("token/introspect", &Method::POST) => introspect(call, profile, register),
        ("token" | "userinfo" | "token/introspect", _) => oauth_error(
            StatusCode::METHOD_NOT_ALLOWED,
            "invalid_request",
            "this endpoint takes POST",
        ),
        _ => oauth_error(
            StatusCode::NOT_FOUND,
            "invalid_request",
            "the endpoints are …/protocol/openid-connect/token, …/userinfo and …/token/introspect",
        ),
    }
}

fn token(call: &Call<'_>, profile: &Profile, register: &Register, clients: &mut Clients) -> Answer {
    let invalid = |error, description| oauth_error(StatusCode::BAD_REQUEST, error, description);
    if call.media_type() != "application/x-www-form-urlencoded" {
        return invalid("invalid_request", "a form is expected");
    }
    let Some(fields) = form(call.body) else {
        return invalid(
            "invalid_request",
            "the form cannot be read, or repeats a field",
        );
    };
    let Some(client_id) = fields.get("client_id").filter(|id| !id.is_empty()) else {
        return invalid("invalid_request", "client_id is missing");
    };
    match fields.get("grant_type") {
        None => return invalid("invalid_request", "grant_type is missing"),
        Some(grant) if !GRANTS.contains(&grant.as_str()) => {
            return invalid("unsupported_grant_type", "this grant is not known");
        }
        Some(_) => {}
    }
    if !clients.accept(client_id, profile.fingerprint) {
        return oauth_error(
            StatusCode::UNAUTHORIZED,
            "invalid_client",
            "this certificate is not this client_id's: each has one of its own",
        );
    }
    let holder = Some(profile.fingerprint);
    (register.tokens).grant(ISSUER, client_id, holder, call.time)
}

impl Clients {
    /// Whether the two belong together: both are new, or are known as each other's.
    fn accept(&mut self, client_id: &str, certificate: Fingerprint) -> bool {
        let known = |(id, shown): (&String, &Fingerprint)| id == client_id || *shown == certificate;
        match self.0.iter().find(|&pair| known(pair)) {
            Some((id, shown)) => id == client_id && *shown == certificate,
            None if self.0.len() >= CLIENTS_MAX => false,
            None => {
                self.0.insert(client_id.to_owned(), certificate);
                true
            }
        }
    }
}

/// What a token says, if it is good with this certificate.
fn claims(token: &str, call: &Call<'_>, profile: &Profile, register: &Register) -> Option<Claims> {
    let claims = register.tokens.read(token, ISSUER, call.time)?;
    let bound = claims.cnf.as_ref()?.thumbprint == thumbprint(profile.fingerprint);
    bound.then_some(claims)
}

fn userinfo(call: &Call<'_>, profile: &Profile, register: &Register) -> Answer {
    let claims = call
        .bearer()
        .and_then(|token| claims(token, call, profile, register));
    match claims {
        Some(claims) => reply(
            StatusCode::OK,
            &json!({ "sub": format!("f:simulator:{}", claims.client_id), "family_name": "FICTIF", "given_name": "CAMILLE" }),
        ),
        None => invalid_token(),
    }
}

/// Introspection (RFC 7662). The token to look at is in the form; it must be good with this certificate as well.
fn introspect(call: &Call<'_>, profile: &Profile, register: &Register) -> Answer {
    let fields = form(call.body).unwrap_or_default();
    let claims = fields
        .get("token")
        .and_then(|token| claims(token, call, profile, register));
    match claims {
        Some(claims) => reply(
            StatusCode::OK,
            &json!({ "active": true, "client_id": claims.client_id, "exp": claims.exp, "cnf": claims.cnf }),
        ),
        None => invalid_token(),
    }
}

/// RFC 6750 section 3.1, and RFC 8705 section 3 for a token of another certificate.
fn invalid_token() -> Answer {
    let mut answer = oauth_error(
        StatusCode::UNAUTHORIZED,
        "invalid_token",
        "the token is not one, has ended, or is bound to another certificate",
    );
    answer.headers_mut().insert(
        "www-authenticate",
        http::HeaderValue::from_static("Bearer error=\"invalid_token\""),
    );
    answer
}
