//! A stand-in for a national service: demands a client certificate as the service does, and answers with what it saw.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderName, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::identity::profile::{Fingerprint, Profile};
use crate::outbound::tls::{provider, versions};
use crate::services::{HttpVersions, TlsVersions};
use crate::simulator::pki::{Pki, Purpose, Request as Order};

/// The SHA-256 of the client certificate that a simulator saw, on each of its answers.
pub const X_CLIENT_SHA256: HeaderName = HeaderName::from_static("x-client-sha256");

/// The structure id in the client certificate that a simulator saw, on each of its answers.
pub const X_CLIENT_OU: HeaderName = HeaderName::from_static("x-client-ou");

/// How a simulator behaves.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The service's name, repeated in answers.
    pub name: &'static str,
    /// TLS versions that it speaks.
    pub tls: TlsVersions,
    /// HTTP versions that it offers.
    pub http: HttpVersions,
    /// What it does about client certificates.
    pub client: ClientCertificate,
}

/// What a simulator does about client certificates.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClientCertificate {
    /// It does not ask.
    NotRequested,
    /// Nobody gets in without one of its own PKI.
    Required,
}

/// A running simulator; stops when dropped.
#[derive(Debug)]
pub struct Simulator {
    /// Where it listens.
    pub address: SocketAddr,
    handshakes: Arc<Handshakes>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Connections that a simulator has accepted, by how their handshake went.
#[derive(Debug, Default)]
struct Handshakes {
    full: AtomicUsize,
    resumed: AtomicUsize,
}

/// What a simulator saw of a request: its answer, in JSON.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Seen {
    /// The simulator's name.
    pub service: String,
    /// The request's method.
    pub method: String,
    /// The request's path and query.
    pub path: String,
    /// The HTTP version.
    pub http: String,
    /// The TLS version.
    pub tls: String,
    /// Whether the TLS session was resumed.
    pub resumed: bool,
    /// The client certificate's subject (RFC 4514), if one was shown.
    pub subject: Option<String>,
    /// Its structure id.
    pub ou: Option<String>,
    /// Its CN.
    pub cn: Option<String>,
    /// Its SHA-256.
    pub sha256: Option<String>,
    /// The request's fields, one a line.
    pub headers: Vec<(String, String)>,
    /// Bytes in the request's body.
    pub body_bytes: usize,
}

/// What is known of a connection once its handshake is done.
#[derive(Clone, Debug)]
struct Peer {
    profile: Option<Arc<Profile>>,
    fingerprint: Option<Fingerprint>,
    tls: String,
    resumed: bool,
}

impl Simulator {
    /// Starts a simulator on a free loopback port, with a server certificate of `pki` for `localhost`.
    ///
    /// # Errors
    /// When no port or thread can be had.
    pub fn start(settings: Settings, pki: &Pki) -> io::Result<Self> {
        let tls = tls(settings, pki).map_err(io::Error::other)?;
        let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let handshakes = Arc::new(Handshakes::default());
        let counted = Arc::clone(&handshakes);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = thread::Builder::new()
            .name(format!("simulator-{}", settings.name))
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = accept(listener, TlsAcceptor::from(tls), settings, counted) => {}
                        // Dropping the sender stops it as well.
                        _ = stopped => {}
                    }
                });
            })?;
        Ok(Self {
            address,
            handshakes,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Handshakes so far: full ones and resumed ones.
    pub fn handshakes(&self) -> (usize, usize) {
        let count = |counter: &AtomicUsize| counter.load(Ordering::Acquire);
        (
            count(&self.handshakes.full),
            count(&self.handshakes.resumed),
        )
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A simulator that panicked has already said so on standard error.
            let _ = thread.join();
        }
    }
}

fn tls(settings: Settings, pki: &Pki) -> Result<Arc<ServerConfig>, rustls::Error> {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let issued = pki.issue(&Order {
        purpose: Purpose::SslServer(names),
        ..Order::new("3187512751", settings.name)
    });
    let chain = vec![issued.cert_der.clone(), pki.issuing_der().clone()];
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(issued.key.serialize_der()));
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(settings.tls))?;
    let builder = match settings.client {
        ClientCertificate::NotRequested => builder.with_no_client_auth(),
        ClientCertificate::Required => {
            let mut roots = RootCertStore::empty();
            roots.add(pki.root_der().clone())?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = match settings.http {
        HttpVersions::Auto => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        HttpVersions::H1 => vec![b"http/1.1".to_vec()],
        HttpVersions::H2 => vec![b"h2".to_vec()],
    };
    Ok(Arc::new(config))
}

async fn accept(
    listener: std::net::TcpListener,
    acceptor: TlsAcceptor,
    settings: Settings,
    counted: Arc<Handshakes>,
) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    loop {
        let Ok((tcp, _)) = listener.accept().await else {
            continue;
        };
        tokio::spawn(serve(tcp, acceptor.clone(), settings, Arc::clone(&counted)));
    }
}

async fn serve(
    tcp: TcpStream,
    acceptor: TlsAcceptor,
    settings: Settings,
    counted: Arc<Handshakes>,
) {
    let _ = tcp.set_nodelay(true);
    // A client that fails the handshake is told so by TLS itself.
    let Ok(stream) = acceptor.accept(tcp).await else {
        return;
    };
    let peer = peer(stream.get_ref().1);
    let counter = if peer.resumed {
        &counted.resumed
    } else {
        &counted.full
    };
    counter.fetch_add(1, Ordering::AcqRel);
    let service = service_fn(move |request| {
        let peer = peer.clone();
        async move { Ok::<_, Infallible>(answer(settings.name, &peer, request).await) }
    });
    // How a connection ends is for its client to judge.
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn peer(session: &rustls::ServerConnection) -> Peer {
    let leaf: Option<&CertificateDer<'_>> =
        session.peer_certificates().and_then(|chain| chain.first());
    let profile = leaf
        .and_then(|leaf| Profile::parse(leaf).ok())
        .map(Arc::new);
    Peer {
        fingerprint: profile.as_ref().map(|profile| profile.fingerprint),
        profile,
        tls: session
            .protocol_version()
            .map(|version| format!("{version:?}"))
            .unwrap_or_default(),
        resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
    }
}

async fn answer(
    name: &str,
    peer: &Peer,
    request: Request<Incoming>,
) -> Response<BoxBody<Bytes, hyper::Error>> {
    if request.uri().path().ends_with("/echo") {
        let content_type = request.headers().get(CONTENT_TYPE).cloned();
        let mut response = Response::new(request.into_body().boxed());
        if let Some(content_type) = content_type {
            response.headers_mut().insert(CONTENT_TYPE, content_type);
        }
        mark(&mut response, peer);
        return response;
    }
    let mut seen = saw(name, peer, &request);
    let Ok(body) = request.into_body().collect().await else {
        return Response::new(whole(Vec::new()));
    };
    seen.body_bytes = body.to_bytes().len();
    let json = serde_json::to_vec_pretty(&seen).unwrap_or_default();
    let mut response = Response::new(whole(json));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    mark(&mut response, peer);
    response
}

fn whole(bytes: Vec<u8>) -> BoxBody<Bytes, hyper::Error> {
    Full::new(Bytes::from(bytes))
        .map_err(|never| match never {})
        .boxed()
}

fn saw(name: &str, peer: &Peer, request: &Request<Incoming>) -> Seen {
    let profile = peer.profile.as_deref();
    let text = |(name, value): (&HeaderName, &HeaderValue)| {
        (
            name.to_string(),
            String::from_utf8_lossy(value.as_bytes()).into_owned(),
        )
    };
    Seen {
        service: name.to_owned(),
        method: request.method().to_string(),
        path: request
            .uri()
            .path_and_query()
            .map(ToString::to_string)
            .unwrap_or_default(),
        http: format!("{:?}", request.version()),
        tls: peer.tls.clone(),
        resumed: peer.resumed,
        subject: profile.map(|profile| profile.subject.to_string()),
        ou: profile
            .and_then(|profile| profile.structure.as_ref())
            .map(ToString::to_string),
        cn: profile
            .and_then(|profile| profile.common_name.as_deref())
            .map(str::to_owned),
        sha256: peer.fingerprint.map(|fingerprint| fingerprint.to_string()),
        headers: request.headers().iter().map(text).collect(),
        body_bytes: 0,
    }
}

/// Says on the answer itself whose certificate was seen, so that a load generator need not read bodies.
fn mark(response: &mut Response<BoxBody<Bytes, hyper::Error>>, peer: &Peer) {
    let structure = peer
        .profile
        .as_ref()
        .and_then(|profile| profile.structure.as_ref());
    let fields = [
        (X_CLIENT_OU, structure.map(ToString::to_string)),
        (
            X_CLIENT_SHA256,
            peer.fingerprint.map(|fingerprint| fingerprint.to_string()),
        ),
    ];
    for (name, value) in fields {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
}
