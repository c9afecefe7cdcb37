//! Heads that are not plain: refused, although hyper would take them.
//!
//! hyper ends a line at a bare LF, and reads a body by its chunks where a length is said as well. RFC 9112 (sections 2.2
//! and 6.1) lets it; but then an application that has let a line feed into a field has sent another field, or another
//! request, in its own name, and whoever stands before Relais may count otherwise. What can be read in two ways is
//! therefore spoilt before hyper reads it, and hyper answers 400 and closes.

use http::header::UPGRADE;
use http::{Method, Request, Version};

/// What is read of a line, its CR included, whether it comes whole or in pieces: in how many it comes must not decide
/// anything. A line that frames a request is shorter by far.
const LINE_KEPT: usize = 128;

/// What HTTP/2 begins with (RFC 9113 section 3.4). hyper gives up a connection that begins so and goes on otherwise.
const HTTP_2: &[u8] = b"PRI * HTTP/2.0";

/// In the place of a line feed it is an error wherever hyper meets it in a head.
const SPOILT: u8 = 0;

/// Ends a head, after which hyper answers it.
const END: &[u8] = b"\r\n\r\n";

/// What hyper is to read of what has come, if that is not all. After it there is nothing more for it to read.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Spoilt {
    /// Bytes that it gets.
    pub(super) passed: usize,
    /// What follows them.
    pub(super) end: &'static [u8],
}

/// Follows what comes on a connection from one head to the next. It can refuse and do nothing else.
#[derive(Debug, Default)]
pub(super) struct Heads {
    at: At,
    /// Whether a line has come.
    has_begun: bool,
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
    /// Looks at what has come, and spoils the first line that is not plain.
    pub(super) fn look(&mut self, come: &mut [u8]) -> Option<Spoilt> {
        let mut seen = 0;
        while seen < come.len() && self.at != At::Beyond {
            let rest = &come[seen..];
            let passed = match self.at {
                At::Body(left) => self.pass(rest.len(), left, At::Body, At::Start),
                At::Chunk(left) => self.pass(rest.len(), left, At::Chunk, At::ChunkEnd),
                _ => {
                    let at = self.at;
                    let (passed, is_plain) = self.line(rest);
                    if !is_plain {
                        self.at = At::Beyond;
                        return Some(spoil(at, come, seen + passed - 1));
                    }
                    passed
                }
            };
            seen += passed;
        }
        None
    }

    /// Passes over what is no line.
    fn pass(&mut self, come: usize, left: u64, more: fn(u64) -> At, then: At) -> usize {
        let passed = usize::try_from(left).unwrap_or(usize::MAX).min(come);
        let left = left - passed as u64;
        self.at = if left == 0 { then } else { more(left) };
        passed
    }

    /// Looks at the next line, or keeps what there is of it. How much it was, and whether it is plain.
    fn line(&mut self, come: &[u8]) -> (usize, bool) {
        let Some(end) = come.iter().position(|byte| *byte == b'\n') else {
            self.line.keep(come);
            return (come.len(), true);
        };
        let mut line = std::mem::take(&mut self.line);
        let (whole, ends_in_cr) = if line.is_empty() {
            (&come[..end], come[..end].ends_with(b"\r"))
        } else {
            line.keep(&come[..end]);
            (&line.kept[..], line.ends_in_cr)
        };
        let is_cut = line.is_cut || whole.len() > LINE_KEPT;
        let read = match is_cut {
            true => &whole[..LINE_KEPT],
            false => &whole[..whole.len().saturating_sub(1)],
        };
        let is_plain = ends_in_cr && self.read(read, is_cut);
        self.has_begun = true;
        (end + 1, is_plain)
    }

    /// Reads a line without its end. False: it cannot be read in one way alone.
    fn read(&mut self, line: &[u8], is_cut: bool) -> bool {
        match self.at {
            // An empty line ahead of a request means nothing (RFC 9112 section 2.2).
            At::Start if line.is_empty() => {}
            // As a method it would be one like any other to hyper, and in the middle of a connection it is.
            At::Start if line == HTTP_2 && !self.has_begun => self.at = At::Beyond,
            At::Start => {
                self.head = Head {
                    leaves: line.starts_with(b"CONNECT "),
                    ..Head::default()
                };
                self.at = At::Fields;
            }
            At::Fields if line.is_empty() => self.at = self.head.followed_by(),
            At::Fields => return self.head.read(line, is_cut),
            At::ChunkSize => match chunk_size(line, is_cut) {
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
            // What it asks for is behind that, and hyper would go by it.
            return !is_cut;
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

/// Has hyper refuse a line, of which the end is there. A head is answered once its own end has come; within a body only
/// what is missing is an error everywhere: an extension of a chunk may hold any byte.
fn spoil(at: At, come: &mut [u8], end: usize) -> Spoilt {
    if !matches!(at, At::Start | At::Fields) {
        return Spoilt {
            passed: end,
            end: b"",
        };
    }
    come[end] = SPOILT;
    Spoilt {
        passed: end + 1,
        end: END,
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

fn chunk_size(line: &[u8], is_cut: bool) -> Option<u64> {
    let is_behind = |byte: &u8| matches!(byte, b';' | b' ' | b'\t');
    // Of a line that is cut, the rest may be more digits.
    let end = (line.iter().position(is_behind)).or_else(|| (!is_cut).then_some(line.len()))?;
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
mod tests;
