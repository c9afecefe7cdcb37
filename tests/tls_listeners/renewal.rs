//! Files that change while the gateway runs.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

#[tokio::test]
async fn a_renewed_certificate_is_shown_from_then_on_and_open_connections_go_on() {
    let secured = secured(&["", ""], "");
    let config = secured.config(None);
    let mut old = secured.open(&config).await.unwrap();
    assert_eq!(secured.ask_on(&mut old).await.unwrap().0, 200);
    let before = shown(&old);

    let renewed = server(&secured.gateway.site.pki, &[NAME, "other.test"]);
    put_server(&secured.folder, &renewed);
    let report = secured.reload().await;
    assert!(report.changed && report.problems.is_empty(), "{report:?}");
    let pools: Vec<_> = secured.gateway.app.outbound.pools();
    let new = secured.open(&config).await.unwrap();
    assert_eq!(shown(&new), renewed.cert_der.to_vec());
    assert_ne!(shown(&new), before);
    assert_eq!(secured.ask_on(&mut old).await.unwrap().0, 200, "open");
    // The connections to services have nothing to do with it.
    assert_eq!(secured.gateway.app.outbound.pools().len(), pools.len());

    assert!(!secured.reload().await.changed, "read again for nothing");
}

#[tokio::test]
async fn a_certificate_that_is_renewed_on_disk_is_taken_up_unasked() {
    let secured = secured(&[""], "");
    secured.edit("reload = \"manual\"", "reload = \"auto\"");
    secured.reload().await;
    let renewed = server(&secured.gateway.site.pki, &[NAME]);
    put_server(&secured.folder, &renewed);
    let config = secured.config(None);
    let until = std::time::Instant::now() + support::DEADLINE;
    loop {
        let raw = secured.open(&config).await.unwrap();
        if shown(&raw) == renewed.cert_der.to_vec() {
            break;
        }
        assert!(std::time::Instant::now() < until, "never taken up");
    }
}

/// T6.
#[tokio::test]
async fn a_pair_that_is_not_in_order_leaves_the_last_good_one_and_is_told_of() {
    let secured = secured(&[""], "");
    let config = secured.config(None);
    let before = shown(&secured.open(&config).await.unwrap());
    let pki = &secured.gateway.site.pki;
    let (good, other) = (server(pki, &[NAME]), server(pki, &[NAME]));
    let ended = pki.issue(&Order {
        purpose: Purpose::SslServer(vec![NAME.to_owned()]),
        not_before: Some(1_600_000_000),
        not_after: Some(1_700_000_000),
        ..Order::new("3187512751", NAME)
    });
    let (chain, key) = (good.chain_pem(), good.key_pem());
    let cases = [
        (
            "another's key",
            chain.clone(),
            other.key_pem(),
            0o600,
            "relais.key",
        ),
        (
            "a key that others read",
            chain.clone(),
            key.clone(),
            0o644,
            "relais.key",
        ),
        (
            "a key cut off",
            chain.clone(),
            key[..200].to_owned(),
            0o600,
            "relais.key",
        ),
        ("no key", chain.clone(), String::new(), 0o600, "relais.key"),
        (
            "a chain cut off",
            chain[..200].to_owned(),
            key.clone(),
            0o600,
            "relais.pem",
        ),
        ("no chain", String::new(), key.clone(), 0o600, "relais.pem"),
        (
            "one that has ended",
            ended.chain_pem(),
            ended.key_pem(),
            0o600,
            "relais.pem",
        ),
    ];
    for (what, chain, key, mode, file) in cases {
        fs::write(secured.folder.join("relais.pem"), chain).unwrap();
        let path = secured.folder.join("relais.key");
        write_private(&path, key).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let report = secured.reload().await;
        assert_eq!(report.problems.len(), 1, "{what}: {report:?}");
        let problem = &report.problems[0];
        assert!(problem.file.ends_with(file), "{what}: {problem:?}");
        assert!(
            !problem.reason.is_empty() && !problem.hint.is_empty(),
            "{what}"
        );
        let told = format!("{report:?}");
        assert!(
            !told.contains("PRIVATE KEY") || what == "a key cut off",
            "{told}"
        );
        assert_eq!(
            shown(&secured.open(&config).await.unwrap()),
            before,
            "{what}"
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    put_server(&secured.folder, &good);
    assert!(secured.reload().await.problems.is_empty());
    let after = shown(&secured.open(&config).await.unwrap());
    assert_eq!(after, good.cert_der.to_vec());
}

#[tokio::test]
async fn a_pair_that_is_not_in_order_keeps_no_revocation_from_being_taken_up_nor_the_other_way_round()
 {
    let secured = secured(
        &["client_authorities = \"clients.pem\"\ncrls = [\"clients.crl\"]"],
        "",
    );
    let (first, second) = (
        application(&secured.clients, "host-1"),
        application(&secured.clients, "host-2"),
    );
    assert_eq!(secured.ask(Some(&first)).await.unwrap().0, 200);
    let key = secured.folder.join("relais.key");
    let allow = |mode| fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
    let only = |report: &relais::app::reload::Report, file: &str| {
        let told = &report.problems[..];
        assert!(told.len() == 1 && told[0].file.ends_with(file), "{told:?}");
    };

    allow(0o644);
    let list = revoked(&secured.clients, &[&first.serial()]);
    fs::write(secured.folder.join("clients.crl"), list).unwrap();
    let report = secured.reload().await;
    only(&report, "relais.key");
    assert!(report.changed, "{report:?}");
    assert_eq!(secured.ask(Some(&first)).await, None, "revoked");
    assert_eq!(secured.ask(Some(&second)).await.unwrap().0, 200);
    // Named anew, what is asked of applications is taken up as well.
    let other = Pki::new(Environment::Test);
    fs::write(secured.folder.join("other.pem"), other.authority_pem()).unwrap();
    secured.edit("clients.pem", "other.pem");
    fs::write(secured.folder.join("clients.crl"), revoked(&other, &[])).unwrap();
    let report = secured.reload().await;
    only(&report, "relais.key");
    assert_eq!(secured.ask(Some(&second)).await, None, "no authority");
    let known = application(&other, "host-1");
    assert_eq!(secured.ask(Some(&known)).await.unwrap().0, 200);

    // A list that is not in order keeps no renewal from being taken up.
    allow(0o600);
    let renewed = server(&secured.gateway.site.pki, &[NAME]);
    put_server(&secured.folder, &renewed);
    fs::write(secured.folder.join("clients.crl"), "none").unwrap();
    only(&secured.reload().await, "clients.crl");
    let raw = secured.open(&secured.config(Some(&known))).await.unwrap();
    assert_eq!(shown(&raw), renewed.cert_der.to_vec());
    assert_eq!(secured.ask(Some(&second)).await, None, "no authority");
}

#[tokio::test]
async fn whether_a_listener_speaks_tls_at_all_needs_a_restart() {
    let secured = secured(&[""], "");
    let tls = "[listeners.tls]\ncertificate = \"relais.pem\"\nkey = \"relais.key\"\n";
    secured.edit(tls, "");
    let report = secured.reload().await;
    let needed = |report: &relais::app::reload::Report| {
        let keys = report.restart.iter();
        let told = keys.map(|one| (one.key.clone(), one.running.clone(), one.configured.clone()));
        told.collect::<Vec<_>>()
    };
    let key = |key: &str, running: &str, configured: &str| {
        vec![(key.to_owned(), running.to_owned(), configured.to_owned())]
    };
    assert_eq!(needed(&report), key("listeners[1].tls", "on", "none"));
    assert_eq!(secured.ask(None).await.unwrap().0, 200, "still TLS");
    let mut clear = Raw::connect(secured.address(0)).await;
    clear.write(secured.request("localhost")).await;
    assert!(!clear.rest().await.starts_with(b"HTTP/"));

    secured.edit(
        "address = \"127.0.0.1:0\"\n",
        &format!("address = \"127.0.0.1:0\"\n{tls}"),
    );
    let report = secured.reload().await;
    let clear = key("listeners[0].tls", "none", "on");
    assert!(needed(&report).contains(&clear[0]), "{report:?}");
    let answer = (secured.gateway.get(secured.gateway.tenant(0), "/dmp/x")).await;
    assert_eq!(answer.status(), 200, "still in clear text");
}

#[tokio::test]
async fn nobody_is_a_caller_by_a_listener_whose_tls_waits_for_a_restart() {
    let token = relais::gateway::caller::new_token().unwrap();
    let hash = relais::gateway::caller::TokenHash::of(token.as_bytes());
    let by_token = caller("dui", &format!("tokens = [\"{hash}\"]"));
    let secured = secured(&[""], &by_token);
    let tenant = secured.gateway.tenant(0);
    let status = async || secured.gateway.get(tenant, "/dmp/x").await.status();
    assert_eq!(status().await, 407);
    secured.edit(
        "address = \"127.0.0.1:0\"\n",
        "address = \"127.0.0.1:0\"\n[listeners.tls]\ncertificate = \"relais.pem\"\nkey = \"relais.key\"\n\
         client_authorities = \"clients.pem\"\n",
    );
    let by_listener = of_listener(&secured).replace("127.0.0.2", "127.0.0.1");
    secured.edit(&by_token, &format!("{by_listener}{by_token}"));
    let report = secured.reload().await;
    let keys: Vec<_> = report.restart.iter().map(|one| &*one.key).collect();
    assert_eq!(keys, ["listeners[0].tls", "callers[0]"], "{report:?}");
    assert_eq!(status().await, 407);
    // It is the only one of the file.
    secured.edit(&by_token, "");
    let report = secured.reload().await;
    let keys: Vec<_> = report.restart.iter().map(|one| &*one.key).collect();
    assert_eq!(
        keys,
        ["listeners[0].tls", "callers[0]", "callers"],
        "{report:?}"
    );
    assert_eq!(status().await, 407);
}

#[tokio::test]
async fn a_caller_by_a_listener_whose_tls_waits_for_a_restart_has_the_rights_that_it_had() {
    let clear = "address = \"127.0.0.1:0\"\n";
    let (gateway, ()) = start_on(2, &[Stand::new("dmp")], |site, text| {
        put_server(&site.directory, &server(&site.pki, &[NAME]));
        *text = text.replacen("[identities]", "[identities]\nreload = \"manual\"", 1);
        let tenant = relais::simulator::site::sample_finess(0);
        text.push_str(&format!(
            "\n[[callers]]\nname = \"site\"\nlistener = \"127.0.0.1:0\"\ntenants = [\"{tenant}\"]\nservices = [\"*\"]\n"
        ));
    });
    let (first, second) = (gateway.tenant(0), gateway.tenant(1));
    let path = &gateway.site.configuration;
    let text = fs::read_to_string(path).unwrap();
    let tls =
        format!("{clear}[listeners.tls]\ncertificate = \"relais.pem\"\nkey = \"relais.key\"\n");
    let text = text.replacen(clear, &tls, 1);
    let of = |tenant| format!("tenants = [\"{tenant}\"]\nservices");
    fs::write(path, text.replace(&of(first), &of(second))).unwrap();
    let report = within(gateway.app.reload()).await.unwrap();
    assert!(
        report.restart.iter().any(|one| one.key == "callers[0]"),
        "{report:?}"
    );
    assert_eq!(gateway.get(first, "/dmp/x").await.status(), 200);
    assert_eq!(gateway.get(second, "/dmp/x").await.status(), 403);
}

/// T6.
#[tokio::test]
async fn what_a_listener_asks_of_applications_stays_when_it_goes_from_the_file() {
    const ASKED: &str = "client_authorities = \"clients.pem\"\n";
    const CRLS: &str = "crls = [\"clients.crl\"]\n";
    let secured = secured(&[&format!("{ASKED}{CRLS}")], "");
    let known = application(&secured.clients, "host-1");
    let revoked_one = application(&secured.clients, "host-2");
    let list = revoked(&secured.clients, &[&revoked_one.serial()]);
    fs::write(secured.folder.join("clients.crl"), list).unwrap();
    assert!(secured.reload().await.changed);
    for (lost, key) in [
        (CRLS, "listeners[1].tls.crls"),
        (ASKED, "listeners[1].tls.client_authorities"),
    ] {
        secured.edit(lost, "");
        let report = secured.reload().await;
        assert!(!report.changed, "{report:?}");
        assert_eq!(report.restart[0].key, key);
        assert_eq!(secured.ask(None).await, None, "{key}");
        assert_eq!(secured.ask(Some(&revoked_one)).await, None, "{key}");
        assert_eq!(secured.ask(Some(&known)).await.unwrap().0, 200, "{key}");
    }
    let other = Pki::new(Environment::Test);
    fs::write(secured.folder.join("other.pem"), other.authority_pem()).unwrap();
    let key = "key = \"relais.key\"\n";
    secured.edit(key, &format!("{key}client_authorities = \"other.pem\"\n"));
    fs::write(secured.folder.join("other.crl"), revoked(&other, &[])).unwrap();
    secured.edit("other.pem\"\n", "other.pem\"\ncrls = [\"other.crl\"]\n");
    assert!(secured.reload().await.restart.is_empty(), "replaced");
    assert_eq!(secured.ask(Some(&known)).await, None);
    let known = application(&other, "host-1");
    assert_eq!(secured.ask(Some(&known)).await.unwrap().0, 200);
}

#[tokio::test]
async fn keys_that_cannot_be_followed_keep_the_whole_configuration_from_being_taken_up() {
    let optional = "client_authorities = \"clients.pem\"\nclient_certificate = \"optional\"";
    let secured = secured(&[optional], "");
    assert_eq!(secured.ask(None).await.unwrap().0, 200);
    // Whoever connects would be the caller, if the authorities that are to vouch for it did not matter.
    fs::write(secured.folder.join("clients.pem"), "none").unwrap();
    secured.edit("\nclient_certificate = \"optional\"", "");
    let path = &secured.gateway.site.configuration;
    let text = fs::read_to_string(path).unwrap() + &of_listener(&secured);
    fs::write(path, text).unwrap();
    let report = secured.reload().await;
    assert!(!report.changed, "{report:?}");
    let reasons = report.problems.iter().map(|one| &*one.reason);
    let told = reasons.collect::<Vec<_>>().join("\n");
    assert!(told.contains("it cannot be taken up"), "{told}");
    secured.ask(None).await.unwrap();
    assert_eq!(secured.gateway.log()[1]["caller"].as_str(), None);

    fs::write(
        secured.folder.join("clients.pem"),
        secured.clients.authority_pem(),
    )
    .unwrap();
    assert!(secured.reload().await.problems.is_empty());
    assert_eq!(secured.ask(None).await, None, "one is needed now");
}

#[test]
fn a_gateway_whose_listener_has_no_certificate_in_order_does_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let site = relais::simulator::site::Site::build(
        directory.path(),
        1,
        &[Stand::new("dmp")],
        relais::simulator::site::Ports::default(),
    )
    .unwrap();
    let own = server(&site.pki, &[NAME]);
    put_server(&site.directory, &own);
    write_private(
        &site.directory.join("relais.key"),
        server(&site.pki, &[NAME]).key_pem(),
    )
    .unwrap();
    let text = fs::read_to_string(&site.configuration).unwrap();
    let listener = "[[listeners]]\naddress = \"127.0.0.1:0\"\n\
                    tls = { certificate = \"relais.pem\", key = \"relais.key\" }\n[identities]";
    let text = text.replacen("[identities]", listener, 1);
    fs::write(&site.configuration, text).unwrap();
    let loaded = relais::config::Config::load(&site.configuration).unwrap();
    let said = format!("{:#}", relais::app::bind(loaded.config).unwrap_err());
    assert!(said.contains("TLS of 127.0.0.1:0"), "{said}");
    assert!(said.contains("relais.key"), "{said}");
}
