//! A gateway in front of a witness, tenants with certificates of their own, and applications that come and go.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use relais::identity::finess::Finess;
use relais::identity::profile::Fingerprint;
use relais::outbound::pool::Occupancy;
use relais::outbound::tls::provider;
use relais::services::Environment;
use relais::simulator::pki::{self, Pki, Request as Order};
use relais::simulator::site::sample_finess;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::witness::{BEHAVIOUR, Behaviour, Connection, Manner, NONCE, SERVICE, TENANT, Witness};
use crate::support::{self, TestGateway};

/// How often a condition that must come true is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Which of a tenant's certificates.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    Plain,
    InsiAuto,
    InsiManu,
}

impl Kind {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Plain, "DUI"),
        (Self::InsiAuto, "INSI-AUTO"),
        (Self::InsiManu, "INSI-MANU"),
    ];

    fn wanted_by(service: &str) -> Self {
        match service {
            "insi-auto" => Self::InsiAuto,
            "insi-manu" => Self::InsiManu,
            _ => Self::Plain,
        }
    }
}

pub fn is_insi(service: &str) -> bool {
    Kind::wanted_by(service) != Kind::Plain
}

/// One request, and what becomes of it.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub tenant: usize,
    pub service: &'static str,
    pub behaviour: Behaviour,
    pub leaves: Leaves,
    /// Bytes of body; none makes it a GET.
    pub body: usize,
    /// Asks for another protocol, which the witness never agrees to.
    pub upgrade: bool,
}

/// When the application goes away.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Leaves {
    Never,
    /// So many milliseconds after it began.
    After(u64),
    /// In the middle of its own body.
    InItsBody,
    /// When it has the answer's head.
    InTheAnswer,
}

impl Step {
    /// A GET that is answered.
    pub fn plain(tenant: usize, service: &'static str) -> Self {
        Self {
            tenant,
            service,
            behaviour: Behaviour::Answer,
            leaves: Leaves::Never,
            body: 0,
            upgrade: false,
        }
    }
}

/// What an answer must bear.
#[derive(Clone, Debug)]
pub struct Expected {
    tenant: Finess,
    sha256: String,
}

pub struct Scene {
    pub gateway: TestGateway,
    pub witness: Witness,
    pub tenants: Vec<Finess>,
    certificates: HashMap<(Finess, Kind), String>,
    _directory: TempDir,
}

impl Scene {
    /// Tenants with all three certificates each, and services at the witness's address, all of whose timeouts have
    /// `timeouts` changed. In a service's keys `PORT` stands for the witness's port.
    pub fn new(
        tenants: usize,
        workers: usize,
        services: &[(&str, &str)],
        timeouts: &str,
        extra: &str,
    ) -> Self {
        let pki = Pki::new(Environment::Test);
        let keys = pki::generate_keys(4);
        // Few keys: a key that several certificates share must not make them one identity either.
        let orders = |tenant: usize| {
            Kind::ALL
                .iter()
                .map(|(_, common_name)| {
                    let key = Some(Arc::clone(&keys[tenant % keys.len()]));
                    (
                        &pki,
                        Order {
                            key,
                            ..Order::new("", common_name)
                        },
                    )
                })
                .collect()
        };
        let configuration = Configuration {
            workers,
            timeouts,
            extra,
            services,
        };
        Self::build(tenants, &[&pki], &configuration, Manner::default(), orders)
    }

    /// The same with a service of another manner.
    pub fn with_manner(tenants: usize, services: &[(&str, &str)], manner: Manner) -> Self {
        let pki = Pki::new(Environment::Test);
        let orders = |_| vec![(&pki, Order::new("", "DUI"))];
        Self::build(
            tenants,
            &[&pki],
            &Configuration::plain(services),
            manner,
            orders,
        )
    }

    /// Two tenants with the certificates that `orders` says; the last of a kind is expected to be shown.
    pub fn with_certificates<'a>(
        pkis: &[&'a Pki],
        services: &[(&str, &str)],
        orders: impl Fn(usize) -> Vec<(&'a Pki, Order<'a>)>,
    ) -> Self {
        let configuration = Configuration::plain(services);
        Self::build(2, pkis, &configuration, Manner::default(), orders)
    }

    fn build<'a>(
        tenants: usize,
        pkis: &[&'a Pki],
        configuration: &Configuration<'_>,
        manner: Manner,
        orders: impl Fn(usize) -> Vec<(&'a Pki, Order<'a>)>,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let trust = directory.path().join("trust.pem");
        std::fs::write(&trust, pkis[0].authority_pem()).unwrap();
        let tenants: Vec<_> = (0..tenants).map(sample_finess).collect();
        let mut certificates = HashMap::new();
        for (number, tenant) in tenants.iter().enumerate() {
            let folder = directory.path().join("certs").join(tenant.as_str());
            std::fs::create_dir_all(&folder).unwrap();
            for (place, (pki, order)) in orders(number).into_iter().enumerate() {
                let structure = format!("1{tenant}");
                let issued = pki.issue(&Order {
                    structure: &structure,
                    ..order.clone()
                });
                pki::write_private(&folder.join(format!("{place}.pem")), issued.pem()).unwrap();
                let kind = Kind::ALL
                    .iter()
                    .find(|(_, name)| *name == order.common_name)
                    .unwrap()
                    .0;
                let fingerprint = Fingerprint::of(&issued.cert_der).to_string();
                certificates.insert((*tenant, kind), fingerprint);
            }
        }
        let witness = Witness::start(pkis, manner);
        let text = configuration.text(witness.address, &trust);
        let gateway = support::start_with(0, &[], |written| {
            let own = format!("directory = {:?}", directory.path().join("certs"));
            *written = written.replace("directory = \"certs\"", &own);
            written.insert_str(0, &format!("workers = {}\n", configuration.workers));
            written.push_str(&text);
        });
        Self {
            gateway,
            witness,
            tenants,
            certificates,
            _directory: directory,
        }
    }

    /// What an answer for this tenant and service must bear.
    pub fn expected(&self, tenant: usize, service: &str) -> Expected {
        let tenant = self.tenants[tenant];
        Expected {
            tenant,
            sha256: self.certificates[&(tenant, Kind::wanted_by(service))].clone(),
        }
    }

    /// Takes a step that must be answered, in an application of its own.
    pub async fn ask(&self, step: &Step) {
        let expected = self.expected(step.tenant, step.service);
        let asked = Application::new(self.gateway.address())
            .ask(step, &expected)
            .await;
        assert_eq!(asked, Ok(true), "{step:?}");
    }

    /// Lets several applications take their steps at once. When they are done, every pool must still serve.
    pub async fn play(&self, clients: Vec<Vec<Step>>) -> Result<(), String> {
        let mut all = tokio::task::JoinSet::new();
        for steps in clients {
            let mut application = Application::new(self.gateway.address());
            let steps: Vec<_> = steps
                .into_iter()
                .map(|step| (self.expected(step.tenant, step.service), step))
                .collect();
            all.spawn(async move {
                for (expected, step) in steps {
                    application.ask(&step, &expected).await?;
                }
                Ok(())
            });
        }
        all.join_all()
            .await
            .into_iter()
            .collect::<Result<(), String>>()?;
        let services: Vec<&'static str> = super::super::SMALL_POOLS
            .iter()
            .map(|(name, _)| *name)
            .collect();
        let mut application = Application::new(self.gateway.address());
        for tenant in 0..self.tenants.len() {
            for service in &services {
                let step = Step::plain(tenant, service);
                let expected = self.expected(tenant, service);
                if !application.ask(&step, &expected).await? {
                    return Err(format!("afterwards, {step:?} is no longer answered"));
                }
            }
        }
        Ok(())
    }

    /// Whether each connection carried nothing but what was its tenant's and its service's.
    pub fn check_connections(&self) -> Result<(), String> {
        for connection in self.witness.connections() {
            for carried in &connection.carried {
                let tenant = self
                    .tenants
                    .iter()
                    .find(|tenant| tenant.as_str() == carried.tenant);
                let right = tenant
                    .and_then(|tenant| {
                        self.certificates
                            .get(&(*tenant, Kind::wanted_by(&carried.service)))
                    })
                    .is_some_and(|sha256| connection.sha256.as_ref() == Some(sha256));
                if !right || connection.ou != Some(format!("1{}", carried.tenant)) {
                    return Err(format!("{carried:?} was sent over {connection:?}"));
                }
            }
        }
        Ok(())
    }

    /// Requests that the witness has seen.
    pub fn carried(&self) -> usize {
        let connections = self.witness.connections();
        connections.iter().map(|one| one.carried.len()).sum()
    }

    /// Which certificate a connection was opened with.
    pub fn kind_of(&self, connection: &Connection) -> Option<Kind> {
        let found = self
            .certificates
            .iter()
            .find(|(_, sha256)| connection.sha256.as_ref() == Some(sha256));
        found.map(|((_, kind), _)| *kind)
    }

    /// Waits until all pools together fulfil a condition.
    pub async fn until(&self, condition: impl Fn(Occupancy) -> bool) {
        let all = || {
            let sum = |sum: Occupancy, one: Occupancy| Occupancy {
                open: sum.open + one.open,
                idle: sum.idle + one.idle,
                resting: sum.resting + one.resting,
                h2: sum.h2 + one.h2,
                waiting: sum.waiting + one.waiting,
            };
            let pools = self.gateway.app.outbound.pools();
            pools
                .iter()
                .map(|pool| pool.occupancy())
                .fold(Occupancy::default(), sum)
        };
        let waited = tokio::time::timeout(support::DEADLINE, async {
            while !condition(all()) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        if waited.await.is_err() {
            panic!("it never came to that: {:?}", all());
        }
    }
}

struct Configuration<'a> {
    workers: usize,
    timeouts: &'a str,
    extra: &'a str,
    services: &'a [(&'a str, &'a str)],
}

impl<'a> Configuration<'a> {
    fn plain(services: &'a [(&'a str, &'a str)]) -> Self {
        Self {
            workers: 2,
            timeouts: "",
            extra: "",
            services,
        }
    }

    fn text(&self, address: SocketAddr, trust: &std::path::Path) -> String {
        let mut text = self.extra.to_owned();
        for (name, keys) in self.services {
            let port = address.port();
            let keys = keys.replace("PORT", &port.to_string());
            writeln!(text, "\n[services.{name}]\naddress = \"{address}\"\n{keys}").unwrap();
            for (key, value) in [
                ("url", format!("https://localhost:{port}")),
                ("trust", trust.display().to_string()),
            ] {
                if !keys.contains(&format!("{key} =")) {
                    writeln!(text, "{key} = {value:?}").unwrap();
                }
            }
            if !self.timeouts.is_empty() {
                writeln!(text, "[services.{name}.timeouts]\n{}", self.timeouts).unwrap();
            }
        }
        text
    }
}

/// An application that keeps a connection to the gateway and speaks for several tenants over it.
pub struct Application {
    address: SocketAddr,
    connection: Option<http1::SendRequest<BoxBody<Bytes, Infallible>>>,
}

impl Application {
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            connection: None,
        }
    }

    /// Takes a step: whether the service's answer came whole. What must never be is an error.
    pub async fn ask(&mut self, step: &Step, expected: &Expected) -> Result<bool, String> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let nonce = format!("n{}.", NUMBER.fetch_add(1, Ordering::Relaxed));
        let request = request(step, expected, &nonce);
        let asked = async {
            let Ok(response) = self.send(request).await else {
                return Ok(false);
            };
            if let Some(problem) = response.headers().get("proxy-status") {
                let internal = problem.as_bytes().ends_with(b"internal_error");
                let _ = response.into_body().collect().await;
                return if internal {
                    Err("an internal error".to_owned())
                } else {
                    Ok(false)
                };
            }
            check_head(&response, expected, &nonce)?;
            if step.leaves == Leaves::InTheAnswer {
                return Ok(false);
            }
            let Ok(body) = response.into_body().collect().await else {
                return Ok(false);
            };
            let body = body.to_bytes();
            let pieces = match step.behaviour {
                Behaviour::Drip(_) => 5,
                _ => 1,
            };
            if body != nonce.repeat(pieces) {
                return Err(format!("the body of {nonce} is {body:?}"));
            }
            Ok(true)
        };
        let (outcome, leaves) = match step.leaves {
            Leaves::After(milliseconds) => (
                tokio::time::timeout(Duration::from_millis(milliseconds), asked)
                    .await
                    .unwrap_or(Ok(false)),
                true,
            ),
            Leaves::InItsBody => (
                tokio::time::timeout(Duration::from_millis(30), asked)
                    .await
                    .unwrap_or(Ok(false)),
                true,
            ),
            Leaves::InTheAnswer => (in_time(asked, step).await, true),
            Leaves::Never => (in_time(asked, step).await, false),
        };
        if leaves || !matches!(outcome, Ok(true)) {
            self.connection = None;
        }
        outcome
    }

    /// Sends a request of any kind and reads the answer's head.
    pub async fn raw(&mut self, request: Request<Bytes>) -> hyper::Result<u16> {
        let sent = self.send(request.map(|body| Full::new(body).boxed())).await;
        sent.map(|response| response.status().as_u16())
    }

    async fn send(
        &mut self,
        mut request: Request<BoxBody<Bytes, Infallible>>,
    ) -> hyper::Result<Response<Incoming>> {
        let host = self.address.to_string().parse().unwrap();
        request.headers_mut().insert("host", host);
        if let Some(connection) = &mut self.connection
            && connection.ready().await.is_err()
        {
            self.connection = None;
        }
        if self.connection.is_none() {
            let tcp = TcpStream::connect(self.address).await.unwrap();
            let (sender, connection) = http1::handshake(TokioIo::new(tcp)).await?;
            tokio::spawn(connection.with_upgrades());
            self.connection = Some(sender);
        }
        self.connection
            .as_mut()
            .unwrap()
            .send_request(request)
            .await
    }
}

/// Every wait of the gateway's has a deadline, so each application hears from it.
async fn in_time(
    asked: impl Future<Output = Result<bool, String>>,
    step: &Step,
) -> Result<bool, String> {
    tokio::time::timeout(support::DEADLINE, asked)
        .await
        .unwrap_or_else(|_| Err(format!("no answer and no refusal of {step:?}")))
}

fn request(step: &Step, expected: &Expected, nonce: &str) -> Request<BoxBody<Bytes, Infallible>> {
    let method = if step.body == 0 { "GET" } else { "POST" };
    let mut request = Request::builder()
        .method(method)
        .uri(format!("/{}/{nonce}", step.service))
        .header("x-finess", expected.tenant.as_str())
        .header(NONCE, nonce)
        .header(TENANT, expected.tenant.as_str())
        .header(SERVICE, step.service)
        .header(BEHAVIOUR, step.behaviour.to_field());
    if step.upgrade {
        request = request
            .header("connection", "upgrade")
            .header("upgrade", "websocket");
    }
    let body = match (step.leaves, step.body) {
        (Leaves::InItsBody, _) => Unfinished(Some(Bytes::from_static(b"so far"))).boxed(),
        (_, length) => Full::new(Bytes::from(vec![b'x'; length])).boxed(),
    };
    request.body(body).unwrap()
}

fn check_head(
    response: &Response<Incoming>,
    expected: &Expected,
    nonce: &str,
) -> Result<(), String> {
    for (name, right) in [
        (NONCE, nonce),
        ("x-client-sha256", &expected.sha256),
        ("x-client-ou", &format!("1{}", expected.tenant)),
    ] {
        if response
            .headers()
            .get(name)
            .is_none_or(|value| value != right)
        {
            return Err(format!(
                "{name} should be {right} in the answer to {nonce} for {expected:?}: {response:?}"
            ));
        }
    }
    Ok(())
}

/// A body that begins and does not go on.
struct Unfinished(Option<Bytes>);

impl Body for Unfinished {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0.take() {
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            None => Poll::Pending,
        }
    }
}

/// A verifier of a service that takes elliptic keys alone, and lets in who shows none.
pub fn elliptic_and_optional() -> Arc<dyn ClientCertVerifier> {
    Arc::new(EllipticAndOptional)
}

#[derive(Debug)]
struct EllipticAndOptional;

impl ClientCertVerifier for EllipticAndOptional {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
