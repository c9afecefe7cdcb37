//! What becomes of requests and connections when a certificate is replaced, refused or withdrawn.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use relais::app::reload::Report;
use relais::identity::finess::Finess;
use relais::identity::profile::Profile;
use relais::simulator::pki::{self, Request};
use relais::simulator::site::{Site, Stand, sample_finess};
use support::picky::Unknown;
use support::upstream::{
    Connection, ONLY_12, ONLY_13, Served, Tls, Upstream, serve_h2, serve_h2_late,
};
use support::{
    Answered, TestGateway, burst, eventually, settled, start_on, waiting_for_a_connection, within,
};
use tokio::sync::Semaphore;

/// Where the structure's certificate lies; it is the same structure as `tenant(0)`.
const FILE: &str = "certs/up.pem";

const OLD: &str = "Ancien";
const NEW: &str = "Nouveau";

/// A gateway that reloads when told, in front of a server of the test's own, for a structure with certificate [`OLD`].
fn start<F, S>(tls: &Tls, extra: &str, identities: &str, serve: F) -> (TestGateway, Upstream)
where
    F: Fn(Connection, usize) -> S + Clone + Send + 'static,
    S: Future<Output = ()> + Send + 'static,
{
    start_on(1, &[Stand::new("dmp")], |site, text| {
        let folder = "directory = \"certs\"";
        let manual = format!("{folder}\nreload = \"manual\"\n{identities}");
        *text = text.replace(folder, &manual);
        let tenant = site.tenants[0];
        fs::remove_file(site.directory.join(format!("certs/{tenant}/auth_cli.pem"))).unwrap();
        let issued = site.pki.issue(&Request {
            not_before: Some(jiff::Timestamp::now().as_second() - 1000),
            ..Request::new(&format!("1{tenant}"), OLD)
        });
        pki::write_private(&site.directory.join(FILE), issued.pem()).unwrap();
        write_list(site, &[]);
        let upstream = Upstream::start(&site.pki, tls, serve);
        text.push_str(&upstream.service("up", extra));
        upstream
    })
}

/// A serial number as certificates have it.
fn bytes_of(serial: &str) -> Vec<u8> {
    (0..serial.len() / 2)
        .map(|at| u8::from_str_radix(&serial[2 * at..2 * at + 2], 16).unwrap())
        .collect()
}

/// Writes a list of the site's issuing authority that names these serial numbers.
fn write_list(site: &Site, serials: &[&[u8]]) {
    let now = jiff::Timestamp::now().as_second();
    let list = site.pki.revoke(serials, now - 3600, now + 86_400);
    fs::write(site.directory.join("aci.crl"), list.der()).unwrap();
}

/// Puts a certificate of the structure in the place of the one that there is, and reloads.
async fn renew(gateway: &TestGateway, tenant: Finess, cn: &str) -> Report {
    let ou = format!("1{tenant}");
    let issued = gateway.site.pki.issue(&Request::new(&ou, cn));
    pki::write_private(&gateway.path().join(FILE), issued.pem()).unwrap();
    within(gateway.app.reload()).await.unwrap()
}

fn cn_of(connection: &Connection) -> String {
    let (_, session) = connection.stream.get_ref();
    let leaf = Profile::parse(&session.peer_certificates().unwrap()[0]).unwrap();
    leaf.common_name.unwrap().into()
}

/// Answers each request with the CN of the certificate that its connection was opened with, over whatever HTTP was
/// agreed on, once `release` lets it.
fn tell_cn(
    release: &Arc<Semaphore>,
    arrived: &Arc<AtomicUsize>,
) -> impl Fn(Connection, usize) -> Served + Clone + Send + 'static + use<> {
    let (release, arrived) = (Arc::clone(release), Arc::clone(arrived));
    move |mut connection, _| {
        let (release, arrived) = (Arc::clone(&release), Arc::clone(&arrived));
        let cn = cn_of(&connection);
        Box::pin(async move {
            if connection.stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                return serve_h2(connection, 100, move |_| {
                    let (release, arrived) = (Arc::clone(&release), Arc::clone(&arrived));
                    let cn = cn.clone();
                    async move {
                        arrived.fetch_add(1, Ordering::AcqRel);
                        drop(release.acquire().await);
                        Response::new(Full::new(Bytes::from(cn)))
                    }
                })
                .await;
            }
            while connection.head().await.is_some() {
                arrived.fetch_add(1, Ordering::AcqRel);
                drop(release.acquire().await);
                connection.answer(&cn).await;
            }
        })
    }
}

/// One that lets every request through.
fn open() -> (Arc<Semaphore>, Arc<AtomicUsize>) {
    (Arc::new(Semaphore::new(1000)), Arc::default())
}

/// The certificate under which a request was answered.
async fn shown(gateway: &TestGateway) -> String {
    body(&gateway.get(gateway.tenant(0), "/up/x").await)
}

fn body(answer: &Answered) -> String {
    assert_eq!(answer.status(), 200, "{answer:?}");
    String::from_utf8(answer.0.body().to_vec()).unwrap()
}

fn tls(alpn: &'static [&'static str]) -> Tls {
    Tls {
        alpn,
        ..Tls::default()
    }
}

#[tokio::test]
async fn a_request_in_flight_finishes_under_the_certificate_that_it_began_with() {
    for alpn in [&["http/1.1"][..], &["h2"]] {
        let (release, arrived) = (Arc::new(Semaphore::new(0)), Arc::default());
        let (gateway, _upstream) = start(&tls(alpn), "", "", tell_cn(&release, &arrived));
        let mut in_flight = burst(&gateway, 3);
        eventually("they are in flight", || {
            arrived.load(Ordering::Acquire) == 3
        })
        .await;
        let renewing = renew(&gateway, gateway.tenant(0), NEW);
        assert_eq!(renewing.await.added.len(), 1);
        let after = gateway.get(gateway.tenant(0), "/up/after");
        let released = async {
            eventually("the next has arrived, too", || {
                arrived.load(Ordering::Acquire) == 4
            })
            .await;
            release.add_permits(100);
        };
        let (after, ()) = tokio::join!(within(after), released);
        assert_eq!(body(&after), NEW, "{alpn:?}");
        while let Some(answer) = in_flight.join_next().await {
            assert_eq!(body(&answer.unwrap()), OLD, "{alpn:?}");
        }
        eventually("the old connections are closed", || {
            let pools = gateway.app.outbound.pools();
            let open = pools.iter().filter(|pool| pool.occupancy().open > 0);
            open.count() == 1
        })
        .await;
    }
}

#[tokio::test]
async fn a_reload_during_a_stop_harms_nothing_that_is_in_flight() {
    let (release, arrived) = (Arc::new(Semaphore::new(0)), Arc::default());
    let grace = "[shutdown]\ngrace = \"20s\"";
    let (gateway, _upstream) = start(&Tls::default(), grace, "", tell_cn(&release, &arrived));
    let mut in_flight = burst(&gateway, 2);
    eventually("they are in flight", || {
        arrived.load(Ordering::Acquire) == 2
    })
    .await;
    gateway.begin_stop();
    assert!(renew(&gateway, gateway.tenant(0), NEW).await.changed);
    release.add_permits(2);
    while let Some(answer) = in_flight.join_next().await {
        assert_eq!(body(&answer.unwrap()), OLD);
    }
    within(tokio::task::spawn_blocking(|| gateway.stop()))
        .await
        .unwrap();
}

#[tokio::test]
async fn requests_in_flight_are_cut_off_when_the_time_to_finish_is_over() {
    for alpn in [&["http/1.1"][..], &["h2"]] {
        let (release, arrived) = (Arc::new(Semaphore::new(0)), Arc::default());
        let extra = "pool = { drain = \"100ms\", prewarm = 0 }";
        let (gateway, upstream) = start(&tls(alpn), extra, "", tell_cn(&release, &arrived));
        let mut in_flight = burst(&gateway, 2);
        eventually("they are in flight", || {
            arrived.load(Ordering::Acquire) == 2
        })
        .await;
        renew(&gateway, gateway.tenant(0), NEW).await;
        while let Some(answer) = in_flight.join_next().await {
            let answer = answer.unwrap();
            assert_eq!(
                (answer.status(), answer.code().as_str()),
                (504, "upstream_timeout")
            );
            let text = String::from_utf8_lossy(answer.0.body()).into_owned();
            assert!(text.contains("pool.drain"), "{text}");
        }
        release.add_permits(100);
        eventually("their connections are closed", || upstream.open() == 0).await;
    }
}

#[tokio::test]
async fn what_is_in_flight_for_a_structure_that_is_removed_finishes_or_is_cut_off_as_is_configured()
{
    for (policy, status) in [("finish", 200), ("cut", 503)] {
        let (release, arrived) = (Arc::new(Semaphore::new(0)), Arc::default());
        let identities = format!("withdrawal = \"{policy}\"");
        let (gateway, _upstream) = start(
            &Tls::default(),
            "",
            &identities,
            tell_cn(&release, &arrived),
        );
        let mut in_flight = burst(&gateway, 1);
        eventually("it is in flight", || arrived.load(Ordering::Acquire) == 1).await;
        fs::remove_file(gateway.path().join(FILE)).unwrap();
        let report = within(gateway.app.reload()).await.unwrap();
        assert_eq!(report.removed.len(), 1);
        let refused = gateway.get(gateway.tenant(0), "/up/x").await;
        assert_eq!(refused.code(), "certificate_missing");
        if status == 200 {
            release.add_permits(1);
        }
        let answer = within(in_flight.join_next()).await.unwrap().unwrap();
        assert_eq!(answer.status(), status, "{policy}: {answer:?}");
    }
}

#[tokio::test]
async fn a_renewed_certificate_has_connections_before_its_first_request() {
    // Of the kind that is in use: where both are spoken, many requests share a connection.
    let cases = [
        (&["http/1.1"][..], 4, 4),
        (&["h2"], 4, 1),
        (&["h2", "http/1.1"], 20, 1),
    ];
    for (alpn, in_flight, connections) in cases {
        let (release, arrived) = (Arc::new(Semaphore::new(0)), Arc::default());
        let (gateway, upstream) = start(&tls(alpn), "", "", tell_cn(&release, &arrived));
        let mut requests = burst(&gateway, in_flight);
        eventually("they are in flight", || {
            arrived.load(Ordering::Acquire) == in_flight
        })
        .await;
        release.add_permits(100);
        while requests.join_next().await.is_some() {}
        settled(&gateway).await;
        let before = upstream.accepted();
        renew(&gateway, gateway.tenant(0), NEW).await;
        assert_eq!(upstream.accepted(), before + connections, "{alpn:?}");
        let mut requests = burst(&gateway, in_flight);
        while let Some(answer) = requests.join_next().await {
            assert_eq!(body(&answer.unwrap()), NEW);
        }
        assert_eq!(
            upstream.accepted(),
            before + connections,
            "no request dials"
        );
        let log = gateway.log();
        let how = log.last().unwrap()["connection"]
            .as_str()
            .unwrap()
            .to_owned();
        assert_eq!(how, "reused", "{log:?}");
    }
}

#[tokio::test]
async fn what_waits_for_the_first_frame_of_a_service_is_sent_under_the_renewed_certificate() {
    let speaks = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&speaks);
    let (gateway, upstream) = start(&Tls::h2(), "", "", move |connection, _| {
        let cn = cn_of(&connection);
        serve_h2_late(connection, Arc::clone(&gate), move |_| {
            let answer = Response::new(Full::new(Bytes::from(cn.clone())));
            async { answer }
        })
    });
    let requests = burst(&gateway, 5);
    // One has a stream, and the others are where the renewal finds them.
    eventually("they wait", || waiting_for_a_connection(&gateway) == 4).await;
    renew(&gateway, gateway.tenant(0), NEW).await;
    speaks.add_permits(1);
    let answers = within(requests.join_all()).await;
    let mut under: Vec<_> = answers.iter().map(body).collect();
    under.sort();
    assert_eq!(under, [OLD, NEW, NEW, NEW, NEW]);
    assert_eq!(upstream.accepted(), 2);
}

#[tokio::test]
async fn no_connection_is_opened_beforehand_where_none_was_in_use_or_none_is_wanted() {
    for (extra, used) in [("", false), ("pool = { prewarm = 0 }", true)] {
        let (release, arrived) = open();
        let (gateway, upstream) = start(&Tls::default(), extra, "", tell_cn(&release, &arrived));
        if used {
            shown(&gateway).await;
        }
        let before = upstream.accepted();
        renew(&gateway, gateway.tenant(0), NEW).await;
        assert_eq!(upstream.accepted(), before);
        assert_eq!(shown(&gateway).await, NEW);
    }
}

#[tokio::test]
async fn where_a_service_refuses_the_renewed_certificate_the_one_before_serves_on_until_it_takes_it()
 {
    for versions in [ONLY_12, ONLY_13] {
        for alpn in [&["http/1.1"][..], &["h2"]] {
            // With connections opened beforehand the refusal is found out there, without by the first request.
            for prewarm in [0, 8] {
                let what = format!("{versions:?} {alpn:?} {prewarm}");
                let unknown = Unknown::default();
                let tls = Tls {
                    versions,
                    alpn,
                    unknown: Arc::clone(&unknown),
                    ..Tls::default()
                };
                let (release, arrived) = open();
                let extra = format!("pool = {{ prewarm = {prewarm} }}");
                let (gateway, _upstream) = start(&tls, &extra, "", tell_cn(&release, &arrived));
                let fallbacks =
                    || gateway.metric("relais_certificate_fallbacks", &["service=\"up\""]);
                assert_eq!(shown(&gateway).await, OLD);
                unknown.lock().unwrap().insert(NEW.to_owned());
                renew(&gateway, gateway.tenant(0), NEW).await;
                let mut requests = burst(&gateway, 5);
                while let Some(answer) = requests.join_next().await {
                    assert_eq!(body(&answer.unwrap()), OLD, "{what}");
                }
                assert_eq!(fallbacks(), 1.0, "{what}");
                // Another service that takes it is shown it.
                let other = gateway.get(gateway.tenant(0), "/dmp/x").await;
                assert_eq!(other.seen().cn.unwrap(), NEW, "{what}");
                // Asking for a reload asks for another try, too.
                unknown.lock().unwrap().clear();
                within(gateway.app.reload()).await.unwrap();
                eventually("it is tried again", || fallbacks() == 0.0).await;
                assert_eq!(shown(&gateway).await, NEW, "{what}");
            }
        }
    }
}

#[tokio::test]
async fn a_service_that_says_nothing_until_the_first_request_loses_that_one_alone() {
    let unknown = Unknown::default();
    let tls = Tls {
        versions: ONLY_13,
        unknown: Arc::clone(&unknown),
        tickets: false,
        ..Tls::default()
    };
    let (release, arrived) = open();
    let (gateway, _upstream) = start(&tls, "", "", tell_cn(&release, &arrived));
    assert_eq!(shown(&gateway).await, OLD);
    unknown.lock().unwrap().insert(NEW.to_owned());
    renew(&gateway, gateway.tenant(0), NEW).await;
    let first = gateway.get(gateway.tenant(0), "/up/x").await;
    assert!(first.status() == 200 || first.code() == "certificate_rejected_by_upstream");
    for _ in 0..3 {
        assert_eq!(shown(&gateway).await, OLD);
    }
}

/// A gateway whose service refuses the certificates that are named to it.
fn picky(extra: &str) -> (TestGateway, Upstream, Unknown) {
    let unknown = Unknown::default();
    let tls = Tls {
        unknown: Arc::clone(&unknown),
        ..Tls::default()
    };
    let (release, arrived) = open();
    let (gateway, upstream) = start(&tls, extra, "", tell_cn(&release, &arrived));
    (gateway, upstream, unknown)
}

#[tokio::test]
async fn where_it_is_so_configured_a_refused_renewal_fails() {
    let (gateway, _upstream, unknown) = picky("on_rejection = \"fail\"");
    assert_eq!(shown(&gateway).await, OLD);
    unknown.lock().unwrap().insert(NEW.to_owned());
    renew(&gateway, gateway.tenant(0), NEW).await;
    let refused = gateway.get(gateway.tenant(0), "/up/x").await;
    assert_eq!(refused.code(), "certificate_rejected_by_upstream");
}

/// A gateway whose service refuses the renewed certificate, so that the old one stands in.
async fn standing_in(extra: &str) -> (TestGateway, Upstream) {
    let (gateway, upstream, unknown) = picky(extra);
    assert_eq!(shown(&gateway).await, OLD);
    unknown.lock().unwrap().insert(NEW.to_owned());
    renew(&gateway, gateway.tenant(0), NEW).await;
    assert_eq!(shown(&gateway).await, OLD);
    (gateway, upstream)
}

#[tokio::test]
async fn that_a_certificate_is_refused_is_told() {
    let (gateway, _upstream) = standing_in("").await;
    let status: serde_json::Value =
        serde_json::from_slice(gateway.admin("/api/v1/status").await.0.body()).unwrap();
    let told = &status["rejected_certificates"][0];
    assert_eq!(told["service"], "up", "{status}");
    assert_eq!(told["structure"], format!("1{}", gateway.tenant(0)));
    let rejected = &gateway.app.outbound.rejected()[0];
    assert_eq!(told["serial"], *rejected.renewed().serial);
    assert_eq!(told["previous_serial"], *rejected.previous().serial);
    assert!(
        told["hint"].as_str().unwrap().contains("declare it"),
        "{told}"
    );
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_relais"))
        .args(["status", "--admin", &gateway.admin.to_string()])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("up refuses the renewed certificate"),
        "{text}"
    );
    // The one that would be shown is the one that is told to the application.
    let identity = gateway.get(gateway.tenant(0), "/-/identity/up").await;
    assert!(String::from_utf8_lossy(identity.0.body()).contains(OLD));
}

#[tokio::test]
async fn a_revoked_certificate_stands_in_for_no_other() {
    let (gateway, _upstream) = standing_in("\n[revocation]\ncrls = [\"aci.crl\"]").await;
    let rejected = gateway.app.outbound.rejected();
    let serial = &rejected[0].previous.identity().profile.serial;
    write_list(&gateway.site, &[&bytes_of(serial)]);
    // Files of lists are looked at every minute.
    gateway.app.clock.set(61);
    eventually("the list is in use", || {
        gateway.metric("relais_certificate_fallbacks", &[]) == 0.0
    })
    .await;
    let refused = gateway.get(gateway.tenant(0), "/up/x").await;
    assert_eq!(refused.code(), "certificate_rejected_by_upstream");
}

#[tokio::test]
async fn a_certificate_that_has_ended_stands_in_for_no_other() {
    let (gateway, _upstream) = standing_in("").await;
    let rejected = gateway.app.outbound.rejected();
    let end = rejected[0].previous.identity().profile.not_after;
    gateway
        .app
        .clock
        .set(end + 1 - jiff::Timestamp::now().as_second());
    let refused = gateway.get(gateway.tenant(0), "/up/x").await;
    assert_ne!(refused.status(), 200, "{refused:?}");
}

#[tokio::test]
async fn what_stands_in_goes_with_the_structure() {
    let (gateway, _upstream) = standing_in("").await;
    fs::remove_file(gateway.path().join(FILE)).unwrap();
    within(gateway.app.reload()).await.unwrap();
    let refused = gateway.get(gateway.tenant(0), "/up/x").await;
    assert_eq!(refused.code(), "certificate_missing");
    assert_eq!(gateway.metric("relais_certificate_fallbacks", &[]), 0.0);
}

#[tokio::test]
async fn another_renewal_falls_back_on_the_certificate_that_the_service_took_last() {
    let (gateway, _upstream) = standing_in("").await;
    renew(&gateway, gateway.tenant(0), "Encore").await;
    assert_eq!(shown(&gateway).await, "Encore");
}

#[tokio::test]
async fn another_structures_certificate_is_never_fallen_back_on() {
    let (gateway, _upstream) = standing_in("").await;
    // The file now holds a certificate of somebody else, which the service refuses as well.
    renew(&gateway, sample_finess(70), NEW).await;
    let first = gateway.get(gateway.tenant(0), "/up/x").await;
    assert_eq!(first.code(), "certificate_missing");
    let other = gateway.get(sample_finess(70), "/up/x").await;
    assert_eq!(other.code(), "certificate_rejected_by_upstream");
}

/// A gateway in which an older certificate has to take the place of a newer one, which the service knows alone.
async fn with_an_older_one(extra: &str) -> (TestGateway, Upstream) {
    let (gateway, upstream, unknown) = picky(extra);
    let older = gateway.site.pki.issue(&Request {
        not_before: Some(jiff::Timestamp::now().as_second() - 2000),
        ..Request::new(&format!("1{}", gateway.tenant(0)), "Plus ancien")
    });
    let path = gateway.path().join("certs/older.pem");
    pki::write_private(&path, older.pem()).unwrap();
    within(gateway.app.reload()).await.unwrap();
    assert_eq!(shown(&gateway).await, OLD);
    unknown.lock().unwrap().insert("Plus ancien".to_owned());
    (gateway, upstream)
}

#[tokio::test]
async fn a_certificate_whose_file_was_removed_is_not_fallen_back_on() {
    let (gateway, _upstream) = with_an_older_one("").await;
    fs::remove_file(gateway.path().join(FILE)).unwrap();
    within(gateway.app.reload()).await.unwrap();
    let refused = gateway.get(gateway.tenant(0), "/up/x").await;
    assert_eq!(refused.code(), "certificate_rejected_by_upstream");
}

#[tokio::test]
async fn a_revoked_certificate_is_not_fallen_back_on() {
    let (gateway, _upstream) = with_an_older_one("\n[revocation]\ncrls = [\"aci.crl\"]").await;
    let pools = gateway.app.outbound.pools();
    let newer = pools[0]
        .generation()
        .unwrap()
        .identity()
        .profile
        .serial
        .clone();
    write_list(&gateway.site, &[&bytes_of(&newer)]);
    // Files of lists are looked at every minute.
    gateway.app.clock.set(61);
    let revoked = || gateway.metric("relais_certificates", &["state=\"revoked\""]) == 1.0;
    eventually("the list is in use", revoked).await;
    let refused = gateway.get(gateway.tenant(0), "/up/x").await;
    assert_eq!(refused.code(), "certificate_rejected_by_upstream");
}

#[tokio::test]
async fn requests_that_are_in_flight_when_a_replaced_certificate_is_revoked_are_cut_off_if_so_configured()
 {
    let (release, arrived) = (Arc::new(Semaphore::new(0)), Arc::default());
    let extra = "\n[revocation]\ncrls = [\"aci.crl\"]";
    let identities = "withdrawal = \"cut\"";
    let (gateway, _upstream) = start(
        &Tls::default(),
        extra,
        identities,
        tell_cn(&release, &arrived),
    );
    let mut in_flight = burst(&gateway, 1);
    eventually("it is in flight", || arrived.load(Ordering::Acquire) == 1).await;
    let pools = gateway.app.outbound.pools();
    let old = pools[0]
        .generation()
        .unwrap()
        .identity()
        .profile
        .serial
        .clone();
    renew(&gateway, gateway.tenant(0), NEW).await;
    write_list(&gateway.site, &[&bytes_of(&old)]);
    gateway.app.clock.set(61);
    let answer = within(in_flight.join_next()).await.unwrap().unwrap();
    assert_eq!(answer.code(), "certificate_revoked");
}
