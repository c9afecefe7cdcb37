//! Which pool serves (tenant, service): the look-up that every request makes.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use relais::gateway::table::Table;
use relais::identity::generation::Generation;
use relais::identity::load::load;
use relais::identity::registry::Registry;
use relais::metrics::Metrics;
use relais::outbound::Outbound;
use relais::simulator::site::{DEMONSTRATION, Ports, Site};

fn selection(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("selection");
    for tenants in [1, 1_000] {
        let directory =
            std::env::temp_dir().join(format!("relais-bench-{}-{tenants}", std::process::id()));
        let site = Site::build(&directory, tenants, &DEMONSTRATION[..1], Ports::default())
            .expect("the temporary folder can be written to");
        let loaded = relais::config::Config::load(&site.configuration)
            .expect("a site's configuration is valid");
        let services: Vec<_> = loaded.config.services.into_iter().map(Arc::new).collect();
        let metrics = Metrics::new();
        let outbound = Outbound::new(&services, 1, NonZeroUsize::MIN, Arc::clone(&metrics))
            .expect("a site's trust file is valid");
        let identities = load(&loaded.config.identities)
            .expect("a site's folder can be read")
            .identities;
        let table = Table::new(
            &services,
            identities.into_iter().map(Generation::new).collect(),
            Registry::default(),
            Arc::default(),
            &outbound,
            &metrics,
        );
        let mut tenants_in_turn = site.tenants.iter().copied().cycle();
        group.bench_function(BenchmarkId::from_parameter(tenants), |bencher| {
            bencher.iter(|| {
                let tenant = tenants_in_turn.next();
                let (service, _) = table
                    .service(black_box("dmp"))
                    .expect("the site has this service");
                Arc::clone(
                    table
                        .pool(black_box(tenant), service)
                        .expect("each tenant has a certificate"),
                )
            });
        });
        drop(site);
        // What cannot be removed is left to whoever cleans the temporary folder.
        let _ = std::fs::remove_dir_all(&directory);
    }
    group.finish();
}

criterion_group!(benches, selection);
criterion_main!(benches);
