//! Certificates of applications: who is recognised, and who gets in at all.

use super::*;

const ASKED: &str = "client_authorities = \"clients.pem\"";
const OPTIONAL: &str = "client_authorities = \"clients.pem\"\nclient_certificate = \"optional\"";

#[tokio::test]
async fn a_caller_is_recognised_by_the_fingerprint_and_by_the_subject_of_its_certificate() {
    let clients = Pki::new(Environment::Test);
    let (first, second, third) = (
        application(&clients, "host-1"),
        application(&clients, "host-2"),
        application(&clients, "host-3"),
    );
    let fingerprint = relais::identity::profile::Fingerprint::of(&first.cert_der);
    let subject = relais::identity::profile::Profile::parse(&second.cert_der)
        .unwrap()
        .subject;
    let callers = caller(
        "by-fingerprint",
        &format!("fingerprint = \"{fingerprint}\""),
    ) + &caller("by-subject", &format!("subject = {subject:?}"));
    let secured = secured_by(clients, &[ASKED], &callers);

    for one in [&first, &second] {
        let (status, body) = secured.ask(Some(one)).await.unwrap();
        assert_eq!(status, 200, "{body}");
    }
    // It renews its certificate under the same name.
    let renewed = application(&secured.clients, "host-2");
    assert_eq!(secured.ask(Some(&renewed)).await.unwrap().0, 200);
    // A good certificate makes nobody a caller.
    let (status, body) = secured.ask(Some(&third)).await.unwrap();
    assert_eq!(status, 407);
    assert!(body.contains("caller_unauthenticated"), "{body}");
    let named: Vec<_> = (secured.gateway.log().iter())
        .map(|line| line["caller"].as_str().unwrap_or("-").to_owned())
        .collect();
    assert_eq!(named, ["by-fingerprint", "by-subject", "by-subject", "-"]);
}

#[tokio::test]
async fn a_required_certificate_may_not_be_missing_and_an_optional_one_may() {
    let clients = Pki::new(Environment::Test);
    let first = application(&clients, "host-1");
    let fingerprint = relais::identity::profile::Fingerprint::of(&first.cert_der);
    let callers = caller("host-1", &format!("fingerprint = \"{fingerprint}\""));

    let required = secured(&[ASKED], "");
    assert_eq!(required.ask(None).await, None);
    let known = application(&required.clients, "anybody");
    assert_eq!(required.ask(Some(&known)).await.unwrap().0, 200);

    let optional = secured_by(clients, &[OPTIONAL], &callers);
    assert_eq!(optional.ask(None).await.unwrap().0, 407, "nobody's");
    assert_eq!(optional.ask(Some(&first)).await.unwrap().0, 200);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_verified_is_refused_even_where_none_is_needed() {
    let stranger = Pki::new(Environment::Test);
    for listener in [ASKED, OPTIONAL] {
        let secured = secured(&[listener], "");
        let namesake = application(&stranger, "host-1");
        assert_eq!(secured.ask(Some(&namesake)).await, None, "{listener}");
        // One for servers is none for clients.
        let server = server(&secured.clients, &[NAME]);
        assert_eq!(secured.ask(Some(&server)).await, None, "{listener}");
        let ended = secured.clients.issue(&Order {
            not_before: Some(1_600_000_000),
            not_after: Some(1_700_000_000),
            ..Order::new("3187512751", "host-1")
        });
        assert_eq!(secured.ask(Some(&ended)).await, None, "{listener}");
        let good = application(&secured.clients, "host-1");
        assert_eq!(secured.ask(Some(&good)).await.unwrap().0, 200, "{listener}");
    }
}

#[tokio::test]
async fn a_revoked_certificate_opens_no_connection_from_the_reload_on() {
    let clients = Pki::new(Environment::Test);
    let (first, second) = (
        application(&clients, "host-1"),
        application(&clients, "host-2"),
    );
    let secured = secured_by(
        clients,
        &[&format!("{ASKED}\ncrls = [\"clients.crl\"]")],
        "",
    );
    let mut open_before = secured.open(&secured.config(Some(&first))).await.unwrap();
    assert_eq!(secured.ask_on(&mut open_before).await.unwrap().0, 200);

    let list = revoked(&secured.clients, &[&first.serial()]);
    fs::write(secured.folder.join("clients.crl"), list).unwrap();
    assert!(secured.reload().await.changed);
    assert_eq!(secured.ask(Some(&first)).await, None, "revoked");
    assert_eq!(secured.ask(Some(&second)).await.unwrap().0, 200);
    // As the reference says: what is open goes on, and [[callers]] decide on each of its requests.
    assert_eq!(secured.ask_on(&mut open_before).await.unwrap().0, 200);

    // A list that is no list leaves the last one in force.
    fs::write(secured.folder.join("clients.crl"), "none").unwrap();
    let report = secured.reload().await;
    assert_eq!(report.problems.len(), 1, "{report:?}");
    assert_eq!(secured.ask(Some(&first)).await, None, "still revoked");
}

#[tokio::test]
async fn a_connection_from_before_certificates_were_required_is_no_caller_by_its_listener() {
    let token = relais::gateway::caller::new_token().unwrap();
    let hash = relais::gateway::caller::TokenHash::of(token.as_bytes());
    let by_token = caller("dui", &format!("tokens = [\"{hash}\"]"));
    let secured = secured(&["# of applications"], &by_token);
    let mut open_before = secured.open(&secured.config(None)).await.unwrap();
    assert_eq!(secured.ask_on(&mut open_before).await.unwrap().0, 407);

    secured.edit("# of applications", ASKED);
    let by_listener = of_listener(&secured);
    secured.edit(&by_token, &(by_token.clone() + &by_listener));
    let report = secured.reload().await;
    assert!(report.changed && report.problems.is_empty(), "{report:?}");
    assert_eq!(secured.ask(None).await, None);
    let known = application(&secured.clients, "host-1");
    assert_eq!(secured.ask(Some(&known)).await.unwrap().0, 200);
    assert_eq!(secured.ask_on(&mut open_before).await.unwrap().0, 407);
    // What it shows in its requests counts as before.
    let host = format!("host: {NAME}\r\nx-relais-token: {}", *token);
    let request = secured.request(NAME);
    (open_before.write(request.replace(&format!("host: {NAME}"), &host))).await;
    assert_eq!(open_before.answer(false).await.unwrap().status, 200);
}

/// Holds the handshake of `shown` open while `change` is reloaded. Whether its connection is served then.
async fn is_served_after(secured: &Secured, shown: Option<&Issued>, change: impl FnOnce()) -> bool {
    let relay = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, listener) = (relay.local_addr().unwrap(), secured.address(0));
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let (go_on, may_go_on) = tokio::sync::oneshot::channel::<()>();
    let relaying = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        let (mut application, _) = relay.accept().await.unwrap();
        let mut gateway = TcpStream::connect(listener).await.unwrap();
        let mut hello = vec![0; 4096];
        let length = application.read(&mut hello).await.unwrap();
        gateway.write_all(&hello[..length]).await.unwrap();
        // Once it answers, the terms of this handshake are settled.
        gateway.readable().await.unwrap();
        begun.send(()).unwrap();
        may_go_on.await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut application, &mut gateway).await;
    });
    let config = secured.config(shown);
    let opening = tokio::spawn(async move { open(address, &config, NAME).await });
    within(has_begun).await.unwrap();
    change();
    assert!(secured.reload().await.changed);
    go_on.send(()).unwrap();
    let served = match within(opening).await.unwrap() {
        Ok(stream) => secured.ask_on(&mut Raw::over(stream)).await.is_some(),
        Err(_) => false,
    };
    relaying.abort();
    served
}

#[tokio::test]
async fn a_handshake_that_is_held_open_over_a_revocation_opens_no_connection() {
    let clients = Pki::new(Environment::Test);
    let shown = application(&clients, "host-1");
    let keys = format!("{ASKED}\ncrls = [\"clients.crl\"]");
    let secured = secured_by(clients, &[&keys], "");
    // A renewal of the listener's own certificate is not noticed.
    let renewed = server(&secured.gateway.site.pki, &[NAME, "other.test"]);
    let renew = || put_server(&secured.folder, &renewed);
    assert!(is_served_after(&secured, Some(&shown), renew).await);
    let list = revoked(&secured.clients, &[&shown.serial()]);
    let revoke = || fs::write(secured.folder.join("clients.crl"), list).unwrap();
    assert!(!is_served_after(&secured, Some(&shown), revoke).await);
}

#[tokio::test]
async fn a_handshake_without_a_certificate_that_is_held_open_until_one_is_required_opens_nothing() {
    let secured = secured(&[OPTIONAL], "");
    let renewed = server(&secured.gateway.site.pki, &[NAME, "other.test"]);
    let renew = || put_server(&secured.folder, &renewed);
    assert!(is_served_after(&secured, None, renew).await);
    let require = || secured.edit("client_certificate = \"optional\"\n", "");
    assert!(!is_served_after(&secured, None, require).await);
}

#[tokio::test]
async fn where_there_are_lists_a_certificate_of_which_none_speaks_is_refused() {
    let secured = secured(&[&format!("{ASKED}\ncrls = [\"clients.crl\"]")], "");
    let known = application(&secured.clients, "host-1");
    assert_eq!(secured.ask(Some(&known)).await.unwrap().0, 200);
    // Another authority is taken, and its list forgotten.
    let other = Pki::new(Environment::Production);
    let both = secured.clients.authority_pem() + &other.authority_pem();
    fs::write(secured.folder.join("clients.pem"), both).unwrap();
    assert!(secured.reload().await.changed);
    assert_eq!(
        secured.ask(Some(&application(&other, "host-1"))).await,
        None
    );
    assert_eq!(secured.ask(Some(&known)).await.unwrap().0, 200);
}

#[tokio::test]
async fn whoever_is_no_caller_any_more_is_refused_on_the_connection_that_is_open() {
    let clients = Pki::new(Environment::Test);
    let (first, second) = (
        application(&clients, "host-1"),
        application(&clients, "host-2"),
    );
    let proof = |one: &Issued| {
        let fingerprint = relais::identity::profile::Fingerprint::of(&one.cert_der);
        format!("fingerprint = \"{fingerprint}\"")
    };
    let (one, other) = (proof(&first), proof(&second));
    let secured = secured_by(clients, &[ASKED], &caller("host", &one));
    let mut raw = secured.open(&secured.config(Some(&first))).await.unwrap();
    assert_eq!(secured.ask_on(&mut raw).await.unwrap().0, 200);
    secured.edit(&one, &other);
    secured.reload().await;
    assert_eq!(secured.ask_on(&mut raw).await.unwrap().0, 407);
}

#[tokio::test]
async fn an_authority_that_is_removed_opens_no_connection_any_more() {
    let secured = secured(&[ASKED], "");
    let known = application(&secured.clients, "host-1");
    assert_eq!(secured.ask(Some(&known)).await.unwrap().0, 200);
    let next = Pki::new(Environment::Test);
    fs::write(secured.folder.join("clients.pem"), next.authority_pem()).unwrap();
    assert!(secured.reload().await.changed);
    assert_eq!(secured.ask(Some(&known)).await, None);
    let new = application(&next, "host-1");
    assert_eq!(secured.ask(Some(&new)).await.unwrap().0, 200);
}
