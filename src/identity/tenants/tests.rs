//! Promises about tables of structures, and above all about bad ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;

use super::gather::Gathered;
use super::*;

mod bad;

const EJ: &str = "010780054";
const EG: &str = "010000024";
const OTHER: &str = "060785003";

fn finess(text: &str) -> Finess {
    text.parse().unwrap()
}

/// The table that the content of a file makes.
fn table(content: impl AsRef<[u8]>) -> (Structures, Vec<Mistake>) {
    let mut gathered = Gathered::default();
    let path: Arc<Path> = Path::new("tenants.csv").into();
    if let Err(kind) = read::table(&path, content.as_ref().to_vec(), &mut gathered) {
        gathered.mistake(Place::Line { path, line: 1 }, kind);
    }
    gathered.finish()
}

/// The same, where nothing is wrong with it.
fn good(content: impl AsRef<[u8]>) -> Structures {
    let (structures, mistakes) = table(content);
    assert!(mistakes.is_empty(), "{mistakes:?}");
    structures
}

/// The same, where something is: each line, and whether it is only a warning.
fn bad(content: impl AsRef<[u8]>) -> (Structures, Vec<(u64, bool)>) {
    let (structures, mistakes) = table(content);
    let places = mistakes.iter().map(|mistake| {
        assert!(!mistake.hint().is_empty());
        assert!(mistake.to_string().len() < 500, "{mistake}");
        match mistake.place {
            Place::Line { line, .. } => (line, mistake.is_warning()),
            Place::Configuration => panic!("{mistake}"),
        }
    });
    let places = places.collect();
    (structures, places)
}

fn message(content: impl AsRef<[u8]>) -> String {
    let (_, mistakes) = table(content);
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    mistakes[0].to_string()
}

#[test]
fn a_site_has_its_legal_entity_name_and_sector() {
    let structures = good(format!(
        "finess,legal_entity,name,sector\n{EG},{EJ},\"CH, Fleyriat\",hospital\n{EJ},,,\n"
    ));
    let site = structures.get(finess(EG)).unwrap();
    assert_eq!(site.name.as_deref(), Some("CH, Fleyriat"));
    assert_eq!(site.sector, Some(Sector::Hospital));
    assert_eq!(structures.legal_entity(finess(EG)), Some(finess(EJ)));
    assert_eq!(structures.legal_entity(finess(EJ)), None);
    assert_eq!(structures.get(finess(EJ)), Some(&Structure::default()));
    assert_eq!(
        (structures.sites(finess(EJ)), structures.sites(finess(EG))),
        (1, 0)
    );
    assert_eq!(structures.get(finess(OTHER)), None);
    let numbers: Vec<_> = structures.iter().map(|(finess, _)| finess).collect();
    assert_eq!(numbers, [finess(EG), finess(EJ)], "in order");
}

#[test]
fn separators_marks_line_ends_order_and_blanks_do_not_matter() {
    let expected = good(format!("finess,legal_entity,name\n{EG},{EJ},Été\n"));
    for content in [
        format!("\u{FEFF}nofinesset;rs;nofinessej\r\n{EG};Été;{EJ}\r\n"),
        format!("\n\n FINESS\tautre\tname\tLegal_Entity \n\n{EG}\t\"x\"\tÉté\t {EJ}\n\t\t\t\n"),
        format!("legal_entity,finess,name\n{EJ},\"{EG}\",\"Été\""),
        format!(
            "\u{FEFF}\"finess\";\"legal_entity\";\"name\"\r\n\r\n\"{EG}\";\"{EJ}\";\"Été\"\r\n;;\r\n"
        ),
    ] {
        let found = good(&content);
        assert_eq!(
            found.iter().collect::<Vec<_>>(),
            expected.iter().collect::<Vec<_>>(),
            "{content}"
        );
    }
}

#[test]
fn latin_1_and_windows_1252_names_are_read() {
    let mut content = format!("nofinesset;nofinessej;name\n{EG};{EJ};H").into_bytes();
    content.extend(b"\xD4PITAL DU C\x8CUR \x80 \xE9");
    let structures = good(content);
    let name = structures.get(finess(EG)).unwrap().name.as_deref();
    assert_eq!(name, Some("HÔPITAL DU CŒUR € é"));
}

#[test]
fn the_extract_tells_pharmacies_from_the_rest() {
    let line = |number: &str, category: &str| {
        format!(
            "structureet;{number};{EJ};NOM;;;;1;R;X;;;001;01;AIN;01000 X;;;{category};Libelle\n"
        )
    };
    let structures = good(line(EG, "620") + &line(OTHER, "355"));
    let sector = |text| structures.get(finess(text)).unwrap().sector;
    assert_eq!((sector(EG), sector(OTHER)), (Some(Sector::Officine), None));
}

#[test]
fn the_extract_of_the_register_is_read_as_it_is_published() {
    let rest = ";;;900;RTE;DE PARIS;;;451;01;AIN;01440 VIRIAT;;;355;Centre Hospitalier (C.H.)";
    let lines = format!(
        "structureet;{EG};{EJ};CH;\"CH \"\"FLEYRIAT\"\"\"{rest}\n\
         structureet;{OTHER};{EJ};COURT;{rest}\n\
         geolocalisation;{EG};1.0;2.0;1,ATLASANTE;2026-05-12\n"
    );
    for content in [format!("finess;etalab;111;2026-05-12\n{lines}"), lines] {
        let structures = good(content);
        assert_eq!((structures.len(), structures.sites(finess(EJ))), (2, 2));
        let name = |text| structures.get(finess(text)).unwrap().name.as_deref();
        assert_eq!(
            (name(EG), name(OTHER)),
            (Some("CH \"FLEYRIAT\""), Some("COURT"))
        );
    }
    let of_entities = format!("finess;etalab;111;2026-05-12\nstructureej;{EJ};CH;;\n");
    assert!(message(of_entities).contains("names no structure"));
}

#[test]
fn a_structure_that_is_its_own_legal_entity_is_a_legal_entity() {
    let structures = good(format!("finess,legal_entity\n{EJ},{EJ}\n{EG},{EJ}\n"));
    assert_eq!(structures.legal_entity(finess(EJ)), None);
    assert_eq!(
        (
            structures.legal_entity(finess(EG)),
            structures.sites(finess(EJ))
        ),
        (Some(finess(EJ)), 1)
    );
}

#[test]
fn files_and_entries_of_the_configuration_make_one_table() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tenants.csv");
    fs::write(
        &file,
        format!("finess,legal_entity\n{EG},{OTHER}\n970100228,{EJ}\n"),
    )
    .unwrap();
    let site = Structure {
        legal_entity: Some(finess(EJ)),
        ..Structure::default()
    };
    let tenants = Tenants {
        files: vec![
            file,
            folder.path().join("nowhere.csv"),
            folder.path().to_owned(),
        ],
        inline: vec![(finess(EG), site), (finess(OTHER), Structure::default())],
    };
    let (structures, mistakes) = load(&tenants);
    assert_eq!(structures.len(), 3);
    assert_eq!(
        structures.legal_entity(finess(EG)),
        None,
        "contradicted by the file"
    );
    let said: Vec<String> = mistakes.iter().map(Mistake::to_string).collect();
    assert_eq!(said.len(), 3);
    assert!(said[0].starts_with(&format!(
        "{}:1: not a regular file",
        folder.path().display()
    )));
    assert!(said[1].contains("nowhere.csv:1: the file cannot be read"));
    assert!(said[2].contains("tenants.csv:2: ") && said[2].contains("([[tenants]])"));
}

proptest! {
    #[test]
    fn no_content_makes_the_reader_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        near in "(finess[;,]legal_entity[;,]sector\n|structureet;)?([0-9]{8,9}|[;,\"\t\r\n é\u{FEFF}]|structureet;){0,40}",
    ) {
        for content in [bytes.as_slice(), near.as_bytes()] {
            let (structures, mistakes) = table(content);
            prop_assert!(!structures.is_empty() || !mistakes.is_empty());
            for mistake in mistakes {
                prop_assert!(!mistake.to_string().is_empty());
            }
        }
    }

    #[test]
    fn whatever_is_attached_is_attached_by_one_level(
        pairs in prop::collection::vec((0..8_u8, 0..8_u8), 1..12),
    ) {
        let number = |n: u8| format!("01000000{n}");
        let lines: String = pairs.iter().map(|&(a, b)| format!("{},{}\n", number(a), number(b))).collect();
        let (structures, _) = table(format!("finess,legal_entity\n{lines}"));
        for (site, structure) in structures.iter() {
            if let Some(entity) = structure.legal_entity {
                prop_assert_eq!(structures.legal_entity(entity), None);
                prop_assert_eq!(structures.sites(site), 0);
            }
        }
        let attached = structures.iter().filter(|(_, structure)| structure.legal_entity.is_some()).count();
        prop_assert_eq!((0..8).map(|n| structures.sites(finess(&number(n)))).sum::<usize>(), attached);
    }
}
