//! A configuration, and what it names, that change while the gateway runs.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use relais::app::reload::Report;
use relais::identity::finess::Finess;
use relais::services::{Environment, HttpVersions};
use relais::simulator::pki::{self, Pki};
use relais::simulator::site::{Ports, Site, Stand, sample_finess};
use support::upstream::{Connection, Tls, Upstream};
use support::{TestGateway, eventually, settled, start_on, start_with, within};
use tokio::sync::Semaphore;

const DMP: Stand = Stand {
    http: HttpVersions::H1,
    ..Stand::new("dmp")
};
const ROC: Stand = Stand {
    http: HttpVersions::H1,
    ..Stand::new("roc")
};

const FOLDER: &str = "directory = \"certs\"";
const TRUST: &str = "trust/igc-sante-test.pem";

/// A gateway that reads nothing again unless it is told to, so that each test says when.
fn start(stands: &[Stand]) -> TestGateway {
    start_with(2, stands, manual)
}

fn manual(text: &mut String) {
    *text = text.replace(FOLDER, &format!("{FOLDER}\nreload = \"manual\""));
}

/// Puts a file in the place of another, as a careful deployment does: written aside, then renamed.
fn put(path: &Path, contents: impl AsRef<[u8]>) {
    let aside = path.with_extension("aside");
    pki::write_private(&aside, contents).unwrap();
    fs::rename(&aside, path).unwrap();
}

/// Changes the configuration file, and gives it as it was before.
fn edit(gateway: &TestGateway, change: impl FnOnce(&mut String)) -> String {
    let path = &gateway.site.configuration;
    let before = fs::read_to_string(path).unwrap();
    let mut text = before.clone();
    change(&mut text);
    assert_ne!(text, before, "the test changes nothing");
    put(path, &text);
    before
}

/// Takes a service's section out of a configuration.
fn cut(text: &mut String, service: &str) -> String {
    let begin = text.find(&format!("[services.{service}]")).unwrap();
    let end = text[begin + 1..]
        .find("\n[")
        .map_or(text.len(), |at| begin + 1 + at + 1);
    text.drain(begin..end).collect()
}

/// Adds lines to a service's section.
fn with(text: &mut String, service: &str, line: &str) {
    let head = format!("[services.{service}]\n");
    assert!(text.contains(&head), "{text}");
    *text = text.replace(&head, &format!("{head}{line}\n"));
}

async fn reload(gateway: &TestGateway) -> Report {
    within(gateway.app.reload()).await.unwrap()
}

/// The CN that a service was shown, or the code of the refusal.
async fn outcome(gateway: &TestGateway, tenant: Finess, service: &str) -> Result<String, String> {
    let answer = gateway.get(tenant, &format!("/{service}/x")).await;
    match answer.status() {
        200 => Ok(answer.seen().cn.unwrap_or_default()),
        _ => Err(answer.code()),
    }
}

async fn works(gateway: &TestGateway, service: &str) {
    let outcome = outcome(gateway, gateway.tenant(0), service).await;
    outcome.unwrap_or_else(|code| panic!("{service}: {code}"));
    settled(gateway).await;
}

fn refused(code: &str) -> Result<String, String> {
    Err(code.to_owned())
}

fn handshakes(gateway: &TestGateway, at: usize) -> usize {
    let (full, resumed) = gateway.site.simulators[at].1.handshakes();
    full + resumed
}

/// The command's exit code and what it prints.
fn command(gateway: &TestGateway, arguments: &[&str]) -> (Option<i32>, String) {
    let admin = gateway.admin.to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_relais"))
        .args(arguments)
        .args(["--admin", &admin])
        .output()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

#[tokio::test]
async fn a_service_that_comes_is_served_one_that_goes_is_unknown_and_others_keep_their_connections()
{
    let mut section = String::new();
    let gateway = start_with(2, &[DMP, ROC], |text| {
        manual(text);
        section = cut(text, "roc");
    });
    works(&gateway, "dmp").await;
    let tenant = gateway.tenant(0);
    assert_eq!(
        outcome(&gateway, tenant, "roc").await,
        refused("service_unknown")
    );
    // Before the one that is there: its place is not what it is known by.
    edit(&gateway, |text| {
        let at = text.find("[services.dmp]").unwrap();
        text.insert_str(at, &section);
    });
    let report = reload(&gateway).await;
    assert!(report.changed && report.problems.is_empty(), "{report:?}");
    assert_eq!(report.configuration, ["services.roc"]);
    works(&gateway, "roc").await;
    works(&gateway, "dmp").await;
    assert_eq!((handshakes(&gateway, 0), handshakes(&gateway, 1)), (1, 1));

    edit(&gateway, |text| drop(cut(text, "roc")));
    assert_eq!(reload(&gateway).await.configuration, ["services.roc"]);
    assert_eq!(
        outcome(&gateway, tenant, "roc").await,
        refused("service_unknown")
    );
    works(&gateway, "dmp").await;
    assert_eq!(handshakes(&gateway, 0), 1);
    let open = || {
        let pools = gateway.app.outbound.pools();
        pools
            .iter()
            .map(|pool| pool.occupancy().open)
            .sum::<usize>()
    };
    eventually("the connections of what is gone are closed", || open() == 1).await;
    assert!(!reload(&gateway).await.changed);
}

#[tokio::test]
async fn a_service_that_changes_gets_connections_of_its_own_and_others_keep_theirs() {
    let gateway = start(&[DMP, ROC]);
    works(&gateway, "dmp").await;
    works(&gateway, "roc").await;
    edit(&gateway, |text| with(text, "roc", "retry = \"never\""));
    let report = reload(&gateway).await;
    assert_eq!(report.configuration, ["services.roc"]);
    assert_eq!((report.added.len(), report.removed.len()), (0, 0));
    for _ in 0..2 {
        works(&gateway, "dmp").await;
        works(&gateway, "roc").await;
    }
    assert_eq!((handshakes(&gateway, 0), handshakes(&gateway, 1)), (1, 2));
}

#[tokio::test]
async fn what_a_service_is_told_on_each_request_is_what_the_file_says_now() {
    let (gateway, upstream) = support::in_front_of(
        &Tls::default(),
        "headers = { x-key = \"first\" }",
        |mut connection: Connection, _| async move { connection.keep_answering("ok").await },
    );
    support::is_answered(&gateway).await;
    edit(&gateway, |text| {
        *text = text.replace("\"first\"", "\"second\"")
    });
    reload(&gateway).await;
    support::is_answered(&gateway).await;
    let heads = upstream.heads();
    assert!(heads[0].contains("x-key: first"), "{heads:?}");
    assert!(heads[1].contains("x-key: second"), "{heads:?}");
}

#[tokio::test]
async fn a_request_in_flight_on_a_service_that_changes_finishes() {
    let released = Arc::new(Semaphore::new(0));
    let (gateway, upstream) = start_on(1, &[DMP], |site, text| {
        manual(text);
        let released = Arc::clone(&released);
        let upstream =
            Upstream::start(&site.pki, &Tls::default(), move |mut connection, number| {
                let released = Arc::clone(&released);
                async move {
                    if number == 0 {
                        connection.head().await;
                        released.acquire().await.unwrap().forget();
                        connection.answer("before").await;
                    }
                    connection.keep_answering("after").await;
                }
            });
        text.push_str(&upstream.service("up", ""));
        upstream
    });
    let text = |answer: support::Answered| String::from_utf8(answer.0.body().to_vec()).unwrap();
    let (first, ()) = tokio::join!(gateway.get(gateway.tenant(0), "/up/x"), async {
        eventually("it is in flight", || upstream.heads().len() == 1).await;
        edit(&gateway, |text| with(text, "up", "http = \"h1\""));
        assert_eq!(reload(&gateway).await.configuration, ["services.up"]);
        let second = gateway.get(gateway.tenant(0), "/up/x").await;
        assert_eq!(text(second), "after");
        edit(&gateway, |text| drop(cut(text, "up")));
        reload(&gateway).await;
        released.add_permits(1);
    });
    assert_eq!(text(first), "before");
}

#[tokio::test]
async fn a_configuration_with_an_error_changes_nothing_of_it_and_says_where_it_is() {
    let gateway = start(&[DMP, ROC]);
    works(&gateway, "dmp").await;
    let tenant = sample_finess(70);
    let before = edit(&gateway, |text| {
        drop(cut(text, "roc"));
        with(text, "dmp", "retry = \"perhaps\"");
    });
    let issued = gateway
        .site
        .pki
        .issue(&pki::Request::new(&format!("1{tenant}"), "Nouveau"));
    put(&gateway.path().join("certs/new.pem"), issued.pem());
    let report = reload(&gateway).await;
    assert_eq!(report.added.len(), 1, "certificates do not wait for it");
    assert!(report.configuration.is_empty(), "{report:?}");
    let [problem] = &report.problems[..] else {
        panic!("{report:?}");
    };
    let text = fs::read_to_string(&gateway.site.configuration).unwrap();
    let line = 1 + text
        .lines()
        .position(|line| line.contains("perhaps"))
        .unwrap();
    let place = format!("{}:{line}:", gateway.site.configuration.display());
    assert!(problem.file.starts_with(&place), "{problem:?}");
    assert!(problem.reason.contains("services.dmp.retry"), "{problem:?}");
    let partial = gateway.metric("relais_reload_total", &["outcome=\"partial\""]);
    assert_eq!(partial, 1.0);
    assert_eq!(
        outcome(&gateway, tenant, "roc").await.as_deref(),
        Ok("Nouveau")
    );
    works(&gateway, "dmp").await;
    assert_eq!(handshakes(&gateway, 0), 1, "what is in use stays");

    for bad in ["environment = ", ""] {
        put(&gateway.site.configuration, bad);
        assert!(!reload(&gateway).await.problems.is_empty(), "{bad}");
        works(&gateway, "roc").await;
    }
    fs::remove_file(&gateway.site.configuration).unwrap();
    let report = reload(&gateway).await;
    assert!(
        report.problems[0].reason.contains("not readable"),
        "{report:?}"
    );
    put(&gateway.site.configuration, before);
    let report = reload(&gateway).await;
    assert!(!report.changed && report.problems.is_empty(), "{report:?}");
}

#[tokio::test]
async fn what_a_good_configuration_names_and_cannot_be_had_leaves_the_last_one_in_use() {
    let gateway = start(&[DMP, ROC]);
    let trust = gateway.path().join("trust/broken.pem");
    // PEM of something that is no certificate: the configuration's own look does not tell.
    fs::write(
        &trust,
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    let before = edit(&gateway, |text| {
        drop(cut(text, "roc"));
        *text = text.replace(TRUST, "trust/broken.pem");
    });
    let report = reload(&gateway).await;
    assert!(
        !report.changed && report.configuration.is_empty(),
        "{report:?}"
    );
    assert!(
        report.problems[0].reason.contains("broken.pem"),
        "{report:?}"
    );
    works(&gateway, "roc").await;
    put(&gateway.site.configuration, before);
    edit(&gateway, |text| {
        *text = text.replace(
            FOLDER,
            &format!("{FOLDER}\npassword_env = \"RELAIS_NOT_SET\""),
        );
    });
    let report = reload(&gateway).await;
    assert!(
        report.problems[0].reason.contains("RELAIS_NOT_SET"),
        "{report:?}"
    );
    works(&gateway, "dmp").await;
}

#[tokio::test]
async fn what_needs_a_restart_is_said_each_time_and_the_rest_is_taken_up() {
    let gateway = start(&[DMP, ROC]);
    let bound = gateway.address();
    edit(&gateway, |text| {
        drop(cut(text, "roc"));
        *text = text.replacen("127.0.0.1:0", "127.0.0.1:18081", 1);
        text.push_str(
            "\n[[listeners]]\naddress = \"unix:second.sock\"\n[limits]\nrequest_head = \"64KiB\"\n",
        );
        *text = format!("workers = 3\n{text}").replace("access.log", "other.log");
    });
    for changed in [true, false] {
        let report = reload(&gateway).await;
        assert_eq!(report.changed, changed);
        let said = |key: &str| {
            let mut found = report.restart.iter().filter(|one| one.key == key);
            let found = found
                .next()
                .unwrap_or_else(|| panic!("{key} in {report:?}"));
            (found.running.clone(), found.configured.clone())
        };
        let pair = |one: &str, other: &str| (one.to_owned(), other.to_owned());
        assert_eq!(
            said("listeners[0].address"),
            pair("127.0.0.1:0", "127.0.0.1:18081")
        );
        let (running, configured) = said("listeners[1].address");
        assert!(
            running == "none" && configured.ends_with("second.sock"),
            "{configured}"
        );
        assert_eq!(said("workers").1, "3");
        assert_eq!(said("limits.request_head"), pair("32.0 KiB", "64.0 KiB"));
        assert!(said("log.access").1.ends_with("other.log"));
        assert_eq!(report.restart.len(), 5, "{report:?}");
        assert!(report.problems.is_empty(), "{report:?}");
    }
    assert_eq!(gateway.address(), bound);
    works(&gateway, "dmp").await;
    assert_eq!(
        outcome(&gateway, gateway.tenant(0), "roc").await,
        refused("service_unknown")
    );
    assert_eq!(gateway.log().len(), 2, "the log is where it was");
    let (code, text) = command(&gateway, &["reload"]);
    assert_eq!(code, Some(0), "{text}");
    let line = "restart needed  listeners[0].address: 127.0.0.1:0 is in use, 127.0.0.1:18081 is configured\n";
    assert!(text.contains(line), "{text}");
}

#[tokio::test]
async fn what_the_file_says_of_an_address_holds_for_the_requests_that_arrive_there() {
    let gateway = start(&[DMP, ROC]);
    let tenant = gateway.tenant(1);
    let bare = || Request::get("/x").body(Bytes::new()).unwrap();
    assert_eq!(gateway.send(bare()).await.code(), "service_unknown");
    let mut open = gateway.connect().await;
    edit(&gateway, |text| {
        let address = "address = \"127.0.0.1:0\"\n";
        let keys = format!(
            "{address}tenant = \"{tenant}\"\nservice = \"roc\"\nallowed_hosts = [\"gateway.internal\"]\n"
        );
        *text = text.replacen(address, &keys, 1);
    });
    let report = reload(&gateway).await;
    assert_eq!(report.configuration, ["listeners"]);
    assert!(report.restart.is_empty(), "{report:?}");
    let hosted = Request::get("/x").header("host", "gateway.internal");
    for request in [bare(), hosted.body(Bytes::new()).unwrap()] {
        let answer = open.send(request).await;
        assert_eq!(answer.seen().ou, Some(format!("1{tenant}")));
    }
}

#[tokio::test]
async fn an_authority_that_a_trust_file_drops_is_not_believed_from_the_next_request_on() {
    let gateway = start(&[DMP, ROC]);
    let trust = gateway.path().join(TRUST);
    let own = gateway.path().join("trust/roc.pem");
    let good = fs::read(&trust).unwrap();
    fs::write(&own, &good).unwrap();
    edit(&gateway, |text| {
        let mut section = cut(text, "roc");
        section = section.replace(TRUST, "trust/roc.pem");
        text.push_str(&format!("\n{section}"));
    });
    reload(&gateway).await;
    works(&gateway, "dmp").await;
    works(&gateway, "roc").await;
    let before = handshakes(&gateway, 0);

    for half in [&good[..good.len() / 2], &good[..40], b"", b"bonjour"] {
        put(&own, half);
        let report = reload(&gateway).await;
        assert!(!report.changed, "{report:?}");
        assert!(
            report.problems[0].file.ends_with("trust/roc.pem"),
            "{report:?}"
        );
        assert_eq!(report.problems.len(), 1, "{report:?}");
        works(&gateway, "roc").await;
    }
    fs::remove_file(&own).unwrap();
    assert!(!reload(&gateway).await.problems.is_empty());
    works(&gateway, "roc").await;

    put(&own, Pki::new(Environment::Test).authority_pem());
    let report = reload(&gateway).await;
    assert!(
        report.changed && report.configuration.is_empty(),
        "{report:?}"
    );
    assert_eq!(report.trust, [own.display().to_string()]);
    // Connections that were opened under the other authority lay idle; none of them is used.
    let tenant = gateway.tenant(0);
    assert_eq!(
        outcome(&gateway, tenant, "roc").await,
        refused("upstream_untrusted")
    );
    works(&gateway, "dmp").await;
    assert_eq!(
        handshakes(&gateway, 0),
        before,
        "others keep their connections"
    );
    put(&own, good);
    reload(&gateway).await;
    works(&gateway, "roc").await;
}

#[tokio::test]
async fn a_folder_a_table_and_a_binding_that_are_named_anew_take_the_place_of_the_ones_before() {
    let gateway = start(&[DMP]);
    let (tenant, site) = (gateway.tenant(0), sample_finess(71));
    let ou = format!("1{tenant}");
    let now = jiff::Timestamp::now().as_second();
    let issue = |cn: &str, ago: i64| {
        let order = pki::Request {
            not_before: Some(now - ago),
            ..pki::Request::new(&ou, cn)
        };
        gateway.site.pki.issue(&order).pem()
    };
    fs::create_dir(gateway.path().join("other")).unwrap();
    put(&gateway.path().join("other/new.pem"), issue("Nouveau", 10));
    put(&gateway.path().join("other/old.pem"), issue("Ancien", 1000));
    let table = format!("finess,legal_entity,name,sector\n{site},{tenant},SITE,hospital\n");
    put(&gateway.path().join("other.csv"), table);
    assert_eq!(
        outcome(&gateway, site, "dmp").await,
        refused("tenant_unknown")
    );
    edit(&gateway, |text| {
        *text = text
            .replace(FOLDER, "directory = \"other\"")
            .replace("tenants.csv", "other.csv");
    });
    let report = reload(&gateway).await;
    assert_eq!(report.configuration, ["identities", "tenants"]);
    assert_eq!((report.added.len(), report.removed.len()), (2, 2));
    assert!(
        report.kept.is_empty(),
        "the old folder is nobody's any more: {report:?}"
    );
    for structure in [tenant, site] {
        assert_eq!(
            outcome(&gateway, structure, "dmp").await.as_deref(),
            Ok("Nouveau")
        );
    }
    assert_eq!(
        outcome(&gateway, gateway.tenant(1), "dmp").await,
        refused("tenant_unknown")
    );
    edit(&gateway, |text| {
        text.push_str(&format!(
            "\n[[bindings]]\nservice = \"dmp\"\ntenant = \"{tenant}\"\nfile = \"other/old.pem\"\n"
        ));
    });
    assert_eq!(reload(&gateway).await.configuration, ["bindings"]);
    assert_eq!(
        outcome(&gateway, tenant, "dmp").await.as_deref(),
        Ok("Ancien")
    );

    // A table with errors leaves the structures as they were, and the rest of the same file is taken up.
    put(
        &gateway.path().join("bad.csv"),
        "finess,legal_entity\n0B0,x\n",
    );
    edit(&gateway, |text| {
        let at = text.find("\n[[bindings]]").unwrap();
        text.truncate(at);
        *text = text.replace("other.csv", "bad.csv");
    });
    for _ in 0..2 {
        let report = reload(&gateway).await;
        assert!(report.problems[0].file.contains("bad.csv"), "{report:?}");
        assert_eq!(
            outcome(&gateway, site, "dmp").await.as_deref(),
            Ok("Nouveau")
        );
    }
}

#[tokio::test]
async fn a_key_that_may_be_read_by_fewer_is_looked_at_again() {
    use std::os::unix::fs::PermissionsExt as _;
    let gateway = start_with(1, &[DMP], |text| {
        manual(text);
        *text = text.replace(FOLDER, &format!("{FOLDER}\nkey_readers = \"group\""));
    });
    let tenant = gateway.tenant(0);
    let key = gateway
        .path()
        .join("certs")
        .join(tenant.as_str())
        .join("auth_cli.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(reload(&gateway).await.problems.is_empty());
    edit(&gateway, |text| {
        *text = text.replace("key_readers = \"group\"\n", "")
    });
    let report = reload(&gateway).await;
    assert!(
        report.problems[0].file.ends_with("auth_cli.pem"),
        "{report:?}"
    );
}

fn list(pki: &Pki, serials: &[&[u8]]) -> Vec<u8> {
    let now = jiff::Timestamp::now().as_second();
    pki.revoke(serials, now - 60, now + 3600).der().to_vec()
}

#[tokio::test]
async fn a_revocation_list_that_comes_refuses_at_once_and_one_that_goes_does_not_any_more() {
    let gateway = start(&[DMP]);
    let tenant = gateway.tenant(0);
    works(&gateway, "dmp").await;
    let leaf = gateway.app.gateway.table.load().generations()[0]
        .identity()
        .profile
        .clone();
    let bytes: Vec<u8> = (0..leaf.serial.len() / 2)
        .map(|at| u8::from_str_radix(&leaf.serial[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    let one = gateway.path().join("one.crl");
    fs::write(&one, list(&gateway.site.pki, &[&[1]])).unwrap();
    fs::write(
        gateway.path().join("two.crl"),
        list(&gateway.site.pki, &[&bytes]),
    )
    .unwrap();
    edit(&gateway, |text| {
        text.push_str("\n[revocation]\ncrls = [\"one.crl\"]\n")
    });
    assert_eq!(reload(&gateway).await.configuration, ["revocation"]);
    works(&gateway, "dmp").await;
    let looks = |outcome: &str| {
        let outcome = format!("outcome=\"{outcome}\"");
        gateway.metric("relais_crl_refresh_total", &["one.crl", &outcome])
    };
    edit(&gateway, |text| {
        *text = text.replace("[\"one.crl\"]", "[\"two.crl\", \"one.crl\"]")
    });
    assert_eq!(reload(&gateway).await.configuration, ["revocation"]);
    assert_eq!(
        outcome(&gateway, tenant, "dmp").await,
        refused("certificate_revoked")
    );
    let sources = || {
        let revocations = gateway.app.revocations.load();
        let names = revocations
            .lists()
            .iter()
            .map(|list| list.source.rsplit('/').next().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(sources(), ["two.crl", "one.crl"]);
    edit(&gateway, |text| {
        *text = text.replace("[\"two.crl\", \"one.crl\"]", "[\"one.crl\"]")
    });
    reload(&gateway).await;
    works(&gateway, "dmp").await;
    assert_eq!(sources(), ["one.crl"]);
    assert_eq!(looks("failure"), 0.0);
}

#[tokio::test]
async fn a_revocation_list_is_taken_as_soon_as_its_authority_is_known() {
    let other = Pki::new(Environment::Production);
    let (gateway, ()) = start_on(1, &[DMP], |site, text| {
        manual(text);
        fs::write(site.directory.join("other.crl"), list(&other, &[&[1]])).unwrap();
        text.push_str("\n[revocation]\ncrls = [\"other.crl\"]\n");
    });
    let problem = || {
        let revocations = gateway.app.revocations.load();
        let list = &revocations.lists()[0];
        (
            list.crl.is_some(),
            list.problem.as_ref().map(|problem| problem.code()),
        )
    };
    assert_eq!(problem(), (false, Some("unknown_issuer")));
    assert!(!reload(&gateway).await.changed);
    let trust = gateway.path().join(TRUST);
    let both = fs::read_to_string(&trust).unwrap() + &other.authority_pem();
    put(&trust, both);
    assert!(reload(&gateway).await.changed);
    eventually("it is in use", || problem() == (true, None)).await;
}

#[tokio::test]
async fn reloads_that_come_at_once_are_made_one_after_the_other() {
    let gateway = Arc::new(start(&[DMP, ROC]));
    edit(&gateway, |text| drop(cut(text, "roc")));
    let mut reloads = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let gateway = Arc::clone(&gateway);
        reloads.spawn(async move { reload(&gateway).await });
    }
    let mut changed = 0;
    while let Some(report) = reloads.join_next().await {
        changed += usize::from(report.unwrap().changed);
    }
    assert_eq!(changed, 1);
    works(&gateway, "dmp").await;
}

#[tokio::test]
async fn configurations_that_flip_under_load_fail_no_request() {
    let gateway = Arc::new(start(&[DMP, ROC]));
    fs::copy(
        gateway.path().join(TRUST),
        gateway.path().join("trust/copy.pem"),
    )
    .unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..8 {
        let (gateway, done) = (Arc::clone(&gateway), Arc::clone(&done));
        clients.spawn(async move {
            let tenant = gateway.tenant(number % 2);
            let path = ["/dmp/x", "/roc/x"][number / 4];
            let mut client = gateway.connect().await;
            let mut answered = 0;
            while !done.load(Ordering::Acquire) {
                let request = Request::get(path).header("x-finess", tenant.as_str());
                let answer = client.send(request.body(Bytes::new()).unwrap()).await;
                assert_eq!(answer.status(), 200, "{answer:?}");
                assert_eq!(answer.seen().ou, Some(format!("1{tenant}")));
                answered += 1;
            }
            answered
        });
    }
    let good = fs::read_to_string(&gateway.site.configuration).unwrap();
    let mut other = good.replace(TRUST, "trust/copy.pem");
    with(&mut other, "dmp", "retry = \"never\"");
    let mut third = good.clone();
    let section = cut(&mut third, "dmp");
    third.push_str(&format!("\n{section}http = \"h1\"\n"));
    for round in 0..40 {
        put(
            &gateway.site.configuration,
            [&other, &third, &good][round % 3],
        );
        let report = reload(&gateway).await;
        assert!(report.changed && report.problems.is_empty(), "{report:?}");
        // A configuration that is there for less time than a handshake takes serves nobody.
        for service in ["dmp", "roc"] {
            let outcome = outcome(&gateway, gateway.tenant(0), service).await;
            assert!(outcome.is_ok(), "{outcome:?}");
        }
    }
    done.store(true, Ordering::Release);
    let mut answered = 0;
    while let Some(client) = clients.join_next().await {
        answered += client.unwrap();
    }
    assert!(
        answered > 100,
        "{answered} requests were answered meanwhile"
    );
}

#[tokio::test]
async fn a_changed_configuration_or_trust_file_is_noticed_by_itself_until_it_says_otherwise() {
    let mut section = String::new();
    let gateway = start_with(2, &[DMP, ROC], |text| section = cut(text, "roc"));
    let tenant = gateway.tenant(0);
    let until = async |what: &str, service: &str, expected: Result<(), &str>| {
        let until = Instant::now() + support::DEADLINE;
        loop {
            let outcome = outcome(&gateway, tenant, service).await;
            if outcome.as_ref().map(|_| ()).map_err(|code| &**code) == expected {
                break;
            }
            assert!(Instant::now() < until, "{what}: {outcome:?}");
        }
    };
    edit(&gateway, |text| text.push_str(&section));
    until("a service has come", "roc", Ok(())).await;
    let trust = gateway.path().join(TRUST);
    let good = fs::read(&trust).unwrap();
    put(&trust, Pki::new(Environment::Test).authority_pem());
    until("a trust file has changed", "roc", Err("upstream_untrusted")).await;
    put(&trust, &good);
    until("it is back", "roc", Ok(())).await;

    // What is watched is what the file names now.
    fs::create_dir(gateway.path().join("elsewhere")).unwrap();
    let moved = gateway.path().join("elsewhere/trust.pem");
    put(&moved, &good);
    edit(&gateway, |text| {
        *text = text.replace(TRUST, "trust/../elsewhere/trust.pem");
        with(text, "roc", "retry = \"never\"");
    });
    until("another file is named", "roc", Ok(())).await;
    let named = || {
        gateway.app.gateway.table.load().services()[1]
            .service
            .trust
            .clone()
    };
    let is_named = |path: &Path| matches!(named(), relais::services::Trust::File(file) if file.ends_with(path));
    eventually("it is", || is_named(Path::new("elsewhere/trust.pem"))).await;
    put(&moved, Pki::new(Environment::Test).authority_pem());
    until("it has changed", "roc", Err("upstream_untrusted")).await;
    put(&moved, &good);
    until("and changed back", "roc", Ok(())).await;

    edit(&gateway, |text| manual(text));
    let count = || gateway.metric("relais_reload_total", &["outcome=\"success\""]);
    let loads = count();
    edit(&gateway, |text| drop(cut(text, "roc")));
    // Either it is noticed together with the word that it is to be noticed no more, or when somebody asks.
    reload(&gateway).await;
    until("asked for", "roc", Err("service_unknown")).await;
    assert!(count() > loads);
    edit(&gateway, |text| {
        *text = text.replace("reload = \"manual\"\n", "")
    });
    reload(&gateway).await;
    edit(&gateway, |text| text.push_str(&section));
    until("watched again", "roc", Ok(())).await;
}

#[tokio::test]
async fn a_folder_that_is_put_in_the_place_of_another_is_watched_too() {
    let (gateway, ()) = start_on(1, &[DMP], |site, _| {
        fs::rename(site.directory.join("certs"), site.directory.join("first")).unwrap();
        std::os::unix::fs::symlink("first", site.directory.join("certs")).unwrap();
    });
    let tenant = gateway.tenant(0);
    let now = jiff::Timestamp::now().as_second();
    let ou = format!("1{tenant}");
    let issue = |cn: &str, ago: i64| {
        let order = pki::Request {
            not_before: Some(now - ago),
            ..pki::Request::new(&ou, cn)
        };
        gateway.site.pki.issue(&order).pem()
    };
    let shows = async |expected: &str| {
        let until = Instant::now() + Duration::from_secs(10);
        while outcome(&gateway, tenant, "dmp").await.as_deref() != Ok(expected) {
            assert!(Instant::now() < until, "{expected} is not shown");
        }
    };
    let folder = |name: &str| -> PathBuf {
        let path = gateway.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    shows("Logiciel de demonstration").await;
    put(&folder("second").join("dmp.pem"), issue("Deuxieme", 100));
    std::os::unix::fs::symlink("second", gateway.path().join("link")).unwrap();
    fs::rename(gateway.path().join("link"), gateway.path().join("certs")).unwrap();
    shows("Deuxieme").await;
    put(
        &gateway.path().join("second/more.pem"),
        issue("Troisieme", 90),
    );
    shows("Troisieme").await;
    // Removed and made again: file systems give its number to the next.
    fs::remove_file(gateway.path().join("certs")).unwrap();
    let real = folder("certs");
    put(&real.join("dmp.pem"), issue("Quatrieme", 80));
    shows("Quatrieme").await;
    for (cn, ago) in [("Cinquieme", 70), ("Sixieme", 60)] {
        fs::remove_dir_all(&real).unwrap();
        fs::create_dir(&real).unwrap();
        put(&real.join("dmp.pem"), issue(cn, ago));
        shows(cn).await;
    }
}

/// A gateway in a process of its own, which ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_level_of_the_log_is_that_of_the_file_as_soon_as_sighup_has_it_read() {
    let directory = tempfile::tempdir().unwrap();
    let site = Site::build(directory.path(), 1, &[DMP], Ports::default()).unwrap();
    let mut text = fs::read_to_string(&site.configuration).unwrap();
    manual(&mut text);
    text = text.replace("[log]", "[log]\nlevel = \"warn\"");
    fs::write(&site.configuration, &text).unwrap();
    put(
        &site.directory.join("certs/bad.pem"),
        "-----BEGIN CERTIFICATE-----\n",
    );
    let log = directory.path().join("stderr");
    let gateway = Command::new(env!("CARGO_BIN_EXE_relais"))
        .args(["serve", "--config"])
        .arg(&site.configuration)
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .spawn();
    let gateway = Running(gateway.unwrap());
    let says = |what: &str| {
        let until = Instant::now() + support::DEADLINE;
        loop {
            let said = fs::read_to_string(&log).unwrap();
            if said.contains(what) {
                return said;
            }
            assert!(Instant::now() < until, "{what}: {said}");
            std::thread::yield_now();
        }
    };
    let said = says("bad.pem");
    assert!(!said.contains("INFO"), "{said}");
    put(&site.configuration, text.replace("\"warn\"", "\"info\""));
    let pid = gateway.0.id().to_string();
    let hup = Command::new("kill").args(["-HUP", &pid]).status().unwrap();
    assert!(hup.success());
    says("configuration taken up");
}
