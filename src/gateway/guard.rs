//! Keeps web pages out: a browser on the same machine must not be able to act as a structure.
//!
//! A page can make a browser send requests to localhost. What gives it away is a `Host` that is not local (the page's
//! own name, rebound to 127.0.0.1), an `Origin`, or a `Sec-Fetch-Site` of another site; programs send none of these.

use std::net::IpAddr;

use http::header::{ACCEPT_LANGUAGE, HOST, USER_AGENT};
use http::{HeaderName, HeaderValue, Request, Version};

use crate::gateway::headers::{Field, Overview};
use crate::gateway::reply::{Code, Problem};
use crate::inbound::peer::Peer;
use crate::services::HTTPS;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Which values of `Host` are taken for this gateway.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hosts {
    /// Names besides the local ones, lower case, without port.
    pub allowed: Vec<String>,
    /// Whether `Host` means anything here: on a Unix socket, which no browser reaches, programs fill it as they like.
    pub checked: bool,
}

impl Hosts {
    /// The local names alone.
    pub fn local() -> Self {
        Self {
            allowed: Vec::new(),
            checked: true,
        }
    }

    /// Lets through what a program sent. A request that `is_proxied` names the service's host, not
    /// Relais's: a web page can send such a one only if its browser was told to take Relais for its proxy.
    ///
    /// # Errors
    /// The answer for what a web page may have sent, for a request without a usable `Host` (RFC 9112 section 3.2), or
    /// for another host than the connection was made for (RFC 9110 section 15.5.20).
    pub(crate) fn admit<B>(
        &self,
        peer: &Peer,
        request: &Request<B>,
        overview: Overview,
        is_proxied: bool,
    ) -> Result<(), Problem> {
        let headers = request.headers();
        if overview.has(Field::Origin) {
            return Err(refused(
                "the request carries Origin, as those of web pages do",
            ));
        }
        let is_of_a_page = |site: &HeaderValue| site != "none" && site != "same-origin";
        if overview.has(Field::SecFetchSite)
            && headers.get_all(SEC_FETCH_SITE).iter().any(is_of_a_page)
        {
            return Err(refused(
                "the request carries a Sec-Fetch-Site of another site",
            ));
        }
        if !self.checked && peer.tunnel.is_none() {
            return Ok(());
        }
        let (host, port) = host_of(request, overview)?;
        let target = request.uri().authority();
        // Relais has to go by the target alone; somebody on the way may go by the other (RFC 9112 section 3.2.2).
        if target.is_some_and(|target| !target.host().eq_ignore_ascii_case(host)) {
            return Err(malformed("the request's Host is not that of its target"));
        }
        if let Some(tunnel) = &peer.tunnel {
            // An application that keeps tunnels may send one what it means for another.
            let leads_to = |host: &str, port: &str| {
                // In a tunnel TLS is spoken.
                let port = if port.is_empty() {
                    Some(HTTPS)
                } else {
                    port.parse().ok()
                };
                tunnel.authority.host().eq_ignore_ascii_case(host)
                    && tunnel.authority.port_u16() == port
            };
            let target = target.map(|target| split(target.as_str())).transpose()?;
            if !leads_to(host, port) || target.is_some_and(|(host, port)| !leads_to(host, port)) {
                return Err(misdirected());
            }
        }
        if is_proxied {
            // A browser marks nothing that it sends to a proxy for an http:// address (Sec-Fetch-Site is for https://),
            // and shows the proxy's password for any page. All of them send these two, and programs do not.
            let is_browser = |agent: &HeaderValue| agent.as_bytes().starts_with(b"Mozilla/");
            let agents = headers.get_all(USER_AGENT);
            return match headers.contains_key(ACCEPT_LANGUAGE) || agents.iter().any(is_browser) {
                true => Err(refused(
                    "Relais is no browser's proxy, and the request carries a browser's User-Agent or Accept-Language",
                )),
                false => Ok(()),
            };
        }
        // What the handshake settled, it settled under that name (CVE-2025-23048 in httpd).
        let asked_for = peer.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
        if asked_for.is_some_and(|name| !name.eq_ignore_ascii_case(host)) {
            return Err(misdirected());
        }
        if self.is_ours(peer, host) {
            Ok(())
        } else {
            Err(refused("the request's Host is not a local one"))
        }
    }

    /// Whether a name, or the literal of an address, is one under which Relais is reached.
    pub(crate) fn is_ours(&self, peer: &Peer, host: &str) -> bool {
        // What almost every application sends.
        if host == "127.0.0.1" || host == "localhost" {
            return true;
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        is_localhost(host)
            || bare
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback())
            || (self.allowed.iter()).any(|allowed| allowed.eq_ignore_ascii_case(host))
            || (peer.tls.as_ref()).is_some_and(|tls| tls.names.has(host))
    }
}

/// `localhost`, and the names below it (RFC 6761 section 6.3).
fn is_localhost(host: &str) -> bool {
    let (above, last) = host.rsplit_once('.').unwrap_or(("x", host));
    last.eq_ignore_ascii_case("localhost") && !above.is_empty()
}

/// The host that a request is for, and the digits of its port, if there are any.
fn host_of<B>(request: &Request<B>, overview: Overview) -> Result<(&str, &str), Problem> {
    let headers = request.headers();
    if request.version() == Version::HTTP_2
        && let Some(authority) = request.uri().authority()
    {
        // Whoever reads the one may be told something else by the other (RFC 9113 section 8.3.1).
        let differs = |host: &HeaderValue| host != authority.as_str();
        if overview.has(Field::Host) && headers.get_all(HOST).iter().any(differs) {
            return Err(malformed("the request's Host is not its :authority"));
        }
        return split(authority.as_str());
    }
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(malformed("the request must carry one Host"));
    };
    let host = host
        .to_str()
        .map_err(|_| malformed("the request's Host is not a name"))?;
    split(host)
}

/// A host and the digits of its port.
fn split(host: &str) -> Result<(&str, &str), Problem> {
    let end = match host.strip_prefix('[').and_then(|rest| rest.find(']')) {
        Some(end) => end + 2,
        None => host.find(':').unwrap_or(host.len()),
    };
    let (host, port) = host.split_at(end);
    // What is behind the name and no port may be a name to somebody else: `localhost:80@elsewhere`.
    let is_port = |port: &&str| port.bytes().all(|byte| byte.is_ascii_digit());
    match port.strip_prefix(':').filter(is_port) {
        Some(port) => Ok((host, port)),
        None if port.is_empty() => Ok((host, "")),
        None => Err(malformed("the request's Host is not a name and a port")),
    }
}

fn malformed(detail: &str) -> Problem {
    Problem::new(Code::RequestMalformed, detail, "")
}

fn misdirected() -> Problem {
    Problem::new(
        Code::Misdirected,
        "the request's Host is not what its connection was opened for (SNI, or the tunnel's host and port)",
        "open another connection for it",
    )
}

fn refused(detail: &str) -> Problem {
    Problem::new(
        Code::BrowserRefused,
        detail,
        "only programs on this machine are served; a name under which they reach it goes into allowed_hosts of the listener",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(headers: &[(&str, &str)]) -> Result<(), Code> {
        let mut request = Request::builder().uri("/dmp");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let hosts = Hosts {
            allowed: vec!["gateway.internal".to_owned()],
            checked: true,
        };
        let request = request.body(()).unwrap();
        hosts
            .admit(
                &Peer::default(),
                &request,
                Overview::of(request.headers()),
                false,
            )
            .map_err(|problem| problem.code)
    }

    #[test]
    fn local_hosts_pass_with_and_without_a_port() {
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1:8080",
            "127.9.9.9",
            "[::1]",
            "[::1]:8080",
            "a.localhost",
        ] {
            assert_eq!(admit(&[("host", host)]), Ok(()), "{host}");
        }
        assert_eq!(admit(&[("host", "gateway.internal:80")]), Ok(()));
    }

    #[test]
    fn other_hosts_are_taken_for_a_web_page_that_rebound_its_name() {
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "0.0.0.0",
            "169.254.169.254",
            "localhost.evil.example",
            "",
        ] {
            assert_eq!(
                admit(&[("host", host)]),
                Err(Code::BrowserRefused),
                "{host}"
            );
        }
    }

    #[test]
    fn what_follows_a_host_and_is_no_port_is_malformed() {
        for host in [
            "localhost:80@evil.example",
            "localhost:x",
            "localhost:80:80",
            "[::1]evil.example",
            "[::1]:80/",
        ] {
            assert_eq!(
                admit(&[("host", host)]),
                Err(Code::RequestMalformed),
                "{host}"
            );
        }
    }

    #[test]
    fn the_marks_of_a_browser_are_refused_whatever_the_host() {
        assert_eq!(
            admit(&[("host", "localhost"), ("origin", "null")]),
            Err(Code::BrowserRefused)
        );
        for site in ["cross-site", "same-site"] {
            assert_eq!(
                admit(&[("host", "localhost"), ("sec-fetch-site", site)]),
                Err(Code::BrowserRefused)
            );
        }
        assert_eq!(
            admit(&[("host", "localhost"), ("sec-fetch-site", "none")]),
            Ok(())
        );
    }

    #[test]
    fn a_request_without_one_host_is_malformed() {
        assert_eq!(admit(&[]), Err(Code::RequestMalformed));
        assert_eq!(
            admit(&[("host", "localhost"), ("host", "localhost")]),
            Err(Code::RequestMalformed)
        );
    }
}
