use super::*;

#[allow(
    dead_code,
    unreachable_pub,
    reason = "it is a part of the integration tests too"
)]
#[path = "../../../tests/smuggling/payloads.rs"]
mod payloads;

/// What hyper gets to read of what comes in these pieces, and whether it was spoilt.
fn read_of<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, bool) {
    let mut heads = Heads::default();
    let mut read = Vec::new();
    for piece in pieces {
        let mut piece = piece.to_vec();
        let spoilt = heads.look(&mut piece);
        let passed = spoilt.as_ref().map_or(piece.len(), |spoilt| spoilt.passed);
        read.extend_from_slice(&piece[..passed]);
        if let Some(spoilt) = spoilt {
            read.extend_from_slice(spoilt.end);
            return (read, true);
        }
    }
    (read, false)
}

fn read_in(size: usize, text: &str) -> (Vec<u8>, bool) {
    read_of(text.as_bytes().chunks(size))
}

fn is_left_alone(text: &str) {
    for size in 1..=text.len() {
        let expected = (text.as_bytes().to_vec(), false);
        assert_eq!(read_in(size, text), expected, "in pieces of {size}");
    }
}

/// Of a head, hyper gets no more than the line that is not plain, with an error in it; of a body not even that.
fn is_spoilt(text: &str) {
    for size in 1..=text.len() {
        let (read, is_spoilt) = read_in(size, text);
        assert!(is_spoilt, "{text:?} in pieces of {size}");
        let head = read.strip_suffix(b"\0\r\n\r\n");
        let head = head.unwrap_or(&read);
        assert!(text.as_bytes().starts_with(head), "{read:?}");
        assert_eq!(text.as_bytes()[head.len()], b'\n');
    }
}

#[test]
fn in_how_many_pieces_it_comes_decides_nothing() {
    let words = payloads::Words::of("2A0000253", "750000001");
    for payload in words.payloads() {
        let bytes = [&payload.bytes[..], &words.marker()].concat();
        let whole = read_of([&bytes[..]].into_iter());
        for at in 1..bytes.len() {
            let (one, two) = bytes.split_at(at);
            let split = read_of([one, two].into_iter());
            assert_eq!(split, whole, "{} split at {at}", payload.name);
        }
        for size in [1, 2, 3, 7, 50, 127, 128, 129] {
            let split = read_of(bytes.chunks(size));
            assert_eq!(split, whole, "{} in pieces of {size}", payload.name);
        }
    }
}

#[test]
fn the_method_of_the_preface_ends_no_looking() {
    let evil = "GET / HTTP/1.1\nHost: x\r\n\r\n";
    for line in ["PRI /dmp/x HTTP/1.1", "PRI * HTTP/1.1", "PRI  * HTTP/2.0"] {
        is_spoilt(&format!("{line}\r\nHost: x\r\n\r\n{evil}"));
    }
    let preface = "PRI * HTTP/2.0\r\n\r\n";
    is_spoilt(&format!("{GET}{preface}{evil}"));
    is_spoilt(&format!("\r\n{preface}{evil}"));
}

#[test]
fn a_line_that_frames_and_is_too_long_to_be_kept_is_spoilt() {
    let zeros = "0".repeat(130);
    let spaces = " ".repeat(130);
    for text in [
        format!("Content-Length: {zeros}4\r\n\r\nbody"),
        format!("Transfer-Encoding: chunked\r\n\r\n{zeros}5\r\n"),
        format!("Upgrade: h2c{spaces}, websocket\r\n\r\n"),
        format!("Upgrade:{spaces}h2c\r\n\r\n"),
    ] {
        is_spoilt(&format!("POST / HTTP/1.1\r\n{text}"));
    }
    let extension = "x".repeat(130);
    is_left_alone(&format!(
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;{extension}\r\n\n\r\n0\r\n\r\n{GET}"
    ));
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
}

#[test]
fn what_is_no_http_1_is_left_alone() {
    is_left_alone("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\n\x04\0\0\n\n");
    is_left_alone("GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\na\n\nb\n");
    is_left_alone("CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\na\n\nb\n");
}
