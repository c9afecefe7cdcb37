//! How many connections are opened, in which protocol, and how many of their handshakes are full ones.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use relais::simulator::site::{Site, Stand};
use support::upstream::{Connection, ONLY_12, ONLY_13, Tls, Upstream, serve_h2};
use support::{
    Answered, Client, TestGateway, burst, eventually, in_front_of, is_answered, settled, start_on,
    waiting_for_a_connection, within,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const BOTH: &[&str] = &["h2", "http/1.1"];

/// A service that answers nobody before it is told to.
#[derive(Clone)]
struct Service {
    release: Arc<Semaphore>,
    /// Requests that have arrived, in HTTP/1.1 and in HTTP/2.
    arrived: Arc<[AtomicUsize; 2]>,
}

impl Service {
    fn new(answers: usize) -> Self {
        Self {
            release: Arc::new(Semaphore::new(answers)),
            arrived: Arc::default(),
        }
    }

    fn arrived(&self) -> [usize; 2] {
        [0, 1].map(|at| self.arrived[at].load(Ordering::Acquire))
    }

    async fn arrives(&self, at: usize) {
        self.arrived[at].fetch_add(1, Ordering::AcqRel);
        self.release.acquire().await.unwrap().forget();
    }

    async fn serve(self, mut connection: Connection) {
        if connection.stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            serve_h2(connection, 100, move |_| {
                let service = self.clone();
                async move {
                    service.arrives(1).await;
                    Response::new(Full::new(Bytes::from_static(b"ok")))
                }
            })
            .await;
        } else {
            while connection.head().await.is_some() {
                self.arrives(0).await;
                connection.answer("ok").await;
            }
        }
    }

    /// Speaks HTTP/1.1 alone, and takes part in as many handshakes as `gate` lets through.
    fn gated(self, tls: &Tls, site: &Site, gate: &Arc<Semaphore>) -> Upstream {
        let (config, gate) = (tls.server_config(&site.pki), Arc::clone(gate));
        Upstream::raw(move |tcp, _| {
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(&config));
            let (gate, service) = (Arc::clone(&gate), self.clone());
            async move {
                gate.acquire().await.unwrap().forget();
                let Ok(mut stream) = acceptor.accept(tcp).await else {
                    return;
                };
                let mut read = [0; 1024];
                while stream.read(&mut read).await.is_ok_and(|n| n > 0) {
                    service.arrives(0).await;
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    if stream.write_all(answer).await.is_err() {
                        return;
                    }
                }
            }
        })
    }

    /// Starts a gateway in front of it, with further lines of configuration.
    fn behind(&self, tls: &Tls, extra: &str) -> (TestGateway, Upstream) {
        let service = self.clone();
        in_front_of(tls, extra, move |connection, _| {
            service.clone().serve(connection)
        })
    }
}

fn speaking(alpn: &'static [&'static str]) -> Tls {
    Tls {
        alpn,
        ..Tls::default()
    }
}

async fn all_are_answered(requests: JoinSet<Answered>) {
    for answer in within(requests.join_all()).await {
        assert_eq!(answer.status(), 200, "{answer:?}");
    }
}

#[tokio::test]
async fn a_cold_pool_makes_one_full_handshake_for_many_requests() {
    for (versions, count) in [(ONLY_12, 12), (ONLY_13, 6)] {
        for http in ["h1", "auto"] {
            let tls = Tls {
                versions,
                ..Tls::default()
            };
            let service = Service::new(0);
            let (gateway, upstream) = service.behind(&tls, &format!("http = \"{http}\""));
            let requests = burst(&gateway, count);
            eventually("all are under way", || service.arrived() == [count, 0]).await;
            service.release.add_permits(count);
            all_are_answered(requests).await;
            assert_eq!(upstream.handshakes(), (1, count - 1), "{versions:?} {http}");
        }
    }
}

#[tokio::test]
async fn what_was_closed_when_idle_is_opened_again_without_a_full_handshake() {
    for versions in [ONLY_12, ONLY_13] {
        let tls = Tls {
            versions,
            ..Tls::default()
        };
        let service = Service::new(0);
        let (gateway, upstream) =
            service.behind(&tls, "http = \"h1\"\npool.idle_timeout = \"100ms\"");
        for _ in 0..4 {
            let arrived = service.arrived()[0];
            let requests = burst(&gateway, 3);
            eventually("all are under way", || service.arrived()[0] == arrived + 3).await;
            service.release.add_permits(3);
            all_are_answered(requests).await;
            eventually("they are closed", || upstream.open() == 0).await;
        }
        assert_eq!(upstream.handshakes(), (1, 11), "{versions:?}");
    }
}

#[tokio::test]
async fn a_service_without_tickets_keeps_nobody_waiting() {
    const MANY: usize = 8;
    let tls = Tls {
        versions: ONLY_13,
        tickets: false,
        ..Tls::default()
    };
    let service = Service::new(1);
    let acceptor = Arc::new(Semaphore::new(1));
    let (gateway, upstream) = start_on(1, &[Stand::new("dmp")], |site, text| {
        // After the first, no handshake goes on before many have begun.
        let upstream = service.clone().gated(&tls, site, &acceptor);
        // Sooner than somebody who waits for another's session goes on without.
        text.push_str(&upstream.service("up", "http = \"h1\"\ntimeouts.handshake = \"800ms\""));
        upstream
    });
    is_answered(&gateway).await;
    settled(&gateway).await;
    let requests = burst(&gateway, MANY + 1);
    eventually("all dial", || upstream.accepted() == MANY + 1).await;
    acceptor.add_permits(MANY);
    service.release.add_permits(MANY + 1);
    all_are_answered(requests).await;
}

#[tokio::test]
async fn others_are_served_when_who_was_to_make_the_first_handshake_gives_up() {
    const OTHERS: usize = 11;
    // As many as a service sees at once.
    const PLACES: usize = 16;
    let (service, gate) = (Service::new(PLACES + OTHERS), Arc::new(Semaphore::new(0)));
    let (gateway, upstream) = start_on(PLACES + 1, &[Stand::new("dmp")], |site, text| {
        text.insert_str(0, "workers = 1\n");
        let upstream = service.clone().gated(&Tls::default(), site, &gate);
        text.push_str(&upstream.service("up", ""));
        upstream
    });
    let get = |tenant: usize| {
        let (address, tenant) = (gateway.address(), gateway.tenant(tenant));
        async move {
            let request = Request::get("/up/x").header("x-finess", tenant.as_str());
            let request = request.body(Bytes::new()).unwrap();
            Client::connect(address).await.send(request).await
        }
    };
    let mut requests: JoinSet<Answered> = (1..=PLACES).map(get).collect();
    eventually("all places are taken", || upstream.accepted() == PLACES).await;
    let first = tokio::spawn(get(0));
    eventually("it waits for a place", || {
        waiting_for_a_connection(&gateway) == 1
    })
    .await;
    (0..OTHERS).for_each(|_| drop(requests.spawn(get(0))));
    eventually("the others wait for it", || {
        waiting_for_a_connection(&gateway) == OTHERS + 1
    })
    .await;
    first.abort();
    gate.add_permits(PLACES + OTHERS);
    all_are_answered(requests).await;
}

#[tokio::test]
async fn a_worker_that_goes_on_using_anothers_connection_opens_its_own() {
    let service = Service::new(10_000);
    let (gateway, upstream) = start_on(1, &[Stand::new("dmp")], |site, text| {
        text.insert_str(0, "workers = 2\n");
        let service = service.clone();
        let upstream = Upstream::start(&site.pki, &Tls::default(), move |connection, _| {
            service.clone().serve(connection)
        });
        text.push_str(&upstream.service("up", "http = \"h1\""));
        upstream
    });
    // Each comes by a connection of its own, and so to either worker.
    for _ in 0..40 {
        all_are_answered(burst(&gateway, 1)).await;
        settled(&gateway).await;
    }
    assert_eq!(upstream.accepted(), 1);
    eventually_after(&gateway, || upstream.accepted() == 2).await;
    for _ in 0..200 {
        all_are_answered(burst(&gateway, 1)).await;
        settled(&gateway).await;
    }
    assert_eq!(upstream.accepted(), 2, "each has one by now");
}

/// Makes requests until it is so.
async fn eventually_after(gateway: &TestGateway, is_so: impl Fn() -> bool) {
    for _ in 0..1000 {
        if is_so() {
            return;
        }
        all_are_answered(burst(gateway, 1)).await;
        settled(gateway).await;
    }
    panic!("it is not so after a thousand requests");
}

#[tokio::test]
async fn few_requests_in_flight_use_http_1() {
    const FEW: usize = 8;
    let service = Service::new(0);
    let (gateway, upstream) = service.behind(&speaking(BOTH), "");
    for round in 1..=3 {
        let requests = burst(&gateway, FEW);
        eventually("all are under way", || {
            service.arrived() == [round * FEW, 0]
        })
        .await;
        service.release.add_permits(FEW);
        all_are_answered(requests).await;
        settled(&gateway).await;
    }
    assert_eq!(upstream.accepted(), FEW);
}

#[tokio::test]
async fn many_requests_in_flight_move_to_http_2() {
    const MANY: usize = 64;
    let service = Service::new(0);
    let (gateway, upstream) = service.behind(&speaking(BOTH), "");
    let requests = burst(&gateway, MANY);
    eventually("all are under way", || {
        service.arrived().iter().sum::<usize>() == MANY
    })
    .await;
    let [h1, h2] = service.arrived();
    assert!(h1 <= 8 && h2 >= MANY - 8, "{h1} {h2}");
    assert!(upstream.accepted() <= 9, "{}", upstream.accepted());
    service.release.add_permits(MANY);
    all_are_answered(requests).await;
    settled(&gateway).await;
    // It stays there for a while, whatever lies idle.
    service.release.add_permits(3);
    for _ in 0..3 {
        is_answered(&gateway).await;
    }
    assert_eq!(service.arrived(), [h1, h2 + 3]);
}

#[tokio::test]
async fn more_requests_than_connections_are_allowed_share_one() {
    let service = Service::new(0);
    let (gateway, upstream) = service.behind(&speaking(BOTH), "pool.max_connections = 1");
    let first = burst(&gateway, 1);
    eventually("one is under way", || service.arrived() == [1, 0]).await;
    let others = burst(&gateway, 10);
    eventually("the others wait", || {
        waiting_for_a_connection(&gateway) == 10
    })
    .await;
    service.release.add_permits(1);
    all_are_answered(first).await;
    eventually("all are under way", || service.arrived() == [1, 10]).await;
    service.release.add_permits(10);
    all_are_answered(others).await;
    assert_eq!((upstream.accepted(), upstream.most_open()), (2, 1));
}

#[tokio::test]
async fn a_service_that_speaks_http_1_alone_loses_one_connection_at_most_to_the_question() {
    let service = Service::new(1000);
    let (gateway, upstream) = service.behind(&Tls::default(), "pool.max_connections = 2");
    for _ in 0..5 {
        all_are_answered(burst(&gateway, 20)).await;
    }
    assert!(upstream.accepted() <= 3, "{}", upstream.accepted());
}

#[tokio::test]
async fn a_service_that_speaks_http_2_alone_is_reached_with_auto() {
    for versions in [ONLY_12, ONLY_13] {
        let tls = Tls {
            versions,
            ..Tls::h2()
        };
        let service = Service::new(1000);
        let (gateway, upstream) = start_on(2, &[Stand::new("dmp")], |site, text| {
            let service = service.clone();
            let upstream = Upstream::start(&site.pki, &tls, move |connection, _| {
                service.clone().serve(connection)
            });
            text.push_str(&upstream.service("up", "http = \"auto\""));
            upstream
        });
        let get = async |tenant: usize| {
            let request = Request::get("/up/x")
                .header("x-finess", gateway.tenant(tenant).as_str())
                .body(Bytes::new())
                .unwrap();
            let answer = Client::connect(gateway.address()).await.send(request).await;
            assert_eq!(answer.status(), 200, "{answer:?}");
        };
        get(0).await;
        get(0).await;
        // One was refused.
        assert_eq!((upstream.accepted(), upstream.handshakes()), (2, (1, 0)));
        // What one certificate has learnt, the other knows.
        get(1).await;
        assert_eq!((upstream.accepted(), upstream.handshakes()), (3, (2, 0)));
        assert_eq!(service.arrived(), [0, 3]);
    }
}
