//! No key, password, token or patient's data in anything that a gateway says, however talkative it is made; T17.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Command;

use pkcs8::PrivateKeyInfoRef;
use pkcs8::der::Decode as _;
use pkcs8::pkcs5::pbes2::Parameters;
use relais::config::Config;
use relais::gateway::caller::{TokenHash, new_token};
use relais::simulator::pki::write_private;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use support::process::{Gateway, Place, connect};

const PASSWORD: &str = "correct-horse-battery-staple";
const API_KEY: &str = "api-key-in-a-file-4711";
const INLINE_KEY: &str = "api-key-in-the-configuration-4712";
const WEBHOOK: &str = "hooks/path-that-is-a-secret";
const WEBHOOK_KEY: &str = "webhook-key-4713";
const BEARER: &str = "bearer-token-of-the-application-4714";
const PATIENT: &str = "279035121518989";

/// The private key of a file in PEM, in DER.
fn key_of(pem: &str) -> Vec<u8> {
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    key.secret_der().to_vec()
}

/// The same key, to be opened with a password.
fn sealed(der: &[u8], password: &str) -> String {
    let parameters = Parameters::generate_pbkdf2_sha256_aes256cbc(20, &[7; 16], [9; 16]).unwrap();
    let key = PrivateKeyInfoRef::from_der(der).unwrap();
    let document = key.encrypt_with_params(parameters, password).unwrap();
    let pem = document.to_pem("ENCRYPTED PRIVATE KEY", pkcs8::LineEnding::LF);
    pem.unwrap().to_string()
}

/// What bytes look like where they are printed: as text, in hexadecimal, as a list.
fn in_print(der: &[u8], pem: &str) -> Vec<String> {
    // The beginning of each key is the same; what follows is its own.
    let own = &der[der.len() / 2..][..16];
    let hexadecimal = own.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    });
    let list = format!("{own:?}");
    let in_pem = pem.lines().filter(|line| line.len() == 64).skip(2);
    let list = list.trim_matches(['[', ']']).to_owned();
    in_pem
        .map(str::to_owned)
        .chain([hexadecimal, list])
        .collect()
}

/// Sends bytes, and reads what is answered until the gateway closes.
fn send(place: &Place, request: &str) -> String {
    let mut stream = connect(place.address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn no_secret_is_in_any_output() {
    let place = Place::new();
    let folder = &place.site.directory;
    let tenant = place.site.tenants[0];
    let file = folder
        .join("certs")
        .join(tenant.as_str())
        .join("auth_cli.pem");
    let bundle = fs::read_to_string(&file).unwrap();
    let start = bundle.find("-----BEGIN PRIVATE KEY-----").unwrap();
    let (chain, plain) = bundle.split_at(start);
    let der = key_of(plain);
    write_private(&file, format!("{chain}{}", sealed(&der, PASSWORD))).unwrap();
    // One that nothing opens, and one without its certificate: problems are told.
    let refused = file.with_file_name("refused.key");
    write_private(&refused, sealed(&der, "another-password-4715")).unwrap();
    let lone = folder.join("certs/lone.key");
    write_private(&lone, plain).unwrap();
    write_private(&folder.join("passwords"), format!("{PASSWORD}\n")).unwrap();
    write_private(&folder.join("api.key"), API_KEY).unwrap();
    let token = new_token().unwrap();
    let hash = TokenHash::of(token.as_bytes());
    let text = fs::read_to_string(&place.site.configuration).unwrap();
    let text = text
        .replacen(
            "[identities]",
            "[identities]\npassword_file = \"passwords\"",
            1,
        )
        .replacen("[log]", "[log]\nlevel = \"trace\"", 1);
    let more = format!(
        "[services.dmp.headers]\nESANTE-API-KEY = {{ file = \"api.key\" }}\nX-OTHER-KEY = \"{INLINE_KEY}\"\n\
         [revocation]\ncrls = [\"http://127.0.0.1:9/a.crl\"]\ncache = \"cache\"\n\
         [notices]\nwebhook = \"http://127.0.0.1:9/{WEBHOOK}\"\n\
         [notices.headers]\nX-KEY = \"{WEBHOOK_KEY}\"\n\
         [[callers]]\nname = \"dui\"\ntokens = [\"{hash}\"]\ntenants = [\"*\"]\nservices = [\"*\"]\n"
    );
    fs::write(&place.site.configuration, format!("{text}\n{more}")).unwrap();

    let gateway = Gateway(place.serve("diagnostics", &[]).spawn().unwrap());
    gateway.can_be_taken_over();
    let request = |field: &str, path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx-finess: {tenant}\r\n{field}\r\n\
             authorization: Bearer {BEARER}\r\n\r\n"
        )
    };
    let known = format!("x-relais-token: {}", token.as_str());
    let path = format!("/dmp/patients/{PATIENT}?ins={PATIENT}");
    let answer = send(&place, &request(&known, &path));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let mut said = String::new();
    // What fails is told at length.
    for (field, path, status) in [
        (
            &*format!("x-relais-token: {}x", token.as_str()),
            &*path,
            "407",
        ),
        (&known, &format!("/nowhere/{PATIENT}"), "404"),
        (&known, &format!("/@{PATIENT}/dmp/x"), "400"),
    ] {
        let answer = send(&place, &request(field, path));
        assert!(
            answer.contains("application/problem+json"),
            "{status}: {answer}"
        );
        // The application may be told what it sent, but the log not.
        said.push_str(&answer.replace(PATIENT, ""));
    }
    let admin = fs::read_to_string(&place.site.configuration).unwrap();
    let admin = admin.split("[admin]\naddress = \"").nth(1).unwrap();
    let admin = admin.split('"').next().unwrap().parse().unwrap();
    for path in [
        "/metrics",
        "/api/v1/status",
        "/api/v1/tenants",
        "/api/v1/services",
        "/api/v1/certificates",
        "/api/v1/pools",
        "/health/ready",
    ] {
        let mut stream = connect(admin).unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let before = said.len();
        stream.read_to_string(&mut said).unwrap();
        assert!(
            said[before..].starts_with("HTTP/1.1 200"),
            "{}",
            &said[before..]
        );
    }
    let configuration = place.site.configuration.to_str().unwrap();
    let (file, lone) = (file.to_str().unwrap(), lone.to_str().unwrap());
    for arguments in [
        &["status", "--config", configuration][..],
        &["reload", "--config", configuration, "--format", "json"],
        &["check", "--config", configuration],
        &["check", "--config", configuration, "--format", "json"],
        &["inspect", "--config", configuration, file, lone],
        &["inspect", file, lone, "--format", "json"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_relais"))
            .args(arguments)
            .output();
        let output = output.unwrap();
        assert!(
            output.stdout.len() + output.stderr.len() > 20,
            "{arguments:?}"
        );
        said.push_str(&String::from_utf8(output.stdout).unwrap());
        said.push_str(&String::from_utf8(output.stderr).unwrap());
    }
    // Nobody fetches the list, and nobody takes the notice of that.
    place.wait_for("diagnostics", "the webhook takes no notice now");
    drop(gateway);
    said.push_str(&fs::read_to_string(place.log("diagnostics")).unwrap());
    said.push_str(&fs::read_to_string(folder.join("access.log")).unwrap());
    assert!(
        said.contains(tenant.as_str()) && said.contains("refused.key"),
        "{said}"
    );

    let mut secrets = in_print(&der, plain);
    let others = [
        PASSWORD,
        "another-password",
        API_KEY,
        INLINE_KEY,
        WEBHOOK,
        WEBHOOK_KEY,
        BEARER,
        PATIENT,
    ];
    secrets.extend(others.map(str::to_owned));
    // The middle, which no shortening leaves out.
    secrets.push(token[12..32].to_owned());
    for secret in secrets {
        let found = said.lines().find(|line| line.contains(&secret));
        assert_eq!(found, None, "{secret} is told");
    }
}

#[test]
fn what_is_wrong_with_a_configuration_is_told_without_the_secrets_in_it() {
    const SECRET: &str = "s3cr3tvalue";
    let written = [
        "[services.dmp]\nheaders = \"ESANTE-API-KEY: s3cr3tvalue\"",
        "[services.dmp]\nheaders = [\"ESANTE-API-KEY: s3cr3tvalue\"]",
        "[services]\ndmp = '{ headers = { ESANTE-API-KEY = \"s3cr3tvalue\" } }'",
        "[services.dmp.headers]\nESANTE-API-KEY = \"s3cr3tvalue",
        "[services.dmp.headers]\nESANTE-API-KEY = s3cr3tvalue\"",
        "[services.dmp.headers] # [log]\nX = \"1\"\nESANTE-API-KEY: s3cr3tvalue",
        "[services.dmp.headers]\nX = [\n[\"1\"],\ns3cr3tvalue]",
        "[services.dmp.headers ESANTE-API-KEY = \"s3cr3tvalue\"",
        "[services.dmp.headers] ESANTE-API-KEY = \"s3cr3tvalue\"",
        "[services.dmp.headers]\n\"ESANTE-API-KEY: s3cr3tvalue\" = true",
        "[services.dmp]\nheaders = { ESANTE-API-KEY = \"s3cr3tvalue }",
        "[services.dmp]\nheaders = {\nESANTE-API-KEY = \"s3cr3tvalue\n}",
        "[services.dmp]\nheaders.ESANTE-API-KEY = \"s3cr3tvalue",
        "[services.dmp.headers]\nESANTE-API-KEY = { file = \"a\", value = \"s3cr3tvalue\" }",
        "[services.dmp]\nurl = \"https:/u:s3cr3tvalue@dmp.example\"",
        "[services.dmp]\nurl = \"https://dmp.example/?key=s3cr3tvalue\"",
        "notices = \"https://hooks.example/s3cr3tvalue\"",
        "[notices]\nwebhook = \"https://hooks.example/s3cr3tvalue",
        "[notices]\nurl = \"https://hooks.example/s3cr3tvalue",
        "[notices]\nheaders = \"X-KEY: s3cr3tvalue\"",
        "[revocation]\ncrls = \"http://u:s3cr3tvalue@crl.example/a.crl\"",
        "[revocation]\ncrls = [\"http://u:s3cr3tvalue@crl.example/a.crl",
        "[services.x]\nurl = \"https://u:s3cr3tvalue@dmp.example",
        "[services.x]\nurl = \"https://dmp.example/?key=s3cr3tvalue",
        "[revocation]\ncrls = [\"http://u:s3cr3tvalue@crl.example/a.crl\"]",
        "[identities]\npassword = \"s3cr3tvalue",
        "[identities]\npassword = \"s3cr3tvalue\"",
        "[identities]\npassword_env = \"s3cr3tvalue!\"",
        "[identities]\npassword_credential = \"/s3cr3tvalue\"",
        "[[callers]]\nname = \"dui\"\ntokens = [\"s3cr3tvalue\"]",
        "[[callers]]\nname = \"dui\"\ntokens = [\"s3cr3tvalue]",
        "callers = \"s3cr3tvalue\"",
    ];
    let json = r#"{"headers":{"ESANTE-API-KEY":"s3cr3tvalue"}}"#;
    let set = [
        ("RELAIS__SERVICES__DMP__HEADERS", json),
        ("RELAIS__SERVICES__DMP", json),
        ("RELAIS__SERVICES", json),
        ("RELAIS__NOTICES", json),
        ("RELAIS__NOTICES__WEBHOOK", "http://u:s3cr3tvalue@h"),
        ("RELAIS__CALLERS", json),
        ("RELAIS__CALLERS__0", json),
        ("RELAIS__CALLERS__0__TOKENS", SECRET),
        ("RELAIS__IDENTITIES", json),
        ("RELAIS__IDENTITIES__PASSWORD", SECRET),
    ];
    let no_variable = ("RELAIS_", "");
    let cases = (written.map(|text| (text, no_variable)).into_iter())
        .chain(set.map(|variable| ("", variable)));
    for (text, (name, value)) in cases {
        let variable = (name.to_owned(), value.to_owned());
        let problems = Config::from_toml(text, Path::new("relais.toml"), [variable]).unwrap_err();
        let told = problems.to_string();
        assert!(!told.contains(SECRET), "{text}{name}: {told}");
        let place = match text.find(SECRET) {
            None => format!("environment variable {name}: "),
            Some(at) => format!("relais.toml:{}:", text[..at].split('\n').count()),
        };
        assert!(told.contains(&place), "{text}{name}: {told}");
    }
    // A number may be one as well.
    for text in [
        "[services.dmp]\nheaders = 4711",
        "[identities]\npassword_env = 4711",
        "[notices]\nwebhook = 4711",
        "[services.dmp.headers]\nESANTE-API-KEY = 4711",
    ] {
        let problems = Config::from_toml(text, Path::new("relais.toml"), []).unwrap_err();
        let told = problems.to_string();
        assert!(told.contains("found something else"), "{told}");
        assert!(!told.contains("4711"), "{told}");
    }
}
