//! Certificates that begin or end while the gateway runs.

mod support;

use std::time::Instant;

use relais::services::HttpVersions;
use relais::simulator::pki::{self, Request};
use relais::simulator::site::{Stand, sample_finess};
use support::{DEADLINE, start_on};

#[tokio::test]
async fn when_a_certificate_ends_the_one_that_is_still_valid_takes_its_place() {
    let stand = Stand {
        http: HttpVersions::H1,
        ..Stand::new("psc")
    };
    let tenant = sample_finess(5);
    let (gateway, ()) = start_on(1, &[stand], |site, _| {
        let ou = format!("1{tenant}");
        let now = jiff::Timestamp::now().as_second();
        for (cn, not_before, not_after) in [
            ("Ends", now - 100, now + 3),
            ("Begins", now + 5, now + 1000),
            ("Stays", now - 200, now + 1000),
        ] {
            let issued = site.pki.issue(&Request {
                not_before: Some(not_before),
                not_after: Some(not_after),
                ..Request::new(&ou, cn)
            });
            pki::write_private(
                &site.directory.join(format!("certs/{cn}.pem")),
                issued.pem(),
            )
            .unwrap();
        }
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
