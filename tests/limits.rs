//! Requests that are too large or too slow: cut off, and told why where there is somebody to tell.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use relais::simulator::site::Stand;
use support::raw::Raw;
use support::upstream::{Connection, Tls, Upstream};
use support::{eventually, in_front_of, start};
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn a_body_that_announces_too_much_is_refused_before_any_of_it_is_taken() {
    let gateway = start(
        1,
        &[Stand::new("dmp")],
        "[services.dmp.limits]\nrequest_body = \"1KB\"",
    );
    let mut raw = gateway.raw().await;
    let framing = "Content-Length: 1001\r\nExpect: 100-continue";
    raw.write(gateway.post_bytes("/dmp/echo", framing)).await;
    let answer = raw.answer(false).await.unwrap();
    assert_eq!(answer.status, 413, "and not 100: {answer:?}");
    assert_eq!(gateway.site.simulators[0].1.handshakes(), (0, 0));

    let mut raw = gateway.raw().await;
    raw.write(gateway.post_bytes("/dmp/echo", "Content-Length: 1000"))
        .await;
    raw.write(vec![b'x'; 1000]).await;
    assert_eq!(raw.answer(false).await.unwrap().body.len(), 1000);
}

/// The application is told why, and the service does not keep the connection on which half a body came.
async fn is_cut_off(mut raw: Raw, upstream: &Upstream, (status, code): (u16, &str)) {
    let answer = raw.answer(false).await.unwrap();
    let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status, &problem["code"]), (status, &code.into()));
    eventually("the service's connection is closed", || {
        upstream.open() == 0
    })
    .await;
}

#[tokio::test]
async fn a_body_that_grows_too_large_is_cut_off_and_never_looks_whole() {
    let (gateway, upstream) = in_front_of(
        &Tls::default(),
        "limits.request_body = \"1KB\"",
        |mut connection: Connection, _| async move {
            connection.head().await;
            let (body, _) = connection.rest().await;
            assert!(!body.ends_with(b"0\r\n\r\n"));
        },
    );
    let mut raw = gateway.raw().await;
    raw.write(gateway.post_bytes("/up/x", "Transfer-Encoding: chunked"))
        .await;
    for _ in 0..3 {
        raw.write(format!("190\r\n{}\r\n", "x".repeat(400))).await;
    }
    is_cut_off(raw, &upstream, (413, "request_too_large")).await;
}

#[tokio::test]
async fn an_application_that_sends_first_and_reads_later_still_learns_why() {
    let gateway = start(
        1,
        &[Stand::new("dmp")],
        "[services.dmp.limits]\nrequest_body = \"1KB\"",
    );
    for framing in ["Content-Length: 4000000", "Transfer-Encoding: chunked"] {
        for _ in 0..5 {
            let mut raw = gateway.raw().await;
            raw.write(gateway.post_bytes("/dmp/echo", framing)).await;
            if framing.starts_with('T') {
                raw.write("3d0900\r\n").await;
            }
            for _ in 0..40 {
                raw.write(vec![b'x'; 100_000]).await;
            }
            let answer = raw.answer(false).await.unwrap();
            assert_eq!(answer.status, 413, "{framing}");
        }
    }
}

#[tokio::test]
async fn an_application_that_stops_in_the_middle_of_its_body_is_told() {
    let (gateway, upstream) = in_front_of(
        &Tls::default(),
        "timeouts.body = \"200ms\"",
        |mut connection: Connection, _| async move {
            connection.head().await;
            connection.rest().await;
        },
    );
    let mut raw = gateway.raw().await;
    raw.write(gateway.post_bytes("/up/x", "content-length: 100"))
        .await;
    raw.write("half").await;
    is_cut_off(raw, &upstream, (408, "request_timeout")).await;
}

#[tokio::test]
async fn an_application_that_never_ends_its_head_is_dropped() {
    let gateway = start(
        1,
        &[Stand::new("dmp")],
        "[limits]\nhead_timeout = \"200ms\"",
    );
    let mut raw = gateway.raw().await;
    raw.write("GET /dmp/x HTTP/1.1\r\nhost: loc").await;
    let rest = raw.rest().await;
    assert!(
        rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"),
        "{rest:?}"
    );
    // So is one that says nothing at all, or not enough to tell which protocol it speaks.
    for opening in ["", "P", "PRI * HTTP/2.0\r\n\r\n"] {
        let mut raw = gateway.raw().await;
        raw.write(opening).await;
        assert_eq!(raw.rest().await, b"", "{opening:?}");
    }
}

#[tokio::test]
async fn an_application_that_does_not_read_its_answer_is_dropped() {
    let (gateway, upstream) = in_front_of(
        &Tls::default(),
        "[limits]\nhead_timeout = \"300ms\"",
        |mut connection: Connection, _| async move {
            connection.head().await;
            connection
                .write("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
                .await;
            while connection.stream.write_all(&[0; 65536]).await.is_ok() {}
        },
    );
    let mut raw = gateway.raw().await;
    raw.write(gateway.get_bytes("/up/x")).await;
    raw.head().await.unwrap();
    eventually("the service is told", || upstream.open() == 0).await;
    eventually("a line", || gateway.log().len() == 1).await;
    assert_eq!(gateway.log()[0]["outcome"], "aborted");
}
