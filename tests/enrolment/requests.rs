//! Requests, one and many.

use std::collections::HashSet;
use std::fs;
use std::process::Command;

use rcgen::{CertificateSigningRequestParams, DnType, DnValue, PublicKeyData as _};

use super::desk::{Desk, NEW, Said, mode};

#[test]
fn a_request_has_the_layout_of_the_ans_and_verifies() {
    let desk = Desk::new();
    let arguments = ["--finess", NEW, "--service-name", "Proxy DMP à Nîmes"];
    let more = [
        "--organization",
        "ÉTABLISSEMENT, X",
        "--department",
        "Gard (30)",
    ];
    let said = desk.run("csr", &[&arguments[..], &more].concat());
    let said = said.expect(
        0,
        &[
            "https://pfc.eservices.esante.gouv.fr",
            "never by e-mail",
            "AUTH_CLI",
        ],
    );
    assert!(!said.out.contains("PRIVATE"), "{}", said.out);
    let stem = format!("{NEW}-proxy-dmp-a-nimes");
    let csr = desk.path("pending").join(format!("{stem}.csr"));
    // Its signature is verified there.
    let csr = CertificateSigningRequestParams::from_pem(&fs::read_to_string(csr).unwrap()).unwrap();
    let name: Vec<_> = csr.params.distinguished_name.iter().collect();
    let utf8 = |text: &str| DnValue::Utf8String(text.to_owned());
    assert_eq!(
        name,
        [
            (
                &DnType::CountryName,
                &DnValue::PrintableString("FR".try_into().unwrap())
            ),
            (&DnType::StateOrProvinceName, &utf8("Gard (30)")),
            (&DnType::OrganizationName, &utf8("ÉTABLISSEMENT, X")),
            (&DnType::OrganizationalUnitName, &utf8("1060785003")),
            (&DnType::CommonName, &utf8("Proxy DMP à Nîmes")),
        ]
    );
    assert_eq!(
        csr.public_key.der_bytes(),
        desk.pending_key(&stem).der_bytes()
    );
}

#[test]
fn keys_that_wait_are_for_their_owner_alone() {
    let desk = Desk::new();
    desk.csr(NEW, "DUI").expect(0, &[]);
    assert_eq!(mode(&desk.path("pending")), 0o700);
    assert_eq!(mode(&desk.path(&format!("pending/{NEW}-dui.key"))), 0o600);
    // Nor does the gateway stumble over them.
    desk.run("check", &[]).expect(0, &["0 errors, 0 warnings"]);
}

#[test]
fn a_pending_request_is_never_overwritten() {
    let desk = Desk::new();
    desk.csr(NEW, "DUI").expect(0, &[]);
    let key = desk.path(&format!("pending/{NEW}-dui.key"));
    let before = fs::read(&key).unwrap();
    desk.csr(NEW, "DUI")
        .expect(1, &["pending already", &format!("{NEW}-dui.csr"), "--out"]);
    // Another name that makes the same file name.
    desk.csr(NEW, "dui").expect(1, &["pending already"]);
    assert_eq!(fs::read(&key).unwrap(), before);
    // Interrupted between the two files, the request is made with the key that is there.
    fs::remove_file(key.with_extension("csr")).unwrap();
    desk.csr(NEW, "DUI").expect(0, &[]);
    assert_eq!(fs::read(&key).unwrap(), before);
}

#[test]
fn names_that_services_would_refuse_are_not_asked_for() {
    let desk = Desk::new();
    for near in ["insi-auto", "INSI_AUTO", "INSI-AUTO ", "INSI\u{2013}AUTO"] {
        desk.csr(NEW, near).expect(2, &["did you mean INSI-AUTO?"]);
    }
    desk.csr(NEW, &"é".repeat(200))
        .expect(2, &["200 characters", "at most 64"]);
    desk.csr(NEW, "").expect(2, &[]);
    desk.csr("06078500", "DUI").expect(2, &["9 characters"]);
    assert_eq!(desk.files("pending"), HashSet::new());
}

#[test]
fn without_a_configuration_keys_wait_here_and_a_named_one_must_exist() {
    let folder = tempfile::tempdir().unwrap();
    let csr = |more: &[&str]| -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relais"));
        command
            .env_remove("RELAIS_CONFIG")
            .current_dir(folder.path());
        command
            .args(["csr", "--finess", NEW, "--service-name", "DUI"])
            .args(more);
        command.output().unwrap().into()
    };
    csr(&["--config", "no.toml"]).expect(1, &["no.toml"]);
    csr(&[]).expect(0, &[]);
    assert!(
        folder
            .path()
            .join(format!("pending/{NEW}-dui.csr"))
            .exists()
    );
    csr(&["--out", "elsewhere"]).expect(0, &["--pending elsewhere"]);
    assert!(
        folder
            .path()
            .join(format!("elsewhere/{NEW}-dui.csr"))
            .exists()
    );
}

#[test]
fn requests_by_the_file_go_on_where_they_stopped() {
    let desk = Desk::new();
    let csv = desk.path("tenants.csv");
    let from = |lines: &str| {
        fs::write(&csv, lines).unwrap();
        desk.run(
            "csr",
            &["--from", csv.to_str().unwrap(), "--service-name", "DUI"],
        )
    };
    let said = from(
        "finess,legal_entity,name\n060785003,,FOYER A\n06078500X,,B\n0B0000014,,\"C, D\"\n060785003,,A\n",
    );
    said.expect(
        1,
        &[
            "tenants.csv:3: the structure: 'X'",
            "2 requests made, 0 made before, 1 failed",
        ],
    );
    let first = desk.files("pending");
    assert_eq!(first.len(), 5, "{first:?}");
    let manifest = desk.path("pending/manifest.csv");
    let text = fs::read_to_string(&manifest).unwrap();
    assert!(
        text.starts_with("finess,name,common_name,key,csr,public_key_sha256,created\n"),
        "{text}"
    );
    assert!(
        text.contains("\n060785003,FOYER A,DUI,060785003-dui.key,060785003-dui.csr,"),
        "{text}"
    );

    // Cut short in the middle of its last line, as by a power cut; the columns of the public register.
    fs::write(&manifest, &text[..text.len() - 40]).unwrap();
    from("nofinesset;nofinessej;rs\n060785003;;FOYER A\n0B0000022;;É\n0B0000014;;C, D\n")
        .expect(0, &["2 requests made, 1 made before, 0 failed"]);
    assert!(desk.files("pending").is_superset(&first));
    assert_eq!(desk.files("pending").len(), 7);
    from("nofinesset;rs\n060785003;FOYER A\n0B0000022;É\n0B0000014;C, D\n")
        .expect(0, &["0 requests made, 3 made before, 0 failed"]);
}

#[test]
fn a_file_of_structures_without_numbers_is_refused() {
    let desk = Desk::new();
    let csv = desk.path("tenants.csv");
    fs::write(&csv, "name\nA\n").unwrap();
    desk.run(
        "csr",
        &["--from", csv.to_str().unwrap(), "--service-name", "DUI"],
    )
    .expect(1, &["tenants.csv:1", "begin with `finess,"]);
    desk.run(
        "csr",
        &[
            "--from",
            csv.to_str().unwrap(),
            "--finess",
            NEW,
            "--service-name",
            "DUI",
        ],
    )
    .expect(2, &["--finess"]);
}
