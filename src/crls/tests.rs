//! When lists are looked for, and what stays when one cannot be had.

use std::fs;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::simulator::pki::shared;

const NOW: i64 = 1_800_000_000;
const HOUR: i64 = 3600;

fn authorities() -> Authorities {
    Authorities::new([shared::TEST.root_der(), shared::TEST.issuing_der()], [])
}

fn list(serial: u8, begun: i64, ends: i64) -> Vec<u8> {
    shared::TEST
        .revoke(&[&[serial]], begun, ends)
        .der()
        .to_vec()
}

fn config(origin: CrlSource, cache: &Path) -> Revocation {
    Revocation {
        crls: vec![origin],
        cache: Some(cache.to_owned()),
        refresh: Duration::from_secs(6 * 3600),
        timeout: Duration::from_millis(300),
        trust: None,
        unknown: crate::config::Unknown::Accept,
    }
}

fn source(origin: CrlSource, cache: &Path) -> Source {
    Rules::new(&config(origin.clone(), cache), authorities()).open(&origin, NOW)
}

fn url(text: &str) -> CrlSource {
    CrlSource::Url(text.parse().unwrap())
}

fn code(source: &Source) -> Option<&'static str> {
    source.list.problem.as_ref().map(|problem| problem.code())
}

fn crl(serial: u8, begun: i64, ends: i64) -> Crl {
    Crl::read(&list(serial, begun, ends), &authorities(), begun).unwrap()
}

fn names(source: &Source, serial: u8) -> bool {
    let view = crate::identity::revocation::Revocations::new(vec![source.list.clone()], false);
    let mut crls = source.list.crls();
    crls.any(|crl| view.revokes(&crl.issuer, &[serial]))
}

#[test]
fn a_list_is_fetched_several_times_before_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = source(url("http://crl.invalid/a.crl"), folder.path());
    assert!(
        source.is_due(NOW),
        "what was never fetched is fetched at once"
    );
    // One that is valid for long is fetched as often as the configuration says.
    source.take(Ok(Some(crl(1, NOW, NOW + 100 * HOUR))), NOW);
    assert!(!source.is_due(NOW + 6 * HOUR - 1) && source.is_due(NOW + 6 * HOUR));
    // The server goes on giving this one, which ends in four hours.
    let ends = NOW + 4 * HOUR;
    source.take(Ok(Some(crl(2, NOW, ends))), NOW);
    let mut now = NOW;
    let mut fetches = 0;
    while now <= ends + SOONEST {
        now += 1;
        if source.is_due(now) {
            fetches += 1;
            source.take(Ok(None), now);
        }
    }
    assert!((5..=15).contains(&fetches), "{fetches}");
    assert_eq!(code(&source), Some("ended"));
    assert!(names(&source, 2));
}

#[test]
fn a_fetch_that_fails_keeps_the_list_and_is_tried_again_more_and_more_seldom() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = source(url("http://crl.invalid/a.crl"), folder.path());
    source.take(Ok(Some(crl(1, NOW, NOW + HOUR))), NOW);
    let mut pauses = Vec::new();
    let mut now = NOW;
    for _ in 0..9 {
        let failure = CrlProblem::Fetch("no answer".to_owned());
        assert!(!source.take(Err(failure), now));
        pauses.push(source.due - now);
        now = source.due;
    }
    assert_eq!(pauses, [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]);
    assert!(names(&source, 1));
    source.take(Ok(Some(crl(1, now, now + 100 * HOUR))), now);
    assert_eq!((code(&source), source.due - now), (None, 6 * HOUR));
}

#[test]
fn a_clock_that_was_set_back_does_not_put_a_fetch_off() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = source(url("http://crl.invalid/a.crl"), folder.path());
    source.take(Ok(Some(crl(1, NOW, NOW + 100 * HOUR))), NOW);
    assert!(!source.is_due(NOW + 1));
    assert!(source.is_due(NOW - 1000 * HOUR));
}

/// Answers each connection with the next of these bytes, then with nothing more.
async fn server(answers: Vec<Vec<u8>>) -> (CrlSource, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        for answer in answers {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let length = tcp.read(&mut head).await.unwrap();
            let head = String::from_utf8_lossy(&head[..length]).into_owned();
            assert!(head.starts_with("GET /ACI.crl HTTP/1.1\r\n"), "{head}");
            assert!(head.contains(&format!("host: {address}\r\n")), "{head}");
            tcp.write_all(&answer).await.unwrap();
        }
        // Takes connections, and never answers.
        std::future::pending::<()>().await;
        drop(listener);
    });
    (url(&format!("http://{address}/ACI.crl")), serving)
}

fn answer(status: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[tokio::test]
async fn whatever_a_server_gives_instead_of_a_list_the_one_in_use_stays() {
    let folder = tempfile::tempdir().unwrap();
    let good = list(1, NOW - 100, NOW + 100 * HOUR);
    let newer = list(2, NOW - 50, NOW + 100 * HOUR);
    let huge = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 1_u64 << 40);
    let forged = crate::simulator::pki::Pki::new(crate::services::Environment::Test);
    let forged = forged.revoke(&[], NOW, NOW + HOUR).der().to_vec();
    let (origin, _serving) = server(vec![
        answer("200 OK", &good),
        answer("503 Service Unavailable", &newer),
        answer("302 Found", &newer),
        answer("200 OK", &newer[..newer.len() / 2]),
        answer("200 OK", &forged),
        huge.into_bytes(),
        b"SSH-2.0\r\n".to_vec(),
        answer("200 OK", &list(1, NOW - 150, NOW + 100 * HOUR)),
        answer("200 OK", &good),
        answer("200 OK", &newer),
    ])
    .await;
    let metrics = Metrics::new();
    let mut source = source(origin.clone(), folder.path());
    assert!(source.look(NOW, &metrics).await);
    let failures = [
        "fetch",
        "fetch",
        "malformed",
        "bad_signature",
        "fetch",
        "fetch",
        "older",
    ];
    for failure in failures {
        assert!(!source.look(NOW, &metrics).await, "{failure}");
        assert_eq!(code(&source), Some(failure));
        assert!(names(&source, 1), "{failure}");
    }
    assert!(!source.look(NOW, &metrics).await);
    assert_eq!(code(&source), None, "the same list again is no failure");
    assert!(source.look(NOW, &metrics).await);
    assert!(names(&source, 2) && !names(&source, 1));
    // The server has nothing more to say: the deadline ends it.
    assert!(!source.look(NOW, &metrics).await);
    assert_eq!(code(&source), Some("fetch"));
    let rendered = metrics.render();
    assert!(rendered.contains("outcome=\"new\"} 2"), "{rendered}");
    assert!(rendered.contains("outcome=\"failure\"} 8"), "{rendered}");

    // And at the next start the last one is there before anything is fetched.
    let again = self::source(origin, folder.path());
    assert!(names(&again, 2) && again.is_due(NOW));
    assert_eq!(code(&again), None);
}

#[tokio::test]
async fn a_good_list_of_an_authority_that_is_not_meant_keeps_out_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let right = list(1, NOW - 100, NOW + 2 * HOUR);
    let next = list(2, NOW - 50, NOW + 2 * HOUR);
    let foreign = shared::PRODUCTION.revoke(&[&[3]], NOW - 10, NOW + HOUR);
    let (origin, _serving) = server(vec![
        answer("200 OK", foreign.der()),
        answer("200 OK", &right),
        answer("200 OK", foreign.der()),
        answer("200 OK", &next),
        answer("200 OK", &right),
    ])
    .await;
    let both = [shared::TEST.issuing_der(), shared::PRODUCTION.issuing_der()];
    let start = || {
        let config = config(origin.clone(), folder.path());
        Rules::new(&config, Authorities::new(both, [])).open(&origin, NOW)
    };
    let (mut source, metrics) = (start(), Metrics::new());
    assert!(source.look(NOW, &metrics).await);
    assert!(source.look(NOW, &metrics).await && names(&source, 1));
    assert!(!source.look(NOW, &metrics).await && names(&source, 1));
    // Also after a restart each has a list of its own, which only a newer one of its own replaces.
    let mut source = start();
    assert!(names(&source, 1) && source.list.crls().count() == 2);
    assert!(source.look(NOW, &metrics).await);
    assert!(names(&source, 2) && !names(&source, 1));
    assert!(!source.look(NOW, &metrics).await);
    assert_eq!(code(&source), Some("older"));
    assert!(names(&start(), 2), "what was kept is the newer one");
    // The first to end is the one that somebody must look after.
    assert!(!source.take(Ok(None), NOW + HOUR + 1));
    assert_eq!(code(&source), Some("ended"));
}

#[tokio::test]
async fn a_kept_list_that_was_damaged_is_no_list_and_no_reason_not_to_start() {
    let folder = tempfile::tempdir().unwrap();
    let good = list(1, NOW, NOW + HOUR);
    let (origin, _serving) = server(vec![answer("200 OK", &good), answer("200 OK", &good)]).await;
    let metrics = Metrics::new();
    assert!(
        source(origin.clone(), folder.path())
            .look(NOW, &metrics)
            .await
    );
    let kept = fs::read_dir(folder.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    fs::write(kept.path(), &good[..100]).unwrap();
    let mut source = source(origin, folder.path());
    assert_eq!(code(&source), Some("malformed"));
    assert!(source.look(NOW, &metrics).await);
    assert_eq!(fs::read(kept.path()).unwrap(), good);
}

#[tokio::test]
async fn a_file_that_changes_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("aci.crl");
    fs::write(&path, list(1, NOW, NOW + HOUR)).unwrap();
    let metrics = Metrics::new();
    let mut source = source(CrlSource::File(path.clone()), folder.path());
    assert!(names(&source, 1) && !source.is_due(NOW + 59) && source.is_due(NOW + 60));
    assert!(!source.look(NOW + 60, &metrics).await);
    fs::write(&path, list(2, NOW + 1, NOW + HOUR)).unwrap();
    assert!(source.look(NOW + 120, &metrics).await);
    assert!(names(&source, 2));
    fs::remove_file(&path).unwrap();
    assert!(!source.look(NOW + 180, &metrics).await);
    assert_eq!(code(&source), Some("unreadable"));
    assert!(names(&source, 2));
}
