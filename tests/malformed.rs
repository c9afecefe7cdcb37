//! Requests that two readers could take for different ones: the service never sees one that was not plainly sent.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use std::sync::{Arc, Mutex};

use support::raw::Raw;
use support::upstream::{Connection, Tls};
use support::{TestGateway, in_front_of};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What arrived at the service, byte for byte.
type Arrived = Arc<Mutex<Vec<u8>>>;

/// A service that writes down everything and answers whatever it gets, at once.
fn recording() -> (TestGateway, support::upstream::Upstream, Arrived) {
    let arrived = Arrived::default();
    let record = Arc::clone(&arrived);
    let serve = move |mut connection: Connection, _| {
        let record = Arc::clone(&record);
        async move {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = connection.stream.read(&mut piece).await {
                record.lock().unwrap().extend_from_slice(&piece[..length]);
                if piece[..length]
                    .windows(4)
                    .any(|window| window == b"\r\n\r\n")
                {
                    connection.answer("ok").await;
                }
            }
        }
    };
    let (gateway, upstream) = in_front_of(&Tls::default(), "", serve);
    (gateway, upstream, arrived)
}

/// Sends bytes, reads the answer if there is one, ends its side, and reads until the gateway has closed its own.
async fn exchange(gateway: &TestGateway, bytes: &str) -> String {
    let mut raw: Raw = gateway.raw().await;
    let _ = raw.stream.write_all(bytes.as_bytes()).await;
    let answer = raw.answer(false).await;
    let _ = raw.stream.shutdown().await;
    let rest = String::from_utf8_lossy(&raw.rest().await).into_owned();
    answer.map_or(String::new(), |answer| answer.head) + &rest
}

fn text(arrived: &Arrived) -> String {
    String::from_utf8_lossy(&arrived.lock().unwrap()).into_owned()
}

#[tokio::test]
async fn what_is_no_plain_request_reaches_nobody() {
    let (gateway, upstream, arrived) = recording();
    let finess = gateway.tenant(0);
    let start = format!("POST /up/x HTTP/1.1\r\nhost: localhost\r\nx-finess: {finess}\r\n");
    let get = format!("GET /up/x HTTP/1.1\r\nhost: localhost\r\nx-finess: {finess}\r\n");
    let cases = [
        // No HTTP at all.
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}".to_owned(),
        "EHLO localhost\r\n".to_owned(),
        "GET /up/x\r\n\r\n".to_owned(),
        format!("GET /up/x HTTP/9.9\r\nhost: localhost\r\nx-finess: {finess}\r\n\r\n"),
        // Two readings of where the body ends.
        format!("{start}content-length: 4\r\ncontent-length: 5\r\n\r\nbody!"),
        format!("{start}content-length: 4, 5\r\n\r\nbody!"),
        format!("{start}content-length: +4\r\n\r\nbody"),
        format!("{start}content-length: -4\r\n\r\nbody"),
        format!("{start}content-length: 0x4\r\n\r\nbody"),
        format!("{start}content-length: 99999999999999999999999\r\n\r\nbody"),
        format!("{start}transfer-encoding: gzip\r\n\r\nbody"),
        format!("{start}transfer-encoding: xchunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"),
        format!("{start}transfer-encoding: chunked, gzip\r\n\r\n4\r\nbody\r\n0\r\n\r\n"),
        format!(
            "POST /up/x HTTP/1.0\r\nhost: localhost\r\nx-finess: {finess}\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
        ),
        // Two readings of where a field ends.
        format!("{get}x-a: 1\r\n x-b: 2\r\n\r\n"),
        format!("{get}x-a : 1\r\n\r\n"),
        format!("{get} x-a: 1\r\n\r\n"),
        format!("{get}x-a: 1\rx-b: 2\r\n\r\n"),
        format!("{get}x-a: 1\0\r\n\r\n"),
        format!("{get}x-a\r\n\r\n"),
        // Two readings of the target.
        format!("GET /up/x y HTTP/1.1\r\nhost: localhost\r\nx-finess: {finess}\r\n\r\n"),
        format!("GET  /up/x HTTP/1.1\r\nhost: localhost\r\nx-finess: {finess}\r\n\r\n"),
        format!("GET /up/\u{e9} \tHTTP/1.1\r\nhost: localhost\r\nx-finess: {finess}\r\n\r\n"),
        // None, or two, to whom it is addressed.
        format!("GET /up/x HTTP/1.1\r\nx-finess: {finess}\r\n\r\n"),
        format!("{get}host: localhost\r\n\r\n"),
        format!("{get}host: evil.example\r\n\r\n"),
        format!("GET /up/x HTTP/1.0\r\nx-finess: {finess}\r\n\r\n"),
    ];
    for case in &cases {
        let answer = exchange(&gateway, case).await;
        assert!(
            answer.is_empty()
                || answer.starts_with("HTTP/1.1 4")
                || answer.starts_with("HTTP/1.0 4"),
            "{case:?} was answered {answer:?}"
        );
        assert_eq!(
            answer.matches("HTTP/1.").count().max(1),
            1,
            "{case:?} was answered {answer:?}"
        );
        assert_eq!(text(&arrived), "", "{case:?}");
    }
    assert_eq!(upstream.accepted(), 0);
}

#[tokio::test]
async fn a_body_has_one_length_for_the_service() {
    // With both fields the chunks count (RFC 9112 section 6.3); what must not happen is that the service counts
    // otherwise, or is left to choose.
    for framing in [
        "content-length: 4\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 4",
        "content-length: 4\r\nTransfer-Encoding: chunked\r\ncontent-length: 4",
    ] {
        let (gateway, _upstream, arrived) = recording();
        let body = "1c\r\nGET /smuggled HTTP/1.1\r\nx: \r\n0\r\n\r\n";
        let answer = exchange(&gateway, &(gateway.post_bytes("/up/x", framing) + body)).await;
        let seen = text(&arrived).to_ascii_lowercase();
        let lengths = seen.matches("content-length:").count();
        let chunked = seen.matches("transfer-encoding:").count();
        assert!(
            seen.is_empty() || (lengths, chunked) == (0, 1),
            "{framing:?} arrived as {seen:?}"
        );
        assert!(!answer.is_empty());
    }
}

#[tokio::test]
async fn what_follows_a_body_is_not_part_of_its_request() {
    let (gateway, _upstream, arrived) = recording();
    let surplus = "SURPLUS /smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let first = gateway.post_bytes("/up/first", "content-length: 4");
    let answer = exchange(&gateway, &format!("{first}body{surplus}")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let seen = text(&arrived);
    assert!(seen.ends_with("\r\n\r\nbody"), "{seen:?}");
    // It is a request of its own, judged on its own: it names no service.
    assert!(answer.contains("service_unknown"), "{answer}");
    assert!(!seen.contains("SURPLUS"), "{seen:?}");
}

#[tokio::test]
async fn chunk_extensions_and_foreign_line_ends_are_not_passed_on() {
    let (gateway, _upstream, arrived) = recording();
    let framing = "transfer-encoding: chunked";
    let body = "4;ext=\"x\";y\r\nbody\r\n0\r\n\r\n";
    exchange(&gateway, &(gateway.post_bytes("/up/x", framing) + body)).await;
    let seen = text(&arrived);
    assert!(seen.ends_with("4\r\nbody\r\n0\r\n\r\n"), "{seen:?}");

    for body in [
        "4\nbody\n0\n\n",
        "4\r\nbodyXX0\r\n\r\n",
        "-4\r\nbody\r\n0\r\n\r\n",
        "0x4\r\nbody\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nbody",
    ] {
        let (gateway, _upstream, arrived) = recording();
        exchange(&gateway, &(gateway.post_bytes("/up/x", framing) + body)).await;
        let seen = text(&arrived);
        assert!(
            !seen.contains("0\r\n\r\n"),
            "{body:?} must not arrive as a whole request: {seen:?}"
        );
    }
}

#[tokio::test]
async fn bare_line_feeds_do_not_make_fields_that_the_service_reads_otherwise() {
    let (gateway, _upstream, arrived) = recording();
    let text_sent = gateway.get_bytes("/up/x").replace("\r\n", "\n");
    exchange(&gateway, &text_sent).await;
    let seen = text(&arrived);
    // Either refused, or rewritten in the one form that everybody reads alike.
    assert!(!seen.replace("\r\n", "").contains(['\r', '\n']), "{seen:?}");
    assert!(seen.matches("\r\n\r\n").count() <= 1, "{seen:?}");
}

#[tokio::test]
async fn bytes_sent_ahead_of_a_refused_upgrade_are_not_passed_through() {
    let (gateway, _upstream, arrived) = recording();
    let upgrade = gateway.get_bytes("/up/first").replace(
        "\r\n\r\n",
        "\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\n",
    );
    let ahead = "GET /admin HTTP/1.1\r\nhost: localhost\r\n\r\n";
    exchange(&gateway, &format!("{upgrade}{ahead}")).await;
    let seen = text(&arrived);
    assert_eq!(seen.matches(" HTTP/1.1\r\n").count(), 1, "{seen:?}");
    assert!(!seen.contains("/admin"), "{seen:?}");
}
