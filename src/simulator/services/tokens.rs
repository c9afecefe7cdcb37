//! Access tokens: JSON Web Tokens that the stand-ins sign and read themselves, so that none has to be remembered.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Answer;
use super::json::json as reply;
use crate::identity::profile::Fingerprint;

/// `{"alg":"HS256","typ":"JWT"}`, as tokens begin.
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";

/// The life of a token, in seconds: two minutes, as Pro Santé Connect's. Nothing is published of ROR's.
const LIFETIME: i64 = 120;

pub(super) struct Tokens(hmac::Key);

#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Claims {
    /// The service that issued it, and the only one that accepts it.
    pub(super) iss: String,
    pub(super) client_id: String,
    /// In seconds since 1970.
    pub(super) exp: i64,
    /// The certificate with which alone the token is good (RFC 8705 section 3.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cnf: Option<Confirmation>,
}

#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Confirmation {
    #[serde(rename = "x5t#S256")]
    pub(super) thumbprint: String,
}

impl Tokens {
    pub(super) fn new() -> Self {
        let mut key = [0; 32];
        aws_lc_rs::rand::fill(&mut key).expect("the system has randomness");
        Self(hmac::Key::new(hmac::HMAC_SHA256, &key))
    }

    /// The answer of a token endpoint: a token of `issuer` for a client, good with the certificate of `holder` alone
    /// if there is one.
    pub(super) fn grant(
        &self,
        issuer: &str,
        client_id: &str,
        holder: Option<Fingerprint>,
        time: i64,
    ) -> Answer {
        let access_token = self.issue(&Claims {
            iss: issuer.to_owned(),
            client_id: client_id.to_owned(),
            exp: time + LIFETIME,
            cnf: holder.map(|holder| Confirmation {
                thumbprint: thumbprint(holder),
            }),
        });
        let body =
            json!({ "access_token": access_token, "token_type": "Bearer", "expires_in": LIFETIME });
        reply(StatusCode::OK, &body)
    }

    fn issue(&self, claims: &Claims) -> String {
        let json = serde_json::to_vec(claims).expect("texts and numbers can be written");
        let signed = format!("{HEADER}.{}", URL_SAFE_NO_PAD.encode(json));
        let signature = hmac::sign(&self.0, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// What a token says, if `issuer` issued it and it has not ended.
    pub(super) fn read(&self, token: &str, issuer: &str, time: i64) -> Option<Claims> {
        let (signed, signature) = token.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        hmac::verify(&self.0, signed.as_bytes(), &signature).ok()?;
        let json = URL_SAFE_NO_PAD.decode(signed.rsplit_once('.')?.1).ok()?;
        let claims: Claims = serde_json::from_slice(&json).ok()?;
        (claims.iss == issuer && time < claims.exp).then_some(claims)
    }
}

/// `x5t#S256`: the SHA-256 of the certificate in base64url.
pub(super) fn thumbprint(fingerprint: Fingerprint) -> String {
    let hexadecimal = fingerprint.to_string();
    let bytes: Vec<u8> = (0..hexadecimal.len())
        .step_by(2)
        .filter_map(|at| u8::from_str_radix(&hexadecimal[at..at + 2], 16).ok())
        .collect();
    URL_SAFE_NO_PAD.encode(bytes)
}
