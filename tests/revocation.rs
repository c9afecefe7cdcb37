//! Certificates that their authority has revoked: a service's is not believed, Relais's own is reported.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use std::sync::Arc;

use jiff::Timestamp;
use relais::identity::profile::Profile;
use relais::services::Environment;
use relais::simulator::pki::{self, Pki, Request};
use relais::simulator::site::{Site, Stand, sample_finess};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use support::upstream::{BOTH, Connection, ONLY_12, ONLY_13, Tls, Upstream};
use support::{TestGateway, eventually, is_answered, start_on, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// The serial number of the server that is revoked.
const REVOKED: [u8; 16] = [0x51; 16];

fn server() -> Tls {
    Tls {
        serial: Some(REVOKED),
        ..Tls::default()
    }
}

/// A list of the site's issuing authority that names these serial numbers and ends in so many seconds.
fn list(site: &Site, serials: &[&[u8]], ends_in: i64) -> Vec<u8> {
    let now = Timestamp::now().as_second();
    let list = site.pki.revoke(serials, now - 3600, now + ends_in);
    list.der().to_vec()
}

/// Answers one request and closes, so that each is made on a connection of its own.
async fn once(mut connection: Connection, _: usize) {
    if connection.head().await.is_some() {
        connection
            .write("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")
            .await;
        connection.close().await;
    }
}

async fn outcome(gateway: &TestGateway) -> (u16, String) {
    let answer = gateway.get(gateway.tenant(0), "/up/x").await;
    let status = answer.status();
    let code = match status {
        200 => String::new(),
        _ => answer.code(),
    };
    (status, code)
}

fn untrusted() -> (u16, String) {
    (502, "upstream_untrusted".to_owned())
}

/// A gateway in front of the server, with a list in a file that `make` makes, and further keys of `[revocation]`.
fn with_list(make: impl FnOnce(&Site) -> Option<Vec<u8>>, extra: &str) -> (TestGateway, Upstream) {
    start_on(1, &[Stand::new("dmp")], |site, text| {
        let upstream = Upstream::start(&site.pki, &server(), once);
        text.push_str(&upstream.service("up", ""));
        text.push_str("\n[revocation]\n");
        if let Some(list) = make(site) {
            std::fs::write(site.directory.join("aci.crl"), list).unwrap();
            text.push_str("crls = [\"aci.crl\"]\n");
        }
        text.push_str(extra);
        upstream
    })
}

#[tokio::test]
async fn a_service_whose_certificate_is_revoked_is_not_believed() {
    let (gateway, upstream) = with_list(|site| Some(list(site, &[&REVOKED], 3600)), "");
    assert_eq!(outcome(&gateway).await, untrusted());
    assert!(upstream.heads().is_empty(), "no request was sent");
    let listed = "relais_crl_next_update_timestamp_seconds";
    assert!(gateway.metric(listed, &["aci.crl"]) > 0.0);
}

#[tokio::test]
async fn a_service_whose_authority_is_revoked_is_not_believed() {
    // The authority comes with the service alone, or is in the trust file too.
    for in_trust_file in [false, true] {
        for is_revoked in [false, true] {
            let pki = Pki::new(Environment::Test);
            let (gateway, _upstream) = start_on(1, &[Stand::new("dmp")], |site, text| {
                let upstream = Upstream::start(&pki, &Tls::default(), once);
                let service = upstream.service("up", "");
                text.push_str(&service.replace("trust/igc-sante-test.pem", "other.pem"));
                let mut trust = pki.authority_pem();
                if !in_trust_file {
                    trust = trust.split_off(trust.rfind("-----BEGIN").unwrap());
                }
                std::fs::write(site.directory.join("other.pem"), trust).unwrap();
                let now = Timestamp::now().as_second();
                let list = pki.revoke_issuing(now - 3600, now + 3600);
                std::fs::write(site.directory.join("root.crl"), list.der()).unwrap();
                if is_revoked {
                    text.push_str("\n[revocation]\ncrls = [\"root.crl\"]\n");
                }
                upstream
            });
            let believed = outcome(&gateway).await != untrusted();
            assert_ne!(believed, is_revoked, "{in_trust_file}");
        }
    }
}

#[tokio::test]
async fn a_list_that_is_overdue_goes_on_refusing_what_it_names() {
    let (gateway, _upstream) = with_list(|site| Some(list(site, &[&REVOKED], -60)), "");
    assert_eq!(outcome(&gateway).await, untrusted());
}

#[tokio::test]
async fn a_service_that_no_list_names_is_believed_overdue_or_not_unless_the_configuration_wants_to_know()
 {
    let refuse = "unknown = \"refuse\"\n";
    for (ends_in, extra, expected) in [
        (3600, "", 200),
        (3600, refuse, 200),
        (-60, "", 200),
        (-60, refuse, 502),
    ] {
        let (gateway, _upstream) = with_list(|site| Some(list(site, &[&[1]], ends_in)), extra);
        let outcome = outcome(&gateway).await;
        assert_eq!(outcome.0, expected, "{ends_in} {extra} {outcome:?}");
    }
    for (extra, expected) in [("", 200), (refuse, 502)] {
        let (gateway, _upstream) = with_list(|_| None, extra);
        assert_eq!(outcome(&gateway).await.0, expected, "no list, {extra}");
    }
}

#[tokio::test]
async fn where_the_configuration_wants_to_know_each_connection_is_verified_anew() {
    for versions in [ONLY_12, ONLY_13] {
        for (unknown, expected) in [("accept", (1, 2)), ("refuse", (3, 0))] {
            let (gateway, upstream) = start_on(1, &[Stand::new("dmp")], |site, text| {
                let tls = Tls {
                    versions,
                    ..server()
                };
                let upstream = Upstream::start(&site.pki, &tls, once);
                text.push_str(&upstream.service("up", ""));
                let list = list(site, &[&[1]], 3600);
                std::fs::write(site.directory.join("aci.crl"), list).unwrap();
                text.push_str(&format!(
                    "\n[revocation]\ncrls = [\"aci.crl\"]\nunknown = \"{unknown}\"\n"
                ));
                upstream
            });
            for _ in 0..3 {
                is_answered(&gateway).await;
            }
            // A session begun before the list ended must not be resumed after.
            assert_eq!(upstream.handshakes(), expected, "{unknown} {versions:?}");
        }
    }
}

#[tokio::test]
async fn a_list_that_is_not_right_keeps_nothing_from_working() {
    let (gateway, _upstream) = with_list(|_| Some(b"<html>not found</html>".to_vec()), "");
    is_answered(&gateway).await;
}

#[tokio::test]
async fn a_list_that_arrives_while_the_gateway_runs_holds_from_the_next_connection_on() {
    for versions in [BOTH, ONLY_12, ONLY_13] {
        let release = Arc::new(Semaphore::new(0));
        let (gateway, _held) = start_on(1, &[Stand::new("dmp")], |site, text| {
            let tls = Tls {
                versions,
                ..server()
            };
            let upstream = Upstream::start(&site.pki, &tls, once);
            text.push_str(&upstream.service("up", ""));
            let lists = give_later(text, list(site, &[&REVOKED], 3600), &release);
            (upstream, lists)
        });
        // The start waited for no list; and these leave sessions behind that could be resumed.
        is_answered(&gateway).await;
        is_answered(&gateway).await;
        release.add_permits(1);
        eventually("the list is there", || {
            gateway.metric("relais_crl_next_update_timestamp_seconds", &[]) > 0.0
        })
        .await;
        let list = gateway.app.revocations.load();
        assert_eq!(list.lists()[0].crl.as_ref().unwrap().entries(), 1);
        assert_eq!(outcome(&gateway).await, untrusted());
        let kept = std::fs::read_dir(gateway.path().join("crl-cache")).unwrap();
        assert_eq!(kept.count(), 1, "the list is kept for the next start");
    }
}

#[tokio::test]
async fn a_certificate_of_our_own_that_is_revoked_is_retired_at_once_with_its_connections() {
    let release = Arc::new(Semaphore::new(0));
    let (gateway, (upstream, _lists)) = start_on(2, &[Stand::new("dmp")], |site, text| {
        let upstream =
            Upstream::start(&site.pki, &Tls::default(), |mut connection, _| async move {
                connection.keep_answering("ok").await;
            });
        text.push_str(&upstream.service("up", ""));
        let own = format!("certs/{}/auth_cli.pem", site.tenants[0]);
        let pem = std::fs::read(site.directory.join(own)).unwrap();
        let profile = Profile::parse(&CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
        let serial = u128::from_str_radix(&profile.serial, 16)
            .unwrap()
            .to_be_bytes();
        let lists = give_later(text, list(site, &[&serial], 3600), &release);
        (upstream, lists)
    });
    let ask = async |tenant| gateway.get(gateway.tenant(tenant), "/up/x").await;
    assert_eq!(ask(0).await.status(), 200);
    assert_eq!(ask(1).await.status(), 200);
    assert_eq!(upstream.open(), 2);
    release.add_permits(1);
    eventually("the revoked certificate's connection is closed", || {
        upstream.open() == 1
    })
    .await;
    let refused = ask(0).await;
    assert_eq!(
        (refused.status(), refused.code().as_str()),
        (503, "certificate_revoked")
    );
    assert_eq!(ask(1).await.status(), 200);
    assert_eq!(
        upstream.open(),
        1,
        "the other certificate keeps its connection"
    );
}

/// A server of this list, which a configuration is made to name, and which answers as often as it is released.
fn give_later(text: &mut String, list: Vec<u8>, release: &Arc<Semaphore>) -> Upstream {
    let release = Arc::clone(release);
    let lists = Upstream::raw(move |mut tcp, _| {
        let (list, release) = (list.clone(), Arc::clone(&release));
        async move {
            release.acquire().await.unwrap().forget();
            give(&mut tcp, &list).await;
        }
    });
    text.push_str(&format!(
        "\n[revocation]\ncrls = [\"http://{}/aci.crl\"]\ncache = \"crl-cache\"\n",
        lists.address
    ));
    lists
}

async fn give(tcp: &mut TcpStream, body: &[u8]) {
    let mut head = [0; 1024];
    let _ = tcp.read(&mut head).await.unwrap();
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
    tcp.write_all(head.as_bytes()).await.unwrap();
    tcp.write_all(body).await.unwrap();
    tcp.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_certificate_of_our_own_that_is_revoked_is_reported_and_posted() {
    let (posted, mut notices) = tokio::sync::mpsc::unbounded_channel();
    let (gateway, _hook) = start_on(1, &[Stand::new("dmp")], |site, text| {
        let issued = site.pki.issue(&Request::new("1060785003", "Revoked"));
        let path = site.directory.join("certs/revoked.pem");
        pki::write_private(&path, issued.pem()).unwrap();
        let list = list(site, &[&issued.serial()], 3600);
        std::fs::write(site.directory.join("aci.crl"), list).unwrap();
        let hook = Upstream::raw(move |mut tcp, number| {
            let posted = posted.clone();
            async move {
                let mut request = vec![0; 4096];
                let length = tcp.read(&mut request).await.unwrap();
                request.truncate(length);
                posted.send(String::from_utf8(request).unwrap()).unwrap();
                let status = if number == 0 { "503 Busy" } else { "200 OK" };
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                tcp.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        text.push_str(&format!(
            "\n[revocation]\ncrls = [\"aci.crl\"]\n\n[notices]\nwebhook = \"http://{}/hook\"\n",
            hook.address
        ));
        hook
    });
    let revoked = gateway.metric("relais_certificates", &["state=\"revoked\""]);
    assert_eq!(revoked, 1.0);
    let answer = gateway.admin("/api/v1/certificates").await;
    let json: serde_json::Value = serde_json::from_slice(answer.0.body()).unwrap();
    let states: Vec<_> = json["loaded"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["structure"].clone(), one["state"].clone()))
        .collect();
    let sample = format!("1{}", sample_finess(0));
    assert!(
        states.contains(&("1060785003".into(), "revoked".into())),
        "{states:?}"
    );
    assert!(
        states.contains(&(sample.into(), "valid".into())),
        "{states:?}"
    );

    let first = within(notices.recv()).await.unwrap();
    let again = within(notices.recv()).await.unwrap();
    assert!(first.contains("\"state\":\"revoked\""), "{first}");
    assert_eq!(first, again);
    eventually("the notice is delivered", || {
        gateway.metric("relais_notices_total", &["outcome=\"delivered\""]) > 0.0
    })
    .await;
    assert!(
        notices.try_recv().is_err(),
        "once it is taken it is not posted again"
    );
}
