//! What the operator sees: health, metrics, what is loaded, and a line for each request.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use bytes::Bytes;
use http::Request;
use relais::services::WantedCertificate;
use relais::simulator::site::Stand;
use support::upstream::{Connection, Tls};
use support::{Answered, Client, TestGateway, eventually, in_front_of, start, start_on, whole};

const TWO: [Stand; 2] = [
    Stand::new("dmp"),
    Stand {
        certificate: WantedCertificate::None,
        ..Stand::new("annuaire")
    },
];

fn json(answer: &Answered) -> serde_json::Value {
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    serde_json::from_slice(answer.0.body()).unwrap()
}

async fn admin_with(gateway: &TestGateway, name: &str, value: &str) -> Answered {
    let request = Request::get("/api/v1/status")
        .header(name, value)
        .body(Bytes::new())
        .unwrap();
    Client::connect(gateway.admin).await.send(request).await
}

#[tokio::test]
async fn a_gateway_with_certificates_is_live_and_ready() {
    let gateway = start(1, &TWO, "");
    for (path, text) in [("/health/live", "live\n"), ("/health/ready", "ready\n")] {
        let answer = gateway.admin(path).await;
        assert_eq!(
            (answer.status(), &answer.0.body()[..]),
            (200, text.as_bytes())
        );
    }
}

#[tokio::test]
async fn a_gateway_without_certificates_is_live_and_not_ready() {
    let gateway = start(0, &TWO, "");
    assert_eq!(gateway.admin("/health/live").await.status(), 200);
    let answer = gateway.admin("/health/ready").await;
    assert_eq!(answer.status(), 503);
    assert_eq!(
        answer.0.body(),
        "not ready: no certificate can be used now\n"
    );
    let status = json(&gateway.admin("/api/v1/status").await);
    assert_eq!(status["ready"], false);
    assert_eq!(status["reason"], "no certificate can be used now");
    // A service that wants no certificate is served all the same.
    assert_eq!(
        gateway
            .get(relais::simulator::site::sample_finess(0), "/annuaire/x")
            .await
            .status(),
        200
    );
}

#[tokio::test]
async fn a_gateway_whose_services_want_no_certificate_is_ready_without() {
    let gateway = start(0, &TWO[1..], "");
    assert_eq!(gateway.admin("/health/ready").await.status(), 200);
}

#[tokio::test]
async fn the_promised_metrics_are_there_and_count() {
    let gateway = start(2, &TWO, "");
    for tenant in [0, 0, 0, 1] {
        gateway.get(gateway.tenant(tenant), "/dmp/x").await;
    }
    gateway.get(gateway.tenant(1), "/nowhere").await;
    let rendered = gateway.admin("/metrics").await;
    assert_eq!(
        rendered.header("content-type"),
        Some("text/plain; version=0.0.4")
    );
    let text = String::from_utf8(rendered.0.body().to_vec()).unwrap();
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        assert!(line.starts_with("relais_"), "{line}");
    }
    let count = |name: &str, labels: &[&str]| gateway.metric(name, labels);
    let dmp = "service=\"dmp\"";
    assert_eq!(
        count(
            "relais_requests_total",
            &[dmp, "status=\"2xx\"", "code=\"\""]
        ),
        4.0
    );
    assert_eq!(
        count(
            "relais_requests_total",
            &["status=\"4xx\"", "code=\"service_unknown\""]
        ),
        1.0
    );
    assert_eq!(count("relais_request_duration_seconds_count", &[dmp]), 4.0);
    assert_eq!(count("relais_gateway_overhead_seconds_count", &[dmp]), 4.0);
    assert_eq!(count("relais_upstream_connections", &[dmp]), 2.0);
    assert_eq!(
        count("relais_upstream_handshakes_total", &[dmp, "kind=\"full\""]),
        2.0
    );
    assert_eq!(count("relais_upstream_reuse_total", &[dmp]), 2.0);
    assert_eq!(count("relais_certificates", &["state=\"valid\""]), 2.0);
    assert_eq!(count("relais_certificates", &["state=\"expired\""]), 0.0);
    assert_eq!(count("relais_reload_total", &["outcome=\"success\""]), 1.0);
    let now = jiff::Timestamp::now().as_second() as f64;
    assert!(count("relais_reload_last_success_timestamp_seconds", &[]) > now - 60.0);
    for tenant in &gateway.site.tenants {
        let labels = [&*format!("structure=\"1{tenant}\"")];
        assert!(count("relais_certificate_expiry_timestamp_seconds", &labels) > now);
    }
}

#[tokio::test]
async fn the_interface_tells_what_is_loaded_and_what_is_not() {
    let (gateway, ()) = start_on(2, &TWO, |site, _| {
        std::fs::write(
            site.directory.join("certs/broken.pem"),
            "-----BEGIN CERTIFICATE-----\nx\n",
        )
        .unwrap();
    });
    let seen = gateway.get(gateway.tenant(0), "/dmp/x").await.seen();

    let status = json(&gateway.admin("/api/v1/status").await);
    assert_eq!(status["ready"], true);
    assert_eq!(
        (&status["tenants"], &status["services"]),
        (&2.into(), &2.into())
    );
    assert_eq!(
        status["certificates"],
        serde_json::json!({"valid": 2, "unusable": 1})
    );
    assert_eq!(status["upstream_connections"], 1);

    let tenants = json(&gateway.admin("/api/v1/tenants").await);
    assert_eq!(tenants[0]["finess"], gateway.tenant(0).as_str());
    assert_eq!(
        tenants[0]["services"],
        serde_json::json!({"dmp": seen.sha256})
    );

    let services = json(&gateway.admin("/api/v1/services").await);
    let names: Vec<_> = services
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names.len(), 2);
    assert!(names.contains(&"dmp") && names.contains(&"annuaire"));

    let certificates = json(&gateway.admin("/api/v1/certificates").await);
    let loaded = certificates["loaded"].as_array().unwrap();
    assert_eq!(loaded.len(), 2);
    assert!(
        loaded
            .iter()
            .any(|one| one["sha256"] == serde_json::json!(seen.sha256))
    );
    assert!(
        certificates["unusable"][0]["file"]
            .as_str()
            .unwrap()
            .ends_with("broken.pem")
    );

    let pools = json(&gateway.admin("/api/v1/pools").await);
    assert_eq!(pools[0]["service"], "dmp");
    assert_eq!(pools[0]["open"], 1);
    assert_eq!(
        pools[0]["certificate_sha256"],
        serde_json::json!(seen.sha256)
    );

    for path in ["status", "tenants", "services", "certificates", "pools"] {
        let answer = gateway.admin(&format!("/api/v1/{path}")).await;
        let text = String::from_utf8_lossy(answer.0.body()).into_owned();
        assert!(!text.contains("PRIVATE KEY"));
    }
}

#[tokio::test]
async fn a_web_page_learns_nothing_from_administration() {
    let gateway = start(1, &TWO, "");
    let marks = [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("host", "evil.example"),
        ("host", "169.254.169.254"),
    ];
    for (name, value) in marks {
        let answer = admin_with(&gateway, name, value).await;
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (403, "browser_refused"),
            "{name}: {value}"
        );
    }
    assert_eq!(
        admin_with(&gateway, "host", "localhost:9090")
            .await
            .status(),
        200
    );
}

#[tokio::test]
async fn each_request_leaves_one_line_that_says_who_acted_for_whom() {
    let gateway = start(1, &TWO, "");
    let seen = gateway
        .get(gateway.tenant(0), "/dmp/secret-path?ins=1234567890123")
        .await
        .seen();
    let request = Request::post("/dmp/secret-path")
        .header("x-finess", gateway.tenant(0).as_str())
        .header("authorization", "Bearer secret-token")
        .body(Bytes::from_static(b"secret-body"))
        .unwrap();
    gateway.send(request).await;
    gateway
        .get(gateway.tenant(0), "/annuaire/secret-path")
        .await;

    let log = gateway.log();
    assert_eq!(log.len(), 3);
    let profile = gateway.app.gateway.table.load().generations()[0]
        .identity()
        .profile
        .clone();
    let first = &log[0];
    assert_eq!(first["tenant"], gateway.tenant(0).as_str());
    assert_eq!(first["service"], "dmp");
    assert_eq!(
        first["certificate_serial"],
        serde_json::json!(profile.serial)
    );
    assert_eq!(first["certificate_sha256"], serde_json::json!(seen.sha256));
    assert_eq!(
        (&first["method"], &first["status"]),
        (&"GET".into(), &200.into())
    );
    assert_eq!(
        (&first["outcome"], &first["connection"]),
        (&"complete".into(), &"full".into())
    );
    assert_eq!(first["listener"], gateway.address().to_string());
    assert_eq!(first["upstream_version"], "HTTP/1.1");
    assert!(first["bytes_sent"].as_u64().unwrap() > 0);
    let second = &log[1];
    assert_eq!(
        (&second["method"], &second["bytes_received"]),
        (&"POST".into(), &11.into())
    );
    assert_eq!(second["connection"], "reused");
    // No certificate was shown, and none is claimed.
    assert!(log[2].get("certificate_sha256").is_none());
    let text = std::fs::read_to_string(gateway.path().join("access.log")).unwrap();
    for secret in ["secret", "1234567890123", "ins="] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test]
async fn a_refused_request_leaves_a_line_with_its_code_and_none_of_its_text() {
    let gateway = start(1, &TWO, "");
    gateway.get(gateway.tenant(0), "/secret-service/x").await;
    let request = Request::get("/dmp/x")
        .header("x-finess", "secret-tenant")
        .body(Bytes::new())
        .unwrap();
    gateway.send(request).await;
    let codes: Vec<_> = gateway
        .log()
        .iter()
        .map(|line| (line["code"].clone(), line["status"].clone()))
        .collect();
    let expected = [("service_unknown", 404), ("tenant_malformed", 400)];
    assert_eq!(
        codes,
        expected.map(|(code, status)| (code.into(), status.into()))
    );
    let text = std::fs::read_to_string(gateway.path().join("access.log")).unwrap();
    assert!(!text.contains("secret"), "{text}");
}

#[tokio::test]
async fn an_application_that_goes_away_is_on_record_as_aborted() {
    let (gateway, upstream) = in_front_of(
        &Tls::default(),
        "",
        |mut connection: Connection, number| async move {
            connection.head().await;
            if number == 1 {
                connection
                    .write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
                    .await;
            }
            connection.rest().await;
        },
    );
    // Before there is an answer.
    let mut raw = gateway.raw().await;
    raw.write(gateway.get_bytes("/up/x")).await;
    eventually("it is under way", || upstream.heads().len() == 1).await;
    drop(raw);
    eventually("a line", || gateway.log().len() == 1).await;
    // In the middle of it.
    let mut raw = gateway.raw().await;
    raw.write(gateway.get_bytes("/up/x")).await;
    raw.head().await.unwrap();
    drop(raw);
    eventually("a line", || gateway.log().len() == 2).await;
    let log = gateway.log();
    assert_eq!(
        (&log[0]["outcome"], log[0].get("status")),
        (&"aborted".into(), None)
    );
    assert_eq!(
        (&log[1]["outcome"], &log[1]["status"]),
        (&"aborted".into(), &200.into())
    );
    for line in &log {
        assert_eq!(line["tenant"], gateway.tenant(0).as_str());
        assert!(line["certificate_sha256"].is_string());
    }
}

#[tokio::test]
async fn an_answer_without_body_is_on_record_as_complete() {
    let (gateway, _upstream) = in_front_of(
        &Tls::default(),
        "",
        |mut connection: Connection, _| async move {
            while connection.head().await.is_some() {
                connection
                    .write("HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\n\r\n")
                    .await;
            }
        },
    );
    let mut h2c = support::H2c::connect(gateway.address()).await;
    gateway.get(gateway.tenant(0), "/up/x").await;
    let request = Request::head("/up/x")
        .header("x-finess", gateway.tenant(0).as_str())
        .body(whole(Bytes::new()))
        .unwrap();
    h2c.begin(request).await.unwrap();
    eventually("both lines", || gateway.log().len() == 2).await;
    for line in gateway.log() {
        assert_eq!(
            (&line["status"], &line["outcome"]),
            (&304.into(), &"complete".into())
        );
    }
}
