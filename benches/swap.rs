//! A table of 10,000 certificates in which one is replaced: what making it costs, and what readers notice when it is put
//! in the place of the one before.

use std::cell::LazyCell;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use criterion::{BenchmarkId, Criterion};
use relais::app::{self, App};
use relais::config::{Config, Identities};
use relais::gateway::table::Table;
use relais::identity::finess::Finess;
use relais::identity::generation::Generation;
use relais::identity::load;
use relais::simulator::site::{Ports, Site, Stand};

use crate::unless_tried_out;

/// The table after this one, in which a certificate is of another generation.
fn next(app: &App, before: &Table, renewed: &Arc<Generation>) -> Table {
    let fingerprint = |one: &Generation| one.identity().profile.fingerprint;
    let mut contents = before.contents();
    let mut generations = contents.generations.iter_mut();
    let own = generations.find(|one| fingerprint(one) == fingerprint(renewed));
    *own.expect("it was loaded") = Arc::clone(renewed);
    before.renewed(contents, &app.outbound, None).0
}

/// A gateway that is not running, and its certificates.
struct Scene {
    app: Arc<App>,
    tenants: Vec<Finess>,
    /// Another generation of the first tenant's certificate.
    renewed: Arc<Generation>,
    /// The table before and after it is replaced.
    tables: [Arc<Table>; 2],
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary folder can be made");
        let tenants = unless_tried_out(10_000);
        let stands = [Stand::new("dmp")];
        let site = Site::build(directory.path(), tenants, &stands, Ports::default())
            .expect("the temporary folder can be written to");
        let config = Config::load(&site.configuration)
            .expect("a site's configuration is valid")
            .config;
        let first = Identities {
            directory: config.identities.directory.join(site.tenants[0].as_str()),
            ..config.identities.clone()
        };
        let bound = app::bind(config).expect("a site's gateway can be bound");
        let mut loaded = load::load(&first).expect("a site's folder can be read");
        let renewed = loaded.identities.pop().expect("the tenant has one");
        let (app, renewed) = (Arc::clone(bound.app()), Generation::new(renewed));
        let before = app.gateway.table.load_full();
        let after = Arc::new(next(&app, &before, &renewed));
        Self {
            app,
            tenants: site.tenants,
            renewed,
            tables: [after, before],
        }
    }

    /// What a request does.
    fn look_up(&self, tenant: Finess) {
        let table = self.app.gateway.table.load_full();
        let (service, _) = table
            .service(black_box("dmp"))
            .expect("the site has this service");
        let pool = table.pool(black_box(Some(tenant)), service);
        black_box(Arc::clone(pool.expect("each tenant has a certificate")));
    }
}

pub(crate) fn swap(criterion: &mut Criterion) {
    let scene = LazyCell::new(Scene::new);
    let mut group = criterion.benchmark_group("swap");
    for (when, is_swapped) in [("at rest", false), ("while tables are swapped", true)] {
        group.bench_function(BenchmarkId::new("look-up", when), |bencher| {
            let scene = &*scene;
            let mut in_turn = scene.tenants.iter().copied().cycle();
            let done = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    // Far more often than any rotation.
                    while is_swapped && !done.load(Ordering::Relaxed) {
                        for table in &scene.tables {
                            scene.app.gateway.table.store(Arc::clone(table));
                        }
                    }
                });
                bencher.iter(|| in_turn.next().map(|tenant| scene.look_up(tenant)));
                done.store(true, Ordering::Relaxed);
            });
        });
    }
    group.sample_size(20);
    group.bench_function("making the next table", |bencher| {
        let scene = &*scene;
        bencher.iter_with_large_drop(|| next(&scene.app, &scene.tables[1], &scene.renewed));
    });
    group.finish();
}
