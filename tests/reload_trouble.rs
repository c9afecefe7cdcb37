//! Reloads when something else is going on, or going wrong.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use std::fs::{self, File, FileTimes};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use relais::services::{HttpVersions, TlsVersions};
use relais::simulator::pki::{self, Request};
use relais::simulator::site::Stand;
use support::{TestGateway, eventually, settled, start_on, start_with, within};
use tokio::task::JoinSet;

fn start(stands: &[Stand], how: &str) -> TestGateway {
    start_with(1, stands, |text| {
        let folder = "directory = \"certs\"";
        *text = text.replace(folder, &format!("{folder}\nreload = \"{how}\""));
    })
}

fn own_file(gateway: &TestGateway) -> PathBuf {
    let tenant = gateway.tenant(0);
    gateway.path().join(format!("certs/{tenant}/auth_cli.pem"))
}

/// Writes a certificate of that CN over the structure's.
fn renew(gateway: &TestGateway, cn: &str) {
    let ou = format!("1{}", gateway.tenant(0));
    let issued = gateway.site.pki.issue(&Request::new(&ou, cn));
    pki::write_private(&own_file(gateway), issued.pem()).unwrap();
}

async fn cn(gateway: &TestGateway, service: &str) -> String {
    let answer = gateway
        .get(gateway.tenant(0), &format!("/{service}/x"))
        .await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    answer.seen().cn.unwrap()
}

#[tokio::test]
async fn reloads_that_come_during_a_reload_come_one_after_the_other_and_the_last_one_counts() {
    let gateway = Arc::new(start(&[Stand::new("dmp")], "manual"));
    cn(&gateway, "dmp").await;
    let mut reloads = JoinSet::new();
    for round in 0..20 {
        renew(&gateway, &format!("Tour {round}"));
        let app = Arc::clone(&gateway.app);
        reloads.spawn(async move { app.reload().await.unwrap() });
    }
    let mut added = 0;
    while let Some(report) = within(reloads.join_next()).await {
        added += report.unwrap().added.len();
    }
    assert!(added >= 1);
    assert_eq!(cn(&gateway, "dmp").await, "Tour 19");
    assert_eq!(gateway.app.gateway.table.load().generations().len(), 1);
}

#[tokio::test]
async fn ten_thousand_files_touched_at_once_change_nothing_and_delay_no_renewal() {
    let gateway = start(&[Stand::new("dmp")], "auto");
    let before = cn(&gateway, "dmp").await;
    let folder = gateway.path().join("certs/many");
    fs::create_dir(&folder).unwrap();
    let authority = gateway.site.pki.authority_pem();
    let paths: Vec<_> = (0..10_000)
        .map(|number| folder.join(format!("{number}.pem")))
        .collect();
    for path in &paths {
        fs::write(path, &authority).unwrap();
    }
    assert_eq!(cn(&gateway, "dmp").await, before);
    let now = FileTimes::new().set_modified(SystemTime::now());
    for path in &paths {
        let file = File::options().append(true).open(path).unwrap();
        file.set_times(now).unwrap();
    }
    renew(&gateway, "Parmi dix mille");
    // Without optimisation ten thousand files alone take seconds to read, twice: so nothing but a look now and then is
    // asked for meanwhile, and for longer than elsewhere.
    let until = std::time::Instant::now() + 3 * support::DEADLINE;
    while cn(&gateway, "dmp").await != "Parmi dix mille" {
        assert!(std::time::Instant::now() < until, "it is not taken up");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let report = within(gateway.app.reload()).await.unwrap();
    assert!(report.problems.is_empty() && !report.changed, "{report:?}");
}

#[tokio::test]
async fn a_full_disk_stops_neither_requests_nor_renewals() {
    let gateway = start_with(1, &[Stand::new("dmp")], |text| {
        *text = text.replace("access = \"access.log\"", "access = \"/dev/full\"");
    });
    cn(&gateway, "dmp").await;
    renew(&gateway, "Disque plein");
    within(gateway.app.reload()).await.unwrap();
    assert_eq!(cn(&gateway, "dmp").await, "Disque plein");
    // What could be written of a certificate before the disk was full.
    let whole = fs::read(own_file(&gateway)).unwrap();
    for length in [0, 1, whole.len() / 2, whole.len() - 40] {
        pki::write_private(&own_file(&gateway), &whole[..length]).unwrap();
        let report = within(gateway.app.reload()).await.unwrap();
        assert_eq!(report.kept.len(), 1, "{length}: {report:?}");
        assert_eq!(cn(&gateway, "dmp").await, "Disque plein");
    }
}

#[tokio::test]
async fn no_session_of_a_replaced_certificate_is_resumed() {
    let stand = |name, tls, http| Stand {
        tls,
        http,
        ..Stand::new(name)
    };
    let stands = [
        stand("dmp", TlsVersions::Only12, HttpVersions::H1),
        stand("psc", TlsVersions::Only13, HttpVersions::H1),
        stand("roc", TlsVersions::Only12, HttpVersions::H2),
        stand("ror", TlsVersions::Only13, HttpVersions::H2),
    ];
    let gateway = start(&stands, "manual");
    for stand in &stands {
        cn(&gateway, stand.name).await;
    }
    settled(&gateway).await;
    for round in 0..3 {
        let name = format!("Tour {round}");
        renew(&gateway, &name);
        within(gateway.app.reload()).await.unwrap();
        for (number, stand) in stands.iter().enumerate() {
            // The simulator tells what the certificate was, in a resumed session too.
            assert_eq!(cn(&gateway, stand.name).await, name, "{}", stand.name);
            let (full, _) = gateway.site.simulators[number].1.handshakes();
            assert!(full >= round + 2, "{}: {full} full handshakes", stand.name);
        }
    }
}

#[tokio::test]
async fn certificates_that_change_places_are_not_mixed_up() {
    let gateway = Arc::new(start_with(2, &[Stand::new("dmp")], |text| {
        let folder = "directory = \"certs\"";
        *text = text.replace(folder, &format!("{folder}\nreload = \"manual\""));
    }));
    let [one, other] = [0, 1].map(|number| {
        let tenant = gateway.tenant(number);
        gateway.path().join(format!("certs/{tenant}/auth_cli.pem"))
    });
    let asked = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for number in 0..4 {
        let (gateway, asked) = (Arc::clone(&gateway), Arc::clone(&asked));
        clients.spawn(async move {
            let tenant = gateway.tenant(number % 2);
            loop {
                let answer = gateway.get(tenant, "/dmp/x").await;
                assert_eq!(answer.status(), 200, "{answer:?}");
                assert_eq!(answer.seen().ou, Some(format!("1{tenant}")));
                asked.fetch_add(1, Ordering::AcqRel);
            }
        });
    }
    for _ in 0..10 {
        let aside = one.with_extension("aside");
        for (from, to) in [(&one, &aside), (&other, &one), (&aside, &other)] {
            fs::rename(from, to).unwrap();
        }
        assert!(within(gateway.app.reload()).await.unwrap().changed);
        let seen = asked.load(Ordering::Acquire);
        eventually("requests go on", || {
            asked.load(Ordering::Acquire) > seen + 4
        })
        .await;
    }
    clients.abort_all();
    while let Some(ended) = clients.join_next().await {
        assert!(ended.is_err_and(|error| error.is_cancelled()));
    }
}

#[tokio::test]
async fn a_file_of_passwords_that_cannot_be_read_keeps_nothing_else_from_being_taken_up() {
    let (gateway, passwords) = start_on(1, &[Stand::new("dmp")], |site, text| {
        let passwords = site.directory.join("passwords.txt");
        pki::write_private(&passwords, "un\n").unwrap();
        let folder = "directory = \"certs\"";
        let more = "reload = \"manual\"\npassword_file = \"passwords.txt\"";
        *text = text.replace(folder, &format!("{folder}\n{more}"));
        passwords
    });
    renew(&gateway, "Un");
    assert!(
        within(gateway.app.reload())
            .await
            .unwrap()
            .problems
            .is_empty()
    );
    fs::write(&passwords, "").unwrap();
    renew(&gateway, "Deux");
    let report = within(gateway.app.reload()).await.unwrap();
    assert_eq!(report.problems.len(), 1, "{report:?}");
    assert!(
        report.problems[0].file.ends_with("passwords.txt"),
        "{report:?}"
    );
    assert_eq!(cn(&gateway, "dmp").await, "Deux");
    // What is taken out of use is, too.
    fs::remove_file(own_file(&gateway)).unwrap();
    within(gateway.app.reload()).await.unwrap();
    let refused = gateway.get(gateway.tenant(0), "/dmp/x").await;
    assert_eq!(refused.code(), "certificate_missing");
}
