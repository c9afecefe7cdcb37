//! Services that refuse, stall, break off or talk nonsense: what the application is told.

mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use relais::simulator::site::Stand;
use support::raw::Raw;
use support::upstream::{Asks, BOTH, Connection, ONLY_12, ONLY_13, Tls, Upstream, serve_h2};
use support::{H2c, TestGateway, eventually, in_front_of, start, start_on, whole, within};
use tokio::net::TcpStream;

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

fn big_post(gateway: &TestGateway) -> Request<Bytes> {
    Request::post("/up/x")
        .header("x-finess", gateway.tenant(0).as_str())
        .body(Bytes::from(vec![b'x'; 8 << 20]))
        .unwrap()
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
                let answer = client.send(big_post(&gateway)).await;
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
    // Those that shared the refused connection are not sent off to be refused once more each.
    assert!(upstream.accepted() <= 20, "{}", upstream.accepted());
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
        let upstream = Upstream::raw(|tcp: TcpStream, _| async move {
            std::future::pending::<()>().await;
            drop(tcp);
        });
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
    let answer = client.send(big_post(&gateway)).await;
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

/// What the application gets of an answer that the service leaves unfinished, over HTTP/1.1 and over h2c.
async fn is_seen_broken(gateway: &TestGateway, received: &str) {
    let mut raw = gateway.raw().await;
    raw.write(gateway.get_bytes("/up/x")).await;
    let answer = raw.answer(false).await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(
        !answer.complete,
        "a broken body must not look whole: {answer:?}"
    );
    assert_eq!(String::from_utf8_lossy(&answer.body), received);

    let mut client = H2c::connect(gateway.address()).await;
    let request = Request::get("/up/x")
        .header("x-finess", gateway.tenant(0).as_str())
        .body(whole(Bytes::new()))
        .unwrap();
    let response = client.begin(request).await.unwrap();
    assert_eq!(response.status(), 200);
    within(response.into_body().collect()).await.unwrap_err();

    for line in gateway.log() {
        assert_eq!(line["outcome"], "failed", "{line}");
    }
    assert_eq!(gateway.log().len(), 2);
}

#[tokio::test]
async fn an_answer_that_stalls_half_way_breaks_and_does_not_end() {
    let (gateway, _upstream) = in_front_of(
        &Tls::default(),
        SHORT,
        |mut connection, number| async move {
            connection.head().await;
            connection
                .write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
                .await;
            hold(connection, number).await;
        },
    );
    is_seen_broken(&gateway, "half").await;
}

#[tokio::test]
async fn an_answer_that_stalls_after_its_head_breaks_and_does_not_end() {
    let (gateway, _upstream) = in_front_of(
        &Tls::default(),
        SHORT,
        |mut connection, number| async move {
            connection.head().await;
            connection
                .write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                .await;
            hold(connection, number).await;
        },
    );
    is_seen_broken(&gateway, "").await;
}

#[tokio::test]
async fn an_answer_cut_in_the_middle_is_never_passed_on_as_whole() {
    let heads = [
        "content-length: 100",
        "transfer-encoding: chunked",
        "connection: close",
    ];
    for framing in heads {
        for how in ["close", "drop", "reset"] {
            if (framing, how) == ("connection: close", "close") {
                // Without a length the end of the connection, said properly, is the end of the answer.
                continue;
            }
            let serve = move |mut connection: Connection, _| async move {
                connection.head().await;
                let piece = if framing.contains("chunked") {
                    "4\r\nhalf\r\n"
                } else {
                    "half"
                };
                connection
                    .write(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{piece}"))
                    .await;
                match how {
                    "close" => connection.close().await,
                    "drop" => drop(connection),
                    _ => connection.reset(),
                }
            };
            let (gateway, _upstream) = in_front_of(&Tls::default(), "", serve);
            let mut raw = gateway.raw().await;
            raw.write(gateway.get_bytes("/up/x")).await;
            let answer = raw.answer(false).await.unwrap();
            if answer.status == 200 {
                assert!(
                    !answer.complete || answer.head.contains("content-length: 100"),
                    "{framing} {how} {answer:?}"
                );
                assert!(!answer.complete, "{framing} {how} {answer:?}");
            } else {
                // A reset can overtake the head that was written just before.
                assert_eq!((answer.status, how), (502, "reset"));
            }
        }
    }
}

#[tokio::test]
async fn an_answer_without_length_ends_with_the_connection() {
    let (gateway, _upstream) = in_front_of(&Tls::default(), "", |mut connection, _| async move {
        connection.head().await;
        connection
            .write("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nall of it")
            .await;
        connection.close().await;
    });
    let answer = gateway.get(gateway.tenant(0), "/up/x").await;
    assert_eq!(answer.0.body(), "all of it");
}

#[tokio::test]
async fn a_connection_lost_before_the_answer_is_a_protocol_error_and_is_not_repeated() {
    for how in ["close", "drop", "reset"] {
        let (gateway, upstream) =
            in_front_of(&Tls::default(), "", move |mut connection, _| async move {
                connection.head().await;
                match how {
                    "close" => connection.close().await,
                    "drop" => drop(connection),
                    _ => connection.reset(),
                }
            });
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
async fn interim_answers_do_not_stand_in_for_the_final_one() {
    let (gateway, _upstream) = in_front_of(&Tls::default(), "", |mut connection, _| async move {
        connection.head().await;
        connection
            .write("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")
            .await;
        connection.answer("final").await;
        connection.rest().await;
    });
    let answer = gateway.get(gateway.tenant(0), "/up/x").await;
    assert_eq!(
        (answer.status(), &answer.0.body()[..]),
        (200, &b"final"[..])
    );
}

#[tokio::test]
async fn errors_and_redirects_of_the_service_pass_through_untouched() {
    let texts = [
        ("500 Internal Server Error", "soap fault"),
        ("503 Service Unavailable", "down for maintenance"),
        ("302 Found", ""),
        ("407 Proxy Authentication Required", "x"),
        ("299 Whatever", "odd"),
    ];
    for (status, body) in texts {
        let (gateway, upstream) = in_front_of(
            &Tls::default(),
            "",
            move |mut connection, _| async move {
                while connection.head().await.is_some() {
                    connection
                    .write(format!(
                        "HTTP/1.1 {status}\r\nLocation: https://elsewhere.example/\r\ncontent-length: {}\r\n\r\n{body}",
                        body.len()
                    ))
                    .await;
                }
            },
        );
        let answer = gateway.get(gateway.tenant(0), "/up/x").await;
        assert_eq!(answer.status().to_string(), status[..3]);
        assert_eq!(answer.0.body(), body);
        assert_eq!(
            answer.header("location"),
            Some("https://elsewhere.example/")
        );
        for own in ["date", "proxy-status", "server", "via"] {
            assert_eq!(answer.header(own), None);
        }
        assert_eq!(upstream.heads().len(), 1);
    }
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

#[tokio::test]
async fn a_method_that_the_service_alone_knows_reaches_it() {
    let tls = Tls {
        versions: BOTH,
        ..Tls::h2()
    };
    let (gateway, _upstream) = in_front_of(&tls, "", |connection, _| {
        serve_h2(connection, 100, |request: Request<_>| async move {
            Response::new(Full::new(Bytes::from(request.method().to_string())))
        })
    });
    let request = Request::builder()
        .method(Method::from_bytes(b"PROPFIND").unwrap())
        .uri("/up/x")
        .header("x-finess", gateway.tenant(0).as_str())
        .body(Bytes::new())
        .unwrap();
    assert_eq!(gateway.send(request).await.0.body(), "PROPFIND");
}

#[tokio::test]
async fn a_refusal_that_comes_before_the_body_was_sent_reaches_the_application() {
    for how in ["lingers", "closes"] {
        let (gateway, upstream) = in_front_of(
            &Tls::default(),
            "",
            move |mut connection, _| async move {
                connection.head().await;
                connection
                .write("HTTP/1.1 413 Content Too Large\r\ncontent-length: 8\r\nconnection: close\r\n\r\ntoo much")
                .await;
                match how {
                    "lingers" => drop(connection.rest().await),
                    _ => connection.close().await,
                }
            },
        );
        for attempt in 1..=10 {
            let mut client = H2c::connect(gateway.address()).await;
            let answer = client.send(big_post(&gateway)).await;
            assert_eq!(
                (answer.status(), &answer.0.body()[..]),
                (413, &b"too much"[..]),
                "{how}"
            );
            // What is left of that request is on no other request's connection.
            assert_eq!(upstream.accepted(), attempt, "{how}");
        }
    }
}
