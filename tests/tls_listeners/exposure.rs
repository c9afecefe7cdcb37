//! Listeners that other machines can reach.

use super::*;

/// A port that was free a moment ago: what is bound to all addresses is found by its address in the configuration.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn exposed(tls: &str, callers: &str) -> Result<(TestGateway, String), String> {
    let directory = tempfile::tempdir().unwrap();
    let (site, text) = {
        let site = relais::simulator::site::Site::build(
            directory.path(),
            1,
            &[Stand::new("dmp")],
            relais::simulator::site::Ports::default(),
        )
        .unwrap();
        put_server(&site.directory, &server(&site.pki, &[NAME]));
        let text = fs::read_to_string(&site.configuration).unwrap();
        (site, text)
    };
    let address = format!("0.0.0.0:{}", free_port());
    let listener = format!("[[listeners]]\naddress = \"{address}\"\n{tls}\n[identities]");
    let edit = |text: &str| text.replacen("[identities]", &listener, 1) + callers;
    fs::write(&site.configuration, edit(&text)).unwrap();
    relais::config::Config::load(&site.configuration).map_err(|problems| problems.to_string())?;
    let (gateway, ()) = start_on(1, &[Stand::new("dmp")], |site, text| {
        put_server(&site.directory, &server(&site.pki, &[NAME]));
        *text = edit(text);
    });
    Ok((gateway, address))
}

const TLS: &str = "tls = { certificate = \"relais.pem\", key = \"relais.key\" }";

#[tokio::test]
async fn an_address_that_other_machines_reach_needs_tls_and_callers() {
    let token = relais::gateway::caller::new_token().unwrap();
    let hash = relais::gateway::caller::TokenHash::of(token.as_bytes());
    let callers = caller("dui", &format!("tokens = [\"{hash}\"]"));
    for (tls, callers, missing) in [
        ("", "", "[listeners.tls] and [[callers]]"),
        ("", &*callers, "[listeners.tls]"),
        (TLS, "", "[[callers]]"),
    ] {
        let said = exposed(tls, callers).map(drop).unwrap_err();
        assert!(said.contains("expected a loopback address"), "{said}");
        assert!(
            said.contains(&format!("other addresses take {missing}")),
            "{said}"
        );
    }
    let (gateway, _) = exposed(TLS, &callers).unwrap();
    let ListenAddress::Tcp(address) = gateway.addresses[1] else {
        panic!("a TCP listener")
    };
    let address = SocketAddr::from(([127, 0, 0, 1], address.port()));
    let config = application_config(&gateway.site.pki, BOTH, &["http/1.1"], None);
    for (shown, expected) in [(None, 407), (Some(&*token), 200)] {
        let mut raw = Raw::over(open(address, &config, NAME).await.unwrap());
        let field = shown.map(|token| format!("\r\nx-relais-token: {token}"));
        let host = format!("host: {NAME}{}", field.unwrap_or_default());
        raw.write(
            gateway
                .get_bytes("/dmp/x")
                .replace("host: localhost", &host),
        )
        .await;
        assert_eq!(raw.answer(false).await.unwrap().status, expected);
    }
}

#[tokio::test]
async fn callers_stay_as_long_as_a_listener_is_bound_that_other_machines_reach() {
    let token = relais::gateway::caller::new_token().unwrap();
    let hash = relais::gateway::caller::TokenHash::of(token.as_bytes());
    let callers = caller("dui", &format!("tokens = [\"{hash}\"]"));
    let (gateway, address) = exposed(TLS, &callers).unwrap();
    // The file by itself is in order: it binds loopback addresses alone.
    let path = &gateway.site.configuration;
    let text = fs::read_to_string(path).unwrap();
    let listener = format!("[[listeners]]\naddress = \"{address}\"\n{TLS}\n");
    let text = text.replace(&listener, "").replace(&callers, "");
    assert!(
        !text.contains("callers") && !text.contains(&address),
        "{text}"
    );
    fs::write(path, text).unwrap();
    let report = within(gateway.app.reload()).await.unwrap();
    assert!(
        report.restart.iter().any(|one| one.key == "callers"),
        "{report:?}"
    );

    let ListenAddress::Tcp(bound) = gateway.addresses[1] else {
        panic!("a TCP listener")
    };
    let config = application_config(&gateway.site.pki, BOTH, &["http/1.1"], None);
    let address = SocketAddr::from(([127, 0, 0, 1], bound.port()));
    let mut raw = Raw::over(open(address, &config, NAME).await.unwrap());
    raw.write(gateway.get_bytes("/dmp/x").replace("localhost", NAME))
        .await;
    assert_eq!(raw.answer(false).await.unwrap().status, 407);
}
