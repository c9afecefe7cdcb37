//! The limit on connections of the whole process: whoever lies idle makes room, and nobody waits in vain.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use relais::simulator::site::Stand;
use support::upstream::{Connection, Tls, Upstream, serve_h2};
use support::{Client, TestGateway, eventually, start_on, within};
use tokio::io::AsyncReadExt;

/// A gateway for two tenants that may have one connection in all.
fn with_one_connection(tls: &Tls) -> (TestGateway, Upstream) {
    start_on(2, &[Stand::new("dmp")], |site, text| {
        let is_h2 = tls.alpn == ["h2"];
        let upstream = Upstream::start(&site.pki, tls, move |mut connection, _| async move {
            if is_h2 {
                serve_h2(connection, 100, |_| async {
                    Response::new(Full::new(Bytes::from("ok")))
                })
                .await;
            } else {
                answer_once_the_body_is_there(&mut connection).await;
            }
        });
        text.push_str(&upstream.service("up", ""));
        text.push_str("[limits]\nupstream_connections = 1\n");
        upstream
    })
}

async fn answer_once_the_body_is_there(connection: &mut Connection) {
    while let Some(head) = connection.head().await {
        if head.contains("content-length: 4") {
            connection.stream.read_exact(&mut [0; 4]).await.unwrap();
        }
        connection.answer("ok").await;
    }
}

#[tokio::test]
async fn an_idle_connection_makes_room_for_another_tenants() {
    for tls in [Tls::default(), Tls::h2()] {
        let (gateway, upstream) = with_one_connection(&tls);
        for count in 1..=6 {
            let answer = gateway.get(gateway.tenant(count % 2), "/up/x").await;
            assert_eq!(answer.status(), 200, "{answer:?}");
            assert_eq!(upstream.accepted(), count);
        }
        assert_eq!(upstream.most_open(), 1);
    }
}

#[tokio::test]
async fn a_connection_that_falls_idle_makes_room_for_whoever_waits() {
    let (gateway, upstream) = with_one_connection(&Tls::default());
    let mut raw = gateway.raw().await;
    raw.write(gateway.post_bytes("/up/x", "content-length: 4"))
        .await;
    eventually("the only connection is taken", || {
        upstream.heads().len() == 1
    })
    .await;

    let (address, tenant) = (gateway.address(), gateway.tenant(1));
    let other = tokio::spawn(async move {
        let request = Request::get("/up/x")
            .header("x-finess", tenant.as_str())
            .body(Bytes::new())
            .unwrap();
        Client::connect(address).await.send(request).await
    });
    eventually("the other tenant waits", || {
        let pools = gateway.app.outbound.pools();
        pools.iter().any(|pool| pool.occupancy().waiting == 1)
    })
    .await;
    raw.write("body").await;
    assert_eq!(raw.answer(false).await.unwrap().status, 200);
    let answer = within(other).await.unwrap();
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert_eq!(upstream.most_open(), 1);
}

#[tokio::test]
async fn a_request_that_stalls_after_its_answer_does_not_keep_its_connection() {
    let (gateway, upstream) = support::in_front_of(
        &Tls::default(),
        "timeouts.body = \"200ms\"",
        |mut connection, _| async move {
            connection.head().await;
            connection.answer("early").await;
            connection.rest().await;
        },
    );
    let mut raw = gateway.raw().await;
    raw.write(gateway.post_bytes("/up/x", "content-length: 100"))
        .await;
    assert_eq!(raw.answer(false).await.unwrap().body, b"early");
    eventually("the connection is closed", || {
        upstream.accepted() == 1 && upstream.open() == 0
    })
    .await;
}
