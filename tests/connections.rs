//! Upstream connections: opened once, reused, bounded, closed in time, never used twice by mistake.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use relais::simulator::site::Stand;
use support::upstream::{Connection, Tls, Upstream, serve_h2};
use support::{Answered, H2c, TestGateway, eventually, in_front_of, start_on, within};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

async fn keep_answering(mut connection: Connection, _: usize) {
    connection.keep_answering("ok").await;
}

async fn is_answered(gateway: &TestGateway) {
    let answer = gateway.get(gateway.tenant(0), "/up/x").await;
    assert_eq!(answer.status(), 200, "{answer:?}");
}

fn post(gateway: &TestGateway, body: &'static str) -> Request<Bytes> {
    Request::post("/up/x")
        .header("x-finess", gateway.tenant(0).as_str())
        .body(Bytes::from_static(body.as_bytes()))
        .unwrap()
}

/// Starts that many requests at once, each on a connection of its own.
fn burst(gateway: &TestGateway, count: usize) -> JoinSet<Answered> {
    let mut requests = JoinSet::new();
    for _ in 0..count {
        let (address, tenant) = (gateway.address(), gateway.tenant(0));
        requests.spawn(async move {
            let request = Request::get("/up/x")
                .header("x-finess", tenant.as_str())
                .body(Bytes::new())
                .unwrap();
            H2c::connect(address).await.send(request).await
        });
    }
    requests
}

/// Answers over HTTP/2 when `release` lets it, and notes how many requests wait at once.
fn h2_gate(
    streams: u32,
    release: &Arc<Semaphore>,
    waiting: &Arc<AtomicUsize>,
) -> impl Fn(Connection, usize) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>>
+ Clone
+ Send
+ 'static
+ use<> {
    let (release, waiting) = (Arc::clone(release), Arc::clone(waiting));
    move |connection, _| {
        let (release, waiting) = (Arc::clone(&release), Arc::clone(&waiting));
        Box::pin(serve_h2(connection, streams, move |_| {
            let (release, waiting) = (Arc::clone(&release), Arc::clone(&waiting));
            async move {
                waiting.fetch_add(1, Ordering::AcqRel);
                let permit = release.acquire().await.unwrap();
                waiting.fetch_sub(1, Ordering::AcqRel);
                permit.forget();
                Response::new(Full::new(Bytes::from_static(b"ok")))
            }
        }))
    }
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
async fn an_http_2_connection_is_closed_when_idle_or_old() {
    for limit in ["idle_timeout", "max_lifetime"] {
        let release = Arc::new(Semaphore::new(1000));
        let (gateway, upstream) = in_front_of(
            &Tls::h2(),
            &format!("pool.{limit} = \"100ms\""),
            h2_gate(100, &release, &Arc::default()),
        );
        is_answered(&gateway).await;
        eventually(&format!("closed after {limit}"), || upstream.open() == 0).await;
        is_answered(&gateway).await;
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

#[tokio::test]
async fn requests_that_arrive_together_on_a_cold_http_2_service_share_one_dial() {
    let release = Arc::new(Semaphore::new(0));
    let waiting = Arc::default();
    let (gateway, upstream) = in_front_of(&Tls::h2(), "", h2_gate(100, &release, &waiting));
    let requests = burst(&gateway, 30);
    eventually("all are under way", || {
        waiting.load(Ordering::Acquire) == 30
    })
    .await;
    release.add_permits(30);
    for answer in requests.join_all().await {
        assert_eq!(answer.status(), 200);
    }
    assert_eq!(upstream.accepted(), 1);
}

#[tokio::test]
async fn a_service_is_never_asked_for_more_streams_than_it_allows() {
    let release = Arc::new(Semaphore::new(0));
    let waiting = Arc::default();
    let (gateway, upstream) = in_front_of(&Tls::h2(), "", h2_gate(2, &release, &waiting));
    for _ in 0..3 {
        let mut requests = burst(&gateway, 12);
        let mut answered = 0;
        while answered < 12 {
            eventually("a request is under way", || {
                waiting.load(Ordering::Acquire) > 0
            })
            .await;
            assert!(waiting.load(Ordering::Acquire) <= 2 * upstream.accepted());
            release.add_permits(1);
            let answer = within(requests.join_next()).await.unwrap().unwrap();
            assert_eq!(answer.status(), 200, "{answer:?}");
            answered += 1;
        }
    }
}

#[tokio::test]
async fn when_all_streams_are_taken_another_connection_is_opened() {
    let release = Arc::new(Semaphore::new(0));
    let waiting: Arc<AtomicUsize> = Arc::default();
    let (gateway, upstream) = in_front_of(&Tls::h2(), "", h2_gate(2, &release, &waiting));
    release.add_permits(1);
    burst(&gateway, 1).join_all().await;
    for count in 1..=6 {
        let mut request = burst(&gateway, 1);
        eventually("it is under way", || {
            waiting.load(Ordering::Acquire) == count
        })
        .await;
        request.detach_all();
    }
    assert_eq!(upstream.accepted(), 3);
}

#[tokio::test]
async fn a_stream_that_an_application_gave_up_is_there_for_whoever_waits() {
    let release = Arc::new(Semaphore::new(0));
    let waiting: Arc<AtomicUsize> = Arc::default();
    let (gateway, _upstream) = in_front_of(
        &Tls::h2(),
        "pool.max_connections = 1",
        h2_gate(2, &release, &waiting),
    );
    release.add_permits(1);
    burst(&gateway, 1).join_all().await;
    let mut first = burst(&gateway, 2);
    eventually("both streams are taken", || {
        waiting.load(Ordering::Acquire) == 2
    })
    .await;
    let late = burst(&gateway, 1);
    eventually("one waits", || waiting_for_a_connection(&gateway) == 1).await;
    first.abort_all();
    while first.join_next().await.is_some() {}
    eventually("it is under way", || {
        waiting_for_a_connection(&gateway) == 0
    })
    .await;
    release.add_permits(100);
    for answer in within(late.join_all()).await {
        assert_eq!(answer.status(), 200, "{answer:?}");
    }
}

fn waiting_for_a_connection(gateway: &TestGateway) -> usize {
    let pools = gateway.app.outbound.pools();
    pools.iter().map(|pool| pool.occupancy().waiting).sum()
}

#[tokio::test]
async fn a_goaway_lets_streams_finish_and_sends_new_requests_elsewhere() {
    let release = Arc::new(Semaphore::new(0));
    let go_away = Arc::new(Notify::new());
    let waiting: Arc<AtomicUsize> = Arc::default();
    let (released, going, counted) = (release.clone(), go_away.clone(), waiting.clone());
    let (gateway, upstream) = in_front_of(&Tls::h2(), "", move |connection, number| {
        let (release, going, waiting) = (released.clone(), going.clone(), counted.clone());
        async move {
            let service = hyper::service::service_fn(move |_| {
                let (release, waiting) = (release.clone(), waiting.clone());
                async move {
                    waiting.fetch_add(1, Ordering::AcqRel);
                    release.acquire().await.unwrap().forget();
                    let answer = Full::new(Bytes::from(number.to_string()));
                    Ok::<_, std::convert::Infallible>(Response::new(answer))
                }
            });
            let io = hyper_util::rt::TokioIo::new(connection.stream);
            let mut served = std::pin::pin!(
                hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
                    .serve_connection(io, service)
            );
            tokio::select! {
                _ = served.as_mut() => return,
                () = going.notified() => served.as_mut().graceful_shutdown(),
            }
            let _ = served.await;
        }
    });
    let first = burst(&gateway, 1);
    eventually("it is under way", || waiting.load(Ordering::Acquire) == 1).await;
    go_away.notify_one();
    // Until the frame has arrived requests may still join the first connection, and are as welcome there.
    let mut others = 0;
    while upstream.accepted() < 2 {
        others += 1;
        let mut request = burst(&gateway, 1);
        eventually("it is under way", || {
            waiting.load(Ordering::Acquire) == 1 + others
        })
        .await;
        request.detach_all();
    }
    release.add_permits(1);
    let answers = within(first.join_all()).await;
    assert_eq!(
        (answers[0].status(), &answers[0].0.body()[..]),
        (200, &b"0"[..])
    );
    release.add_permits(100);
    for _ in 0..5 {
        is_answered(&gateway).await;
    }
}
