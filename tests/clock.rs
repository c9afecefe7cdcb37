//! Certificates that begin or end while the gateway runs.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use std::sync::Arc;
use std::time::Instant;

use relais::identity::finess::Finess;
use relais::identity::profile::Profile;
use relais::services::HttpVersions;
use relais::simulator::pki::{self, Request};
use relais::simulator::site::{Site, Stand, sample_finess};
use support::upstream::{Connection, Tls, Upstream};
use support::{DEADLINE, TestGateway, eventually, start_on, waiting_for_a_connection, within};
use tokio::sync::Semaphore;

/// Issues certificates to a tenant: CN, beginning and end in seconds from now.
fn issue(site: &Site, tenant: Finess, certificates: &[(&str, i64, i64)]) {
    let ou = format!("1{tenant}");
    let now = jiff::Timestamp::now().as_second();
    for (cn, not_before, not_after) in certificates {
        let issued = site.pki.issue(&Request {
            not_before: Some(now + not_before),
            not_after: Some(now + not_after),
            ..Request::new(&ou, cn)
        });
        let path = site.directory.join(format!("certs/{cn}.pem"));
        pki::write_private(&path, issued.pem()).unwrap();
    }
}

/// Has certificates used to their last second.
fn until_the_end(text: &mut String) {
    let folder = "directory = \"certs\"";
    *text = text.replace(folder, &format!("{folder}\nretire_before_expiry = \"0s\""));
}

#[tokio::test]
async fn when_a_certificate_ends_the_one_that_is_still_valid_takes_its_place() {
    let stand = Stand {
        http: HttpVersions::H1,
        ..Stand::new("psc")
    };
    let tenant = sample_finess(5);
    let (gateway, ()) = start_on(1, &[stand], |site, text| {
        until_the_end(text);
        let certificates = [
            ("Ends", -100, 3),
            ("Begins", 5, 1000),
            ("Stays", -200, 1000),
        ];
        issue(site, tenant, &certificates);
    });
    let mut seen: Vec<String> = Vec::new();
    let until = Instant::now() + DEADLINE;
    while seen.last().is_none_or(|last| last != "Begins") {
        assert!(Instant::now() < until, "{seen:?}");
        let answer = gateway.get(tenant, "/psc/x").await;
        // Between the last second of one and the next look at the clock there may be none.
        if answer.status() == 200 {
            let cn = answer.seen().cn.unwrap();
            if seen.last() != Some(&cn) {
                seen.push(cn);
            }
        }
    }
    assert_eq!(seen, ["Ends", "Stays", "Begins"]);
}

/// Answers with the CN of the certificate that it was shown; the first connection waits for `released` before.
async fn tell_cn(mut connection: Connection, number: usize, released: Arc<Semaphore>) {
    let (_, session) = connection.stream.get_ref();
    let leaf = Profile::parse(&session.peer_certificates().unwrap()[0]).unwrap();
    let cn = leaf.common_name.unwrap();
    if number == 0 {
        connection.head().await;
        released.acquire().await.unwrap().forget();
        connection.answer(&cn).await;
    }
    connection.keep_answering(&cn).await;
}

#[tokio::test]
async fn who_waits_for_a_connection_when_a_certificate_ends_is_served_under_the_next_one() {
    let tenant = sample_finess(5);
    let released = Arc::new(Semaphore::new(0));
    let (gateway, _upstream) = start_on(1, &[Stand::new("dmp")], |site, text| {
        until_the_end(text);
        issue(site, tenant, &[("Ends", -100, 4), ("Stays", -200, 1000)]);
        let released = Arc::clone(&released);
        let upstream = Upstream::start(&site.pki, &Tls::default(), move |connection, number| {
            tell_cn(connection, number, Arc::clone(&released))
        });
        text.push_str(&upstream.service("up", "pool = { max_connections = 1 }"));
        upstream
    });
    let (first, second) = tokio::join!(
        async {
            let answer = gateway.get(tenant, "/up/first").await;
            String::from_utf8(answer.0.body().to_vec()).unwrap()
        },
        async {
            eventually("the first request is in flight", || {
                gateway.app.outbound.pools().len() == 1
            })
            .await;
            let waiting = gateway.get(tenant, "/up/second");
            let waits = eventually("the second waits", || {
                waiting_for_a_connection(&gateway) == 1
            });
            let (answer, ()) = tokio::join!(within(waiting), waits);
            // The first still has the only connection that there may be under its certificate.
            released.add_permits(1);
            String::from_utf8(answer.0.body().to_vec()).unwrap()
        }
    );
    assert_eq!((first.as_str(), second.as_str()), ("Ends", "Stays"));
}

const HOUR: i64 = 3600;

/// The CN that the service would be shown, or the code of the refusal. The service itself is not asked: its own clock
/// is not set.
async fn outcome(gateway: &TestGateway, tenant: Finess) -> String {
    let answer = gateway.get(tenant, "/-/identity/dmp").await;
    if answer.status() != 200 {
        return answer.code();
    }
    let identity: serde_json::Value = serde_json::from_slice(answer.0.body()).unwrap();
    identity["cn"].as_str().unwrap().to_owned()
}

async fn comes_to(gateway: &TestGateway, tenant: Finess, expected: &str) {
    let until = Instant::now() + DEADLINE;
    loop {
        let outcome = outcome(gateway, tenant).await;
        if outcome == expected {
            return;
        }
        assert!(Instant::now() < until, "{outcome}, not {expected}");
    }
}

#[tokio::test]
async fn when_the_clock_is_set_forward_or_back_certificates_follow_it() {
    let tenant = sample_finess(5);
    let (gateway, ()) = start_on(1, &[Stand::new("dmp")], |site, _| {
        let certificates = [
            ("Maintenant", -10 * HOUR, 10 * HOUR),
            ("Ensuite", 5 * HOUR, 40 * HOUR),
        ];
        issue(site, tenant, &certificates);
    });
    let expired = || gateway.metric("relais_certificates", &["state=\"expired\""]);
    for (hours, expected) in [
        (0, "Maintenant"),
        (6, "Ensuite"),
        (4, "Maintenant"),
        (30, "Ensuite"),
        (50, "certificate_expired"),
        // A computer whose battery is dead wakes up in the past.
        (-400_000, "certificate_missing"),
        (0, "Maintenant"),
    ] {
        gateway.app.clock.set(hours * HOUR);
        comes_to(&gateway, tenant, expected).await;
        let ended = [10, 40].iter().filter(|end| hours > **end).count();
        eventually("metrics follow", || expired() >= ended as f64).await;
    }
}

#[tokio::test]
async fn a_certificate_is_no_longer_used_shortly_before_its_end() {
    let tenant = sample_finess(5);
    let (gateway, ()) = start_on(1, &[Stand::new("dmp")], |site, text| {
        let folder = "directory = \"certs\"";
        let margin = format!("{folder}\nretire_before_expiry = \"2h\"");
        *text = text.replace(folder, &margin);
        // The one that ends sooner is the later one, and so the one to be chosen.
        issue(
            site,
            tenant,
            &[("Court", -HOUR, 5 * HOUR), ("Long", -2 * HOUR, 9 * HOUR)],
        );
    });
    comes_to(&gateway, tenant, "Court").await;
    gateway.app.clock.set(4 * HOUR);
    comes_to(&gateway, tenant, "Long").await;
    gateway.app.clock.set(8 * HOUR);
    comes_to(&gateway, tenant, "certificate_expired").await;
    let refused = gateway.get(tenant, "/dmp/x").await;
    let text = String::from_utf8_lossy(refused.0.body()).into_owned();
    assert!(text.contains("identities.retire_before_expiry"), "{text}");
}

#[tokio::test]
async fn a_reload_while_the_clock_is_wrong_loses_no_certificate() {
    let tenant = sample_finess(5);
    let (gateway, ()) = start_on(1, &[Stand::new("dmp")], |site, text| {
        let folder = "directory = \"certs\"";
        *text = text.replace(folder, &format!("{folder}\nreload = \"manual\""));
        issue(site, tenant, &[("Bon", -10 * HOUR, 10 * HOUR)]);
    });
    comes_to(&gateway, tenant, "Bon").await;
    // Half of a file, so that the certificate is kept as it was.
    let path = gateway.path().join("certs/Bon.pem");
    let whole = std::fs::read(&path).unwrap();
    pki::write_private(&path, &whole[..whole.len() / 3]).unwrap();
    for hours in [0, 50, -400_000, 0] {
        gateway.app.clock.set(hours * HOUR);
        within(gateway.app.reload()).await.unwrap();
    }
    comes_to(&gateway, tenant, "Bon").await;
}
