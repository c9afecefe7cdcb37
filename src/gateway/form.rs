//! How a request names where it goes: by a path at Relais itself, by a service's own address, or in a tunnel to it.

use std::borrow::Cow;

use http::uri::{Authority, Scheme};
use http::{Method, Request, Version};
use hyper::body::Incoming;
use percent_encoding::percent_decode;

use super::headers::{FIELDS_MAX, Overview};
use super::reply::{Code, Problem};
use super::{Door, Gateway};
use crate::inbound::peer::Peer;

/// The port that `http://` means by itself.
const HTTP: u16 = 80;

/// How a request names where it goes.
#[derive(Clone, Copy)]
pub(super) enum Form<'a> {
    /// By its path, at Relais itself.
    Plain { path: &'a str },
    /// A tunnel to there (RFC 9110 section 9.3.6).
    Tunnel { authority: &'a Authority },
    /// By the service's own address, as to a forward proxy.
    Proxied {
        host: &'a str,
        /// Absent where the address means what it would with https://.
        port: Option<u16>,
        path: &'a str,
    },
}

impl Gateway {
    /// How a request names where it goes, with a head of tolerable size.
    pub(super) fn form<'a>(
        &self,
        door: &Door,
        peer: &'a Peer,
        request: &'a Request<Incoming>,
        overview: Overview,
    ) -> Result<Form<'a>, Problem> {
        let uri = request.uri();
        let path = uri.path_and_query().map_or("", |path| path.as_str());
        if path.len() + overview.size() > self.request_head {
            return Err(Problem::head_too_large(self.request_head));
        }
        if request.headers().len() > FIELDS_MAX {
            return Err(Problem::too_many_fields());
        }
        // Some take what is before the @ for the host, and this is where requests go by.
        if (uri.authority()).is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(malformed("the address names a user"));
        }
        // With it HTTP/2 begins (RFC 9113 section 3.4): as a method, it makes others take what follows for frames.
        if request.method().as_str() == "PRI" {
            return Err(malformed("PRI is no method"));
        }
        if request.method() == Method::CONNECT
            && door.takes_tunnels
            && peer.tunnel.is_none()
            && request.version() == Version::HTTP_11
            && let Some(authority) = uri.authority()
        {
            return Ok(Form::Tunnel { authority });
        }
        if request.method() == Method::CONNECT {
            return Err(Problem::new(
                Code::RequestMalformed,
                "CONNECT is not served: in a tunnel the application would make the TLS handshake itself, and Relais \
                 could show no certificate",
                "use the service's address with http:// in place of https://, or send the path to Relais itself: \
                 http://HOST:PORT/dmp/… with X-Finess",
            ));
        }
        if request.method() == Method::TRACE {
            // What comes back would hold what Relais adds for the service, an API key for one (RFC 9110 section 9.3.8).
            return Err(Problem::new(
                Code::RequestMalformed,
                "TRACE is not passed on: the answer would show what only the service is to see",
                "",
            ));
        }
        if !path.starts_with('/') {
            return Err(Problem::new(
                Code::RequestMalformed,
                "the request names no path",
                "send the path: /dmp/… with X-Finess",
            ));
        }
        if let Some(tunnel) = &peer.tunnel {
            return Ok(Form::Proxied {
                host: tunnel.authority.host(),
                // What it was agreed to by.
                port: tunnel.authority.port_u16(),
                path,
            });
        }
        // HTTP/2 has an authority in each request, which says nothing.
        let authority = uri
            .authority()
            .filter(|_| request.version() < Version::HTTP_2);
        // A server must take its own address in this form, too (RFC 9112 section 3.2.2).
        let is_own = |authority: &Authority| {
            let port = authority.port_u16().unwrap_or(HTTP);
            door.port == Some(port) && door.hosts.is_ours(peer, authority.host())
        };
        match authority {
            Some(authority) if !is_own(authority) => {
                if uri.scheme() != Some(&Scheme::HTTP) {
                    return Err(Problem::new(
                        Code::RequestMalformed,
                        "only http:// is taken in this form: TLS towards the service is Relais's to speak",
                        "write the service's address with http:// in place of https://",
                    ));
                }
                Ok(Form::Proxied {
                    host: authority.host(),
                    port: port(authority)?,
                    path,
                })
            }
            _ => Ok(Form::Plain { path }),
        }
    }
}

/// The port that an address in clear text gives; none where it is 80, which is what `http://` means by itself.
fn port(authority: &Authority) -> Result<Option<u16>, Problem> {
    let rest = (authority.as_str()).strip_prefix(authority.host());
    let Some(digits) = rest.unwrap_or_default().strip_prefix(':') else {
        return Ok(None);
    };
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let port = digits.parse().ok().filter(|port| *port != 0 && is_plain);
    let port: u16 = port.ok_or_else(|| malformed("the port of the address is none"))?;
    Ok((port != HTTP).then_some(port))
}

fn malformed(detail: &str) -> Problem {
    Problem::new(Code::RequestMalformed, detail, "")
}

/// How often a path is decoded by servers in a row: a proxy, a framework and an application behind it.
const DECODINGS: usize = 3;

/// Whether a path and query would lead above where it begins for a server that resolves dot segments (RFC 3986 section
/// 5.2.4): out of the service's base, or into another service on the same host. Read as unkindly as any server may:
/// decoded or not, or more than once (`%252e`, CVE-2021-42013), with the separator of Windows, and with parameters,
/// which Tomcat takes off first (`..;x`).
pub(super) fn climbs(path_and_query: &str) -> bool {
    // What is looked at for nearly all paths.
    if !(path_and_query.bytes()).any(|byte| matches!(byte, b'.' | b'%')) {
        return false;
    }
    let path = path_and_query.split('?').next().unwrap_or_default();
    (0..=DECODINGS).any(|times| {
        let mut depth = 0;
        path.split('/').any(|segment| {
            depth += steps(&decoded(segment, times));
            depth < 0
        })
    })
}

/// A segment, decoded as many times, or until there is nothing to decode.
fn decoded(segment: &str, times: usize) -> Cow<'_, [u8]> {
    let mut decoded = Cow::Borrowed(segment.as_bytes());
    for _ in 0..times {
        let Cow::Owned(again) = Cow::from(percent_decode(&decoded)) else {
            break;
        };
        decoded = Cow::Owned(again);
    }
    decoded
}

/// How far down a segment leads, which may hold separators now that it is decoded: one step at most, but all that it
/// may lead up.
fn steps(segment: &[u8]) -> i64 {
    let mut ups = 0;
    let mut downs = 0;
    for part in segment.split(|byte| matches!(byte, b'/' | b'\\')) {
        let end = part.iter().position(|byte| *byte == b';');
        match &part[..end.unwrap_or(part.len())] {
            b".." => ups += 1,
            // Slashes that follow each other may be taken for one.
            b"" | b"." => {}
            _ => downs = 1,
        }
    }
    if ups > 0 { -ups } else { downs }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_an_address_in_clear_text_is_none_where_it_goes_without_saying() {
        for (authority, expected) in [
            ("h.example", Some(None)),
            ("h.example:80", Some(None)),
            ("h.example:443", Some(Some(443))),
            ("[::1]:8443", Some(Some(8443))),
            ("h.example:99999", None),
            ("h.example:", None),
            ("h.example:0", None),
        ] {
            let port = port(&authority.parse().unwrap());
            assert_eq!(port.ok(), expected, "{authority}");
        }
    }

    #[test]
    fn a_path_that_leads_above_its_beginning_is_told_however_it_is_written() {
        for path in [
            "/..",
            "/../b?x",
            "/a/../../b",
            "/a/./../..",
            "/a//../..",
            "/%2e%2E/b",
            "/.%2e",
            "/..;x=1/b",
            "/..\\b",
            "/%2e%2e%2fb",
            "/a/..%2f..%2fb",
            "/%5c..%5cb",
            "..",
            "/%252e%252e/b",
            "/%25252e.",
            "/a/..%252f..%252fb",
            "/%%32%65.",
            // Where parameters are taken off before decoding, as Tomcat does it.
            "/;%2fa/../b",
        ] {
            assert!(climbs(path), "{path}");
        }
        for path in [
            "",
            "/",
            "/a/../b",
            "/a%2Fb/%c3%A9/..//./c;d=1",
            "/...",
            "/a/.b",
            "/a..b/c",
            "/x?y=../../z",
            "/%zz/%20..",
            "/a/%252e%252e/b",
            "/100%25/%2525/%",
        ] {
            assert!(!climbs(path), "{path}");
        }
    }
}
