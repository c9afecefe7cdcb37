//! Servers written by a test: real TLS of the site's PKI, and after the handshake whatever the test says.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use relais::outbound::tls::provider;
use relais::services::Environment;
use relais::simulator::pki::{Pki, Purpose, Request as Order};
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::picky::{Picky, Unknown};

pub const ONLY_12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
pub const ONLY_13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
pub const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// What a server does in its handshakes.
pub struct Tls {
    pub versions: &'static [&'static SupportedProtocolVersion],
    pub alpn: &'static [&'static str],
    pub client: Asks,
    /// Names in the server's certificate.
    pub names: &'static [&'static str],
    /// End of the server certificate's validity, in Unix seconds.
    pub not_after: Option<i64>,
    /// Serial number of the server certificate; a random one unless said otherwise.
    pub serial: Option<[u8; 16]>,
    /// Whether another authority than the site's issued it.
    pub foreign: bool,
    /// Client certificates that it refuses.
    pub unknown: Unknown,
    /// Whether it sends session tickets, by which it says in TLS 1.3 that it has taken a certificate.
    pub tickets: bool,
}

#[derive(Clone, Copy, Eq, PartialEq)]
pub enum Asks {
    /// For a certificate of the site's PKI.
    SitePki,
    /// For one of another PKI, so that the gateway's are refused.
    OtherPki,
    /// For one of another PKI whose authorities have the same names.
    Namesake,
    /// For none.
    Nothing,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            versions: BOTH,
            alpn: &["http/1.1"],
            client: Asks::SitePki,
            names: &["localhost"],
            not_after: None,
            serial: None,
            foreign: false,
            unknown: Unknown::default(),
            tickets: true,
        }
    }
}

impl Tls {
    pub fn h2() -> Self {
        Self {
            alpn: &["h2"],
            ..Self::default()
        }
    }

    pub fn server_config(&self, pki: &Pki) -> Arc<ServerConfig> {
        let other = match self.client {
            Asks::OtherPki => Some(Pki::new(Environment::Production)),
            Asks::Namesake => Some(Pki::new(Environment::Test)),
            _ => self.foreign.then(|| Pki::new(Environment::Test)),
        };
        let issuer = other.as_ref().filter(|_| self.foreign).unwrap_or(pki);
        let names = self.names.iter().map(|name| (*name).to_owned()).collect();
        let issued = issuer.issue(&Order {
            purpose: Purpose::SslServer(names),
            not_before: self.not_after.map(|end| end - 86_400),
            not_after: self.not_after,
            serial: self.serial,
            ..Order::new("3187512751", "test upstream")
        });
        let chain = vec![issued.cert_der.clone(), issuer.issuing_der().clone()];
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(issued.key.serialize_der()));
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(self.versions)
            .unwrap();
        let asked_of = match self.client {
            Asks::Nothing => None,
            Asks::SitePki => Some(pki),
            Asks::OtherPki | Asks::Namesake => other.as_ref(),
        };
        let builder = match asked_of {
            None => builder.with_no_client_auth(),
            Some(asked) => {
                let mut roots = RootCertStore::empty();
                roots.add(asked.root_der().clone()).unwrap();
                let others =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
                        .build()
                        .unwrap();
                builder.with_client_cert_verifier(Arc::new(Picky {
                    others,
                    unknown: Arc::clone(&self.unknown),
                }))
            }
        };
        let mut config = builder.with_single_cert(chain, key).unwrap();
        if !self.tickets {
            config.send_tls13_tickets = 0;
        }
        config.alpn_protocols = self
            .alpn
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        Arc::new(config)
    }
}

/// A server of the test's own. Runs on the test's runtime and stops when dropped.
pub struct Upstream {
    pub address: SocketAddr,
    /// Whether it is configured as a service of HTTP/2 alone.
    is_h2: bool,
    seen: Arc<Counters>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct Counters {
    accepted: AtomicUsize,
    full: AtomicUsize,
    resumed: AtomicUsize,
    open: AtomicUsize,
    most_open: AtomicUsize,
    heads: Mutex<Vec<String>>,
}

impl Upstream {
    /// Completes handshakes and hands each connection, with its number from 0 on, to `serve`.
    pub fn start<F, Served>(pki: &Pki, tls: &Tls, serve: F) -> Self
    where
        F: Fn(Connection, usize) -> Served + Clone + Send + 'static,
        Served: Future<Output = ()> + Send + 'static,
    {
        let acceptor = TlsAcceptor::from(tls.server_config(pki));
        let seen = Arc::new(Counters::default());
        let counters = Arc::clone(&seen);
        let is_h2 = tls.alpn == ["h2"];
        Self::raw_with(is_h2, seen, move |tcp, number| {
            let (acceptor, serve, counters) =
                (acceptor.clone(), serve.clone(), Arc::clone(&counters));
            async move {
                let Ok(stream) = acceptor.accept(tcp).await else {
                    return;
                };
                let kind = match stream.get_ref().1.handshake_kind() {
                    Some(HandshakeKind::Resumed) => &counters.resumed,
                    _ => &counters.full,
                };
                kind.fetch_add(1, Ordering::AcqRel);
                let open = counters.open.fetch_add(1, Ordering::AcqRel) + 1;
                counters.most_open.fetch_max(open, Ordering::AcqRel);
                let connection = Connection {
                    stream,
                    _open: Open(Arc::clone(&counters)),
                };
                serve(connection, number).await;
            }
        })
    }

    /// Hands each TCP connection to `serve` as it is.
    pub fn raw<F, Served>(serve: F) -> Self
    where
        F: Fn(TcpStream, usize) -> Served + Send + 'static,
        Served: Future<Output = ()> + Send + 'static,
    {
        Self::raw_with(false, Arc::default(), serve)
    }

    /// Takes connections and says nothing on them, not even in the handshake.
    pub fn mute() -> Self {
        Self::raw(|tcp, _| async move {
            std::future::pending::<Infallible>().await;
            drop(tcp);
        })
    }

    fn raw_with<F, Served>(is_h2: bool, seen: Arc<Counters>, serve: F) -> Self
    where
        F: Fn(TcpStream, usize) -> Served + Send + 'static,
        Served: Future<Output = ()> + Send + 'static,
    {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let counters = Arc::clone(&seen);
        let accepting = tokio::spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                tcp.set_nodelay(true).unwrap();
                let number = counters.accepted.fetch_add(1, Ordering::AcqRel);
                tokio::spawn(serve(tcp, number));
            }
        });
        Self {
            address,
            is_h2,
            seen,
            accepting,
        }
    }

    /// Its section of a configuration; `extra` are further lines for it. One that speaks HTTP/2 alone is known to do so
    /// unless `extra` says otherwise.
    pub fn service(&self, name: &str, extra: &str) -> String {
        let http = match self.is_h2 && !extra.contains("http =") {
            true => "http = \"h2\"",
            false => "",
        };
        format!(
            "\n[services.{name}]\nurl = \"https://localhost:{}\"\naddress = \"{}\"\n\
             trust = \"trust/igc-sante-test.pem\"\n{http}\n{extra}\n",
            self.address.port(),
            self.address
        )
    }

    /// TCP connections so far.
    pub fn accepted(&self) -> usize {
        self.seen.accepted.load(Ordering::Acquire)
    }

    /// Handshakes so far: full ones and resumed ones.
    pub fn handshakes(&self) -> (usize, usize) {
        (
            self.seen.full.load(Ordering::Acquire),
            self.seen.resumed.load(Ordering::Acquire),
        )
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.seen.open.load(Ordering::Acquire)
    }

    /// The most connections that were ever open at once.
    pub fn most_open(&self) -> usize {
        self.seen.most_open.load(Ordering::Acquire)
    }

    /// The request heads that were read so far.
    pub fn heads(&self) -> Vec<String> {
        self.seen.heads.lock().unwrap().clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

struct Open(Arc<Counters>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A connection from the gateway, after the handshake.
pub struct Connection {
    pub stream: TlsStream<TcpStream>,
    _open: Open,
}

impl Connection {
    /// Reads a request's head; nothing if the gateway closed the connection instead.
    pub async fn head(&mut self) -> Option<String> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            match self.stream.read(&mut byte).await {
                Ok(1) => head.push(byte[0]),
                _ => return None,
            }
        }
        let head = String::from_utf8(head).unwrap();
        self._open.0.heads.lock().unwrap().push(head.clone());
        Some(head)
    }

    /// Writes bytes; a gateway that is gone is no reason for a server to fail.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        if self.stream.write_all(bytes.as_ref()).await.is_ok() {
            let _ = self.stream.flush().await;
        }
    }

    /// A whole answer with that body.
    pub async fn answer(&mut self, body: &str) {
        self.write(format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
    }

    /// Answers requests without bodies, each with that body, until the gateway closes.
    pub async fn keep_answering(&mut self, body: &str) {
        while self.head().await.is_some() {
            self.answer(body).await;
        }
    }

    /// Reads everything until the gateway closes; what was read, and whether TLS was ended properly.
    pub async fn rest(&mut self) -> (Vec<u8>, bool) {
        let mut rest = Vec::new();
        let clean = self.stream.read_to_end(&mut rest).await.is_ok();
        (rest, clean)
    }

    /// Says goodbye in TLS and closes.
    pub async fn close(mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Closes without a word, with a TCP reset.
    pub fn reset(self) {
        let (tcp, _) = self.stream.into_inner();
        socket2::SockRef::from(&tcp)
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
    }
}

/// Answers with `hyper` over HTTP/2.
pub async fn serve_h2<A, Answered>(connection: Connection, streams: u32, answer: A)
where
    A: Fn(http::Request<hyper::body::Incoming>) -> Answered + Clone + Send + 'static,
    Answered: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let Connection { stream, _open } = connection;
    speak_h2(stream, streams, answer).await;
    drop(_open);
}

/// The same, but says nothing, not even how many streams it allows, until `speaks` lets it.
pub async fn serve_h2_late<A, Answered>(connection: Connection, speaks: Arc<Semaphore>, answer: A)
where
    A: Fn(http::Request<hyper::body::Incoming>) -> Answered + Clone + Send + 'static,
    Answered: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let Connection { stream, _open } = connection;
    let (mut from_gateway, mut to_gateway) = tokio::io::split(stream);
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (mut said, mut heard) = tokio::io::split(near);
    let hears = tokio::io::copy(&mut from_gateway, &mut heard);
    let says = async {
        drop(speaks.acquire().await);
        tokio::io::copy(&mut said, &mut to_gateway).await
    };
    tokio::select! {
        () = speak_h2(far, 100, answer) => {}
        _ = hears => {}
        _ = says => {}
    }
    drop(_open);
}

async fn speak_h2<A, Answered>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    streams: u32,
    answer: A,
) where
    A: Fn(http::Request<hyper::body::Incoming>) -> Answered + Clone + Send + 'static,
    Answered: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let service = hyper::service::service_fn(move |request| {
        let answered = answer(request);
        async move { Ok::<_, Infallible>(answered.await) }
    });
    let _ = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
        .max_concurrent_streams(streams)
        .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
        .await;
}

/// What serves a connection.
pub type Served = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Answers over HTTP/2 when `release` lets it, and notes how many requests wait at once.
pub fn h2_gate(
    streams: u32,
    release: &Arc<Semaphore>,
    waiting: &Arc<AtomicUsize>,
) -> impl Fn(Connection, usize) -> Served + Clone + Send + 'static + use<> {
    let (release, waiting) = (Arc::clone(release), Arc::clone(waiting));
    move |connection, _| {
        let (release, waiting) = (Arc::clone(&release), Arc::clone(&waiting));
        Box::pin(serve_h2(connection, streams, move |_| {
            let (release, waiting) = (Arc::clone(&release), Arc::clone(&waiting));
            async move {
                waiting.fetch_add(1, Ordering::AcqRel);
                let permit = release.acquire().await.unwrap();
                waiting.fetch_sub(1, Ordering::AcqRel);
                permit.forget();
                Response::new(Full::new(Bytes::from_static(b"ok")))
            }
        }))
    }
}
