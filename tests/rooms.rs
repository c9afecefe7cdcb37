//! The limit on connections of the whole process: whoever lies idle makes room, and nobody waits in vain.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use relais::simulator::pki;
use relais::simulator::site::Stand;
use support::raw::Raw;
use support::upstream::{Connection, ONLY_12, Tls, Upstream, serve_h2, serve_h2_late};
use support::{
    Client, TestGateway, eventually, settled, start_on, waiting_for_a_connection, within,
};
use tokio::io::AsyncReadExt as _;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

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
async fn who_waits_for_room_is_told_of_a_connection_that_it_can_share() {
    let release = Arc::new(Semaphore::new(0));
    // As over any distance, the number of streams that the service allows comes after the first request has left.
    let speaks = Arc::new(Semaphore::new(0));
    let arrived = Arc::<AtomicUsize>::default();
    let (gateway, upstream) = start_on(2, &[Stand::new("dmp")], |site, text| {
        let tls = Tls {
            alpn: &["h2", "http/1.1"],
            versions: ONLY_12,
            ..Tls::default()
        };
        let (release, speaks, arrived) = (release.clone(), speaks.clone(), arrived.clone());
        let upstream = Upstream::start(&site.pki, &tls, move |mut connection, _| {
            let (release, speaks, arrived) = (release.clone(), speaks.clone(), arrived.clone());
            let is_let_go = async move || {
                arrived.fetch_add(1, Ordering::AcqRel);
                release.acquire().await.unwrap().forget();
            };
            async move {
                if connection.stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                    let answer = move |_| {
                        let is_let_go = is_let_go.clone();
                        async move {
                            is_let_go().await;
                            Response::new(Full::new(Bytes::from("ok")))
                        }
                    };
                    return serve_h2_late(connection, speaks, answer).await;
                }
                while connection.head().await.is_some() {
                    is_let_go().await;
                    connection.answer("ok").await;
                }
            }
        });
        text.push_str(&upstream.service("up", ""));
        text.push_str("[limits]\nupstream_connections = 1\n");
        upstream
    });
    let ask = |tenant| {
        let (address, tenant) = (gateway.address(), gateway.tenant(tenant));
        tokio::spawn(async move {
            let request = Request::get("/up/x").header("x-finess", tenant.as_str());
            let request = request.body(Bytes::new()).unwrap();
            Client::connect(address).await.send(request).await
        })
    };
    // It leaves a session, so that later none has to wait until another has one.
    release.add_permits(1);
    assert_eq!(within(ask(0)).await.unwrap().status(), 200);
    settled(&gateway).await;
    let other = ask(1);
    eventually("another tenant has all the room", || {
        arrived.load(Ordering::Acquire) == 2
    })
    .await;
    let mut burst = Vec::new();
    // The first waits for a connection of its own, and the next for one to share.
    for count in 1..=3 {
        burst.push(ask(0));
        eventually("it waits", || waiting_for_a_connection(&gateway) == count).await;
    }
    release.add_permits(1);
    assert_eq!(within(other).await.unwrap().status(), 200);
    eventually("the first is under way", || {
        arrived.load(Ordering::Acquire) == 3
    })
    .await;
    speaks.add_permits(1);
    eventually("all share the one connection", || {
        arrived.load(Ordering::Acquire) == 5
    })
    .await;
    release.add_permits(3);
    for answer in burst {
        assert_eq!(within(answer).await.unwrap().status(), 200);
    }
    assert_eq!(upstream.accepted(), 3);
}

/// A gateway for two tenants, in front of a service whose handshake with its third connection waits for `handshake`, and
/// whose answers wait for `answers`. `limit` is for the service, `limits` for the process.
fn with_a_slow_third_handshake(
    (limit, limits): (&str, &str),
    handshake: &Arc<Semaphore>,
    answers: &Arc<Semaphore>,
    arrived: &Arc<AtomicUsize>,
) -> (TestGateway, Upstream) {
    start_on(2, &[Stand::new("dmp")], |site, text| {
        let folder = "directory = \"certs\"";
        *text = text.replace(folder, &format!("{folder}\nreload = \"manual\""));
        let acceptor = TlsAcceptor::from(Tls::default().server_config(&site.pki));
        let (handshake, answers, arrived) = (handshake.clone(), answers.clone(), arrived.clone());
        let upstream = Upstream::raw(move |tcp, number| {
            let (acceptor, handshake) = (acceptor.clone(), handshake.clone());
            let (answers, arrived) = (answers.clone(), arrived.clone());
            async move {
                if number == 2 {
                    drop(handshake.acquire().await);
                }
                let Ok(stream) = acceptor.accept(tcp).await else {
                    return;
                };
                let mut raw = Raw::over(stream);
                while raw.head().await.is_some() {
                    arrived.fetch_add(1, Ordering::AcqRel);
                    answers.acquire().await.unwrap().forget();
                    raw.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                        .await;
                }
            }
        });
        text.push_str(&upstream.service("up", limit));
        text.push_str(limits);
        upstream
    })
}

#[tokio::test]
async fn what_is_opened_before_anybody_asks_puts_nobody_out() {
    // What is full once the second connection could be opened for the renewal: the process, by another tenant's, or the
    // pool, by what requests have opened meanwhile.
    let cases = [
        (("", "[limits]\nupstream_connections = 4\n"), 1, 3),
        (("pool = { max_connections = 2 }", ""), 0, 1),
    ];
    for (limits, tenant, count) in cases {
        let (handshake, answers) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let arrived = Arc::default();
        let (gateway, upstream) =
            with_a_slow_third_handshake(limits, &handshake, &answers, &arrived);
        let at_once = async |tenant: usize, count: usize| {
            let so_far = arrived.load(Ordering::Acquire);
            let mut requests = JoinSet::new();
            for _ in 0..count {
                let request =
                    Request::get("/up/x").header("x-finess", gateway.tenant(tenant).as_str());
                let (address, request) = (gateway.address(), request.body(Bytes::new()).unwrap());
                requests.spawn(async move { Client::connect(address).await.send(request).await });
            }
            eventually("they are under way", || {
                arrived.load(Ordering::Acquire) == so_far + count
            })
            .await;
            answers.add_permits(count);
            for answer in within(requests.join_all()).await {
                assert_eq!(answer.status(), 200, "{answer:?}");
            }
        };
        at_once(0, 2).await;
        settled(&gateway).await;
        let finess = gateway.tenant(0);
        let renewed = gateway
            .site
            .pki
            .issue(&pki::Request::new(&format!("1{finess}"), "Nouveau"));
        let path = gateway.path().join(format!("certs/{finess}/auth_cli.pem"));
        pki::write_private(&path, renewed.pem()).unwrap();
        within(gateway.app.reload()).await.unwrap();
        assert_eq!(upstream.accepted(), 3, "the first is still being opened");

        at_once(tenant, count).await;
        handshake.add_permits(1);
        eventually("the first lies ready", || {
            let pools = gateway.app.outbound.pools();
            let idle = pools.iter().map(|pool| pool.occupancy().idle);
            idle.sum::<usize>() == 1 + count
        })
        .await;
        for _ in 0..3 {
            at_once(tenant, count).await;
            at_once(0, 1).await;
        }
        assert_eq!(upstream.accepted(), 3 + count, "{limits:?}");
    }
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
