//! Structure A never acts as structure B: what no order of events, failure or change of mind may bring about.
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test may panic, and its crate has no other crate to be reached from"
)]

mod support;
mod isolation {
    pub mod scene;
    pub mod witness;
}

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use isolation::scene::{Application, Kind, Leaves, Scene, Step, is_insi};
use isolation::witness::{Behaviour, Manner};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use relais::services::Environment;
use relais::simulator::pki::{Pki, Purpose, Request as Order};
use support::within;

/// Services at one address that differ in protocol, patience and the size of their pools. All pools are tiny.
const SMALL_POOLS: &[(&str, &str)] = &[
    (
        "one",
        "http = \"h1\"\nretry = \"idempotent\"\npool.max_connections = 1\npool.idle_timeout = \"20ms\"",
    ),
    (
        "two",
        "http = \"h2\"\nretry = \"idempotent\"\npool.max_connections = 1\npool.idle_timeout = \"50ms\"",
    ),
    ("either", "pool.max_connections = 2\ntls = \"1.2\""),
    (
        "plain",
        "http = \"h1\"\npool.max_connections = 2\npool.max_lifetime = \"100ms\"",
    ),
    ("insi-auto", "http = \"h1\""),
    ("insi-manu", "http = \"h2\""),
];

const TENANTS: usize = 4;
const CASES: u32 = 24;
const SEED: &str = "ISOLATION_SEED";

fn behaviour() -> impl Strategy<Value = Behaviour> {
    prop_oneof![
        6 => Just(Behaviour::Answer),
        2 => (1..30u64).prop_map(Behaviour::Late),
        2 => (1..8u64).prop_map(Behaviour::Drip),
        1 => Just(Behaviour::Early),
        1 => Just(Behaviour::Close),
        1 => Just(Behaviour::Break),
        1 => Just(Behaviour::BreakOff),
        3 => Just(Behaviour::BreakReused),
        1 => Just(Behaviour::Silence),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let leaves = prop_oneof![
        6 => Just(Leaves::Never),
        2 => (0..40u64).prop_map(Leaves::After),
        1 => Just(Leaves::InItsBody),
        1 => Just(Leaves::InTheAnswer),
    ];
    let body = prop_oneof![4 => Just(0), 2 => 1..100usize, 1 => Just(200_000)];
    (
        0..TENANTS,
        0..SMALL_POOLS.len(),
        behaviour(),
        leaves,
        body,
        prop::bool::weighted(0.1),
    )
        .prop_map(|(tenant, service, behaviour, leaves, body, upgrade)| Step {
            tenant,
            service: SMALL_POOLS[service].0,
            behaviour,
            leaves,
            body,
            upgrade,
        })
}

/// The seed of this run: another each time, unless the environment names the one of a run that failed.
fn seed() -> u64 {
    match std::env::var(SEED) {
        Ok(text) => text.parse().expect("the seed is a number"),
        Err(_) => std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
    }
}

#[test]
fn whatever_happens_each_answer_is_to_its_own_request_under_its_own_certificate() {
    let scene = Scene::new(TENANTS, 3, SMALL_POOLS, "response = \"200ms\"", "");
    let seed = seed();
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases: CASES,
        max_shrink_iters: 8,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let runtime = runtime();
    let clients = prop::collection::vec(prop::collection::vec(step(), 1..12), 2..7);
    let outcome = runner.run(&clients, |clients| {
        runtime
            .block_on(scene.play(clients))
            .and_then(|()| scene.check_connections())
            .map_err(TestCaseError::fail)
    });
    if let Err(failure) = outcome {
        panic!("with {SEED}={seed}: {failure}");
    }
    let connections = scene.witness.connections();
    let some = |what: fn(&isolation::witness::Connection) -> bool| connections.iter().any(what);
    assert!(some(|one| one.is_h2) && some(|one| !one.is_h2) && some(|one| one.resumed));
}

#[test]
fn under_load_on_three_workers_nobody_acts_as_somebody_else() {
    let services = [
        ("dmp", "http = \"h1\"\ntls = \"1.3\""),
        ("ror", "http = \"h2\""),
        (
            "dui",
            "http = \"h1\"\npool.max_connections = 2\npool.idle_timeout = \"5ms\"",
        ),
    ];
    let scene = Scene::new(20, 3, &services, "", "");
    let requests = runtime().block_on(async {
        let mut clients = tokio::task::JoinSet::new();
        for client in 0..8usize {
            let mut application = Application::new(scene.gateway.address());
            let orders: Vec<_> = (0..2_500)
                .map(|number| {
                    // Strides that are prime to the number of tenants let clients meet at all of them.
                    let tenant = (client * 7 + number * (2 * client + 1)) % 20;
                    let service = services[(number / 3 + client) % services.len()].0;
                    (scene.expected(tenant, service), tenant, service)
                })
                .collect();
            clients.spawn(async move {
                let mut answered = 0;
                for (expected, tenant, service) in orders {
                    let step = Step::plain(tenant, service);
                    let answered_as = application.ask(&step, &expected).await.unwrap();
                    answered += usize::from(answered_as);
                }
                answered
            });
        }
        clients.join_all().await.into_iter().sum::<usize>()
    });
    assert_eq!(requests, 20_000);
    scene.check_connections().unwrap();
    assert_eq!(scene.carried(), 20_000);
}

/// One after another, so that what is kept for one could serve the next.
async fn ask_thrice(scene: &Scene, services: &[(&'static str, &str)]) {
    for _ in 0..3 {
        for tenant in 0..scene.tenants.len() {
            for (service, _) in services {
                scene.ask(&Step::plain(tenant, service)).await;
            }
        }
    }
}

#[tokio::test]
async fn services_at_one_address_that_want_different_certificates_share_no_connection() {
    let services = [("insi-auto", ""), ("insi-manu", ""), ("dmp", "")];
    let scene = Scene::new(2, 2, &services, "", "");
    ask_thrice(&scene, &services).await;
    let connections = scene.witness.connections();
    scene.check_connections().unwrap();
    let certificates: HashSet<_> = connections.iter().map(|one| one.sha256.clone()).collect();
    assert_eq!(certificates.len(), 6);
    for connection in &connections {
        let services: HashSet<_> = connection.carried.iter().map(|one| &one.service).collect();
        assert!(services.len() <= 1, "{connection:?}");
        let wants_insi = services.iter().any(|service| is_insi(service));
        let insi = scene
            .kind_of(connection)
            .is_some_and(|kind| kind != Kind::Plain);
        assert_eq!(wants_insi, insi, "{connection:?}");
    }
}

#[tokio::test]
async fn one_certificate_for_two_services_at_one_address_opens_connections_for_each() {
    let services = [("dmp", "http = \"h2\""), ("ror", "http = \"h2\"")];
    let scene = Scene::new(1, 2, &services, "", "");
    ask_thrice(&scene, &services).await;
    for connection in scene.witness.connections() {
        let services: HashSet<_> = connection.carried.iter().map(|one| &one.service).collect();
        assert_eq!(services.len(), 1, "{connection:?}");
    }
}

#[tokio::test]
async fn a_connection_opened_under_one_trust_policy_is_not_used_under_another() {
    let stranger = Pki::new(Environment::Test);
    let directory = tempfile::tempdir().unwrap();
    let other = directory.path().join("other.pem");
    std::fs::write(&other, stranger.authority_pem()).unwrap();
    let distrustful = format!("http = \"h2\"\ntrust = {other:?}");
    let services = [("dmp", "http = \"h2\""), ("ror", &*distrustful)];
    let scene = Scene::new(1, 2, &services, "", "");
    for _ in 0..3 {
        scene.ask(&Step::plain(0, "dmp")).await;
        support::settled(&scene.gateway).await;
        let answered = scene.gateway.get(scene.tenants[0], "/ror/").await;
        assert_eq!(answered.code(), "upstream_untrusted");
    }
    assert_eq!(scene.witness.connections().len(), 1);
}

#[tokio::test]
async fn authorities_that_share_an_address_and_a_server_certificate_share_no_connection() {
    let by_number = "http = \"h2\"\nurl = \"https://127.0.0.1:PORT\"";
    let services = [("dmp", "http = \"h2\""), ("ror", by_number)];
    let scene = Scene::new(2, 2, &services, "", "");
    ask_thrice(&scene, &services).await;
    let connections = scene.witness.connections();
    let mut seen = HashSet::new();
    for connection in &connections {
        let authorities: HashSet<_> = connection
            .carried
            .iter()
            .map(|one| one.authority.clone())
            .collect();
        assert_eq!(authorities.len(), 1, "{connection:?}");
        seen.extend(authorities);
    }
    assert_eq!(seen.len(), 2);
    scene.check_connections().unwrap();
}

#[tokio::test]
async fn every_tenant_resumes_its_own_session_and_nobody_elses() {
    // More tenants than a client keeps tickets for one server: in a shared store most would find none of their own.
    const MANY: usize = 20;
    for tls in ["1.2", "1.3"] {
        let service = format!("http = \"h1\"\ntls = \"{tls}\"");
        let scene = Scene::new(MANY, 2, &[("dmp", &service)], "", "");
        for _ in 0..2 {
            for tenant in 0..MANY {
                let step = Step {
                    behaviour: Behaviour::Close,
                    ..Step::plain(tenant, "dmp")
                };
                scene.ask(&step).await;
            }
        }
        let connections = scene.witness.connections();
        assert_eq!(connections.len(), 2 * MANY, "TLS {tls}");
        let resumed = connections.iter().filter(|one| one.resumed).count();
        assert_eq!(resumed, MANY, "TLS {tls}");
        scene.check_connections().unwrap();
    }
}

#[tokio::test]
async fn a_retry_keeps_its_identity() {
    for http in ["h1", "h2"] {
        let service = format!("http = \"{http}\"\nretry = \"idempotent\"");
        let scene = Scene::new(6, 2, &[("dmp", &service)], "", "");
        for round in 0..3 {
            for tenant in 0..6 {
                let step = Step {
                    behaviour: Behaviour::BreakReused,
                    ..Step::plain(tenant, "dmp")
                };
                scene.ask(&step).await;
                support::settled(&scene.gateway).await;
            }
            // The first round finds no connection to reuse; in the others each request goes out twice.
            assert_eq!(scene.carried(), 6 + round * 12, "{http}");
        }
        scene.check_connections().unwrap();
    }
}

#[tokio::test]
async fn one_serial_number_of_two_issuers_is_two_identities() {
    let serial = Some([0x42; 16]);
    let (first, second) = (Pki::new(Environment::Test), Pki::new(Environment::Test));
    let scene =
        Scene::with_certificates(&[&first, &second], &[("dmp", "http = \"h1\"")], |tenant| {
            let pki = [&first, &second][tenant];
            vec![(
                pki,
                Order {
                    serial,
                    ..Order::new("", "DUI")
                },
            )]
        });
    for _ in 0..3 {
        for tenant in 0..2 {
            scene.ask(&Step::plain(tenant, "dmp")).await;
            support::settled(&scene.gateway).await;
        }
    }
    scene.check_connections().unwrap();
    assert_eq!(scene.witness.connections().len(), 2);
}

#[tokio::test]
async fn of_two_keys_with_one_subject_the_latest_certificate_is_shown_and_the_other_never() {
    let pki = Pki::new(Environment::Test);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
    let begun = |ago| Order {
        not_before: Some(now - ago),
        ..Order::new("", "DUI")
    };
    let services = [("dmp", ""), ("ror", "")];
    let scene = Scene::with_certificates(&[&pki], &services, |_| {
        // The last one listed is the one that is expected to be shown.
        vec![(&pki, begun(7200)), (&pki, begun(60))]
    });
    ask_thrice(&scene, &services).await;
    scene.check_connections().unwrap();
}

#[tokio::test]
async fn a_signature_certificate_never_reaches_a_wire() {
    let pki = Pki::new(Environment::Test);
    let scene = Scene::with_certificates(&[&pki], &[("dmp", "")], |_| {
        let order = Order {
            purpose: Purpose::Sign,
            ..Order::new("", "DUI")
        };
        vec![(&pki, order)]
    });
    let answered = scene.gateway.get(scene.tenants[0], "/dmp/").await;
    assert_eq!(answered.code(), "certificate_refused_by_rule");
    assert!(scene.witness.connections().is_empty());
}

#[tokio::test]
async fn a_service_that_cannot_use_the_certificate_is_told_nothing() {
    let manner = Manner {
        verifier: Some(isolation::scene::elliptic_and_optional()),
        ..Manner::default()
    };
    let scene = Scene::with_manner(1, &[("dmp", "")], manner);
    let answered = scene.gateway.get(scene.tenants[0], "/dmp/").await;
    assert_eq!(answered.code(), "certificate_not_requested");
    let connections = scene.witness.connections();
    assert!(
        connections.iter().all(|one| one.carried.is_empty()),
        "{connections:?}"
    );
}

#[tokio::test]
async fn a_stream_that_an_application_abandons_goes_to_who_waits_for_one() {
    let manner = Manner {
        streams: Some(1),
        ..Manner::default()
    };
    let service = "http = \"h2\"\npool.max_connections = 1";
    let scene = Scene::with_manner(1, &[("dmp", service)], manner);
    // One request tells the gateway how many streams there are.
    scene.ask(&Step::plain(0, "dmp")).await;
    let silent = Step {
        behaviour: Behaviour::Silence,
        ..Step::plain(0, "dmp")
    };
    let holds = tokio::spawn({
        let mut application = Application::new(scene.gateway.address());
        let expected = scene.expected(0, "dmp");
        async move { application.ask(&silent, &expected).await }
    });
    scene
        .until(|pools| pools.h2 == 1 && scene.carried() == 2)
        .await;
    let waits = tokio::spawn({
        let mut application = Application::new(scene.gateway.address());
        let expected = scene.expected(0, "dmp");
        async move { application.ask(&Step::plain(0, "dmp"), &expected).await }
    });
    scene.until(|pools| pools.waiting == 1).await;
    holds.abort();
    // Well before the ten seconds after which a request that waits gives up.
    let answered = tokio::time::timeout(Duration::from_secs(5), waits).await;
    assert_eq!(answered.unwrap().unwrap(), Ok(true));
}

#[tokio::test]
async fn at_the_limit_of_the_process_connections_go_round() {
    for http in ["h1", "h2"] {
        let service = format!("http = \"{http}\"");
        let scene = Scene::new(
            6,
            2,
            &[("dmp", &service)],
            "",
            "\n[limits]\nupstream_connections = 2\n",
        );
        let mut all = tokio::task::JoinSet::new();
        for tenant in 0..6 {
            let mut application = Application::new(scene.gateway.address());
            let expected = scene.expected(tenant, "dmp");
            let step = Step {
                behaviour: Behaviour::Late(50),
                ..Step::plain(tenant, "dmp")
            };
            all.spawn(async move {
                for _ in 0..3 {
                    assert_eq!(application.ask(&step, &expected).await, Ok(true));
                }
            });
        }
        tokio::time::timeout(Duration::from_secs(8), all.join_all())
            .await
            .unwrap_or_else(|_| panic!("over {http}, who waits for room gets none"));
        scene.check_connections().unwrap();
    }
}

#[tokio::test]
async fn a_service_that_reads_nothing_holds_no_connection_for_ever() {
    let scene = Scene::new(
        1,
        2,
        &[("dmp", "http = \"h1\"\npool.max_connections = 1")],
        "body = \"300ms\"\nresponse = \"300ms\"",
        "",
    );
    // More than the socket buffers between the two will take.
    let request = Request::post("/dmp/")
        .header("x-finess", scene.tenants[0].as_str())
        .header(isolation::witness::BEHAVIOUR, Behaviour::Silence.to_field())
        .body(Bytes::from(vec![0; 32 << 20]))
        .unwrap();
    let _ = within(Application::new(scene.gateway.address()).raw(request)).await;
    scene.until(|pools| pools.open == 0).await;
    scene.ask(&Step::plain(0, "dmp")).await;
}

#[tokio::test]
async fn an_answer_is_awaited_for_its_own_time_once_the_body_has_gone() {
    let timeouts = "body = \"60s\"\nresponse = \"200ms\"";
    for http in ["http = \"h1\"", "http = \"h2\""] {
        let scene = Scene::new(1, 2, &[("dmp", http)], timeouts, "");
        let request = Request::post("/dmp/")
            .header("x-finess", scene.tenants[0].as_str())
            .header(isolation::witness::BEHAVIOUR, Behaviour::Silence.to_field())
            .body(Bytes::from_static(b"all of it"))
            .unwrap();
        let answered = within(scene.gateway.send(request)).await;
        assert_eq!(answered.code(), "upstream_timeout");
    }
}

#[tokio::test]
async fn what_is_in_flight_when_its_generation_retires_finishes_and_is_not_used_again() {
    for http in ["http = \"h1\"", "http = \"h2\""] {
        let scene = Scene::new(2, 2, &[("dmp", http)], "", "");
        let (mut flying, expected) = (
            Application::new(scene.gateway.address()),
            scene.expected(0, "dmp"),
        );
        let late = Step {
            behaviour: Behaviour::Late(200),
            ..Step::plain(0, "dmp")
        };
        let flight = tokio::spawn(async move { flying.ask(&late, &expected).await });
        // Another tenant's connection lies idle meanwhile.
        scene.ask(&Step::plain(1, "dmp")).await;
        scene
            .until(|pools| pools.open == 2 && scene.carried() == 2)
            .await;
        scene.gateway.app.gateway.table.load().retire();
        assert_eq!(flight.await.unwrap(), Ok(true));
        scene.until(|pools| pools.open == 0).await;
    }
}

#[tokio::test]
async fn a_generation_that_retires_before_its_first_request_opens_nothing() {
    let scene = Scene::new(1, 2, &[("dmp", "")], "", "");
    scene.gateway.app.gateway.table.load().retire();
    let request = Request::get("/dmp/")
        .header("x-finess", scene.tenants[0].as_str())
        .body(Bytes::new())
        .unwrap();
    let answered = within(scene.gateway.send(request)).await;
    assert_eq!(answered.code(), "overloaded");
    assert!(scene.witness.connections().is_empty());
}

#[tokio::test]
async fn a_pool_of_one_http_2_connection_makes_way_for_an_upgrade() {
    let service = "http = \"h2\"\npool.max_connections = 1";
    let scene = Scene::new(1, 2, &[("dmp", service)], "", "");
    scene.ask(&Step::plain(0, "dmp")).await;
    let step = Step {
        upgrade: true,
        ..Step::plain(0, "dmp")
    };
    let asked = tokio::time::timeout(Duration::from_secs(5), scene.ask(&step)).await;
    asked.expect("the idle HTTP/2 connection stands in the way");
    let speaks: Vec<_> = scene
        .witness
        .connections()
        .iter()
        .map(|one| one.is_h2)
        .collect();
    assert_eq!(speaks, [true, false]);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}
