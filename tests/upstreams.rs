//! Services that refuse, stall, break off or talk nonsense: what the application is told.

mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use relais::simulator::site::Stand;
use support::raw::Raw;
use support::upstream::{Asks, Connection, ONLY_12, ONLY_13, Tls, Upstream, serve_h2};
use support::{H2c, TestGateway, eventually, in_front_of, large_post, start, start_on};

const H1: &[&str] = &["http/1.1"];
const H2: &[&str] = &["h2"];

/// Deadlines so short that a test can wait for them to pass.
const SHORT: &str = "timeouts = { connect = \"300ms\", handshake = \"300ms\", response = \"300ms\", body = \"300ms\" }";

async fn ignore(_: Connection, _: usize) {}

async fn hold(connection: Connection, _: usize) {
    std::future::pending::<()>().await;
    drop(connection);
}

async fn code_of_get(gateway: &TestGateway) -> (u16, String) {
    let answer = gateway.get(gateway.tenant(0), "/up/x").await;
    (answer.status(), answer.code())
}

fn is_timeout(detail: (u16, String)) {
    assert_eq!(detail, (504, "upstream_timeout".to_owned()));
}

#[tokio::test]
async fn a_refused_client_certificate_is_told_as_such_in_every_protocol() {
    for versions in [ONLY_12, ONLY_13] {
        for (alpn, client) in [
            (H1, Asks::OtherPki),
            (H2, Asks::OtherPki),
            (H2, Asks::Namesake),
        ] {
            let tls = Tls {
                versions,
                alpn,
                client,
                ..Tls::default()
            };
            let (gateway, upstream) = in_front_of(&tls, "", ignore);
            let expected = (502, "certificate_rejected_by_upstream".to_owned());
            for attempt in 1..=3 {
                assert_eq!(
                    code_of_get(&gateway).await,
                    expected,
                    "{versions:?} {alpn:?}"
                );
                // A refusal is an answer: asking again would get the same one.
                assert_eq!(upstream.accepted(), attempt, "{versions:?} {alpn:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_refused_client_certificate_is_told_even_while_a_large_body_is_being_sent() {
    for versions in [ONLY_12, ONLY_13] {
        for alpn in [H1, H2] {
            let tls = Tls {
                versions,
                alpn,
                client: Asks::OtherPki,
                ..Tls::default()
            };
            let (gateway, upstream) = in_front_of(&tls, "", ignore);
            for attempt in 1..=5 {
                let mut client = H2c::connect(gateway.address()).await;
                let answer = client.send(large_post(&gateway)).await;
                assert_eq!(
                    answer.code(),
                    "certificate_rejected_by_upstream",
                    "{versions:?} {alpn:?} {answer:?}"
                );
                assert_eq!(upstream.accepted(), attempt);
            }
        }
    }
}

#[tokio::test]
async fn many_requests_behind_one_refused_certificate_all_learn_why() {
    let tls = Tls {
        client: Asks::OtherPki,
        ..Tls::h2()
    };
    let (gateway, upstream) = in_front_of(&tls, "", ignore);
    let mut client = H2c::connect(gateway.address()).await;
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let request = Request::get("/up/x")
            .header("x-finess", gateway.tenant(0).as_str())
            .body(Bytes::new())
            .unwrap();
        let mut own = H2c::connect(gateway.address()).await;
        std::mem::swap(&mut own, &mut client);
        requests.spawn(async move { own.send(request).await.code() });
    }
    for code in requests.join_all().await {
        assert_eq!(code, "certificate_rejected_by_upstream");
    }
    // Those that waited behind the refused connection are not sent off to be refused once more each.
    assert!(upstream.accepted() <= 10, "{}", upstream.accepted());
}

#[tokio::test]
async fn a_service_that_asks_for_no_certificate_is_never_sent_a_request() {
    for versions in [ONLY_12, ONLY_13] {
        let tls = Tls {
            versions,
            client: Asks::Nothing,
            ..Tls::default()
        };
        let (gateway, upstream) = in_front_of(&tls, "", |mut connection, _| async move {
            connection.keep_answering("for nobody").await;
        });
        for _ in 0..5 {
            // A session of the first handshake must not make the second one look as if it had been asked.
            assert_eq!(
                code_of_get(&gateway).await,
                (502, "certificate_not_requested".to_owned())
            );
        }
        assert_eq!(upstream.heads(), Vec::<String>::new());
        assert_eq!(upstream.handshakes().1, 0, "no session may be resumed");
    }
}

#[tokio::test]
async fn a_service_that_cannot_prove_its_name_gets_nothing() {
    let wrong = [
        Tls {
            foreign: true,
            ..Tls::default()
        },
        Tls {
            names: &["other.example"],
            ..Tls::default()
        },
        Tls {
            not_after: Some(jiff::Timestamp::now().as_second() - 3600),
            ..Tls::default()
        },
    ];
    for tls in wrong {
        let (gateway, upstream) = in_front_of(&tls, "", ignore);
        assert_eq!(
            code_of_get(&gateway).await,
            (502, "upstream_untrusted".to_owned())
        );
        assert_eq!(upstream.handshakes(), (0, 0));
    }
}

#[tokio::test]
async fn a_service_that_cannot_be_reached_is_told_with_the_address_or_name() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let trust = "trust = \"trust/igc-sante-test.pem\"";
    let gateway = start(
        1,
        &[Stand::new("dmp")],
        &format!(
            "[services.closed]\nurl = \"https://{closed}\"\n{trust}\n\
             [services.nowhere]\nurl = \"https://no-such-service.invalid\"\n{trust}\n"
        ),
    );
    for (path, named) in [
        ("/closed", closed.to_string()),
        ("/nowhere", "no-such-service.invalid".to_owned()),
    ] {
        let answer = gateway.get(gateway.tenant(0), path).await;
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (502, "upstream_unreachable")
        );
        let text = String::from_utf8_lossy(answer.0.body()).into_owned();
        assert!(text.contains(&named), "{text}");
    }
}

#[tokio::test]
async fn a_service_that_is_silent_in_the_handshake_is_given_up() {
    let (gateway, _upstream) = start_on(1, &[Stand::new("dmp")], |_, text| {
        let upstream = Upstream::mute();
        text.push_str(&upstream.service("up", SHORT));
        upstream
    });
    let begun = Instant::now();
    is_timeout(code_of_get(&gateway).await);
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_service_that_never_answers_is_given_up_in_both_protocols() {
    let (gateway, upstream) = in_front_of(&Tls::default(), SHORT, hold);
    is_timeout(code_of_get(&gateway).await);
    eventually("the silent connection is closed", || upstream.open() <= 1).await;
    let (gateway, _upstream) = in_front_of(&Tls::h2(), SHORT, |connection, _| {
        serve_h2(connection, 100, |_| std::future::pending())
    });
    is_timeout(code_of_get(&gateway).await);
}

#[tokio::test]
async fn a_service_that_stops_taking_the_body_is_given_up() {
    let (gateway, _upstream) = in_front_of(&Tls::default(), SHORT, hold);
    let mut client = H2c::connect(gateway.address()).await;
    let answer = client.send(large_post(&gateway)).await;
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (504, "upstream_timeout")
    );
}

#[tokio::test]
async fn a_dial_that_takes_longer_than_a_body_may_pause_does_not_cost_the_request() {
    let (gateway, _upstream) = start_on(1, &[Stand::new("dmp")], |site, text| {
        let config = Tls::default().server_config(&site.pki);
        let upstream = Upstream::raw(move |tcp, _| {
            let acceptor = tokio_rustls::TlsAcceptor::from(config.clone());
            async move {
                // Slower than the deadline below, and well within that of the handshake.
                tokio::time::sleep(Duration::from_millis(600)).await;
                let stream = acceptor.accept(tcp).await.unwrap();
                let mut raw = Raw::over(stream);
                raw.head().await.unwrap();
                assert_eq!(raw.exactly(4).await, b"body");
                raw.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                    .await;
                raw.rest().await;
            }
        });
        text.push_str(&upstream.service("up", "timeouts.body = \"300ms\""));
        upstream
    });
    let request = Request::post("/up/x")
        .header("x-finess", gateway.tenant(0).as_str())
        .body(Bytes::from_static(b"body"))
        .unwrap();
    let answer = gateway.send(request).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
}

#[tokio::test]
async fn a_connection_lost_before_the_answer_is_a_protocol_error_and_is_not_repeated() {
    for how in ["close", "drop", "reset"] {
        let (gateway, upstream) = in_front_of(
            &Tls::default(),
            "retry = \"idempotent\"",
            move |mut connection, _| async move {
                connection.head().await;
                match how {
                    "close" => connection.close().await,
                    "drop" => drop(connection),
                    _ => connection.reset(),
                }
            },
        );
        assert_eq!(
            code_of_get(&gateway).await,
            (502, "upstream_protocol_error".to_owned()),
            "{how}"
        );
        assert_eq!(upstream.accepted(), 1, "{how}");
    }
}

#[tokio::test]
async fn nonsense_in_place_of_an_answer_is_a_protocol_error() {
    let nonsense: &[&str] = &[
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 2OO OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: \u{0}\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        "HTTP/3.7 200 OK\r\n\r\n",
    ];
    for text in nonsense {
        let (gateway, _upstream) =
            in_front_of(&Tls::default(), "", move |mut connection, _| async move {
                connection.head().await;
                connection.write(text).await;
                connection.rest().await;
            });
        assert_eq!(
            code_of_get(&gateway).await,
            (502, "upstream_protocol_error".to_owned()),
            "{text:?}"
        );
    }
}

#[tokio::test]
async fn a_head_without_end_is_cut_off() {
    let (gateway, _upstream) = in_front_of(&Tls::default(), "", |mut connection, _| async move {
        connection.head().await;
        connection.write("HTTP/1.1 200 OK\r\n").await;
        // More than anybody would keep in memory for a head.
        for number in 0..40_000 {
            connection
                .write(format!("x-{number}: {}\r\n", "y".repeat(1000)))
                .await;
        }
    });
    assert_eq!(
        code_of_get(&gateway).await,
        (502, "upstream_protocol_error".to_owned())
    );
}

#[tokio::test]
async fn a_service_that_offers_none_of_the_wanted_protocols_is_told() {
    let (gateway, _upstream) = in_front_of(&Tls::default(), "http = \"h2\"", ignore);
    assert_eq!(
        code_of_get(&gateway).await,
        (502, "upstream_protocol_error".to_owned())
    );
    let (gateway, _upstream) = in_front_of(
        &Tls {
            versions: ONLY_12,
            ..Tls::default()
        },
        "tls = \"1.3\"",
        ignore,
    );
    assert_eq!(
        code_of_get(&gateway).await,
        (502, "upstream_protocol_error".to_owned())
    );
}
