//! Requests through the whole gateway to simulated services, as an application sees them: where they go, what crosses.

mod support;

use std::os::unix::fs::PermissionsExt;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use relais::config::ListenAddress;
use relais::services::HttpVersions;
use relais::simulator::site::Stand;
use support::raw::Raw;
use support::upstream::{Connection, Tls, serve_h2};
use support::{Client, H2c, in_front_of, start, start_with, whole, within};
use tokio::net::UnixStream;

const H1: Stand = Stand {
    http: HttpVersions::H1,
    ..Stand::new("dmp")
};

async fn keep_answering(mut connection: Connection, _: usize) {
    connection.keep_answering("ok").await;
}

#[tokio::test]
async fn each_tenant_is_seen_under_its_own_certificate() {
    let gateway = start(3, &[Stand::new("dmp")], "");
    for tenant in gateway.site.tenants.clone() {
        for _ in 0..2 {
            let seen = gateway.get(tenant, "/dmp/v2/services?x=%2f").await.seen();
            assert_eq!(seen.ou, Some(format!("1{tenant}")));
            assert_eq!(seen.path, "/v2/services?x=%2f");
        }
    }
    gateway.stop();
}

#[tokio::test]
async fn the_tenant_may_stand_in_the_path() {
    let gateway = start(2, &[Stand::new("dmp")], "");
    for tenant in gateway.site.tenants.clone() {
        let request = Request::get(format!("/@{tenant}/dmp/lps?x"))
            .body(Bytes::new())
            .unwrap();
        let seen = gateway.send(request).await.seen();
        assert_eq!(
            (seen.ou, &*seen.path),
            (Some(format!("1{tenant}")), "/lps?x")
        );
    }
}

#[tokio::test]
async fn a_bound_listener_speaks_for_its_tenant_and_service() {
    let tenant = relais::simulator::site::sample_finess(1);
    let gateway = start_with(2, &[Stand::new("dmp"), Stand::new("ror")], |text| {
        let bound = [
            format!("tenant = \"{tenant}\"\nservice = \"ror\""),
            format!("tenant = \"{tenant}\""),
            "service = \"ror\"".to_owned(),
        ];
        let tables: String = bound
            .iter()
            .map(|keys| format!("[[listeners]]\naddress = \"127.0.0.1:0\"\n{keys}\n"))
            .collect();
        *text = text.replacen("[identities]", &format!("{tables}\n[identities]"), 1);
    });
    let cases = [
        (1, "/dmp/x", "", "ror", "/dmp/x"),
        (2, "/dmp/x", "", "dmp", "/x"),
        (3, "/dmp/x", tenant.as_str(), "ror", "/dmp/x"),
        (3, "/@OTHER/x", "", "ror", "/x"),
    ];
    for (listener, path, header, service, seen_path) in cases {
        let ListenAddress::Tcp(address) = gateway.addresses[listener] else {
            panic!("a TCP listener")
        };
        let path = path.replace("OTHER", tenant.as_str());
        let mut request = Request::get(path).body(Bytes::new()).unwrap();
        if !header.is_empty() {
            let value = HeaderValue::from_str(header).unwrap();
            request.headers_mut().insert("x-finess", value);
        }
        let seen = Client::connect(address).await.send(request).await.seen();
        assert_eq!((&*seen.service, &*seen.path), (service, seen_path));
        assert_eq!(seen.ou, Some(format!("1{tenant}")));
    }
    // What it is bound to cannot be overruled.
    let ListenAddress::Tcp(address) = gateway.addresses[1] else {
        panic!("a TCP listener")
    };
    let request = Request::get("/x")
        .header("x-finess", gateway.tenant(0).as_str())
        .body(Bytes::new())
        .unwrap();
    let answer = Client::connect(address).await.send(request).await;
    assert_eq!(answer.code(), "tenant_ambiguous");
}

#[tokio::test]
async fn path_and_query_arrive_byte_for_byte_after_the_base_path() {
    for base in ["", "/base/path"] {
        let gateway = start_with(1, &[H1], |text| {
            *text = text.replace("\"\naddress = \"127.0.0.1:", "URL\naddress = \"127.0.0.1:");
            *text = text.replace("URL", &format!("{base}\""));
        });
        for rest in [
            "/a%2Fb/%c3%A9/..//./c;d=1",
            "/x?identifier=urn:oid:1.2%7C3&x=a+b&&y=%20&z=%zz&{id}|y'",
            "/?",
            "/%00%0d%0aX-Finess:%201",
            "/@060785003/dmp",
            "//evil.example/",
        ] {
            let mut raw = gateway.raw().await;
            raw.write(gateway.get_bytes(&format!("/dmp{rest}"))).await;
            let answer = raw.answer(false).await.unwrap();
            assert_eq!(answer.status, 200, "{rest} {answer:?}");
            let seen: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(seen["path"], format!("{base}{rest}"));
        }
    }
}

#[tokio::test]
async fn ipv6_loopback_is_served() {
    let gateway = start_with(1, &[Stand::new("dmp")], |text| {
        *text = text.replacen("127.0.0.1:0", "[::1]:0", 1);
    });
    assert!(gateway.address().is_ipv6());
    assert_eq!(
        gateway.get(gateway.tenant(0), "/dmp/x").await.seen().path,
        "/x"
    );
}

#[tokio::test]
async fn a_unix_socket_replaces_a_stale_one_and_goes_when_the_gateway_does() {
    let (gateway, path) = support::start_on(1, &[Stand::new("dmp")], |site, text| {
        let path = site.directory.join("relais.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "what a killed gateway leaves behind");
        *text = text.replacen("127.0.0.1:0", "unix:relais.sock", 1);
        path
    });
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let mut raw = Raw::over(within(UnixStream::connect(&path)).await.unwrap());
    // No browser gets here, so the Host is whatever the application likes.
    let text = gateway.get_bytes("/dmp/x").replace("localhost", "relais");
    raw.write(text).await;
    assert_eq!(raw.answer(false).await.unwrap().status, 200);
    drop(raw);
    gateway.stop();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_socket_that_somebody_answers_on_is_left_alone() {
    let (_gateway, path) = support::start_on(1, &[Stand::new("dmp")], |site, text| {
        *text = text.replacen("127.0.0.1:0", "unix:relais.sock", 1);
        (
            site.configuration.clone(),
            site.directory.join("relais.sock"),
        )
    });
    let (configuration, socket) = path;
    let loaded = relais::config::Config::load(&configuration).unwrap();
    let said = format!("{:#}", relais::app::bind(loaded.config).unwrap_err());
    assert!(
        said.contains("relais.sock") && said.contains("another gateway"),
        "{said}"
    );
    assert!(socket.exists());
}

#[tokio::test]
async fn h2c_is_served_beside_http_1() {
    for stand in [H1, Stand::new("dmp")] {
        let gateway = start(1, &[stand], "");
        let mut client = H2c::connect(gateway.address()).await;
        let request = Request::get("/dmp/x?y")
            .header("x-finess", gateway.tenant(0).as_str())
            .body(Bytes::new())
            .unwrap();
        let seen = client.send(request).await.seen();
        assert_eq!(
            (&*seen.path, seen.ou),
            ("/x?y", Some(format!("1{}", gateway.tenant(0))))
        );
    }
}

#[tokio::test]
async fn what_speaks_of_one_connection_or_names_the_tenant_does_not_cross() {
    let (gateway, upstream) = in_front_of(&Tls::default(), "", |mut connection, _| async move {
        connection.head().await;
        connection
            .write(
                "HTTP/1.1 200 OK\r\nconnection: keep-alive, X-Private\r\nkeep-alive: timeout=5\r\n\
                 x-private: 1\r\nproxy-authenticate: Basic\r\nproxy-connection: x\r\nupgrade: h2c\r\n\
                 server: theirs\r\nset-cookie: a=1\r\nset-cookie: b=2\r\nwww-authenticate: Bearer\r\n\
                 content-length: 2\r\n\r\nok",
            )
            .await;
        connection.rest().await;
    });
    let text = gateway.get_bytes("/up/x").replace(
        "\r\n\r\n",
        "\r\nConnection: keep-alive, X-Private, X-Finess, Host\r\nX-Private: 1\r\nKeep-Alive: 5\r\n\
         Proxy-Authorization: Bearer x\r\nProxy-Connection: x\r\nTE: gzip\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: x\r\nAuthorization: Bearer t\r\nSOAPAction: \"urn:x\"\r\nX-Twice: 1\r\n\
         X-Twice: 2\r\nUser-Agent: DUI\r\n\r\n",
    );
    let mut raw = gateway.raw().await;
    raw.write(text).await;
    let answer = raw.answer(false).await.unwrap();

    let head = upstream.heads()[0].to_ascii_lowercase();
    let mut fields: Vec<_> = head
        .lines()
        .skip(1)
        .filter(|line| !line.is_empty())
        .collect();
    fields.sort_unstable();
    let host = format!("host: localhost:{}", upstream.address.port());
    let mut expected = vec![
        "authorization: bearer t",
        &host,
        "soapaction: \"urn:x\"",
        "user-agent: dui",
        "x-twice: 1",
        "x-twice: 2",
    ];
    expected.sort_unstable();
    assert_eq!(fields, expected);

    let mut fields: Vec<_> = answer
        .head
        .lines()
        .skip(1)
        .filter(|line| !line.is_empty())
        .collect();
    fields.sort_unstable();
    // No date, no server, no via: the answer is the service's.
    let expected = [
        "content-length: 2",
        "server: theirs",
        "set-cookie: a=1",
        "set-cookie: b=2",
        "www-authenticate: Bearer",
    ];
    assert_eq!(fields, expected);
}

#[tokio::test]
async fn the_services_see_neither_the_tenant_nor_the_gateways_host() {
    for tls in [Tls::default(), Tls::h2()] {
        let is_h2 = tls.alpn == ["h2"];
        let (gateway, upstream) = in_front_of(&tls, "", move |mut connection, _| async move {
            if is_h2 {
                serve_h2(connection, 100, |request: Request<_>| async move {
                    Response::new(Full::new(Bytes::from(format!("{request:?}"))))
                })
                .await;
            } else {
                while let Some(head) = connection.head().await {
                    connection.answer(&head).await;
                }
            }
        });
        let request = || {
            Request::get("/up/x")
                .header("x-finess", gateway.tenant(0).as_str())
                .body(Bytes::new())
                .unwrap()
        };
        let answers = [
            gateway.send(request()).await,
            H2c::connect(gateway.address()).await.send(request()).await,
        ];
        for answer in answers {
            assert_eq!(answer.status(), 200);
            let seen = String::from_utf8_lossy(answer.0.body()).to_ascii_lowercase();
            assert!(
                !seen.contains("finess") && !seen.contains(gateway.tenant(0).as_str()),
                "{seen}"
            );
            assert!(
                seen.contains(&format!("localhost:{}", upstream.address.port())),
                "{seen}"
            );
            assert!(!seen.contains(&gateway.address().to_string()), "{seen}");
        }
    }
}

#[tokio::test]
async fn cookies_that_http_2_split_arrive_as_one() {
    let (gateway, upstream) = in_front_of(&Tls::default(), "", keep_answering);
    let mut client = H2c::connect(gateway.address()).await;
    let request = Request::get("/up/x")
        .header("x-finess", gateway.tenant(0).as_str())
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(Bytes::new())
        .unwrap();
    assert_eq!(client.send(request).await.status(), 200);
    assert!(
        upstream.heads()[0].contains("cookie: a=1; b=2\r\n"),
        "{:?}",
        upstream.heads()
    );
}

#[tokio::test]
async fn trailers_cross_http_1_in_both_directions() {
    let (gateway, upstream) = in_front_of(&Tls::default(), "", |mut connection, _| async move {
        connection.head().await;
        // The body and its trailers end as a head does.
        connection.head().await;
        connection
            .write(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
                 4\r\ndown\r\n0\r\nx-sum: def\r\n\r\n",
            )
            .await;
        connection.rest().await;
    });
    let mut raw = gateway.raw().await;
    let framing = "TE: trailers\r\nConnection: te\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum";
    raw.write(gateway.post_bytes("/up/x", framing)).await;
    raw.write("2\r\nup\r\n0\r\nx-sum: abc\r\n\r\n").await;
    let answer = raw.answer(false).await.unwrap();
    let heads = upstream.heads();
    assert!(heads[0].contains("te: trailers\r\n"), "{heads:?}");
    assert!(
        heads[1].ends_with("up\r\n0\r\nx-sum: abc\r\n\r\n"),
        "{heads:?}"
    );
    assert_eq!(
        String::from_utf8(answer.body).unwrap(),
        "down[trailer] x-sum: def\r\n"
    );
}

#[tokio::test]
async fn trailers_cross_http_2_in_both_directions() {
    let service = Stand {
        http: HttpVersions::H2,
        ..Stand::new("dmp")
    };
    let gateway = start(1, &[service], "");
    let mut client = H2c::connect(gateway.address()).await;
    let trailers = HeaderMap::from_iter([(
        http::HeaderName::from_static("x-sum"),
        HeaderValue::from_static("abc"),
    )]);
    let sent = trailers.clone();
    let body = Full::new(Bytes::from_static(b"body"))
        .map_err(|never| match never {})
        .with_trailers(async move { Some(Ok(sent)) })
        .boxed();
    let request = Request::post("/dmp/echo")
        .header("x-finess", gateway.tenant(0).as_str())
        .header("te", "trailers")
        .body(body)
        .unwrap();
    let response = client.begin(request).await.unwrap();
    let collected = within(response.into_body().collect()).await.unwrap();
    assert_eq!(collected.trailers(), Some(&trailers));
    assert_eq!(collected.to_bytes(), "body");
}

#[tokio::test]
async fn answers_without_a_body_keep_their_fields_and_the_connections() {
    let (gateway, upstream) = in_front_of(
        &Tls::default(),
        "",
        |mut connection: Connection, _| async move {
            while let Some(head) = connection.head().await {
                let text = match head.split(' ').nth(1) {
                    Some("/head") => {
                        "HTTP/1.1 200 OK\r\ncontent-length: 1234\r\netag: \"x\"\r\n\r\n"
                    }
                    Some("/none") => "HTTP/1.1 204 No Content\r\netag: \"x\"\r\n\r\n",
                    Some("/same") => "HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\n\r\n",
                    _ => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\netag: \"x\"\r\n\r\n",
                };
                connection.write(text).await;
            }
        },
    );
    let mut raw = gateway.raw().await;
    let cases = [
        ("HEAD", "/head", 200),
        ("GET", "/none", 204),
        ("GET", "/same", 304),
        ("GET", "/empty", 200),
    ];
    for (method, path, status) in cases {
        let text = gateway
            .get_bytes(&format!("/up{path}"))
            .replacen("GET", method, 1);
        raw.write(text).await;
        let answer = raw.answer(method == "HEAD").await.unwrap();
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.head.contains("etag: \"x\"\r\n"), "{answer:?}");
        assert_eq!(
            answer.head.contains("content-length: 1234\r\n"),
            path == "/head",
            "{answer:?}"
        );
        assert!(!answer.head.contains("transfer-encoding"), "{answer:?}");
    }
    assert_eq!(upstream.accepted(), 1);
    let mut client = H2c::connect(gateway.address()).await;
    let request = Request::head("/up/head")
        .header("x-finess", gateway.tenant(0).as_str())
        .body(whole(Bytes::new()))
        .unwrap();
    let response = client.begin(request).await.unwrap();
    assert_eq!(response.headers()["content-length"], "1234");
    assert_eq!(upstream.accepted(), 1);
}
