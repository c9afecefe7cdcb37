//! Requests that two readers could take for different ones: no service sees one that was not plainly sent. The same is
//! sent to nginx and HAProxy by tests/smuggling/run.sh.
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test may panic, and its crate has no other crate to be reached from"
)]

mod support;
mod smuggling {
    pub mod exchange;
    pub mod frames;
    pub mod payloads;
}

use std::sync::Arc;
use std::time::Duration;

use relais::simulator::site::Stand;
use smuggling::exchange::{Arrivals, Outcome, over_h1, over_h2, record};
use smuggling::payloads::{Payload, Words};
use support::upstream::{Connection, Tls, Upstream};
use support::{TestGateway, start_on};

/// A gateway for two tenants in front of a service that writes down what it is sent.
fn recorded() -> (TestGateway, Upstream, Arrivals, Words) {
    let arrivals = Arrivals::default();
    let seen = Arc::clone(&arrivals);
    let (gateway, upstream) = start_on(2, &[Stand::new("dmp")], |site, text| {
        let upstream = Upstream::start(
            &site.pki,
            &Tls::default(),
            move |connection: Connection, _| record(connection.stream, Arc::clone(&seen)),
        );
        text.push_str(&upstream.service("up", ""));
        upstream
    });
    let words = Words::of(gateway.tenant(0).as_str(), gateway.tenant(1).as_str());
    (gateway, upstream, arrivals, words)
}

fn judge(payload: &Payload, outcome: &Outcome, wrong: &mut Vec<String>) {
    if let Some(what) = outcome.wrong(payload) {
        wrong.push(format!("{}: {what}", payload.name));
    }
    // A control: what is plain is passed on.
    let is_control = ["two plain requests", "a plain request"].contains(&payload.name);
    assert!(
        !is_control || outcome.forwarded() == payload.plain,
        "{outcome:?}"
    );
    for arrival in &outcome.arrivals {
        let head = arrival.head.to_ascii_lowercase();
        for name in ["x-finess", "x_finess", "x-relais-token"] {
            assert!(!head.contains(name), "{}: {arrival:?}", payload.name);
        }
    }
}

#[tokio::test]
async fn no_service_sees_a_request_that_was_not_plainly_sent_over_http_1() {
    let (gateway, _upstream, arrivals, words) = recorded();
    let address = gateway.address().to_string();
    let mut wrong = Vec::new();
    for payload in words.payloads() {
        let outcome = over_h1(&address, &words, &payload, &arrivals).await;
        judge(&payload, &outcome, &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn no_service_sees_a_request_that_was_not_plainly_sent_over_http_2() {
    let (gateway, _upstream, arrivals, words) = recorded();
    let address = gateway.address().to_string();
    let mut wrong = Vec::new();
    for payload in words.frames() {
        let outcome = over_h2(&address, &words, &payload, &arrivals).await;
        judge(&payload, &outcome, &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is refused in the middle of a body is no body that goes on slowly.
#[tokio::test]
async fn a_body_that_is_not_plain_ends_its_exchange_at_once() {
    let (gateway, _upstream, _, words) = recorded();
    let zeros = "0".repeat(130);
    for end in [
        "0\r\nX: 1\n\r\n",
        "0\r\n\n",
        "0\r\nX: 1\r\n\n",
        "4;a\nbody\r\n",
        &format!("{zeros}4\r\n"),
    ] {
        let mut raw = gateway.raw().await;
        let tenant = &words.tenant;
        raw.write(format!(
            "POST /up/first HTTP/1.1\r\nHost: localhost\r\n{tenant}Transfer-Encoding: chunked\r\n\r\n{end}"
        ))
        .await;
        let rest = tokio::time::timeout(Duration::from_secs(8), raw.rest()).await;
        assert!(rest.is_ok(), "{end:?}");
    }
}
