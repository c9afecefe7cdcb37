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
use support::{DEADLINE, eventually, start_on, waiting_for_a_connection, within};
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

#[tokio::test]
async fn when_a_certificate_ends_the_one_that_is_still_valid_takes_its_place() {
    let stand = Stand {
        http: HttpVersions::H1,
        ..Stand::new("psc")
    };
    let tenant = sample_finess(5);
    let (gateway, ()) = start_on(1, &[stand], |site, _| {
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
