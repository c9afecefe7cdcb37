//! Tables of structures.

use std::cell::LazyCell;

use relais::config::Tenants;
use relais::identity::finess::Finess;
use relais::identity::tenants::{self, Place, Sector};
use tempfile::NamedTempFile;

thread_local! {
    /// Each thread's own, written anew for each input.
    static FILE: LazyCell<NamedTempFile> =
        LazyCell::new(|| NamedTempFile::new().expect("a temporary file can be made"));
}

/// Nobody belongs to a legal entity that the file does not name, and nothing doubtful makes anybody belong to one.
pub fn check(input: &[u8]) {
    let path = FILE.with(|file| file.path().to_owned());
    std::fs::write(&path, input).expect("the file can be written to");
    let from = |files: usize| Tenants {
        files: vec![path.clone(); files],
        inline: Vec::new(),
    };
    let (once, mistakes) = tenants::load(&from(1));
    let (again, _) = tenants::load(&from(1));
    assert_eq!(once, again);
    let is_there = |finess: Finess| {
        let mut windows = input.windows(9);
        windows.any(|window| window == finess.as_str().as_bytes())
            // Behind quotes within a value, for one.
            || input.contains(&b'"')
    };
    let mut before = None;
    for (finess, structure) in once.iter() {
        assert!(before < Some(finess), "in order, each once");
        before = Some(finess);
        assert!(is_there(finess), "{finess}");
        assert_eq!(once.get(finess), Some(structure));
        let entity = once.legal_entity(finess);
        assert_eq!(entity, structure.legal_entity);
        if let Some(entity) = entity {
            assert!(is_there(entity) && entity != finess, "{entity} of {finess}");
            assert!(once.sites(entity) > 0);
        }
        let speaks = entity.filter(|_| structure.sector.is_none_or(Sector::legal_entity_may_speak));
        assert_eq!(once.legal_entity_that_speaks(finess), speaks);
        if let Some(name) = &structure.name {
            assert!(!name.contains(['\n', '\r']), "{name:?}");
        }
    }
    let lines = input.split(|byte| *byte == b'\n').count() as u64;
    for mistake in &mistakes {
        match &mistake.place {
            Place::Line { line, .. } => assert!((1..=lines).contains(line), "{mistake}"),
            Place::Configuration => panic!("the configuration has none: {mistake}"),
        }
    }
    let (twice, _) = tenants::load(&from(2));
    assert_eq!(once.len(), twice.len());
    for (finess, structure) in twice.iter() {
        let entity = structure.legal_entity;
        assert!(
            entity.is_none() || entity == once.legal_entity(finess),
            "{finess}"
        );
    }
}
