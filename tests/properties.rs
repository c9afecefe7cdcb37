//! What fuzz targets look for, with inputs that are made rather than found, on the stable toolchain.
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test may panic, and its crate has no other crate to be reached from"
)]

mod properties {
    pub mod oracles;
}

use std::path::Path;

use properties::oracles;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Runs what fuzzing begins with, and what it once found, which lies there too.
fn seeds(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        check(&std::fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "{target} has no seeds");
}

#[test]
fn every_seed_keeps_every_promise() {
    for (target, check) in [
        ("addressing", oracles::addressing::check as fn(&[u8])),
        ("certificates", oracles::certificates::check),
        ("configuration", oracles::configuration::check),
        ("headers", oracles::headers::check),
        ("numbers", oracles::numbers::check),
        ("structures", oracles::structures::check),
        ("tokens", oracles::tokens::check),
    ] {
        seeds(target, check);
    }
}

#[test]
fn seeds_lead_into_what_they_are_for() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    for name in ["full", "minimal", "tenants"] {
        let text = String::from_utf8(read(&format!("configuration/{name}"))).unwrap();
        let read = oracles::configuration::Folder::new().read(&text);
        assert!(read.is_ok(), "{name}: {read:?}");
    }
    for name in ["bundle", "bundle-encrypted", "pkcs12", "pkcs12-legacy"] {
        let loaded = oracles::certificates::load(&read(&format!("certificates/{name}")));
        assert_eq!(loaded.identities.len(), 1, "{name}: {loaded:?}");
    }
}

/// Texts of these words, and of any characters now and then.
fn words(words: &'static [&'static str], most: usize) -> impl Strategy<Value = String> {
    let word = prop_oneof![12 => select(words).prop_map(str::to_owned), 1 => "\\PC{0,12}"];
    vec(word, 0..most).prop_map(|words| words.concat())
}

/// The same, where bytes have been changed, as an editor, a disk or an attacker would.
fn damaged(seed: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), any::<u8>());
    let cut = prop::option::weighted(0.3, any::<prop::sample::Index>());
    (vec(change, 0..6), cut).prop_map(move |(changes, cut)| {
        let mut bytes = seed.to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        bytes
    })
}

const NUMBERS: &[&str] = &[
    "1",
    "0",
    "060785003",
    "2A0000154",
    "0B0135356",
    "2a0000154",
    "3",
    "39172288100052",
    " ",
    "é",
    "4",
];
const HEADS: &[&str] = &[
    "\n",
    "\n",
    "\n",
    ": ",
    ":",
    ", ",
    ",",
    "connection",
    "Connection: ",
    "keep-alive",
    "close",
    "x-private",
    "te: ",
    "trailers",
    "upgrade",
    "upgrade: ",
    "websocket",
    "h2c",
    "http2-settings: x",
    "transfer-encoding: chunked",
    "cookie: ",
    "a=1",
    "host: localhost",
    "x-finess: 060785003",
    "x-finess: 010000024",
    "x_finess: ",
    "content-length: 5",
    "proxy-authorization: ",
    "Bearer relais_x",
    "x-relais-token: ",
    "relais_x",
    "relais_y",
    "proxy-connection: close",
    "Basic MDYwNzg1MDAzOnJlbGFpc194",
    "Basic OnJlbGFpc194",
    "keep-alive: timeout=5",
    "set-cookie: b",
    "\u{e9}",
];
const TARGETS: &[&str] = &[
    "/",
    "/",
    "/",
    "?",
    "@",
    "@060785003",
    "/@010000024",
    "dmp",
    "plain",
    "-",
    "-/identity/dmp",
    "si-dmp-server",
    "next",
    "http://",
    "dmp.example",
    "DMP.example",
    ":80",
    ":443",
    ":8443",
    "a%2Fb",
    "[2001:db8::1]",
    "x",
    "..",
    "//",
    "*",
    "https://",
    "060785003",
];
const BINDINGS: &[&str] = &[
    "",
    "060785003",
    "010000024",
    " ",
    " dmp",
    "060785003 dmp",
    "0607",
];
const TABLES: &[&str] = &[
    "\n",
    "\n",
    "\n",
    ";",
    ";",
    ";",
    ",",
    "\t",
    "\"",
    "finess;legal_entity;name;sector\n",
    "nofinesset,nofinessej,rs\n",
    "finess;etalab;111;2026-05-12\n",
    "structureet;",
    "060785003",
    "060785011",
    "010000024",
    "officine",
    "médico-social",
    "Résidence",
    "\r",
    "\u{feff}",
];
const ASKED: &[&str] = &[
    "060785003 dmp",
    "010780054 dmp",
    "010000024 dmp",
    "060785003 psc",
    " dmp",
    "x",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_number_is_what_it_is_printed_as(text in words(NUMBERS, 4)) {
        oracles::numbers::check(text.as_bytes());
    }

    #[test]
    fn a_request_speaks_for_the_one_tenant_that_it_names_and_loses_nothing_of_its_path(
        bound in select(BINDINGS), target in words(TARGETS, 8), head in words(HEADS, 8),
    ) {
        oracles::addressing::check(format!("{bound}\n{target}\n{head}").as_bytes());
    }

    #[test]
    fn nothing_that_belongs_to_one_connection_or_to_relais_crosses_the_gateway(head in words(HEADS, 24)) {
        oracles::headers::check(head.as_bytes());
    }

    #[test]
    fn bytes_beyond_ascii_hide_nothing_in_a_head(head in words(HEADS, 16), at in any::<prop::sample::Index>()) {
        let mut head = head.into_bytes();
        let at = at.index(head.len() + 1);
        head.insert(at, 0xe9);
        oracles::headers::check(&head);
    }

    #[test]
    fn a_token_makes_its_own_caller_and_a_caller_does_what_it_may(
        hash in "(sha256:)?[0-9a-fA-F]{63,65}", known in words(&["relais_x", "relais_y", " ", "x"], 4),
        asked in select(ASKED), head in words(HEADS, 4),
    ) {
        oracles::tokens::check(format!("{hash}\n{known}\n{asked}\n{head}").as_bytes());
    }

    #[test]
    fn a_table_of_structures_makes_nobody_belong_to_who_is_not_named(table in words(TABLES, 24)) {
        oracles::structures::check(table.as_bytes());
    }

    #[test]
    fn a_damaged_configuration_is_refused_at_a_place_or_understood_whole(
        text in damaged(include_bytes!("../fuzz/corpus/configuration/full")),
    ) {
        oracles::configuration::check(&text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_file_of_certificates_is_reported_and_never_quoted(
        file in prop_oneof![
            damaged(include_bytes!("../fuzz/corpus/certificates/bundle")),
            damaged(include_bytes!("../fuzz/corpus/certificates/bundle-encrypted")),
            damaged(include_bytes!("../fuzz/corpus/certificates/der")),
            damaged(include_bytes!("../fuzz/corpus/certificates/encrypted")),
            damaged(include_bytes!("../fuzz/corpus/certificates/pkcs12")),
            damaged(include_bytes!("../fuzz/corpus/certificates/pkcs12-legacy")),
        ],
    ) {
        oracles::certificates::check(&file);
    }
}
