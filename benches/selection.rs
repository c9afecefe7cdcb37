//! Which pool serves (tenant, service): the look-up that every request makes.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use relais::config::{Config, Tenants};
use relais::gateway::table::{Table, Terms};
use relais::identity::finess::Finess;
use relais::identity::generation::Generation;
use relais::identity::load::load;
use relais::identity::registry::Registry;
use relais::identity::tenants::Structure;
use relais::metrics::Metrics;
use relais::outbound::Outbound;
use relais::outbound::trust::Anchors;
use relais::simulator::site::{Ports, Site, Stand, sample_finess};

/// Structures in the table of those benchmarks that have one: as many as the FINESS register has.
const STRUCTURES: usize = 150_000;

/// A table in which each tenant has a certificate, and the rest of the structures are sites of tenants.
fn table(site: &Site, structures: usize) -> Table {
    let loaded = Config::load(&site.configuration).expect("a site's configuration is valid");
    let services: Vec<_> = loaded.config.services.into_iter().map(Arc::new).collect();
    let metrics = Metrics::new();
    let anchors = Anchors::of(services.iter().map(|service| &service.trust))
        .expect("a site's trust file is valid");
    let outbound = Outbound::new(&anchors, 1, NonZeroUsize::MIN, Arc::clone(&metrics));
    let identities = load(&loaded.config.identities)
        .expect("a site's folder can be read")
        .identities;
    let entities = site.tenants.iter().copied().cycle();
    let sites = (site.tenants.len()..structures).zip(entities);
    let tenants = Tenants {
        files: Vec::new(),
        inline: sites
            .map(|(number, entity)| (sample_finess(number), site_of(entity)))
            .collect(),
    };
    let (registry, _) = Registry::load(&tenants, Vec::new(), Vec::new());
    let generations = identities.into_iter().map(Generation::new).collect();
    Table::new(
        &services,
        generations,
        Arc::new(registry),
        Arc::default(),
        Terms::default(),
        &outbound,
        &metrics,
    )
}

fn site_of(entity: Finess) -> Structure {
    Structure {
        legal_entity: Some(entity),
        ..Structure::default()
    }
}

fn selection(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("selection");
    for (who, tenants, structures) in [
        ("own certificate, 1 tenant", 1, 0),
        ("own certificate, 1,000 tenants", 1_000, 0),
        ("legal entity's, 150,000 structures", 1_000, STRUCTURES),
    ] {
        let directory = tempfile::tempdir().expect("a temporary folder can be made");
        let site = Site::build(
            directory.path(),
            tenants,
            &[Stand::new("dmp")],
            Ports::default(),
        )
        .expect("the temporary folder can be written to");
        let table = table(&site, structures);
        let asking: Vec<_> = match structures {
            0 => site.tenants.clone(),
            // All over the register, as requests of a whole country would come.
            _ => (0..10_000)
                .map(|number| sample_finess(tenants + number * 7919 % (structures - tenants)))
                .collect(),
        };
        let mut in_turn = asking.iter().copied().cycle();
        group.bench_function(BenchmarkId::from_parameter(who), |bencher| {
            bencher.iter(|| {
                let tenant = in_turn.next();
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
    }
    group.finish();
}

criterion_group!(benches, selection);
criterion_main!(benches);
