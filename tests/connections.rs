//! Upstream connections: opened once, reused, bounded, closed in time, never used twice by mistake.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use relais::simulator::site::Stand;
use support::upstream::{Connection, Tls, Upstream, h2_gate, serve_h2};
use support::{
    TestGateway, burst, eventually, in_front_of, is_answered, settled, start_on, within,
};
use tokio::sync::{Notify, Semaphore};

async fn keep_answering(mut connection: Connection, _: usize) {
    connection.keep_answering("ok").await;
}

fn post(gateway: &TestGateway, body: &'static str) -> Request<Bytes> {
    Request::post("/up/x")
        .header("x-finess", gateway.tenant(0).as_str())
        .body(Bytes::from_static(body.as_bytes()))
        .unwrap()
}

#[tokio::test]
async fn requests_in_sequence_share_one_connection() {
    for (tls, is_h2) in [(Tls::default(), false), (Tls::h2(), true)] {
        let (gateway, upstream) = in_front_of(&tls, "", move |mut connection, _| async move {
            if is_h2 {
                serve_h2(connection, 100, |_| async {
                    Response::new(Full::new(Bytes::from_static(b"ok")))
                })
                .await;
            } else {
                connection.keep_answering("ok").await;
            }
        });
        for _ in 0..10 {
            is_answered(&gateway).await;
            settled(&gateway).await;
        }
        assert_eq!(upstream.handshakes(), (1, 0));
        assert_eq!(
            gateway.metric("relais_upstream_reuse_total", &["service=\"up\""]),
            9.0
        );
        assert_eq!(
            gateway.metric("relais_upstream_connections", &["service=\"up\""]),
            1.0
        );
    }
}

#[tokio::test]
async fn connection_close_is_obeyed() {
    let (gateway, upstream) = in_front_of(&Tls::default(), "", |mut connection, _| async move {
        while connection.head().await.is_some() {
            connection
                .write("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")
                .await;
        }
    });
    for count in 1..=3 {
        is_answered(&gateway).await;
        assert_eq!(upstream.accepted(), count);
    }
    assert_eq!(upstream.heads().len(), 3);
}

#[tokio::test]
async fn a_connection_that_died_while_idle_costs_no_request_not_even_a_post() {
    for how in ["close", "drop", "reset"] {
        let closed = Arc::new(Notify::new());
        let told = Arc::clone(&closed);
        let (gateway, upstream) = in_front_of(&Tls::default(), "", move |mut connection, _| {
            let told = Arc::clone(&told);
            async move {
                connection.head().await;
                let mut body = [0; 4];
                let read = tokio::io::AsyncReadExt::read_exact(&mut connection.stream, &mut body);
                read.await.unwrap();
                connection.answer("ok").await;
                match how {
                    "close" => connection.close().await,
                    "drop" => drop(connection),
                    _ => connection.reset(),
                }
                told.notify_one();
            }
        });
        for count in 1..=10 {
            // The next request comes as the connection closes, so that it is sometimes taken for a live one.
            let answer = gateway.send(post(&gateway, "body")).await;
            within(closed.notified()).await;
            assert_eq!(answer.status(), 200, "{how} {count} {answer:?}");
        }
        assert_eq!(upstream.heads().len(), 10);
    }
}

/// A server that answers the first request of each connection and breaks off at the second.
async fn break_off_at_the_second(mut connection: Connection, _: usize) {
    connection.head().await;
    connection.answer("ok").await;
    connection.head().await;
    connection.close().await;
}

#[tokio::test]
async fn a_request_that_may_have_arrived_is_not_sent_again() {
    let cases = [
        ("unsent", "GET", 1, 502),
        ("unsent", "POST", 1, 502),
        ("never", "GET", 1, 502),
        ("idempotent", "POST", 1, 502),
        ("idempotent", "GET", 2, 200),
        ("idempotent", "DELETE", 2, 200),
    ];
    for (retry, method, times, status) in cases {
        let (gateway, upstream) = in_front_of(
            &Tls::default(),
            &format!("retry = \"{retry}\""),
            break_off_at_the_second,
        );
        is_answered(&gateway).await;
        settled(&gateway).await;
        let request = Request::builder()
            .method(method)
            .uri("/up/second")
            .header("x-finess", gateway.tenant(0).as_str())
            .body(Bytes::new())
            .unwrap();
        let answer = gateway.send(request).await;
        assert_eq!(answer.status(), status, "{retry} {method}");
        let heads = upstream.heads();
        let sent = heads.iter().filter(|head| head.contains("/second")).count();
        assert_eq!(sent, times, "{retry} {method}");
    }
}

#[tokio::test]
async fn an_idempotent_request_with_a_body_is_not_sent_again_either() {
    let (gateway, upstream) = in_front_of(
        &Tls::default(),
        "retry = \"idempotent\"",
        break_off_at_the_second,
    );
    is_answered(&gateway).await;
    settled(&gateway).await;
    let request = Request::put("/up/second")
        .header("x-finess", gateway.tenant(0).as_str())
        .body(Bytes::from_static(b"body"))
        .unwrap();
    let answer = gateway.send(request).await;
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (502, "upstream_protocol_error")
    );
    assert_eq!(upstream.heads().len(), 2);
}

#[tokio::test]
async fn connections_are_closed_when_idle_or_old_and_sessions_resumed_after() {
    for limit in ["idle_timeout", "max_lifetime"] {
        let (gateway, upstream) = in_front_of(
            &Tls::default(),
            &format!("pool.{limit} = \"100ms\""),
            keep_answering,
        );
        is_answered(&gateway).await;
        eventually(&format!("closed after {limit}"), || upstream.open() == 0).await;
        is_answered(&gateway).await;
        assert_eq!(upstream.handshakes(), (1, 1), "{limit}");
        let kind = |kind| {
            gateway.metric(
                "relais_upstream_handshakes_total",
                &["service=\"up\"", kind],
            )
        };
        assert_eq!(
            (kind("kind=\"full\""), kind("kind=\"resumed\"")),
            (1.0, 1.0)
        );
    }
}

#[tokio::test]
async fn sessions_are_not_resumed_across_tenants() {
    let (gateway, upstream) = start_on(2, &[Stand::new("dmp")], |site, text| {
        let upstream =
            Upstream::start(&site.pki, &Tls::default(), |mut connection, _| async move {
                connection.head().await;
                connection
                    .write("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")
                    .await;
                connection.rest().await;
            });
        text.push_str(&upstream.service("up", ""));
        upstream
    });
    for tenant in [0, 1] {
        let answer = gateway.get(gateway.tenant(tenant), "/up/x").await;
        assert_eq!(answer.status(), 200);
    }
    assert_eq!(upstream.handshakes(), (2, 0));
    for tenant in [0, 1] {
        gateway.get(gateway.tenant(tenant), "/up/x").await;
    }
    assert_eq!(upstream.handshakes(), (2, 2));
}

#[tokio::test]
async fn no_more_connections_than_allowed_are_ever_open_and_everybody_gets_a_turn() {
    let (gateway, upstream) =
        in_front_of(&Tls::default(), "pool.max_connections = 2", keep_answering);
    for answer in burst(&gateway, 40).join_all().await {
        assert_eq!(answer.status(), 200, "{answer:?}");
    }
    assert!(upstream.most_open() <= 2, "{}", upstream.most_open());
}

#[tokio::test]
async fn whoever_waits_too_long_for_a_connection_is_told_to_come_back() {
    let timeouts =
        "timeouts = { connect = \"100ms\", handshake = \"400ms\" }\npool.max_connections = 1";
    for tls in [Tls::default(), Tls::h2()] {
        let release = Arc::new(Semaphore::new(0));
        let waiting = Arc::default();
        let served = h2_gate(2, &release, &waiting);
        let is_h2 = tls.alpn == ["h2"];
        let (gateway, upstream) = in_front_of(&tls, timeouts, move |mut connection, number| {
            let served = served.clone();
            async move {
                if is_h2 {
                    served(connection, number).await;
                } else {
                    connection.head().await;
                    connection.rest().await;
                }
            }
        });
        // Over HTTP/2 a request has to be answered for the number of streams to be known.
        let mut requests = burst(&gateway, 1);
        if is_h2 {
            release.add_permits(1);
            requests.join_next().await.unwrap().unwrap();
            requests = burst(&gateway, 2);
            eventually("both streams are taken", || {
                waiting.load(Ordering::Acquire) == 2
            })
            .await;
        } else {
            eventually("the only connection is taken", || upstream.open() == 1).await;
        }
        for answer in burst(&gateway, 3).join_all().await {
            assert_eq!(
                (answer.status(), answer.code().as_str()),
                (503, "overloaded"),
                "{answer:?}"
            );
            assert_eq!(answer.header("retry-after"), Some("1"));
        }
        requests.abort_all();
    }
}
