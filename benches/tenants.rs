//! Reading a table of 150,000 structures: half as much again as the FINESS register of the whole country.

use std::fmt::Write as _;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use relais::config::Tenants;
use relais::identity::tenants;

const STRUCTURES: u32 = 150_000;

/// A legal entity has that many sites, about as in the register.
const SITES: u32 = 3;

fn tenants(criterion: &mut Criterion) {
    let mut csv = "finess;legal_entity;name;sector\n".to_owned();
    for structure in 0..STRUCTURES {
        let entity = 900_000_000 + structure / SITES;
        // Not in the order of their numbers, as in most exports.
        let finess = 100_000_000 + structure.wrapping_mul(7_919) % STRUCTURES;
        writeln!(
            csv,
            "{finess};{entity};\"Résidence n° {structure}\";médico-social"
        )
        .expect("writing to a String does not fail");
    }
    let file =
        std::env::temp_dir().join(format!("relais-bench-tenants-{}.csv", std::process::id()));
    std::fs::write(&file, csv).expect("the temporary folder can be written to");
    let tenants = Tenants {
        files: vec![file.clone()],
        inline: Vec::new(),
    };
    let mut group = criterion.benchmark_group("tenants");
    group.throughput(Throughput::Elements(STRUCTURES.into()));
    group.sample_size(20);
    group.bench_function("load", |bencher| {
        bencher.iter(|| {
            let (structures, mistakes) = tenants::load(black_box(&tenants));
            assert!(mistakes.is_empty() && structures.len() == STRUCTURES as usize);
            structures
        });
    });
    group.finish();
    // What cannot be removed is left to whoever cleans the temporary folder.
    let _ = std::fs::remove_file(&file);
}

criterion_group!(benches, tenants);
criterion_main!(benches);
