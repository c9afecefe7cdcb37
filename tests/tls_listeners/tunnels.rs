//! Tunnels in which Relais takes the service's place (`[listeners.intercept]`).

use std::process::Command;

use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use relais::gateway::Entrance;
use relais::gateway::caller::{TokenHash, new_token};
use relais::inbound::peer::Tunnel;

use super::*;

/// A gateway that takes tunnels, and how applications that believe its authority make handshakes in them.
struct Intercepting {
    gateway: TestGateway,
    /// The authority of the service, as the application writes it.
    service: String,
    authority: Vec<u8>,
}

fn intercepting(extra: &str) -> Intercepting {
    let (gateway, (service, authority)) = start_on(1, &[Stand::new("dmp")], |site, text| {
        let out = Command::new(env!("CARGO_BIN_EXE_relais"))
            .args(["ca", "--out"])
            .arg(&site.directory)
            .arg("--config")
            .arg(&site.configuration)
            .output()
            .unwrap();
        assert!(out.status.success(), "{out:?}");
        let keys = "[listeners.intercept]\nauthority = \"relais-ca.pem\"\nkey = \"relais-ca.key\"\n[identities]";
        *text = text.replacen("[identities]", keys, 1) + extra;
        let url = text
            .lines()
            .find(|line| line.starts_with("url = "))
            .unwrap();
        let service = url
            .trim_start_matches("url = \"https://")
            .trim_end_matches('"');
        let service = service.split('/').next().unwrap().to_owned();
        let authority = fs::read(site.directory.join("relais-ca.pem")).unwrap();
        (service, authority)
    });
    Intercepting {
        gateway,
        service,
        authority,
    }
}

impl Intercepting {
    fn config(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        use rustls_pki_types::pem::PemObject as _;
        let mut roots = RootCertStore::empty();
        let root = rustls_pki_types::CertificateDer::from_pem_slice(&self.authority).unwrap();
        roots.add(root).unwrap();
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(BOTH)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// Asks for a tunnel with further lines; its answer.
    async fn connect(&self, to: &str, lines: &str) -> (Raw, u16) {
        let mut raw = self.gateway.raw().await;
        raw.write(format!(
            "CONNECT {to} HTTP/1.1\r\nhost: {to}\r\n{lines}\r\n"
        ))
        .await;
        let head = raw.head().await.unwrap();
        (raw, head[9..12].parse().unwrap())
    }

    async fn tunnel(&self, lines: &str, alpn: &[&str]) -> TlsStream<TcpStream> {
        self.tunnel_to(&self.service, lines, alpn).await
    }

    async fn tunnel_to(&self, to: &str, lines: &str, alpn: &[&str]) -> TlsStream<TcpStream> {
        let (raw, status) = self.connect(to, lines).await;
        assert_eq!(status, 200);
        let name = to.split(':').next().unwrap().to_owned();
        let name = ServerName::try_from(name).unwrap();
        within(TlsConnector::from(self.config(alpn)).connect(name, raw.stream))
            .await
            .unwrap()
    }

    fn for_tenant(&self) -> String {
        format!("x-finess: {}\r\n", self.gateway.tenant(0))
    }

    fn get(&self, host: &str) -> String {
        format!("GET /x?y HTTP/1.1\r\nhost: {host}\r\n\r\n")
    }
}

#[tokio::test]
async fn a_request_in_a_tunnel_reaches_the_service_under_the_tenants_certificate() {
    let one = intercepting("");
    let mut raw = Raw::over(one.tunnel(&one.for_tenant(), &["http/1.1"]).await);
    for _ in 0..2 {
        assert_eq!(one.gateway.metric("relais_inbound_connections", &[]), 1.0);
        raw.write(one.get(&one.service)).await;
        let answer = raw.answer(false).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        let seen: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(seen["path"], "/x?y");
        assert_eq!(seen["ou"], format!("1{}", one.gateway.tenant(0)));
    }
    drop(raw);
    eventually("its room is free", || {
        one.gateway.metric("relais_inbound_connections", &[]) == 0.0
    })
    .await;
}

#[tokio::test]
async fn http_2_is_spoken_in_a_tunnel_too() {
    let one = intercepting("");
    let stream = one.tunnel(&one.for_tenant(), &["h2"]).await;
    let handshake =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = within(handshake).await.unwrap();
    tokio::spawn(connection);
    for (authority, expected) in [(&*one.service, 200), ("other.test", 421)] {
        let request = Request::get(format!("https://{authority}/x"))
            .body(Full::new(Bytes::new()))
            .unwrap();
        let answer = within(sender.send_request(request)).await.unwrap();
        assert_eq!(answer.status(), expected, "{authority}");
    }
}

/// T13.
#[tokio::test]
async fn a_tunnel_leads_to_a_declared_service_and_nowhere_else() {
    let one = intercepting("");
    let host = one.service.split(':').next().unwrap();
    let own = one.gateway.address().to_string();
    let admin = one.gateway.admin.to_string();
    for to in [
        &*format!("{host}:1"),
        &*format!("{host}:443"),
        "169.254.169.254:80",
        "[::1]:443",
        "0.0.0.0:443",
        "other.test:443",
        &*own,
        &*admin,
    ] {
        let (_, status) = one.connect(to, &one.for_tenant()).await;
        assert_eq!(status, 404, "{to}");
    }
    // What is in a tunnel goes where it leads.
    for (host, expected) in [("other.test", 421), ("127.0.0.1", 421)] {
        let mut raw = Raw::over(one.tunnel(&one.for_tenant(), &[]).await);
        raw.write(one.get(host)).await;
        assert_eq!(raw.answer(false).await.unwrap().status, expected, "{host}");
    }
    let mut raw = Raw::over(one.tunnel(&one.for_tenant(), &[]).await);
    let again = format!("CONNECT {0} HTTP/1.1\r\nhost: {0}\r\n\r\n", one.service);
    raw.write(again).await;
    assert_eq!(
        raw.answer(false).await.unwrap().status,
        400,
        "a tunnel in a tunnel"
    );
}

#[tokio::test]
async fn of_services_on_one_host_a_tunnel_leads_to_the_one_at_its_port() {
    let service = |name, url| format!("\n[services.{name}]\nurl = \"{url}\"\ntrust = \"public\"\n");
    let extra = service("low", "https://localhost:80") + &service("usual", "https://localhost");
    let one = intercepting(&extra);
    for (to, name, own, others) in [
        (
            "localhost:80",
            "low",
            &["localhost:80"][..],
            &["localhost", "localhost:443", &*one.service][..],
        ),
        (
            "localhost:443",
            "usual",
            &["localhost", "LOCALHOST:443"],
            &["localhost:80", &one.service],
        ),
        (&one.service, "dmp", &[&one.service], &["localhost"]),
    ] {
        for (hosts, is_there) in [(own, true), (others, false)] {
            for host in hosts {
                let mut raw = Raw::over(one.tunnel_to(to, &one.for_tenant(), &[]).await);
                raw.write(one.get(host)).await;
                let status = raw.answer(false).await.unwrap().status;
                assert_eq!(status != 421, is_there, "{host} in a tunnel to {to}");
                if is_there {
                    assert_eq!(one.gateway.log().pop().unwrap()["service"], name, "{to}");
                }
            }
        }
        let target = format!("GET http://localhost:1/x HTTP/1.1\r\nhost: {to}\r\n\r\n");
        let mut raw = Raw::over(one.tunnel_to(to, &one.for_tenant(), &[]).await);
        raw.write(target).await;
        assert_eq!(raw.answer(false).await.unwrap().status, 421, "{to}");
    }
    let with_user = format!("other.test:80@{}", one.service);
    let mut raw = one.gateway.raw().await;
    raw.write(format!(
        "CONNECT {with_user} HTTP/1.1\r\nhost: {}\r\n\r\n",
        one.service
    ))
    .await;
    assert_eq!(raw.answer(false).await.unwrap().status, 400);
}

#[tokio::test]
async fn who_asks_in_a_tunnel_is_who_asked_for_it() {
    let (token, other) = (new_token().unwrap(), new_token().unwrap());
    let hash = |token: &str| TokenHash::of(token.as_bytes());
    let callers = caller("dui", &format!("tokens = [\"{}\"]", hash(&token)))
        + &caller("lgo", &format!("tokens = [\"{}\"]", hash(&other)));
    let one = intercepting(&callers);
    assert_eq!(one.connect(&one.service, &one.for_tenant()).await.1, 407);
    let lines = |token: &str| format!("{}x-relais-token: {token}\r\n", one.for_tenant());
    assert_eq!(
        one.connect(&one.service, &lines("relais_wrong")).await.1,
        407
    );

    let mut raw = Raw::over(one.tunnel(&lines(&token), &[]).await);
    raw.write(one.get(&one.service)).await;
    assert_eq!(raw.answer(false).await.unwrap().status, 200);
    let line = one.gateway.log().pop().unwrap();
    assert_eq!(line["caller"], "dui");
    // Nothing in it makes it another's, or for another.
    let more =
        one.get(&one.service)
            .replacen("\r\n", &format!("\r\nx-relais-token: {}\r\n", *other), 1);
    raw.write(more).await;
    assert_eq!(raw.answer(false).await.unwrap().status, 407);
    let more = one
        .get(&one.service)
        .replacen("\r\n", "\r\nx-finess: 2A0000253\r\n", 1);
    raw.write(more).await;
    assert_eq!(raw.answer(false).await.unwrap().status, 400);
}

#[tokio::test]
async fn a_token_that_is_taken_away_stops_working_in_open_tunnels_too() {
    let token = new_token().unwrap();
    let hash = TokenHash::of(token.as_bytes());
    let one = intercepting(&caller("dui", &format!("tokens = [\"{hash}\"]")));
    let lines = format!("{}x-relais-token: {}\r\n", one.for_tenant(), *token);
    let mut raw = Raw::over(one.tunnel(&lines, &[]).await);
    raw.write(one.get(&one.service)).await;
    assert_eq!(raw.answer(false).await.unwrap().status, 200);
    let path = &one.gateway.site.configuration;
    let other = TokenHash::of(new_token().unwrap().as_bytes());
    let text = fs::read_to_string(path).unwrap();
    fs::write(path, text.replace(&hash.to_string(), &other.to_string())).unwrap();
    within(one.gateway.app.reload()).await.unwrap();
    raw.write(one.get(&one.service)).await;
    assert_eq!(raw.answer(false).await.unwrap().status, 407);
}

/// T17.
#[tokio::test]
async fn a_tunnel_keeps_no_token() {
    let token = new_token().unwrap();
    let hash = TokenHash::of(token.as_bytes());
    let one = intercepting(&caller("dui", &format!("tokens = [\"{hash}\"]")));
    let entrance = Entrance::new(&one.gateway.app.gateway, 0);
    let (application, server) = tokio::io::duplex(4096);
    let (kept, mut was_kept) = tokio::sync::mpsc::unbounded_channel();
    let service = hyper::service::service_fn(move |request| {
        let (entrance, kept) = (Arc::clone(&entrance), kept.clone());
        async move {
            let answer = entrance.take(&Arc::default(), request).answer().await;
            let tunnel = answer.extensions().get::<Arc<Tunnel>>();
            kept.send(format!("{:?}", tunnel.unwrap())).unwrap();
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let http = hyper::server::conn::http1::Builder::new();
    tokio::spawn(async move {
        http.serve_connection(TokioIo::new(server), service)
            .with_upgrades()
            .await
    });
    let mut raw = Raw::over(application);
    let to = &one.service;
    raw.write(format!(
        "CONNECT {to} HTTP/1.1\r\nhost: {to}\r\nproxy-authorization: Bearer {}\r\n\r\n",
        *token
    ))
    .await;
    let kept = within(was_kept.recv()).await.unwrap();
    assert!(kept.contains(to) && !kept.contains("relais_"), "{kept}");
}

#[tokio::test]
async fn without_an_authority_a_tunnel_is_refused_and_the_refusal_explains_why() {
    let secured = secured(&[""], "");
    let mut raw = secured.gateway.raw().await;
    raw.write("CONNECT localhost:443 HTTP/1.1\r\nhost: localhost:443\r\n\r\n")
        .await;
    let answer = raw.answer(false).await.unwrap();
    assert_eq!(answer.status, 400);
    let body = String::from_utf8(answer.body).unwrap();
    assert!(body.contains("CONNECT is not served"), "{body}");
}

#[tokio::test]
async fn the_authority_vouches_for_the_configured_services_alone_and_is_made_once() {
    use std::os::unix::fs::PermissionsExt as _;
    let one = intercepting("");
    let key = one.gateway.site.directory.join("relais-ca.key");
    assert_eq!(
        fs::metadata(&key).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let before = fs::read(&key).unwrap();
    let again = Command::new(env!("CARGO_BIN_EXE_relais"))
        .args(["ca", "--out"])
        .arg(&one.gateway.site.directory)
        .arg("--config")
        .arg(&one.gateway.site.configuration)
        .output()
        .unwrap();
    assert!(!again.status.success());
    assert_eq!(fs::read(&key).unwrap(), before);

    // Somebody who has the key cannot pass for another host with it.
    let key = rcgen::KeyPair::from_pem(&String::from_utf8(before).unwrap()).unwrap();
    let pem = String::from_utf8(one.authority.clone()).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&pem, key).unwrap();
    let leaf_key = rcgen::KeyPair::generate().unwrap();
    let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(
        Arc::new({
            use rustls_pki_types::pem::PemObject as _;
            let mut roots = RootCertStore::empty();
            let root = rustls_pki_types::CertificateDer::from_pem_slice(&one.authority).unwrap();
            roots.add(root).unwrap();
            roots
        }),
        provider(),
    )
    .build()
    .unwrap();
    for (host, is_taken) in [
        ("localhost", true),
        ("bank.test", false),
        ("127.0.0.1", false),
    ] {
        let params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
        let leaf = params.signed_by(&leaf_key, &issuer).unwrap();
        let verified = rustls::client::danger::ServerCertVerifier::verify_server_cert(
            &*verifier,
            leaf.der(),
            &[],
            &ServerName::try_from(host).unwrap(),
            &[],
            rustls_pki_types::UnixTime::now(),
        );
        assert_eq!(verified.is_ok(), is_taken, "{host} {verified:?}");
    }
}
