//! Who may speak for whom: callers, how they are recognised, and what each may do.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;
use relais::config::ListenAddress;
use relais::gateway::reply::Code;
use relais::simulator::site::{Stand, sample_finess};
use support::raw::Raw;
use support::upstream::{Tls, Upstream};
use support::{
    Answered, Client, TestGateway, eventually, hash_of, settled, start_on, start_with, token_of,
    within,
};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

const SERVICES: [Stand; 2] = [Stand::new("dmp"), Stand::new("ror")];

/// A caller with a token.
fn with_token(name: &str, rights: &str) -> String {
    let hash = hash_of(name);
    caller(name, &format!("tokens = [\"{hash}\"]\n{rights}"))
}

/// A caller that may use all services unless its keys say otherwise.
fn caller(name: &str, keys: &str) -> String {
    let services = match keys.contains("services =") {
        true => "",
        false => "services = [\"*\"]",
    };
    format!("\n[[callers]]\nname = \"{name}\"\n{keys}\n{services}\n")
}

fn for_tenant(index: usize) -> String {
    format!("tenants = [\"{}\"]", sample_finess(index))
}

/// A gateway for three tenants with these callers.
fn gateway_with(callers: &str) -> TestGateway {
    start_with(3, &SERVICES, |text| text.push_str(callers))
}

/// A GET as the program of that name makes it.
fn get(name: &str, tenant: usize, path: &str) -> Request<Bytes> {
    let request = Request::get(path)
        .header("x-finess", sample_finess(tenant).as_str())
        .header("proxy-authorization", format!("Bearer {}", token_of(name)));
    request.body(Bytes::new()).unwrap()
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Its status, and the `code` where it is Relais's own.
fn outcome(answer: &Answered) -> (u16, String) {
    match answer.status() {
        200 => (200, String::new()),
        status => (status, answer.code()),
    }
}

fn passed() -> (u16, String) {
    (200, String::new())
}

fn forbidden() -> (u16, String) {
    (403, "caller_forbidden".to_owned())
}

fn unauthenticated() -> (u16, String) {
    (407, "caller_unauthenticated".to_owned())
}

fn nothing_reached_a_service(gateway: &TestGateway) {
    for (stand, simulator) in &gateway.site.simulators {
        assert_eq!(simulator.handshakes(), (0, 0), "{}", stand.name);
    }
}

#[tokio::test]
async fn a_caller_speaks_for_its_own_tenants_and_uses_its_own_services_alone() {
    let gateway = gateway_with(
        &[
            with_token("one", &for_tenant(0)),
            with_token("dmp", "tenants = [\"*\"]\nservices = [\"dmp\"]"),
        ]
        .concat(),
    );
    let mut client = gateway.connect().await;
    for tenant in 0..3 {
        for service in ["dmp", "ror"] {
            for (name, may) in [("one", tenant == 0), ("dmp", service == "dmp")] {
                let request = get(name, tenant, &format!("/{service}/x"));
                // All on one connection: what one request may do says nothing of the next.
                let answer = client.send(request).await;
                let expected = if may { passed() } else { forbidden() };
                assert_eq!(outcome(&answer), expected, "{name} {tenant} {service}");
            }
        }
    }
    let line = gateway.log().pop().unwrap();
    assert_eq!(
        (&line["caller"], &line["code"]),
        (&"dmp".into(), &"caller_forbidden".into())
    );
}

#[tokio::test]
async fn a_token_is_taken_from_each_of_its_places_and_never_reaches_a_service() {
    let gateway = gateway_with(&with_token("dui", &for_tenant(1)));
    let tenant = sample_finess(1);
    let ways = [
        (
            "proxy-authorization",
            format!("Bearer {}", token_of("dui")),
            true,
        ),
        ("x-relais-token", token_of("dui"), true),
        ("proxy-authorization", basic("", &token_of("dui")), true),
        (
            "proxy-authorization",
            basic(tenant.as_str(), &token_of("dui")),
            false,
        ),
    ];
    for (field, value, names_tenant) in ways {
        let mut request = Request::get("/dmp/x")
            .header(field, value)
            .header("authorization", "Bearer of-the-service");
        if names_tenant {
            request = request.header("x-finess", tenant.as_str());
        }
        let seen = gateway
            .send(request.body(Bytes::new()).unwrap())
            .await
            .seen();
        assert_eq!(seen.ou, Some(format!("1{tenant}")));
        let names: Vec<_> = seen.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert!(names.contains(&"authorization"), "{names:?}");
        for own in ["proxy-authorization", "x-relais-token", "x-finess"] {
            assert!(!names.contains(&own), "{names:?}");
        }
    }
}

#[tokio::test]
async fn who_shows_nothing_or_a_wrong_token_is_asked_for_one() {
    let gateway = gateway_with(&with_token("dui", "tenants = [\"*\"]"));
    let tenant = sample_finess(0);
    for (field, value) in [
        ("accept", "*/*".to_owned()),
        ("authorization", format!("Bearer {}", token_of("dui"))),
        (
            "proxy-authorization",
            format!("Bearer {}", token_of("dui2")),
        ),
        (
            "proxy-authorization",
            format!("Bearer {0},{0}", token_of("dui")),
        ),
        ("proxy-authorization", format!("Digest {}", token_of("dui"))),
        ("x-relais-token", String::new()),
        ("x_relais_token", token_of("dui")),
        // Its hash is no token.
        ("x-relais-token", hash_of("dui")),
    ] {
        for path in ["/dmp/x", "/-/identity/dmp", "/nowhere/x"] {
            let request = Request::get(path)
                .header("x-finess", tenant.as_str())
                .header(field, &value);
            let answer = gateway.send(request.body(Bytes::new()).unwrap()).await;
            assert_eq!(
                outcome(&answer),
                unauthenticated(),
                "{field}: {value} {path}"
            );
            let challenge = answer.header("proxy-authenticate").unwrap();
            assert!(challenge.starts_with("Basic realm="), "{challenge}");
        }
    }
    nothing_reached_a_service(&gateway);
}

#[tokio::test]
async fn nothing_that_a_head_says_widens_what_a_caller_may_do() {
    let gateway = gateway_with(&with_token("dui", &for_tenant(0)));
    let (own, other) = (sample_finess(0), sample_finess(1));
    let shown = token_of("dui");
    let token = &*format!("proxy-authorization: Bearer {shown}\r\n");
    let as_other = format!(
        "proxy-authorization: {}\r\n",
        basic(other.as_str(), &token_of("dui"))
    );
    for (target, fields, status) in [
        (
            "/dmp/x".to_owned(),
            format!("{token}x-finess: {other}\r\n"),
            403,
        ),
        (format!("/@{other}/dmp/x"), token.to_owned(), 403),
        (
            format!("/@{other}/dmp/x"),
            format!("{token}x-finess: {own}\r\n"),
            400,
        ),
        ("/dmp/x".to_owned(), as_other.clone(), 403),
        (
            "/dmp/x".to_owned(),
            format!("{as_other}x-finess: {own}\r\n"),
            400,
        ),
        (
            "/dmp/x".to_owned(),
            format!("{token}x-finess: {own}\r\nx-finess: {other}\r\n"),
            400,
        ),
        (
            "/dmp/x".to_owned(),
            format!("{token}x-finess: {own},{other}\r\n"),
            400,
        ),
        (
            "/dmp/x".to_owned(),
            format!("{token}x-finess: {own}\r\nx_finess: {other}\r\n"),
            400,
        ),
        // Out of what the caller may use, for a server that resolves it.
        (
            "/dmp/../ror/x".to_owned(),
            format!("{token}x-finess: {own}\r\n"),
            400,
        ),
        // Named by Connection it is read all the same, and taken off (CVE-2025-48865).
        (
            "/dmp/x".to_owned(),
            format!("{token}x-finess: {other}\r\nconnection: x-finess\r\n"),
            403,
        ),
        (
            "/dmp/x".to_owned(),
            format!("x-finess: {own}\r\n{token}{token}"),
            407,
        ),
        (
            "/dmp/x".to_owned(),
            format!("x-finess: {own}\r\n{token}x-relais-token: {shown}\r\n"),
            407,
        ),
    ] {
        let mut raw = gateway.raw().await;
        raw.write(format!(
            "GET {target} HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n"
        ))
        .await;
        let answer = raw.answer(false).await.unwrap();
        assert_eq!(answer.status, status, "{target} {fields}");
    }
    nothing_reached_a_service(&gateway);
}

/// Sends a request over a Unix socket.
async fn over(socket: &PathBuf, fields: &str) -> u16 {
    let mut raw = Raw::over(within(UnixStream::connect(socket)).await.unwrap());
    raw.write(format!(
        "GET /dmp/x HTTP/1.1\r\nhost: relais\r\n{fields}\r\n"
    ))
    .await;
    raw.answer(false).await.unwrap().status
}

#[tokio::test]
async fn a_program_is_recognised_by_its_account_on_a_unix_socket() {
    let uid = rustix::process::getuid().as_raw();
    let gid = rustix::process::getgid().as_raw();
    for (proof, expected) in [
        (format!("user = {uid}"), 200),
        (format!("group = {gid}"), 200),
        (format!("user = {}", uid + 1), 407),
        (format!("group = {}", gid + 1), 407),
    ] {
        let callers = caller("local", &format!("{proof}\n{}", for_tenant(0)));
        let (gateway, socket) = start_on(2, &SERVICES, |site, text| {
            *text = text.replacen("127.0.0.1:0", "unix:relais.sock", 1);
            text.push_str(&callers);
            site.directory.join("relais.sock")
        });
        let (own, other) = (sample_finess(0), sample_finess(1));
        assert_eq!(
            over(&socket, &format!("x-finess: {own}\r\n")).await,
            expected,
            "{proof}"
        );
        // What it may not do as itself it may not by being itself, and a wrong token is wrong whoever shows it.
        let refused = if expected == 200 { 403 } else { 407 };
        assert_eq!(
            over(&socket, &format!("x-finess: {other}\r\n")).await,
            refused,
            "{proof}"
        );
        let wrong = format!("x-finess: {own}\r\nx-relais-token: x\r\n");
        assert_eq!(over(&socket, &wrong).await, 407, "{proof}");
        gateway.stop();
    }
}

#[tokio::test]
async fn a_listener_of_one_tenant_makes_its_caller() {
    let gateway = start_with(2, &SERVICES, |text| {
        let listener = "[[listeners]]\naddress = \"unix:site.sock\"\n\n[identities]";
        *text = text.replacen("[identities]", listener, 1);
        text.push_str(&caller(
            "site",
            &format!("listener = \"unix:site.sock\"\n{}", for_tenant(0)),
        ));
    });
    let ListenAddress::Unix(socket) = &gateway.addresses[1] else {
        panic!("the second listener is a socket")
    };
    let (own, other) = (sample_finess(0), sample_finess(1));
    assert_eq!(over(socket, &format!("x-finess: {own}\r\n")).await, 200);
    assert_eq!(over(socket, &format!("x-finess: {other}\r\n")).await, 403);
    // By the other listener comes nobody who is known.
    let answer = gateway.get(own, "/dmp/x").await;
    assert_eq!(outcome(&answer), unauthenticated());
}

#[tokio::test]
async fn a_legal_entity_covers_the_sites_that_the_table_gives_it() {
    let entity = sample_finess(2);
    let gateway = start_with(3, &SERVICES, |text| {
        let site = sample_finess(0);
        *text = text.replacen("[tenants]\nfile = \"tenants.csv\"\n", "", 1);
        text.push_str(&format!(
            "\n[[tenants]]\nfiness = \"{site}\"\nlegal_entity = \"{entity}\"\n"
        ));
        let rights = format!("legal_entities = [\"{entity}\"]");
        text.push_str(&with_token("group", &rights));
    });
    for (tenant, expected) in [(0, passed()), (1, forbidden()), (2, passed())] {
        let answer = gateway.send(get("group", tenant, "/dmp/x")).await;
        assert_eq!(outcome(&answer), expected, "{tenant}");
    }
}

#[tokio::test]
async fn which_certificate_serves_is_told_to_who_may_use_it_alone() {
    let gateway = gateway_with(&with_token(
        "dui",
        &format!("{}\nservices = [\"dmp\"]", for_tenant(0)),
    ));
    for (tenant, service, expected) in [
        (0, "dmp", passed()),
        (1, "dmp", forbidden()),
        (0, "ror", forbidden()),
    ] {
        let path = format!("/-/identity/{service}");
        let answer = gateway.send(get("dui", tenant, &path)).await;
        assert_eq!(outcome(&answer), expected, "{tenant} {service}");
    }
}

#[tokio::test]
async fn rights_that_a_reload_takes_away_are_gone_for_the_next_request_of_an_open_connection() {
    let gateway = gateway_with(&with_token("dui", "tenants = [\"*\"]"));
    let mut client = gateway.connect().await;
    let path = &gateway.site.configuration;
    let text = std::fs::read_to_string(path).unwrap();
    let expectations = [
        (text.clone(), passed()),
        (
            text.replace("tenants = [\"*\"]", &for_tenant(1)),
            forbidden(),
        ),
        (text.clone(), passed()),
    ];
    for (text, expected) in expectations {
        std::fs::write(path, text).unwrap();
        within(gateway.app.reload()).await.unwrap();
        let answer = client.send(get("dui", 0, "/dmp/x")).await;
        assert_eq!(outcome(&answer), expected);
    }
    // Of a file that is read while it is written the end is missing: that must not mean that everybody is let in.
    let cut = text.split("\n[[callers]]").next().unwrap();
    std::fs::write(path, cut).unwrap();
    let report = within(gateway.app.reload()).await.unwrap();
    assert!(report.restart.iter().any(|one| one.key == "callers"));
    let nobody = gateway.get(sample_finess(0), "/dmp/x").await;
    assert_eq!(outcome(&nobody), unauthenticated());
    // A token that was replaced is worth nothing.
    let other = text.replace(&hash_of("dui"), &hash_of("another"));
    std::fs::write(path, other).unwrap();
    within(gateway.app.reload()).await.unwrap();
    let answer = client.send(get("dui", 0, "/dmp/x")).await;
    assert_eq!(outcome(&answer), unauthenticated());
    assert_eq!(
        outcome(&client.send(get("another", 0, "/dmp/x")).await),
        passed()
    );
}

#[tokio::test]
async fn a_program_that_takes_relais_for_its_proxy_reaches_declared_services_and_nothing_else() {
    let gateway = start_with(3, &SERVICES, |text| {
        text.push_str(&with_token("dui", &for_tenant(0)));
        // Two under one host: what their bases say tells them apart.
        *text = text.replace(
            "[services.ror]\nurl = \"https://localhost",
            "[services.ror]\nurl = \"https://ror.example",
        );
    });
    let address = gateway.address();
    let port = |service: &str| {
        let table = gateway.app.gateway.table.load();
        let (_, offered) = table.service(service).unwrap();
        offered.service.target.port()
    };
    let (own, other) = (sample_finess(0), sample_finess(1));
    let credentials = |tenant: &str| basic(tenant, &token_of("dui"));
    for (authority, credentials, expected) in [
        (
            format!("localhost:{}", port("dmp")),
            credentials(own.as_str()),
            200,
        ),
        ("localhost".to_owned(), credentials(own.as_str()), 200),
        (
            format!("LOCALHOST:{}", port("dmp")),
            credentials(own.as_str()),
            200,
        ),
        (
            format!("localhost:{}", port("dmp")),
            credentials(other.as_str()),
            403,
        ),
        (
            format!("localhost:{}", port("dmp")),
            basic(own.as_str(), "wrong"),
            407,
        ),
        (
            format!("localhost:{}", port("ror")),
            credentials(own.as_str()),
            404,
        ),
        (
            format!("localhost:{}", gateway.admin.port()),
            credentials(own.as_str()),
            404,
        ),
        (
            format!("127.0.0.1:{}", port("dmp")),
            credentials(own.as_str()),
            404,
        ),
        (
            "elsewhere.example".to_owned(),
            credentials(own.as_str()),
            404,
        ),
    ] {
        let mut raw = Raw::connect(address).await;
        raw.write(format!(
            "GET http://{authority}/v2/a%2Fb?x=/y HTTP/1.1\r\nhost: {authority}\r\n\
             proxy-authorization: {credentials}\r\n\r\n"
        ))
        .await;
        let answer = raw.answer(false).await.unwrap();
        assert_eq!(answer.status, expected, "{authority} {credentials}");
        if expected == 200 {
            let seen = Answered(http::Response::new(Bytes::from(answer.body))).seen();
            assert_eq!((&*seen.service, &*seen.path), ("dmp", "/v2/a%2Fb?x=/y"));
            assert_eq!(seen.ou, Some(format!("1{own}")));
        }
    }
}

#[tokio::test]
async fn a_service_is_found_by_its_own_address_and_by_no_other() {
    let gateway = start_with(1, &SERVICES[..1], |text| {
        for (name, url) in [
            ("root", "https://h.example"),
            ("api", "https://h.example/api"),
            ("deep", "https://h.example/api/v2"),
            ("port", "https://h.example:8443/api"),
            ("far", "https://far.example:8443/x"),
            ("one", "https://two.example/x"),
            ("other", "https://two.example/x"),
        ] {
            text.push_str(&format!(
                "\n[services.{name}]\nurl = \"{url}\"\ntrust = \"public\"\ncertificate = \"none\"\n"
            ));
        }
    });
    let table = gateway.app.gateway.table.load_full();
    let unknown = || Err(Code::ServiceUnknown);
    for (authority, path, bound, expected) in [
        ("h.example", "/x?y", None, Ok(("root", "/x?y"))),
        ("H.Example", "/api", None, Ok(("api", ""))),
        ("h.example:80", "/api", None, unknown()),
        ("h.example", "/api?x", None, Ok(("api", "?x"))),
        ("h.example", "/apix", None, Ok(("root", "/apix"))),
        ("h.example:443", "/api/v2/x", None, Ok(("deep", "/x"))),
        // Without a port it is what it would be with https://.
        ("h.example", "/api/x", None, Ok(("api", "/x"))),
        ("h.example:8443", "/api/x", None, Ok(("port", "/x"))),
        ("h.example:8443", "/x", None, unknown()),
        ("far.example", "/x/y", None, Ok(("far", "/y"))),
        ("far.example:443", "/x/y", None, unknown()),
        ("two.example", "/x/y", None, unknown()),
        ("two.example", "/x/y", Some("other"), Ok(("other", "/y"))),
        ("h.example", "/x", Some("api"), unknown()),
        ("h.example.", "/x", None, unknown()),
        ("elsewhere.example", "/x", None, unknown()),
    ] {
        let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
        let found = table.service_at(host, port.parse().ok(), path, bound);
        let found = found.map_err(|problem| problem.code);
        assert_eq!(found, expected, "{authority}{path} {bound:?}");
    }
}

#[tokio::test]
async fn a_browser_that_takes_relais_for_its_proxy_acts_as_nobody() {
    let gateway = start_with(2, &SERVICES[..1], |text| {
        let bound = format!("tenant = \"{}\"\n\n[identities]", sample_finess(0));
        *text = text.replacen("[identities]", &bound, 1);
        let rights = format!("listener = \"unix:site.sock\"\n{}", for_tenant(0));
        let socket = "[[listeners]]\naddress = \"unix:site.sock\"\n\n[identities]";
        *text = text.replacen("[identities]", socket, 1);
        text.push_str(&caller("site", &rights));
        text.push_str(&with_token("dui", &for_tenant(0)));
    });
    let own = sample_finess(0);
    let shown = format!(
        "proxy-authorization: {}\r\n",
        basic(own.as_str(), &token_of("dui"))
    );
    for (fields, status) in [
        (shown.clone(), 200),
        (format!("{shown}user-agent: curl/8.5\r\n"), 200),
        // A page's navigation, with the password that the browser keeps for its proxy.
        (
            format!("{shown}user-agent: Mozilla/5.0 (X11) Gecko/20100101\r\n"),
            403,
        ),
        (format!("{shown}accept-language: fr\r\n"), 403),
        (format!("{shown}origin: http://localhost\r\n"), 403),
        // The listener names a tenant, and the request does not.
        (
            format!("proxy-authorization: {}\r\n", basic("", &token_of("dui"))),
            400,
        ),
    ] {
        let mut raw = gateway.raw().await;
        raw.write(format!(
            "GET http://localhost/x HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n"
        ))
        .await;
        assert_eq!(raw.answer(false).await.unwrap().status, status, "{fields}");
    }
    // Who comes by a listener is its caller, but not through a proxy.
    let ListenAddress::Unix(socket) = &gateway.addresses[1] else {
        panic!("the second listener is a socket")
    };
    for (target, status) in [("/dmp/x", 200), ("http://localhost/x", 407)] {
        let mut raw = Raw::over(within(UnixStream::connect(socket)).await.unwrap());
        let fields = format!("host: localhost\r\nx-finess: {own}\r\n");
        raw.write(format!("GET {target} HTTP/1.1\r\n{fields}\r\n"))
            .await;
        assert_eq!(raw.answer(false).await.unwrap().status, status, "{target}");
    }
}

#[tokio::test]
async fn a_token_that_nobody_is_there_to_know_is_refused() {
    let gateway = gateway_with("");
    assert_eq!(
        outcome(&gateway.send(get("dui", 0, "/dmp/x")).await),
        unauthenticated()
    );
    // What is for another proxy is not.
    let request = Request::get("/dmp/x")
        .header("x-finess", sample_finess(0).as_str())
        .header("proxy-authorization", "Negotiate YII=");
    let answer = gateway.send(request.body(Bytes::new()).unwrap()).await;
    assert_eq!(outcome(&answer), passed());
}

#[tokio::test]
async fn a_request_that_waits_while_its_caller_loses_its_rights_is_not_sent() {
    let gateway = start_with(1, &SERVICES, |text| {
        text.push_str(&with_token("dui", "tenants = [\"*\"]"));
        *text = text.replacen("[services.ror]", "[services.ror]\nrate = 1", 1);
    });
    // One goes, the other waits for its turn, a second later.
    assert_eq!(
        outcome(&gateway.send(get("dui", 0, "/ror/x")).await),
        passed()
    );
    let waiting = gateway.send(get("dui", 0, "/ror/x"));
    let path = &gateway.site.configuration;
    let taken_away = async {
        let text = std::fs::read_to_string(path).unwrap();
        let other = hash_of("another");
        let own = hash_of("dui");
        eventually("it waits", || gateway.app.gateway.requests_under_way() == 1).await;
        std::fs::write(path, text.replace(&own, &other)).unwrap();
        within(gateway.app.reload()).await.unwrap();
    };
    let (answer, ()) = tokio::join!(waiting, taken_away);
    assert_eq!(outcome(&answer), unauthenticated());
}

/// A gateway for a caller with a token, in front of a service that makes a handshake when `release` lets it. It reads
/// what comes, counts it in `arrived`, and answers what `answers` lets it: where nothing is left, it closes.
fn behind_slow_handshakes(
    release: &Arc<Semaphore>,
    answers: &Arc<Semaphore>,
    arrived: &Arc<AtomicUsize>,
) -> (TestGateway, Upstream) {
    start_on(1, &[Stand::new("dmp")], |site, text| {
        let acceptor = TlsAcceptor::from(Tls::default().server_config(&site.pki));
        let (release, answers, arrived) = (release.clone(), answers.clone(), arrived.clone());
        let upstream = Upstream::raw(move |tcp, _| {
            let (acceptor, release) = (acceptor.clone(), release.clone());
            let (answers, arrived) = (answers.clone(), arrived.clone());
            async move {
                release.acquire().await.unwrap().forget();
                let Ok(stream) = acceptor.accept(tcp).await else {
                    return;
                };
                let mut raw = Raw::over(stream);
                while raw.head().await.is_some() {
                    arrived.fetch_add(1, Ordering::AcqRel);
                    match answers.try_acquire() {
                        Ok(answer) => answer.forget(),
                        Err(_) => return,
                    }
                    raw.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                        .await;
                }
            }
        });
        text.push_str(&upstream.service("up", "retry = \"idempotent\""));
        for name in ["dui", "other"] {
            text.push_str(&with_token(name, "tenants = [\"*\"]"));
        }
        upstream
    })
}

#[tokio::test]
async fn a_request_whose_caller_loses_its_rights_while_a_connection_is_opened_is_not_sent() {
    // Once for the first connection, once for the one over which a request is sent a second time.
    for sent_before in [0, 2] {
        let (release, answers) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let arrived = Arc::new(AtomicUsize::new(0));
        let (gateway, upstream) = behind_slow_handshakes(&release, &answers, &arrived);
        if sent_before > 0 {
            release.add_permits(1);
            answers.add_permits(1);
            let answer = gateway.send(get("dui", 0, "/up/x")).await;
            assert_eq!(outcome(&answer), passed());
            settled(&gateway).await;
        }
        let connections = upstream.accepted() + 1;
        let waiting = gateway.send(get("dui", 0, "/up/x"));
        let taken_away = async {
            eventually("the service sees a connection", || {
                upstream.accepted() == connections
            })
            .await;
            let path = &gateway.site.configuration;
            let text = std::fs::read_to_string(path).unwrap();
            let other = text.replace(&hash_of("dui"), &hash_of("another"));
            std::fs::write(path, other).unwrap();
            within(gateway.app.reload()).await.unwrap();
            release.add_permits(1);
        };
        let (answer, ()) = tokio::join!(waiting, taken_away);
        assert_eq!(outcome(&answer), unauthenticated());
        assert_eq!(arrived.load(Ordering::Acquire), sent_before);
        // The connection that was opened for it serves who may use it.
        settled(&gateway).await;
        answers.add_permits(1);
        let answer = gateway.send(get("other", 0, "/up/x")).await;
        assert_eq!(outcome(&answer), passed());
        assert_eq!(upstream.accepted(), connections);
    }
}

#[tokio::test]
async fn a_request_that_waits_for_a_connection_while_rights_of_others_change_is_sent() {
    let (release, answers) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(1)));
    let arrived = Arc::default();
    let (gateway, upstream) = behind_slow_handshakes(&release, &answers, &arrived);
    let waiting = gateway.send(get("dui", 0, "/up/x"));
    let changed = async {
        eventually("the service sees a connection", || upstream.accepted() == 1).await;
        let path = &gateway.site.configuration;
        for step in 0..5 {
            let text = std::fs::read_to_string(path).unwrap()
                + &with_token(&step.to_string(), "tenants = [\"*\"]");
            std::fs::write(path, text).unwrap();
            within(gateway.app.reload()).await.unwrap();
        }
        release.add_permits(1);
    };
    let (answer, ()) = tokio::join!(waiting, changed);
    assert_eq!(outcome(&answer), passed());
    assert_eq!(
        (arrived.load(Ordering::Acquire), upstream.accepted()),
        (1, 1)
    );
}

#[tokio::test]
async fn without_callers_proxy_credentials_name_the_tenant_all_the_same() {
    let gateway = gateway_with("");
    let tenant = sample_finess(2);
    let request = Request::get("/dmp/x").header("proxy-authorization", basic(tenant.as_str(), ""));
    let seen = gateway
        .send(request.body(Bytes::new()).unwrap())
        .await
        .seen();
    assert_eq!(seen.ou, Some(format!("1{tenant}")));
    // The form in which a server has to take its own address.
    let address = gateway.address();
    let mut client = Client::connect(address).await;
    let request =
        Request::get(format!("http://{address}/dmp/x")).header("x-finess", tenant.as_str());
    let seen = client
        .send(request.body(Bytes::new()).unwrap())
        .await
        .seen();
    assert_eq!(seen.ou, Some(format!("1{tenant}")));
}
