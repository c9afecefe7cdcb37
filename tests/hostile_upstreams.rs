//! Services that mean harm: what they do costs the request that they were sent, and nobody else anything.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use relais::simulator::site::Stand;
use support::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, PUSH_PROMISE,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, take,
};
use support::upstream::{Connection, Tls, Upstream};
use support::{Answered, Client, TestGateway, eventually, in_front_of, start_on, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Deadlines that a test can wait for.
const SHORT: &str = "timeouts = { response = \"500ms\", body = \"500ms\" }";

/// More than a hostile service gets rid of before nobody reads it any more: the head that is taken, and what the
/// kernel's buffers on both sides hold.
const TAKEN_AT_MOST: usize = 16 << 20;

async fn told(gateway: &TestGateway) -> (u16, String) {
    let answer = gateway.get(gateway.tenant(0), "/up/x").await;
    (answer.status(), answer.code())
}

fn is_broken(told: &(u16, String), what: &str) {
    let broken = (502, "upstream_protocol_error".to_owned());
    assert_eq!(told, &broken, "{what}");
}

fn is_given_up(told: &(u16, String), what: &str) {
    let clear = matches!(
        (told.0, told.1.as_str()),
        (502, "upstream_protocol_error") | (504, "upstream_timeout")
    );
    assert!(clear, "{what}: {told:?}");
}

/// Everybody else is served, on every worker.
async fn others_are_served(gateway: &TestGateway) {
    for _ in 0..4 {
        let answer = gateway.get(gateway.tenant(0), "/dmp/x").await;
        assert_eq!(answer.status(), 200, "{answer:?}");
    }
}

/// Writes the same again and again until nobody takes it; how much was taken is added to `taken`.
async fn flood(connection: &mut Connection, what: &[u8], taken: &AtomicUsize) {
    let piece = what.repeat((16 << 10) / what.len() + 1);
    while let Ok(Ok(())) =
        tokio::time::timeout(support::DEADLINE, connection.stream.write_all(&piece)).await
    {
        taken.fetch_add(piece.len(), Ordering::AcqRel);
    }
}

#[tokio::test]
async fn an_answer_of_which_the_head_never_ends_costs_no_more_than_a_head() {
    let lines = "x-more: and more\r\n".to_owned();
    let one_field = "y".repeat(1000);
    for (beginning, more) in [
        ("HTTP/1.1 200 OK\r\n", &lines),
        ("HTTP/1.1 200 OK\r\nx-long: ", &one_field),
        ("HTTP/1.1 200 ", &one_field),
        ("", &one_field),
    ] {
        let taken = Arc::new(AtomicUsize::new(0));
        let (counted, more) = (Arc::clone(&taken), more.clone());
        let (gateway, upstream) = in_front_of(&Tls::default(), SHORT, move |mut connection, _| {
            let (counted, more) = (Arc::clone(&counted), more.clone());
            async move {
                connection.head().await;
                connection.write(beginning).await;
                flood(&mut connection, more.as_bytes(), &counted).await;
            }
        });
        is_broken(&told(&gateway).await, beginning);
        others_are_served(&gateway).await;
        eventually("it is left", || upstream.open() == 0).await;
        let taken = taken.load(Ordering::Acquire);
        assert!(taken < TAKEN_AT_MOST, "{taken} bytes of {beginning:?}");
    }
}

#[tokio::test]
async fn interim_answers_without_end_are_given_up_when_the_answer_is_due() {
    let (gateway, upstream) = in_front_of(&Tls::default(), SHORT, |mut connection, _| async move {
        connection.head().await;
        let interim = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
        flood(&mut connection, interim, &AtomicUsize::new(0)).await;
    });
    let address = gateway.address();
    let tenant = gateway.tenant(0);
    let victim = tokio::spawn(async move {
        let mut client = Client::connect(address).await;
        let request = Request::get("/up/x")
            .header("x-finess", tenant.as_str())
            .body(Bytes::new());
        client.send(request.unwrap()).await
    });
    eventually("it has begun", || !upstream.heads().is_empty()).await;
    others_are_served(&gateway).await;
    let answer = within(victim).await.unwrap();
    is_given_up(&(answer.status(), answer.code()), "103 without end");
    eventually("it is left", || upstream.open() == 0).await;
}

/// An application gets an error or something that breaks off, if only the connection.
async fn is_never_whole(gateway: &TestGateway, what: &str) {
    let mut raw = gateway.raw().await;
    raw.write(gateway.get_bytes("/up/x")).await;
    if let Some(answer) = raw.answer(false).await {
        let clear = matches!(answer.status, 502 | 504) || !answer.complete;
        assert!(clear, "{what:?} was passed on as {answer:?}");
    }
}

#[tokio::test]
async fn chunks_that_cannot_be_read_are_never_passed_on_as_whole() {
    let giant_extension = format!("4;{}\r\nhalf\r\n0\r\n\r\n", "x".repeat(1 << 20));
    let mut giant_trailers = "4\r\nhalf\r\n0\r\n".to_owned();
    for number in 0..20_000 {
        write!(giant_trailers, "x-{number}: {}\r\n", "y".repeat(100)).unwrap();
    }
    giant_trailers.push_str("\r\n");
    for body in [
        "zz\r\nhalf\r\n0\r\n\r\n",
        "-4\r\nhalf\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nhalf\r\n0\r\n\r\n",
        "4\r\nhalfXX0\r\n\r\n",
        "4\nhalf\n0\n\n",
        "4\r\nhalf\r\n\r\n\r\n",
        "4\r\nhalf\r\n0\r\n: \r\n\r\n",
        &giant_extension,
        &giant_trailers,
    ] {
        let (body, name) = (body.to_owned(), body[..body.len().min(40)].to_owned());
        let (gateway, upstream) = in_front_of(&Tls::default(), SHORT, move |mut connection, _| {
            let body = body.clone();
            async move {
                connection.head().await;
                let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
                connection.write(head.to_owned() + &body).await;
                connection.rest().await;
            }
        });
        is_never_whole(&gateway, &name).await;
        others_are_served(&gateway).await;
        eventually("it is left", || upstream.open() == 0).await;
    }
}

#[tokio::test]
async fn an_answer_of_two_lengths_is_none() {
    for framing in [
        "content-length: 4\r\ncontent-length: 5",
        "content-length: 4, 5",
        "content-length: +4",
        "content-length: 4\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 4",
        "transfer-encoding: chunked, identity",
    ] {
        let (gateway, upstream) = in_front_of(
            &Tls::default(),
            SHORT,
            move |mut connection, _| async move {
                connection.head().await;
                let body =
                    "4\r\nhalf\r\n0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
                connection
                    .write(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{body}"))
                    .await;
                connection.rest().await;
            },
        );
        let mut client = gateway.connect().await;
        for _ in 0..3 {
            let request = Request::get("/up/x").header("x-finess", gateway.tenant(0).as_str());
            // Whatever is read of it, it is the answer to one request, on a connection that is used no more.
            if client
                .try_send(request.body(Bytes::new()).unwrap())
                .await
                .is_none()
            {
                client = gateway.connect().await;
            }
        }
        assert_eq!(upstream.accepted(), 3, "{framing}");
        assert_eq!(upstream.heads().len(), 3, "{framing}");
    }
}

/// A service that answers each request with its path, and then says more than was asked for.
fn says_more(more: &'static str, status: &'static str) -> (TestGateway, Upstream) {
    in_front_of(
        &Tls::default(),
        "http = \"h1\"",
        move |mut connection, _| async move {
            while let Some(head) = connection.head().await {
                let path = head.split(' ').nth(1).unwrap().to_owned();
                let body = match (head.starts_with("HEAD"), status) {
                    (true, _) | (_, "204 No Content" | "304 Not Modified") => "",
                    _ => path.as_str(),
                };
                let length = match status {
                    "204 No Content" => String::new(),
                    _ => format!("content-length: {}\r\n", path.len()),
                };
                connection
                    .write(format!("HTTP/1.1 {status}\r\n{length}\r\n{body}{more}"))
                    .await;
            }
        },
    )
}

async fn ask(client: &mut Client, gateway: &TestGateway, method: &Method, path: &str) -> Answered {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("x-finess", gateway.tenant(0).as_str())
        .body(Bytes::new())
        .unwrap();
    client.send(request).await
}

#[tokio::test]
async fn what_follows_an_answer_is_the_answer_to_nothing() {
    let poison = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
    let cases = [
        (Method::GET, "200 OK", poison),
        (Method::GET, "200 OK", "\r\n"),
        (Method::GET, "200 OK", "more than it said"),
        (
            Method::HEAD,
            "200 OK",
            "the body of what was asked with HEAD",
        ),
        (Method::HEAD, "200 OK", poison),
        (Method::GET, "204 No Content", "a body where there is none"),
        (Method::GET, "204 No Content", poison),
        (Method::GET, "304 Not Modified", poison),
    ];
    for (method, status, more) in cases {
        let (gateway, upstream) = says_more(more, status);
        let mut client = gateway.connect().await;
        for number in 0..10 {
            let path = format!("/{number}");
            let answer = ask(&mut client, &gateway, &method, &format!("/up{path}")).await;
            assert_eq!(answer.status().to_string(), status[..3], "{more:?}");
            let expected = match (&method, status) {
                (&Method::GET, "200 OK") => path.as_str(),
                _ => "",
            };
            assert_eq!(answer.0.body(), expected, "{status} {more:?}");
        }
        // What said more was not asked again.
        assert_eq!(upstream.accepted(), 10, "{status} {more:?}");
    }
}

#[tokio::test]
async fn what_a_service_says_unasked_on_an_idle_connection_closes_it() {
    let (gateway, upstream) = in_front_of(&Tls::default(), "", |mut connection, _| async move {
        connection.head().await;
        connection.answer("asked").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        connection.answer("unasked").await;
        connection.keep_answering("later").await;
    });
    for _ in 0..3 {
        let answer = gateway.get(gateway.tenant(0), "/up/x").await;
        assert_eq!(answer.0.body(), "asked");
        eventually("it is left", || upstream.open() == 0).await;
    }
}

#[tokio::test]
async fn a_misdirected_request_is_told_and_never_sent_over_anothers_connection() {
    // T9: two services behind one address and one certificate, which HTTP/2 would let share a connection.
    let tls = Tls::h2();
    let (gateway, upstream) = start_on(1, &[Stand::new("dmp")], |site, text| {
        let upstream = Upstream::start(&site.pki, &tls, |connection, number| {
            support::upstream::serve_h2(connection, 100, move |_| async move {
                let body = http_body_util::Full::new(Bytes::from(number.to_string()));
                http::Response::builder().status(421).body(body).unwrap()
            })
        });
        text.push_str(&upstream.service("up", ""));
        text.push_str(&upstream.service("neighbour", ""));
        upstream
    });
    for _ in 0..3 {
        for (path, connection) in [("/up/x", "0"), ("/neighbour/x", "1")] {
            let answer = gateway.get(gateway.tenant(0), path).await;
            assert_eq!(
                (answer.status(), &answer.0.body()[..]),
                (421, connection.as_bytes())
            );
        }
    }
    assert_eq!(upstream.accepted(), 2);
}

/// Reads until the gateway has sent a request over HTTP/2, and says hello.
async fn h2_request(connection: &mut Connection) -> u32 {
    connection.write(frame(SETTINGS, 0, 0, &[])).await;
    let mut come = Vec::new();
    let mut piece = [0; 4096];
    let mut is_open = false;
    loop {
        let Ok(length @ 1..) = connection.stream.read(&mut piece).await else {
            return 0;
        };
        come.extend_from_slice(&piece[..length]);
        if !is_open && come.len() >= PREFACE.len() {
            come.drain(..PREFACE.len());
            is_open = true;
        }
        while is_open && let Some((kind, _, stream, _)) = take(&mut come) {
            if kind == HEADERS {
                return stream;
            }
        }
    }
}

#[tokio::test]
async fn floods_of_a_service_over_http_2_cost_no_more_than_its_own_request() {
    let ok = block(&[(":status", "200")]);
    let early = block(&[(":status", "103"), ("link", "</a>")]);
    let large = block(&[("x-large", "y".repeat(8000))]);
    let head = frame(HEADERS, END_HEADERS, 1, &ok);
    let floods: Vec<(&str, Vec<u8>, Vec<u8>)> = vec![
        (
            "SETTINGS",
            vec![],
            frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]),
        ),
        ("SETTINGS ACK", vec![], frame(SETTINGS, ACK, 0, &[])),
        ("PING", vec![], frame(PING, 0, 0, b"relais!!")),
        ("PING ACK", vec![], frame(PING, ACK, 0, b"relais!!")),
        (
            "WINDOW_UPDATE",
            vec![],
            frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        ),
        ("RST_STREAM", vec![], frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])),
        (
            "CONTINUATION",
            frame(HEADERS, 0, 1, &ok),
            frame(CONTINUATION, 0, 1, &large),
        ),
        (
            "empty CONTINUATION",
            frame(HEADERS, 0, 1, &ok),
            frame(CONTINUATION, 0, 1, &[]),
        ),
        ("103", vec![], frame(HEADERS, END_HEADERS, 1, &early)),
        ("empty DATA", head.clone(), frame(DATA, 0, 1, &[])),
        ("padding", head.clone(), frame(DATA, 8, 1, &[255; 256])),
        (
            "PUSH_PROMISE",
            vec![],
            frame(
                PUSH_PROMISE,
                END_HEADERS,
                1,
                &[&[0, 0, 0, 2], &ok[..]].concat(),
            ),
        ),
        ("unknown frames", vec![], frame(77, 0, 1, &[0; 100])),
        (
            "GOAWAY",
            vec![],
            frame(GOAWAY, 0, 0, &[127, 255, 255, 255, 0, 0, 0, 0]),
        ),
    ];
    for (name, beginning, piece) in floods {
        let (begun, taken) = (beginning.clone(), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&taken);
        let (gateway, upstream) = in_front_of(&Tls::h2(), SHORT, move |mut connection, _| {
            let (begun, piece, counted) = (begun.clone(), piece.clone(), Arc::clone(&counted));
            async move {
                h2_request(&mut connection).await;
                connection.write(&begun).await;
                flood(&mut connection, &piece, &counted).await;
            }
        });
        let address = gateway.address();
        let bytes = gateway.get_bytes("/up/x");
        let victim = tokio::spawn(async move {
            let mut raw = support::raw::Raw::connect(address).await;
            raw.write(bytes).await;
            // One that goes on being answered with nothing gives up some time.
            let patience = Duration::from_secs(1);
            tokio::time::timeout(patience, raw.answer(false))
                .await
                .ok()
                .flatten()
        });
        eventually("it floods", || {
            taken.load(Ordering::Acquire) > 0 || victim.is_finished()
        })
        .await;
        others_are_served(&gateway).await;
        let answer = within(victim).await.unwrap();
        if let Some(answer) = answer {
            let clear = matches!(answer.status, 502 | 504) || !answer.complete;
            assert!(clear, "{name}: {answer:?}");
        }
        others_are_served(&gateway).await;
        drop(gateway);
        eventually("it is left", || upstream.open() == 0).await;
    }
}

#[tokio::test]
async fn a_service_that_turns_every_stream_away_is_not_asked_without_end() {
    let refused = frame(RST_STREAM, 0, 1, &[0, 0, 0, 7]);
    let goaway = frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0]);
    let ended = frame(RST_STREAM, 0, 1, &[0, 0, 0, 0]);
    for (name, words) in [
        ("REFUSED_STREAM", refused.clone()),
        ("GOAWAY for none", goaway.clone()),
        ("NO_ERROR without an answer", ended),
        ("GOAWAY and REFUSED_STREAM", [goaway, refused].concat()),
    ] {
        for retry in ["never", "unsent", "idempotent"] {
            let words = words.clone();
            let (gateway, upstream) = in_front_of(
                &Tls::h2(),
                &format!("{SHORT}\nretry = \"{retry}\""),
                move |mut connection, _| {
                    let words = words.clone();
                    async move {
                        h2_request(&mut connection).await;
                        connection.write(&words).await;
                        connection.rest().await;
                    }
                },
            );
            is_given_up(&told(&gateway).await, name);
            assert!(
                upstream.accepted() <= 3,
                "{name} {retry}: {}",
                upstream.accepted()
            );
            others_are_served(&gateway).await;
        }
    }
}

#[tokio::test]
async fn frames_that_answer_nobody_are_passed_on_to_nobody() {
    let ok = block(&[(":status", "200")]);
    let upper = block(&[(":status", "200"), ("X-Upper", "1")]);
    let smuggled = block(&[(":status", "200"), ("x-a", "1\r\n\r\nHTTP/1.1 200 OK")]);
    let twice = block(&[(":status", "200"), (":status", "500")]);
    let odd = block(&[(":status", "2OO")]);
    let none = block(&[("x-a", "1")]);
    let length = block(&[(":status", "200"), ("content-length", "4")]);
    let two_lengths = block(&[
        (":status", "200"),
        ("content-length", "4"),
        ("content-length", "5"),
    ]);
    let coded = block(&[(":status", "200"), ("transfer-encoding", "chunked")]);
    let whole = END_HEADERS | END_STREAM;
    for (name, words) in [
        (
            "an answer on a stream that nobody opened",
            frame(HEADERS, whole, 3, &ok),
        ),
        ("DATA before the head", frame(DATA, END_STREAM, 1, b"x")),
        ("a name in upper case", frame(HEADERS, whole, 1, &upper)),
        ("a value with CR LF", frame(HEADERS, whole, 1, &smuggled)),
        ("two statuses", frame(HEADERS, whole, 1, &twice)),
        ("a status that is none", frame(HEADERS, whole, 1, &odd)),
        ("no status", frame(HEADERS, whole, 1, &none)),
        (
            "two lengths",
            [
                frame(HEADERS, END_HEADERS, 1, &two_lengths),
                frame(DATA, END_STREAM, 1, b"four"),
            ]
            .concat(),
        ),
        ("a transfer coding", frame(HEADERS, whole, 1, &coded)),
        (
            "less than it says",
            [
                frame(HEADERS, END_HEADERS, 1, &length),
                frame(DATA, END_STREAM, 1, b"x"),
            ]
            .concat(),
        ),
        (
            "more than it says",
            [
                frame(HEADERS, END_HEADERS, 1, &length),
                frame(DATA, END_STREAM, 1, b"longer"),
            ]
            .concat(),
        ),
        (
            "101",
            frame(HEADERS, END_HEADERS, 1, &block(&[(":status", "101")])),
        ),
        (
            "a frame that is too large",
            frame(DATA, 0, 1, &[0; 1 << 15]),
        ),
    ] {
        let (gateway, _upstream) = in_front_of(&Tls::h2(), SHORT, move |mut connection, _| {
            let words = words.clone();
            async move {
                h2_request(&mut connection).await;
                connection.write(&words).await;
                connection.rest().await;
            }
        });
        is_never_whole(&gateway, name).await;
        others_are_served(&gateway).await;
    }
}
