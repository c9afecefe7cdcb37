//! Starting and stopping: what is under way finishes, nothing new begins, and what cannot start says why.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use relais::app;
use relais::config::Config;
use relais::simulator::site::Stand;
use support::raw::Raw;
use support::upstream::{Connection, Tls, Upstream};
use support::{
    Client, TestGateway, eventually, in_front_of, is_answered, settled, start, start_on, within,
};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// A gateway whose service answers when it is told to.
fn answering_on(release: &Arc<Notify>, grace: &str) -> (TestGateway, Upstream) {
    let release = Arc::clone(release);
    let serve = move |mut connection: Connection, _| {
        let release = Arc::clone(&release);
        async move {
            connection.head().await;
            tokio::select! {
                () = release.notified() => connection.answer("finished").await,
                _ = connection.rest() => return,
            }
            connection.rest().await;
        }
    };
    in_front_of(
        &Tls::default(),
        &format!("[shutdown]\ngrace = \"{grace}\""),
        serve,
    )
}

/// A request that the service has and does not answer yet.
async fn under_way(gateway: &TestGateway, upstream: &Upstream) -> Raw {
    let mut raw = gateway.raw().await;
    raw.write(gateway.get_bytes("/up/x")).await;
    eventually("it is under way", || upstream.heads().len() == 1).await;
    raw
}

/// Waits in a way that lets the test's own servers go on.
async fn stopped(gateway: TestGateway) {
    within(tokio::task::spawn_blocking(|| gateway.stop()))
        .await
        .unwrap();
}

/// Waits for a stop that must not take long.
async fn stopped_soon(gateway: TestGateway) {
    let begun = Instant::now();
    stopped(gateway).await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn a_request_under_way_finishes_after_a_stop_and_no_other_begins() {
    let release = Arc::new(Notify::new());
    let (gateway, upstream) = answering_on(&release, "20s");
    let mut idle = gateway.raw().await;
    let mut raw = under_way(&gateway, &upstream).await;

    gateway.begin_stop();
    assert_eq!(idle.rest().await, b"", "an idle connection is closed");
    let address = gateway.address();
    let mut refused = TcpStream::connect(address).await;
    while refused.is_ok() {
        refused = TcpStream::connect(address).await;
    }
    let ready = gateway.admin("/health/ready").await;
    assert_eq!(ready.status(), 503);
    assert_eq!(ready.0.body(), "not ready: the gateway is stopping\n");
    assert_eq!(gateway.admin("/health/live").await.status(), 200);

    release.notify_one();
    let answer = raw.answer(false).await.unwrap();
    assert_eq!((answer.status, &answer.body[..]), (200, &b"finished"[..]));
    assert!(answer.complete);
    assert_eq!(
        raw.rest().await,
        b"",
        "and its connection is closed after it"
    );
    assert_eq!(upstream.heads().len(), 1);
    stopped(gateway).await;
}

#[tokio::test]
async fn a_request_that_does_not_finish_in_time_is_cut() {
    let (gateway, upstream) = answering_on(&Arc::default(), "300ms");
    let mut raw = under_way(&gateway, &upstream).await;
    stopped_soon(gateway).await;
    assert!(raw.answer(false).await.is_none());
    eventually("the service is left alone", || upstream.open() == 0).await;
}

#[tokio::test]
async fn what_was_cut_is_on_record_too() {
    let (gateway, upstream) = answering_on(&Arc::default(), "100ms");
    let log = gateway.path().join("access.log");
    let kept = gateway.path().with_extension("log");
    std::fs::hard_link(&log, &kept).unwrap();
    let _raw = under_way(&gateway, &upstream).await;
    stopped(gateway).await;
    let text = std::fs::read_to_string(&kept).unwrap();
    std::fs::remove_file(&kept).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
    assert_eq!(line["outcome"], "aborted");
}

#[tokio::test]
async fn a_stop_without_anything_under_way_is_immediate() {
    let gateway = start(1, &[Stand::new("dmp")], "[shutdown]\ngrace = \"20s\"");
    gateway.get(gateway.tenant(0), "/dmp/x").await;
    let mut keep_alive = gateway.connect().await;
    let request = Request::get("/dmp/x")
        .header("x-finess", gateway.tenant(0).as_str())
        .body(Bytes::new())
        .unwrap();
    keep_alive.send(request).await;
    stopped_soon(gateway).await;
}

#[tokio::test]
async fn a_kept_connection_may_send_one_more_request_after_a_stop_and_is_told_so() {
    let gateway = start(1, &[Stand::new("dmp")], "[shutdown]\ngrace = \"20s\"");
    let mut kept = gateway.raw().await;
    kept.write(gateway.get_bytes("/dmp/x")).await;
    let before = kept.answer(false).await.unwrap();
    assert!(!before.head.contains("connection: close"), "{before:?}");

    gateway.begin_stop();
    stops_being_ready(&gateway).await;
    kept.write(gateway.get_bytes("/dmp/x")).await;
    let last = kept.answer(false).await.unwrap();
    assert_eq!(last.status, 200);
    assert!(last.head.contains("connection: close"), "{last:?}");
    assert_eq!(kept.rest().await, b"");
    stopped(gateway).await;
}

#[tokio::test]
async fn who_has_connected_before_a_stop_is_served() {
    // Room for one: of the others, some are accepted and wait, and some are in the queue.
    let gateway = start(
        1,
        &[Stand::new("dmp")],
        "[shutdown]\ngrace = \"20s\"\n[limits]\ninbound_connections = 1",
    );
    let mut first = gateway.raw().await;
    first.write(gateway.get_bytes("/dmp/x")).await;
    assert_eq!(first.answer(false).await.unwrap().status, 200);
    let mut others = Vec::new();
    for _ in 0..4 {
        let mut raw = gateway.raw().await;
        raw.write(gateway.get_bytes("/dmp/x")).await;
        others.push(raw);
    }
    gateway.begin_stop();
    drop(first);
    let mut answered = JoinSet::new();
    for mut raw in others {
        answered.spawn(async move { raw.answer(false).await });
    }
    for answer in answered.join_all().await {
        assert_eq!(answer.expect("it is not cut off").status, 200);
    }
    stopped(gateway).await;
}

#[tokio::test]
async fn a_request_on_a_connection_that_another_worker_opened_finishes_after_a_stop() {
    let release = Arc::new(Notify::new());
    let held = Arc::clone(&release);
    let serve = move |mut connection: Connection, _| {
        let held = Arc::clone(&held);
        async move {
            while let Some(head) = connection.head().await {
                if head.contains("/held") {
                    held.notified().await;
                }
                connection.answer("finished").await;
            }
        }
    };
    // Of so many workers, the same one hardly ever gets both.
    let (gateway, upstream) = start_on(1, &[Stand::new("dmp")], |site, text| {
        let upstream = Upstream::start(&site.pki, &Tls::default(), serve);
        text.push_str(&upstream.service("up", "[shutdown]\ngrace = \"20s\""));
        text.insert_str(0, "workers = 16\n");
        upstream
    });
    is_answered(&gateway).await;
    settled(&gateway).await;
    let mut raw = gateway.raw().await;
    raw.write(gateway.get_bytes("/up/held")).await;
    eventually("it is under way", || upstream.heads().len() == 2).await;
    assert_eq!(upstream.open(), 1, "on the connection of the first");

    gateway.begin_stop();
    while TcpStream::connect(gateway.address()).await.is_ok() {}
    release.notify_one();
    let answer = raw.answer(false).await.unwrap();
    assert_eq!((answer.status, &answer.body[..]), (200, &b"finished"[..]));
    stopped(gateway).await;
}

#[tokio::test]
async fn a_reload_during_a_stop_cuts_nothing() {
    let release = Arc::new(Notify::new());
    let (gateway, upstream) = answering_on(&release, "20s");
    let mut raw = under_way(&gateway, &upstream).await;
    gateway.begin_stop();
    stops_being_ready(&gateway).await;
    std::fs::remove_dir_all(gateway.path().join("certs")).unwrap();
    std::fs::create_dir(gateway.path().join("certs")).unwrap();
    let report = gateway.app.reload().await.unwrap();
    assert!(!report.removed.is_empty(), "{report:?}");
    release.notify_one();
    assert_eq!(raw.answer(false).await.unwrap().status, 200);
    stopped(gateway).await;
}

/// Waits until whoever watches is told of the stop.
async fn stops_being_ready(gateway: &TestGateway) {
    while gateway.admin("/health/ready").await.status() != 503 {}
}

/// What a gateway with this configuration file says when it cannot start.
fn complaint(configuration: &Path) -> String {
    match Config::load(configuration) {
        Ok(loaded) => format!("{:#}", app::bind(loaded.config).unwrap_err()),
        Err(problems) => problems.to_string(),
    }
}

#[tokio::test]
async fn a_taken_port_is_named_with_a_hint() {
    let gateway = start(1, &[Stand::new("dmp")], "");
    let text = std::fs::read_to_string(&gateway.site.configuration).unwrap();
    let other = gateway.path().join("other.toml");

    let taken = gateway.address().to_string();
    std::fs::write(&other, text.replacen("127.0.0.1:0", &taken, 1)).unwrap();
    let said = complaint(&other);
    assert!(
        said.contains(&format!("cannot listen on {taken}")),
        "{said}"
    );
    assert!(said.contains("is another gateway"), "{said}");

    let admin = gateway.admin.to_string();
    let listener_first = text.replacen("127.0.0.1:0", "127.0.0.1:00", 1);
    std::fs::write(
        &other,
        listener_first.replacen("127.0.0.1:0\"", &format!("{admin}\""), 1),
    )
    .unwrap();
    let said = complaint(&other);
    assert!(
        said.contains(&admin) && said.contains("administration"),
        "{said}"
    );

    // The one that runs is none the worse for it.
    let mut client = Client::connect(gateway.address()).await;
    let request = Request::get("/dmp/x")
        .header("x-finess", gateway.tenant(0).as_str())
        .body(Bytes::new())
        .unwrap();
    assert_eq!(client.send(request).await.status(), 200);
}

#[tokio::test]
async fn a_missing_folder_of_certificates_or_of_a_socket_is_named() {
    let gateway = start(1, &[Stand::new("dmp")], "");
    let text = std::fs::read_to_string(&gateway.site.configuration).unwrap();
    let other = gateway.path().join("other.toml");
    std::fs::write(
        &other,
        text.replace("directory = \"certs\"", "directory = \"not-there\""),
    )
    .unwrap();
    let said = complaint(&other);
    assert!(said.contains("not-there"), "{said}");

    std::fs::write(
        &other,
        text.replacen("127.0.0.1:0", "unix:nowhere/relais.sock", 1),
    )
    .unwrap();
    let said = complaint(&other);
    assert!(said.contains("nowhere/relais.sock"), "{said}");
    assert!(
        said.contains("the socket's folder does not exist"),
        "{said}"
    );
}

#[tokio::test]
async fn a_trust_file_that_cannot_be_used_is_named() {
    let gateway = start(1, &[Stand::new("dmp")], "");
    let text = std::fs::read_to_string(&gateway.site.configuration).unwrap();
    let other = gateway.path().join("other.toml");
    std::fs::write(&other, text.replace("igc-sante-test.pem", "empty.pem")).unwrap();
    std::fs::write(gateway.path().join("trust/empty.pem"), "nothing\n").unwrap();
    let said = complaint(&other);
    assert!(
        said.contains("empty.pem") && said.contains("no certificate"),
        "{said}"
    );
}
