//! What is promised of every problem, and how an answer tells it.

use std::collections::HashSet;

use super::*;

/// What applications rely on. A status or code that changes here breaks them.
const PROMISED: [(Code, u16, &str); 24] = [
    (Code::BrowserRefused, 403, "browser_refused"),
    (Code::CallerForbidden, 403, "caller_forbidden"),
    (Code::CallerUnauthenticated, 407, "caller_unauthenticated"),
    (Code::CertificateExpired, 503, "certificate_expired"),
    (Code::CertificateMissing, 503, "certificate_missing"),
    (
        Code::CertificateNotRequested,
        502,
        "certificate_not_requested",
    ),
    (
        Code::CertificateRefusedByRule,
        403,
        "certificate_refused_by_rule",
    ),
    (
        Code::CertificateRejectedByUpstream,
        502,
        "certificate_rejected_by_upstream",
    ),
    (Code::CertificateRevoked, 503, "certificate_revoked"),
    (Code::Internal, 500, "internal"),
    (Code::Misdirected, 421, "misdirected"),
    (Code::Overloaded, 503, "overloaded"),
    (Code::RequestMalformed, 400, "request_malformed"),
    (Code::RequestTimeout, 408, "request_timeout"),
    (Code::RequestTooLarge, 413, "request_too_large"),
    (Code::ServiceUnknown, 404, "service_unknown"),
    (Code::TenantAmbiguous, 400, "tenant_ambiguous"),
    (Code::TenantMalformed, 400, "tenant_malformed"),
    (Code::TenantMissing, 400, "tenant_missing"),
    (Code::TenantUnknown, 404, "tenant_unknown"),
    (Code::UpstreamProtocolError, 502, "upstream_protocol_error"),
    (Code::UpstreamTimeout, 504, "upstream_timeout"),
    (Code::UpstreamUnreachable, 502, "upstream_unreachable"),
    (Code::UpstreamUntrusted, 502, "upstream_untrusted"),
];

#[test]
fn codes_and_statuses_are_the_promised_ones() {
    for (code, status, text) in PROMISED {
        let problem = Problem::new(code, "", "");
        assert_eq!((problem.status().as_u16(), code.as_str()), (status, text));
    }
    // As many as the enumeration has: its last variant says how many there are.
    assert_eq!(PROMISED.len(), Code::UpstreamUntrusted as usize + 1);
}

#[test]
fn no_two_codes_read_alike() {
    let texts: HashSet<_> = PROMISED.iter().map(|(code, ..)| code.row().1).collect();
    let titles: HashSet<_> = PROMISED.iter().map(|(code, ..)| code.row().2).collect();
    assert_eq!(
        (texts.len(), titles.len()),
        (PROMISED.len(), PROMISED.len())
    );
}

#[test]
fn proxy_status_has_the_standards_own_error_types() {
    // RFC 9209 section 2.3, as far as they are used.
    let standard = [
        "destination_not_found",
        "destination_unavailable",
        "tls_protocol_error",
        "tls_certificate_error",
        "tls_alert_received",
        "http_request_error",
        "http_request_denied",
        "http_response_timeout",
        "http_protocol_error",
        "connection_limit_reached",
        "proxy_internal_error",
        "proxy_configuration_error",
    ];
    for (code, ..) in PROMISED {
        assert!(standard.contains(&code.row().3), "{code:?}");
    }
}

#[test]
fn an_answer_says_everything_in_its_body_and_its_fields() {
    let response = Problem::new(Code::Overloaded, "what happened", "the way out").into_response();
    assert_eq!(response.status(), 503);
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(
        response.headers()["proxy-status"],
        "relais; error=connection_limit_reached; details=\"overloaded\""
    );
    let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
    let expected = serde_json::json!({
        "type": "urn:relais:problem:overloaded",
        "title": "Too many requests are under way",
        "status": 503,
        "detail": "what happened",
        "code": "overloaded",
        "hint": "the way out",
    });
    assert_eq!(body, expected);
}

#[test]
fn a_hint_that_is_empty_is_left_out() {
    let response = Problem::new(Code::Internal, "x", "").into_response();
    assert!(!String::from_utf8_lossy(response.body()).contains("hint"));
}
