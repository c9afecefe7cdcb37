//! Bodies and byte streams: whole in both directions, never gathered, and over when either side goes.

mod support;

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use relais::services::HttpVersions;
use relais::simulator::site::Stand;
use support::upstream::{Connection, Tls, serve_h2};
use support::{H2c, eventually, in_front_of, is_answered, start, whole, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

/// More than all buffers of sockets between two programs hold together.
const MORE_THAN_BUFFERS: usize = 96 << 20;

/// A write that is not taken for so long is not going to be.
const BLOCKED_AFTER: Duration = Duration::from_millis(700);

/// Bytes in which no two pieces are alike.
fn varied(length: usize) -> Bytes {
    let mut state = 0x9e37_79b9_u32;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[0]
        })
        .collect()
}

#[tokio::test]
async fn twenty_mebibytes_come_back_byte_for_byte() {
    let body = varied(20 << 20);
    for http in [HttpVersions::H1, HttpVersions::Auto] {
        let stand = Stand {
            http,
            ..Stand::new("dmp")
        };
        let gateway = start(1, &[stand], "");
        let request = || {
            Request::post("/dmp/echo")
                .header("x-finess", gateway.tenant(0).as_str())
                .header("content-type", "application/dicom")
                .body(body.clone())
                .unwrap()
        };
        let answer = gateway.send(request()).await;
        assert!(answer.0.body() == &body, "over HTTP/1.1 to {http:?}");
        assert_eq!(answer.header("content-type"), Some("application/dicom"));
        let answer = H2c::connect(gateway.address()).await.send(request()).await;
        assert!(answer.0.body() == &body, "over h2c to {http:?}");
        let line = &gateway.log()[0];
        assert_eq!(
            (&line["bytes_received"], &line["bytes_sent"]),
            (&body.len().into(), &body.len().into())
        );
    }
}

#[tokio::test]
async fn an_application_may_wait_to_be_told_to_go_on() {
    let gateway = start(1, &[Stand::new("dmp")], "");
    let mut raw = gateway.raw().await;
    let framing = "Content-Length: 4\r\nExpect: 100-continue";
    raw.write(gateway.post_bytes("/dmp/echo", framing)).await;
    assert_eq!(raw.head().await.unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
    raw.write("body").await;
    let answer = raw.answer(false).await.unwrap();
    assert_eq!((answer.status, &answer.body[..]), (200, &b"body"[..]));
}

#[tokio::test]
async fn an_application_that_reads_slowly_slows_the_service_down() {
    let (blocked, when) = oneshot::channel();
    let blocked = std::sync::Arc::new(std::sync::Mutex::new(Some(blocked)));
    let (gateway, _upstream) = in_front_of(&Tls::default(), "", move |mut connection, _| {
        let blocked = blocked.lock().unwrap().take();
        async move {
            connection.head().await;
            connection
                .write(format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
                    1_u64 << 40
                ))
                .await;
            let piece = vec![0; 64 << 10];
            let mut written = 0;
            while written < MORE_THAN_BUFFERS {
                let write = connection.stream.write_all(&piece);
                if tokio::time::timeout(BLOCKED_AFTER, write).await.is_err() {
                    break;
                }
                written += piece.len();
            }
            blocked.unwrap().send(written).unwrap();
            connection.rest().await;
        }
    });
    let mut raw = gateway.raw().await;
    raw.write(gateway.get_bytes("/up/x")).await;
    raw.head().await.unwrap();
    let written = within(when).await.unwrap();
    assert!(
        written < MORE_THAN_BUFFERS,
        "{written} bytes were taken that nobody read"
    );
}

#[tokio::test]
async fn a_service_that_reads_slowly_slows_the_application_down() {
    let (gateway, upstream) = in_front_of(
        &Tls::default(),
        "limits.request_body = \"10GiB\"",
        |mut connection: Connection, _| async move {
            connection.head().await;
            std::future::pending::<()>().await;
            drop(connection);
        },
    );
    let mut raw = gateway.raw().await;
    raw.write(gateway.post_bytes("/up/x", &format!("content-length: {}", 1_u64 << 33)))
        .await;
    eventually("it is under way", || upstream.heads().len() == 1).await;
    let piece = vec![0; 64 << 10];
    let mut written = 0;
    while written < MORE_THAN_BUFFERS {
        let write = raw.stream.write_all(&piece);
        if tokio::time::timeout(BLOCKED_AFTER, write).await.is_err() {
            break;
        }
        written += piece.len();
    }
    assert!(
        written < MORE_THAN_BUFFERS,
        "{written} bytes were taken that nobody read"
    );
}

#[tokio::test]
async fn an_application_that_goes_away_takes_its_request_with_it() {
    let (gateway, upstream) = in_front_of(&Tls::default(), "", |mut connection, _| async move {
        connection.head().await;
        connection.rest().await;
    });
    // Before the answer, over HTTP/1.1 and over h2c; then in the middle of the body.
    let mut raw = gateway.raw().await;
    raw.write(gateway.get_bytes("/up/x")).await;
    eventually("it is under way", || upstream.heads().len() == 1).await;
    drop(raw);
    eventually("the service notices", || upstream.open() == 0).await;

    let mut client = H2c::connect(gateway.address()).await;
    let request = Request::get("/up/x")
        .header("x-finess", gateway.tenant(0).as_str())
        .body(whole(Bytes::new()))
        .unwrap();
    let asking = tokio::spawn(async move { client.begin(request).await });
    eventually("it is under way", || upstream.heads().len() == 2).await;
    asking.abort();
    eventually("the service notices", || upstream.open() == 0).await;

    let mut raw = gateway.raw().await;
    raw.write(gateway.post_bytes("/up/x", "content-length: 100"))
        .await;
    raw.write("half").await;
    eventually("it is under way", || upstream.heads().len() == 3).await;
    drop(raw);
    eventually("the service notices", || upstream.open() == 0).await;
}

#[tokio::test]
async fn an_application_that_goes_away_ends_its_stream_and_not_its_neighbours() {
    let (gateway, upstream) = in_front_of(&Tls::h2(), "", |connection, _| {
        serve_h2(connection, 100, |request: Request<_>| async move {
            if request.uri().path() == "/never" {
                std::future::pending::<()>().await;
            }
            Response::new(Full::new(Bytes::from_static(b"ok")))
        })
    });
    let get = |path: &str| {
        Request::get(path)
            .header("x-finess", gateway.tenant(0).as_str())
            .body(Bytes::new())
            .unwrap()
    };
    for _ in 0..3 {
        let mut raw = gateway.raw().await;
        raw.write(gateway.get_bytes("/up/never")).await;
        eventually("it is under way", || upstream.open() == 1).await;
        drop(raw);
        assert_eq!(gateway.send(get("/up/x")).await.status(), 200);
    }
    assert_eq!(upstream.accepted(), 1);
}

#[tokio::test]
async fn a_body_that_breaks_off_never_looks_whole_to_the_service() {
    for framing in ["content-length: 100", "transfer-encoding: chunked"] {
        let (told, seen) = oneshot::channel();
        let told = std::sync::Arc::new(std::sync::Mutex::new(Some(told)));
        let (gateway, _upstream) = in_front_of(&Tls::default(), "", move |mut connection, _| {
            let told = told.lock().unwrap().take().unwrap();
            async move {
                connection.head().await;
                let (body, _) = connection.rest().await;
                told.send(body).unwrap();
            }
        });
        let mut raw = gateway.raw().await;
        raw.write(gateway.post_bytes("/up/x", framing)).await;
        let piece = if framing.contains("chunked") {
            "4\r\nhalf\r\n"
        } else {
            "half"
        };
        raw.write(piece).await;
        drop(raw);
        let body = String::from_utf8(within(seen).await.unwrap()).unwrap();
        assert!(
            !body.contains("0\r\n"),
            "the end of a chunked body: {body:?}"
        );
    }
}

/// Speaks the protocol `shout` once both sides have agreed on it, and HTTP otherwise.
async fn shout(mut connection: Connection, _: usize) {
    let Some(head) = connection.head().await else {
        return;
    };
    if !head.contains("upgrade: shout\r\n") || !head.contains("connection: upgrade\r\n") {
        connection.answer("no").await;
        connection.keep_answering("no").await;
        return;
    }
    connection
        .write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\nHELLO ")
        .await;
    let mut piece = [0; 1024];
    while let Ok(length @ 1..) = connection.stream.read(&mut piece).await {
        connection.write(piece[..length].to_ascii_uppercase()).await;
    }
}

#[tokio::test]
async fn an_upgrade_carries_bytes_both_ways_until_a_side_ends_it() {
    for alpn in [&["http/1.1"][..], &["h2", "http/1.1"][..]] {
        let tls = Tls {
            alpn,
            ..Tls::default()
        };
        let (gateway, upstream) = in_front_of(&tls, "", shout);
        let mut raw = gateway.raw().await;
        let text = gateway.get_bytes("/up/x").replace(
            "\r\n\r\n",
            "\r\nConnection: keep-alive, Upgrade\r\nUpgrade: shout\r\nSec-WebSocket-Key: x\r\n\r\n",
        );
        raw.write(text).await;
        let head = raw.head().await.unwrap().to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(
            head.contains("upgrade: shout\r\n") && head.contains("connection: upgrade\r\n"),
            "{head}"
        );
        assert_eq!(raw.exactly(6).await, b"HELLO ");
        for _ in 0..3 {
            raw.write("world").await;
            assert_eq!(raw.exactly(5).await, b"WORLD");
        }
        assert_eq!(
            gateway.metric("relais_upstream_connections", &["service=\"up\""]),
            1.0
        );
        drop(raw);
        eventually("the service notices", || upstream.open() == 0).await;
        eventually("it is counted no longer", || {
            gateway.metric("relais_upstream_connections", &["service=\"up\""]) == 0.0
        })
        .await;
        assert_eq!(gateway.log()[0]["outcome"], "upgraded");
    }
}

#[tokio::test]
async fn a_refused_upgrade_is_an_answer_like_any_other() {
    let (gateway, upstream) = in_front_of(&Tls::default(), "", |mut connection, _| async move {
        connection.keep_answering("not here").await;
    });
    let mut raw = gateway.raw().await;
    let text = gateway.get_bytes("/up/x").replace(
        "\r\n\r\n",
        "\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\n",
    );
    raw.write(&text).await;
    let answer = raw.answer(false).await.unwrap();
    assert_eq!((answer.status, &answer.body[..]), (200, &b"not here"[..]));
    // What was sent ahead of the other protocol must not be taken for a request (RFC 9931).
    assert!(answer.head.contains("connection: close\r\n"));
    assert_eq!(raw.rest().await, b"");
    is_answered(&gateway).await;
    assert_eq!(upstream.accepted(), 1);
}

#[tokio::test]
async fn an_answer_streams_piece_by_piece() {
    let (gateway, _upstream) = in_front_of(&Tls::default(), "", |mut connection, _| async move {
        connection.head().await;
        connection
            .write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
            .await;
        connection.rest().await;
    });
    let mut client = H2c::connect(gateway.address()).await;
    let request = Request::get("/up/x")
        .header("x-finess", gateway.tenant(0).as_str())
        .body(whole(Bytes::new()))
        .unwrap();
    let mut body = client.begin(request).await.unwrap().into_body();
    // The rest is never sent, and the first piece does not wait for it.
    let frame = within(body.frame()).await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "first");
}

/// Reads a chunked request, answers it `late` after its end, and does not answer the next.
async fn answer_late(mut connection: Connection, late: Duration) {
    for is_answered in [true, false] {
        connection.head().await;
        let mut read = Vec::new();
        while !read.ends_with(b"0\r\n\r\n") {
            if connection.stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                return;
            }
        }
        if is_answered {
            tokio::time::sleep(late).await;
            connection.answer("ok").await;
        }
    }
    connection.rest().await;
}

/// Two requests whose bodies come in pieces, and what becomes of them where the times are these, in milliseconds.
async fn in_pieces([body, response, between, late]: [u64; 4]) {
    /// Longer than the longest answer is waited for, and shorter than what it might be taken for.
    const SOON: Duration = Duration::from_secs(15);
    let timeouts = format!("timeouts.body = \"{body}ms\"\ntimeouts.response = \"{response}ms\"");
    let late = Duration::from_millis(late);
    let (gateway, _upstream) = in_front_of(&Tls::default(), &timeouts, move |connection, _| {
        answer_late(connection, late)
    });
    let mut raw = gateway.raw().await;
    for status in [200, 504] {
        raw.write(gateway.post_bytes("/up/x", "transfer-encoding: chunked"))
            .await;
        for _ in 0..5 {
            raw.write("5\r\nwords\r\n").await;
            tokio::time::sleep(Duration::from_millis(between)).await;
        }
        raw.write("0\r\n\r\n").await;
        let answer = tokio::time::timeout(SOON, raw.answer(false)).await;
        let answer = answer.expect("it waits for too long");
        let answer = answer.expect("it closes without an answer");
        assert_eq!(answer.status, status, "{timeouts}: {}", answer.head);
    }
}

#[tokio::test]
async fn the_time_of_an_answer_begins_when_the_body_has_gone_however_long_that_took() {
    // The shorter of both times is what is waited for too briefly if it is taken for the other.
    tokio::join!(
        in_pieces([60_000, 2_000, 500, 500]),
        in_pieces([1_000, 5_000, 250, 2_000]),
    );
}
