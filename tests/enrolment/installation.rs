//! Delivered certificates, good and bad.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use p12_keystore::{
    Certificate, EncryptionAlgorithm, KeyStore, KeyStoreEntry, MacAlgorithm, PrivateKey,
    PrivateKeyChain,
};
use relais::services::Environment;
use relais::simulator::pki::{self, Issued, Pki, Purpose, Request};
use serde_json::Value;

use super::desk::{Desk, NEW, mode};

fn pkcs12(issued: &[&Issued], password: &str) -> Vec<u8> {
    let mut store = KeyStore::new();
    for (rank, issued) in issued.iter().enumerate() {
        let certificate = Certificate::from_der(&issued.cert_der).unwrap();
        let key = PrivateKey::from_der(issued.key.serialized_der()).unwrap();
        let chain = PrivateKeyChain::new(rank.to_string(), key, [certificate]);
        store.add_entry(&rank.to_string(), KeyStoreEntry::PrivateKeyChain(chain));
    }
    (store.writer(password))
        .encryption_algorithm(EncryptionAlgorithm::PbeWithHmacSha256AndAes256)
        .mac_algorithm(MacAlgorithm::HmacSha256)
        .write()
        .unwrap()
}

#[test]
fn a_request_becomes_a_certificate_that_is_served() {
    let desk = Desk::new();
    let delivered = desk.ordered(NEW, "INSI-AUTO", "insi-auto");
    desk.install(&delivered, &[])
        .expect(0, &["installed as", "within a second"]);
    let installed: Vec<_> = desk.files(&format!("certs/{NEW}")).into_iter().collect();
    let [installed] = &installed[..] else {
        panic!("{installed:?}")
    };
    let name = installed.file_name().unwrap().to_str().unwrap();
    assert!(
        name.starts_with("insi-auto-") && name.ends_with(".pem"),
        "{name}"
    );
    #[cfg(unix)]
    assert_eq!(mode(installed), 0o600);
    // Certificate, its issuer's, key: the platform delivered the first alone.
    let text = fs::read_to_string(installed).unwrap();
    assert_eq!(text.matches("BEGIN CERTIFICATE").count(), 2);
    assert_eq!(text.matches("BEGIN PRIVATE KEY").count(), 1);
    assert_eq!(desk.files("pending"), HashSet::new());
    desk.run("check", &[])
        .expect(0, &[&format!("{NEW} may use insi-auto")]);
}

#[test]
fn a_certificate_without_its_key_is_refused() {
    let desk = Desk::new();
    desk.csr(NEW, "DUI").expect(0, &[]);
    let foreign = desk.site.pki.issue(&Request::new("1060785003", "DUI"));
    let file = desk.deliver(&foreign);
    desk.refuses(&file, &[], &["none of the 1 keys", "pending"]);
    // With another one's key beside it in the file.
    let other = desk.site.pki.issue(&Request::new("1060785003", "DUI"));
    let both = format!("{}{}", foreign.cert_pem(), other.key_pem());
    fs::write(&file, &both).unwrap();
    desk.refuses(&file, &[], &["mode 0644", "chmod 600"]);
    fs::remove_file(&file).unwrap();
    pki::write_private(&file, &both).unwrap();
    desk.refuses(&file, &[], &["that of another certificate"]);
}

#[test]
fn a_certificate_that_could_not_serve_is_refused_with_all_reasons() {
    let desk = Desk::new();
    desk.csr(NEW, "DUI").expect(0, &[]);
    let key = Some(desk.pending_key(&format!("{NEW}-dui")));
    let dui = Request {
        key,
        ..Request::new("1060785003", "DUI")
    };
    let issue = |request: &Request<'_>| desk.deliver(&desk.site.pki.issue(request));

    let sign = issue(&Request {
        purpose: Purpose::Sign,
        ..dui.clone()
    });
    desk.refuses(&sign, &[], &["ORG SIGN", "AUTH_CLI"]);
    let near = issue(&Request {
        common_name: "insi-auto",
        not_before: Some(1_600_000_000),
        ..dui.clone()
    });
    desk.refuses(&near, &[], &["INSI-AUTO to the letter", "expired on 2023-"]);
    let nobody = issue(&Request {
        structure: "IGC",
        ..dui.clone()
    });
    desk.refuses(&nobody, &[], &["names no structure"]);
    let production = Pki::new(Environment::Production).issue(&dui);
    desk.refuses(
        &desk.deliver(&production),
        &[],
        &["a production certificate", "--config"],
    );
    // Same names, other keys: somebody who only calls himself IGC-Santé.
    let forged = Pki::new(Environment::Test).issue(&dui);
    desk.refuses(&desk.deliver(&forged), &[], &["chain does not verify"]);
}

#[test]
fn a_test_certificate_does_not_enter_a_production_site() {
    let desk = Desk::new();
    let text = fs::read_to_string(&desk.site.configuration).unwrap();
    let text = text.replace("environment = \"test\"", "environment = \"production\"");
    fs::write(&desk.site.configuration, text).unwrap();
    let delivered = desk.ordered(NEW, "DUI", "dui");
    desk.refuses(&delivered, &[], &["a test certificate", "no test service"]);
}

#[test]
fn an_issuer_that_nobody_knows_is_a_warning() {
    let desk = Desk::new();
    let other = Pki::new(Environment::Production);
    let trust = desk.path("trust/igc-sante-test.pem");
    let delivered = desk.ordered(NEW, "DUI", "dui");
    fs::write(&trust, other.authority_pem()).unwrap();
    desk.install(&delivered, &["--dry-run"])
        .expect(0, &["would be installed", "warning:", "was not verified"]);
}

#[test]
fn a_pkcs12_brings_its_key_and_two_are_one_too_many() {
    let desk = Desk::new();
    let issued = desk.site.pki.issue(&Request::new("1060785003", "DUI"));
    let other = desk.site.pki.issue(&Request::new("1060785003", "DUI 2"));
    let file = desk.path("delivered.p12");
    pki::write_private(&file, pkcs12(&[&issued, &other], "sésame")).unwrap();
    desk.refuses(&file, &[], &["encrypted"]);
    let passwords = desk.path("passwords");
    pki::write_private(&passwords, "sésame\n").unwrap();
    let password = ["--password-file", passwords.to_str().unwrap()];
    desk.refuses(&file, &password, &["2 certificates and 2 private keys"]);
    pki::write_private(&file, pkcs12(&[&issued], "sésame")).unwrap();
    let said = desk.install(&file, &password).expect(0, &["installed as"]);
    assert!(!said.out.contains("PRIVATE"));
    desk.run("check", &[])
        .expect(0, &[&format!("{NEW} may use dmp")]);
}

#[test]
fn a_renewal_tells_what_changes_and_who_must_know() {
    let desk = Desk::new();
    let name = "Logiciel de demonstration";
    let delivered = desk.renewed(name, "logiciel-de-demonstration", "AUTRE STRUCTURE");
    let said = desk.install(&delivered, &["--dry-run"]).expect(
        0,
        &[
            "replaces",
            "auth_cli.pem",
            "key     new",
            "subject O: STRUCTURE FICTIVE 1 → AUTRE STRUCTURE",
            "ROR",
            "Pro Santé Connect tokens",
            "remove it once",
        ],
    );
    assert!(!said.out.contains("subject CN:"), "{}", said.out);
    let json = desk
        .install(&delivered, &["--format", "json"])
        .expect(0, &[])
        .out;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["installed"]["beside"], Value::Null);
    let replaces = &json[0]["installed"]["replaces"];
    assert_eq!(replaces["same_key"], false);
    assert!(Path::new(replaces["path"].as_str().unwrap()).exists());
    desk.run("check", &[]).expect(0, &["certificates  3"]);
}

#[test]
fn one_that_began_before_the_one_in_use_is_not_taken_for_its_renewal() {
    let desk = Desk::new();
    let tenant = desk.site.tenants[0].to_string();
    let ou = format!("1{tenant}");
    desk.csr(&tenant, "INSI-AUTO").expect(0, &[]);
    let key = desk.pending_key(&format!("{tenant}-insi-auto"));
    let old = desk.deliver(&desk.site.pki.issue(&Request {
        key: Some(key),
        not_before: Some(jiff::Timestamp::now().as_second() - 100_000),
        ..Request::new(&ou, "INSI-AUTO")
    }));
    let said = desk
        .install(&old, &[])
        .expect(0, &["warning: it is not used", "insi-auto.pem"]);
    assert!(!said.out.contains("replaces"), "{}", said.out);
}

#[test]
fn one_that_would_make_the_choice_a_guess_is_refused() {
    let desk = Desk::new();
    let begun = Some(jiff::Timestamp::now().as_second() - 60);
    let mut issued = Vec::new();
    for (name, slug) in [("DUI", "dui"), ("DUI 2", "dui-2")] {
        desk.csr(NEW, name).expect(0, &[]);
        issued.push(desk.site.pki.issue(&Request {
            key: Some(desk.pending_key(&format!("{NEW}-{slug}"))),
            not_before: begun,
            ..Request::new("1060785003", name)
        }));
    }
    desk.install(&desk.deliver(&issued[0]), &[]).expect(0, &[]);
    desk.refuses(
        &desk.deliver(&issued[1]),
        &[],
        &["in the same second as", "dui-"],
    );
}

#[test]
fn installing_twice_changes_nothing_and_clears_what_waited() {
    let desk = Desk::new();
    let delivered = desk.ordered(NEW, "DUI", "dui");
    let key = desk.path(&format!("pending/{NEW}-dui.key"));
    let text = fs::read(&key).unwrap();
    desk.install(&delivered, &[]).expect(0, &[]);
    let installed = desk.files("certs");
    // As an interruption between the two steps would leave it.
    pki::write_private(&key, text).unwrap();
    desk.install(&delivered, &[])
        .expect(0, &["is there already"]);
    desk.install(&delivered, &[])
        .expect(0, &["is there already"]);
    assert_eq!(desk.files("certs"), installed);
    assert_eq!(desk.files("pending"), HashSet::new());
}

#[test]
fn an_interrupted_installation_leaves_nothing_half_written() {
    use std::os::unix::process::ExitStatusExt as _;

    let desk = Desk::new();
    let delivered = desk.ordered(NEW, "DUI", "dui");
    let waiting = desk.files("pending");
    let served = desk.files("certs");
    // The system kills it in the middle of its first file, after so many blocks of 512 or 1024 bytes.
    let mut command = Command::new("bash");
    command.args(["-c", "ulimit -c 0; ulimit -f 1; exec \"$@\"", "bash"]);
    let install = desk.command("install");
    command.arg(install.get_program()).args(install.get_args());
    let killed = command
        .arg(&delivered)
        .env_remove("RELAIS_CONFIG")
        .output()
        .unwrap();
    assert!(killed.status.signal().is_some(), "{killed:?}");
    assert_eq!(desk.files("pending"), waiting);
    // What was begun is hidden, so that it is not loaded.
    let begun = desk.files("certs");
    let mut begun = begun.difference(&served);
    assert!(begun.all(|path| path.file_name().unwrap().as_encoded_bytes()[0] == b'.'));
    desk.run("check", &[]).expect(0, &["0 errors, 0 warnings"]);
    desk.install(&delivered, &[]).expect(0, &["installed as"]);
    // And the next run removes it: half a private key is one too many.
    assert_eq!(desk.files("certs").len(), served.len() + 1);
    assert_eq!(desk.files("pending"), HashSet::new());
    desk.run("check", &[])
        .expect(0, &[&format!("{NEW} may use dmp")]);
}

#[test]
fn one_bad_file_stops_no_other() {
    let desk = Desk::new();
    let delivered = desk.ordered(NEW, "DUI", "dui");
    let bad = desk.path("notes.crt");
    fs::write(&bad, "hello").unwrap();
    let authority = desk.path("trust/igc-sante-test.pem");
    let arguments = [&bad, &authority, &delivered].map(|path| path.to_str().unwrap());
    desk.run("install", &arguments).expect(
        1,
        &[
            "notes.crt: the file holds neither",
            "no certificate of a structure",
            "installed as",
        ],
    );
}

#[test]
fn what_is_odd_but_possible_is_installed_with_a_warning() {
    let desk = Desk::new();
    let first = desk.site.pki.issue(&Request::new("1060785003", "DUI"));
    let file = desk.path("delivered.pem");
    pki::write_private(&file, first.pem()).unwrap();
    desk.install(&file, &[]).expect(0, &[]);
    // The same key for a structure that is known by its SIRET number, from tomorrow on.
    let second = desk.site.pki.issue(&Request {
        key: Some(Arc::clone(&first.key)),
        not_before: Some(jiff::Timestamp::now().as_second() + 86_400),
        ..Request::new("339172288100052", "DUI")
    });
    pki::write_private(&file, second.pem()).unwrap();
    desk.install(&file, &[]).expect(
        0,
        &[
            "certs/339172288100052/dui-",
            "no FINESS number",
            "the same key serves another structure",
            "is not used before",
        ],
    );
}

#[test]
fn what_is_served_is_never_taken_for_what_waits() {
    let desk = Desk::new();
    // In two files, renewed with the same key.
    let first = desk.site.pki.issue(&Request::new("1060785003", "DUI"));
    let folder = desk.path("certs").join(NEW);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("old.crt"), first.cert_pem()).unwrap();
    pki::write_private(&folder.join("old.key"), first.key_pem()).unwrap();
    let renewed = desk.site.pki.issue(&Request {
        key: Some(Arc::clone(&first.key)),
        not_before: Some(jiff::Timestamp::now().as_second() - 60),
        ..Request::new("1060785003", "DUI")
    });
    let everything = desk.site.directory.to_str().unwrap();
    let file = desk.deliver(&renewed);
    desk.refuses(&file, &["--pending", everything], &["none of the 0 keys"]);
    fs::remove_file(&file).unwrap();
    pki::write_private(&file, renewed.pem()).unwrap();
    for _ in 0..2 {
        desk.install(&file, &["--pending", everything])
            .expect(0, &[]);
    }
    assert!(file.exists());
    desk.run("check", &[])
        // The renewal was made on the old key, which is no fault of the installation.
        .expect(
            3,
            &[
                "certificates  4",
                "warning[key-shared]",
                "0 errors, 1 warnings",
            ],
        );
}
