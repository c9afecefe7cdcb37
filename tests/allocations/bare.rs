//! The least that forwards over mutual TLS: hyper on both sides and one connection to the service, with no limit,
//! deadline, log, metric or rule. `benches/compare/forwarder.rs` is the same with a pool for each tenant.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use http::header::{HOST, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use relais::outbound::tls::provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

/// The one connection to the service.
enum Sender {
    H1(http1::SendRequest<Incoming>),
    H2(http2::SendRequest<Incoming>),
}

/// Forwards what comes to `listener`, one request after the other.
pub(crate) async fn forward(
    listener: std::net::TcpListener,
    is_h2c: bool,
    upstream: SocketAddr,
    tls: Arc<ClientConfig>,
) {
    let listener = TcpListener::from_std(listener).unwrap();
    let sender = Arc::new(Mutex::new(Sender::connect(upstream, tls).await));
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let sender = Arc::clone(&sender);
        let service = service_fn(move |request| {
            let sender = Arc::clone(&sender);
            async move { Ok::<_, Infallible>(sender.lock().await.send(request).await) }
        });
        let io = TokioIo::new(tcp);
        if is_h2c {
            let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(http.serve_connection(io, service));
        } else {
            let mut http = hyper::server::conn::http1::Builder::new();
            http.header_read_timeout(None);
            tokio::spawn(http.serve_connection(io, service));
        }
    }
}

/// What a client of the service with the certificate in that file says in its handshake.
pub(crate) fn tls(
    root: &CertificateDer<'static>,
    identity: &Path,
    is_h2: bool,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let chain = CertificateDer::pem_file_iter(identity).unwrap();
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            chain.map(Result::unwrap).collect(),
            PrivateKeyDer::from_pem_file(identity).unwrap(),
        )
        .unwrap();
    let alpn: &[u8] = if is_h2 { b"h2" } else { b"http/1.1" };
    config.alpn_protocols = vec![alpn.to_vec()];
    Arc::new(config)
}

impl Sender {
    async fn connect(upstream: SocketAddr, tls: Arc<ClientConfig>) -> Self {
        let tcp = TcpStream::connect(upstream).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let is_h2 = tls.alpn_protocols == [b"h2"];
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(tls).connect(name, tcp).await.unwrap();
        let io = TokioIo::new(stream);
        if is_h2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            Self::H2(sender)
        } else {
            let (sender, connection) = http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            Self::H1(sender)
        }
    }

    async fn send(&mut self, mut request: Request<Incoming>) -> Response<Incoming> {
        match self {
            Self::H1(sender) => {
                sender.ready().await.unwrap();
                // A request that came over HTTP/2 names its host in the target.
                let path = request.uri().path_and_query().unwrap().clone();
                *request.uri_mut() = path.into();
                let host = HeaderValue::from_static("localhost");
                request.headers_mut().insert(HOST, host);
                sender.send_request(request).await.unwrap()
            }
            Self::H2(sender) => {
                sender.ready().await.unwrap();
                request.headers_mut().remove(HOST);
                // As everybody has to who keeps HPACK's table from pinning the buffers that heads arrived in.
                for value in request.headers_mut().values_mut() {
                    *value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
                }
                let mut uri = std::mem::take(request.uri_mut()).into_parts();
                uri.scheme = Some(Scheme::HTTPS);
                uri.authority = Some(Authority::from_static("localhost"));
                *request.uri_mut() = Uri::from_parts(uri).unwrap();
                sender.send_request(request).await.unwrap()
            }
        }
    }
}
