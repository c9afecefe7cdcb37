//! The example certificates, as `config/relais.toml` refers to them.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use relais::config::Config;
use relais::gateway::table::{Table, Terms};
use relais::identity::generation::Generation;
use relais::identity::load::{self, Identity, Loaded};
use relais::identity::registry::Registry;
use relais::metrics::Metrics;
use relais::outbound::Outbound;
use relais::outbound::trust::Anchors;
use relais::services::{Environment, Service};
use relais::simulator::site::sample_finess;

fn example() -> (Vec<Service>, Loaded) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/relais.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    // Not from this process's environment, which may override what the file says.
    let loaded =
        Config::from_toml(&text, &file, Vec::new()).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let identities = load::load(&loaded.config.identities).unwrap();
    (loaded.config.services, identities)
}

#[test]
fn every_file_of_the_example_is_accepted() {
    let (_, loaded) = example();
    assert!(loaded.problems.is_empty(), "{:#?}", loaded.problems);
    assert_eq!(loaded.identities.len(), 4);
}

#[test]
fn each_structure_of_the_example_has_a_certificate_for_each_service() {
    let (services, loaded) = example();
    assert!(services.len() >= 2);
    let services: Vec<_> = services.into_iter().map(Arc::new).collect();
    let generations = (loaded.identities.into_iter())
        .map(Generation::new)
        .collect();
    let metrics = Metrics::new();
    let anchors = Anchors::of(services.iter().map(|service| &service.trust)).unwrap();
    let outbound = Outbound::new(&anchors, 1, NonZeroUsize::MIN, Arc::clone(&metrics));
    let registry = Registry::default();
    let table = Table::new(
        &services,
        generations,
        Arc::new(registry),
        Arc::default(),
        Terms::default(),
        &outbound,
        &metrics,
    );
    for finess in [sample_finess(0), sample_finess(1)] {
        for (index, service) in services.iter().enumerate() {
            let pool = (table.choose(finess, index))
                .unwrap_or_else(|refusal| panic!("{finess} for {}: {refusal}", service.name));
            // The chain without its root, which services have.
            let chosen = pool.generation().unwrap();
            assert_eq!(chosen.identity().key().cert.len(), 2, "{finess}");
        }
    }
}

#[test]
fn the_example_is_of_the_test_environment_and_does_not_rot() {
    let (_, loaded) = example();
    // 2049-12-01.
    let late = 2_521_929_600;
    for identity in &loaded.identities {
        let Identity { profile, path, .. } = &**identity;
        assert_eq!(profile.environment, Some(Environment::Test), "{path:?}");
        assert!(profile.is_valid_at(late), "{path:?}");
    }
}
