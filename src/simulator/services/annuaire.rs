//! Annuaire Santé: an API key, no certificate, and not more than 17 requests a second.

use std::time::{Duration, Instant};

use http::{HeaderValue, StatusCode};

use super::{Answer, Call, fhir};

/// The API key of the one application that the stand-in knows.
pub const API_KEY: &str = "relais-demonstration";

/// Requests a second of one application.
const RATE: f64 = 17.0;

/// What is left of the rate: a bucket that fills by [`RATE`] a second up to a second's worth.
#[derive(Debug)]
pub(crate) struct Bucket {
    left: f64,
    at: Option<Instant>,
}

impl Default for Bucket {
    fn default() -> Self {
        Self {
            left: RATE,
            at: None,
        }
    }
}

impl Bucket {
    /// Takes a request's share; how long to wait if there is none.
    fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let since = self
            .at
            .map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.at = Some(now);
        self.left = since.as_secs_f64().mul_add(RATE, self.left).min(RATE);
        if self.left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - self.left) / RATE));
        }
        self.left -= 1.0;
        Ok(())
    }
}

pub(super) fn answer(call: &Call<'_>, bucket: &mut Bucket) -> Answer {
    if call.profile.is_some() {
        return fhir::outcome(
            StatusCode::BAD_REQUEST,
            "security",
            "a client certificate has no place here",
        );
    }
    if call.field("esante-api-key") != Some(API_KEY) {
        return fhir::outcome(
            StatusCode::UNAUTHORIZED,
            "login",
            "ESANTE-API-KEY is missing or not known",
        );
    }
    let Err(wait) = bucket.take(call.now) else {
        return fhir::bundle(call);
    };
    let mut answer = fhir::outcome(
        StatusCode::TOO_MANY_REQUESTS,
        "throttled",
        "17 requests a second at most",
    );
    // In whole seconds (RFC 9110 section 10.2.3), so at least one.
    let seconds = HeaderValue::from(wait.as_secs() + 1);
    answer.headers_mut().insert("retry-after", seconds);
    answer
}
