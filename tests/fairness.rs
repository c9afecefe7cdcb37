//! Too much at once, and services that are not there: who is refused, and who does not notice.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use http::Request;
use relais::identity::finess::Finess;
use relais::simulator::site::{Site, Stand};
use support::process::{Gateway, Place, connect, exchange};
use support::raw::Raw;
use support::upstream::{Connection, Tls, Upstream};
use support::{
    Answered, Client, DEADLINE, H2c, TestGateway, eventually, hash_of, in_front_of, start,
    start_on, token_of, waiting_for_a_connection, whole, within,
};
use tokio::sync::{Notify, Semaphore};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// A GET on a connection of its own, in the background; aborted, the application goes away.
fn begin(gateway: &TestGateway, request: Request<Bytes>) -> JoinHandle<Answered> {
    let address = gateway.address();
    tokio::spawn(async move { Client::connect(address).await.send(request).await })
}

fn get(tenant: Finess, path: &str) -> Request<Bytes> {
    Request::get(path)
        .header("x-finess", tenant.as_str())
        .body(Bytes::new())
        .unwrap()
}

fn detail(answer: &Answered) -> String {
    let problem: serde_json::Value = serde_json::from_slice(answer.0.body()).unwrap();
    problem["detail"].as_str().unwrap().to_owned()
}

/// Refused at once, and told by which limit.
fn is_over(answer: &Answered, limit: &str) {
    assert_eq!((answer.status(), &*answer.code()), (503, "overloaded"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(detail(answer).contains(limit), "{answer:?}");
}

/// A tenant's request for a path is answered with this status.
async fn answers_with(gateway: &TestGateway, tenant: usize, path: &str, status: u16) {
    let answer = gateway.get(gateway.tenant(tenant), path).await;
    assert_eq!(answer.status(), status, "{answer:?}");
}

// T16
#[tokio::test]
async fn thousands_of_requests_to_a_service_that_is_dead_for_one_tenant_delay_nobody_else() {
    const CONNECTIONS: usize = 12;
    const ON_EACH: usize = 200;
    // Some of them are dialling, at most as many as there may be connections.
    const WAITING: usize = CONNECTIONS * ON_EACH - 64;
    let (gateway, (_up, hole)) = start_on(3, &[Stand::new("dmp")], |site, text| {
        let up = Upstream::start(&site.pki, &Tls::default(), |mut connection, _| async move {
            connection.keep_answering("ok").await;
        });
        let hole = Upstream::mute();
        text.push_str(&up.service("up", ""));
        let patient = "limits.requests_per_tenant = 5000\ntimeouts.handshake = \"10m\"";
        text.push_str(&hole.service("hole", patient));
        (up, hole)
    });
    let mut pending = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let sender = H2c::connect(gateway.address()).await.sender;
        for _ in 0..ON_EACH {
            let (mut sender, tenant) = (sender.clone(), gateway.tenant(0));
            pending.spawn(async move {
                let request = get(tenant, "http://localhost/hole/x").map(whole);
                sender
                    .send_request(request)
                    .await
                    .map(|answer| answer.status())
            });
        }
    }
    eventually("they wait", || {
        waiting_for_a_connection(&gateway) >= WAITING
    })
    .await;
    for index in 0..3 {
        for _ in 0..20 {
            answers_with(&gateway, index, "/up/x", 200).await;
        }
    }
    // Nor does the dead service keep the others from trying it.
    let before = hole.accepted();
    let other = begin(&gateway, get(gateway.tenant(1), "/hole/x"));
    eventually("another tenant is connected", || hole.accepted() > before).await;
    other.abort();
    assert!(waiting_for_a_connection(&gateway) >= WAITING);
    assert!(pending.try_join_next().is_none(), "nobody was given up");
}

/// A service that holds each answer half sent until it is released, but for those that are asked for at once.
fn holding(site: &Site, release: &Arc<Semaphore>) -> Upstream {
    let release = Arc::clone(release);
    Upstream::start(
        &site.pki,
        &Tls::default(),
        move |mut connection: Connection, _| {
            let release = Arc::clone(&release);
            async move {
                while let Some(head) = connection.head().await {
                    if head.starts_with("GET /quick ") {
                        connection.answer("ok").await;
                        continue;
                    }
                    connection
                        .write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no")
                        .await;
                    release.acquire().await.unwrap().forget();
                    connection.write("k").await;
                }
            }
        },
    )
}

struct Held {
    gateway: TestGateway,
    upstream: Upstream,
    release: Arc<Semaphore>,
    requests: Vec<JoinHandle<Answered>>,
}

impl Held {
    /// A gateway with these lines for the service, and these at the end.
    fn start(of_service: &str, at_the_end: &str) -> Self {
        let release = Arc::new(Semaphore::new(0));
        let (gateway, upstream) = start_on(2, &[Stand::new("dmp")], |site, text| {
            let upstream = holding(site, &release);
            text.push_str(&upstream.service("up", of_service));
            text.push_str(at_the_end);
            upstream
        });
        Self {
            gateway,
            upstream,
            release,
            requests: Vec::new(),
        }
    }

    /// Starts a request whose answer has begun and does not end.
    async fn hold(&mut self, request: Request<Bytes>) {
        let before = self.upstream.heads().len();
        self.requests.push(begin(&self.gateway, request));
        eventually("it is under way", || self.upstream.heads().len() > before).await;
    }

    async fn send(&self, request: Request<Bytes>) -> Answered {
        self.gateway.send(request).await
    }

    /// Lets the answers end, and waits until a request is let through again.
    async fn release(self, request: impl Fn() -> Request<Bytes>) {
        self.release.add_permits(self.requests.len());
        for request in self.requests {
            assert_eq!(within(request).await.unwrap().status(), 200);
        }
        // The answer can be read a moment before its place is free.
        let until = Instant::now() + DEADLINE;
        while self.gateway.send(request()).await.status() != 200 {
            assert!(Instant::now() < until, "its place is never free");
        }
    }
}

#[tokio::test]
async fn a_tenant_over_its_limit_takes_nothing_of_another_and_a_place_lasts_as_long_as_the_answer()
{
    let mut held = Held::start("limits.requests_per_tenant = 2", "");
    let (busy, other) = (held.gateway.tenant(0), held.gateway.tenant(1));
    for _ in 0..2 {
        held.hold(get(busy, "/up/slow")).await;
    }
    is_over(
        &held.send(get(busy, "/up/quick")).await,
        &format!("2 requests for {busy} to up"),
    );
    assert_eq!(held.send(get(other, "/up/quick")).await.status(), 200);
    assert_eq!(held.send(get(busy, "/dmp/x")).await.status(), 200);
    held.release(|| get(busy, "/up/quick")).await;
}

#[tokio::test]
async fn a_service_over_its_limit_is_refused_to_all_and_the_others_are_not() {
    let mut held = Held::start("limits.requests = 2", "");
    let (one, other) = (held.gateway.tenant(0), held.gateway.tenant(1));
    held.hold(get(one, "/up/slow")).await;
    held.hold(get(other, "/up/slow")).await;
    is_over(&held.send(get(one, "/up/quick")).await, "2 requests to up");
    assert_eq!(held.send(get(one, "/dmp/x")).await.status(), 200);
    held.release(|| get(one, "/up/quick")).await;
}

#[tokio::test]
async fn over_the_limit_on_all_requests_nobody_queues() {
    let mut held = Held::start("", "[limits]\nrequests = 2\n");
    let (one, other) = (held.gateway.tenant(0), held.gateway.tenant(1));
    held.hold(get(one, "/up/slow")).await;
    held.hold(get(other, "/up/slow")).await;
    is_over(
        &held.send(get(one, "/dmp/x")).await,
        "2 requests are under way, in all",
    );
    // An application that goes away leaves its place.
    held.requests.pop().unwrap().abort();
    let until = Instant::now() + DEADLINE;
    while held.send(get(one, "/dmp/x")).await.status() != 200 {
        assert!(Instant::now() < until, "its place is never free");
    }
    held.release(|| get(one, "/dmp/x")).await;
}

#[tokio::test]
async fn a_caller_over_its_limit_takes_nothing_of_another() {
    let caller = |name: &str, more: &str| {
        let hash = hash_of(name);
        format!(
            "[[callers]]\nname = \"{name}\"\ntokens = [\"{hash}\"]\ntenants = [\"*\"]\nservices = [\"*\"]\n{more}\n"
        )
    };
    let callers = caller("busy", "requests = 1") + &caller("other", "");
    let mut held = Held::start("", &callers);
    let tenant = held.gateway.tenant(0);
    let by = |token: &'static str, path: &str| {
        let mut request = get(tenant, path);
        let token = http::HeaderValue::from_str(&token_of(token)).unwrap();
        request.headers_mut().insert("x-relais-token", token);
        request
    };
    held.hold(by("busy", "/up/slow")).await;
    is_over(
        &held.send(by("busy", "/dmp/x")).await,
        "the caller busy has 1 requests under way",
    );
    assert_eq!(held.send(by("other", "/up/quick")).await.status(), 200);
    // What a reload changes of callers makes nobody forget what is under way.
    let path = &held.gateway.site.configuration;
    let more = std::fs::read_to_string(path).unwrap() + &caller("third", "");
    std::fs::write(path, more).unwrap();
    within(held.gateway.app.reload()).await.unwrap();
    assert_eq!(held.send(by("third", "/up/quick")).await.status(), 200);
    is_over(
        &held.send(by("busy", "/dmp/x")).await,
        "the caller busy has 1 requests under way",
    );
    held.release(|| by("busy", "/up/quick")).await;
}

#[tokio::test]
async fn a_tenant_over_its_rate_leaves_the_others_theirs() {
    let gateway = start(
        2,
        &[Stand::new("dmp")],
        "[services.roc]\nurl = \"https://localhost\"\n\
        trust = \"trust/igc-sante-test.pem\"\nrate_per_tenant = 1\naddress = \"127.0.0.1:1\"\n",
    );
    let until = Instant::now() + DEADLINE;
    let refused = loop {
        let answer = gateway.get(gateway.tenant(0), "/roc/x").await;
        if answer.code() == "overloaded" {
            break answer;
        }
        assert!(Instant::now() < until, "it is never over");
    };
    is_over(&refused, "makes more than 1 requests a second");
    let other = gateway.get(gateway.tenant(1), "/roc/x").await;
    assert_ne!(other.code(), "overloaded");
}

/// What a service does with connections and requests from now on.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Does {
    /// It answers.
    Answer,
    /// It closes connections before their handshake.
    Close,
    /// It answers with a SOAP fault, and closes.
    Fault,
    /// It says nothing, not even in a handshake, and closes once it is to do something else.
    Nothing,
}

/// A service whose ways a test can change.
#[derive(Clone, Default)]
struct Moody {
    does: Arc<AtomicU8>,
    ignored: Arc<AtomicUsize>,
    changed: Arc<Notify>,
}

impl Moody {
    fn now(&self, does: Does) {
        self.does.store(does as u8, Ordering::Release);
        self.changed.notify_waiters();
    }

    fn does(&self, what: Does) -> bool {
        self.does.load(Ordering::Acquire) == what as u8
    }

    fn start(&self, site: &Site) -> Upstream {
        let (own, acceptor) = (
            self.clone(),
            TlsAcceptor::from(Tls::default().server_config(&site.pki)),
        );
        Upstream::raw(move |tcp, _| {
            let (own, acceptor) = (own.clone(), acceptor.clone());
            async move {
                if own.does(Does::Close) {
                    return;
                }
                let changed = own.changed.notified();
                if own.does(Does::Nothing) {
                    own.ignored.fetch_add(1, Ordering::AcqRel);
                    let mut raw = Raw::over(tcp);
                    tokio::select! {
                        _ = raw.rest() => {}
                        () = changed => {}
                    }
                    return;
                }
                let Ok(stream) = acceptor.accept(tcp).await else {
                    return;
                };
                let mut raw = Raw::over(stream);
                while let Some(head) = raw.head().await {
                    if head.starts_with("GET /silent ") {
                        own.ignored.fetch_add(1, Ordering::AcqRel);
                        raw.rest().await;
                    } else if own.does(Does::Fault) {
                        let fault = "<soap:Fault/>";
                        let length = fault.len();
                        let head = "HTTP/1.1 500 Internal Server Error\r\nconnection: close\r\n\
                                    content-type: text/xml";
                        raw.write(format!("{head}\r\ncontent-length: {length}\r\n\r\n{fault}"))
                            .await;
                        return;
                    } else {
                        raw.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                            .await;
                    }
                }
            }
        })
    }

    /// The first tenant's requests find it gone, that many times.
    async fn is_not_reached(&self, gateway: &TestGateway, times: usize) {
        self.now(Does::Close);
        for _ in 0..times {
            answers_with(gateway, 0, "/up/x", 502).await;
        }
    }

    /// The request that tries whether it is back, and gets no answer. Those before it are refused.
    async fn trial(&self, gateway: &TestGateway, path: &str) -> JoinHandle<Answered> {
        let until = Instant::now() + DEADLINE;
        loop {
            let mut request = begin(gateway, get(gateway.tenant(0), path));
            eventually("it tries or is refused", || {
                request.is_finished() || self.ignored.load(Ordering::Acquire) > 0
            })
            .await;
            if !request.is_finished() {
                return request;
            }
            assert!(is_left_alone(&within(&mut request).await.unwrap()));
            assert!(Instant::now() < until, "nobody ever tries");
        }
    }

    fn behind_a_gateway(&self, extra: &str) -> (TestGateway, Upstream) {
        start_on(2, &[Stand::new("dmp")], |site, text| {
            let upstream = self.start(site);
            text.push_str(&upstream.service("up", extra));
            upstream
        })
    }
}

/// Refused without a try.
fn is_left_alone(answer: &Answered) -> bool {
    let is = answer.status() == 503;
    if is {
        assert_eq!(answer.code(), "upstream_unreachable");
        assert!(detail(answer).contains("several times in a row"));
        let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=30).contains(&after), "{after}");
    }
    is
}

async fn until_it_is(gateway: &TestGateway, what: &str, is: impl Fn(&Answered) -> bool) {
    let until = Instant::now() + DEADLINE;
    while !is(&gateway.get(gateway.tenant(0), "/up/x").await) {
        assert!(Instant::now() < until, "never: {what}");
        tokio::task::yield_now().await;
    }
}

/// What the metrics and the administration interface say.
async fn breakers_open(gateway: &TestGateway) -> (f64, usize) {
    let gauge = gateway.metric("relais_upstream_breaker_open", &["service=\"up\""]);
    let pools = gateway.admin("/api/v1/pools").await;
    let pools: serde_json::Value = serde_json::from_slice(pools.0.body()).unwrap();
    let open = pools.as_array().unwrap().iter();
    (
        gauge,
        open.filter(|pool| pool["breaker_open"] == true).count(),
    )
}

#[tokio::test]
async fn a_service_that_is_not_reached_is_left_alone_and_then_tried_by_one_request_at_a_time() {
    let moody = Moody::default();
    let (gateway, upstream) = moody.behind_a_gateway("");
    moody.is_not_reached(&gateway, 5).await;
    until_it_is(&gateway, "left alone", is_left_alone).await;
    assert_eq!(breakers_open(&gateway).await, (1.0, 1));

    // The next that tries meets silence, and for as long nobody else tries.
    moody.now(Does::Nothing);
    let trial = moody.trial(&gateway, "/up/x").await;
    let accepted = upstream.accepted();
    for _ in 0..20 {
        assert!(is_left_alone(
            &gateway.get(gateway.tenant(0), "/up/x").await
        ));
    }
    assert_eq!(upstream.accepted(), accepted);

    // It gives up, which says nothing; another finds that the service is back.
    trial.abort();
    moody.now(Does::Answer);
    until_it_is(&gateway, "back", |answer| answer.status() == 200).await;
    for _ in 0..20 {
        answers_with(&gateway, 0, "/up/x", 200).await;
    }
    assert_eq!(breakers_open(&gateway).await, (0.0, 0));
}

#[tokio::test]
async fn who_waits_for_a_connection_is_refused_when_the_service_turns_out_to_be_gone() {
    const WAITING: usize = 20;
    let moody = Moody::default();
    let (gateway, _upstream) = moody.behind_a_gateway("pool.max_connections = 5");
    // With sessions to resume, several open connections at once; without, one goes first.
    moody.now(Does::Fault);
    for _ in 0..8 {
        answers_with(&gateway, 0, "/up/x", 500).await;
    }
    moody.now(Does::Nothing);
    let mut requests = Vec::new();
    for count in 1..=5 {
        requests.push(begin(&gateway, get(gateway.tenant(0), "/up/x")));
        eventually("it is under way", || {
            moody.ignored.load(Ordering::Acquire) == count
        })
        .await;
    }
    for _ in 0..WAITING {
        requests.push(begin(&gateway, get(gateway.tenant(0), "/up/x")));
    }
    eventually("they wait", || {
        waiting_for_a_connection(&gateway) >= WAITING
    })
    .await;
    moody.now(Does::Close);
    let mut left_alone = 0;
    for request in requests {
        let answer = within(request).await.unwrap();
        if !is_left_alone(&answer) {
            assert_eq!(answer.status(), 502, "{answer:?}");
            continue;
        }
        left_alone += 1;
    }
    // Before the fifth was over, the first four left their places to some.
    assert!(
        (WAITING - 4..=WAITING).contains(&left_alone),
        "{left_alone}"
    );
}

#[tokio::test]
async fn whatever_a_service_answers_keeps_it_in_use() {
    let moody = Moody::default();
    let (gateway, _upstream) = moody.behind_a_gateway("");
    moody.now(Does::Fault);
    for _ in 0..20 {
        answers_with(&gateway, 0, "/up/x", 500).await;
    }
    // And whatever was before.
    for _ in 0..3 {
        moody.is_not_reached(&gateway, 4).await;
        moody.now(Does::Fault);
        answers_with(&gateway, 0, "/up/x", 500).await;
    }
}

#[tokio::test]
async fn what_an_application_gives_up_is_no_failure_of_the_service() {
    let moody = Moody::default();
    let (gateway, _upstream) = moody.behind_a_gateway("");
    for count in 1..=10 {
        let request = begin(&gateway, get(gateway.tenant(0), "/up/silent"));
        eventually("it is under way", || {
            moody.ignored.load(Ordering::Acquire) == count
        })
        .await;
        request.abort();
    }
    answers_with(&gateway, 0, "/up/x", 200).await;
}

#[tokio::test]
async fn what_is_not_reached_under_one_certificate_is_tried_under_another() {
    let moody = Moody::default();
    let (gateway, _upstream) = moody.behind_a_gateway("");
    moody.is_not_reached(&gateway, 5).await;
    moody.now(Does::Answer);
    for _ in 0..20 {
        answers_with(&gateway, 1, "/up/x", 200).await;
    }
    assert_eq!(breakers_open(&gateway).await, (1.0, 1));
}

/// Sites share certificates: one that asks for what takes too long keeps nobody else out.
#[tokio::test]
async fn requests_that_are_never_answered_are_no_failure_to_reach_the_service() {
    let moody = Moody::default();
    let (gateway, _upstream) = moody.behind_a_gateway("timeouts.response = \"50ms\"");
    for _ in 0..10 {
        answers_with(&gateway, 0, "/up/silent", 504).await;
    }
    assert_eq!(breakers_open(&gateway).await, (0.0, 0));
    answers_with(&gateway, 0, "/up/x", 200).await;
}

#[tokio::test]
async fn a_trial_that_has_its_connection_lets_the_others_through_before_it_is_answered() {
    let moody = Moody::default();
    let (gateway, _upstream) = moody.behind_a_gateway("");
    moody.is_not_reached(&gateway, 5).await;
    moody.now(Does::Answer);
    let trial = moody.trial(&gateway, "/up/silent").await;
    answers_with(&gateway, 0, "/up/x", 200).await;
    assert_eq!(breakers_open(&gateway).await, (0.0, 0));
    trial.abort();
}

#[tokio::test]
async fn upgrades_that_a_service_of_http_2_alone_refuses_are_no_failure_to_reach_it() {
    let tls = Tls {
        alpn: &["h2"],
        ..Tls::default()
    };
    let (gateway, upstream) = in_front_of(&tls, "", |_, _| async {});
    for attempt in 1..=10 {
        let mut upgrade = get(gateway.tenant(0), "/up/x");
        let headers = upgrade.headers_mut();
        headers.insert("connection", http::HeaderValue::from_static("upgrade"));
        headers.insert("upgrade", http::HeaderValue::from_static("shout"));
        let answer = within(begin(&gateway, upgrade)).await.unwrap();
        assert!(!is_left_alone(&answer), "{answer:?}");
        assert!(upstream.accepted() >= attempt);
    }
    assert_eq!(breakers_open(&gateway).await, (0.0, 0));
}

// T7
#[tokio::test]
async fn a_certificate_that_is_refused_leaves_nobody_alone() {
    let tls = Tls {
        client: support::upstream::Asks::OtherPki,
        ..Tls::default()
    };
    let (gateway, upstream) = in_front_of(&tls, "", |_, _| async {});
    for attempt in 1..=10 {
        let answer = gateway.get(gateway.tenant(0), "/up/x").await;
        assert_eq!(answer.code(), "certificate_rejected_by_upstream");
        assert_eq!(upstream.accepted(), attempt);
    }
    assert_eq!(breakers_open(&gateway).await, (0.0, 0));
}

#[tokio::test]
async fn without_a_breaker_every_request_tries() {
    let moody = Moody::default();
    let (gateway, upstream) = moody.behind_a_gateway("breaker = false");
    moody.now(Does::Close);
    for attempt in 1..=10 {
        answers_with(&gateway, 0, "/up/x", 502).await;
        assert_eq!(upstream.accepted(), attempt);
    }
}

// T19
#[tokio::test]
async fn a_service_that_drops_every_kept_connection_is_not_asked_twice_as_often() {
    let (gateway, upstream) = in_front_of(
        &Tls::default(),
        "retry = \"idempotent\"",
        |mut connection: Connection, _| async move {
            // The first is answered; on the next, nothing is.
            connection.head().await;
            connection.answer("ok").await;
            connection.head().await;
        },
    );
    let begun = Instant::now();
    let mut requests = 0;
    loop {
        requests += 1;
        let answer = gateway.get(gateway.tenant(0), "/up/x").await;
        if answer.status() != 200 {
            assert_eq!(answer.code(), "upstream_protocol_error");
            break;
        }
        assert!(begun.elapsed() < DEADLINE, "each is repeated, for ever");
    }
    let repeats = upstream.heads().len() - requests;
    let reserve = 10 * (begun.elapsed().as_secs() as usize + 2);
    assert!(
        repeats > 0 && repeats <= requests / 5 + reserve,
        "{repeats} of {requests}"
    );
}

// T16
#[test]
fn with_all_descriptors_taken_connections_are_served_and_accepting_resumes() {
    // Enough to start and for one request, and no more than the test has itself.
    const DESCRIPTORS: usize = 96;
    let place = Place::new();
    let script = format!("ulimit -n {DESCRIPTORS}; exec \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_relais")]);
    place.prepare(&mut command, "log", &[]);
    let gateway = Gateway(command.spawn().unwrap());
    gateway.can_be_taken_over();
    let mut kept = connect(place.address).unwrap();
    exchange(&mut kept, &place.request()).unwrap();

    let flood: Vec<_> = (0..2 * DESCRIPTORS)
        .map(|_| connect(place.address).unwrap())
        .collect();
    place.wait_for("log", "could not be accepted");
    for _ in 0..20 {
        exchange(&mut kept, &place.request()).unwrap();
    }
    drop(flood);
    let mut new = connect(place.address).unwrap();
    for _ in 0..20 {
        exchange(&mut new, &place.request()).unwrap();
        exchange(&mut kept, &place.request()).unwrap();
    }
}
