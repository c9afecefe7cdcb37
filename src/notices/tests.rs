//! What is told, how often, and how it reaches a webhook.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::*;
use crate::config;
use crate::identity::profile::Profile;
use crate::identity::select::tests::{generation, profile_of};
use crate::metrics::Metrics;
use crate::outbound::trust::Anchors;
use crate::services::Trust;

const DAY: i64 = 86_400;
const END: i64 = 1_800_000_000;

fn certificate(serial: &str) -> Arc<Generation> {
    generation(Profile {
        fingerprint: Fingerprint::of(serial.as_bytes()),
        not_before: END - 1000 * DAY,
        not_after: END,
        ..profile_of(serial)
    })
}

/// Nothing told yet, and a webhook that nothing is posted to.
fn unheard() -> Notices {
    let notices = Notices::default();
    let config = config::Notices {
        webhook: "http://127.0.0.1:9/".parse().unwrap(),
        headers: Vec::new(),
        trust: Trust::Public,
    };
    notices.post_to(Webhook::new(config, &Anchors::default()));
    notices
}

/// What waits to be posted, as if it were.
fn taken(notices: &Notices) -> Vec<Notice> {
    let waiting = std::mem::take(&mut *lock(&notices.waiting));
    waiting.into_values().map(|one| one.notice).collect()
}

/// What is new to tell at that moment, as `state` and threshold.
fn told(
    notices: &Notices,
    generations: &[Arc<Generation>],
    now: i64,
) -> Vec<(String, Option<u64>)> {
    notices.look(generations, &Revocations::default(), &[], now);
    let told = taken(notices).into_iter().map(|notice| {
        let json = serde_json::to_value(&notice).unwrap();
        let certificate = &json["certificate"];
        (
            certificate["state"].as_str().unwrap().to_owned(),
            certificate["threshold_days"].as_u64(),
        )
    });
    told.collect()
}

#[test]
fn each_threshold_is_told_once() {
    let notices = unheard();
    let generations = [certificate("A1")];
    let at = |days: i64| told(&notices, &generations, END - days * DAY);
    assert_eq!(at(2000), [], "it has not begun");
    assert_eq!(at(91), []);
    assert_eq!(at(90), [("valid".to_owned(), Some(90))]);
    assert_eq!(at(61), []);
    assert_eq!(at(60), [("valid".to_owned(), Some(60))]);
    assert_eq!(at(30), [("expiring".to_owned(), Some(30))]);
    assert_eq!(at(29), []);
    // The gateway was suspended in between: only what holds now is told.
    assert_eq!(at(-1), [("expired".to_owned(), None)]);
    assert_eq!(at(-2), []);
    let another = unheard();
    let late = told(&another, &generations, END - 6 * DAY);
    assert_eq!(late, [("expiring".to_owned(), Some(7))]);
}

#[test]
fn a_later_notice_takes_the_place_of_one_that_was_not_posted() {
    let notices = unheard();
    let generations = [certificate("A1"), certificate("B2")];
    for days in [90, 60, 30] {
        notices.look(&generations, &Revocations::default(), &[], END - days * DAY);
    }
    let waiting = taken(&notices);
    assert_eq!(waiting.len(), 2);
    assert!(waiting.iter().all(|one| one.id.ends_with("/30-days")));
}

#[test]
fn a_list_is_worth_a_notice_when_nothing_in_force_is_left_of_it() {
    let source: Arc<str> = "http://crl.example/a.crl".into();
    let list = |problem: Option<CrlProblem>| {
        let mut list = List::new(Arc::clone(&source));
        list.problem = problem.map(Arc::new);
        Revocations::new(vec![list], false)
    };
    let notices = unheard();
    notices.look(&[], &list(None), &[], END);
    assert!(notices.after("").is_none());
    let fetch = || CrlProblem::Fetch("no answer".into());
    notices.look(&[], &list(Some(fetch())), &[], END);
    let waiting = taken(&notices);
    assert_eq!(waiting.len(), 1);
    // The server is now there, now gone.
    for problem in [CrlProblem::Ended(END), fetch()] {
        notices.look(&[], &list(Some(problem)), &[], END);
        assert!(notices.after("").is_none(), "it was told already");
    }
    let json = serde_json::to_value(&waiting[0]).unwrap();
    assert_eq!(json["revocation_list"]["source"], *source);
    assert_eq!(json["revocation_list"]["problem"], "fetch");
    assert!(json["id"].as_str().unwrap().is_ascii());
}

#[test]
fn a_notice_is_given_up_only_after_it_was_tried_for_long_enough() {
    let notices = unheard();
    let day = Duration::from_secs(24 * 3600);
    notices.look(
        &[certificate("A1")],
        &Revocations::default(),
        &[],
        END - 20 * DAY,
    );
    let (key, notice) = notices.after("").unwrap();
    assert!(!notices.failed(&key, &notice.id, Duration::ZERO), "once");
    assert!(!notices.failed(&key, &notice.id, day));
    assert!(notices.failed(&key, &notice.id, Duration::ZERO));
    assert!(notices.after("").is_none());
}

/// Reads a request from a webhook's client, and answers it.
async fn take(listener: &TcpListener, status: &str) -> (String, serde_json::Value) {
    let taking = async {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let request = read(&mut tcp).await;
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        tcp.write_all(answer.as_bytes()).await.unwrap();
        request
    };
    tokio::time::timeout(Duration::from_secs(20), taking)
        .await
        .expect("nothing was posted")
}

async fn read(tcp: &mut TcpStream) -> (String, serde_json::Value) {
    let mut bytes = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let length = tcp.read(&mut piece).await.unwrap();
        assert_ne!(length, 0);
        bytes.extend_from_slice(&piece[..length]);
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && let Ok(json) = serde_json::from_str(body)
        {
            return (head.to_owned(), json);
        }
    }
}

/// A webhook whose posts the test takes.
async fn webhook() -> (TcpListener, Webhook) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let mut secret = http::HeaderValue::from_static("s3cret");
    secret.set_sensitive(true);
    let config = config::Notices {
        webhook: url.parse().unwrap(),
        headers: vec![(http::HeaderName::from_static("x-key"), secret)],
        trust: Trust::Public,
    };
    (listener, Webhook::new(config, &Anchors::default()).unwrap())
}

#[tokio::test]
async fn a_notice_that_is_never_taken_keeps_no_other_waiting() {
    let (listener, webhook) = webhook().await;
    let notices = Arc::new(Notices::default());
    notices.post_to(Some(webhook));
    let all = ["A1", "B2", "C3"].map(certificate);
    notices.look(&all, &Revocations::default(), &[], END - 20 * DAY);
    let _delivering = JoinSet::from_iter([deliver(notices, Metrics::new())]);
    let (_, poison) = take(&listener, "500 Internal Server Error").await;
    let (_, second) = take(&listener, "200 OK").await;
    let (_, third) = take(&listener, "200 OK").await;
    assert!(poison != second && poison != third && second != third);
    let (_, again) = take(&listener, "200 OK").await;
    assert_eq!(again, poison);
}

#[tokio::test]
async fn a_notice_is_posted_until_it_is_taken_and_a_refused_one_makes_way() {
    let (listener, webhook) = webhook().await;
    let shown = format!("{webhook:?}");
    assert!(
        !shown.contains("s3cret") && !shown.contains("hook\""),
        "{shown}"
    );
    let (notices, metrics) = (Arc::new(Notices::default()), Metrics::new());
    notices.post_to(Some(webhook));
    let delivering = tokio::spawn(deliver(Arc::clone(&notices), Arc::clone(&metrics)));
    let first = [certificate("A1")];
    notices.look(&first, &Revocations::default(), &[], END - 20 * DAY);
    let (head, json) = take(&listener, "503 Service Unavailable").await;
    assert!(head.starts_with("POST /hook HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("x-key: s3cret"), "{head}");
    assert_eq!(json["certificate"]["threshold_days"], 30);
    assert_eq!(json["certificate"]["serial"], "A1");
    let key = format!("idempotency-key: {}", json["id"].as_str().unwrap());
    assert!(head.contains(&key), "{head}");
    let (head, again) = take(&listener, "204 No Content").await;
    assert!(head.contains(&key) && again == json, "{head}");

    let both = [certificate("A1"), certificate("B2")];
    notices.look(&both, &Revocations::default(), &[], END - 20 * DAY);
    let (_, json) = take(&listener, "400 Bad Request").await;
    assert_eq!(
        json["certificate"]["serial"], "B2",
        "the first is not posted again"
    );
    notices.look(&both, &Revocations::default(), &[], END - 7 * DAY);
    for _ in 0..2 {
        let (_, json) = take(&listener, "200 OK").await;
        assert_eq!(json["certificate"]["threshold_days"], 7);
    }
    delivering.abort();
    let rendered = metrics.render();
    for outcome in ["delivered", "failed", "refused"] {
        let line = format!("relais_notices_total{{outcome=\"{outcome}\"}}");
        assert!(rendered.contains(&line), "{rendered}");
    }
}

#[tokio::test]
async fn another_webhook_is_told_what_still_holds_and_is_not_made_to_wait_for_the_one_before() {
    let (first, webhook_before) = webhook().await;
    let (second, webhook_now) = webhook().await;
    let notices = Arc::new(Notices::default());
    notices.post_to(Some(webhook_before));
    let _delivering = JoinSet::from_iter([deliver(Arc::clone(&notices), Metrics::new())]);
    let look = || {
        let all = [certificate("A1")];
        notices.look(&all, &Revocations::default(), &[], END - 20 * DAY);
    };
    look();
    take(&first, "503 Service Unavailable").await;
    notices.post_to(Some(webhook_now));
    look();
    let (_, json) = take(&second, "200 OK").await;
    assert_eq!(json["certificate"]["serial"], "A1");
    notices.post_to(None);
    look();
    assert!(notices.after("").is_none(), "nobody is there to be told");
}
