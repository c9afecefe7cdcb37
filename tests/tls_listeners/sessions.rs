//! Sessions: what may be resumed, and where.

use super::*;

/// Opens a connection, reads what comes with an answer, and tells how the handshake went.
async fn kind(secured: &Secured, listener: usize, config: &Arc<ClientConfig>) -> HandshakeKind {
    let stream = open(secured.address(listener), config, NAME).await.unwrap();
    let mut raw = Raw::over(stream);
    assert_eq!(secured.ask_on(&mut raw).await.unwrap().0, 200);
    raw.stream.get_ref().1.handshake_kind().unwrap()
}

/// T10: CVE-2025-23419, CVE-2025-23048.
#[tokio::test]
async fn no_session_is_resumed_where_certificates_are_asked_for() {
    let listeners = [
        "client_authorities = \"clients.pem\"",
        "client_authorities = \"clients.pem\"\nclient_certificate = \"optional\"",
    ];
    let secured = secured(&listeners, "");
    let known = application(&secured.clients, "host-1");
    for listener in 0..listeners.len() {
        for versions in [ONLY_12, ONLY_13] {
            let pki = &secured.gateway.site.pki;
            let config = application_config(pki, versions, &["http/1.1"], Some(&known));
            for _ in 0..3 {
                let kind = kind(&secured, listener, &config).await;
                assert_eq!(kind, HandshakeKind::Full, "{listener} {versions:?}");
            }
        }
    }
}

/// T10: a listener's own keys of tickets are all that tells its sessions from another's.
#[tokio::test]
async fn a_session_is_resumed_on_the_listener_on_which_it_began_and_on_no_other() {
    let secured = secured(&["", ""], "");
    for versions in [ONLY_12, ONLY_13] {
        let config = application_config(&secured.gateway.site.pki, versions, &["http/1.1"], None);
        assert_eq!(kind(&secured, 0, &config).await, HandshakeKind::Full);
        assert_eq!(kind(&secured, 0, &config).await, HandshakeKind::Resumed);
        assert_eq!(
            kind(&secured, 1, &config).await,
            HandshakeKind::Full,
            "{versions:?}"
        );
        assert_eq!(kind(&secured, 1, &config).await, HandshakeKind::Resumed);
    }
}

#[tokio::test]
async fn a_session_does_not_outlive_the_certificate_under_which_it_began() {
    let secured = secured(&[""], "");
    for versions in [ONLY_12, ONLY_13] {
        let config = application_config(&secured.gateway.site.pki, versions, &["http/1.1"], None);
        assert_eq!(kind(&secured, 0, &config).await, HandshakeKind::Full);
        // What has not changed costs no session.
        secured.reload().await;
        assert_eq!(kind(&secured, 0, &config).await, HandshakeKind::Resumed);
        put_server(&secured.folder, &server(&secured.gateway.site.pki, &[NAME]));
        secured.reload().await;
        assert_eq!(kind(&secured, 0, &config).await, HandshakeKind::Full);
    }
}

#[tokio::test]
async fn sessions_from_before_certificates_were_asked_for_are_not_resumed_after() {
    for versions in [ONLY_12, ONLY_13] {
        // Each on its own: what is asked for stays until a restart.
        let secured = secured(&[""], "");
        let known = application(&secured.clients, "host-1");
        let pki = &secured.gateway.site.pki;
        let config = application_config(pki, versions, &["http/1.1"], Some(&known));
        assert_eq!(kind(&secured, 0, &config).await, HandshakeKind::Full);
        assert_eq!(kind(&secured, 0, &config).await, HandshakeKind::Resumed);
        let key = "key = \"relais.key\"";
        let asking = format!("{key}\nclient_authorities = \"clients.pem\"");
        secured.edit(key, &asking);
        assert!(secured.reload().await.restart.is_empty());
        assert_eq!(kind(&secured, 0, &config).await, HandshakeKind::Full);
        assert_eq!(secured.ask(None).await, None, "one is asked for now");
    }
}
