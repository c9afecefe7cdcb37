//! The example certificates, as `config/relais.toml` refers to them.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use relais::config::Config;
use relais::identity::finess::Finess;
use relais::identity::generation::Generation;
use relais::identity::load::{self, Identity, Loaded};
use relais::identity::select::select;
use relais::identity::states::now;
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

fn by_structure(identities: Vec<Identity>) -> BTreeMap<Finess, Vec<Arc<Generation>>> {
    let mut structures: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for identity in identities {
        let structure = identity.profile.structure.as_ref().unwrap().to_string();
        let finess: Finess = structure.strip_prefix('1').unwrap().parse().unwrap();
        structures
            .entry(finess)
            .or_default()
            .push(Generation::new(identity));
    }
    structures
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
    let structures = by_structure(loaded.identities);
    assert!(services.len() >= 2);
    let expected = [sample_finess(0), sample_finess(1)];
    assert_eq!(structures.keys().copied().collect::<Vec<_>>(), expected);
    for (finess, generations) in &structures {
        for service in &services {
            let chosen = select(generations, service, now())
                .unwrap_or_else(|refusal| panic!("{finess} for {}: {refusal}", service.name));
            // The chain without its root, which services have.
            assert_eq!(chosen.identity().key.cert.len(), 2, "{finess}");
        }
    }
}

#[test]
fn the_example_is_of_the_test_environment_and_does_not_rot() {
    let (_, loaded) = example();
    // 2049-12-01.
    let late = 2_521_929_600;
    for Identity { profile, path, .. } in &loaded.identities {
        assert_eq!(profile.environment, Some(Environment::Test), "{path:?}");
        assert!(profile.is_valid_at(late), "{path:?}");
    }
}
