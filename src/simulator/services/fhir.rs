//! FHIR answers: a bundle in which nothing was found, and outcomes that say what was wrong.

use http::StatusCode;
use serde_json::json;

use super::{Answer, Call, reply};

const FHIR_JSON: &str = "application/fhir+json; charset=utf-8";

/// The answer to a search; its link repeats what was asked.
pub(super) fn bundle(call: &Call<'_>) -> Answer {
    let asked = call.head.uri.path_and_query().map(ToString::to_string);
    let bundle = json!({
        "resourceType": "Bundle", "type": "searchset", "total": 0,
        "link": [{ "relation": "self", "url": asked }], "entry": [],
    });
    reply(StatusCode::OK, FHIR_JSON, bundle.to_string())
}

/// `code` is one of FHIR's issue types: `login`, `required`, `throttled`…
pub(super) fn outcome(status: StatusCode, code: &str, diagnostics: &str) -> Answer {
    let outcome = json!({
        "resourceType": "OperationOutcome",
        "issue": [{ "severity": "error", "code": code, "diagnostics": diagnostics }],
    });
    reply(status, FHIR_JSON, outcome.to_string())
}
