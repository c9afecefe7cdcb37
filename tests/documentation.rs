//! Pages that are made from the code say what the code does. After an intended change:
//! `UPDATE_DOCS=1 cargo test --test documentation`.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

use std::collections::HashSet;
use std::path::Path;

use relais::cli::check;
use relais::identity::rules::Rule;
use relais::services;

fn is_up_to_date(name: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, made).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == made,
        "{name} is not what the code says: UPDATE_DOCS=1 cargo test --test documentation"
    );
}

#[test]
fn the_page_of_rules_is_that_of_the_code() {
    is_up_to_date("docs/rules.md", &check::rules_page());
}

#[test]
fn the_page_of_services_is_that_of_the_code() {
    is_up_to_date("docs/services.md", &services::page());
}

#[test]
fn each_rule_is_listed_once_and_has_a_name_a_source_and_a_way_out() {
    let mut ids = HashSet::new();
    for rule in Rule::ALL {
        assert!(ids.insert(rule.id()), "{rule} is there twice");
        for text in [rule.text(), rule.source(), rule.remedy()] {
            assert!(!text.is_empty(), "{rule}");
        }
        let is_plain = |b: u8| b.is_ascii_lowercase() || b == b'-';
        assert!(rule.id().bytes().all(is_plain), "{rule}");
    }
    // The last of the enumeration: its position says how many there are.
    assert_eq!(Rule::ALL.len(), Rule::FinessKey as usize + 1);
}

/// Everything that is written in Rust below a folder.
fn code_below(folder: &Path, code: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            code_below(&path, code);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            code.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn each_trap_is_answered_by_tests_that_there_are_or_by_a_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = String::new();
    for folder in ["src", "tests"] {
        code_below(&root.join(folder), &mut code);
    }
    let page = std::fs::read_to_string(root.join("docs/security.md")).unwrap();
    for number in 1..=20 {
        let row = page
            .lines()
            .find(|line| line.starts_with(&format!("| T{number} |")));
        let row = row.unwrap_or_else(|| panic!("T{number} is not in docs/security.md"));
        let answer = row.split('|').nth(3).unwrap();
        assert!(answer.trim().len() > 20, "T{number}: {answer}");
    }
    // What is in code font, of one word and long, is the name of a test.
    let names = page.split('`').skip(1).step_by(2).filter(|name| {
        name.len() > 25
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    });
    for name in names {
        let is_there = code.contains(&format!("fn {name}("));
        assert!(
            is_there,
            "docs/security.md names a test that is not there: {name}"
        );
    }
}
