//! What is wrong with a table is told on its line, and never makes anybody speak for somebody else.

use super::*;

#[test]
fn one_bad_line_never_loses_the_others() {
    let (structures, mistakes) = bad(format!(
        "finess,legal_entity,name,sector\n\
         {EG},{EJ},,\n\
         60785003,,,\n\
         {OTHER}\n\
         \n\
         010000033,\"{EJ},,\n\
         010000041,06O785003,,\n\
         010000058,{EJ},,oficine\n\
         010000066,x,Name,y\n\
         970100228,{EJ},,officine\n"
    ));
    assert_eq!(
        mistakes,
        [3, 4, 6, 7, 8, 9, 9].map(|line| (line, false)),
        "each on its line"
    );
    assert_eq!(structures.sites(finess(EJ)), 2);
    assert_eq!(
        structures.legal_entity(finess("970100228")),
        Some(finess(EJ))
    );
    for doubtful in ["010000041", "010000058", "010000066"] {
        let structure = structures.get(finess(doubtful)).unwrap();
        assert_eq!((structure.legal_entity, structure.sector), (None, None));
    }
    assert_eq!(
        structures.get(finess(OTHER)),
        None,
        "cut off before its legal entity"
    );
}

#[test]
fn a_lost_leading_zero_is_explained() {
    let message = message("finess,legal_entity\n60785003,\n");
    assert!(message.starts_with("tenants.csv:2: "), "{message}");
    assert!(
        message.contains("leading zero: make the column text"),
        "{message}"
    );
}

#[test]
fn a_quote_left_open_costs_its_line_alone() {
    for cut in ["", "\n", "\r\n", "\r\n\r\n"] {
        let content =
            format!("finess;legal_entity\r\n{OTHER};\"{EJ}\r\n{EG};{EJ}\r\n97010\"0228;\"{cut}");
        let (structures, mistakes) = bad(content);
        assert_eq!(mistakes, [(2, false), (4, false)]);
        assert_eq!((structures.len(), structures.sites(finess(EJ))), (1, 1));
    }
}

#[test]
fn the_same_structure_twice_is_a_warning_unless_it_contradicts_itself() {
    let (structures, mistakes) = bad(format!(
        "finess,legal_entity,name,sector\n{EG},{EJ},A,hospital\n{EG},{EJ},B,hospital\n"
    ));
    assert_eq!(mistakes, [(3, true)]);
    assert_eq!(
        structures.get(finess(EG)).unwrap().name.as_deref(),
        Some("A")
    );
    assert_eq!(structures.legal_entity(finess(EG)), Some(finess(EJ)));
    for second in [
        format!("{EG},{OTHER},A,hospital"),
        format!("{EG},,A,hospital"),
        format!("{EG},{EJ},A,officine"),
        format!("{EG},{EJ},A,"),
    ] {
        let (structures, mistakes) = bad(format!(
            "finess,legal_entity,name,sector\n{OTHER},,,\n{EG},{EJ},A,hospital\n{second}\n"
        ));
        assert_eq!(mistakes, [(4, false)], "{second}");
        assert_eq!(structures.legal_entity(finess(EG)), None, "{second}");
        assert_eq!(structures.sites(finess(EJ)), 0, "{second}");
        assert_eq!(structures.len(), 2);
    }
}

#[test]
fn a_contradiction_names_both_places() {
    let message = message(format!(
        "finess,legal_entity\n{EG},{EJ}\n{OTHER},\n{EG},{OTHER}\n"
    ));
    assert!(message.starts_with("tenants.csv:4: "), "{message}");
    assert!(message.contains("(tenants.csv:2)"), "{message}");
}

#[test]
fn chains_and_cycles_of_legal_entities_attach_nobody() {
    let far = "970100228";
    let (structures, mistakes) = bad(format!(
        "finess,legal_entity\n{EG},{EJ}\n{EJ},{OTHER}\n010000033,{far}\n"
    ));
    assert_eq!(mistakes, [(3, false)]);
    assert!(structures.get(finess(EG)).is_some());
    assert_eq!(structures.legal_entity(finess(EG)), None);
    assert_eq!(structures.legal_entity(finess(EJ)), None);
    assert_eq!(
        (
            structures.sites(finess(EJ)),
            structures.sites(finess(OTHER))
        ),
        (0, 0)
    );
    assert_eq!(
        structures.sites(finess(far)),
        1,
        "others are attached as ever"
    );

    let (structures, mistakes) = bad(format!(
        "finess,legal_entity\n{EG},{EJ}\n{EJ},{OTHER}\n{OTHER},{EG}\n"
    ));
    assert_eq!(mistakes, [2, 3, 4].map(|line| (line, false)));
    assert!(
        structures
            .iter()
            .all(|(_, structure)| structure.legal_entity.is_none())
    );
}

#[test]
fn who_belongs_to_a_contradicted_structure_belongs_to_nobody() {
    let (structures, _) = bad(format!(
        "finess,legal_entity\n{EG},{EJ}\n{EJ},{OTHER}\n{EJ},970100228\n"
    ));
    assert_eq!(structures.legal_entity(finess(EG)), None);
}

#[test]
fn a_file_that_is_no_table_is_one_mistake() {
    for (content, said) in [
        ("", "names no structure"),
        (" \r\n\n", "names no structure"),
        ("finess,legal_entity\n", "names no structure"),
        ("legal_entity;name\n010780054;CH\n", "no column `finess`"),
        ("\0\u{1}\u{2}", "no column `finess`"),
    ] {
        let message = message(content);
        assert!(message.starts_with("tenants.csv:1: "), "{message}");
        assert!(message.contains(said), "{message}");
    }
}

#[test]
fn a_table_without_legal_entities_is_a_warning() {
    let (structures, mistakes) = bad(format!("finess;name\n{EG};A\n"));
    assert_eq!((structures.len(), mistakes), (1, vec![(1, true)]));
}

#[test]
fn a_million_lines_are_enough_and_as_many_mistakes_are_not_listed() {
    let mut content = "finess,legal_entity\n".to_owned();
    content.push_str(&"x,y\n".repeat(1_500));
    let (_, mistakes) = bad(&content);
    assert_eq!(mistakes.len(), 1_001);
    let (_, mistakes) = table(&content);
    assert!(mistakes[1_000].to_string().contains("500 more errors"));
    content.push_str(&"\n".repeat(1_000_000));
    assert!(message(content).contains("more than 1000000 lines"));
}

#[test]
fn names_cannot_forge_lines_of_a_log() {
    let structures = good(format!(
        "finess,legal_entity,name\n{EG},{EJ},A\x1b[2J\u{85}B\n"
    ));
    let name = structures.get(finess(EG)).unwrap().name.as_deref();
    assert_eq!(name, Some("A [2J B"));
}

#[test]
fn a_file_of_more_than_200_mb_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let file: PathBuf = folder.path().join("tenants.csv");
    fs::File::create(&file)
        .unwrap()
        .set_len(200_000_001)
        .unwrap();
    let tenants = Tenants {
        files: vec![file],
        inline: Vec::new(),
    };
    let (structures, mistakes) = load(&tenants);
    assert!(structures.is_empty());
    assert!(matches!(
        mistakes[..],
        [Mistake {
            kind: MistakeKind::TooLarge { .. },
            ..
        }]
    ));
}
