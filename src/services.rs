//! What Relais knows of each national service: where it is, what it wants to be shown, how it is spoken to.
//!
//! [`CATALOGUE`] holds the built-in services. A service is served when the configuration has a section of its
//! name, so that nothing is reachable that nobody asked for.

mod catalogue;
mod page;

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::uri::{Authority, PathAndQuery};
use http::{HeaderName, HeaderValue};

pub use page::page;

pub use catalogue::{BuiltIn, CATALOGUE, DefaultValue, Known, Source};

/// Which of the two IGC-Santé hierarchies a certificate or a service belongs to.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Environment {
    /// `OU=IGC-SANTE`: real structures, real patients.
    Production,
    /// `OU=IGC-SANTE TEST`, and every sandbox.
    Test,
}

impl Environment {
    /// The word that the configuration uses for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Production => "production",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The client certificate that a service wants to be shown.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum WantedCertificate {
    /// An IGC-Santé ORG AUTH_CLI certificate that is not one of INSi's.
    OrgAuthCli,
    /// The ORG AUTH_CLI certificate whose CN is exactly `INSI-AUTO` (ANS guides 000, 001 and 003).
    InsiAuto,
    /// The ORG AUTH_CLI certificate whose CN is exactly `INSI-MANU`.
    InsiManu,
    /// None: the service authenticates its callers otherwise, and no certificate is ever shown to it.
    None,
}

impl WantedCertificate {
    /// The word that the configuration uses for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OrgAuthCli => "org-auth-cli",
            Self::InsiAuto => "insi-auto",
            Self::InsiManu => "insi-manu",
            Self::None => "none",
        }
    }
}

/// Whose certificate a service accepts for a structure's request.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Owner {
    /// The structure's alone (ANS guide 001: certificates are never in the éditeur's name).
    Structure,
    /// The éditeur's too, for structures that have none of their own for it (ROR: it is the éditeur who orders it).
    Vendor,
}

impl Owner {
    /// The word that the configuration uses for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Structure => "structure",
            Self::Vendor => "vendor",
        }
    }
}

/// The port that `https://` means by itself (RFC 9110 section 4.2.2).
pub(crate) const HTTPS: u16 = 443;

/// Whom Relais believes when the service shows its own certificate.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Trust {
    /// The web's public roots (Mozilla's list, compiled in).
    Public,
    /// The certificates in this PEM file and no others.
    File(PathBuf),
}

/// TLS versions offered to a service.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum TlsVersions {
    /// TLS 1.2 alone (DMP: PDT-INF-579 v4; MSSanté: Référentiel #2).
    Only12,
    /// TLS 1.3 alone.
    Only13,
    /// TLS 1.3, or 1.2 where the service has no better.
    Tls12And13,
}

/// HTTP versions spoken with a service.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum HttpVersions {
    /// HTTP/1.1 with few requests in flight under one certificate, HTTP/2 with many or where connections are short; what
    /// the service speaks alone, otherwise.
    Auto,
    /// HTTP/1.1 alone.
    H1,
    /// HTTP/2 alone.
    H2,
}

/// When a request may be sent a second time, on a fresh connection.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Retry {
    /// Never.
    Never,
    /// When the pooled connection was found dead before any byte of the request left.
    Unsent,
    /// Also when it may have left, if its method is idempotent (RFC 9110 section 9.2.2) and it has no body.
    Idempotent,
}

/// What becomes of requests in flight when their certificate goes out of use.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum InFlight {
    /// They finish, within `pool.drain` of the service.
    #[default]
    Finish,
    /// They are cut off at once.
    Cut,
}

/// What becomes of requests when a service refuses a renewed certificate in the handshake.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum OnRejection {
    /// As long as the one before it is valid, that one serves on; the new one is tried again and again.
    Previous,
    /// They fail.
    Fail,
}

/// Deadlines of one request towards a service.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Timeouts {
    /// Name resolution and TCP connection together, over all addresses tried.
    pub connect: Duration,
    /// The TLS handshake.
    pub handshake: Duration,
    /// From the end of the request (or its last progress) to the head of the response.
    pub response: Duration,
    /// The longest silence between two pieces of a body, in either direction.
    pub body: Duration,
}

/// How many connections a generation may hold to a service, and for how long.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct PoolLimits {
    /// How long a connection may lie idle before it is closed.
    pub idle_timeout: Duration,
    /// How old a connection may grow before it takes no further request.
    pub max_lifetime: Duration,
    /// Connections at once, idle ones included; requests beyond wait for one.
    pub max_connections: usize,
    /// Connections that are opened under a renewed certificate before it is put to use, at most: as many as the one
    /// before it has open. 0 opens none.
    pub prewarm: usize,
    /// How long requests in flight may go on once their certificate was replaced.
    pub drain: Duration,
}

/// Which requests to a service are passed on.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct RequestLimits {
    /// The largest body, in bytes.
    pub request_body: u64,
    /// Requests under way at once, for all tenants. Nothing: as many as there may be in all.
    pub requests: Option<usize>,
    /// Requests under way at once for each tenant.
    pub requests_per_tenant: usize,
}

/// Where a service is: `https://authority/base`, and possibly an address to use in place of DNS.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Target {
    /// Host and port as the URL has them: becomes `Host`, and the name that the service's certificate must bear.
    pub authority: Authority,
    /// What goes before the path of each request; empty, or starts with `/` and ends without.
    pub base_path: Box<str>,
    /// Connect here instead of resolving the host (a local relay, a simulator). TLS still checks the URL's host.
    pub address: Option<SocketAddr>,
}

/// One service as requests use it: catalogue, configuration and defaults already merged.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Service {
    /// The word in the path: `dmp`, `insi-auto`, or one that the user declared.
    pub name: Arc<str>,
    /// Where it is.
    pub target: Target,
    /// The hierarchy from which client certificates for it must come.
    pub environment: Environment,
    /// What it wants to be shown.
    pub certificate: WantedCertificate,
    /// Whose that may be.
    pub owner: Owner,
    /// Whom to believe.
    pub trust: Trust,
    /// TLS versions offered.
    pub tls: TlsVersions,
    /// HTTP versions spoken.
    pub http: HttpVersions,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// Connection limits, per generation.
    pub pool: PoolLimits,
    /// When a request may be sent again.
    pub retry: Retry,
    /// What becomes of requests when it refuses a renewed certificate.
    pub on_rejection: OnRejection,
    /// Limits on requests.
    pub limits: RequestLimits,
    /// Fields put on each request in place of what the application sent under the same name. Marked as sensitive,
    /// so that nothing prints them.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Requests a second that the service allows, for all tenants together.
    pub rate: Option<NonZeroU32>,
    /// Requests a second that each tenant may make.
    pub rate_per_tenant: Option<NonZeroU32>,
    /// Whether requests are refused at once while no connection to the service can be opened.
    pub breaker: bool,
}

/// The name of a path is not that of a tenant or of the gateway itself: lower-case letters, digits and hyphens.
pub fn is_service_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && name.as_bytes()[0] != b'-'
}

impl Target {
    /// The host without the brackets of an IPv6 literal.
    pub fn host(&self) -> &str {
        self.authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
    }

    /// The port, 443 unless the URL says otherwise.
    pub fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or(HTTPS)
    }

    /// The value of `Host` that the service sees.
    pub fn host_header(&self) -> HeaderValue {
        HeaderValue::from_str(self.authority.as_str())
            .expect("an authority has only visible ASCII characters")
    }

    /// Appends the remainder of a request's path and query to the base path, byte for byte.
    pub fn path_and_query(&self, remainder: &str) -> Result<PathAndQuery, http::uri::InvalidUri> {
        if self.base_path.is_empty() && remainder.starts_with('/') {
            return PathAndQuery::try_from(remainder);
        }
        let mut path = String::with_capacity(self.base_path.len() + remainder.len() + 1);
        path.push_str(&self.base_path);
        // `/dmp?x=1` has no path of its own to append; a target always needs one.
        if self.base_path.is_empty() {
            path.push('/');
        }
        path.push_str(remainder);
        PathAndQuery::try_from(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn appended(base: &str, remainder: &str) -> String {
        let target = Target {
            authority: Authority::from_static("service.example"),
            base_path: base.into(),
            address: None,
        };
        target.path_and_query(remainder).unwrap().to_string()
    }

    #[test]
    fn the_remainder_is_appended_byte_for_byte() {
        for remainder in [
            "/v2/services/repository",
            "/a%2Fb/%c3%A9/..//./c;d=1",
            "/Patient?identifier=urn:oid:1.2%7C3&x=a+b&&y=%20",
            "/trailing/",
            "/?",
            "/{id}?q={x}|y",
        ] {
            assert_eq!(appended("", remainder), remainder);
            assert_eq!(
                appended("/base/path", remainder),
                format!("/base/path{remainder}")
            );
        }
    }

    #[test]
    fn an_empty_remainder_asks_for_the_base_itself() {
        assert_eq!(appended("/base", ""), "/base");
        assert_eq!(appended("", ""), "/");
    }

    #[test]
    fn a_query_without_path_goes_to_the_base_itself() {
        assert_eq!(appended("/base", "?x=1"), "/base?x=1");
        assert_eq!(appended("", "?x=1"), "/?x=1");
    }

    #[test]
    fn what_cannot_be_a_path_is_refused() {
        let target = Target {
            authority: Authority::from_static("service.example"),
            base_path: "/base".into(),
            address: None,
        };
        assert!(target.path_and_query("/a b").is_err());
        assert!(target.path_and_query("/a\r\nX-Finess: 1").is_err());
    }

    #[test]
    fn every_built_in_service_can_be_named_in_a_path_and_once_only() {
        for (at, built_in) in CATALOGUE.iter().enumerate() {
            assert!(is_service_name(built_in.name), "{}", built_in.name);
            assert!(
                CATALOGUE[..at]
                    .iter()
                    .all(|other| other.name != built_in.name)
            );
            assert_eq!(BuiltIn::find(built_in.name).unwrap().name, built_in.name);
        }
        assert!(BuiltIn::find("DMP").is_none());
    }

    #[test]
    fn a_service_name_is_lower_case_letters_digits_and_hyphens() {
        for name in ["dmp", "insi-auto", "2", "a-"] {
            assert!(is_service_name(name), "{name}");
        }
        for name in [
            "",
            "-",
            "-a",
            "DMP",
            "a_b",
            "@060785003",
            "é",
            "a/b",
            &"a".repeat(65),
        ] {
            assert!(!is_service_name(name), "{name}");
        }
    }
}
