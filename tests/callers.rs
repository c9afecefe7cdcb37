//! Who may speak for whom: callers, how they are recognised, and what each may do.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;
use relais::config::ListenAddress;
use relais::gateway::caller::TokenHash;
use relais::simulator::site::{Stand, sample_finess};
use support::raw::Raw;
use support::{Answered, Client, TestGateway, start_on, start_with, within};
use tokio::net::UnixStream;

const SERVICES: [Stand; 2] = [Stand::new("dmp"), Stand::new("ror")];

/// A caller with a token that is its name and `-token`.
fn with_token(name: &str, rights: &str) -> String {
    let hash = TokenHash::of(format!("{name}-token").as_bytes());
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

/// A GET as a program with that token makes it.
fn get(token: &str, tenant: usize, path: &str) -> Request<Bytes> {
    let request = Request::get(path)
        .header("x-finess", sample_finess(tenant).as_str())
        .header("proxy-authorization", format!("Bearer {token}"));
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
                let request = get(&format!("{name}-token"), tenant, &format!("/{service}/x"));
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
        ("proxy-authorization", "Bearer dui-token".to_owned(), true),
        ("x-relais-token", "dui-token".to_owned(), true),
        ("proxy-authorization", basic("", "dui-token"), true),
        (
            "proxy-authorization",
            basic(tenant.as_str(), "dui-token"),
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
        ("authorization", "Bearer dui-token".to_owned()),
        ("proxy-authorization", "Bearer dui-toke".to_owned()),
        (
            "proxy-authorization",
            "Bearer dui-token,dui-token".to_owned(),
        ),
        ("proxy-authorization", "Digest dui-token".to_owned()),
        ("x-relais-token", String::new()),
        ("x_relais_token", "dui-token".to_owned()),
        // Its hash is no token.
        ("x-relais-token", TokenHash::of(b"dui-token").to_string()),
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
    let token = "proxy-authorization: Bearer dui-token\r\n";
    let as_other = format!(
        "proxy-authorization: {}\r\n",
        basic(other.as_str(), "dui-token")
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
            format!("x-finess: {own}\r\n{token}x-relais-token: dui-token\r\n"),
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
        let answer = gateway.send(get("group-token", tenant, "/dmp/x")).await;
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
        let answer = gateway.send(get("dui-token", tenant, &path)).await;
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
        let answer = client.send(get("dui-token", 0, "/dmp/x")).await;
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
    let other = text.replace(
        &TokenHash::of(b"dui-token").to_string(),
        &TokenHash::of(b"another").to_string(),
    );
    std::fs::write(path, other).unwrap();
    within(gateway.app.reload()).await.unwrap();
    let answer = client.send(get("dui-token", 0, "/dmp/x")).await;
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
    let credentials = |tenant: &str| basic(tenant, "dui-token");
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
