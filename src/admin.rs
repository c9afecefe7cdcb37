//! Administration on a loopback listener of its own: health, metrics, and what is loaded.

mod status;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;

use crate::app::App;
use crate::config::ListenAddress;
use crate::gateway::guard::Hosts;
use crate::gateway::headers::Overview;
use crate::identity::generation::Generation;
use crate::identity::revocation::Revocations;
use crate::identity::states::{self, timestamp};
use crate::inbound::inherited::Inherited;
use crate::inbound::listener::BindError;
use crate::inbound::peer::Peer;
use crate::outbound::pool::Pool;
use crate::services::Service;

use status::status;

/// Binds the administration listener, or takes the socket that was inherited for it.
///
/// # Errors
/// When the address is taken or cannot be bound.
pub fn bind(
    address: SocketAddr,
    inherited: &mut Inherited,
) -> Result<std::net::TcpListener, BindError> {
    let claimed = inherited.claim(&ListenAddress::Tcp(address));
    if let Some(socket) = claimed.and_then(|(sockets, _)| sockets.into_iter().next()) {
        return Ok(socket.into());
    }
    let bound = std::net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|reason| BindError::new(format!("{address} for administration"), reason))
}

/// Serves administration until its runtime ends.
pub async fn serve(listener: std::net::TcpListener, app: Arc<App>) {
    let served = async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        axum::serve(listener, routes(app)).await
    };
    if let Err(error) = served.await {
        tracing::error!(%error, "the administration listener ended");
    }
}

fn routes(app: Arc<App>) -> Router {
    Router::new()
        .route("/health/live", get(|| async { "live\n" }))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/api/v1/status", get(status))
        .route("/api/v1/tenants", get(tenants))
        .route("/api/v1/services", get(services))
        .route("/api/v1/certificates", get(certificates))
        .route("/api/v1/pools", get(pools))
        .route("/api/v1/reload", post(reload))
        .layer(middleware::from_fn(local_only))
        .with_state(app)
}

/// What is loaded tells a web page whom it could impersonate: the same guard as on the data listeners.
async fn local_only(request: Request, next: Next) -> Response {
    let overview = Overview::of(request.headers());
    match Hosts::local().admit(&Peer::default(), &request, overview, false) {
        Ok(()) => {
            let mut response = next.run(request).await;
            response
                .headers_mut()
                .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(problem) => problem.into_response().map(axum::body::Body::from),
    }
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    match app.unready() {
        None => "ready\n".into_response(),
        Some(reason) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {reason}\n"),
        )
            .into_response(),
    }
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    // Rendering thousands of series takes a tenth of a second: not on the thread that answers health checks.
    let rendered = tokio::task::spawn_blocking(move || app.gateway.metrics.render()).await;
    match rendered {
        Ok(text) => ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[derive(Serialize)]
struct Tenant {
    finess: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Sites that may use its certificates, as the table of structures has them.
    sites: usize,
    /// The SHA-256 of the certificate that each service would be shown; null where none may be.
    services: BTreeMap<Arc<str>, Option<String>>,
}

async fn tenants(State(app): State<Arc<App>>) -> Json<Vec<Tenant>> {
    let table = app.gateway.table.load();
    let structures = &table.registry().structures;
    let tenants = table.tenants().into_iter().map(|(finess, pools)| Tenant {
        finess: finess.to_string(),
        name: (structures.get(finess)).and_then(|known| known.name.as_deref().map(str::to_owned)),
        sites: structures.sites(finess),
        services: table
            .services()
            .iter()
            .zip(pools)
            .filter(|(offered, _)| {
                offered.service.certificate != crate::services::WantedCertificate::None
            })
            .map(|(offered, pool)| {
                (
                    Arc::clone(&offered.service.name),
                    pool.pool()
                        .map(|pool| table.serving(pool))
                        .as_ref()
                        .and_then(fingerprint),
                )
            })
            .collect(),
    });
    Json(tenants.collect())
}

fn fingerprint(pool: &Arc<Pool>) -> Option<String> {
    pool.generation()
        .map(|generation| generation.identity().profile.fingerprint.to_string())
}

#[derive(Serialize)]
struct Offered {
    name: Arc<str>,
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<SocketAddr>,
    environment: &'static str,
    certificate: &'static str,
}

impl From<&Service> for Offered {
    fn from(service: &Service) -> Self {
        Self {
            name: Arc::clone(&service.name),
            url: format!(
                "https://{}{}",
                service.target.authority, service.target.base_path
            ),
            address: service.target.address,
            environment: service.environment.as_str(),
            certificate: service.certificate.as_str(),
        }
    }
}

async fn services(State(app): State<Arc<App>>) -> Json<Vec<Offered>> {
    let table = app.gateway.table.load();
    Json(
        table
            .services()
            .iter()
            .map(|offered| Offered::from(&*offered.service))
            .collect(),
    )
}

#[derive(Serialize)]
struct Certificates {
    loaded: Vec<Certificate>,
    unusable: Vec<Unusable>,
}

#[derive(Serialize)]
struct Certificate {
    file: String,
    state: &'static str,
    subject: String,
    issuer: String,
    serial: String,
    sha256: String,
    /// The SHA-256 of the public key: the same one on two instances is one key in two places.
    public_key_sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    structure: Option<String>,
    usage: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    environment: Option<&'static str>,
    not_before: String,
    not_after: String,
}

#[derive(Serialize)]
struct Unusable {
    file: String,
    reason: String,
}

impl Certificate {
    fn of(generation: &Generation, revocations: &Revocations, now: i64) -> Self {
        let identity = generation.identity();
        let profile = &identity.profile;
        Self {
            file: identity.path.display().to_string(),
            state: states::State::of(profile, revocations, now).as_str(),
            subject: profile.subject.to_string(),
            issuer: profile.issuer.to_string(),
            serial: profile.serial.to_string(),
            sha256: profile.fingerprint.to_string(),
            public_key_sha256: profile.public_key.to_string(),
            structure: profile.structure.as_ref().map(ToString::to_string),
            usage: profile.usage.as_str(),
            environment: profile
                .environment
                .map(crate::services::Environment::as_str),
            not_before: timestamp(profile.not_before),
            not_after: timestamp(profile.not_after),
        }
    }
}

async fn certificates(State(app): State<Arc<App>>) -> Json<Certificates> {
    let table = app.gateway.table.load();
    let (revocations, now) = (app.revocations.load(), app.clock.now());
    let loaded = table
        .generations()
        .iter()
        .map(|generation| Certificate::of(generation, &revocations, now))
        .collect();
    let problems = app.problems.load();
    let unusable = problems.iter().map(|problem| Unusable {
        file: problem.path.display().to_string(),
        reason: problem.kind.to_string(),
    });
    Json(Certificates {
        loaded,
        unusable: unusable.collect(),
    })
}

#[derive(Serialize)]
struct Occupied {
    service: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_sha256: Option<String>,
    open: usize,
    idle: usize,
    h2: usize,
    waiting: usize,
    /// Whether requests are refused at once, because the service could not be reached.
    breaker_open: bool,
}

async fn pools(State(app): State<Arc<App>>) -> Json<Vec<Occupied>> {
    let pools = app.outbound.pools();
    let occupied = pools.iter().map(|pool| {
        let occupancy = pool.occupancy();
        Occupied {
            service: Arc::clone(&pool.service().name),
            certificate_sha256: fingerprint(pool),
            open: occupancy.open,
            idle: occupancy.idle,
            h2: occupancy.h2,
            waiting: occupancy.waiting,
            breaker_open: pool.is_left_alone(),
        }
    });
    Json(occupied.collect())
}

async fn reload(State(app): State<Arc<App>>) -> Response {
    match app.reload().await {
        Ok(report) => Json(report).into_response(),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            Json(Failed {
                error: format!("{error:#}"),
            }),
        )
            .into_response(),
    }
}

#[derive(Serialize)]
struct Failed {
    error: String,
}
