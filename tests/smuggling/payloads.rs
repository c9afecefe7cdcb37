//! What is sent: bytes that two readers could take for different requests. Each is followed by a marker on the same
//! connection, a plain request of its own.

/// One thing that is sent.
pub struct Payload {
    pub name: &'static str,
    /// As they go out, before the marker.
    pub bytes: Vec<u8>,
    /// Requests that were plainly sent, the marker not counted. With 0, nothing of it may reach a service.
    pub plain: usize,
}

/// The request that must never arrive; it has another path than all that are plainly sent.
pub struct Words {
    /// The field that names the tenant, with its line end.
    pub tenant: String,
    /// The same for another tenant.
    pub other: String,
    evil: String,
}

impl Words {
    /// For these two tenants.
    pub fn of(tenant: &str, other: &str) -> Self {
        let tenant = format!("X-Finess: {tenant}\r\n");
        Self {
            evil: format!("GET /up/evil HTTP/1.1\r\nHost: localhost\r\n{tenant}\r\n"),
            other: format!("X-Finess: {other}\r\n"),
            tenant,
        }
    }

    /// The plain request that follows each payload over HTTP/1.1.
    pub fn marker(&self) -> Vec<u8> {
        let tenant = &self.tenant;
        format!("GET /up/marker HTTP/1.1\r\nHost: localhost\r\n{tenant}Connection: close\r\n\r\n")
            .into_bytes()
    }

    fn head(&self, line: &str, fields: &str) -> String {
        format!("{line}\r\nHost: localhost\r\n{}{fields}\r\n", self.tenant)
    }

    fn get(&self, fields: &str) -> String {
        self.head("GET /up/first HTTP/1.1", fields)
    }

    fn post(&self, fields: &str, body: &str) -> String {
        self.head("POST /up/first HTTP/1.1", fields) + body
    }

    /// The length of what must not arrive as a request is said by one field, and that it is empty by another.
    fn longer_or_empty(&self, coding: &str) -> String {
        let body = format!("0\r\n\r\n{}", self.evil);
        self.post(
            &format!("Content-Length: {}\r\n{coding}", body.len()),
            &body,
        )
    }

    fn chunked(&self, body: &str) -> String {
        self.post("Transfer-Encoding: chunked\r\n", body)
    }

    fn sized(&self, length: &str) -> String {
        self.post(&format!("Content-Length:{length}\r\n"), "body")
    }

    fn line(&self, line: &str) -> String {
        self.head(line, "")
    }

    /// A request without `Host` but for what is given.
    fn addressed(&self, line: &str, hosts: &str) -> String {
        format!("{line}\r\n{hosts}{}\r\n", self.tenant)
    }

    /// All that goes out over HTTP/1.1.
    pub fn payloads(&self) -> Vec<Payload> {
        let mut all = self.framing();
        all.extend(self.lengths());
        all.extend(self.chunks());
        all.extend(self.fields());
        all.extend(self.targets());
        all.extend(self.transitions());
        all.extend(self.tenants());
        let payload = |(name, plain, text): (&'static str, usize, String)| Payload {
            name,
            // One character for each byte, so that bytes which are no UTF-8 can be written.
            bytes: text.chars().map(|one| u8::try_from(one).unwrap()).collect(),
            plain,
        };
        all.into_iter().map(payload).collect()
    }

    /// Where a body ends, said in two ways, or in one that not everybody reads.
    fn framing(&self) -> Vec<(&'static str, usize, String)> {
        let evil = &self.evil;
        let in_chunk = format!("{:x}\r\n{evil}\r\n0\r\n\r\n", evil.len());
        vec![
            ("CL and TE, the body longer by CL", 0, self.longer_or_empty("Transfer-Encoding: chunked\r\n")),
            ("TE and CL, the body longer by TE", 0, self.post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", &in_chunk)),
            ("CL between two TE", 0, self.post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n", &in_chunk)),
            ("CL and TE in another case", 0, self.longer_or_empty("tRANSFER-eNCODING: cHUNKED\r\n")),
            ("CL and TE after a tab", 0, self.longer_or_empty("Transfer-Encoding:\tchunked\r\n")),
            ("CL and TE after a vertical tab", 0, self.longer_or_empty("Transfer-Encoding:\u{b}chunked\r\n")),
            ("CL and TE with a space before the colon", 0, self.longer_or_empty("Transfer-Encoding : chunked\r\n")),
            ("CL and TE folded", 0, self.longer_or_empty("Transfer-Encoding:\r\n chunked\r\n")),
            ("CL and TE behind a bare LF", 0, self.longer_or_empty("X-A: 1\nTransfer-Encoding: chunked\r\n")),
            ("CL and TE behind a bare CR", 0, self.longer_or_empty("X-A: 1\rTransfer-Encoding: chunked\r\n")),
            ("CL and TE with NUL in its name", 0, self.longer_or_empty("Transfer\0Encoding: chunked\r\n")),
            ("TE xchunked", 0, self.longer_or_empty("Transfer-Encoding: xchunked\r\n")),
            ("TE chunked, identity", 0, self.longer_or_empty("Transfer-Encoding: chunked, identity\r\n")),
            ("TE identity, chunked", 0, self.post("Transfer-Encoding: identity, chunked\r\n", &in_chunk)),
            ("TE gzip, chunked", 0, self.post("Transfer-Encoding: gzip, chunked\r\n", &in_chunk)),
            ("TE chunked, chunked", 0, self.post("Transfer-Encoding: chunked, chunked\r\n", &in_chunk)),
            ("TE chunked and TE identity", 0, self.longer_or_empty("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n")),
            ("TE identity and TE chunked", 0, self.post("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", &in_chunk)),
            ("TE between quotes", 0, self.longer_or_empty("Transfer-Encoding: \"chunked\"\r\n")),
            ("TE with a parameter", 0, self.longer_or_empty("Transfer-Encoding: chunked;q=1\r\n")),
            ("TE with a comma before it", 0, self.post("Transfer-Encoding: , chunked\r\n", &in_chunk)),
            ("TE empty", 0, self.longer_or_empty("Transfer-Encoding:\r\n")),
            ("TE in HTTP/1.0", 0, self.head("POST /up/first HTTP/1.0", "Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n") + &in_chunk),
            ("GET with a body that is a request", 1, self.get(&format!("Content-Length: {}\r\n", evil.len())) + evil),
            ("HEAD with a body that is a request", 1, self.head("HEAD /up/first HTTP/1.1", &format!("Content-Length: {}\r\n", evil.len())) + evil),
            ("the body is shorter than it says (0.CL)", 1, self.get(&format!("Content-Length: {}\r\n", self.marker().len() + 40))),
            ("two plain requests", 2, self.get("") + &self.get("")),
        ]
    }

    fn lengths(&self) -> Vec<(&'static str, usize, String)> {
        let twice = |one: &str, two: &str| {
            let fields = format!("Content-Length: {one}\r\nContent-Length: {two}\r\n");
            self.post(&fields, "body")
        };
        vec![
            ("CL twice, the same", 0, twice("4", "4")),
            ("CL twice, different", 0, twice("4", "0")),
            ("CL list of the same", 0, self.sized(" 4, 4")),
            ("CL list of different", 0, self.sized(" 4, 0")),
            ("CL +4", 0, self.sized(" +4")),
            ("CL -4", 0, self.sized(" -4")),
            ("CL 0x4", 0, self.sized(" 0x4")),
            ("CL 4.0", 0, self.sized(" 4.0")),
            ("CL 4e0", 0, self.sized(" 4e0")),
            ("CL with a space inside", 0, self.sized(" 0 4")),
            (
                "CL with leading zeros",
                1,
                self.sized(" 0000000000000000000000004"),
            ),
            ("CL of 2^64 + 4", 0, self.sized(" 18446744073709551620")),
            ("CL empty", 0, self.sized("")),
            (
                "CL with a space before the colon",
                0,
                self.post("Content-Length : 4\r\n", "body"),
            ),
        ]
    }

    fn chunks(&self) -> Vec<(&'static str, usize, String)> {
        let evil = &self.evil;
        vec![
            ("chunk extension", 1, self.chunked("4;a=\"b\"\r\nbody\r\n0\r\n\r\n")),
            ("chunk extension with a bare LF", 0, self.chunked(&format!("4;a\nbody\r\n0\r\n\r\n{evil}"))),
            ("chunk extension with LF between quotes", 0, self.chunked("4;a=\"\n\"\r\nbody\r\n0\r\n\r\n")),
            ("chunk size ended by LF", 0, self.chunked("4\nbody\r\n0\r\n\r\n")),
            ("chunk size ended by CR", 0, self.chunked("4\rbody\r\n0\r\n\r\n")),
            ("chunk size of 2^64 + 4", 0, self.chunked("10000000000000004\r\nbody\r\n0\r\n\r\n")),
            ("chunk size -4", 0, self.chunked("-4\r\nbody\r\n0\r\n\r\n")),
            ("chunk size +4", 0, self.chunked("+4\r\nbody\r\n0\r\n\r\n")),
            ("chunk size 0x4", 0, self.chunked("0x4\r\nbody\r\n0\r\n\r\n")),
            ("chunk size empty", 0, self.chunked("\r\nbody\r\n0\r\n\r\n")),
            ("chunk size after a space", 0, self.chunked(" 4\r\nbody\r\n0\r\n\r\n")),
            ("chunk size before a space", 1, self.chunked("4 \r\nbody\r\n0\r\n\r\n")),
            ("chunk longer than it says", 0, self.chunked("4\r\nbodyXX\r\n0\r\n\r\n")),
            ("chunk followed by two other bytes", 0, self.chunked("4\r\nbodyXX0\r\n\r\n")),
            ("no empty line after the last chunk", 0, self.chunked(&format!("4\r\nbody\r\n0\r\n{evil}"))),
            ("trailers that frame", 1, self.chunked("4\r\nbody\r\n0\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\nHost: evil\r\n\r\n")),
            ("trailer with a tenant", 1, self.chunked(&format!("4\r\nbody\r\n0\r\n{}\r\n", self.other))),
            ("chunk size with 130 zeros", 0, self.chunked(&format!("{}4\r\nbody\r\n0\r\n\r\n", "0".repeat(130)))),
            ("trailer ended by a bare LF", 0, self.chunked(&format!("4\r\nbody\r\n0\r\nX-A: 1\n\n{evil}"))),
        ]
    }

    fn fields(&self) -> Vec<(&'static str, usize, String)> {
        let evil = &self.evil;
        vec![
            (
                "all lines ended by bare LF",
                0,
                self.get("").replace("\r\n", "\n"),
            ),
            (
                "a field ended by bare LF",
                0,
                self.get("X-A: 1\nX-B: 2\r\n"),
            ),
            (
                "a field with LF LF and a request",
                0,
                self.get(&format!("X-A: 1\n\n{evil}")),
            ),
            ("a field with CR", 0, self.get("X-A: 1\rX-B: 2\r\n")),
            ("a line ended by CR CR LF", 0, self.get("X-A: 1\r\r\n")),
            (
                "a field continued on the next line",
                0,
                self.get("X-A: 1\r\n X-B: 2\r\n"),
            ),
            (
                "the first field behind a space",
                0,
                self.line("GET /up/first HTTP/1.1\r\n X-A: 1"),
            ),
            ("a field with NUL", 0, self.get("X-A: 1\0\r\n")),
            ("a name with NUL", 0, self.get("X\0A: 1\r\n")),
            ("a name before a space", 0, self.get("X-A : 1\r\n")),
            ("a name before a tab", 0, self.get("X-A\t: 1\r\n")),
            ("a name with a space", 0, self.get("X A: 1\r\n")),
            ("a name with parentheses", 0, self.get("X(A): 1\r\n")),
            (
                "a name with a byte above 127",
                0,
                self.get("X-\u{e9}: 1\r\n"),
            ),
            ("a name with DEL", 0, self.get("X\u{7f}A: 1\r\n")),
            ("an empty name", 0, self.get(": 1\r\n")),
            ("a line without a colon", 0, self.get("X-A\r\n")),
            (
                "Connection names Content-Length",
                1,
                self.post(
                    "Connection: Content-Length\r\nContent-Length: 4\r\n",
                    "body",
                ),
            ),
            (
                "Connection names Transfer-Encoding",
                1,
                self.post(
                    "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n",
                    "4\r\nbody\r\n0\r\n\r\n",
                ),
            ),
        ]
    }

    fn targets(&self) -> Vec<(&'static str, usize, String)> {
        let one = "GET /up/first HTTP/1.1";
        // What is behind a `#` is the client's own (RFC 9110 section 7.1), and is not passed on.
        vec![
            (
                "absolute form, another Host",
                0,
                self.addressed(
                    "GET http://localhost/up/first HTTP/1.1",
                    "Host: other.example\r\n",
                ),
            ),
            (
                "absolute form with userinfo",
                0,
                self.addressed(
                    "GET http://other.example:80@localhost/up/first HTTP/1.1",
                    "Host: localhost\r\n",
                ),
            ),
            (
                "absolute form of elsewhere",
                0,
                self.addressed(
                    "GET http://other.example/up/first HTTP/1.1",
                    "Host: localhost\r\n",
                ),
            ),
            ("no Host", 0, self.addressed(one, "")),
            (
                "two Hosts, the same",
                0,
                self.addressed(one, "Host: localhost\r\nHost: localhost\r\n"),
            ),
            (
                "two Hosts, different",
                0,
                self.addressed(one, "Host: localhost\r\nHost: other.example\r\n"),
            ),
            (
                "Host with a space",
                0,
                self.addressed(one, "Host: localhost other.example\r\n"),
            ),
            (
                "Host with userinfo",
                0,
                self.addressed(one, "Host: localhost@other.example\r\n"),
            ),
            (
                "Host with userinfo and a colon",
                0,
                self.addressed(one, "Host: localhost:80@other.example\r\n"),
            ),
            (
                "Host with a comma",
                0,
                self.addressed(one, "Host: localhost, other.example\r\n"),
            ),
            (
                "Host with a path",
                0,
                self.addressed(one, "Host: localhost/evil\r\n"),
            ),
            (
                "Host with a port that is none",
                0,
                self.addressed(one, "Host: localhost:x\r\n"),
            ),
            (
                "a method with odd bytes",
                0,
                self.line("G\u{1}T /up/first HTTP/1.1"),
            ),
            (
                "a method with a parenthesis",
                0,
                self.line("G(T /up/first HTTP/1.1"),
            ),
            (
                "two spaces after the method",
                0,
                self.line("GET  /up/first HTTP/1.1"),
            ),
            (
                "a tab after the method",
                0,
                self.line("GET\t/up/first HTTP/1.1"),
            ),
            (
                "a space before the method",
                0,
                self.line(" GET /up/first HTTP/1.1"),
            ),
            (
                "two spaces before the version",
                0,
                self.line("GET /up/first  HTTP/1.1"),
            ),
            (
                "a space after the version",
                0,
                self.line("GET /up/first HTTP/1.1 "),
            ),
            ("HTTP/1.2", 0, self.line("GET /up/first HTTP/1.2")),
            ("HTTP/2.0 in text", 0, self.line("GET /up/first HTTP/2.0")),
            (
                "PRI as a method, and a field ended by bare LF",
                0,
                self.head("PRI /up/first HTTP/1.1", "X-A: 1\n"),
            ),
            (
                "PRI as a method, and a request ended by bare LF",
                0,
                self.line("PRI /up/first HTTP/1.1") + &self.get("").replace("\r\n", "\n"),
            ),
            ("http/1.1", 0, self.line("GET /up/first http/1.1")),
            ("HTTP/0.9", 0, "GET /up/first\r\n".to_owned()),
            (
                "two versions",
                0,
                self.line("GET /up/first HTTP/1.1 HTTP/1.1"),
            ),
            (
                "a target with a space",
                0,
                self.line("GET /up/first x HTTP/1.1"),
            ),
            (
                "a target with CR",
                0,
                self.line("GET /up/first\rx HTTP/1.1"),
            ),
            (
                "a target with LF",
                0,
                self.line("GET /up/first\nx HTTP/1.1"),
            ),
            (
                "a target with NUL",
                0,
                self.line("GET /up/first\0 HTTP/1.1"),
            ),
            (
                "a target with a fragment",
                1,
                self.line("GET /up/first#x HTTP/1.1"),
            ),
            (
                "a target with %0d%0a",
                1,
                self.line("GET /up/first%0d%0aX-A:1 HTTP/1.1"),
            ),
            (
                "a target with a backslash",
                1,
                self.line("GET /up/first\\..\\x HTTP/1.1"),
            ),
            (
                "a target with ..",
                1,
                self.line("GET /up/first/../x HTTP/1.1"),
            ),
            ("a target with //", 1, self.line("GET /up//first HTTP/1.1")),
        ]
    }

    /// Changes of protocol, answers that come early, and bodies that are asked for.
    fn transitions(&self) -> Vec<(&'static str, usize, String)> {
        let evil = &self.evil;
        let length = format!("Content-Length: {}\r\n", evil.len());
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
        vec![
            (
                "Upgrade, and bytes before it is granted",
                1,
                self.get(upgrade) + evil,
            ),
            (
                "Upgrade, and a body",
                1,
                self.post(&format!("{upgrade}{length}"), evil),
            ),
            (
                "CONNECT, and bytes before it is granted",
                0,
                self.line("CONNECT localhost:443 HTTP/1.1") + evil,
            ),
            (
                "CONNECT with a length, and that body",
                0,
                self.head("CONNECT localhost:443 HTTP/1.1", &length) + evil,
            ),
            (
                "Expect, the body at once",
                1,
                self.post("Expect: 100-continue\r\nContent-Length: 4\r\n", "body"),
            ),
            (
                "Expect, and no body",
                1,
                self.post("Expect: 100-continue\r\nContent-Length: 400\r\n", ""),
            ),
            (
                "Expect without a length",
                1,
                self.get("Expect: 100-continue\r\n"),
            ),
            (
                "Expect something else",
                1,
                self.post("Expect: x 100-continue\r\nContent-Length: 4\r\n", "body"),
            ),
            (
                "an answer before the body is read",
                1,
                self.head("POST /up/early HTTP/1.1", &length) + evil,
            ),
            (
                "a body with what is refused",
                0,
                self.head("POST /nowhere HTTP/1.1", &length) + evil,
            ),
            (
                "TRACE with a body",
                0,
                self.head("TRACE /up/first HTTP/1.1", &length) + evil,
            ),
            (
                "HTTP/2's preface after a request",
                1,
                self.get("") + "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            ),
        ]
    }

    fn tenants(&self) -> Vec<(&'static str, usize, String)> {
        let (other, value) = (&self.other, self.other["X-Finess: ".len()..].trim_end());
        vec![
            ("two tenants", 0, self.get(other)),
            (
                "two tenants, in another case",
                0,
                self.get(&other.to_ascii_uppercase()),
            ),
            ("the tenant twice", 0, self.get(&self.tenant)),
            (
                "two tenants, one with an underscore",
                0,
                self.get(&format!("X_Finess: {value}\r\n")),
            ),
            (
                "two tenants, one before a space",
                0,
                self.get(&format!("X-Finess : {value}\r\n")),
            ),
            (
                "two tenants, one behind a bare LF",
                0,
                self.get(&format!("X-A: 1\n{other}")),
            ),
            (
                "two tenants in one field",
                0,
                self.addressed("GET /up/first HTTP/1.1", "Host: localhost\r\n")
                    .replacen("\r\n\r\n", &format!(",{value}\r\n\r\n"), 1),
            ),
            (
                "the tenant named by Connection",
                1,
                self.get("Connection: X-Finess\r\n"),
            ),
        ]
    }
}
