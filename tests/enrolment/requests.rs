//! Requests, one and many.

use std::collections::HashSet;
use std::fs;
use std::process::Command;

use rcgen::{CertificateSigningRequestParams, DnType, DnValue, PublicKeyData as _};

use relais::simulator::pki::Request;

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
            "Service applicatif: Proxy DMP à Nîmes\n",
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
    csr(&["--out", "else where"]).expect(0, &["install --pending 'else where' CERT"]);
    assert!(
        folder
            .path()
            .join(format!("else where/{NEW}-dui.csr"))
            .exists()
    );
}

#[test]
fn the_next_steps_can_be_copied_into_a_shell() {
    let desk = Desk::new();
    let out = desk.path("keys that wait");
    let arguments = ["--finess", NEW, "--service-name", "DUI", "--out"];
    let said = desk.run("csr", &[&arguments[..], &[out.to_str().unwrap()]].concat());
    let step = said.out.lines().last().unwrap();
    let command = &step[step.find("relais install").unwrap()..];
    let issued = desk.site.pki.issue(&Request {
        key: Some(Desk::key_in(&out, &format!("{NEW}-dui"))),
        ..Request::new("1060785003", "DUI")
    });
    let delivered = desk.deliver(&issued);
    let command = command
        .replacen("relais", env!("CARGO_BIN_EXE_relais"), 1)
        .replace("CERTIFICATE", delivered.to_str().unwrap());
    // In any folder: the configuration was named, and is named again.
    let elsewhere = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", &command]).current_dir(elsewhere.path());
    let said: Said = shell.output().unwrap().into();
    said.expect(0, &["installed as"]);
}

#[test]
fn what_came_of_a_request_is_json_also_where_it_failed() {
    let desk = Desk::new();
    let json = |code: i32| -> serde_json::Value {
        let arguments = ["--finess", NEW, "--service-name", "DUI", "--format", "json"];
        let said = desk.run("csr", &arguments).expect(code, &[]);
        serde_json::from_str(&said.out).unwrap()
    };
    let made = json(0);
    let key = fs::read_to_string(made["key"].as_str().unwrap()).unwrap();
    assert!(key.contains("PRIVATE KEY"));
    assert_eq!(made["public_key_sha256"].as_str().unwrap().len(), 64);
    let refused = json(1);
    let problem = &refused["problems"][0];
    let text = problem["message"].as_str().unwrap();
    assert!(text.contains("pending already"), "{text}");
    assert!(problem["hint"].as_str().unwrap().contains("--out"));
    fs::write(&desk.site.configuration, "x").unwrap();
    let problem = &json(1)["problems"][0];
    assert!(problem["message"].is_string());
}

#[test]
fn only_what_leaves_a_structure_out_is_a_failure() {
    let desk = Desk::new();
    let csv = desk.path("tenants.csv");
    // An unknown sector, a legal entity that cannot be read, and a number with a wrong last digit.
    let lines = "060785003,,A,nowhere\n0B0000014,12,B,\n060785004,,C,\n";
    fs::write(&csv, format!("finess,legal_entity,name,sector\n{lines}")).unwrap();
    let file = csv.to_str().unwrap();
    let said = desk.run("csr", &["--from", file, "--service-name", "DUI"]);
    let said = said.expect(
        0,
        &[
            "3 requests made, 0 made before, 0 failed",
            "warning: the last digit of FINESS 060785004",
        ],
    );
    assert!(!said.out.contains("error:"), "{}", said.out);
    let said = desk.run("csr", &["--from", "/", "--service-name", "DUI"]);
    let said = said.expect(1, &["name a CSV file"]);
    assert!(!said.error.contains("[tenants]"), "{}", said.error);
}

#[test]
fn structures_that_got_their_certificates_are_renewed_by_the_file() {
    let desk = Desk::new();
    let csv = desk.path("tenants.csv");
    fs::write(&csv, format!("finess,name\n{NEW},A\n0B0000014,B\n")).unwrap();
    let arguments = ["--from", csv.to_str().unwrap(), "--service-name", "DUI"];
    let run = |words: &str| desk.run("csr", &arguments).expect(0, &[words]);
    run("2 requests made, 0 made before");
    run("0 requests made, 2 made before");
    let issued = desk.site.pki.issue(&Request {
        key: Some(desk.pending_key(&format!("{NEW}-dui"))),
        ..Request::new("1060785003", "DUI")
    });
    desk.install(&desk.deliver(&issued), &[]).expect(0, &[]);
    run("1 requests made, 1 made before");
    run("0 requests made, 2 made before");
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
