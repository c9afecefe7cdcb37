//! What of a head crosses the gateway, in each direction.

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, Entry, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};

use crate::gateway::address::X_FINESS;
use crate::gateway::credentials::X_RELAIS_TOKEN;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Fields that speak of one connection only (RFC 9110 section 7.6.1).
pub(crate) static HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HTTP2_SETTINGS,
    KEEP_ALIVE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    PROXY_CONNECTION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// A field that means something to Relais: those of [`HOP_BY_HOP`] first, in the same order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Field {
    Connection,
    Http2Settings,
    KeepAlive,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    Te,
    TransferEncoding,
    Upgrade,
    Cookie,
    Host,
    Origin,
    SecFetchSite,
    XFiness,
    XFinessFolded,
    XRelaisToken,
    XRelaisTokenFolded,
}

impl Field {
    fn named(name: &HeaderName) -> Option<Self> {
        Some(match name.as_str() {
            "connection" => Self::Connection,
            "http2-settings" => Self::Http2Settings,
            "keep-alive" => Self::KeepAlive,
            "proxy-authenticate" => Self::ProxyAuthenticate,
            "proxy-authorization" => Self::ProxyAuthorization,
            "proxy-connection" => Self::ProxyConnection,
            "te" => Self::Te,
            "transfer-encoding" => Self::TransferEncoding,
            "upgrade" => Self::Upgrade,
            "cookie" => Self::Cookie,
            "host" => Self::Host,
            "origin" => Self::Origin,
            "sec-fetch-site" => Self::SecFetchSite,
            "x-finess" => Self::XFiness,
            "x_finess" => Self::XFinessFolded,
            "x-relais-token" => Self::XRelaisToken,
            "x_relais_token" | "x-relais_token" | "x_relais-token" => Self::XRelaisTokenFolded,
            _ => return None,
        })
    }
}

/// Fields in a head. That is hyper's own limit over HTTP/1.1 and Apache's (LimitRequestFields); with a higher one hyper
/// would make two allocations of 8 KiB for each head, where a hundred fit on the stack.
pub const FIELDS_MAX: usize = 100;

/// Which fields a head has, found in one pass over it. Looking into the map for each of twenty names, most of which
/// are not there, cost a twentieth of all that is done for a request.
#[derive(Clone, Copy, Debug)]
pub struct Overview {
    fields: u32,
    size: usize,
}

impl Overview {
    /// Looks at each field once.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut overview = Self { fields: 0, size: 0 };
        for (name, value) in headers {
            overview.size += name.as_str().len() + value.len() + 4;
            if let Some(field) = Field::named(name) {
                overview.fields |= 1 << field as u16;
            }
        }
        overview
    }

    /// Whether the field is there, once or more often.
    pub(crate) fn has(self, field: Field) -> bool {
        self.fields & 1 << field as u16 != 0
    }

    /// The size of the head as its sender wrote it, near enough: names, values, and `: ` and a line end for each.
    pub fn size(self) -> usize {
        self.size
    }

    fn hop_by_hop(self) -> impl Iterator<Item = &'static HeaderName> {
        // Most heads have none, and others one.
        let mut left = self.fields & ((1 << HOP_BY_HOP.len()) - 1);
        std::iter::from_fn(move || {
            let name = HOP_BY_HOP.get(left.trailing_zeros() as usize)?;
            left &= left - 1;
            Some(name)
        })
    }
}

/// Strips a request's head of what is not for the service: connection fields, the tenant, `Host` (the service's own
/// is set with the connection). A protocol upgrade and the willingness to take trailers are passed on. Tells whether the
/// request asks for an upgrade.
pub fn for_service(headers: &mut HeaderMap, overview: Overview) -> bool {
    let upgrade = upgrade(headers, overview);
    let trailers = overview.has(Field::Te) && headers.get(TE).is_some_and(wants_trailers);
    strip(headers, overview);
    if overview.has(Field::XFiness) {
        headers.remove(X_FINESS);
    }
    if overview.has(Field::XRelaisToken) {
        headers.remove(X_RELAIS_TOKEN);
    }
    if overview.has(Field::Host) {
        headers.remove(HOST);
    }
    if overview.has(Field::Cookie) {
        join_cookies(headers);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.append(CONNECTION, HeaderValue::from_static("te"));
    }
    let Some(protocol) = upgrade else {
        return false;
    };
    headers.insert(UPGRADE, protocol);
    headers.append(CONNECTION, HeaderValue::from_static("upgrade"));
    true
}

/// Strips a request's trailers of what its head would not be let through with.
pub fn of_trailers(trailers: &mut HeaderMap) {
    strip(trailers, Overview::of(trailers));
    trailers.remove(X_FINESS);
    trailers.remove(X_RELAIS_TOKEN);
    trailers.remove(HOST);
}

/// Strips an answer's head of what is not for the application. `switching` keeps what a 101 answer agrees on.
pub fn for_application(headers: &mut HeaderMap, switching: bool) {
    let overview = Overview::of(headers);
    let upgrade = if switching {
        upgrade(headers, overview)
    } else {
        None
    };
    strip(headers, overview);
    if let Some(protocol) = upgrade {
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// The protocol that the message asks to change to, if it does so as RFC 9110 section 7.8 says: `Upgrade`, named by
/// `Connection`. HTTP/2 in clear text is spoken outright and never by upgrade (RFC 9113 section 3.1).
fn upgrade(headers: &HeaderMap, overview: Overview) -> Option<HeaderValue> {
    if !overview.has(Field::Upgrade) {
        return None;
    }
    let named = connection_options(headers).any(|option| option.eq_ignore_ascii_case(b"upgrade"));
    let protocol = headers.get(UPGRADE).filter(|_| named)?;
    (!protocol.as_bytes().eq_ignore_ascii_case(b"h2c")).then(|| protocol.clone())
}

fn wants_trailers(te: &HeaderValue) -> bool {
    te.to_str().is_ok_and(|te| {
        te.split(',')
            .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
    })
}

fn strip(headers: &mut HeaderMap, overview: Overview) {
    if overview.has(Field::Connection) {
        remove_named(headers);
    }
    for name in overview.hop_by_hop() {
        headers.remove(name);
    }
}

/// Removes the fields that `Connection` names.
fn remove_named(headers: &mut HeaderMap) {
    // This is what it says almost always: nothing that has to be looked for.
    let is_plain = |value: &HeaderValue| {
        let value = value.as_bytes();
        value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close")
    };
    if headers.get_all(CONNECTION).iter().all(is_plain) {
        return;
    }
    let named: Vec<HeaderName> = connection_options(headers)
        .filter_map(|option| HeaderName::try_from(option).ok())
        // What frames the message is not an option that a peer may switch off.
        .filter(|name| name != CONTENT_LENGTH && name != HOST)
        .collect();
    for name in named {
        headers.remove(name);
    }
}

/// What `Connection` names. Bytes that have no place in it hide nothing that stands beside them.
fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|option| !option.is_empty())
}

/// HTTP/2 splits cookies over several fields for better compression; HTTP/1.1 has one (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let parts: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    let Ok(joined) = HeaderValue::from_bytes(&parts.join(&b"; "[..])) else {
        return;
    };
    if let Entry::Occupied(mut cookies) = headers.entry(COOKIE) {
        cookies.insert(joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        fields
            .iter()
            .map(pair)
            .collect::<Vec<_>>()
            .into_iter()
            .fold(HeaderMap::new(), |mut map, (name, value)| {
                map.append(name, value);
                map
            })
    }

    fn for_this_service(headers: &mut HeaderMap) {
        let overview = Overview::of(headers);
        for_service(headers, overview);
    }

    #[test]
    fn every_field_of_one_connection_is_seen_in_an_overview() {
        for name in &HOP_BY_HOP {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static("x"));
            let seen: Vec<_> = Overview::of(&headers).hop_by_hop().collect();
            assert_eq!(seen, [name]);
            for_this_service(&mut headers);
            assert!(headers.is_empty(), "{name}");
        }
        let other = Overview::of(&map(&[("soapaction", "urn:x"), ("host", "localhost")]));
        assert_eq!(other.hop_by_hop().count(), 0);
    }

    #[test]
    fn tenant_credentials_and_connection_fields_never_reach_the_service() {
        let mut headers = map(&[
            ("x-finess", "060785003"),
            ("host", "localhost:8080"),
            ("proxy-authorization", "Basic x"),
            ("x-relais-token", "relais_x"),
            ("connection", "keep-alive, X-Private"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("soapaction", "urn:x"),
        ]);
        for_this_service(&mut headers);
        assert_eq!(headers, map(&[("soapaction", "urn:x")]));
    }

    #[test]
    fn trailers_carry_no_more_than_a_head_may() {
        let mut trailers = map(&[
            ("x-finess", "060785003"),
            ("proxy-authorization", "x"),
            ("x-relais-token", "relais_x"),
            ("x-sum", "1"),
        ]);
        of_trailers(&mut trailers);
        assert_eq!(trailers, map(&[("x-sum", "1")]));
    }

    #[test]
    fn connection_cannot_name_away_what_frames_the_message() {
        let mut headers = map(&[("connection", "content-length"), ("content-length", "5")]);
        for_this_service(&mut headers);
        assert_eq!(headers, map(&[("content-length", "5")]));
    }

    #[test]
    fn what_connection_names_is_stripped_whatever_stands_beside_it() {
        let named = [
            b"x-private, \xe9".as_slice(),
            b"\xe9,x-private",
            b",,X-Private\t,;",
        ];
        for named in named {
            let mut headers = map(&[("x-private", "1"), ("soapaction", "urn:x")]);
            headers.insert(CONNECTION, HeaderValue::from_bytes(named).unwrap());
            for_this_service(&mut headers);
            assert_eq!(headers, map(&[("soapaction", "urn:x")]), "{named:?}");
        }
    }

    #[test]
    fn an_upgrade_passes_and_h2c_does_not() {
        let mut headers = map(&[("connection", "Upgrade"), ("upgrade", "websocket")]);
        for_this_service(&mut headers);
        assert_eq!(
            headers,
            map(&[("connection", "upgrade"), ("upgrade", "websocket")])
        );
        let mut headers = map(&[
            ("connection", "Upgrade, HTTP2-Settings"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
        ]);
        for_this_service(&mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn an_answer_keeps_its_fields_and_loses_the_connections() {
        let mut headers = map(&[
            ("connection", "close"),
            ("server", "x"),
            ("set-cookie", "a"),
            ("set-cookie", "b"),
        ]);
        for_application(&mut headers, false);
        assert_eq!(
            headers,
            map(&[("server", "x"), ("set-cookie", "a"), ("set-cookie", "b")])
        );
    }

    #[test]
    fn split_cookies_are_joined_into_the_one_field_of_http_1() {
        let mut headers = map(&[("cookie", "a=1"), ("cookie", "b=2")]);
        for_this_service(&mut headers);
        assert_eq!(headers, map(&[("cookie", "a=1; b=2")]));
    }
}
