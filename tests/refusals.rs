//! What is refused: with which code and status, and that nothing of it reaches a service.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use std::path::Path;

use bytes::Bytes;
use http::Request;
use relais::identity::finess::Finess;
use relais::services::{Environment, WantedCertificate};
use relais::simulator::pki::{self, Pki, Purpose, Request as Order};
use relais::simulator::site::{Stand, sample_finess};
use support::{Answered, H2c, TestGateway, start, start_on};
use tokio::io::AsyncWriteExt;

const SERVICES: [Stand; 2] = [
    Stand::new("dmp"),
    Stand {
        certificate: WantedCertificate::InsiAuto,
        ..Stand::new("insi-auto")
    },
];

type Fields<'a> = &'a [(&'a str, &'a str)];

/// A GET with these fields, over HTTP/1.1 and over h2c: both must be refused alike.
async fn refused(gateway: &TestGateway, path: &str, fields: Fields<'_>) -> (u16, String) {
    let request = || {
        let mut request = Request::get(path);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(Bytes::new()).unwrap()
    };
    let over_h1 = gateway.send(request()).await;
    let over_h2 = H2c::connect(gateway.address()).await.send(request()).await;
    assert_eq!(over_h1.0.body(), over_h2.0.body());
    (over_h1.status(), over_h1.code())
}

fn nothing_reached_a_service(gateway: &TestGateway) {
    for (stand, simulator) in &gateway.site.simulators {
        assert_eq!(simulator.handshakes(), (0, 0), "{}", stand.name);
    }
    assert_eq!(gateway.metric("relais_upstream_connections", &[]), 0.0);
}

fn hint(answer: &Answered) -> String {
    let problem: serde_json::Value = serde_json::from_slice(answer.0.body()).unwrap();
    problem["hint"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_request_must_name_one_tenant_that_is_known() {
    let gateway = start(2, &SERVICES, "");
    let (one, other) = (gateway.tenant(0), gateway.tenant(1));
    let (one, other) = (one.as_str(), other.as_str());
    let both = format!("{one}, {other}");
    let spaced = format!("{} {}", &one[..4], &one[4..]);
    let unknown = sample_finess(999);
    let path = |tenant: &str| format!("/@{tenant}/dmp/x");
    let (in_path, malformed_path) = (path(one), path("06078500"));
    let cases: &[(&str, Fields<'_>, u16, &str)] = &[
        ("/dmp/x", &[], 400, "tenant_missing"),
        (
            "/dmp/x",
            &[("x-finess", unknown.as_str())],
            404,
            "tenant_unknown",
        ),
        ("/dmp/x", &[("x-finess", "")], 400, "tenant_malformed"),
        (
            "/dmp/x",
            &[("x-finess", "06078500")],
            400,
            "tenant_malformed",
        ),
        ("/dmp/x", &[("x-finess", &both)], 400, "tenant_malformed"),
        ("/dmp/x", &[("x-finess", &spaced)], 400, "tenant_malformed"),
        ("/dmp/x", &[("x_finess", one)], 400, "tenant_malformed"),
        (
            "/dmp/x",
            &[("x-finess", one), ("x_finess", other)],
            400,
            "tenant_malformed",
        ),
        (
            "/dmp/x",
            &[("x-finess", one), ("x-finess", other)],
            400,
            "tenant_ambiguous",
        ),
        (
            "/dmp/x",
            &[("x-finess", one), ("x-finess", one)],
            400,
            "tenant_ambiguous",
        ),
        (&in_path, &[("x-finess", other)], 400, "tenant_ambiguous"),
        (&malformed_path, &[], 400, "tenant_malformed"),
        ("/@/dmp", &[], 400, "tenant_malformed"),
        // Named away as a field of the connection, it is still what the request says.
        (
            "/dmp/x",
            &[("x-finess", "0"), ("x-connection", "x-finess")],
            400,
            "tenant_malformed",
        ),
    ];
    for (path, fields, status, code) in cases {
        let answer = refused(&gateway, path, fields).await;
        assert_eq!(answer, (*status, (*code).to_owned()), "{path} {fields:?}");
    }
    nothing_reached_a_service(&gateway);
}

#[tokio::test]
async fn a_request_must_name_a_service_that_is_configured() {
    let gateway = start(1, &SERVICES, "");
    let tenant = [("x-finess", gateway.tenant(0))];
    let tenant = [(tenant[0].0, tenant[0].1.as_str())];
    for path in [
        "/", "/?dmp", "/DMP/x", "/psc/x", "//dmp/x", "/dmp%2fx", "/./dmp",
    ] {
        let answer = refused(&gateway, path, &tenant).await;
        assert_eq!(answer, (404, "service_unknown".to_owned()), "{path}");
    }
    let answer = gateway.get(gateway.tenant(0), "/psc").await;
    let text = String::from_utf8_lossy(answer.0.body()).into_owned();
    assert!(
        text.contains("dmp") && text.contains("insi-auto"),
        "it says what there is: {text}"
    );
    nothing_reached_a_service(&gateway);
}

/// Puts a certificate for the `number`th structure into a folder.
fn issue(folder: &Path, pki: &Pki, number: usize, order: Order<'_>) -> Finess {
    let finess = sample_finess(number);
    let structure = format!("1{finess}");
    let issued = pki.issue(&Order {
        structure: &structure,
        ..order
    });
    pki::write_private(&folder.join(format!("{number}.pem")), issued.pem()).unwrap();
    finess
}

#[tokio::test]
async fn a_certificate_that_may_not_be_shown_is_not() {
    let (gateway, cases) = start_on(0, &SERVICES, |site, _| {
        let folder = site.directory.join("certs");
        let now = jiff::Timestamp::now().as_second();
        let plain = || Order::new("", "DUI");
        let insi = || Order::new("", "INSI-AUTO");
        let of_production = Pki::new(Environment::Production);
        let put = |number, pki: &Pki, order| issue(&folder, pki, number, order);
        [
            (
                "expired",
                put(
                    1,
                    &site.pki,
                    Order {
                        not_before: Some(now - 9000),
                        not_after: Some(now - 60),
                        ..plain()
                    },
                ),
                "dmp",
                503,
                "certificate_expired",
            ),
            (
                "not begun",
                put(
                    2,
                    &site.pki,
                    Order {
                        not_before: Some(now + 9000),
                        ..plain()
                    },
                ),
                "dmp",
                503,
                "certificate_missing",
            ),
            (
                "of the other environment",
                put(3, &of_production, plain()),
                "dmp",
                403,
                "certificate_refused_by_rule",
            ),
            (
                "for signatures",
                put(
                    4,
                    &site.pki,
                    Order {
                        purpose: Purpose::Sign,
                        ..plain()
                    },
                ),
                "dmp",
                403,
                "certificate_refused_by_rule",
            ),
            (
                "for encryption",
                put(
                    5,
                    &site.pki,
                    Order {
                        purpose: Purpose::Conf,
                        ..plain()
                    },
                ),
                "dmp",
                403,
                "certificate_refused_by_rule",
            ),
            (
                "INSi's for DMP",
                put(6, &site.pki, insi()),
                "dmp",
                503,
                "certificate_missing",
            ),
            (
                "DMP's for INSi",
                put(7, &site.pki, plain()),
                "insi-auto",
                503,
                "certificate_missing",
            ),
            (
                "INSi's manual one for the automatic service",
                put(8, &site.pki, Order::new("", "INSI-MANU")),
                "insi-auto",
                503,
                "certificate_missing",
            ),
        ]
    });
    for (what, tenant, service, status, code) in cases {
        let fields = [("x-finess", tenant.as_str())];
        let answer = refused(&gateway, &format!("/{service}/x"), &fields).await;
        assert_eq!(answer, (status, code.to_owned()), "{what}");
        let answer = gateway.get(tenant, &format!("/{service}/x")).await;
        assert!(!hint(&answer).is_empty(), "{what}: {answer:?}");
    }
    nothing_reached_a_service(&gateway);
}

#[tokio::test]
async fn two_certificates_that_nothing_orders_are_not_chosen_from() {
    let (gateway, tenant) = start_on(0, &SERVICES, |site, _| {
        let now = jiff::Timestamp::now().as_second();
        let twin = |common_name| Order {
            not_before: Some(now - 60),
            ..Order::new("", common_name)
        };
        let folder = site.directory.join("certs");
        issue(&folder, &site.pki, 1, twin("DUI"));
        std::fs::rename(folder.join("1.pem"), folder.join("first.pem")).unwrap();
        issue(&folder, &site.pki, 1, twin("LGO"))
    });
    let fields = [("x-finess", tenant.as_str())];
    let answer = refused(&gateway, "/dmp/x", &fields).await;
    assert_eq!(answer, (403, "certificate_refused_by_rule".to_owned()));
    nothing_reached_a_service(&gateway);
}

#[tokio::test]
async fn a_web_page_is_refused_by_its_marks() {
    let gateway = start(1, &SERVICES, "");
    let tenant = gateway.tenant(0);
    let marks = [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("origin", "http://localhost:8080"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("host", "evil.example"),
        ("host", "127.0.0.1.evil.example"),
        ("host", "0.0.0.0:8080"),
    ];
    for (name, value) in marks {
        let request = Request::post("/dmp/x")
            .header("x-finess", tenant.as_str())
            .header(name, value)
            .body(Bytes::from_static(b"x"))
            .unwrap();
        let answer = gateway.send(request).await;
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (403, "browser_refused"),
            "{name}: {value}"
        );
        // No field invites the page to try again (CORS, private network access).
        assert!(
            answer
                .0
                .headers()
                .keys()
                .all(|name| !name.as_str().starts_with("access-control"))
        );
    }
    let preflight = Request::options("/dmp/x")
        .header("origin", "https://evil.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-private-network", "true")
        .body(Bytes::new())
        .unwrap();
    assert_eq!(gateway.send(preflight).await.status(), 403);
    nothing_reached_a_service(&gateway);
}

#[tokio::test]
async fn hosts_that_the_listener_allows_are_served() {
    let gateway = support::start_with(1, &SERVICES, |text| {
        *text = text.replacen(
            "127.0.0.1:0\"",
            "127.0.0.1:0\"\nallowed_hosts = [\"gateway.internal\"]",
            1,
        );
    });
    let request = |host| {
        Request::get("/dmp/x")
            .header("x-finess", gateway.tenant(0).as_str())
            .header("host", host)
            .body(Bytes::new())
            .unwrap()
    };
    assert_eq!(
        gateway
            .send(request("Gateway.Internal:8080"))
            .await
            .status(),
        200
    );
    assert_eq!(gateway.send(request("other.internal")).await.status(), 403);
}

#[tokio::test]
async fn a_tunnel_or_a_foreign_url_is_refused_with_the_way_out() {
    let gateway = start(1, &SERVICES, "");
    let tenant = gateway.tenant(0);
    let whole = |authority: &str| format!("GET http://{authority}/x HTTP/1.1\r\nHost: {authority}");
    let mut lines = vec![
        (
            "GET http://127.0.0.1:9/dmp/x HTTP/1.1\r\nHost: lps2.dmp.gouv.fr".to_owned(),
            400,
            "Host",
        ),
        (
            "GET https://lps2.dmp.gouv.fr/x HTTP/1.1\r\nHost: lps2.dmp.gouv.fr".to_owned(),
            400,
            "http://",
        ),
        (
            "CONNECT lps2.dmp.gouv.fr:443 HTTP/1.1\r\nHost: lps2.dmp.gouv.fr:443".to_owned(),
            400,
            "CONNECT",
        ),
        (
            "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: localhost".to_owned(),
            400,
            "CONNECT",
        ),
        (
            "TRACE /dmp/x HTTP/1.1\r\nHost: localhost".to_owned(),
            400,
            "TRACE",
        ),
    ];
    // Forms of an address that a filter may read otherwise than a resolver (T13).
    for authority in [
        "lps2.dmp.gouv.fr",
        "169.254.169.254",
        "0.0.0.0",
        "2130706433",
        "0177.0.0.1",
        "[::ffff:127.0.0.1]",
        "[fe80::1]",
        "metadata.google.internal",
    ] {
        lines.push((whole(authority), 404, "no service is declared"));
    }
    for (line, status, word) in lines {
        let mut raw = gateway.raw().await;
        raw.write(format!("{line}\r\nX-Finess: {tenant}\r\n\r\n"))
            .await;
        let answer = raw.answer(false).await.unwrap();
        let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(answer.status, status, "{line}: {problem}");
        let text = problem.to_string();
        assert!(text.contains(word), "{line}: {text}");
    }
    nothing_reached_a_service(&gateway);
}

#[tokio::test]
async fn a_head_with_too_many_fields_is_refused_with_431_whatever_the_version() {
    let gateway = start(1, &SERVICES, "");
    let mut h2c = H2c::connect(gateway.address()).await;
    for (more, status) in [(80, 200), (100, 431)] {
        let mut request = Request::get("/dmp/x").header("x-finess", gateway.tenant(0).as_str());
        for index in 0..more {
            request = request.header(format!("x-field-{index}"), "x");
        }
        let request = request.body(Bytes::new()).unwrap();
        assert_eq!(h2c.send(request).await.status(), status, "{more} more");

        let fields: String = (0..more)
            .map(|index| format!("\r\nx-field-{index}: x"))
            .collect();
        let text = gateway.get_bytes("/dmp/x");
        let text = text.replacen("\r\n\r\n", &format!("{fields}\r\n\r\n"), 1);
        let mut raw = gateway.raw().await;
        raw.write(text).await;
        let answer = raw.head().await.unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_with_431() {
    let gateway = start(1, &SERVICES, "");
    let large = "x".repeat(64 << 10);
    let answer = refused(
        &gateway,
        "/dmp/x",
        &[
            ("x-finess", gateway.tenant(0).as_str()),
            ("x-large", &large),
        ],
    )
    .await;
    assert_eq!(answer, (431, "request_too_large".to_owned()));

    // Beyond what is kept in memory for it, there is no telling what the rest would have said.
    let mut raw = gateway.raw().await;
    let text = gateway.get_bytes("/dmp/x");
    let text = text.replacen(
        "\r\n\r\n",
        &format!("\r\nx-huge: {}\r\n\r\n", "x".repeat(300 << 10)),
        1,
    );
    let _ = raw.stream.write_all(text.as_bytes()).await;
    let answer = raw.head().await.unwrap_or_default();
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431 "),
        "{answer}"
    );
    nothing_reached_a_service(&gateway);
}

#[tokio::test]
async fn a_refused_body_that_has_come_costs_its_application_no_connection() {
    let gateway = start(1, &SERVICES, "");
    let mut raw = gateway.raw().await;
    for framing in ["transfer-encoding: chunked", "content-length: 5"] {
        let body = match framing.starts_with("transfer") {
            true => "5\r\nwords\r\n0\r\n\r\n",
            false => "words",
        };
        for _ in 0..3 {
            raw.write(gateway.post_bytes("/nothing/x", framing) + body)
                .await;
            let answer = raw.answer(false).await.unwrap();
            assert_eq!(answer.status, 404, "{framing}: {}", answer.head);
        }
    }
    raw.write(gateway.get_bytes("/dmp/x")).await;
    assert_eq!(raw.answer(false).await.unwrap().status, 200);
}
