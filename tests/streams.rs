//! HTTP/2 towards services: one connection for many requests, as many streams as are allowed, and none that is lost.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use support::upstream::{Tls, h2_gate, serve_h2, serve_h2_late};
use support::{burst, eventually, in_front_of, is_answered, waiting_for_a_connection, within};
use tokio::sync::{Notify, Semaphore};

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

// T16
#[tokio::test]
async fn answers_that_nobody_reads_stop_none_of_the_others_on_the_connection() {
    let (gateway, upstream) = in_front_of(&Tls::h2(), "", |connection, _| {
        serve_h2(connection, 100, |request: Request<_>| async move {
            let length = match request.uri().path() {
                "/large" => 32 << 20,
                _ => 100_000,
            };
            Response::new(Full::new(Bytes::from(vec![b'x'; length])))
        })
    });
    let mut unread = Vec::new();
    for _ in 0..20 {
        let mut application = gateway.raw().await;
        application.write(gateway.get_bytes("/up/large")).await;
        assert!(
            application
                .head()
                .await
                .unwrap()
                .starts_with("HTTP/1.1 200")
        );
        unread.push(application);
    }
    for _ in 0..20 {
        let answer = gateway.get(gateway.tenant(0), "/up/small").await;
        assert_eq!(answer.0.body().len(), 100_000);
    }
    assert_eq!(upstream.accepted(), 1);
}

#[tokio::test]
async fn a_service_that_never_says_how_many_streams_it_allows_keeps_no_request_for_ever() {
    let ok = |_| async { Response::new(Full::new(Bytes::from_static(b"ok"))) };
    // On the first connection, or on any.
    for silent in [1, usize::MAX] {
        let (gateway, upstream) = in_front_of(
            &Tls::h2(),
            "timeouts = { connect = \"1s\", handshake = \"1s\", response = \"2s\" }",
            move |connection, number| {
                let speaks = Arc::new(Semaphore::new(usize::from(number >= silent)));
                serve_h2_late(connection, speaks, ok)
            },
        );
        let mut statuses: Vec<_> = within(burst(&gateway, 5).join_all())
            .await
            .iter()
            .map(|answer| answer.status())
            .collect();
        statuses.sort_unstable();
        match silent {
            1 => assert_eq!(
                (upstream.accepted(), statuses),
                (2, vec![200, 200, 200, 200, 504])
            ),
            _ => assert!(statuses.iter().all(|status| *status >= 503), "{statuses:?}"),
        }
    }
}

#[tokio::test]
async fn a_connection_that_ends_before_it_says_how_many_streams_it_allows_costs_one_request() {
    let ok = |_| async { Response::new(Full::new(Bytes::from_static(b"ok"))) };
    let end = Arc::new(Notify::new());
    let ending = Arc::clone(&end);
    let (gateway, upstream) = in_front_of(&Tls::h2(), "", move |connection, number| {
        let end = Arc::clone(&ending);
        async move {
            let speaks = Arc::new(Semaphore::new(usize::from(number > 0)));
            let served = serve_h2_late(connection, speaks, ok);
            tokio::select! {
                () = served => {}
                () = end.notified() => {}
            }
        }
    });
    let requests = burst(&gateway, 5);
    eventually("they wait", || waiting_for_a_connection(&gateway) == 4).await;
    end.notify_one();
    let answers = within(requests.join_all()).await;
    let answered = answers.iter().filter(|answer| answer.status() == 200);
    assert_eq!((answered.count(), upstream.accepted()), (4, 2));
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
