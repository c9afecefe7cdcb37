//! Answers in JSON, and the forms that OAuth requests are.

use std::collections::HashMap;

use http::StatusCode;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::{Answer, reply};

pub(super) fn json(status: StatusCode, value: &Value) -> Answer {
    reply(status, "application/json", value.to_string())
}

/// An error of a token endpoint (RFC 6749 section 5.2).
pub(super) fn oauth_error(status: StatusCode, error: &str, description: &str) -> Answer {
    json(
        status,
        &serde_json::json!({ "error": error, "error_description": description }),
    )
}

/// The fields of a form (`application/x-www-form-urlencoded`); nothing if one is there twice, which OAuth forbids
/// (RFC 6749 section 3.2).
pub(super) fn form(body: &[u8]) -> Option<HashMap<String, String>> {
    let text = std::str::from_utf8(body).ok()?;
    let decoded = |text: &str| {
        let text = text.replace('+', " ");
        percent_decode_str(&text).decode_utf8_lossy().into_owned()
    };
    let mut fields = HashMap::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if fields.insert(decoded(name), decoded(value)).is_some() {
            return None;
        }
    }
    Some(fields)
}
