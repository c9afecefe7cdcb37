//! A configuration, and what it names, that change while the gateway runs.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;
mod reload_configuration {
    use super::*;

    mod named;
    mod noticed;
    mod refused;
    mod services;
}

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use relais::app::reload::Report;
use relais::config::{Config, ListenAddress};
use relais::gateway::caller::TokenHash;
use relais::identity::finess::Finess;
use relais::services::{Environment, HttpVersions, Retry};
use relais::simulator::pki::{self, Pki};
use relais::simulator::site::{Ports, Site, Stand, sample_finess};
use support::raw::Raw;
use support::upstream::{Connection, Tls, Upstream};
use support::{TestGateway, eventually, settled, start_on, start_with, within};
use tokio::sync::Semaphore;

const DMP: Stand = Stand {
    http: HttpVersions::H1,
    ..Stand::new("dmp")
};
const ROC: Stand = Stand {
    http: HttpVersions::H1,
    ..Stand::new("roc")
};

const FOLDER: &str = "directory = \"certs\"";
const TRUST: &str = "trust/igc-sante-test.pem";

/// A gateway that reads nothing again unless it is told to, so that each test says when.
fn start(stands: &[Stand]) -> TestGateway {
    start_with(2, stands, manual)
}

fn manual(text: &mut String) {
    *text = text.replace(FOLDER, &format!("{FOLDER}\nreload = \"manual\""));
}

/// Puts a file in the place of another, as a careful deployment does: written aside, then renamed.
fn put(path: &Path, contents: impl AsRef<[u8]>) {
    let aside = path.with_extension("aside");
    pki::write_private(&aside, contents).unwrap();
    fs::rename(&aside, path).unwrap();
}

/// Changes the configuration file, and gives it as it was before.
fn edit(gateway: &TestGateway, change: impl FnOnce(&mut String)) -> String {
    let path = &gateway.site.configuration;
    let before = fs::read_to_string(path).unwrap();
    let mut text = before.clone();
    change(&mut text);
    assert_ne!(text, before, "the test changes nothing");
    put(path, &text);
    before
}

/// Takes a service's section out of a configuration.
fn cut(text: &mut String, service: &str) -> String {
    let begin = text.find(&format!("[services.{service}]")).unwrap();
    let end = text[begin + 1..]
        .find("\n[")
        .map_or(text.len(), |at| begin + 1 + at + 1);
    text.drain(begin..end).collect()
}

/// Adds lines to a service's section.
fn with(text: &mut String, service: &str, line: &str) {
    let head = format!("[services.{service}]\n");
    assert!(text.contains(&head), "{text}");
    *text = text.replace(&head, &format!("{head}{line}\n"));
}

async fn reload(gateway: &TestGateway) -> Report {
    within(gateway.app.reload()).await.unwrap()
}

/// The CN that a service was shown, or the code of the refusal.
async fn outcome(gateway: &TestGateway, tenant: Finess, service: &str) -> Result<String, String> {
    let answer = gateway.get(tenant, &format!("/{service}/x")).await;
    match answer.status() {
        200 => Ok(answer.seen().cn.unwrap_or_default()),
        _ => Err(answer.code()),
    }
}

async fn works(gateway: &TestGateway, service: &str) {
    let outcome = outcome(gateway, gateway.tenant(0), service).await;
    outcome.unwrap_or_else(|code| panic!("{service}: {code}"));
    settled(gateway).await;
}

fn refused(code: &str) -> Result<String, String> {
    Err(code.to_owned())
}

fn handshakes(gateway: &TestGateway, at: usize) -> usize {
    let (full, resumed) = gateway.site.simulators[at].1.handshakes();
    full + resumed
}

/// The command's exit code and what it prints.
fn command(gateway: &TestGateway, arguments: &[&str]) -> (Option<i32>, String) {
    let admin = gateway.admin.to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_relais"))
        .args(arguments)
        .args(["--admin", &admin])
        .output()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
    )
}
