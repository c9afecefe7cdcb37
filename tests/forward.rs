//! Requests through the whole gateway, as an application sees them.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use relais::config::ListenAddress;
use relais::services::HttpVersions;
use relais::simulator::site::Stand;
use support::raw::Raw;
use support::upstream::{Connection, Tls};
use support::{Client, H2c, eventually, in_front_of, start, start_on, start_with, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const PSC_H1: Stand = Stand {
    http: HttpVersions::H1,
    ..Stand::new("psc")
};

fn get(path: &str) -> Request<Bytes> {
    Request::get(path).body(Bytes::new()).unwrap()
}

#[tokio::test]
async fn each_tenant_is_seen_under_its_own_certificate_by_header_and_by_path() {
    let gateway = start(3, &[PSC_H1], "");
    for tenant in gateway.site.tenants.clone() {
        let by_header = gateway.get(tenant, "/psc/token").await.seen();
        let by_path = gateway
            .send(get(&format!("/@{tenant}/psc/token")))
            .await
            .seen();
        for seen in [by_header, by_path] {
            assert_eq!(seen.ou, Some(format!("1{tenant}")));
            assert_eq!(seen.path, "/token");
        }
    }
    gateway.stop();
}

#[tokio::test]
async fn path_and_query_arrive_byte_for_byte() {
    let gateway = start(1, &[PSC_H1], "");
    for rest in [
        "/a%2Fb/../c?x=%2f&y=a+b;c",
        "?wsdl",
        "",
        "/",
        "//double//",
        "/é?q=ü",
        "/?a=1?b=2",
    ] {
        let uri: String = format!("/psc{rest}")
            .chars()
            .map(|c| {
                if c.is_ascii() {
                    c.to_string()
                } else {
                    "%C3%A9".into()
                }
            })
            .collect();
        let expected = match &uri["/psc".len()..] {
            query if query.starts_with('?') || query.is_empty() => format!("/{query}"),
            path => path.to_owned(),
        };
        assert_eq!(
            gateway.get(gateway.tenant(0), &uri).await.seen().path,
            expected
        );
    }
}

#[tokio::test]
async fn the_base_path_of_a_service_goes_before_the_rest() {
    let gateway = start_with(1, &[PSC_H1], |text| {
        let port = text.split("https://localhost:").nth(1).unwrap()[..5].to_owned();
        *text = text.replace(
            &format!("localhost:{port}"),
            &format!("localhost:{port}/auth/realms/esante-wallet"),
        );
    });
    let seen = gateway
        .get(gateway.tenant(0), "/psc/protocol/token?x")
        .await
        .seen();
    assert_eq!(seen.path, "/auth/realms/esante-wallet/protocol/token?x");
    let seen = gateway.get(gateway.tenant(0), "/psc").await.seen();
    assert_eq!(seen.path, "/auth/realms/esante-wallet");
}

#[tokio::test]
async fn a_bound_listener_needs_no_tenant_and_no_service_in_the_request() {
    let tenant = relais::simulator::site::sample_finess(1);
    let extra = format!(
        "\n[[listeners]]\naddress = \"127.0.0.1:0\"\ntenant = \"{tenant}\"\nservice = \"psc\"\n\
         \n[[listeners]]\naddress = \"[::1]:0\"\ntenant = \"{tenant}\"\n"
    );
    let gateway = start(2, &[PSC_H1], &extra);
    let tcp = |index: usize| match &gateway.addresses[index] {
        ListenAddress::Tcp(address) => *address,
        ListenAddress::Unix(_) => unreachable!("both are TCP"),
    };
    let seen = Client::connect(tcp(1))
        .await
        .send(get("/psc/token"))
        .await
        .seen();
    assert_eq!(
        (seen.ou, seen.path.as_str()),
        (Some(format!("1{tenant}")), "/psc/token")
    );
    assert!(tcp(2).is_ipv6());
    let seen = Client::connect(tcp(2))
        .await
        .send(get("/psc/token"))
        .await
        .seen();
    assert_eq!(
        (seen.ou, seen.path.as_str()),
        (Some(format!("1{tenant}")), "/token")
    );
}

#[tokio::test]
async fn a_unix_socket_serves_and_is_gone_after_the_stop() {
    let gateway = start_with(1, &[PSC_H1], |text| {
        *text = text.replacen("127.0.0.1:0", "unix:relais.sock", 1);
    });
    let path = gateway.path().join("relais.sock");
    let mut raw = Raw::over(UnixStream::connect(&path).await.unwrap());
    raw.write(
        gateway
            .get_bytes("/psc/x")
            .replace("localhost", "anything.example"),
    )
    .await;
    assert_eq!(raw.answer(false).await.unwrap().status, 200);
    drop(raw);
    let kept = path.clone();
    gateway.stop();
    assert!(!kept.exists());
}

#[tokio::test]
async fn a_socket_file_left_behind_by_a_killed_gateway_is_no_obstacle() {
    let (gateway, ()) = start_on(1, &[PSC_H1], |site, text| {
        drop(std::os::unix::net::UnixListener::bind(site.directory.join("relais.sock")).unwrap());
        *text = text.replacen("127.0.0.1:0", "unix:relais.sock", 1);
    });
    let path = gateway.path().join("relais.sock");
    assert!(UnixStream::connect(path).await.is_ok());
}

#[tokio::test]
async fn an_application_may_speak_http_2_in_clear_text() {
    let gateway = start(
        1,
        &[
            PSC_H1,
            Stand {
                http: HttpVersions::H2,
                ..Stand::new("ror")
            },
        ],
        "",
    );
    let mut client = H2c::connect(gateway.address()).await;
    for (service, http) in [("psc", "HTTP/1.1"), ("ror", "HTTP/2.0")] {
        let request = Request::post(format!("/{service}/x?y"))
            .header("x-finess", gateway.tenant(0).as_str())
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(Bytes::from_static(b"12345"))
            .unwrap();
        let seen = client.send(request).await.seen();
        assert_eq!(
            (seen.http.as_str(), seen.path.as_str(), seen.body_bytes),
            (http, "/x?y", 5)
        );
        let cookies: Vec<_> = seen
            .headers
            .iter()
            .filter(|(name, _)| name == "cookie")
            .collect();
        assert_eq!(cookies, [&("cookie".to_owned(), "a=1; b=2".to_owned())]);
    }
}

#[tokio::test]
async fn what_is_between_application_and_gateway_never_reaches_the_service() {
    let gateway = start(
        1,
        &[
            PSC_H1,
            Stand {
                http: HttpVersions::H2,
                ..Stand::new("ror")
            },
        ],
        "",
    );
    for service in ["psc", "ror"] {
        let request = Request::get(format!("/{service}/x"))
            .header("x-finess", gateway.tenant(0).as_str())
            .header("proxy-authorization", "Basic c2VjcmV0")
            .header("connection", "keep-alive, x-private")
            .header("x-private", "1")
            .header("keep-alive", "timeout=5")
            .header("soapaction", "urn:x")
            .body(Bytes::new())
            .unwrap();
        let seen = gateway.send(request).await.seen();
        let names: Vec<_> = seen.headers.iter().map(|(name, _)| name.as_str()).collect();
        for stripped in [
            "x-finess",
            "proxy-authorization",
            "x-private",
            "keep-alive",
            "connection",
        ] {
            assert!(!names.contains(&stripped), "{stripped} in {names:?}");
        }
        assert!(names.contains(&"soapaction"), "{names:?}");
        let host = seen
            .headers
            .iter()
            .find(|(name, _)| name == "host")
            .map(|(_, value)| value.as_str());
        let port = gateway
            .site
            .simulators
            .iter()
            .find(|(stand, _)| stand.name == service)
            .unwrap()
            .1
            .address
            .port();
        if service == "psc" {
            assert_eq!(host, Some(format!("localhost:{port}").as_str()));
        }
    }
}

#[tokio::test]
async fn an_answer_keeps_its_fields_and_gets_none_of_the_gateways() {
    let (gateway, _upstream) = in_front_of(
        &Tls::default(),
        "",
        |mut connection: Connection, _| async move {
            connection.head().await;
            connection
            .write(
                "HTTP/1.1 418 Whatever\r\nset-cookie: a\r\nset-cookie: b\r\nserver: S\r\nconnection: x-hop\r\nx-hop: 1\r\n\
                 keep-alive: timeout=5\r\ncontent-length: 2\r\n\r\nok",
            )
            .await;
            connection.rest().await;
        },
    );
    let mut raw = gateway.raw().await;
    raw.write(gateway.get_bytes("/up/x")).await;
    let answer = raw.answer(false).await.unwrap();
    let mut fields: Vec<_> = answer
        .head
        .trim_end()
        .lines()
        .skip(1)
        .map(str::to_ascii_lowercase)
        .collect();
    fields.sort();
    assert_eq!(answer.status, 418);
    assert_eq!(
        fields,
        [
            "content-length: 2",
            "server: s",
            "set-cookie: a",
            "set-cookie: b"
        ]
    );
    assert_eq!(answer.body, b"ok");
}

#[tokio::test]
async fn answers_without_a_body_keep_their_fields_and_their_connection() {
    for (method, status, field) in [
        ("HEAD", 200, "content-length: 1234"),
        ("GET", 204, "x-y: z"),
        ("GET", 304, "etag: \"e\""),
    ] {
        let (gateway, upstream) = in_front_of(
            &Tls::default(),
            "",
            move |mut connection: Connection, _| async move {
                while connection.head().await.is_some() {
                    connection
                        .write(format!("HTTP/1.1 {status} X\r\n{field}\r\n\r\n"))
                        .await;
                }
            },
        );
        let mut raw = gateway.raw().await;
        for _ in 0..2 {
            raw.write(gateway.get_bytes("/up/x").replacen("GET", method, 1))
                .await;
            let answer = raw.answer(true).await.unwrap();
            assert_eq!(answer.status, status);
            assert!(
                answer.head.to_ascii_lowercase().contains(field),
                "{}",
                answer.head
            );
        }
        assert_eq!(upstream.accepted(), 1, "{method} {status}");
    }
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let (gateway, upstream) = in_front_of(
        &Tls::default(),
        "",
        |mut connection: Connection, _| async move {
            connection.head().await;
            let mut received = Vec::new();
            while !received.ends_with(b"\r\n\r\n") {
                received.push(connection.stream.read_u8().await.unwrap());
            }
            let received = String::from_utf8(received).unwrap();
            assert!(received.contains("x-sum: up"), "{received}");
            connection
            .write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: down\r\n\r\n")
            .await;
        },
    );
    let mut raw = gateway.raw().await;
    raw.write(gateway.post_bytes(
        "/up/x",
        "te: trailers\r\nconnection: te\r\ntrailer: x-sum\r\ntransfer-encoding: chunked",
    ))
    .await;
    raw.write("3\r\nabc\r\n0\r\nx-sum: up\r\n\r\n").await;
    let answer = raw.answer(false).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(
        String::from_utf8(answer.body).unwrap(),
        "ok[trailer] x-sum: down\r\n"
    );
    assert_eq!(upstream.accepted(), 1);
}

#[tokio::test]
async fn who_expects_100_continue_is_told_to_go_on() {
    let gateway = start(1, &[PSC_H1], "");
    let mut raw = gateway.raw().await;
    raw.write(gateway.post_bytes("/psc/x", "expect: 100-continue\r\ncontent-length: 5"))
        .await;
    assert!(raw.head().await.unwrap().starts_with("HTTP/1.1 100"));
    raw.write("12345").await;
    let answer = raw.answer(false).await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(
        String::from_utf8(answer.body)
            .unwrap()
            .contains("\"body_bytes\": 5")
    );
}

#[tokio::test]
async fn an_upgrade_becomes_a_tunnel() {
    let (gateway, _upstream) = in_front_of(
        &Tls::default(),
        "",
        |mut connection: Connection, _| async move {
            let head = connection.head().await.unwrap().to_ascii_lowercase();
            assert!(
                head.contains("connection: upgrade") && head.contains("upgrade: websocket"),
                "{head}"
            );
            connection.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello").await;
            let mut said = [0; 4];
            connection.stream.read_exact(&mut said).await.unwrap();
            connection.write(said).await;
            connection.close().await;
        },
    );
    let mut raw = gateway.raw().await;
    let asks = "\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
    raw.write(gateway.get_bytes("/up/chat").replacen("\r\n\r\n", asks, 1))
        .await;
    assert!(raw.head().await.unwrap().starts_with("HTTP/1.1 101"));
    assert_eq!(raw.exactly(5).await, b"hello");
    raw.write("ping").await;
    assert_eq!(raw.exactly(4).await, b"ping");
    assert_eq!(raw.rest().await, b"");
}

#[tokio::test]
async fn a_refused_upgrade_is_an_ordinary_answer() {
    let (gateway, _upstream) = in_front_of(
        &Tls::default(),
        "",
        |mut connection: Connection, _| async move {
            connection.keep_answering("no").await;
        },
    );
    let mut raw = gateway.raw().await;
    let asks = "\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
    raw.write(gateway.get_bytes("/up/chat").replacen("\r\n\r\n", asks, 1))
        .await;
    let answer = raw.answer(false).await.unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"no"[..]));
}

#[tokio::test]
async fn an_application_that_goes_away_takes_its_request_with_it() {
    let (gateway, upstream) = in_front_of(
        &Tls::default(),
        "",
        |mut connection: Connection, _| async move {
            connection.head().await;
            connection.rest().await;
        },
    );
    let mut raw = gateway.raw().await;
    raw.write(gateway.get_bytes("/up/slow")).await;
    eventually("the service has the request", || {
        upstream.heads().len() == 1
    })
    .await;
    drop(raw);
    eventually("the service sees it go", || upstream.open() == 0).await;
}

#[tokio::test]
async fn large_bodies_cross_unchanged_in_both_directions() {
    let gateway = start(
        1,
        &[
            PSC_H1,
            Stand {
                http: HttpVersions::H2,
                ..Stand::new("ror")
            },
        ],
        "",
    );
    let sent: Bytes = (0..20_000_000_u32)
        .map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for service in ["psc", "ror"] {
        let request = Request::post(format!("/{service}/echo"))
            .header("x-finess", gateway.tenant(0).as_str())
            .body(sent.clone())
            .unwrap();
        assert_eq!(gateway.send(request).await.0.into_body(), sent, "{service}");
    }
}

#[tokio::test]
async fn a_reader_that_pauses_makes_the_service_pause() {
    let written = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&written);
    let (gateway, _upstream) =
        in_front_of(&Tls::default(), "", move |mut connection: Connection, _| {
            let written = Arc::clone(&counted);
            async move {
                connection.head().await;
                connection.write("HTTP/1.1 200 OK\r\n\r\n").await;
                let piece = vec![0; 64 * 1024];
                while connection.stream.write_all(&piece).await.is_ok()
                    && connection.stream.flush().await.is_ok()
                {
                    written.fetch_add(piece.len() as u64, Ordering::AcqRel);
                }
            }
        });
    let mut raw = gateway.raw().await;
    raw.write(gateway.get_bytes("/up/endless")).await;
    raw.head().await.unwrap();
    // Socket buffers on the way take some megabytes; a gateway that gathers would take everything.
    let mut last = u64::MAX;
    eventually("the service is stopped", || {
        let now = written.load(Ordering::Acquire);
        std::mem::replace(&mut last, now) == now && now > 0
    })
    .await;
    assert!(
        last < 32 << 20,
        "{last} bytes went into a connection that nobody reads"
    );
}

#[tokio::test]
async fn a_service_that_pauses_makes_the_application_pause() {
    let (gateway, upstream) = in_front_of(
        &Tls::default(),
        "limits.request_body = \"10GB\"",
        |mut connection: Connection, _| async move {
            connection.head().await;
            std::future::pending::<()>().await;
        },
    );
    let sent = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&sent);
    let pieces = StreamBody::new(Endless(counted)).boxed();
    let mut client = H2c::connect(gateway.address()).await;
    let request = Request::builder()
        .method(Method::POST)
        .uri("/up/x")
        .header("x-finess", gateway.tenant(0).as_str())
        .body(pieces)
        .unwrap();
    let sending = tokio::spawn(async move { client.begin(request).await.map(|_| ()) });
    eventually("the service has the request", || {
        upstream.heads().len() == 1
    })
    .await;
    let mut last = u64::MAX;
    eventually("the application is stopped", || {
        let now = sent.load(Ordering::Acquire);
        std::mem::replace(&mut last, now) == now && now > 0
    })
    .await;
    assert!(
        last < 32 << 20,
        "{last} bytes were taken for a service that reads nothing"
    );
    sending.abort();
    let _ = within(sending).await;
}

/// Pieces of 64 KiB for as long as somebody takes them.
struct Endless(Arc<AtomicU64>);

impl futures_core::Stream for Endless {
    type Item = std::io::Result<Frame<Bytes>>;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        let piece = Bytes::from_static(&[0; 64 * 1024]);
        self.0.fetch_add(piece.len() as u64, Ordering::AcqRel);
        std::task::Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}
