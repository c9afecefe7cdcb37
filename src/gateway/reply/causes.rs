//! What each refusal of a certificate and each failure on the way to a service is to the application, and what to do
//! about it.

use http::StatusCode;

use super::{Code, Problem};
use crate::identity::rules::Rule;
use crate::identity::select::Refusal;
use crate::outbound::error::{Error, Stage};
use crate::services::InFlight;

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (code, hint) = match &refusal {
            Refusal::Ambiguous(..) => (Code::CertificateRefusedByRule, Rule::Ambiguous.remedy()),
            Refusal::Ending(_) | Refusal::Expired(_) => (
                Code::CertificateExpired,
                "renew it, and put the new one in the folder",
            ),
            Refusal::Missing { .. } => (
                Code::CertificateMissing,
                "put the structure's certificate and key in the folder; `relais reload` tells what came of it",
            ),
            Refusal::NotYetValid(_) => (
                Code::CertificateMissing,
                "wait until it begins, or check the clock",
            ),
            Refusal::Revoked(_) => (Code::CertificateRevoked, Rule::Revoked.remedy()),
            Refusal::Rule(rule, _) | Refusal::Pinned(rule, _) => {
                (Code::CertificateRefusedByRule, rule.remedy())
            }
            Refusal::Changing => (Code::Overloaded, "send it again"),
            Refusal::Unbound(_) => (
                Code::CertificateMissing,
                "put it in the folder, or correct the binding; `relais check` lists what would be loaded",
            ),
            Refusal::Unknown(_) => (
                Code::TenantUnknown,
                "put its certificate and key in the folder; `relais reload` tells what came of it",
            ),
        };
        Self::new(code, refusal.to_string(), hint)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let detail = error.to_string();
        let problem = |code, hint| Self::new(code, detail, hint);
        match error {
            Error::CertificateRejected(_) => problem(
                Code::CertificateRejectedByUpstream,
                "ask the service whether it knows this certificate: a new one may have to be declared to it",
            ),
            Error::CertificateNotRequested => problem(
                Code::CertificateNotRequested,
                "is the URL the one for certificate authentication? A service that asks later, by \
                 renegotiation or for one path only, cannot be reached",
            ),
            Error::ClientStalled => problem(Code::RequestTimeout, "send the body without pauses"),
            Error::ClientBroken(_) => problem(Code::RequestMalformed, ""),
            Error::Connect { .. } => problem(
                Code::UpstreamUnreachable,
                "is the service up, and do the firewall and the network let this machine reach it?",
            )
            .with_standard("connection_refused"),
            Error::CutOff(InFlight::Finish) => problem(
                Code::UpstreamTimeout,
                "the request may have reached the service: find out before you send it again; pool.drain of the \
                 service sets how long is waited",
            ),
            Error::CutOff(InFlight::Cut) => problem(
                Code::CertificateRevoked,
                "the request may have reached the service: find out what became of it; identities.withdrawal = \
                 \"finish\" lets such requests finish",
            ),
            Error::Dns { .. } => problem(
                Code::UpstreamUnreachable,
                "does the service's URL have the right host, and does DNS work here?",
            )
            .with_standard("dns_error"),
            Error::Forbidden { .. } => problem(
                Code::UpstreamUnreachable,
                "no request was sent; correct the service's URL or `address`, or what DNS says of its host",
            )
            .with_standard("destination_ip_prohibited"),
            Error::Handshake(_) => problem(
                Code::UpstreamProtocolError,
                "do the TLS versions in the service's configuration match what it speaks?",
            )
            .with_standard("tls_protocol_error"),
            Error::LeftAlone { wait, .. } => problem(
                Code::UpstreamUnreachable,
                "nothing was sent; the service is tried again by itself. `breaker = false` of the service has every \
                 request try",
            )
            // What it is after a moment, and the status that goes with the field (RFC 9110 section 10.2.3).
            .with_status(StatusCode::SERVICE_UNAVAILABLE)
            .with_retry_after(wait),
            Error::NoCapacity(_) => problem(
                Code::Overloaded,
                "send fewer requests at once, or raise pool.max_connections or limits.upstream_connections",
            ),
            Error::Protocol(_) => problem(
                Code::UpstreamProtocolError,
                "the request may have reached the service: find out before you send it again",
            ),
            Error::Retired => problem(
                Code::Overloaded,
                "certificates are being replaced faster than requests are sent: send it again",
            ),
            Error::TooLarge(_) => problem(
                Code::RequestTooLarge,
                "limits.request_body of the service sets how much is taken",
            ),
            Error::Timeout(stage) => problem(Code::UpstreamTimeout, timeout_hint(stage))
                .with_standard(match stage {
                    Stage::Connect | Stage::Handshake => "connection_timeout",
                    Stage::TakeBody | Stage::ContinueBody => "connection_write_timeout",
                    Stage::Answer => "http_response_timeout",
                }),
            Error::Tls(_) => problem(
                Code::Internal,
                "`relais check` tells which setting or certificate is at fault",
            ),
            Error::Untrusted(_) => problem(
                Code::UpstreamUntrusted,
                "is `trust` of the service the file with its authority, and is the URL's host the service's own?",
            ),
        }
    }
}

fn timeout_hint(stage: Stage) -> &'static str {
    match stage {
        Stage::Connect | Stage::Handshake => {
            "no request was sent; the service's timeouts set how long is waited"
        }
        Stage::TakeBody | Stage::Answer | Stage::ContinueBody => {
            "the request may have reached the service: find out before you send it again; the service's timeouts set \
             how long is waited"
        }
    }
}
