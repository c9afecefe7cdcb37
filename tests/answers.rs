//! Answers: passed on as they are, and never passed on as whole when they are not.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use support::upstream::{Connection, Tls, serve_h2};
use support::{H2c, in_front_of, large_post, whole, within};

/// What the application gets, over HTTP/1.1 and over h2c, from a service that falls silent once it has sent that much.
async fn silence_is_seen_broken(sent: &'static str, received: &str) {
    let serve = move |mut connection: Connection, _| async move {
        connection.head().await;
        connection.write(sent).await;
        std::future::pending::<()>().await;
        drop(connection);
    };
    // A silence that a test can wait for.
    let (gateway, _upstream) = in_front_of(&Tls::default(), "timeouts.body = \"300ms\"", serve);
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
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf";
    silence_is_seen_broken(half, "half").await;
}

#[tokio::test]
async fn an_answer_that_stalls_after_its_head_breaks_and_does_not_end() {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    silence_is_seen_broken(head, "").await;
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
async fn a_method_that_the_service_alone_knows_reaches_it() {
    let (gateway, _upstream) = in_front_of(&Tls::h2(), "", |connection, _| {
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
            let answer = client.send(large_post(&gateway)).await;
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
