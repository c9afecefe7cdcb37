//! Heads that are not plain: refused, although hyper would take them.
//!
//! hyper ends a line at a bare LF, and reads a body by its chunks where a length is said as well. RFC 9112 (sections 2.2
//! and 6.1) lets it; but then an application that has let a line feed into a field has sent another field, or another
//! request, in its own name, and whoever stands before Relais may count otherwise. What can be read in two ways is
//! therefore spoilt before hyper reads it, and hyper answers 400 and closes.

use http::header::UPGRADE;
use http::{Method, Request, Version};

/// What is kept of a line that comes in pieces. A field that frames a request is shorter by far.
const LINE_KEPT: usize = 128;

/// In the place of a line feed it is an error wherever hyper meets it in a head.
const SPOILT: u8 = 0;

/// Follows what comes on a connection from one head to the next. It can refuse and do nothing else: where it loses the way,
/// it stops looking.
#[derive(Debug, Default)]
pub(super) struct Heads {
    at: At,
    head: Head,
    /// The beginning of a line of which the end has not come.
    line: Line,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum At {
    /// Before a request line.
    #[default]
    Start,
    Fields,
    /// So many bytes before the next head.
    Body(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    /// In HTTP/2, in another protocol, or where hyper ends the connection.
    Beyond,
}

/// What a head says of what follows it.
#[derive(Debug, Default)]
struct Head {
    length: Option<u64>,
    is_chunked: bool,
    leaves: bool,
}

#[derive(Debug, Default)]
struct Line {
    kept: Vec<u8>,
    is_cut: bool,
    ends_in_cr: bool,
}

impl Heads {
    /// Looks at what has come, and spoils the first head that is not plain. Tells whether it did.
    pub(super) fn look(&mut self, mut come: &mut [u8]) -> bool {
        let mut is_spoilt = false;
        while !come.is_empty() && self.at != At::Beyond {
            let passed = match self.at {
                At::Body(left) => self.pass(come.len(), left, At::Body, At::Start),
                At::Chunk(left) => self.pass(come.len(), left, At::Chunk, At::ChunkEnd),
                _ => {
                    let (passed, is_plain) = self.line(come);
                    is_spoilt |= !is_plain;
                    passed
                }
            };
            come = &mut come[passed..];
        }
        is_spoilt
    }

    /// Passes over what is no line.
    fn pass(&mut self, come: usize, left: u64, more: fn(u64) -> At, then: At) -> usize {
        let passed = usize::try_from(left).unwrap_or(usize::MAX).min(come);
        let left = left - passed as u64;
        self.at = if left == 0 { then } else { more(left) };
        passed
    }

    /// Looks at the next line, or keeps what there is of it. How much it was, and whether it was left alone.
    fn line(&mut self, come: &mut [u8]) -> (usize, bool) {
        let Some(end) = come.iter().position(|byte| *byte == b'\n') else {
            self.line.keep(come);
            return (come.len(), true);
        };
        let is_plain = if self.line.is_empty() {
            come[..end]
                .strip_suffix(b"\r")
                .is_some_and(|line| self.read(line, false))
        } else {
            self.line.keep(&come[..end]);
            let Line {
                mut kept,
                is_cut,
                ends_in_cr,
            } = std::mem::take(&mut self.line);
            if !is_cut {
                kept.pop();
            }
            ends_in_cr && self.read(&kept, is_cut)
        };
        if is_plain {
            return (end + 1, true);
        }
        // Between chunks hyper is as strict, and says so itself.
        let is_spoilt = matches!(self.at, At::Start | At::Fields | At::Trailers);
        if is_spoilt {
            come[end] = SPOILT;
        }
        self.at = At::Beyond;
        (end + 1, !is_spoilt)
    }

    /// Reads a line without its end. False: it cannot be read in one way alone.
    fn read(&mut self, line: &[u8], is_cut: bool) -> bool {
        match self.at {
            // An empty line ahead of a request means nothing (RFC 9112 section 2.2).
            At::Start if line.is_empty() => {}
            // HTTP/2 begins so, and nothing else does.
            At::Start if line.starts_with(b"PRI ") => self.at = At::Beyond,
            At::Start => {
                self.head = Head {
                    leaves: line.starts_with(b"CONNECT "),
                    ..Head::default()
                };
                self.at = At::Fields;
            }
            At::Fields if line.is_empty() => self.at = self.head.followed_by(),
            At::Fields => return self.head.read(line, is_cut),
            At::ChunkSize => match chunk_size(line) {
                Some(0) => self.at = At::Trailers,
                Some(size) => self.at = At::Chunk(size),
                None => return false,
            },
            At::ChunkEnd if line.is_empty() => self.at = At::ChunkSize,
            At::Trailers if line.is_empty() => self.at = At::Start,
            At::Trailers => {}
            At::ChunkEnd | At::Body(_) | At::Chunk(_) | At::Beyond => return false,
        }
        true
    }
}

impl Head {
    /// Reads a field. False: where the body ends is not said once and plainly.
    fn read(&mut self, line: &[u8], is_cut: bool) -> bool {
        // Nothing that matters here begins otherwise.
        if !matches!(line[0], b'C' | b'c' | b'T' | b't' | b'U' | b'u') {
            return true;
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.unwrap_or(line.len()));
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        let is_first = self.length.is_none() && !self.is_chunked;
        if name.eq_ignore_ascii_case(b"content-length") {
            self.length = digits(value, 10);
            return is_first && !is_cut && self.length.is_some();
        }
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            // Another coding would be stripped off with the field, and what the service got would be said to be plain.
            self.is_chunked = true;
            return is_first && !is_cut && value.eq_ignore_ascii_case(b"chunked");
        }
        if name.eq_ignore_ascii_case(b"upgrade") {
            self.leaves |= is_another_protocol(value);
        }
        true
    }

    /// What comes after the head.
    fn followed_by(&self) -> At {
        match self.length {
            _ if self.leaves => At::Beyond,
            _ if self.is_chunked => At::ChunkSize,
            None | Some(0) => At::Start,
            Some(length) => At::Body(length),
        }
    }
}

impl Line {
    fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    fn keep(&mut self, piece: &[u8]) {
        let kept = piece.len().min(LINE_KEPT - self.kept.len());
        self.kept.extend_from_slice(&piece[..kept]);
        self.is_cut |= kept < piece.len();
        self.ends_in_cr = piece.last().map_or(self.ends_in_cr, |last| *last == b'\r');
    }
}

fn digits(text: &[u8], radix: u32) -> Option<u64> {
    let is_digit = |byte: &u8| char::from(*byte).is_digit(radix);
    // `from_str_radix` would take a sign, too.
    let text = std::str::from_utf8(text).ok()?;
    let number = u64::from_str_radix(text, radix).ok()?;
    text.as_bytes().iter().all(is_digit).then_some(number)
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let is_behind = |byte: &u8| matches!(byte, b';' | b' ' | b'\t');
    let end = line.iter().position(is_behind).unwrap_or(line.len());
    digits(&line[..end], 16)
}

/// HTTP/2 is never changed to in the middle of a connection (RFC 9113 section 3.1), whoever asks: Java's client does, on
/// each connection.
fn is_another_protocol(upgrade: &[u8]) -> bool {
    !upgrade.eq_ignore_ascii_case(b"h2c")
}

/// Whether a request asks to leave HTTP/1.1 for something else. Who does may have sent bytes of that something ahead. They
/// are perhaps somebody else's words, and if HTTP is not left they must not be taken for the next request (RFC 9931;
/// CVE-2026-2833 is of that kind): such a connection ends with the answer.
pub(super) fn asks_to_leave<B>(request: &Request<B>) -> bool {
    request.version() < Version::HTTP_2
        && (request.method() == Method::CONNECT
            || (request.headers().get_all(UPGRADE).iter())
                .any(|protocol| is_another_protocol(protocol.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What hyper gets to read of what comes in pieces of that size.
    fn read_in(size: usize, text: &str) -> String {
        let mut heads = Heads::default();
        let mut bytes = text.as_bytes().to_vec();
        for piece in bytes.chunks_mut(size) {
            heads.look(piece);
        }
        String::from_utf8(bytes).unwrap()
    }

    fn is_left_alone(text: &str) {
        for size in 1..=text.len() {
            assert_eq!(read_in(size, text), text, "in pieces of {size}");
        }
    }

    fn is_spoilt(text: &str) {
        for size in 1..=text.len() {
            let read = read_in(size, text);
            assert!(read.contains('\0'), "{text:?} in pieces of {size}");
            assert_eq!(read.replace('\0', "\n"), text);
        }
    }

    #[test]
    fn a_trailer_that_ends_in_a_bare_line_feed_is_spoilt() {
        is_spoilt("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: 1\n\r\n");
    }

    const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    #[test]
    fn plain_requests_and_their_bodies_are_left_alone() {
        is_left_alone(GET);
        is_left_alone(&format!("\r\n\r\n{GET}{GET}"));
        let sized = "POST / HTTP/1.1\r\ncontent-LENGTH: \t4 \r\n\r\na\n\nb";
        is_left_alone(&format!("{sized}{GET}"));
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n\
                       4;x=y\r\na\n\nb\r\n1 \r\n\n\r\n0\r\nX-Sum: 1\r\n\r\n";
        is_left_alone(&format!("{chunked}{GET}"));
    }

    #[test]
    fn a_head_after_a_body_is_looked_at_like_the_first() {
        let evil = "GET / HTTP/1.1\nHost: x\r\n\r\n";
        for body in [
            "Content-Length: 3\r\n\r\na\nb",
            "Content-Length: 0\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n3\r\na\nb\r\n0\r\n\r\n",
            "Upgrade: h2c\r\n\r\n",
        ] {
            is_spoilt(&format!("POST / HTTP/1.1\r\n{body}{evil}"));
        }
    }

    #[test]
    fn a_line_that_ends_in_a_bare_line_feed_is_spoilt() {
        for text in [
            "GET / HTTP/1.1\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\n\n",
            "\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        ] {
            is_spoilt(text);
        }
        is_spoilt(&format!(
            "GET / HTTP/1.1\r\nX: {}\nHost: x\r\n\r\n",
            "y".repeat(300)
        ));
        is_left_alone(&format!(
            "GET / HTTP/1.1\r\nX: {}\r\nHost: x\r\n\r\n",
            "y".repeat(300)
        ));
    }

    #[test]
    fn a_body_whose_end_is_not_said_once_and_plainly_is_spoilt() {
        let long = format!("Content-Length: {}4", "0".repeat(200));
        for fields in [
            "Content-Length: 4\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\ncontent-length: 0",
            "Content-Length: 4\r\nContent-Length: 4",
            "Content-Length: 4, 4",
            "Content-Length: +4",
            "Content-Length:",
            "Content-Length: 18446744073709551616",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        ] {
            is_spoilt(&format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n"));
        }
        let text = format!("POST / HTTP/1.1\r\n{long}\r\n\r\n");
        assert_ne!(read_in(7, &text), text, "what is too long to be kept");
    }

    #[test]
    fn what_is_no_http_1_is_left_alone() {
        is_left_alone("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\n\x04\0\0\n\n");
        is_left_alone(
            "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\na\n\nb\n",
        );
        is_left_alone("CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\na\n\nb\n");
    }
}
