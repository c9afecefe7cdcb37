//! Which pool serves (tenant, service): the look-up that every request makes.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion};
use relais::gateway::table::Table;
use relais::identity::finess::Finess;
use relais::simulator::site::{Ports, Site, Stand, sample_finess};

use crate::unless_tried_out;

/// Structures in the table of those benchmarks that have one: as many as the FINESS register has.
const STRUCTURES: usize = 150_000;

/// A table of tenants with certificates and so many structures in all, and who asks.
fn scene(tenants: usize, structures: usize) -> (Table, Vec<Finess>) {
    let tenants = unless_tried_out(tenants);
    let directory = tempfile::tempdir().expect("a temporary folder can be made");
    let stands = [Stand::new("dmp")];
    let site = Site::build(directory.path(), tenants, &stands, Ports::default())
        .expect("the temporary folder can be written to");
    // All structures that have no certificate are sites of those that have one.
    let entities = site.tenants.iter().copied().cycle();
    let table = site.table((tenants..structures).map(sample_finess).zip(entities));
    let asking = match structures {
        0 => site.tenants.clone(),
        // All over the register, as requests of a whole country would come.
        _ => (0..10_000)
            .map(|number| sample_finess(tenants + number * 7919 % (structures - tenants)))
            .collect(),
    };
    (table, asking)
}

pub(crate) fn selection(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("selection");
    for (who, tenants, structures) in [
        ("own certificate, 1 tenant", 1, 0),
        ("own certificate, 1,000 tenants", 1_000, 0),
        ("legal entity's, 150,000 structures", 1_000, STRUCTURES),
    ] {
        let mut made = None;
        group.bench_function(BenchmarkId::from_parameter(who), |bencher| {
            let (table, asking) = made.get_or_insert_with(|| scene(tenants, structures));
            let mut in_turn = asking.iter().copied().cycle();
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
