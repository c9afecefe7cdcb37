//! What is not taken up, and how that is said.

use super::*;

#[tokio::test]
async fn a_configuration_with_an_error_changes_nothing_of_it_and_says_where_it_is() {
    let gateway = start(&[DMP, ROC]);
    works(&gateway, "dmp").await;
    let tenant = sample_finess(70);
    let before = edit(&gateway, |text| {
        drop(cut(text, "roc"));
        with(text, "dmp", "retry = \"perhaps\"");
    });
    let issued = gateway
        .site
        .pki
        .issue(&pki::Request::new(&format!("1{tenant}"), "Nouveau"));
    put(&gateway.path().join("certs/new.pem"), issued.pem());
    let report = reload(&gateway).await;
    assert_eq!(report.added.len(), 1, "certificates do not wait for it");
    assert!(report.configuration.is_empty(), "{report:?}");
    let [problem] = &report.problems[..] else {
        panic!("{report:?}");
    };
    let text = fs::read_to_string(&gateway.site.configuration).unwrap();
    let line = 1 + text
        .lines()
        .position(|line| line.contains("perhaps"))
        .unwrap();
    let place = format!("{}:{line}:", gateway.site.configuration.display());
    assert!(problem.file.starts_with(&place), "{problem:?}");
    assert!(problem.reason.contains("services.dmp.retry"), "{problem:?}");
    let partial = gateway.metric("relais_reload_total", &["outcome=\"partial\""]);
    assert_eq!(partial, 1.0);
    assert_eq!(
        outcome(&gateway, tenant, "roc").await.as_deref(),
        Ok("Nouveau")
    );
    works(&gateway, "dmp").await;
    assert_eq!(handshakes(&gateway, 0), 1, "what is in use stays");

    for bad in ["environment = ", ""] {
        put(&gateway.site.configuration, bad);
        assert!(!reload(&gateway).await.problems.is_empty(), "{bad}");
        works(&gateway, "roc").await;
    }
    fs::remove_file(&gateway.site.configuration).unwrap();
    let report = reload(&gateway).await;
    assert!(
        report.problems[0].reason.contains("not readable"),
        "{report:?}"
    );
    put(&gateway.site.configuration, before);
    let report = reload(&gateway).await;
    assert!(!report.changed && report.problems.is_empty(), "{report:?}");
}

#[tokio::test]
async fn what_a_good_configuration_names_and_cannot_be_had_leaves_the_last_one_in_use() {
    let gateway = start(&[DMP, ROC]);
    let trust = gateway.path().join("trust/broken.pem");
    // PEM of something that is no certificate: the configuration's own look does not tell.
    fs::write(
        &trust,
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    let before = edit(&gateway, |text| {
        drop(cut(text, "roc"));
        *text = text.replace(TRUST, "trust/broken.pem");
    });
    let report = reload(&gateway).await;
    assert!(
        !report.changed && report.configuration.is_empty(),
        "{report:?}"
    );
    assert!(
        report.problems[0].reason.contains("broken.pem"),
        "{report:?}"
    );
    works(&gateway, "roc").await;
    put(&gateway.site.configuration, before);
    edit(&gateway, |text| {
        *text = text.replace(
            FOLDER,
            &format!("{FOLDER}\npassword_env = \"RELAIS_NOT_SET\""),
        );
    });
    let report = reload(&gateway).await;
    assert!(
        report.problems[0].reason.contains("`password_env`"),
        "{report:?}"
    );
    works(&gateway, "dmp").await;
}

#[tokio::test]
async fn what_needs_a_restart_is_said_each_time_and_the_rest_is_taken_up() {
    let gateway = start(&[DMP, ROC]);
    let bound = gateway.address();
    edit(&gateway, |text| {
        drop(cut(text, "roc"));
        *text = text.replacen("127.0.0.1:0", "127.0.0.1:18081", 1);
        text.push_str(
            "\n[[listeners]]\naddress = \"unix:second.sock\"\n[limits]\nrequest_head = \"64KiB\"\n",
        );
        *text = format!("workers = 3\n{text}").replace("access.log", "other.log");
    });
    for changed in [true, false] {
        let report = reload(&gateway).await;
        assert_eq!(report.changed, changed);
        let said = |key: &str| {
            let mut found = report.restart.iter().filter(|one| one.key == key);
            let found = found
                .next()
                .unwrap_or_else(|| panic!("{key} in {report:?}"));
            (found.running.clone(), found.configured.clone())
        };
        let pair = |one: &str, other: &str| (one.to_owned(), other.to_owned());
        assert_eq!(
            said("listeners[0].address"),
            pair("127.0.0.1:0", "127.0.0.1:18081")
        );
        let (running, configured) = said("listeners[1].address");
        assert!(
            running == "none" && configured.ends_with("second.sock"),
            "{configured}"
        );
        assert_eq!(said("workers").1, "3");
        assert_eq!(said("limits.request_head"), pair("32.0 KiB", "64.0 KiB"));
        assert!(said("log.access").1.ends_with("other.log"));
        assert_eq!(report.restart.len(), 5, "{report:?}");
        assert!(report.problems.is_empty(), "{report:?}");
    }
    assert_eq!(gateway.address(), bound);
    works(&gateway, "dmp").await;
    assert_eq!(
        outcome(&gateway, gateway.tenant(0), "roc").await,
        refused("service_unknown")
    );
    assert_eq!(gateway.log().len(), 2, "the log is where it was");
    let (code, text) = command(&gateway, &["reload"]);
    assert_eq!(code, Some(0), "{text}");
    let line = "restart needed  listeners[0].address: 127.0.0.1:0 is in use, 127.0.0.1:18081 is configured\n";
    assert!(text.contains(line), "{text}");
}

#[test]
fn the_command_tells_what_is_wrong_with_a_configuration_that_a_gateway_does_not_take_up() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap().to_string();
    drop(port);
    let gateway = start_with(1, &[DMP], |text| {
        manual(text);
        let admin = "[admin]\naddress = \"";
        *text = text.replace(&format!("{admin}127.0.0.1:0"), &format!("{admin}{address}"));
    });
    edit(&gateway, |text| with(text, "dmp", "retry = \"perhaps\""));
    // It finds the gateway by the same file.
    let output = Command::new(env!("CARGO_BIN_EXE_relais"))
        .args(["reload", "--config"])
        .arg(&gateway.site.configuration)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(
        text.starts_with("error: ") && text.contains("services.dmp.retry: found"),
        "{text}"
    );
    assert!(text.contains("nothing has changed; "), "{text}");
}

#[test]
fn a_configuration_is_read_again_with_the_variables_that_it_was_read_with_first() {
    let directory = tempfile::tempdir().unwrap();
    let site = Site::build(directory.path(), 1, &[DMP], Ports::default()).unwrap();
    let text = fs::read_to_string(&site.configuration).unwrap();
    let variables = [("RELAIS__SERVICES__DMP__RETRY", "never"), ("PATH", "/")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let first = Config::from_toml(&text, &site.configuration, variables)
        .unwrap()
        .config;
    assert_eq!(first.services[0].retry, Retry::Never);
    assert_eq!(first.load_again().unwrap().config, first);
}

#[tokio::test]
async fn a_file_that_has_lost_its_callers_opens_nothing_before_a_restart() {
    let caller = format!(
        "\n[[callers]]\nname = \"dui\"\ntenants = [\"*\"]\nservices = [\"*\"]\ntokens = [\"{}\"]\n",
        TokenHash::of(b"relais_x")
    );
    let gateway = start_with(1, &[DMP], |text| {
        manual(text);
        text.push_str(&caller);
    });
    let refused = async || gateway.get(gateway.tenant(0), "/dmp/x").await.code();
    assert_eq!(refused().await, "caller_unauthenticated");
    let whole = edit(&gateway, |text| *text = text.replace(&caller, ""));
    let report = reload(&gateway).await;
    let [restart] = &report.restart[..] else {
        panic!("{report:?}");
    };
    let told = (&*restart.key, &*restart.running, &*restart.configured);
    assert_eq!(told, ("callers", "1", "none"));
    assert_eq!(refused().await, "caller_unauthenticated");
    put(&gateway.site.configuration, whole);
    assert!(reload(&gateway).await.restart.is_empty());
}

/// T6.
#[tokio::test]
async fn a_service_that_loses_its_trust_or_owner_keeps_them_before_a_restart() {
    const PSC: &str = "[services.psc]\n";
    let gateway = start_with(1, &[Stand::new("psc")], |text| {
        manual(text);
        *text = text.replace(PSC, &format!("{PSC}owner = \"structure\"\n"));
    });
    let whole = fs::read_to_string(&gateway.site.configuration).unwrap();
    let is_kept = |line: &&str| !line.starts_with("trust = ") && !line.starts_with("owner = ");
    let half: Vec<_> = whole.lines().filter(is_kept).collect();
    put(&gateway.site.configuration, half.join("\n"));
    let report = reload(&gateway).await;
    let told: Vec<_> = (report.restart.iter()).map(|one| &*one.key).collect();
    assert!(told.contains(&"services.psc.trust"), "{report:?}");
    assert!(told.contains(&"services.psc.owner"), "{report:?}");
    let answer = gateway.get(gateway.tenant(0), "/psc/x").await;
    assert_eq!(answer.status(), 200, "{answer:?}");
}

#[tokio::test]
async fn half_of_a_file_widens_nothing_before_a_restart() {
    let (gateway, ()) = start_on(2, &[DMP], |site, text| {
        manual(text);
        let now = jiff::Timestamp::now().as_second();
        let list = site.pki.revoke(&[&[1]], now - 60, now + 3600);
        fs::write(site.directory.join("aci.crl"), list.der()).unwrap();
        text.push_str(&format!(
            "[revocation]\ncrls = [\"aci.crl\"]\ntrust = \"{TRUST}\"\nunknown = \"refuse\"\n\
             [[listeners]]\naddress = \"unix:bound.sock\"\nservice = \"dmp\"\ntenant = \"{}\"\n",
            sample_finess(0)
        ));
    });
    let whole = fs::read_to_string(&gateway.site.configuration).unwrap();
    let ListenAddress::Unix(socket) = &gateway.addresses[1] else {
        panic!("the second listener is a socket")
    };
    let asked = async |tenant: usize| {
        let stream = within(tokio::net::UnixStream::connect(socket)).await;
        let mut raw = Raw::over(stream.unwrap());
        let tenant = sample_finess(tenant);
        raw.write(format!(
            "GET /x HTTP/1.1\r\nhost: localhost\r\nx-finess: {tenant}\r\n\r\n"
        ))
        .await;
        let answer = raw.answer(false).await.unwrap();
        (answer.status, String::from_utf8(answer.body).unwrap())
    };
    let mut told = Vec::new();
    let begin = whole.find("[revocation]").unwrap();
    let ends = whole.match_indices('\n').map(|(at, _)| at + 1);
    for end in ends.filter(|end| *end >= begin).rev() {
        put(&gateway.site.configuration, &whole[..end]);
        let report = reload(&gateway).await;
        told.extend(report.restart.into_iter().map(|one| one.key));
        let (status, body) = asked(1).await;
        assert_eq!(status, 400, "{}", &whole[begin..end]);
        assert!(body.contains("tenant_ambiguous"), "{body}");
        let (status, body) = asked(0).await;
        assert_eq!(status, 200, "{body}");
        let revocations = gateway.app.revocations.load();
        assert!(revocations.must_know() && revocations.lists()[0].crl.is_some());
    }
    told.dedup();
    for key in [
        "listeners[1].tenant",
        "listeners[1].service",
        "revocation.crls",
        "revocation.trust",
        "revocation.unknown",
    ] {
        assert!(told.iter().any(|one| one == key), "{key} in {told:?}");
    }
    // Another value is no loss.
    let other = whole.replace(
        &format!("tenant = \"{}\"", sample_finess(0)),
        &format!("tenant = \"{}\"", sample_finess(1)),
    );
    put(&gateway.site.configuration, other);
    let report = reload(&gateway).await;
    assert!(report.restart.is_empty(), "{report:?}");
    assert_eq!(asked(1).await.0, 200);
}
