//! What users see of the configuration: the corpus in `tests/config`, and the promises behind it.
//!
//! Each `invalid/*.toml` has its exact messages beside it (`.txt`); lines `# with NAME=value` at its top are
//! environment variables. After an intended change of messages: `UPDATE_MESSAGES=1 cargo test --test config`.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use relais::config::{
    AccessLog, BoundBy, Config, CrlSource, ListenAddress, Loaded, Place, Problems, Unknown, What,
};
use relais::identity::profile::Fingerprint;
use relais::identity::tenants::{Sector, Structure};
use relais::services::{HttpVersions, Retry, TlsVersions, Trust, WantedCertificate};

const FULL: &str = "tests/config/valid/full.toml";
const MINIMAL: &str = "tests/config/valid/minimal.toml";

fn load_with(file: &str, environment: &[(&str, &str)]) -> Result<Loaded, Problems> {
    let text = fs::read_to_string(file).unwrap();
    let written = text
        .lines()
        .filter_map(|line| line.strip_prefix("# with ")?.split_once('='));
    let variables = written.chain(environment.iter().copied());
    let owned: Vec<(String, String)> = variables
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Config::from_toml(&text, Path::new(file), owned)
}

fn accepted(file: &str, environment: &[(&str, &str)]) -> Loaded {
    load_with(file, environment)
        .unwrap_or_else(|problems| panic!("{file} should load:\n{problems}"))
}

fn refused(file: &str, environment: &[(&str, &str)]) -> Problems {
    load_with(file, environment)
        .err()
        .unwrap_or_else(|| panic!("{file} should be refused"))
}

fn corpus(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(Path::new("tests/config").join(folder)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<String> = paths
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .map(|path| path.to_str().unwrap().to_owned())
        .collect();
    files.sort();
    files
}

#[test]
fn every_valid_file_loads() {
    for file in corpus("valid") {
        accepted(&file, &[]);
    }
}

#[test]
fn every_invalid_file_is_explained_as_written_beside_it() {
    let here = std::env::current_dir().unwrap();
    for file in corpus("invalid") {
        let problems = refused(&file, &[])
            .to_string()
            .replace(here.to_str().unwrap(), "$PWD")
            + "\n";
        let beside = PathBuf::from(&file).with_extension("txt");
        if std::env::var_os("UPDATE_MESSAGES").is_some() {
            fs::write(&beside, &problems).unwrap();
        }
        let expected = fs::read_to_string(&beside).unwrap_or_default();
        assert_eq!(problems, expected, "messages for {file}");
    }
}

#[test]
fn ten_mistakes_in_one_file_are_all_reported_each_with_its_line() {
    let problems = refused("tests/config/invalid/ten_mistakes.toml", &[]);
    let seen: Vec<(usize, &str)> = problems
        .errors
        .iter()
        .map(|problem| match &problem.place {
            Place::File { line, .. } => (*line, problem.key.as_str()),
            Place::Variable(name) => panic!("{name} is not set"),
        })
        .collect();
    let expected = [
        (1, "environment"),
        (2, "worker"),
        (5, "listeners[0].address"),
        (8, "listeners[1].address"),
        (9, "listeners[1].tenant"),
        (10, "listeners[1].service"),
        (13, "identities.directory"),
        (15, "services.dmp.trust"),
        (16, "services.dmp.url"),
        (17, "services.dmp.tls"),
        (20, "services.dmp.timeouts.connect"),
        (21, "services.dmp.timeouts.response"),
        (24, "services.dmp.pool.max_connections"),
        (27, "limits.request_head"),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn a_problem_reads_as_place_key_found_and_expected() {
    let problems = refused("tests/config/invalid/ten_mistakes.toml", &[]);
    let tls = problems
        .errors
        .iter()
        .find(|problem| problem.key == "services.dmp.tls")
        .unwrap();
    assert_eq!(
        tls.to_string(),
        "tests/config/invalid/ten_mistakes.toml:17:7: services.dmp.tls: found \"1.1\", expected one of \"1.2\", \
         \"1.3\", \"1.2+\""
    );
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
    let config = accepted(MINIMAL, &[]).config;
    assert_eq!(config.limits.request_head, 32 * 1024);
    assert_eq!(config.services[0].tls, TlsVersions::Only12);
    let variables = [
        ("RELAIS__WORKERS", "2"),
        ("RELAIS__LIMITS__REQUEST_HEAD", "16KiB"),
        ("RELAIS__SERVICES__DMP__TLS", "1.3"),
        ("RELAIS__SERVICES__DMP__POOL__MAX_CONNECTIONS", "9"),
        ("RELAIS__SERVICES__INSI_AUTO__TRUST", "public"),
        (
            "RELAIS__LISTENERS__0__ALLOWED_HOSTS",
            "a.example, b.example",
        ),
        ("RELAIS__LISTENERS__1__ADDRESS", "127.0.0.1:8081"),
        ("RELAIS_CONFIG", "elsewhere.toml"),
        ("PATH", "/bin"),
    ];
    let config = accepted(MINIMAL, &variables).config;
    assert_eq!(config.workers.get(), 2);
    assert_eq!(config.limits.request_head, 16 * 1024);
    assert_eq!(config.services[0].tls, TlsVersions::Only13);
    assert_eq!(config.services[0].pool.max_connections, 9);
    assert_eq!(config.services[1].name.as_ref(), "insi-auto");
    assert_eq!(
        config.listeners[0].allowed_hosts,
        ["a.example", "b.example"]
    );
    assert_eq!(
        config.listeners[1].address,
        ListenAddress::Tcp("127.0.0.1:8081".parse().unwrap())
    );
}

#[test]
fn a_finess_from_the_environment_keeps_its_leading_zero() {
    let config = accepted(MINIMAL, &[("RELAIS__LISTENERS__0__TENANT", "060785003")]).config;
    assert_eq!(config.listeners[0].tenant.unwrap().as_str(), "060785003");
}

#[test]
fn a_bad_value_from_the_environment_is_reported_under_its_variable() {
    let problems = refused(
        MINIMAL,
        &[("RELAIS__SERVICES__DMP__TIMEOUTS__CONNECT", "5")],
    );
    assert_eq!(
        problems.to_string(),
        "environment variable RELAIS__SERVICES__DMP__TIMEOUTS__CONNECT: services.dmp.timeouts.connect: found \"5\", \
         expected a duration above zero and below a day, such as \"30s\" or \"500ms\"\n  \
         hint: give the unit: \"5s\" or \"5ms\""
    );
}

#[test]
fn every_value_of_the_file_arrives_where_it_should() {
    let Loaded { config, warnings } = accepted(FULL, &[]);
    assert!(warnings.is_empty(), "{warnings:?}");
    let folder = std::env::current_dir().unwrap().join("tests/config/valid");
    assert_eq!(
        config.listeners[0].allowed_hosts,
        ["gateway.internal", "relais.example"]
    );
    assert_eq!(
        config.listeners[3].address,
        ListenAddress::Unix(folder.join("relais.sock"))
    );
    assert_eq!(config.listeners[3].service.as_deref(), Some("insi-auto"));
    assert_eq!(config.identities.directory, folder.join("../files/certs"));
    assert_eq!(
        config.log.access,
        AccessLog::File(folder.join("../files/access.log"))
    );
    let [CrlSource::File(list), CrlSource::Url(url)] = &config.revocation.crls[..] else {
        panic!("a file and a URL: {:?}", config.revocation);
    };
    assert_eq!(*list, folder.join("../files/igc-sante.cer"));
    assert_eq!(url.host(), Some("igc-sante.esante.gouv.fr"));
    assert_eq!(config.revocation.unknown, Unknown::Refuse);
    assert_eq!(config.revocation.refresh, Duration::from_secs(3600));
    let notices = config.notices.as_ref().unwrap();
    let (name, value) = &notices.headers[0];
    assert_eq!(
        (name.as_str(), value.as_bytes()),
        ("authorization", &b"Bearer secret"[..])
    );
    assert!(!format!("{config:?}").contains("secret"), "{config:?}");
    assert_eq!(config.limits.head_timeout, Duration::from_secs(5));
    assert_eq!(config.limits.requests, 30);
    assert_eq!(config.callers[0].requests, Some(100));
    assert_eq!(config.shutdown_grace, Duration::from_secs(1));

    let names: Vec<&str> = config
        .services
        .iter()
        .map(|service| service.name.as_ref())
        .collect();
    assert_eq!(
        names,
        ["dmp", "insi-auto", "psc", "my-service"],
        "in the order of the file"
    );
    let [dmp, insi, psc, own] = &config.services[..] else {
        panic!("four services");
    };
    assert_eq!(dmp.target.authority, "lps.dev1.dmp.gouv.fr:8443");
    assert_eq!(&*dmp.target.base_path, "/si-dmp-server");
    assert_eq!(dmp.target.address, Some("127.0.0.1:18443".parse().unwrap()));
    assert_eq!(
        (dmp.tls, dmp.http, dmp.retry),
        (TlsVersions::Only12, HttpVersions::H1, Retry::Idempotent)
    );
    assert_eq!(dmp.timeouts.response, Duration::from_secs(90));
    assert_eq!(
        (dmp.pool.max_connections, dmp.limits.request_body),
        (7, 1000)
    );
    assert_eq!(
        (dmp.limits.requests, dmp.limits.requests_per_tenant),
        (Some(40), 20)
    );
    let rates = [dmp.rate, dmp.rate_per_tenant].map(|rate| rate.unwrap().get());
    assert_eq!((rates, dmp.breaker), ([17, 5], false));
    assert_eq!(insi.target.authority, "qualiflps-services-ps-tlsm.ameli.fr");
    assert_eq!(
        (&*insi.target.base_path, insi.certificate),
        ("", WantedCertificate::InsiAuto)
    );
    assert_eq!(psc.trust, Trust::Public);
    assert_eq!(
        (own.certificate, own.tls),
        (WantedCertificate::None, TlsVersions::Only13)
    );
}

#[test]
fn structures_bindings_and_the_vendor_arrive_where_they_should() {
    let config = accepted(FULL, &[]).config;
    let folder = std::env::current_dir().unwrap().join("tests/config/valid");
    assert_eq!(config.tenants.files, [folder.join("../files/tenants.csv")]);
    let (site, structure) = &config.tenants.inline[0];
    assert_eq!(site.as_str(), "060785003");
    let expected = Structure {
        legal_entity: Some("060785011".parse().unwrap()),
        sector: Some(Sector::Officine),
        name: Some("Pharmacie".into()),
    };
    assert_eq!(*structure, expected);
    assert_eq!(config.tenants.inline[1].1, Structure::default());

    let [psc, own, dmp] = &config.bindings[..] else {
        panic!("three bindings");
    };
    let empty = Fingerprint::of(b"");
    assert_eq!(psc.certificate, BoundBy::Fingerprint(empty));
    assert_eq!(psc.client_id.as_deref(), Some("editeur-logiciel"));
    assert_eq!((psc.tenant, own.tenant), (None, Some(*site)));
    let file = folder.join("../files/certs/psc.pem");
    assert_eq!(own.certificate, BoundBy::File(file));
    assert_eq!(dmp.service, "dmp");
    let to_the_letter = BoundBy::CommonName("Proxy DMP ".to_owned());
    assert_eq!(dmp.certificate, to_the_letter);

    let vendor: Vec<String> = config.vendor.iter().map(ToString::to_string).collect();
    assert_eq!(vendor, ["339172288100052", "1060785003"]);
}

#[test]
fn structures_and_bindings_can_come_from_the_environment() {
    let one = "tests/config/valid/tenants.toml";
    let config = accepted(one, &[]).config;
    assert_eq!(config.tenants.files.len(), 1);
    let variables = [
        ("RELAIS__TENANTS__0__FINESS", "060785003"),
        ("RELAIS__TENANTS__1__FILE", "../files/tenants.csv"),
        ("RELAIS__BINDINGS__0__SERVICE", "psc"),
        ("RELAIS__BINDINGS__0__COMMON_NAME", "A"),
        ("RELAIS__VENDOR__STRUCTURES", "339172288100052, 1060785003"),
    ];
    let config = accepted(one, &variables).config;
    assert_eq!(config.tenants.inline.len(), 1, "instead of the file's");
    assert_eq!(config.tenants.files.len(), 1);
    assert_eq!((config.bindings.len(), config.vendor.len()), (1, 2));
}

#[test]
fn what_works_but_looks_wrong_is_a_warning() {
    let variables = [
        ("RELAIS__IDENTITIES__KEY_READERS", "anyone"),
        ("RELAIS__SERVICES__DMP__ENVIRONMENT", "test"),
        (
            "RELAIS__SERVICES__DMP__URL",
            "https://lps.dev1.dmp.gouv.fr/si-dmp-server",
        ),
        ("RELAIS__LISTENERS__0__TENANT", "060785004"),
    ];
    let loaded = accepted(MINIMAL, &variables);
    let mut keys: Vec<&str> = loaded
        .warnings
        .iter()
        .map(|warning| warning.key.as_str())
        .collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "identities.key_readers",
            "listeners[0].tenant",
            "services.dmp.environment"
        ]
    );
}

#[test]
fn a_missing_file_is_a_problem_like_any_other() {
    let problems = Config::load(Path::new("tests/config/nowhere.toml")).unwrap_err();
    assert_eq!(problems.errors.len(), 1);
    assert!(matches!(problems.errors[0].what, What::Unreadable(_)));
    assert!(
        problems
            .to_string()
            .starts_with("tests/config/nowhere.toml:1:1: ")
    );
}
