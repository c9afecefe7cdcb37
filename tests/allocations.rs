//! What the path of a request costs in allocations: a guard against its growing heavier that times nothing.
//!
//! What is counted is allocated on the thread that serves, which is the test's own: applications and services have
//! others.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

#[path = "allocations/application.rs"]
mod application;
#[path = "allocations/bare.rs"]
mod bare;
mod support;

use std::hint::black_box;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use application::Application;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use relais::gateway::Entrance;
use relais::gateway::address::{self, Address, Bound, Said, X_FINESS};
use relais::gateway::credentials::Credentials;
use relais::gateway::headers::Overview;
use relais::gateway::table::Table;
use relais::identity::finess::Finess;
use relais::inbound::listener::Listening;
use relais::inbound::{Entry, Inbound};
use relais::outbound::error::Error;
use relais::outbound::lease::Origin;
use relais::services::HttpVersions;
use relais::simulator::site::{Ports, Site, Stand, sample_finess};
use support::{DEADLINE, TestGateway, settled, start};
use tokio::runtime::{self, Runtime};
use tokio::sync::{Semaphore, watch};

/// Requests that are counted together, so that what is allocated for one in many does not count: the metrics take a
/// block for each 64 values.
const REQUESTS: usize = 50;

/// How often they are counted. How bytes fall into packets can only add allocations, so the fewest are what the path
/// itself needs.
const ROUNDS: usize = 4;

/// Allocations for each request that may come of what is made for one in many.
const RARE: f64 = 0.25;

/// Bytes in the body of a request that has one.
const BODY: usize = 1024;

/// A way through the gateway.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// Whether applications speak HTTP/2.
    h2c: bool,
    /// What the service speaks.
    service: HttpVersions,
    /// Bytes in a request's body.
    body: usize,
    /// Allocations that the gateway may make for a request over those of the bare forwarder: those that it makes. A
    /// ceiling, to be lowered whenever it can be, and never to be raised.
    added: f64,
}

/// What applications and services speak, and what may be added without a body and with one.
const WAYS: [(bool, HttpVersions, [f64; 2]); 4] = [
    (false, HttpVersions::H1, [3.0, 4.0]),
    (false, HttpVersions::H2, [3.0, 4.0]),
    (true, HttpVersions::H1, [3.0, 4.0]),
    (true, HttpVersions::H2, [3.0, 4.0]),
];

/// A table with a structure, and a site of it that has no certificate.
fn table(site: Finess) -> Table {
    let folder = tempfile::tempdir().unwrap();
    let built = Site::build(folder.path(), 1, &[Stand::new("dmp")], Ports::default()).unwrap();
    built.table([(site, built.tenants[0])])
}

/// Reads a head as the gateway does.
fn read<'a>(headers: &HeaderMap, bound: &'a Bound) -> Address<'a> {
    let overview = Overview::of(headers);
    let credentials = Credentials::read(headers, overview).unwrap();
    let said = Said::read(headers, overview, &credentials).unwrap();
    address::read(black_box("/dmp/v2/services"), said, bound).unwrap()
}

#[test]
fn choosing_a_certificate_allocates_nothing() {
    let site = sample_finess(9);
    let table = table(site);
    let anywhere = Bound::default();
    for tenant in [sample_finess(0), site] {
        let mut headers = HeaderMap::new();
        headers.insert(X_FINESS, HeaderValue::from_str(tenant.as_str()).unwrap());
        let choose = || {
            let read = read(&headers, &anywhere);
            let (service, _) = table.service(read.service).unwrap();
            black_box(Arc::clone(table.pool(read.tenant, service).unwrap()));
        };
        let counted = allocation_counter::measure(choose);
        assert_eq!(
            (counted.count_total, counted.bytes_total),
            (0, 0),
            "{tenant}"
        );
    }
}

fn one_thread() -> Runtime {
    runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Allocations that `serve` makes for each request, on the thread that serves it.
fn for_each_request<F>(way: Way, tenant: Finess, serve: impl FnOnce(TcpListener) -> F) -> f64
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let body = Bytes::from(vec![b'x'; way.body]);
    let application = Application::start(listener.local_addr().unwrap(), way.h2c, tenant, body);
    let runtime = one_thread();
    runtime.spawn(serve(listener));
    let round = || {
        let sent = application.send(REQUESTS);
        let counted = allocation_counter::measure(|| {
            runtime.block_on(sent).unwrap();
        });
        counted.count_total
    };
    // The first round opens connections, and has buffers grow to their size.
    round();
    (0..ROUNDS).map(|_| round()).min().unwrap() as f64 / REQUESTS as f64
}

fn gateway(way: Way, gateway: &TestGateway) -> f64 {
    // The gateway's own worker, on a thread of the test.
    let entrance = Entrance::new(&gateway.app.gateway, 0);
    let inbound = Inbound {
        room: Arc::new(Semaphore::new(1)),
        request_head: entrance.gateway.request_head,
        head_timeout: DEADLINE,
        metrics: Arc::clone(&entrance.gateway.metrics),
    };
    for_each_request(way, gateway.tenant(0), |listener| async {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let (_stop, stopped) = watch::channel(false);
        inbound
            .serve(
                vec![Entry {
                    listening: Listening::Tcp(listener),
                    security: None,
                    authority: None,
                    answer: entrance,
                }],
                stopped,
                DEADLINE,
            )
            .await;
    })
}

fn bare(way: Way, gateway: &TestGateway) -> f64 {
    let tenant = gateway.tenant(0);
    let site = &gateway.site;
    let folder = site.directory.join("certs").join(tenant.as_str());
    let is_h2 = way.service == HttpVersions::H2;
    let tls = bare::tls(site.pki.root_der(), &folder.join("auth_cli.pem"), is_h2);
    let upstream = site.simulators[0].1.address;
    for_each_request(way, tenant, |listener| {
        bare::forward(listener, way.h2c, upstream, tls)
    })
}

#[test]
fn a_request_costs_no_more_allocations_than_it_did_and_less_than_twice_those_of_forwarding_it() {
    for (h2c, service, added) in WAYS {
        let stand = Stand {
            http: service,
            ..Stand::new("dmp")
        };
        let running = start(1, &[stand], "");
        for (body, added) in [0, BODY].into_iter().zip(added) {
            let way = Way {
                h2c,
                service,
                body,
                added,
            };
            let (gateway, bare) = (gateway(way, &running), bare(way, &running));
            println!("{way:?}: {gateway} in the gateway, {bare} in the bare forwarder");
            // What is made for one request in many does not count: the metrics take a block for each 64 values.
            let more = gateway - bare - RARE;
            assert!(more <= way.added, "{more} more than {bare}: {way:?}");
            assert!(more <= bare, "{more} more than {bare}: {way:?}");
        }
    }
}

/// A connection that can be had at once.
fn taken_at_once<T>(checkout: impl Future<Output = Result<T, Error>>) -> T {
    match pin!(checkout).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(lease) => lease.unwrap(),
        Poll::Pending => panic!("an idle connection is not waited for"),
    }
}

#[test]
fn taking_an_idle_connection_and_giving_it_back_allocates_nothing() {
    let anywhere = Bound::default();
    for http in [HttpVersions::H1, HttpVersions::H2] {
        let stand = Stand {
            http,
            ..Stand::new("dmp")
        };
        let gateway = start(1, &[stand], "");
        let mut headers = HeaderMap::new();
        let tenant = HeaderValue::from_str(gateway.tenant(0).as_str()).unwrap();
        headers.insert(X_FINESS, tenant);
        let table = gateway.app.gateway.table.load_full();
        let choose = || {
            let read = read(&headers, &anywhere);
            let (service, _) = table.service(read.service).unwrap();
            table.serving(table.pool(read.tenant, service).unwrap())
        };
        let runtime = one_thread();
        runtime.block_on(async {
            choose().checkout(false).await.unwrap().give_back();
            settled(&gateway).await;
        });
        let counted = allocation_counter::measure(|| {
            for _ in 0..REQUESTS {
                let lease = taken_at_once(choose().checkout(false));
                assert_eq!(lease.origin(), Origin::Reused);
                lease.give_back();
            }
        });
        assert_eq!(counted.count_total, 0, "{http:?}");
    }
}

#[test]
fn the_counter_counts() {
    let counted = allocation_counter::measure(|| drop(black_box(Box::new(1))));
    assert_eq!(counted.count_total, 1);
}
