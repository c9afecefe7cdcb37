//! Names: what a connection was opened for, and what its requests are for.

use super::*;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};

/// T10: what was settled for one name is not used for another (RFC 9110 section 15.5.20).
#[tokio::test]
async fn a_request_for_another_host_than_its_connection_is_misdirected() {
    let secured = secured(&[""], "");
    let config = secured.config(None);
    for (host, expected) in [
        (NAME, 200),
        ("RELAIS.test:8443", 200),
        ("localhost", 421),
        ("127.0.0.1", 421),
        ("other.test", 421),
    ] {
        let mut raw = secured.open(&config).await.unwrap();
        raw.write(secured.request(host)).await;
        let answer = raw.answer(false).await.unwrap();
        assert_eq!(answer.status, expected, "{host} {answer:?}");
        let body = String::from_utf8(answer.body).unwrap();
        assert_eq!(body.contains("\"misdirected\""), expected == 421, "{body}");
    }
    // The same on a connection that was good for a request before.
    let mut raw = secured.open(&config).await.unwrap();
    assert_eq!(secured.ask_on(&mut raw).await.unwrap().0, 200);
    raw.write(secured.request("localhost")).await;
    assert_eq!(raw.answer(false).await.unwrap().status, 421);
}

#[tokio::test]
async fn a_request_for_another_authority_than_its_http_2_connection_is_misdirected() {
    let secured = secured(&[""], "");
    let config = application_config(&secured.gateway.site.pki, BOTH, &["h2"], None);
    let stream = open(secured.address(0), &config, NAME).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let handshake =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = within(handshake).await.unwrap();
    tokio::spawn(connection);
    for (authority, expected) in [(NAME, 200), ("localhost", 421), (NAME, 200)] {
        let request = Request::get(format!("https://{authority}/dmp/x"))
            .header("x-finess", secured.gateway.tenant(0).as_str())
            .body(Full::new(Bytes::new()))
            .unwrap();
        let answer = within(sender.send_request(request)).await.unwrap();
        assert_eq!(answer.status(), expected, "{authority}");
    }
}

#[tokio::test]
async fn without_a_name_in_the_handshake_local_hosts_and_those_of_the_certificate_are_served() {
    let secured = secured(&[""], "");
    let mut config = (*secured.config(None)).clone();
    config.enable_sni = false;
    let config = Arc::new(config);
    for (host, expected) in [
        (NAME, 200),
        ("localhost", 200),
        ("127.0.0.1:8443", 200),
        ("evil.test", 403),
    ] {
        let mut raw = secured.open(&config).await.unwrap();
        raw.write(secured.request(host)).await;
        assert_eq!(raw.answer(false).await.unwrap().status, expected, "{host}");
    }
    // In clear text, the certificate's name means nothing.
    let mut raw = secured.gateway.raw().await;
    raw.write(secured.request(NAME)).await;
    assert_eq!(raw.answer(false).await.unwrap().status, 403);
}

/// T14.
#[tokio::test]
async fn the_marks_of_a_browser_are_refused_over_tls_too() {
    let secured = secured(&[""], "");
    for mark in ["origin: https://relais.test", "sec-fetch-site: cross-site"] {
        let mut raw = secured.open(&secured.config(None)).await.unwrap();
        let request = (secured.request(NAME)).replacen("\r\n", &format!("\r\n{mark}\r\n"), 1);
        raw.write(request).await;
        let answer = raw.answer(false).await.unwrap();
        assert_eq!(answer.status, 403, "{mark}");
    }
}

#[tokio::test]
async fn a_service_can_be_asked_for_by_its_own_address_through_a_listener_with_tls() {
    let secured = secured(
        &[""],
        "\n[services.roc]\nurl = \"https://roc.test\"\ntrust = \"public\"\n",
    );
    let tenant = secured.gateway.tenant(0);
    // A proxy that is reached over TLS: the name of the handshake is the proxy's, not the service's.
    for (host, code) in [
        ("roc.test", "\"upstream_unreachable\""),
        ("other.test", "\"service_unknown\""),
    ] {
        let mut raw = secured.open(&secured.config(None)).await.unwrap();
        raw.write(format!(
            "GET http://{host}/x HTTP/1.1\r\nhost: {host}\r\nx-finess: {tenant}\r\n\r\n"
        ))
        .await;
        let answer = raw.answer(false).await.unwrap();
        let body = String::from_utf8(answer.body).unwrap();
        assert!(body.contains(code), "{body}");
    }
}
