//! How the gateway is, in one answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::Serialize;

use crate::app::App;
use crate::app::reload::{Restart, Trouble};
use crate::gateway::diagnosis::Seen;
use crate::identity::revocation::{Crl, List};
use crate::identity::states::{self, timestamp};
use crate::outbound::pool::Rejected;
use crate::sandbox;

/// What `GET /api/v1/status` answers.
#[derive(Serialize)]
pub(super) struct Status {
    version: &'static str,
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// Whether the kernel keeps the process to its files, where it is to.
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox: Option<&'static str>,
    since: String,
    uptime_seconds: u64,
    tenants: usize,
    services: usize,
    certificates: BTreeMap<&'static str, usize>,
    upstream_connections: usize,
    /// What answers of services revealed of certificates since the start.
    certificate_problems: Vec<CertificateProblem>,
    /// What was wrong with files when they were read last.
    problems: Vec<Trouble>,
    /// Keys of the configuration whose values in the file are not those in use before a restart.
    restart: Vec<Restart>,
    /// Renewed certificates that a service refuses, while the one before serves.
    rejected_certificates: Vec<RejectedCertificate>,
    revocation_lists: Vec<RevocationList>,
}

#[derive(Serialize)]
struct RevocationList {
    source: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_update: Option<String>,
    revoked: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

impl From<&List> for RevocationList {
    fn from(list: &List) -> Self {
        let crl = list.crl.as_deref();
        Self {
            source: Arc::clone(&list.source),
            issuer: crl.map(|crl| crl.issuer.to_string()),
            next_update: crl.map(|crl| timestamp(crl.next_update)),
            revoked: crl.map_or(0, Crl::entries),
            problem: list.problem.as_ref().map(ToString::to_string),
        }
    }
}

#[derive(Serialize)]
struct CertificateProblem {
    service: Arc<str>,
    problem: &'static str,
    count: u64,
    last: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial: Option<String>,
    hint: &'static str,
}

impl From<(Arc<str>, Seen)> for CertificateProblem {
    fn from((service, seen): (Arc<str>, Seen)) -> Self {
        Self {
            service,
            problem: seen.trouble.name,
            count: seen.count,
            last: timestamp(seen.last),
            tenant: seen.tenant,
            serial: seen.serial,
            hint: seen.trouble.hint,
        }
    }
}

#[derive(Serialize)]
struct RejectedCertificate {
    service: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    structure: Option<String>,
    serial: String,
    /// The certificate that serves instead.
    previous_serial: String,
    alert: String,
    hint: &'static str,
}

impl From<Rejected> for RejectedCertificate {
    fn from(rejected: Rejected) -> Self {
        let renewed = rejected.renewed();
        Self {
            service: Arc::clone(&rejected.pool.service().name),
            structure: renewed.structure.as_ref().map(ToString::to_string),
            serial: renewed.serial.to_string(),
            previous_serial: rejected.previous().serial.to_string(),
            alert: format!("{:?}", rejected.alert),
            hint: Rejected::HINT,
        }
    }
}

pub(super) async fn status(State(app): State<Arc<App>>) -> Json<Status> {
    let table = app.gateway.table.load();
    let mut certificates = BTreeMap::from([("unusable", app.problems.load().len())]);
    let (revocations, now) = (app.revocations.load(), app.clock.now());
    for generation in table.generations() {
        let state = states::State::of(&generation.identity().profile, &revocations, now);
        *certificates.entry(state.as_str()).or_default() += 1;
    }
    let reason = app.unready();
    Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        ready: reason.is_none(),
        reason,
        sandbox: sandbox::state().map(sandbox::State::as_str),
        since: instant(app.since),
        uptime_seconds: app.since.elapsed().unwrap_or(Duration::ZERO).as_secs(),
        tenants: table.tenants().len(),
        services: table.services().len(),
        certificates,
        upstream_connections: app
            .outbound
            .pools()
            .iter()
            .map(|pool| pool.occupancy().open)
            .sum(),
        certificate_problems: (app.gateway.diagnosis.seen().into_iter())
            .map(CertificateProblem::from)
            .collect(),
        problems: app.remarks.load().0.clone(),
        restart: app.remarks.load().1.clone(),
        rejected_certificates: (app.outbound.rejected().into_iter())
            .map(RejectedCertificate::from)
            .collect(),
        revocation_lists: (app.revocations.load().lists().iter())
            .map(RevocationList::from)
            .collect(),
    })
}

fn instant(at: SystemTime) -> String {
    Timestamp::try_from(at)
        .map(|at| format!("{at:.0}"))
        .unwrap_or_default()
}
