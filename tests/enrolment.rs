//! From a request to a certificate that is served, with the binary as an operator uses it.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use p12_keystore::{
    Certificate, EncryptionAlgorithm, KeyStore, KeyStoreEntry, MacAlgorithm, PrivateKey,
    PrivateKeyChain,
};
use rcgen::{CertificateSigningRequestParams, DnType, DnValue, KeyPair, PublicKeyData as _};
use relais::services::{Environment, WantedCertificate};
use relais::simulator::pki::{self, Issued, Pki, Purpose, Request};
use relais::simulator::site::{Ports, Site, Stand};
use serde_json::Value;
use tempfile::TempDir;

/// The structure that has no certificate yet.
const NEW: &str = "060785003";

const INSI: Stand = Stand {
    certificate: WantedCertificate::InsiAuto,
    ..Stand::new("insi-auto")
};

/// A site with one structure that is served already.
struct Desk {
    site: Site,
    _directory: TempDir,
}

/// What a command said.
struct Said {
    code: Option<i32>,
    out: String,
    error: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            error: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Said {
    #[track_caller]
    fn expect(self, code: i32, parts: &[&str]) -> Self {
        let all = format!("{}{}", self.out, self.error);
        assert_eq!(self.code, Some(code), "{all}");
        for part in parts {
            assert!(all.contains(part), "{part:?} in {all}");
        }
        self
    }
}

impl Desk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let stands = [Stand::new("dmp"), INSI];
        let site = Site::build(directory.path(), 1, &stands, Ports::default()).unwrap();
        Self {
            site,
            _directory: directory,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.site.directory.join(name)
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relais"));
        command.arg(name).env_remove("RELAIS_CONFIG");
        command.arg("--config").arg(&self.site.configuration);
        command
    }

    fn run(&self, name: &str, arguments: &[&str]) -> Said {
        self.command(name).args(arguments).output().unwrap().into()
    }

    fn csr(&self, finess: &str, service_name: &str) -> Said {
        self.run("csr", &["--finess", finess, "--service-name", service_name])
    }

    fn install(&self, file: &Path, more: &[&str]) -> Said {
        let mut arguments = vec![file.to_str().unwrap()];
        arguments.extend(more);
        self.run("install", &arguments)
    }

    /// A request, answered by the platform: the delivered file.
    fn ordered(&self, finess: &str, service_name: &str, slug: &str) -> PathBuf {
        self.csr(finess, service_name).expect(0, &[]);
        let key = self.pending_key(&format!("{finess}-{slug}"));
        let ou = format!("1{finess}");
        self.deliver(&self.site.pki.issue(&Request {
            key: Some(key),
            ..Request::new(&ou, service_name)
        }))
    }

    fn pending_key(&self, stem: &str) -> Arc<KeyPair> {
        let text = fs::read_to_string(self.path("pending").join(format!("{stem}.key"))).unwrap();
        Arc::new(KeyPair::from_pem(&text).unwrap())
    }

    fn deliver(&self, issued: &Issued) -> PathBuf {
        let file = self.path("delivered.crt");
        fs::write(&file, issued.cert_pem()).unwrap();
        file
    }

    fn files(&self, folder: &str) -> HashSet<PathBuf> {
        let mut found = HashSet::new();
        let mut folders = vec![self.path(folder)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.insert(path);
                }
            }
        }
        found
    }

    /// Installing the file is refused in these words, and changes nothing.
    #[track_caller]
    fn refuses(&self, file: &Path, more: &[&str], words: &[&str]) {
        let before = (self.files("certs"), self.files("pending"));
        self.install(file, more)
            .expect(1, words)
            .expect(1, &["hint: "]);
        assert_eq!((self.files("certs"), self.files("pending")), before);
    }
}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

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
        .expect(0, &["installed as", "next start"]);
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

#[cfg(unix)]
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
fn a_certificate_without_its_key_is_refused() {
    let desk = Desk::new();
    desk.csr(NEW, "DUI").expect(0, &[]);
    let foreign = desk.site.pki.issue(&Request::new("1060785003", "DUI"));
    let file = desk.deliver(&foreign);
    desk.refuses(&file, &[], &["none of the 1 keys", "pending"]);
    // With another one's key beside it in the file.
    let other = desk.site.pki.issue(&Request::new("1060785003", "DUI"));
    fs::write(&file, format!("{}{}", foreign.cert_pem(), other.key_pem())).unwrap();
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
    let tenant = desk.site.tenants[0].to_string();
    // Later than the one that is there, which began an hour before the site was built.
    let ou = format!("1{tenant}");
    desk.csr(&tenant, "Autre nom").expect(0, &[]);
    let key = desk.pending_key(&format!("{tenant}-autre-nom"));
    let not_before = jiff::Timestamp::now().as_second() - 60;
    let delivered = desk.deliver(&desk.site.pki.issue(&Request {
        key: Some(key),
        organization: "STRUCTURE FICTIVE 1",
        not_before: Some(not_before),
        ..Request::new(&ou, "Autre nom")
    }));
    let said = desk.install(&delivered, &["--dry-run"]).expect(
        0,
        &[
            "auth_cli.pem",
            "key     new",
            "subject CN: Logiciel de demonstration → Autre nom",
            "ROR",
            "Pro Santé Connect tokens",
        ],
    );
    assert!(!said.out.contains("subject O:"), "{}", said.out);
    let json = desk
        .install(&delivered, &["--format", "json"])
        .expect(0, &[])
        .out;
    let json: Value = serde_json::from_str(&json).unwrap();
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

#[cfg(unix)]
#[test]
fn an_interrupted_installation_leaves_nothing_half_written() {
    use std::os::unix::process::ExitStatusExt as _;

    let desk = Desk::new();
    let delivered = desk.ordered(NEW, "DUI", "dui");
    let waiting = desk.files("pending");
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
    desk.run("check", &[]).expect(0, &["0 errors, 0 warnings"]);
    desk.install(&delivered, &[]).expect(0, &["installed as"]);
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
            "tenants.csv:3: 'X'",
            "tenants.csv:5: 060785003 is on line 2 already",
            "2 requests made, 0 made before, 2 failed",
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
    .expect(1, &["tenants.csv", "finess or nofinesset"]);
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
