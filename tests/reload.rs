//! Certificates that come, change and go while the gateway runs.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use relais::app::reload::Report;
use relais::identity::finess::Finess;
use relais::services::HttpVersions;
use relais::simulator::pki::{self, Issued, Request};
use relais::simulator::site::{Stand, sample_finess};
use support::{TestGateway, eventually, settled, start_with, within};

const H1: Stand = Stand {
    http: HttpVersions::H1,
    ..Stand::new("dmp")
};
const H2: Stand = Stand {
    http: HttpVersions::H2,
    ..Stand::new("roc")
};

/// A gateway that reads nothing again unless it is told to, so that each test says when.
fn start(tenants: usize, stands: &[Stand], how: &str) -> TestGateway {
    start_with(tenants, stands, |text| {
        let folder = "directory = \"certs\"";
        *text = text.replace(folder, &format!("{folder}\nreload = \"{how}\""));
    })
}

/// A certificate of a structure with that CN, which began so many seconds ago.
fn issue(gateway: &TestGateway, tenant: Finess, cn: &str, ago: i64) -> Issued {
    let now = jiff::Timestamp::now().as_second();
    gateway.site.pki.issue(&Request {
        not_before: Some(now - ago),
        ..Request::new(&format!("1{tenant}"), cn)
    })
}

fn certificates(gateway: &TestGateway, name: &str) -> PathBuf {
    let path = gateway.path().join("certs").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    path
}

/// As a careful deployment does it: written aside, then renamed.
fn put(gateway: &TestGateway, name: &str, pem: impl AsRef<[u8]>) -> PathBuf {
    let path = certificates(gateway, name);
    let aside = path.with_extension("new");
    pki::write_private(&aside, pem).unwrap();
    fs::rename(&aside, &path).unwrap();
    path
}

async fn reload(gateway: &TestGateway) -> Report {
    within(gateway.app.reload()).await.unwrap()
}

async fn cn(gateway: &TestGateway, tenant: Finess, service: &str) -> Option<String> {
    let answer = gateway.get(tenant, &format!("/{service}/x")).await;
    (answer.status() == 200).then(|| answer.seen().cn.unwrap())
}

fn own(tenant: Finess) -> String {
    format!("{tenant}/auth_cli.pem")
}

#[tokio::test]
async fn from_a_reload_on_requests_use_the_new_certificate_and_others_keep_their_connections() {
    let gateway = start(2, &[H1, H2], "manual");
    let (tenant, other) = (gateway.tenant(0), gateway.tenant(1));
    for service in ["dmp", "roc"] {
        cn(&gateway, tenant, service).await.unwrap();
        cn(&gateway, other, service).await.unwrap();
        settled(&gateway).await;
    }
    let handshakes = |at: usize| {
        let (full, resumed) = gateway.site.simulators[at].1.handshakes();
        full + resumed
    };
    let before = [handshakes(0), handshakes(1)];
    let renewed = issue(&gateway, tenant, "Renouvelle", 10);
    put(&gateway, &own(tenant), renewed.pem());
    let report = reload(&gateway).await;
    assert_eq!((report.added.len(), report.removed.len()), (1, 1));
    for (at, service) in ["dmp", "roc"].into_iter().enumerate() {
        assert_eq!(
            cn(&gateway, tenant, service).await.as_deref(),
            Some("Renouvelle")
        );
        cn(&gateway, other, service).await.unwrap();
        assert_eq!(
            handshakes(at),
            before[at] + 1,
            "{service}: only the renewed one dials"
        );
    }
    // Sessions of the old certificate are not resumed: the one handshake was a full one.
    assert!(!reload(&gateway).await.changed);
}

#[tokio::test]
async fn a_certificate_dropped_into_the_folder_serves_its_structure_and_one_removed_does_not() {
    let gateway = start(1, &[H1], "manual");
    let tenant = sample_finess(70);
    assert_eq!(cn(&gateway, tenant, "dmp").await, None);
    let path = put(
        &gateway,
        "new/dmp.pem",
        issue(&gateway, tenant, "Nouveau", 10).pem(),
    );
    assert_eq!(reload(&gateway).await.added.len(), 1);
    assert_eq!(
        cn(&gateway, tenant, "dmp").await.as_deref(),
        Some("Nouveau")
    );
    let is_told_to_end = |gateway: &TestGateway| {
        let series =
            format!("relais_certificate_expiry_timestamp_seconds{{structure=\"1{tenant}\"");
        gateway.app.gateway.metrics.render().contains(&series)
    };
    assert!(is_told_to_end(&gateway));
    fs::remove_file(path).unwrap();
    assert_eq!(reload(&gateway).await.removed.len(), 1);
    assert!(
        !is_told_to_end(&gateway),
        "nothing is told to end that is not there"
    );
    let refused = gateway.get(tenant, "/dmp/x").await;
    assert_eq!(refused.code(), "tenant_unknown");
    let open = || {
        gateway
            .app
            .outbound
            .pools()
            .iter()
            .map(|pool| pool.occupancy().idle)
            .sum::<usize>()
    };
    eventually("its connections are closed", || open() == 0).await;
}

#[tokio::test]
async fn a_renewal_that_arrives_in_pieces_ends_right_and_the_old_one_serves_meanwhile() {
    let gateway = start(1, &[H1], "manual");
    let tenant = sample_finess(70);
    let first = issue(&gateway, tenant, "Premier", 100);
    put(&gateway, "dmp.crt", first.chain_pem());
    put(&gateway, "dmp.key", first.key_pem());
    reload(&gateway).await;
    let second = issue(&gateway, tenant, "Second", 10);
    // The certificate, but not its key yet.
    put(&gateway, "dmp.crt", second.chain_pem());
    let report = reload(&gateway).await;
    assert_eq!(
        (report.kept.len(), report.problems.len()),
        (1, 1),
        "{report:?}"
    );
    assert_eq!(
        cn(&gateway, tenant, "dmp").await.as_deref(),
        Some("Premier")
    );
    put(&gateway, "dmp.key", second.key_pem());
    let report = reload(&gateway).await;
    assert!(
        report.kept.is_empty() && report.problems.is_empty(),
        "{report:?}"
    );
    assert_eq!(cn(&gateway, tenant, "dmp").await.as_deref(), Some("Second"));
}

#[tokio::test]
async fn what_is_not_in_order_leaves_the_last_good_certificate_in_use() {
    let gateway = start(1, &[H1], "manual");
    let tenant = gateway.tenant(0);
    let before = cn(&gateway, tenant, "dmp").await;
    let good = fs::read(certificates(&gateway, &own(tenant))).unwrap();
    let now = jiff::Timestamp::now().as_second();
    let ou = format!("1{tenant}");
    let expired = gateway.site.pki.issue(&Request {
        not_before: Some(now - 5000),
        not_after: Some(now - 10),
        ..Request::new(&ou, "Expire")
    });
    let sign = gateway.site.pki.issue(&Request {
        purpose: pki::Purpose::Sign,
        ..Request::new(&ou, "Signature")
    });
    let early = gateway.site.pki.issue(&Request {
        not_before: Some(now + 5000),
        ..Request::new(&ou, "Futur")
    });
    let cases: [(&str, Vec<u8>); 6] = [
        ("truncated", good[..good.len() / 3].to_vec()),
        ("empty", Vec::new()),
        ("not a certificate", b"bonjour".to_vec()),
        ("expired", expired.pem().into()),
        ("for signatures", sign.pem().into()),
        ("not begun", early.pem().into()),
    ];
    for (what, bytes) in cases {
        put(&gateway, &own(tenant), bytes);
        let report = reload(&gateway).await;
        let is_kept = (report.kept.iter()).any(|one| one.subject.contains("CN=Logiciel"));
        assert!(is_kept, "{what}: {report:?}");
        assert_eq!(cn(&gateway, tenant, "dmp").await, before, "{what}");
    }
    put(&gateway, &own(tenant), good);
    assert!(reload(&gateway).await.kept.is_empty());
}

#[tokio::test]
async fn a_certificate_for_something_else_in_the_wrong_file_takes_nothing_out_of_use() {
    let gateway = start(1, &[H1], "manual");
    let tenant = gateway.tenant(0);
    let before = cn(&gateway, tenant, "dmp").await;
    let other = pki::Pki::new(relais::services::Environment::Production);
    let ou = format!("1{tenant}");
    let foreign = other.issue(&Request::new(&ou, "Production"));
    let good = fs::read(certificates(&gateway, &own(tenant))).unwrap();
    for pem in [
        issue(&gateway, tenant, "INSI-AUTO", 10).pem(),
        foreign.pem(),
    ] {
        put(&gateway, &own(tenant), pem);
        let report = reload(&gateway).await;
        assert_eq!(report.kept.len(), 1, "{report:?}");
        assert_eq!(cn(&gateway, tenant, "dmp").await, before);
        put(&gateway, &own(tenant), &good);
        assert!(reload(&gateway).await.kept.is_empty());
    }
    // Another structure's is there because somebody wants it there.
    let moved = sample_finess(70);
    put(
        &gateway,
        &own(tenant),
        issue(&gateway, moved, "Ailleurs", 10).pem(),
    );
    assert!(reload(&gateway).await.kept.is_empty());
    assert_eq!(
        cn(&gateway, moved, "dmp").await.as_deref(),
        Some("Ailleurs")
    );
    assert_eq!(cn(&gateway, tenant, "dmp").await, None);
}

#[tokio::test]
async fn what_was_in_the_wrong_file_goes_when_the_file_is_put_right() {
    let gateway = start(1, &[H1], "manual");
    let tenant = gateway.tenant(0);
    let insi = issue(&gateway, tenant, "INSI-AUTO", 10).pem();
    put(&gateway, &own(tenant), insi);
    assert_eq!(reload(&gateway).await.kept.len(), 1);
    put(
        &gateway,
        &own(tenant),
        issue(&gateway, tenant, "Renouvelle", 5).pem(),
    );
    let report = reload(&gateway).await;
    assert_eq!(
        (report.kept.len(), report.removed.len()),
        (0, 2),
        "{report:?}"
    );
    assert_eq!(
        cn(&gateway, tenant, "dmp").await.as_deref(),
        Some("Renouvelle")
    );
}

#[tokio::test]
async fn what_is_taken_out_of_a_bundle_is_out_of_use_even_if_the_bundle_was_half_written_meanwhile()
{
    let gateway = start(1, &[H1], "manual");
    let tenant = sample_finess(70);
    let one = issue(&gateway, tenant, "Sortant", 10).pem();
    let insi = issue(&gateway, tenant, "INSI-AUTO", 10).pem();
    put(&gateway, "bundle.pem", format!("{one}{insi}"));
    reload(&gateway).await;
    assert_eq!(
        cn(&gateway, tenant, "dmp").await.as_deref(),
        Some("Sortant")
    );
    put(&gateway, "bundle.pem", &insi[..insi.len() / 2]);
    assert_eq!(reload(&gateway).await.kept.len(), 2);
    put(&gateway, "bundle.pem", &insi);
    let report = reload(&gateway).await;
    assert_eq!(
        (report.kept.len(), report.removed.len()),
        (0, 1),
        "{report:?}"
    );
    assert_eq!(cn(&gateway, tenant, "dmp").await, None);
}

#[tokio::test]
async fn a_folder_that_is_gone_changes_nothing_and_is_read_again_when_it_is_back() {
    let gateway = start(1, &[H1], "manual");
    let (folder, away) = (gateway.path().join("certs"), gateway.path().join("away"));
    fs::rename(&folder, &away).unwrap();
    assert!(within(gateway.app.reload()).await.is_err());
    assert!(cn(&gateway, gateway.tenant(0), "dmp").await.is_some());
    let failed = gateway.metric("relais_reload_total", &["outcome=\"failure\""]);
    assert_eq!(failed, 1.0);
    fs::rename(&away, &folder).unwrap();
    assert!(!reload(&gateway).await.changed);
    assert!(cn(&gateway, gateway.tenant(0), "dmp").await.is_some());
}

#[tokio::test]
async fn the_table_of_structures_is_read_again_too() {
    let gateway = start(1, &[H1], "manual");
    let (tenant, site) = (gateway.tenant(0), sample_finess(71));
    assert_eq!(cn(&gateway, site, "dmp").await, None);
    let table = gateway.path().join("tenants.csv");
    let text = fs::read_to_string(&table).unwrap();
    fs::write(&table, format!("{text}{site},{tenant},SITE,hospital\n")).unwrap();
    assert!(reload(&gateway).await.changed);
    assert!(cn(&gateway, site, "dmp").await.is_some());
}

#[tokio::test]
async fn a_table_of_structures_that_is_half_written_leaves_the_last_good_one_in_use() {
    let gateway = start(1, &[H1], "manual");
    let site = gateway.site.establishment;
    assert!(cn(&gateway, site, "dmp").await.is_some());
    let table = gateway.path().join("tenants.csv");
    let good = fs::read_to_string(&table).unwrap();
    for bad in ["", "finess,legal_entity,name,sector\n0B0,x", "<html>"] {
        fs::write(&table, bad).unwrap();
        let report = reload(&gateway).await;
        assert!(
            !report.changed && !report.problems.is_empty(),
            "{bad}: {report:?}"
        );
        assert!(cn(&gateway, site, "dmp").await.is_some(), "{bad}");
    }
    fs::write(&table, good).unwrap();
    assert!(reload(&gateway).await.problems.is_empty());
}

#[tokio::test]
async fn a_copy_of_a_certificate_beside_it_changes_nobodys_service() {
    let gateway = start(1, &[H1], "manual");
    let tenant = gateway.tenant(0);
    let before = cn(&gateway, tenant, "dmp").await;
    let pem = fs::read(certificates(&gateway, &own(tenant))).unwrap();
    // Before the original, in the order in which files are read.
    put(&gateway, &format!("{tenant}/auth_cli (copie).pem"), pem);
    for _ in 0..2 {
        let report = reload(&gateway).await;
        assert_eq!(report.problems.len(), 1, "{report:?}");
        assert_eq!(cn(&gateway, tenant, "dmp").await, before);
    }
}

#[tokio::test]
async fn what_is_missing_of_a_half_written_bundle_is_used_on() {
    let gateway = start(1, &[H1], "manual");
    let (one, other) = (sample_finess(70), sample_finess(71));
    let first = issue(&gateway, one, "Un", 100).pem();
    let second = issue(&gateway, other, "Deux", 100).pem();
    put(&gateway, "bundle.pem", format!("{first}{second}"));
    reload(&gateway).await;
    put(
        &gateway,
        "bundle.pem",
        format!("{first}{}", &second[..second.len() / 3]),
    );
    let report = reload(&gateway).await;
    assert_eq!(
        (report.kept.len(), report.removed.len()),
        (1, 0),
        "{report:?}"
    );
    assert_eq!(cn(&gateway, one, "dmp").await.as_deref(), Some("Un"));
    assert_eq!(cn(&gateway, other, "dmp").await.as_deref(), Some("Deux"));
}

#[tokio::test]
async fn an_issuers_file_that_is_lost_takes_no_certificate_out_of_use() {
    let gateway = start(1, &[H1], "manual");
    let tenant = sample_finess(70);
    let issued = issue(&gateway, tenant, "Nu", 100);
    put(&gateway, "bare.crt", issued.cert_pem());
    put(&gateway, "bare.key", issued.key_pem());
    let authority = put(&gateway, "authority.pem", gateway.site.pki.authority_pem());
    reload(&gateway).await;
    assert_eq!(cn(&gateway, tenant, "dmp").await.as_deref(), Some("Nu"));
    fs::remove_file(authority).unwrap();
    assert!(!reload(&gateway).await.changed);
    assert_eq!(cn(&gateway, tenant, "dmp").await.as_deref(), Some("Nu"));
}

#[tokio::test]
async fn rotations_under_load_fail_no_request_and_mix_no_identities() {
    let gateway = Arc::new(start(3, &[H1, H2], "manual"));
    let done = Arc::new(AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..9 {
        let (gateway, done) = (Arc::clone(&gateway), Arc::clone(&done));
        clients.spawn(async move {
            let tenant = gateway.tenant(number % 3);
            let service = ["dmp", "roc"][number % 2];
            let mut client = gateway.connect().await;
            let mut answered = 0;
            while !done.load(Ordering::Acquire) {
                let request = http::Request::get(format!("/{service}/x"))
                    .header("x-finess", tenant.as_str())
                    .body(bytes::Bytes::new())
                    .unwrap();
                let answer = client.send(request).await;
                assert_eq!(answer.status(), 200, "{answer:?}");
                assert_eq!(answer.seen().ou, Some(format!("1{tenant}")));
                answered += 1;
            }
            answered
        });
    }
    for round in 0..40 {
        let tenant = gateway.tenant(round % 3);
        let renewed = issue(
            &gateway,
            tenant,
            "Renouvelle",
            1000 - i64::try_from(round).unwrap(),
        );
        put(&gateway, &own(tenant), renewed.pem());
        let report = reload(&gateway).await;
        assert_eq!(report.added.len(), 1, "{report:?}");
        let shown = gateway.get(tenant, "/dmp/x").await.seen().sha256.unwrap();
        let expected = relais::identity::profile::Fingerprint::of(&renewed.cert_der).to_string();
        assert_eq!(
            shown, expected,
            "nothing is sent under the old one after the reload"
        );
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

#[test]
fn the_command_reloads_a_running_gateway_and_tells_what_has_changed() {
    let gateway = start(1, &[H1], "manual");
    let run = |command: &str| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_relais"))
            .args([command, "--admin", &gateway.admin.to_string()])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), text)
    };
    let (code, text) = run("reload");
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.starts_with("nothing has changed; 1 certificates"),
        "{text}"
    );
    put(&gateway, "bad.pem", "-----BEGIN CERTIFICATE-----\n");
    let issued = issue(&gateway, sample_finess(70), "Nouveau", 10);
    let path = put(&gateway, "good.pem", issued.pem());
    let (code, text) = run("reload");
    assert_eq!(code, Some(3), "{text}");
    let added = format!("added  {}", Path::new(&path).display());
    assert!(
        text.contains(&added) && text.contains("bad.pem: the PEM section"),
        "{text}"
    );
    let (code, text) = run("status");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("2 structures with certificates"), "{text}");
}

#[tokio::test]
async fn a_changed_file_is_noticed_by_itself_however_it_was_changed() {
    let gateway = start(1, &[H1], "auto");
    let tenant = gateway.tenant(0);
    let shows = async |expected: &str| {
        let until = std::time::Instant::now() + support::DEADLINE;
        while cn(&gateway, tenant, "dmp").await.as_deref() != Some(expected) {
            assert!(std::time::Instant::now() < until, "{expected} is not shown");
        }
    };
    let renamed = issue(&gateway, tenant, "Renomme", 100);
    put(&gateway, &own(tenant), renamed.pem());
    shows("Renomme").await;
    // Written over in place.
    let written = issue(&gateway, tenant, "Reecrit", 90);
    pki::write_private(&certificates(&gateway, &own(tenant)), written.pem()).unwrap();
    shows("Reecrit").await;
    // As Kubernetes swaps a mounted secret: the link to the folder of data is put in the place of another.
    let mounted = certificates(&gateway, "mounted/dmp.pem");
    let folder = mounted.parent().unwrap();
    for (version, cn, ago) in [("..v1", "Monte un", 80), ("..v2", "Monte deux", 70)] {
        let data = folder.join(version);
        fs::create_dir(&data).unwrap();
        let pem = issue(&gateway, tenant, cn, ago).pem();
        pki::write_private(&data.join("dmp.pem"), pem).unwrap();
        std::os::unix::fs::symlink(version, folder.join("..tmp")).unwrap();
        fs::rename(folder.join("..tmp"), folder.join("..data")).unwrap();
        if version == "..v1" {
            std::os::unix::fs::symlink("..data/dmp.pem", &mounted).unwrap();
        }
        shows(cn).await;
    }
}
