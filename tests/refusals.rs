//! What Relais refuses by itself: the code, the way out, and that nothing of it reached the service.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use bytes::Bytes;
use http::Request;
use relais::services::{Environment, HttpVersions, WantedCertificate};
use relais::simulator::pki::{self, Pki, Purpose};
use relais::simulator::site::{Stand, sample_finess};
use support::upstream::{Connection, Tls, Upstream};
use support::{Answered, H2c, TestGateway, in_front_of, start_on, within};
use tokio::io::AsyncReadExt as _;

/// A gateway in front of a service that answers everything and notes what it was asked.
fn noted(extra: &str) -> (TestGateway, Upstream) {
    in_front_of(
        &Tls::default(),
        extra,
        |mut connection: Connection, _| async move {
            while let Some(head) = connection.head().await {
                if read_body(&mut connection, &head.to_ascii_lowercase())
                    .await
                    .is_err()
                {
                    return;
                }
                connection.answer("ok").await;
            }
        },
    )
}

async fn read_body(connection: &mut Connection, head: &str) -> std::io::Result<()> {
    if head.contains("transfer-encoding: chunked") {
        let mut body = Vec::new();
        while !body.ends_with(b"0\r\n\r\n") {
            body.push(connection.stream.read_u8().await?);
        }
    }
    if let Some((_, rest)) = head.split_once("content-length: ") {
        let length = rest
            .lines()
            .next()
            .and_then(|length| length.parse().ok())
            .unwrap_or_default();
        connection.stream.read_exact(&mut vec![0; length]).await?;
    }
    Ok(())
}

fn is_refused(answer: &Answered, status: u16, code: &str) {
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (status, code),
        "{answer:?}"
    );
    let problem: serde_json::Value = serde_json::from_slice(answer.0.body()).unwrap();
    assert!(
        problem["hint"].as_str().is_some_and(|hint| hint.len() > 10),
        "no way out in {problem}"
    );
}

fn request(path: &str, fields: &[(&str, &str)]) -> Request<Bytes> {
    let mut request = Request::get(path);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Bytes::new()).unwrap()
}

#[tokio::test]
async fn every_wrong_way_to_name_a_tenant_or_service_has_its_code() {
    let (gateway, upstream) = noted("");
    let mine = gateway.tenant(0);
    let other = sample_finess(7);
    let (mine, other) = (mine.as_str(), other.as_str());
    let in_path = format!("/@{mine}/up/x");
    let cases: &[(&str, &[(&str, &str)], u16, &str)] = &[
        ("/up/x", &[], 400, "tenant_missing"),
        ("/up/x", &[("x-finess", "")], 400, "tenant_malformed"),
        (
            "/up/x",
            &[("x-finess", "0b0000006")],
            400,
            "tenant_malformed",
        ),
        (
            "/up/x",
            &[("x-finess", "0B00000060")],
            400,
            "tenant_malformed",
        ),
        (
            "/up/x",
            &[("x-finess", "0B0000006, 0B0000014")],
            400,
            "tenant_malformed",
        ),
        ("/@xyz/up/x", &[], 400, "tenant_malformed"),
        ("/up/x", &[("x_finess", mine)], 400, "tenant_malformed"),
        (
            "/up/x",
            &[("x-finess", mine), ("x-finess", mine)],
            400,
            "tenant_ambiguous",
        ),
        (&in_path, &[("x-finess", other)], 400, "tenant_ambiguous"),
        ("/up/x", &[("x-finess", other)], 404, "tenant_unknown"),
        ("/nothing/x", &[("x-finess", mine)], 404, "service_unknown"),
        ("/", &[("x-finess", mine)], 404, "service_unknown"),
    ];
    for (path, fields, status, code) in cases {
        is_refused(&gateway.send(request(path, fields)).await, *status, code);
    }
    assert_eq!(upstream.accepted(), 0);
}

#[tokio::test]
async fn what_a_web_page_may_have_sent_is_refused() {
    let (gateway, upstream) = noted("");
    let mine = gateway.tenant(0);
    let marks: &[&[(&str, &str)]] = &[
        &[("origin", "http://localhost:8080")],
        &[("origin", "null")],
        &[("sec-fetch-site", "cross-site")],
        &[("host", "rebound.example:8080")],
        &[("host", "0.0.0.0:8080")],
    ];
    for mark in marks {
        let mut fields = vec![("x-finess", mine.as_str())];
        fields.extend(*mark);
        is_refused(
            &gateway.send(request("/up/x", &fields)).await,
            403,
            "browser_refused",
        );
    }
    let preflight = Request::options("/up/x")
        .header("origin", "https://evil.example")
        .header("access-control-request-private-network", "true")
        .body(Bytes::new())
        .unwrap();
    let answer = gateway.send(preflight).await;
    is_refused(&answer, 403, "browser_refused");
    assert!(
        answer
            .0
            .headers()
            .keys()
            .all(|name| !name.as_str().starts_with("access-control"))
    );
    assert_eq!(upstream.accepted(), 0);
}

#[tokio::test]
async fn a_host_that_the_listener_allows_is_served() {
    let (gateway, upstream) = start_on(1, &[Stand::new("dmp")], |site, text| {
        *text = text.replacen(
            "[[listeners]]\n",
            "[[listeners]]\nallowed_hosts = [\"relais.internal\"]\n",
            1,
        );
        let upstream = Upstream::start(
            &site.pki,
            &Tls::default(),
            |mut connection: Connection, _| async move {
                connection.keep_answering("ok").await;
            },
        );
        text.push_str(&upstream.service("up", ""));
        upstream
    });
    let fields = [("x-finess", gateway.tenant(0)), ("host", gateway.tenant(0))];
    let tenant = fields[0].1;
    let named = request(
        "/up/x",
        &[
            ("x-finess", tenant.as_str()),
            ("host", "relais.internal:8080"),
        ],
    );
    assert_eq!(gateway.send(named).await.status(), 200);
    drop(upstream);
}

#[tokio::test]
async fn certificates_that_a_rule_keeps_back_are_never_shown() {
    let plain = Stand {
        http: HttpVersions::H1,
        ..Stand::new("psc")
    };
    let insi = Stand {
        certificate: WantedCertificate::InsiAuto,
        http: HttpVersions::H1,
        ..Stand::new("insi-auto")
    };
    let (gateway, ()) = start_on(1, &[plain, insi], |site, _| {
        let day = 24 * 3600;
        let now = jiff::Timestamp::now().as_second();
        let production = Pki::new(Environment::Production);
        let put =
            |number: usize, pki: &Pki, purpose: Purpose, cn: &str, dates: Option<(i64, i64)>| {
                let ou = format!("1{}", sample_finess(number));
                let issued = pki.issue(&pki::Request {
                    purpose,
                    not_before: dates.map(|dates| dates.0),
                    not_after: dates.map(|dates| dates.1),
                    ..pki::Request::new(&ou, cn)
                });
                let file = site.directory.join(format!("certs/{number}.pem"));
                pki::write_private(&file, issued.pem()).unwrap();
            };
        put(11, &site.pki, Purpose::Sign, "Signature", None);
        put(12, &production, Purpose::AuthCli, "Production", None);
        put(13, &site.pki, Purpose::AuthCli, "INSI-AUTO", None);
        put(
            14,
            &site.pki,
            Purpose::AuthCli,
            "Ended",
            Some((now - 10 * day, now - day)),
        );
        put(
            15,
            &site.pki,
            Purpose::AuthCli,
            "Early",
            Some((now + day, now + 10 * day)),
        );
        put(16, &site.pki, Purpose::AuthCli, "insi-auto", None);
    });
    let cases = [
        (11, "psc", 403, "certificate_refused_by_rule"),
        (12, "psc", 403, "certificate_refused_by_rule"),
        (13, "psc", 503, "certificate_missing"),
        (14, "psc", 503, "certificate_expired"),
        (15, "psc", 503, "certificate_missing"),
        (16, "insi-auto", 503, "certificate_missing"),
    ];
    for (number, service, status, code) in cases {
        let answer = gateway
            .get(sample_finess(number), &format!("/{service}/x"))
            .await;
        is_refused(&answer, status, code);
    }
    assert_eq!(
        gateway
            .get(sample_finess(13), "/insi-auto/x")
            .await
            .seen()
            .cn
            .as_deref(),
        Some("INSI-AUTO")
    );
    for (_, simulator) in &gateway.site.simulators[..1] {
        assert_eq!(simulator.handshakes(), (0, 0));
    }
}

#[tokio::test]
async fn forward_proxy_forms_are_told_how_to_ask_instead() {
    let (gateway, upstream) = noted("");
    let mine = gateway.tenant(0);
    for line in [
        "GET http://localhost/up/x HTTP/1.1",
        "CONNECT localhost:443 HTTP/1.1",
    ] {
        let mut raw = gateway.raw().await;
        raw.write(format!(
            "{line}\r\nhost: localhost\r\nx-finess: {mine}\r\n\r\n"
        ))
        .await;
        let answer = raw.answer(false).await.unwrap();
        let body = String::from_utf8(answer.body).unwrap();
        assert_eq!(answer.status, 400, "{body}");
        assert!(
            body.contains("request_malformed") && body.contains("X-Finess"),
            "{body}"
        );
    }
    assert_eq!(upstream.accepted(), 0);
}

#[tokio::test]
async fn a_head_over_the_limit_is_refused_with_the_limit() {
    let (gateway, upstream) = noted("");
    let mine = gateway.tenant(0);
    let long = "x".repeat(64 * 1024);
    let fields = [("x-finess", mine.as_str()), ("x-long", long.as_str())];
    is_refused(
        &gateway.send(request("/up/x", &fields)).await,
        431,
        "request_too_large",
    );
    let mut client = H2c::connect(gateway.address()).await;
    is_refused(
        &client.send(request("/up/x", &fields)).await,
        431,
        "request_too_large",
    );

    // Beyond what the gateway reads at all, HTTP itself says so.
    let mut raw = gateway.raw().await;
    raw.write(format!(
        "GET /up/x HTTP/1.1\r\nhost: localhost\r\nx-long: {}",
        "x".repeat(160 * 1024)
    ))
    .await;
    raw.write("x".repeat(8 * 1024)).await;
    assert_eq!(raw.answer(false).await.unwrap().status, 431);
    assert_eq!(upstream.accepted(), 0);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_announced_or_not() {
    let (gateway, upstream) = noted("limits.request_body = 1000");
    let mut raw = gateway.raw().await;
    raw.write(gateway.post_bytes("/up/x", "content-length: 1001"))
        .await;
    let answer = raw.answer(false).await.unwrap();
    assert_eq!(answer.status, 413);
    assert_eq!(upstream.accepted(), 0);

    let mut raw = gateway.raw().await;
    raw.write(gateway.post_bytes("/up/x", "transfer-encoding: chunked"))
        .await;
    let piece = format!("190\r\n{}\r\n", "x".repeat(0x190));
    raw.write(piece.repeat(3)).await;
    let answer = raw.answer(false).await.unwrap();
    assert_eq!(answer.status, 413, "{}", answer.head);
    assert!(
        String::from_utf8(answer.body)
            .unwrap()
            .contains("request_too_large")
    );
}

#[tokio::test]
async fn what_follows_the_announced_length_is_no_part_of_the_request() {
    let (gateway, upstream) = noted("");
    let mut raw = gateway.raw().await;
    raw.write(gateway.post_bytes("/up/x", "content-length: 5"))
        .await;
    raw.write("12345SURPLUS\r\n\r\n").await;
    assert_eq!(raw.answer(false).await.unwrap().body, b"ok");
    // The surplus is no request: the connection ends, with or without a bare 400.
    let rest = raw.rest().await;
    assert!(
        rest.is_empty() || rest.starts_with(b"HTTP/1.1 400"),
        "{rest:?}"
    );
    assert_eq!(upstream.heads().len(), 1);
}

#[tokio::test]
async fn no_ambiguous_message_becomes_a_request_that_nobody_plainly_sent() {
    let (gateway, upstream) = noted("");
    let mine = gateway.tenant(0);
    let head = |framing: &str| {
        format!("POST /up/x HTTP/1.1\r\nhost: localhost\r\nx-finess: {mine}\r\n{framing}")
    };
    let hidden = "GET /up/hidden HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let payloads = [
        head(&format!(
            "content-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
        )),
        head(&format!(
            "transfer-encoding: chunked\r\ncontent-length: 6\r\n\r\n0\r\n\r\n{hidden}"
        )),
        head(&format!(
            "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}"
        )),
        head(&format!(
            "transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}"
        )),
        head(&format!(
            "transfer-encoding : chunked\r\n\r\n0\r\n\r\n{hidden}"
        )),
        head(&format!(
            "content-length: 0\r\ncontent-length: 60\r\n\r\n{hidden}"
        )),
        head(&format!("content-length: +0\r\n\r\n{hidden}")),
        head(&format!("content-length: 0x0\r\n\r\n{hidden}")),
        head(&format!("content-length: 0, 60\r\n\r\n{hidden}")),
        head(" folded: x\r\ncontent-length: 0\r\n\r\n"),
        head("x-a: b\rx-c: d\r\ncontent-length: 0\r\n\r\n"),
        head("x-a: \0\r\ncontent-length: 0\r\n\r\n"),
        head("transfer-encoding: chunked\r\n\r\n1;\nx\r\n0\r\n\r\n"),
        head("transfer-encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nx\r\n0\r\n\r\n"),
        format!(
            "POST /up/x HTTP/1.0\r\nhost: localhost\r\nx-finess: {mine}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
        ),
        format!("GET /up/x\r\nx-finess: {mine}\r\n\r\n"),
        format!("GET /up/x HTTP/1.1\r\nhost: localhost\r\nhost: other\r\nx-finess: {mine}\r\n\r\n"),
        "\u{1}\u{2}\u{3}\r\n\r\n".to_owned(),
    ];
    for payload in payloads {
        let mut raw = gateway.raw().await;
        raw.write(&payload).await;
        let answer = within(raw.answer(false)).await;
        let status = answer.as_ref().map(|answer| answer.status);
        assert!(
            status.is_none_or(|status| status == 200 || (400..=505).contains(&status)),
            "{payload:?}: {status:?}"
        );
    }
    // Whatever was let through was the plain POST, framed anew.
    for head in upstream.heads() {
        assert!(head.starts_with("POST /x HTTP/1.1\r\n"), "{head}");
        let lower = head.to_ascii_lowercase();
        let framings =
            lower.matches("content-length:").count() + lower.matches("transfer-encoding:").count();
        assert!(framings <= 1, "{head}");
    }
}
