//! Promises about the reference configuration; `tests/config.rs` has the ones about messages.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::load::read;
use super::{Config, Loaded};

const REFERENCE: &str = include_str!("../../config/relais.reference.toml");
const MINIMAL: &str = include_str!("../../config/relais.toml");

/// Shaped like a certificate as far as PEM goes, which is as far as the configuration looks.
const PEM: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";

/// A folder with everything that the reference names.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("certs")).unwrap();
    fs::create_dir(folder.path().join("trust")).unwrap();
    fs::write(folder.path().join("trust/igc-sante.pem"), PEM).unwrap();
    fs::write(folder.path().join("passwords.txt"), "secret\n").unwrap();
    fs::create_dir(folder.path().join("tls")).unwrap();
    for file in [
        "relais.pem",
        "relais.key",
        "clients.pem",
        "clients.crl",
        "relais-ca.pem",
        "relais-ca.key",
    ] {
        fs::write(folder.path().join("tls").join(file), PEM).unwrap();
    }
    fs::write(folder.path().join("tenants.csv"), "finess\n").unwrap();
    let file = folder.path().join("relais.toml");
    (folder, file)
}

/// The reference with every optional key put in force.
fn everything() -> String {
    let in_force = |line: &str| {
        let bare = line.strip_prefix("# ")?;
        let key = bare
            .split(" = ")
            .next()
            .filter(|key| key.len() < bare.len());
        let is_key =
            key.is_some_and(|key| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        (is_key || bare.starts_with('[') && bare.ends_with(']')).then(|| bare.to_owned())
    };
    let lines: Vec<String> = REFERENCE
        .lines()
        .map(|line| in_force(line).unwrap_or_else(|| line.to_owned()))
        .collect();
    lines.join("\n")
}

fn load(text: &str, file: &Path) -> Loaded {
    Config::from_toml(text, file, []).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Key paths, with `*` for the names of services and `[]` for positions.
fn patterns(table: &toml::Table, path: &str, into: &mut BTreeSet<String>) {
    for (key, value) in table {
        let path = match path {
            "" => key.clone(),
            "services" => "services.*".to_owned(),
            path => format!("{path}.{key}"),
        };
        // The reader asks for what is below `services`, not for the names there.
        if path != "services.*" {
            into.insert(path.clone());
        }
        match value {
            toml::Value::Table(table) => patterns(table, &path, into),
            toml::Value::Array(items) => {
                let tables = items.iter().filter_map(toml::Value::as_table);
                tables.for_each(|table| patterns(table, &format!("{path}[]"), into));
            }
            _ => (),
        }
    }
}

#[test]
fn the_reference_describes_every_key_and_no_other() {
    let (_folder, file) = folder();
    let text = everything();
    let mut described = BTreeSet::new();
    patterns(&text.parse().unwrap(), "", &mut described);
    let asked = read(&text, &file, [], &HashSet::new()).asked;
    assert_eq!(described, asked);
}

#[test]
fn the_reference_works_with_and_without_its_optional_keys() {
    let (_folder, file) = folder();
    assert!(load(REFERENCE, &file).warnings.is_empty());
    assert!(load(&everything(), &file).warnings.is_empty());
}

#[test]
fn the_reference_states_the_true_defaults() {
    let (_folder, file) = folder();
    let (short, long) = (
        load(REFERENCE, &file).config,
        load(&everything(), &file).config,
    );
    assert_eq!(short.limits, long.limits);
    assert_eq!(short.shutdown_grace, long.shutdown_grace);
    assert_eq!(format!("{:?}", short.log), format!("{:?}", long.log));
    assert_eq!(short.identities.key_readers, long.identities.key_readers);
    let mut stated = long.services[0].clone();
    (stated.target.address, stated.limits.requests) = (None, None);
    (stated.rate, stated.rate_per_tenant) = (None, None);
    assert_eq!(short.services[0], stated);
}

#[test]
fn the_minimal_configuration_works_next_to_the_example_certificates() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("certs-example/certs")).unwrap();
    fs::create_dir_all(folder.path().join("certs-example/trust")).unwrap();
    fs::create_dir(folder.path().join("config")).unwrap();
    fs::write(
        folder.path().join("certs-example/trust/igc-sante-test.pem"),
        PEM,
    )
    .unwrap();
    assert!(
        load(MINIMAL, &folder.path().join("config/relais.toml"))
            .warnings
            .is_empty()
    );
}

/// Text that is often TOML and often nearly a configuration: arbitrary text rarely gets past the parser.
fn nearly() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "environment",
        "workers",
        "address",
        "tenant",
        "service",
        "directory",
        "url",
        "trust",
        "tls",
        "level",
        "access",
        "request_head",
        "grace",
        "\"a.b[9999999999]\"",
        "services",
        "listeners",
        "dmp.pool",
        "allowed_hosts",
        "file",
        "structures",
        "fingerprint",
    ]);
    let value = prop_oneof![
        any::<String>().prop_map(|text| format!("{text:?}")),
        any::<i128>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| number.to_string()),
        prop::sample::select(vec![
            "[]",
            "{}",
            "[[], {}]",
            "{ a = 1 }",
            "true",
            "1979-05-27",
            "\"https://\"",
            "\"https://u:p@h:99999/\"",
            "\"unix:\"",
            "\"[::1]:0\"",
            "\"1e400GB\"",
            "\"-1s\"",
            "\"99999999999999999999s\"",
            "\"/\"",
            "\"public\"",
        ])
        .prop_map(str::to_owned),
    ];
    let line = prop_oneof![
        3 => (key, value).prop_map(|(key, value)| format!("{key} = {value}")),
        1 => "\\[{1,2}(services|listeners|tenants|bindings|vendor|admin|log|limits|identities)(\\.[a-z\"é.-]{0,6})?\\]{1,2}",
    ];
    prop::collection::vec(line, 0..12).prop_map(|lines| lines.join("\n"))
}

fn never_panics(text: &str, environment: Vec<(String, String)>) {
    let loaded = Config::from_toml(text, Path::new("/nowhere/relais.toml"), environment);
    if let Err(problems) = loaded {
        assert!(!problems.errors.is_empty());
        assert!(!problems.to_string().is_empty());
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_loader_panic(text in any::<String>(), near in nearly()) {
        never_panics(&text, Vec::new());
        never_panics(&near, Vec::new());
    }

    #[test]
    fn no_environment_makes_the_loader_panic(
        text in nearly(),
        names in prop::collection::vec("RELAIS__(SERVICES|LISTENERS|TENANTS|BINDINGS|VENDOR|LOG|[A-Z_é.\\[-]{0,4})(__[A-Z0-9_]{0,6}){0,8}", 0..5),
        value in any::<String>(),
    ) {
        never_panics(&text, names.into_iter().map(|name| (name, value.clone())).collect());
    }
}
