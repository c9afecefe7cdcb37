//! What is sent over HTTP/2 in clear text: frames whose fields would be something else in HTTP/1.1.

use super::payloads::{Payload, Words};
use crate::support::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, PUSH_PROMISE, SETTINGS, block,
    frame,
};

/// The stream of the marker. Those before it are closed by its use (RFC 9113 section 5.1.1).
pub const MARKER: u32 = 101;

type Fields<'a> = Vec<(&'a str, String)>;

impl Words {
    /// How a connection begins.
    pub fn opening() -> Vec<u8> {
        [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
    }

    /// The plain request that follows each payload over HTTP/2.
    pub fn marker_frame(&self) -> Vec<u8> {
        let fields = self.plain("GET", "/up/marker", &[]);
        frame(HEADERS, END_HEADERS | END_STREAM, MARKER, &encode(&fields))
    }

    fn plain<'a>(&self, method: &str, path: &str, more: &[(&'a str, &str)]) -> Fields<'a> {
        let tenant = self.tenant["X-Finess: ".len()..].trim_end().to_owned();
        let mut fields = vec![
            (":method", method.to_owned()),
            (":scheme", "http".to_owned()),
            (":path", path.to_owned()),
            (":authority", "localhost".to_owned()),
            ("x-finess", tenant),
        ];
        fields.extend(
            more.iter()
                .map(|(name, value)| (*name, (*value).to_owned())),
        );
        fields
    }

    fn with(&self, more: &[(&str, &str)]) -> Vec<u8> {
        let fields = self.plain("GET", "/up/first", more);
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &encode(&fields))
    }

    fn instead(&self, name: &str, value: &str) -> Vec<u8> {
        let mut fields = self.plain("GET", "/up/first", &[]);
        fields.iter_mut().find(|field| field.0 == name).unwrap().1 = value.to_owned();
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &encode(&fields))
    }

    fn without(&self, name: &str) -> Vec<u8> {
        let mut fields = self.plain("GET", "/up/first", &[]);
        fields.retain(|field| field.0 != name);
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &encode(&fields))
    }

    fn posted(&self, more: &[(&str, &str)], pieces: &[(u8, u8, &[u8])]) -> Vec<u8> {
        let fields = self.plain("POST", "/up/first", more);
        let mut bytes = frame(HEADERS, END_HEADERS, 1, &encode(&fields));
        for (kind, flags, payload) in pieces {
            bytes.extend(frame(*kind, *flags, 1, payload));
        }
        bytes
    }

    /// All that goes out over HTTP/2.
    pub fn frames(&self) -> Vec<Payload> {
        let other = self.other["X-Finess: ".len()..].trim_end();
        let evil = "GET /up/evil HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let injected = format!("1\r\n\r\n{evil}");
        let line = format!("/up/first HTTP/1.1\r\nHost: localhost\r\n\r\n{evil}");
        let method = "GET /up/evil HTTP/1.1\r\nHost: localhost\r\n\r\nGET";
        let trailers = |fields: &[(&str, &str)]| block(fields);
        let late = {
            let mut fields = vec![("x-a", "1".to_owned())];
            fields.extend(self.plain("GET", "/up/first", &[]));
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &encode(&fields))
        };
        let body = b"body".as_slice();
        let end = (DATA, END_STREAM, body);
        let all: Vec<(&'static str, usize, Vec<u8>)> = vec![
            ("a plain request", 1, self.with(&[])),
            ("a value with CR", 0, self.with(&[("x-a", "1\r2")])),
            ("a value with LF", 0, self.with(&[("x-a", "1\n2")])),
            ("a value with NUL", 0, self.with(&[("x-a", "1\u{0}2")])),
            (
                "a value with CR LF and a request",
                0,
                self.with(&[("x-a", &injected)]),
            ),
            (
                "a cookie with CR LF and a request",
                0,
                self.with(&[("cookie", &injected)]),
            ),
            ("a name with CR LF", 0, self.with(&[("x-a: 1\r\nx-b", "2")])),
            ("a name in upper case", 0, self.with(&[("X-A", "1")])),
            ("a name with a space", 0, self.with(&[("x a", "1")])),
            ("a name with a colon", 0, self.with(&[("x-a:", "1")])),
            ("an empty name", 0, self.with(&[("", "1")])),
            (":path with a request", 0, self.instead(":path", &line)),
            (
                ":path with a space",
                0,
                self.instead(":path", "/up/first x"),
            ),
            (
                ":path with a version",
                0,
                self.instead(":path", "/up/first HTTP/1.1"),
            ),
            (
                ":path with a fragment",
                1,
                self.instead(":path", "/up/first#x"),
            ),
            (
                ":path without a slash",
                0,
                self.instead(":path", "up/first"),
            ),
            (":path *", 0, self.instead(":path", "*")),
            (":path empty", 0, self.instead(":path", "")),
            (
                ":path absolute",
                0,
                self.instead(":path", "http://localhost/up/first"),
            ),
            (":method with a request", 0, self.instead(":method", method)),
            (":method with a space", 0, self.instead(":method", "GET x")),
            (
                ":authority with CR LF",
                0,
                self.instead(":authority", "localhost\r\nx-a: 1"),
            ),
            (
                ":authority with a name and a port for userinfo",
                0,
                self.instead(":authority", "other.example:80@localhost"),
            ),
            (
                ":authority with userinfo",
                0,
                self.instead(":authority", "localhost@other.example"),
            ),
            (
                ":authority with a path",
                0,
                self.instead(":authority", "localhost/up/evil"),
            ),
            (
                ":scheme with a request",
                0,
                self.instead(":scheme", "http://localhost/up/evil?"),
            ),
            ("no :path", 0, self.without(":path")),
            ("no :method", 0, self.without(":method")),
            ("no :authority and no host", 0, self.without(":authority")),
            ("two :path", 0, self.with(&[(":path", "/up/evil")])),
            ("a pseudo-field after a field", 0, late),
            ("an unknown pseudo-field", 0, self.with(&[(":evil", "1")])),
            (
                "a pseudo-field of answers",
                0,
                self.with(&[(":status", "200")]),
            ),
            (
                "host is not :authority",
                0,
                self.with(&[("host", "other.example")]),
            ),
            (
                "transfer-encoding",
                0,
                self.posted(
                    &[("transfer-encoding", "chunked")],
                    &[(DATA, END_STREAM, format!("0\r\n\r\n{evil}").as_bytes())],
                ),
            ),
            ("connection", 0, self.with(&[("connection", "x-finess")])),
            ("keep-alive", 0, self.with(&[("keep-alive", "timeout=5")])),
            (
                "proxy-connection",
                0,
                self.with(&[("proxy-connection", "keep-alive")]),
            ),
            ("upgrade", 0, self.with(&[("upgrade", "websocket")])),
            ("te: gzip", 0, self.with(&[("te", "gzip")])),
            (
                "content-length longer than DATA",
                0,
                self.posted(&[("content-length", "400")], &[end]),
            ),
            (
                "content-length shorter than DATA",
                0,
                self.posted(
                    &[("content-length", "1")],
                    &[(DATA, END_STREAM, format!("x{evil}").as_bytes())],
                ),
            ),
            (
                "content-length without DATA",
                0,
                self.with(&[("content-length", "4")]),
            ),
            (
                "content-length +4",
                0,
                self.posted(&[("content-length", "+4")], &[end]),
            ),
            (
                "content-length twice, different",
                0,
                self.posted(&[("content-length", "4"), ("content-length", "0")], &[end]),
            ),
            (
                "a body that is a request",
                1,
                self.posted(&[], &[(DATA, END_STREAM, evil.as_bytes())]),
            ),
            // The field goes nowhere: the library drops it.
            (
                "trailers with a pseudo-field",
                1,
                self.posted(
                    &[],
                    &[
                        (DATA, 0, body),
                        (
                            HEADERS,
                            END_HEADERS | END_STREAM,
                            &trailers(&[(":path", "/up/evil")]),
                        ),
                    ],
                ),
            ),
            (
                "trailers with a tenant",
                1,
                self.posted(
                    &[],
                    &[
                        (DATA, 0, body),
                        (
                            HEADERS,
                            END_HEADERS | END_STREAM,
                            &trailers(&[("x-finess", other)]),
                        ),
                    ],
                ),
            ),
            (
                "trailers with CR LF",
                0,
                self.posted(
                    &[],
                    &[
                        (DATA, 0, body),
                        (
                            HEADERS,
                            END_HEADERS | END_STREAM,
                            &trailers(&[("x-a", &injected)]),
                        ),
                    ],
                ),
            ),
            (
                "trailers that frame",
                1,
                self.posted(
                    &[],
                    &[
                        (DATA, 0, body),
                        (
                            HEADERS,
                            END_HEADERS | END_STREAM,
                            &trailers(&[
                                ("content-length", "400"),
                                ("transfer-encoding", "chunked"),
                            ]),
                        ),
                    ],
                ),
            ),
            (
                "DATA after the end",
                1,
                [
                    self.posted(&[], &[end]),
                    frame(DATA, END_STREAM, 1, evil.as_bytes()),
                ]
                .concat(),
            ),
            ("two tenants", 0, self.with(&[("x-finess", other)])),
            (
                "two tenants, one with an underscore",
                0,
                self.with(&[("x_finess", other)]),
            ),
            (
                "an even stream",
                0,
                frame(
                    HEADERS,
                    END_HEADERS | END_STREAM,
                    2,
                    &encode(&self.plain("GET", "/up/evil", &[])),
                ),
            ),
            (
                "PUSH_PROMISE from a client",
                0,
                frame(
                    PUSH_PROMISE,
                    END_HEADERS,
                    1,
                    &[
                        &[0, 0, 0, 2],
                        &encode(&self.plain("GET", "/up/evil", &[]))[..],
                    ]
                    .concat(),
                ),
            ),
            (
                "CONTINUATION without a beginning",
                0,
                frame(
                    CONTINUATION,
                    END_HEADERS,
                    1,
                    &encode(&self.plain("GET", "/up/evil", &[])),
                ),
            ),
            ("CONNECT with a path", 0, self.instead(":method", "CONNECT")),
        ];
        let payload = |(name, plain, bytes)| Payload { name, bytes, plain };
        all.into_iter().map(payload).collect()
    }
}

fn encode(fields: &Fields<'_>) -> Vec<u8> {
    block(fields)
}
