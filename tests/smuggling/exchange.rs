//! The two ends: who sends a payload and its marker, and the service that writes down what it was sent.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::frames::MARKER;
use super::payloads::{Payload, Words};
use crate::support::frames::{DATA, END_STREAM, GOAWAY, HEADERS, RST_STREAM, take};

/// A silence after which nothing more is expected of a proxy that waits for the rest of a body.
const SILENCE: Duration = Duration::from_millis(700);

/// What every answer of the service begins with, before the target that it answers.
const ECHO: &str = "arrived: ";

/// A request as the service saw it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Arrival {
    pub target: String,
    pub head: String,
    pub body: Vec<u8>,
    /// Whether the body came to its end.
    pub is_whole: bool,
    /// Why another server could have read something else.
    pub unclear: Option<&'static str>,
}

/// What arrived since it was looked at last.
pub type Arrivals = Arc<Mutex<Vec<Arrival>>>;

/// What came of one payload.
#[derive(Debug)]
pub struct Outcome {
    pub arrivals: Vec<Arrival>,
    /// The targets that the answers were for, in the order of the answers.
    pub answered: Vec<String>,
}

impl Outcome {
    /// Whole requests that reached the service, the marker not counted. One that breaks off is none to it.
    pub fn forwarded(&self) -> usize {
        self.arrivals
            .iter()
            .filter(|arrival| arrival.is_whole && !arrival.target.ends_with("/marker"))
            .count()
    }

    /// What is wrong, if more arrived than was plainly sent.
    pub fn wrong(&self, payload: &Payload) -> Option<String> {
        for arrival in &self.arrivals {
            if arrival.target.contains("evil") {
                return Some(format!("{} arrived", arrival.target));
            }
            if let Some(unclear) = arrival.unclear {
                return Some(format!("{}: {unclear}", arrival.target));
            }
        }
        if self.forwarded() > payload.plain {
            return Some(format!(
                "{} requests for {} sent",
                self.forwarded(),
                payload.plain
            ));
        }
        // An answer is for the request before it, and the marker's for the marker alone.
        let targets: Vec<&String> = self
            .arrivals
            .iter()
            .map(|arrival| &arrival.target)
            .collect();
        let mut left = targets.iter().copied();
        let in_order = self
            .answered
            .iter()
            .all(|answered| left.any(|target| target == answered));
        (!in_order).then(|| format!("{targets:?} were answered as {:?}", self.answered))
    }
}

/// Serves one connection of a proxy: writes each request down and answers it with its target. Reads strictly, and stops
/// at what can be read in two ways.
pub async fn record<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, arrivals: Arrivals) {
    let mut ahead = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = find(&ahead, b"\r\n\r\n") {
                break ahead.drain(..end + 4).collect::<Vec<u8>>();
            }
            if !more(&mut stream, &mut ahead).await {
                break Vec::new();
            }
        };
        if head.is_empty() {
            if !ahead.is_empty() {
                note(&arrivals, &ahead, Some("a head without end"));
            }
            return;
        }
        let (framing, unclear) = framing(&head);
        let target = note(&arrivals, &head, unclear);
        if unclear.is_some() {
            return;
        }
        let answer = format!("{ECHO}{target}\n");
        let length = if head.starts_with(b"HEAD ") {
            String::new()
        } else {
            answer.clone()
        };
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{length}",
            answer.len()
        );
        if target.ends_with("/early") {
            let _ = stream.write_all(answer.as_bytes()).await;
        }
        let Some(body) = body(&mut stream, &mut ahead, framing).await else {
            return;
        };
        note_body(&arrivals, &target, body);
        if !target.ends_with("/early") && stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        let _ = stream.flush().await;
    }
}

fn note(arrivals: &Arrivals, head: &[u8], unclear: Option<&'static str>) -> String {
    let head = String::from_utf8_lossy(head).into_owned();
    let target = head
        .split([' ', '\r', '\n'])
        .nth(1)
        .unwrap_or_default()
        .to_owned();
    arrivals.lock().unwrap().push(Arrival {
        target: target.clone(),
        head,
        body: Vec::new(),
        is_whole: false,
        unclear,
    });
    target
}

fn note_body(arrivals: &Arrivals, target: &str, body: Vec<u8>) {
    let mut seen = arrivals.lock().unwrap();
    let latest = seen
        .iter_mut()
        .rev()
        .find(|arrival| arrival.target == target);
    if let Some(arrival) = latest {
        arrival.body = body;
        arrival.is_whole = true;
    }
}

enum Framing {
    Length(usize),
    Chunked,
}

/// Where the body ends, and what of a head is not to be read in one way alone (RFC 9112 sections 2.2, 5 and 6).
fn framing(head: &[u8]) -> (Framing, Option<&'static str>) {
    let text = String::from_utf8_lossy(head);
    let mut unclear = None;
    let lines: Vec<&str> = text.trim_end_matches("\r\n").split("\r\n").collect();
    if lines.iter().any(|line| line.contains(['\r', '\n', '\0'])) {
        unclear = Some("a bare CR, LF or NUL");
    }
    if lines[0].split(' ').count() != 3
        || !lines[0].ends_with(" HTTP/1.1") && !lines[0].ends_with(" HTTP/1.0")
    {
        unclear = Some("a request line of other than three parts");
    }
    let (mut lengths, mut codings) = (Vec::new(), Vec::new());
    for line in &lines[1..] {
        let Some((name, value)) = line.split_once(':') else {
            unclear = Some("a line without a colon");
            continue;
        };
        if name.is_empty() || name.contains([' ', '\t']) {
            unclear = Some("a space in a name");
        }
        match name.to_ascii_lowercase().as_str() {
            "content-length" => lengths.push(value.trim()),
            "transfer-encoding" => codings.push(value.trim()),
            _ => {}
        }
    }
    match (&lengths[..], &codings[..]) {
        ([], []) => (Framing::Length(0), unclear),
        ([length], []) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
            match length.parse() {
                Ok(length) => (Framing::Length(length), unclear),
                Err(_) => (
                    Framing::Length(0),
                    Some("a Content-Length that is no length"),
                ),
            }
        }
        ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => (Framing::Chunked, unclear),
        _ => (
            Framing::Length(0),
            Some("a body of two lengths, or of none that is known"),
        ),
    }
}

async fn body<S: AsyncRead + Unpin>(
    stream: &mut S,
    ahead: &mut Vec<u8>,
    framing: Framing,
) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    match framing {
        Framing::Length(length) => take_exactly(stream, ahead, length, &mut body).await?,
        Framing::Chunked => loop {
            let line = take_line(stream, ahead).await?;
            let size = usize::from_str_radix(line.split(';').next()?, 16).ok()?;
            if size == 0 {
                while !take_line(stream, ahead).await?.is_empty() {}
                break;
            }
            take_exactly(stream, ahead, size, &mut body).await?;
            if !take_line(stream, ahead).await?.is_empty() {
                return None;
            }
        },
    }
    Some(body)
}

async fn take_exactly<S: AsyncRead + Unpin>(
    stream: &mut S,
    ahead: &mut Vec<u8>,
    length: usize,
    into: &mut Vec<u8>,
) -> Option<()> {
    while ahead.len() < length {
        more(stream, ahead).await.then_some(())?;
    }
    into.extend(ahead.drain(..length));
    Some(())
}

async fn take_line<S: AsyncRead + Unpin>(stream: &mut S, ahead: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = find(ahead, b"\r\n") {
            let line = ahead.drain(..end + 2).collect::<Vec<u8>>();
            return Some(String::from_utf8_lossy(&line[..end]).into_owned());
        }
        more(stream, ahead).await.then_some(())?;
    }
}

async fn more<S: AsyncRead + Unpin>(stream: &mut S, ahead: &mut Vec<u8>) -> bool {
    let mut piece = [0; 4096];
    match stream.read(&mut piece).await {
        Ok(length @ 1..) => {
            ahead.extend_from_slice(&piece[..length]);
            true
        }
        _ => false,
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// Sends a payload and its marker over HTTP/1.1; what came of it.
pub async fn over_h1(
    address: &str,
    words: &Words,
    payload: &Payload,
    arrivals: &Arrivals,
) -> Outcome {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let bytes = [&payload.bytes[..], &words.marker()].concat();
    let _ = stream.write_all(&bytes).await;
    let mut answers = Vec::new();
    // Until the proxy closes, or waits for more of what it takes for a body.
    while let Ok(true) = tokio::time::timeout(SILENCE, more(&mut stream, &mut answers)).await {}
    ended(arrivals, echoes(&answers))
}

/// Sends a payload and its marker over HTTP/2; what came of it.
pub async fn over_h2(
    address: &str,
    words: &Words,
    payload: &Payload,
    arrivals: &Arrivals,
) -> Outcome {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let bytes = [&Words::opening()[..], &payload.bytes, &words.marker_frame()].concat();
    let _ = stream.write_all(&bytes).await;
    let (mut ahead, mut answers) = (Vec::new(), Vec::new());
    let mut open = 1;
    'reading: while open > 0 {
        match tokio::time::timeout(SILENCE, more(&mut stream, &mut ahead)).await {
            Ok(true) => {}
            _ => break,
        }
        while let Some((kind, flags, stream, payload)) = take(&mut ahead) {
            match kind {
                DATA => answers.extend_from_slice(&payload),
                GOAWAY => break 'reading,
                _ => {}
            }
            let ends =
                kind == RST_STREAM || (matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0);
            if ends && stream == MARKER {
                open = 0;
            }
        }
    }
    // The other stream's answer may come after the marker's.
    while let Ok(true) = tokio::time::timeout(SILENCE / 7, more(&mut stream, &mut ahead)).await {
        while let Some((kind, _, _, payload)) = take(&mut ahead) {
            if kind == DATA {
                answers.extend_from_slice(&payload);
            }
        }
    }
    let mut outcome = ended(arrivals, echoes(&answers));
    // Streams are answered in any order.
    outcome
        .arrivals
        .sort_by(|one, other| one.target.cmp(&other.target));
    outcome.answered.sort();
    outcome
}

fn echoes(answers: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(answers);
    let found = text.split(ECHO).skip(1);
    found
        .map(|rest| rest.lines().next().unwrap_or_default().to_owned())
        .collect()
}

fn ended(arrivals: &Arrivals, answered: Vec<String>) -> Outcome {
    Outcome {
        arrivals: std::mem::take(&mut arrivals.lock().unwrap()),
        answered,
    }
}
