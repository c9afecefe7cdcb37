//! Connections that have lain idle for a while: kept without the buffers of HTTP, and as good as new when they are needed.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use support::upstream::{BOTH, ONLY_12, ONLY_13, Tls};
use support::{TestGateway, eventually, in_front_of, is_answered, settled, within};
use tokio::sync::{Notify, mpsc};

/// Longer than a connection stays awake.
const A_WHILE: Duration = Duration::from_secs(6);

/// Lets the pools believe that a while has passed.
async fn rest(gateway: &TestGateway) {
    settled(gateway).await;
    let pools = gateway.app.outbound.pools();
    let later = Instant::now() + A_WHILE;
    pools.iter().for_each(|pool| pool.reap(later));
    eventually("it rests", || resting(gateway) == 1).await;
}

fn resting(gateway: &TestGateway) -> usize {
    let pools = gateway.app.outbound.pools();
    pools.iter().map(|pool| pool.occupancy().resting).sum()
}

async fn post(gateway: &TestGateway) {
    let request = Request::post("/up/x")
        .header("x-finess", gateway.tenant(0).as_str())
        .body(Bytes::new())
        .unwrap();
    let answer = within(gateway.send(request)).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
}

#[tokio::test]
async fn a_connection_serves_after_it_has_rested_as_before() {
    for versions in [ONLY_12, ONLY_13, BOTH] {
        let tls = Tls {
            versions,
            ..Tls::default()
        };
        let (gateway, upstream) = in_front_of(&tls, "", |mut connection, _| async move {
            connection.keep_answering("ok").await;
        });
        for _ in 0..3 {
            post(&gateway).await;
            rest(&gateway).await;
        }
        post(&gateway).await;
        assert_eq!(upstream.handshakes(), (1, 0));
        assert_eq!((resting(&gateway), upstream.open()), (0, 1));
    }
}

#[tokio::test]
async fn a_connection_that_the_service_closes_while_it_rests_costs_no_request() {
    for how in ["close", "drop", "reset"] {
        let close = Arc::new(Notify::new());
        let closes = Arc::clone(&close);
        let (gateway, upstream) = in_front_of(&Tls::default(), "", move |mut connection, _| {
            let closes = Arc::clone(&closes);
            async move {
                connection.head().await;
                connection.answer("ok").await;
                closes.notified().await;
                match how {
                    "close" => connection.close().await,
                    "drop" => drop(connection),
                    _ => connection.reset(),
                }
            }
        });
        for count in 1..=3 {
            post(&gateway).await;
            assert_eq!(upstream.accepted(), count, "{how}");
            rest(&gateway).await;
            close.notify_one();
            eventually("closed", || upstream.open() == 0).await;
        }
        eventually("its place is free", || resting(&gateway) == 0).await;
    }
}

#[tokio::test]
async fn what_a_service_says_unasked_while_a_connection_rests_is_no_answer_to_anybody() {
    let (speak, mut spoken) = (Arc::new(Notify::new()), mpsc::unbounded_channel());
    let (speaks, said) = (Arc::clone(&speak), spoken.0);
    let (gateway, upstream) = in_front_of(&Tls::default(), "", move |mut connection, number| {
        let (speaks, said) = (Arc::clone(&speaks), said.clone());
        async move {
            connection.head().await;
            connection.answer("ok").await;
            if number == 0 {
                speaks.notified().await;
                connection.answer("not for you").await;
                let _ = said.send(());
            }
            connection.keep_answering("ok").await;
        }
    });
    is_answered(&gateway).await;
    rest(&gateway).await;
    speak.notify_one();
    within(spoken.1.recv()).await.unwrap();
    let answer = within(gateway.get(gateway.tenant(0), "/up/x")).await;
    assert_eq!((answer.status(), &**answer.0.body()), (200, &b"ok"[..]));
    assert_eq!(upstream.accepted(), 2);
}

#[tokio::test]
async fn a_connection_that_is_closed_while_it_rests_is_closed_properly() {
    let (ended, mut ends) = mpsc::unbounded_channel();
    let (gateway, upstream) = in_front_of(
        &Tls::default(),
        "pool.idle_timeout = \"7s\"",
        move |mut connection, _| {
            let ended = ended.clone();
            async move {
                connection.head().await;
                connection.answer("ok").await;
                let _ = ended.send(connection.rest().await);
            }
        },
    );
    is_answered(&gateway).await;
    rest(&gateway).await;
    let pools = gateway.app.outbound.pools();
    let much_later = Instant::now() + 2 * A_WHILE;
    pools.iter().for_each(|pool| pool.reap(much_later));
    assert_eq!(within(ends.recv()).await, Some((Vec::new(), true)));
    eventually("closed", || upstream.open() == 0).await;
    let open = || {
        pools
            .iter()
            .map(|pool| pool.occupancy().open)
            .sum::<usize>()
    };
    eventually("its place is free", || open() == 0).await;
}
