//! What a handshake with a service costs the thread that makes it, and what of that is arithmetic that nobody gets
//! around: the RSA-2048 signature by which the certificate is shown to be ours, and the key exchange.

use std::cell::LazyCell;
use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, SamplingMode};
use relais::outbound::Outbound;
use relais::outbound::lease::{Lease, Origin};
use relais::outbound::pool::Pool;
use relais::outbound::tls::provider;
use relais::services::{HttpVersions, TlsVersions};
use relais::simulator::site::Stand;
use tokio::runtime::Runtime;

use crate::support::{TestGateway, start};
use crate::{cpu, one_thread};

/// Connections that stay open behind the one that is being opened, so that the tickets of the service are read as they
/// are in use: by the task that drives a connection, while others are dialled.
const OPEN: usize = 4;

const STANDS: [Stand; 2] = [
    Stand {
        tls: TlsVersions::Only13,
        http: HttpVersions::H1,
        ..Stand::new("roc")
    },
    Stand {
        tls: TlsVersions::Only12,
        http: HttpVersions::H1,
        ..Stand::new("dmp")
    },
];

/// The pool of the tenant's certificate for that service.
fn pool(gateway: &TestGateway, service: &str) -> Arc<Pool> {
    let table = gateway.app.gateway.table.load();
    let (index, _) = table.service(service).expect("the site has this service");
    let pool = table.pool(Some(gateway.tenant(0)), index);
    Arc::clone(pool.expect("the tenant has a certificate"))
}

/// Opens one connection after the other.
struct Dialler {
    runtime: Runtime,
    outbound: Arc<Outbound>,
    pool: Arc<Pool>,
    /// Whether there is to be no session to resume.
    afresh: bool,
    open: VecDeque<Lease>,
}

impl Dialler {
    fn new(gateway: &TestGateway, service: &str, origin: Origin) -> Self {
        let mut dialler = Self {
            runtime: one_thread(),
            outbound: Arc::clone(&gateway.app.outbound),
            pool: pool(gateway, service),
            afresh: origin == Origin::Full,
            open: VecDeque::new(),
        };
        // The first of a pool is a full one.
        for _ in 0..OPEN {
            dialler.dial();
        }
        dialler
    }

    fn dial(&mut self) -> Origin {
        if self.afresh {
            // Sessions are a pool's.
            self.pool = Pool::new(
                Arc::clone(self.pool.service()),
                self.pool.generation().cloned(),
                Arc::clone(&self.outbound),
            );
        }
        let lease = self.runtime.block_on(self.pool.checkout_fresh(false));
        let lease = lease.expect("the service is there");
        let origin = lease.origin();
        self.open.push_back(lease);
        if self.open.len() > OPEN {
            self.open.pop_front();
        }
        origin
    }
}

pub(crate) fn handshakes(criterion: &mut Criterion) {
    let gateway = LazyCell::new(|| start(1, &STANDS, ""));
    let mut group = criterion.benchmark_group("handshakes");
    group.sample_size(30).sampling_mode(SamplingMode::Flat);
    for (version, service) in [("TLS 1.3", "roc"), ("TLS 1.2", "dmp")] {
        for (kind, origin) in [("full", Origin::Full), ("resumed", Origin::Resumed)] {
            let mut made = None;
            group.bench_function(BenchmarkId::new(kind, version), |bencher| {
                let dialler = made.get_or_insert_with(|| Dialler::new(&gateway, service, origin));
                bencher.iter_custom(|times| {
                    cpu::of_this_thread(times, || assert_eq!(dialler.dial(), origin))
                });
            });
        }
    }
    let signer = LazyCell::new(|| {
        let pool = pool(&gateway, "roc");
        let generation = pool.generation().expect("it is a tenant's");
        let algorithms = provider().signature_verification_algorithms;
        let offered = algorithms.supported_schemes();
        let signer = generation.identity().key().key.choose_scheme(&offered);
        signer.expect("RSA keys can make what is offered")
    });
    group.bench_function("RSA-2048 signature alone", |bencher| {
        // As long as what TLS 1.3 has signed: 64 spaces, 34 bytes of context, a hash of 32 or 48.
        let message = [0x20; 64 + 34 + 48];
        bencher.iter_custom(|times| {
            cpu::of_this_thread(times, || {
                black_box(signer.sign(&message).expect("the key works"));
            })
        });
    });
    // The first is the one that rustls sends a share for, and that the simulator takes.
    let exchange = provider().kx_groups[0];
    let name = format!("key exchange alone ({:?})", exchange.name());
    group.bench_function(name, |bencher| {
        let share = exchange.start().expect("there is randomness");
        let theirs = exchange.start_and_complete(share.pub_key());
        let theirs = theirs.expect("the share is valid").pub_key;
        bencher.iter_custom(|times| {
            cpu::of_this_thread(times, || {
                let own = exchange.start().expect("there is randomness");
                black_box(own.complete(&theirs).expect("the share is valid"));
            })
        });
    });
    group.finish();
}
