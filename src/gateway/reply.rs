//! What Relais answers in a service's place: the one table from what went wrong to what the application sees.

mod causes;

use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, PROXY_AUTHENTICATE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde::Serialize;

use crate::gateway::headers::FIELDS_MAX;

/// What went wrong, in the words that applications may rely on (`code` in the answer).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Code {
    /// A web page made the request, or might have.
    BrowserRefused,
    /// The caller may not do this.
    CallerForbidden,
    /// Nobody knows who makes the request.
    CallerUnauthenticated,
    /// The tenant's certificate has ended.
    CertificateExpired,
    /// The tenant has no certificate of the kind that the service wants.
    CertificateMissing,
    /// The service asked for no client certificate.
    CertificateNotRequested,
    /// A rule keeps the tenant's certificates from this service.
    CertificateRefusedByRule,
    /// The service refused the certificate.
    CertificateRejectedByUpstream,
    /// The tenant's certificate is revoked.
    CertificateRevoked,
    /// Relais itself failed.
    Internal,
    /// The connection was opened for another host.
    Misdirected,
    /// Too much is under way.
    Overloaded,
    /// The request is not one that Relais can pass on.
    RequestMalformed,
    /// The application stopped in the middle of its request.
    RequestTimeout,
    /// The head or body is over a limit.
    RequestTooLarge,
    /// No service of that name is configured.
    ServiceUnknown,
    /// Several tenants are named.
    TenantAmbiguous,
    /// What is given is not a FINESS number.
    TenantMalformed,
    /// No tenant is named.
    TenantMissing,
    /// No certificate is loaded for the tenant.
    TenantUnknown,
    /// The service broke HTTP or TLS, or closed the connection.
    UpstreamProtocolError,
    /// The service was too slow.
    UpstreamTimeout,
    /// No connection to the service could be made.
    UpstreamUnreachable,
    /// The service's own certificate is not to be believed.
    UpstreamUntrusted,
}

/// One row of the table: status, the `code` itself, a title, and the `Proxy-Status` error type (RFC 9209 section
/// 2.3) where the standard has one that fits.
type Row = (StatusCode, &'static str, &'static str, &'static str);

impl Code {
    const fn row(self) -> Row {
        use StatusCode as S;
        match self {
            Self::BrowserRefused => (
                S::FORBIDDEN,
                "browser_refused",
                "Requests from web pages are refused",
                "http_request_denied",
            ),
            Self::CallerForbidden => (
                S::FORBIDDEN,
                "caller_forbidden",
                "The caller may not do this",
                "http_request_denied",
            ),
            Self::CallerUnauthenticated => (
                S::PROXY_AUTHENTICATION_REQUIRED,
                "caller_unauthenticated",
                "It is not known who makes the request",
                "http_request_denied",
            ),
            Self::CertificateExpired => (
                S::SERVICE_UNAVAILABLE,
                "certificate_expired",
                "The tenant's certificate has expired",
                "proxy_configuration_error",
            ),
            Self::CertificateMissing => (
                S::SERVICE_UNAVAILABLE,
                "certificate_missing",
                "The tenant has no certificate for this service",
                "proxy_configuration_error",
            ),
            Self::CertificateNotRequested => (
                S::BAD_GATEWAY,
                "certificate_not_requested",
                "The service did not ask for a client certificate",
                "tls_protocol_error",
            ),
            Self::CertificateRefusedByRule => (
                S::FORBIDDEN,
                "certificate_refused_by_rule",
                "A rule keeps the tenant's certificate from this service",
                "http_request_denied",
            ),
            Self::CertificateRejectedByUpstream => (
                S::BAD_GATEWAY,
                "certificate_rejected_by_upstream",
                "The service refused the tenant's certificate",
                "tls_alert_received",
            ),
            Self::CertificateRevoked => (
                S::SERVICE_UNAVAILABLE,
                "certificate_revoked",
                "The tenant's certificate is revoked",
                "proxy_configuration_error",
            ),
            Self::Internal => (
                S::INTERNAL_SERVER_ERROR,
                "internal",
                "Relais failed",
                "proxy_internal_error",
            ),
            Self::Misdirected => (
                S::MISDIRECTED_REQUEST,
                "misdirected",
                "The connection was opened for another host",
                "http_request_denied",
            ),
            Self::Overloaded => (
                S::SERVICE_UNAVAILABLE,
                "overloaded",
                "Too many requests are under way",
                "connection_limit_reached",
            ),
            Self::RequestMalformed => (
                S::BAD_REQUEST,
                "request_malformed",
                "The request cannot be passed on",
                "http_request_error",
            ),
            Self::RequestTimeout => (
                S::REQUEST_TIMEOUT,
                "request_timeout",
                "The request's body stopped coming",
                "http_request_error",
            ),
            Self::RequestTooLarge => (
                S::PAYLOAD_TOO_LARGE,
                "request_too_large",
                "The request is too large",
                "http_request_error",
            ),
            Self::ServiceUnknown => (
                S::NOT_FOUND,
                "service_unknown",
                "No such service is configured",
                "destination_not_found",
            ),
            Self::TenantAmbiguous => (
                S::BAD_REQUEST,
                "tenant_ambiguous",
                "The request names several tenants",
                "http_request_error",
            ),
            Self::TenantMalformed => (
                S::BAD_REQUEST,
                "tenant_malformed",
                "The tenant is not a FINESS number",
                "http_request_error",
            ),
            Self::TenantMissing => (
                S::BAD_REQUEST,
                "tenant_missing",
                "The request names no tenant",
                "http_request_error",
            ),
            Self::TenantUnknown => (
                S::NOT_FOUND,
                "tenant_unknown",
                "No certificate is loaded for the tenant",
                "destination_not_found",
            ),
            Self::UpstreamProtocolError => (
                S::BAD_GATEWAY,
                "upstream_protocol_error",
                "The service broke off or broke the protocol",
                "http_protocol_error",
            ),
            Self::UpstreamTimeout => (
                S::GATEWAY_TIMEOUT,
                "upstream_timeout",
                "The service was too slow",
                "http_response_timeout",
            ),
            Self::UpstreamUnreachable => (
                S::BAD_GATEWAY,
                "upstream_unreachable",
                "The service cannot be reached",
                "destination_unavailable",
            ),
            Self::UpstreamUntrusted => (
                S::BAD_GATEWAY,
                "upstream_untrusted",
                "The service's certificate is not trusted",
                "tls_certificate_error",
            ),
        }
    }

    /// The word that applications and logs see.
    pub fn as_str(self) -> &'static str {
        self.row().1
    }
}

/// What went wrong with one request, and what the reader of the answer can do about it.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The kind.
    pub code: Code,
    /// The status of the answer, where it is more precise than the kind's own.
    status: Option<StatusCode>,
    /// The `Proxy-Status` error type, likewise.
    standard: Option<&'static str>,
    /// When to come back, where it is known.
    retry_after: Option<Duration>,
    /// What happened in this case.
    pub detail: String,
    /// The way out.
    pub hint: &'static str,
}

impl Problem {
    /// A problem of a kind, what happened, and the way out (possibly empty).
    // Cold, so that what leads here is kept out of the way of requests that nothing is wrong with.
    #[cold]
    pub fn new(code: Code, detail: impl Into<String>, hint: &'static str) -> Self {
        Self {
            code,
            status: None,
            standard: None,
            // By then a burst is over, or the caller should know that it is not one.
            retry_after: (code == Code::Overloaded).then_some(Duration::from_secs(1)),
            detail: detail.into(),
            hint,
        }
    }

    pub(super) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }

    fn with_standard(mut self, standard: &'static str) -> Self {
        self.standard = Some(standard);
        self
    }

    fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The request's head is over the limit (RFC 6585 section 5).
    pub fn head_too_large(limit: usize) -> Self {
        Self::new(
            Code::RequestTooLarge,
            format!("the request's head is over {limit} bytes"),
            "limits.request_head sets how much is taken",
        )
        .with_status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
    }

    /// A head with more fields than are taken.
    pub fn too_many_fields() -> Self {
        Self::new(
            Code::RequestTooLarge,
            format!("the request's head has more than {FIELDS_MAX} fields"),
            "send fewer: what proxies add on the way counts too",
        )
        .with_status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.status.unwrap_or_else(|| self.code.row().0)
    }

    /// The answer: `application/problem+json` (RFC 9457) with a `Proxy-Status` field (RFC 9209).
    pub fn into_response(self) -> Response<Bytes> {
        #[derive(Serialize)]
        struct Body<'a> {
            r#type: String,
            title: &'a str,
            status: u16,
            detail: &'a str,
            code: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            hint: &'a str,
        }
        let (_, code, title, standard) = self.code.row();
        let status = self.status();
        let body = Body {
            r#type: format!("urn:relais:problem:{code}"),
            title,
            status: status.as_u16(),
            detail: &self.detail,
            code,
            hint: self.hint,
        };
        let body = serde_json::to_vec(&body).expect("strings and a number always serialise");
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(wait) = self.retry_after {
            // Whole seconds, and never too soon.
            headers.insert(
                RETRY_AFTER,
                HeaderValue::from(wait.as_millis().div_ceil(1000).max(1) as u64),
            );
        }
        if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            // Programs that are given credentials for a proxy wait to be asked for them (RFC 9110 section 11.7.1).
            for challenge in [
                "Basic realm=\"relais\", charset=\"UTF-8\"",
                "Bearer realm=\"relais\"",
            ] {
                headers.append(PROXY_AUTHENTICATE, HeaderValue::from_static(challenge));
            }
        }
        proxy_status(headers, self.standard.unwrap_or(standard), code);
        response
    }
}

fn proxy_status(headers: &mut HeaderMap, standard: &str, code: &str) {
    let value = format!("relais; error={standard}; details=\"{code}\"");
    let value = HeaderValue::try_from(value).expect("both words are constants of visible ASCII");
    headers.insert(HeaderName::from_static("proxy-status"), value);
}

#[cfg(test)]
mod tests;
