//! Taking an idle connection and giving it back, alone and with others at it.

use std::cell::LazyCell;
use std::hint::black_box;
use std::pin::pin;
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion};
use relais::outbound::lease::Lease;
use relais::outbound::pool::Pool;
use relais::services::HttpVersions;
use relais::simulator::site::Stand;
use tokio::runtime::Runtime;

use crate::one_thread;
use crate::support::{TestGateway, settled, start_with};

/// Threads that take connections at once, at most.
const THREADS: usize = 4;

/// A pool with an idle connection for each thread.
struct Scene {
    gateway: TestGateway,
    /// Drives the connections, which have nothing to do.
    runtime: Runtime,
    pool: Arc<Pool>,
}

impl Scene {
    fn new(http: HttpVersions) -> Self {
        let stand = Stand {
            http,
            ..Stand::new("dmp")
        };
        let gateway = start_with(1, &[stand], |text| {
            text.insert_str(0, &format!("workers = {THREADS}\n"));
        });
        let pool = chosen(&gateway);
        let runtime = one_thread();
        runtime.block_on(async {
            let mut leases = Vec::new();
            for _ in 0..THREADS {
                leases.push(pool.checkout_fresh(false).await.expect("it has room"));
            }
            leases.into_iter().for_each(Lease::give_back);
            settled(&gateway).await;
        });
        Self {
            gateway,
            runtime,
            pool,
        }
    }

    /// How long `rounds` take with so many threads, each of which prefers connections of its own or of all.
    fn contend(&self, threads: usize, own: bool, rounds: u64) -> Duration {
        let leases: Vec<_> = (0..THREADS).map(|_| taken(&self.pool)).collect();
        let begin = Barrier::new(threads);
        let work = |index: usize, lease: Option<Lease>| {
            let _within = self.runtime.enter();
            self.gateway
                .app
                .outbound
                .add_worker(if own { index } else { 0 });
            lease.into_iter().for_each(Lease::give_back);
            begin.wait();
            let begun = Instant::now();
            for _ in 0..rounds {
                taken(&self.pool).give_back();
            }
            begun.elapsed()
        };
        thread::scope(|scope| {
            let mut leases = leases.into_iter();
            let working: Vec<_> = (0..threads)
                .map(|index| {
                    let lease = leases.next();
                    scope.spawn(move || work(index, lease))
                })
                .collect();
            // The rest is for nobody this time.
            let took = working.into_iter().map(|one| one.join().expect("no panic"));
            let longest = took.max();
            leases.for_each(Lease::give_back);
            longest.unwrap_or_default()
        })
    }
}

/// What a request of the site's tenant looks up.
fn chosen(gateway: &TestGateway) -> Arc<Pool> {
    let table = gateway.app.gateway.table.load();
    let (service, _) = table
        .service(black_box("dmp"))
        .expect("the site has this service");
    let pool = table
        .pool(black_box(Some(gateway.tenant(0))), service)
        .expect("the tenant has a certificate");
    table.serving(pool)
}

/// A connection that lies idle, and is had without waiting.
fn taken(pool: &Arc<Pool>) -> Lease {
    match pin!(pool.checkout(false)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(lease) => lease.expect("the service is there"),
        Poll::Pending => panic!("there is a connection for each thread"),
    }
}

pub(crate) fn checkout(criterion: &mut Criterion) {
    let h1 = LazyCell::new(|| Scene::new(HttpVersions::H1));
    let h2 = LazyCell::new(|| Scene::new(HttpVersions::H2));
    let mut group = criterion.benchmark_group("checkout");
    group.bench_function("look-up, checkout, check-in", |bencher| {
        let gateway = &h1.gateway;
        bencher.iter(|| taken(&chosen(gateway)).give_back());
    });
    group.bench_function("checkout, check-in of a stream", |bencher| {
        let pool = &h2.pool;
        bencher.iter(|| taken(pool).give_back());
    });
    for (whose, own) in [("own connections", true), ("the same connections", false)] {
        for threads in [1, 2, THREADS] {
            let id = BenchmarkId::new(
                whose,
                match threads {
                    1 => "1 thread".to_owned(),
                    _ => format!("{threads} threads"),
                },
            );
            group.bench_function(id, |bencher| {
                let scene = &*h1;
                bencher.iter_custom(|rounds| scene.contend(threads, own, rounds));
            });
        }
    }
    group.finish();
}
