//! A folder that breaks every rule: `relais check` prints each once, with what breaks it and what to do.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use jiff::Timestamp;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyUsagePurpose};
use relais::identity::finess::Finess;
use relais::identity::rules::Rule;
use relais::services::Environment;
use relais::simulator::pki::{self, Issued, Pki, Purpose, Request};
use relais::simulator::site::sample_finess;

const YEAR: i64 = 365 * 86_400;

/// A production site in which everything that can be wrong is.
struct Folder {
    directory: tempfile::TempDir,
    pki: Pki,
    now: i64,
}

impl Folder {
    fn write(&self, name: &str, pem: impl AsRef<[u8]>) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        pki::write_private(&path, pem).unwrap();
        path
    }

    fn put(&self, name: &str, pki: &Pki, order: &Request<'_>) -> Issued {
        let issued = pki.issue(order);
        self.write(&format!("certs/{name}.pem"), issued.pem());
        issued
    }
}

fn ou(finess: Finess) -> String {
    format!("1{finess}")
}

/// A certificate for clients that nobody of IGC-Santé has issued.
fn self_made(ou: &str) -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::OrganizationalUnitName, ou);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.self_signed(&key).unwrap();
    certificate.pem() + &key.serialize_pem()
}

fn build() -> Folder {
    let folder = Folder {
        directory: tempfile::tempdir().unwrap(),
        pki: Pki::new(Environment::Production),
        now: Timestamp::now().as_second(),
    };
    let (pki, now) = (&folder.pki, folder.now);
    let keys = pki::generate_keys(10);
    let structures: Vec<Finess> = (0..20).map(sample_finess).collect();
    let ous: Vec<String> = structures.iter().map(|finess| ou(*finess)).collect();
    let mut key = keys.iter().map(Arc::clone);
    // A key each, as far as they matter; validity long enough not to be news.
    let mut order = |structure: usize, name: &'static str| Request {
        key: key.next(),
        ..Request::new(&ous[structure], name)
    };
    let sign = Request {
        purpose: Purpose::Sign,
        ..order(0, "Signature")
    };
    folder.put("auth-cli", pki, &sign);
    folder.write("certs/igc-sante.pem", self_made(&ous[1]));
    let test = Pki::new(Environment::Test);
    folder.put("environment", &test, &order(2, "DUI"));
    folder.put("insi-cn", pki, &order(3, "insi-auto"));
    folder.put("insi-only", pki, &order(4, "INSI-AUTO"));
    let siren = Request {
        structure: "2732829320",
        ..order(0, "DUI")
    };
    folder.put("structure-id", pki, &siren);
    // A legal entity: its pharmacy has no certificate, its hospital has one.
    folder.put("entity", pki, &order(6, "DUI"));
    folder.put("sector-legal-entity", pki, &order(8, "DUI"));
    let vendor = Request {
        structure: "339172288100052",
        ..order(0, "Editeur")
    };
    folder.put("vendor", pki, &vendor);
    let first = folder.put("key-shared-1", pki, &order(9, "DUI"));
    let second = Request {
        key: Some(Arc::clone(&first.key)),
        ..Request::new(&ous[10], "DUI")
    };
    folder.put("key-shared-2", pki, &second);
    for name in ["ambiguous-1", "ambiguous-2"] {
        let twin = Request {
            not_before: Some(now - 1000),
            ..Request::new(&ous[11], "DUI")
        };
        folder.put(name, pki, &twin);
    }
    let expired = Request {
        not_before: Some(now - 3 * YEAR),
        not_after: Some(now - 86_400),
        ..Request::new(&ous[12], "DUI")
    };
    folder.put("validity", pki, &expired);
    let revoked = folder.put("revoked", pki, &Request::new(&ous[13], "DUI"));
    let list = pki.revoke(&[&revoked.serial()], now - 60, now + 86_400);
    folder.write("list.crl", list.pem().unwrap());
    folder.put("finess-key", pki, &Request::new("1060785004", "DUI"));
    folder.write("trust.pem", pki.authority_pem());
    folder.write(
        "tenants.csv",
        format!(
            "finess,legal_entity,sector\n{},{entity},officine\n{},{entity},hospital\n",
            structures[7],
            structures[8],
            entity = structures[6]
        ),
    );
    folder.write("relais.toml", configuration(&structures));
    folder
}

fn configuration(structures: &[Finess]) -> String {
    let bindings = [
        // insi-only: INSi's certificate for another service.
        (structures[4], "dmp", "insi-only", ""),
        // own-structure: that of a structure which is nobody's legal entity.
        (structures[14], "dmp", "entity", ""),
        // vendor: where the service wants the structure's own.
        (structures[15], "dmp", "vendor", ""),
        // psc-client: one certificate for two clients.
        (structures[6], "psc", "entity", "client-a"),
        (structures[8], "psc", "entity", "client-b"),
    ];
    let mut text = "environment = \"production\"\n\
        [[listeners]]\naddress = \"127.0.0.1:0\"\n\
        [identities]\ndirectory = \"certs\"\n\
        [tenants]\nfile = \"tenants.csv\"\n\
        [vendor]\nstructures = [\"339172288100052\"]\n\
        [revocation]\ncrls = [\"list.crl\"]\n\
        [services.dmp]\ntrust = \"trust.pem\"\n\
        [services.insi-auto]\ntrust = \"trust.pem\"\n\
        [services.psc]\n"
        .to_owned();
    for (at, (tenant, service, file, client)) in bindings.into_iter().enumerate() {
        // The same file by another name is still one certificate.
        let by = match (client, at) {
            ("client-b", _) => "common_name = \"DUI\"".to_owned(),
            _ => format!("file = \"certs/{file}.pem\""),
        };
        text += &format!("[[bindings]]\ntenant = \"{tenant}\"\nservice = \"{service}\"\n{by}\n");
        if !client.is_empty() {
            text += &format!("client_id = \"{client}\"\n");
        }
    }
    text
}

fn check(directory: &Path, format: &str) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_relais"))
        .args(["check", "--format", format, "--config"])
        .arg(directory.join("relais.toml"))
        .output()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

#[test]
fn a_folder_that_breaks_every_rule_is_told_of_each_once_with_what_to_do() {
    let folder = build();
    let (code, text) = check(folder.directory.path(), "text");
    assert_eq!(code, Some(1), "{text}");
    for rule in Rule::ALL {
        let head = format!("[{rule}]: ");
        assert_eq!(text.matches(&head).count(), 1, "{rule}\n{text}");
        let after = text.split(&head).nth(1).unwrap();
        let hint = format!("  hint: {}\n", rule.remedy());
        assert!(after.contains(&hint), "{rule}\n{text}");
    }
    let (_, json) = check(folder.directory.path(), "json");
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    let findings = report["findings"].as_array().unwrap();
    // Where and what: the file is named after the rule that its certificate breaks.
    for rule in [
        Rule::AuthCli,
        Rule::IgcSante,
        Rule::Environment,
        Rule::InsiCn,
        Rule::StructureId,
        Rule::SectorLegalEntity,
        Rule::KeyShared,
        Rule::Validity,
        Rule::Revoked,
        Rule::FinessKey,
    ] {
        let finding = findings.iter().find(|one| one["rule"] == rule.id());
        let cases = finding.unwrap()["cases"].to_string();
        assert!(cases.contains(&format!("certs/{rule}")), "{rule}: {cases}");
    }
}

#[test]
fn the_rules_can_be_listed() {
    let output = Command::new(env!("CARGO_BIN_EXE_relais"))
        .args(["check", "--rules"])
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    for rule in Rule::ALL {
        assert!(
            text.contains(&format!("[{rule}]: {}", rule.text())),
            "{rule}"
        );
        assert!(text.contains(rule.source()), "{rule}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_relais"))
        .args(["check", "--rules", "--format", "json"])
        .output()
        .unwrap();
    assert!(output.status.success());
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let listed: Vec<_> = json.as_array().unwrap().iter().collect();
    assert_eq!(listed.len(), Rule::ALL.len());
    for (listed, rule) in listed.into_iter().zip(Rule::ALL) {
        assert!(
            listed.to_string().contains(&format!("\"{rule}\"")),
            "{listed}"
        );
    }
}
