//! Handshakes: what is agreed on, and what becomes of those that go wrong.

use std::time::{Duration, Instant};

use super::*;

#[tokio::test]
async fn http_2_is_agreed_on_where_it_is_offered_and_http_1_otherwise() {
    let secured = secured(&[""], "");
    let cases: [(&[&str], Option<&[u8]>); 4] = [
        (&["h2", "http/1.1"], Some(b"h2")),
        (&["http/1.1", "h2"], Some(b"h2")),
        (&["http/1.1"], Some(b"http/1.1")),
        (&[], None),
    ];
    for versions in [ONLY_12, ONLY_13] {
        for (offered, agreed) in cases {
            let pki = &secured.gateway.site.pki;
            let config = application_config(pki, versions, offered, None);
            let stream = open(secured.address(0), &config, NAME).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), agreed, "{offered:?}");
            if agreed != Some(b"h2") {
                let answer = secured.ask_on(&mut Raw::over(stream)).await;
                assert_eq!(answer.unwrap().0, 200, "{offered:?}");
            }
        }
    }
    let pki = &secured.gateway.site.pki;
    let other = application_config(pki, BOTH, &["imap"], None);
    assert!(open(secured.address(0), &other, NAME).await.is_err());
}

#[tokio::test]
async fn handshakes_that_do_not_go_on_hold_up_nobody_and_are_given_up_in_time() {
    let secured = secured(&[""], "\n[limits]\nhead_timeout = \"2s\"\n");
    let begun = Instant::now();
    let mut silent = Vec::new();
    for opening in [&b""[..], b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01"] {
        for _ in 0..20 {
            let mut raw = Raw::connect(secured.address(0)).await;
            raw.write(opening).await;
            silent.push(raw);
        }
    }
    for _ in 0..5 {
        assert_eq!(secured.ask(None).await.unwrap().0, 200);
    }
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "they were waited for"
    );
    for mut raw in silent {
        raw.rest().await;
    }
    assert!(begun.elapsed() >= Duration::from_secs(2), "cut too early");
    // What they held is free again.
    eventually("their room is free", || {
        secured.gateway.metric("relais_inbound_connections", &[]) == 0.0
    })
    .await;
}

#[tokio::test]
async fn a_connection_counts_from_before_its_handshake() {
    let secured = secured(
        &[""],
        "\n[limits]\ninbound_connections = 2\nhead_timeout = \"2s\"\n",
    );
    let begun = Instant::now();
    let _silent = [
        Raw::connect(secured.address(0)).await,
        Raw::connect(secured.address(0)).await,
    ];
    eventually("both are accepted", || {
        secured.gateway.metric("relais_inbound_connections", &[]) == 2.0
    })
    .await;
    // Its turn comes when one of them is given up.
    assert_eq!(secured.ask(None).await.unwrap().0, 200);
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn what_is_not_tls_is_refused_and_hurts_nobody() {
    let secured = secured(&[""], "");
    let large = vec![b'x'; 100_000];
    for bytes in [
        secured.request("localhost").as_bytes(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\xff\xff\x01\xff\xff\xff",
        b"\x00",
        &large,
    ] {
        use tokio::io::AsyncWriteExt as _;
        let mut tcp = within(TcpStream::connect(secured.address(0)))
            .await
            .unwrap();
        let _ = within(tcp.write_all(bytes)).await;
        let _ = within(tcp.shutdown()).await;
        let mut answer = Vec::new();
        let _ = within(tcp.read_to_end(&mut answer)).await;
        assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
    }
    assert_eq!(secured.ask(None).await.unwrap().0, 200);
}

#[tokio::test]
async fn tls_to_a_listener_in_clear_text_is_refused_and_hurts_nobody() {
    let secured = secured(&[""], "");
    let config = secured.config(None);
    assert!(
        open(secured.gateway.address(), &config, NAME)
            .await
            .is_err()
    );
    let answer = secured
        .gateway
        .get(secured.gateway.tenant(0), "/dmp/x")
        .await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_stop_lets_requests_finish_and_waits_for_no_handshake() {
    let secured = secured(&[""], "\n[shutdown]\ngrace = \"10s\"\n");
    let _silent = Raw::connect(secured.address(0)).await;
    let mut raw = secured.open(&secured.config(None)).await.unwrap();
    assert_eq!(secured.ask_on(&mut raw).await.unwrap().0, 200);
    let begun = Instant::now();
    secured.gateway.begin_stop();
    let address = secured.address(0);
    tokio::task::spawn_blocking(move || secured.gateway.stop())
        .await
        .unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
    assert!(TcpStream::connect(address).await.is_err());
}
