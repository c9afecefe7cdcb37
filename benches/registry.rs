//! Reading a table of 150,000 structures: half as much again as the FINESS register of the whole country.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use relais::config::Tenants;
use relais::identity::tenants;
use tempfile::NamedTempFile;

const STRUCTURES: u32 = 150_000;

/// A legal entity has that many sites, about as in the register.
const SITES: u32 = 3;

/// The table as `relais` documents it.
fn own_columns(finess: u32, entity: u32) -> String {
    format!("{finess};{entity};\"Résidence n° {finess}\";médico-social")
}

/// The register's extract, whose lines have many more columns.
fn extract(finess: u32, entity: u32) -> String {
    format!(
        "structureet;{finess};{entity};RESIDENCE;RESIDENCE {finess};;;12;R;DU PORT;;;123;75;PARIS;75000 PARIS;\
         0100000000;;202;Résidences autonomie;4401;Hébergement pour personnes âgées;00000000000000;8730A;01;\
         Etablissement Tarif Libre;;;1990-01-01;1990-01-01;2026-01-01;"
    )
}

/// Such a table in a file of its own.
fn file(header: &str, line: fn(u32, u32) -> String) -> NamedTempFile {
    let mut csv = format!("{header}\n");
    for structure in 0..STRUCTURES {
        // Not in the order of their numbers, as in most exports.
        let finess = 100_000_000 + structure * 7_919 % STRUCTURES;
        csv += &line(finess, 900_000_000 + structure / SITES);
        csv.push('\n');
    }
    let file = NamedTempFile::new().expect("a temporary file can be made");
    std::fs::write(&file, csv).expect("a temporary file can be written to");
    file
}

pub(crate) fn tenants(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tenants");
    group.throughput(Throughput::Elements(STRUCTURES.into()));
    group.sample_size(20);
    let forms = [
        (
            "own columns",
            "finess;legal_entity;name;sector",
            own_columns as fn(_, _) -> _,
        ),
        ("extract", "finess;etalab;111;2026-05-12", extract),
    ];
    for (form, header, line) in forms {
        let mut made = None;
        group.bench_function(form, |bencher| {
            let file = made.get_or_insert_with(|| file(header, line));
            let tenants = Tenants {
                files: vec![file.path().to_owned()],
                inline: Vec::new(),
            };
            bencher.iter(|| {
                let (structures, mistakes) = tenants::load(black_box(&tenants));
                assert!(mistakes.is_empty() && structures.len() == STRUCTURES as usize);
                structures
            });
        });
    }
    group.finish();
}
