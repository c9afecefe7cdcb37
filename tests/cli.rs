//! The binary as an operator uses it: exit codes, what is printed, signals.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

use std::fs;
use std::io::{BufRead, BufReader, Read as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use relais::gateway::caller::TokenHash;
use relais::services::{HttpVersions, TlsVersions};
use relais::simulator::pki::{self, Purpose, Request};
use relais::simulator::site::{Ports, Site, Stand};
use tempfile::TempDir;

/// No test waits longer than this for the binary.
const DEADLINE: Duration = Duration::from_secs(30);

const DMP: Stand = Stand {
    tls: TlsVersions::Only12,
    http: HttpVersions::H1,
    ..Stand::new("dmp")
};

fn relais(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relais"));
    command.args(arguments).env_remove("RELAIS_CONFIG");
    command
}

fn site(stands: &[Stand]) -> (TempDir, Site) {
    let directory = tempfile::tempdir().unwrap();
    let site = Site::build(directory.path(), 2, stands, Ports::default()).unwrap();
    (directory, site)
}

fn check(configuration: &Path, more: &[&str]) -> (Option<i32>, String) {
    let mut arguments = vec!["check", "--config", configuration.to_str().unwrap()];
    arguments.extend(more);
    let output = relais(&arguments);
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

#[test]
fn a_clean_site_passes_the_check_also_live() {
    let (_directory, site) = site(&[DMP]);
    let (code, text) = check(&site.configuration, &["--live"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("handshakes    2 succeeded"), "{text}");
    assert!(text.contains("0 errors, 0 warnings"), "{text}");
}

#[test]
fn a_check_tells_when_the_certificate_of_a_listener_ends_and_what_is_wrong_with_it() {
    let (_directory, site) = site(&[DMP]);
    let text = fs::read_to_string(&site.configuration).unwrap();
    let listener = "[[listeners]]\naddress = \"127.0.0.1:0\"\n\
                    tls = { certificate = \"relais.pem\", key = \"relais.key\" }\n[identities]";
    let text = text.replacen("[identities]", listener, 1);
    fs::write(&site.configuration, text).unwrap();
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_secs();
    let now = i64::try_from(now).unwrap();
    for (not_after, expected, told) in [
        (now + 100 * 86_400, 0, "0 errors, 0 warnings"),
        (
            now + 86_400,
            3,
            "the certificate of the listener 127.0.0.1:0 ends on",
        ),
        (
            now - 86_400,
            1,
            "the certificate of the listener 127.0.0.1:0 ended on",
        ),
    ] {
        let issued = site.pki.issue(&Request {
            purpose: Purpose::SslServer(vec!["localhost".to_owned()]),
            not_before: Some(now - 10 * 86_400),
            not_after: Some(not_after),
            ..Request::new("3187512751", "listener")
        });
        fs::write(site.directory.join("relais.pem"), issued.chain_pem()).unwrap();
        pki::write_private(&site.directory.join("relais.key"), issued.key_pem()).unwrap();
        let (code, text) = check(&site.configuration, &[]);
        assert_eq!(code, Some(expected), "{text}");
        assert!(text.contains(told), "{text}");
    }
    fs::write(site.directory.join("relais.key"), "").unwrap();
    let (code, text) = check(&site.configuration, &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("relais.key: the file is empty"), "{text}");
}

#[test]
fn a_check_names_every_bad_file_and_exits_with_1() {
    let (_directory, site) = site(&[DMP]);
    let certs = site.directory.join("certs");
    fs::write(
        certs.join("truncated.pem"),
        "-----BEGIN CERTIFICATE-----\nMIIB",
    )
    .unwrap();
    fs::write(certs.join("empty.pem"), "").unwrap();
    let readable = site
        .pki
        .issue(&Request::new("10B0000022", "Lisible de tous"));
    fs::write(certs.join("readable.pem"), readable.pem()).unwrap();
    let (code, text) = check(&site.configuration, &[]);
    assert_eq!(code, Some(1), "{text}");
    for named in [
        "truncated.pem",
        "empty.pem",
        "readable.pem",
        "chmod 600",
        "3 errors",
    ] {
        assert!(text.contains(named), "{named} in {text}");
    }
}

#[test]
fn warnings_alone_exit_with_3() {
    let (_directory, site) = site(&[DMP]);
    let tenant = site.tenants[0];
    let ou = format!("1{tenant}");
    let sign = site.pki.issue(&Request {
        purpose: Purpose::Sign,
        ..Request::new(&ou, "Signature")
    });
    pki::write_private(&site.directory.join("certs/sign.pem"), sign.pem()).unwrap();
    let (code, text) = check(&site.configuration, &[]);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("ORG SIGN"), "{text}");
}

#[test]
fn a_check_tells_who_may_speak_for_whom_and_names_whom_nobody_knows() {
    let (_directory, site) = site(&[DMP]);
    let mut text = fs::read_to_string(&site.configuration).unwrap();
    let own = site.tenants[0];
    text.push_str(&format!(
        "\n[[callers]]\nname = \"dui\"\ntokens = [\"{}\"]\ntenants = [\"{own}\", \"999999999\"]\n\
         legal_entities = [\"010780054\"]\nservices = [\"dmp\"]\n",
        TokenHash::of(b"x")
    ));
    fs::write(&site.configuration, text).unwrap();
    let (code, text) = check(&site.configuration, &[]);
    assert_eq!(code, Some(3), "{text}");
    for said in [
        &format!("dui may speak for 010780054 and its sites, {own}, 999999999 at dmp"),
        "dui may speak for 999999999, of whom nothing is known here",
        "the sites of 010780054, of which there are none",
        "2 warnings",
    ] {
        assert!(text.contains(said), "{said} in {text}");
    }
}

#[test]
fn a_broken_configuration_is_told_whole_with_places() {
    let (_directory, site) = site(&[DMP]);
    let text = fs::read_to_string(&site.configuration).unwrap();
    fs::write(
        &site.configuration,
        text.replace("\"1.2\"", "\"1.1\"") + "\n[identity]\nfolder = 1\n",
    )
    .unwrap();
    let (code, text) = check(&site.configuration, &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("services.dmp.tls: found \"1.1\""), "{text}");
    assert!(
        text.contains("identity: unknown key") && text.contains("identities"),
        "{text}"
    );
}

#[test]
fn a_check_in_json_is_one_document() {
    let (_directory, site) = site(&[DMP]);
    let (code, text) = check(&site.configuration, &["--format", "json"]);
    assert_eq!(code, Some(0));
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["tenants"].as_array().unwrap().len(), 2);
    assert_eq!(report["findings"].as_array().unwrap().len(), 0);
}

#[test]
fn a_live_check_tells_a_dead_service_and_a_foreign_certificate_apart() {
    let (_directory, mut site) = site(&[DMP, Stand::new("psc")]);
    site.simulators.remove(0);
    let stranger = pki::Pki::new(relais::services::Environment::Test);
    let tenant = site.tenants[0];
    let ou = format!("1{tenant}");
    let foreign = stranger.issue(&Request::new(&ou, "Autre autorite"));
    let file = site
        .directory
        .join("certs")
        .join(tenant.as_str())
        .join("auth_cli.pem");
    pki::write_private(&file, foreign.pem()).unwrap();
    let (code, text) = check(&site.configuration, &["--live"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("dmp") && text.contains("upstream_unreachable"),
        "{text}"
    );
    assert!(
        text.contains("psc") && text.contains("certificate_rejected_by_upstream"),
        "{text}"
    );
    assert!(text.contains("handshakes    1 succeeded"), "{text}");
}

#[test]
fn wrong_usage_exits_with_2() {
    for arguments in [
        &["check", "--no-such-flag"][..],
        &["inspect"],
        &["demo", "--tenants", "0"],
    ] {
        assert_eq!(relais(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_missing_configuration_names_the_file() {
    let output = relais(&["serve", "--config", "/nowhere/relais.toml"]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("/nowhere/relais.toml"), "{error}");
}

#[test]
fn inspect_tells_what_a_certificate_serves_and_what_not() {
    let (_directory, site) = site(&[Stand {
        certificate: relais::services::WantedCertificate::InsiAuto,
        ..Stand::new("insi-auto")
    }]);
    let file = site
        .directory
        .join("certs")
        .join(site.tenants[0].as_str())
        .join("insi-auto.pem");
    let output = relais(&["inspect", file.to_str().unwrap()]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("ORG AUTH_CLI (test), valid"), "{text}");
    assert!(text.contains("may serve   insi-auto"), "{text}");
    assert!(
        text.contains("dmp") && text.contains("for INSi alone"),
        "{text}"
    );
    assert!(!text.contains("PRIVATE"), "{text}");

    let output = relais(&["inspect", "--format", "json", file.to_str().unwrap()]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        json[0]["certificates"][0]["serves"],
        serde_json::json!(["insi-auto"])
    );
}

#[test]
fn inspect_of_something_else_says_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("notes.txt");
    fs::write(&file, "hello").unwrap();
    let output = relais(&["inspect", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("notes.txt") && text.contains("neither a certificate nor a private key"),
        "{text}"
    );
}

#[test]
fn the_demonstrations_check_names_the_certificate_that_each_simulator_saw() {
    let output = relais(&["demo", "--check", "--tenants", "2"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(
        text.contains("36 of 36 requests were seen under the right certificate"),
        "{text}"
    );
    assert!(
        text.contains("10B0000014") && text.contains("INSI-MANU"),
        "{text}"
    );
    assert!(
        text.contains("500 desir_560") && text.contains("403 certificate_refused_by_rule"),
        "{text}"
    );
}

#[test]
fn a_demonstration_on_a_taken_port_says_which_option_chooses_another() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = relais(&[
        "demo",
        "--tenants",
        "1",
        "--port",
        &port,
        "--admin-port",
        "0",
    ]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains(&port) && error.contains("--port"), "{error}");
}

/// A running `relais serve`; killed when dropped.
struct Serving {
    child: Child,
    address: SocketAddr,
    log: BufReader<std::process::ChildStderr>,
}

impl Serving {
    fn start(configuration: &Path) -> Self {
        let mut child = command(&["serve", "--config", configuration.to_str().unwrap()])
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut seen = String::new();
        let address = loop {
            let mut line = String::new();
            assert_ne!(
                log.read_line(&mut line).unwrap(),
                0,
                "ended before it listened: {seen}"
            );
            seen.push_str(&line);
            if let Some((_, address)) = line.trim().split_once("listening address=") {
                break address.parse().unwrap();
            }
        };
        Self {
            child,
            address,
            log,
        }
    }

    fn signal(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    fn wait(&mut self) -> (Option<i32>, String) {
        let begun = Instant::now();
        let mut log = String::new();
        self.log.read_to_string(&mut log).unwrap();
        let status = self.child.wait().unwrap();
        assert!(begun.elapsed() < DEADLINE);
        (status.code(), log)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn sigterm_ends_a_gateway_cleanly() {
    let (_directory, site) = site(&[DMP]);
    let mut serving = Serving::start(&site.configuration);
    TcpStream::connect(serving.address).unwrap();
    serving.signal();
    let (code, log) = serving.wait();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("stopped"), "{log}");
    assert!(TcpStream::connect(serving.address).is_err());
}

#[test]
fn a_second_gateway_on_the_same_port_is_refused_by_name() {
    let (_directory, site) = site(&[DMP]);
    let serving = Serving::start(&site.configuration);
    let second = move_to_port(&site.configuration, serving.address.port());
    let output = relais(&["serve", "--config", second.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains(&serving.address.to_string()) && error.contains("another gateway"),
        "{error}"
    );
}

fn move_to_port(configuration: &Path, port: u16) -> PathBuf {
    let text = fs::read_to_string(configuration).unwrap();
    let moved = configuration.with_file_name("second.toml");
    fs::write(
        &moved,
        text.replacen("127.0.0.1:0", &format!("127.0.0.1:{port}"), 1),
    )
    .unwrap();
    moved
}

#[test]
fn a_token_is_printed_once_with_the_line_that_recognises_it() {
    let said = || {
        let output = relais(&["token"]);
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let word_after = |said: &str, mark: &str| {
        let rest = said.split(mark).nth(1).unwrap();
        rest.split(['"', '\n']).next().unwrap().to_owned()
    };
    let (one, other) = (said(), said());
    assert_ne!(one, other);
    let token = word_after(&one, "token: ");
    let hash = word_after(&one, "tokens = [\"");
    assert_eq!(hash, TokenHash::of(token.as_bytes()).to_string());
}

#[test]
fn everybody_can_read_an_authority_that_was_made_and_its_owner_alone_the_key() {
    use std::os::unix::fs::PermissionsExt as _;
    let (directory, site) = site(&[DMP]);
    let out = directory.path();
    let make = || {
        let mut command = command(&["ca", "--out"]);
        (command.arg(out).arg("--config").arg(&site.configuration)).output()
    };
    let (authority, key) = (out.join("relais-ca.pem"), out.join("relais-ca.key"));

    // Where the authority is already, no key is left that the next run would stop at.
    fs::write(&authority, "another").unwrap();
    let refused = make().unwrap();
    assert!(!refused.status.success());
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(told.contains("relais-ca.pem"), "{told}");
    assert!(!key.exists());
    assert_eq!(fs::read(&authority).unwrap(), b"another");

    fs::remove_file(&authority).unwrap();
    let made = make().unwrap();
    assert!(made.status.success(), "{made:?}");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&authority), mode(&key)), (0o644, 0o600));

    // What is there is left as it is.
    let before = fs::read(&key).unwrap();
    assert!(!make().unwrap().status.success());
    assert_eq!(fs::read(&key).unwrap(), before);
}
