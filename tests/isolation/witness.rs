//! A service that misbehaves as each request tells it to, and remembers what every connection carried.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use relais::identity::profile::Profile;
use relais::outbound::tls::provider;
use relais::simulator::pki::{Pki, Purpose, Request as Order};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::sync::{Notify, oneshot};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;

/// What a request says of itself, in fields that the gateway passes on untouched.
pub const NONCE: &str = "x-nonce";
pub const TENANT: &str = "x-on-behalf-of";
pub const SERVICE: &str = "x-for-service";
pub const BEHAVIOUR: &str = "x-behaviour";

/// What the service does with a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Behaviour {
    /// Reads the body and answers.
    Answer,
    /// The same, so many milliseconds later.
    Late(u64),
    /// Answers in pieces, so many milliseconds apart.
    Drip(u64),
    /// Answers without having read the body.
    Early,
    /// Answers, and ends the connection.
    Close,
    /// Breaks the connection off in place of an answer.
    Break,
    /// Breaks it off in the middle of the answer.
    BreakOff,
    /// Breaks it off unless this is the first request on it: what a client sees whose idle connection has died.
    BreakReused,
    /// Never answers.
    Silence,
}

/// A connection, as the service saw it.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    /// The SHA-256 of the client certificate, which a resumed session brings with it.
    pub sha256: Option<String>,
    /// The structure id in that certificate.
    pub ou: Option<String>,
    pub resumed: bool,
    pub is_h2: bool,
    pub carried: Vec<Carried>,
}

/// A request, as it named itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Carried {
    pub nonce: String,
    pub tenant: String,
    pub service: String,
    pub authority: String,
}

/// Looks at each request when it arrives, where there are too many to be written down.
pub trait Judge: std::fmt::Debug + Send + Sync {
    fn arrived(&self, connection: &Connection, request: &Request<Incoming>);
}

#[derive(Debug, Default)]
struct Ledger {
    connections: Mutex<Vec<Connection>>,
    judge: Option<Arc<dyn Judge>>,
}

/// A running service; stops when dropped.
pub struct Witness {
    pub address: SocketAddr,
    ledger: Arc<Ledger>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// How a witness differs from one that demands a certificate of its PKIs and lets HTTP/2 have a hundred streams.
#[derive(Clone, Debug, Default)]
pub struct Manner {
    pub verifier: Option<Arc<dyn ClientCertVerifier>>,
    pub streams: Option<u32>,
    /// Who looks at requests; nothing is written down then.
    pub judge: Option<Arc<dyn Judge>>,
}

impl Witness {
    /// Starts a service whose certificate comes from the first of `pkis`, for clients of all of them.
    pub fn start(pkis: &[&Pki], manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(tls(pkis, &manner));
        let ledger = Arc::new(Ledger {
            judge: manner.judge.clone(),
            ..Ledger::default()
        });
        let shared = Arc::clone(&ledger);
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, acceptor, shared, manner) => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            address,
            ledger,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// All connections so far.
    pub fn connections(&self) -> Vec<Connection> {
        self.ledger.connections.lock().unwrap().clone()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn tls(pkis: &[&Pki], manner: &Manner) -> Arc<ServerConfig> {
    let issued = pkis[0].issue(&Order {
        purpose: Purpose::SslServer(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]),
        ..Order::new("3187512751", "temoin")
    });
    let verifier = manner.verifier.clone().unwrap_or_else(|| {
        let mut roots = RootCertStore::empty();
        for pki in pkis {
            roots.add(pki.root_der().clone()).unwrap();
        }
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .unwrap()
    });
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![issued.cert_der.clone(), pkis[0].issuing_der().clone()],
            PrivateKeyDer::from(PrivatePkcs8KeyDer::from(issued.key.serialize_der())),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, ledger: Arc<Ledger>, manner: Manner) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let mut resets = false;
    loop {
        let Ok((tcp, _)) = listener.accept().await else {
            continue;
        };
        let _ = tcp.set_nodelay(true);
        // Half of the connections end in a reset, however they end.
        resets = !resets;
        if resets {
            let _ = socket2::SockRef::from(&tcp).set_linger(Some(Duration::ZERO));
        }
        let (acceptor, ledger, manner) = (acceptor.clone(), Arc::clone(&ledger), manner.clone());
        tokio::spawn(async move {
            if let Ok(stream) = acceptor.accept(tcp).await {
                serve(stream, &ledger, &manner).await;
            }
        });
    }
}

async fn serve(
    stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>,
    ledger: &Arc<Ledger>,
    manner: &Manner,
) {
    let connection = Arc::new(Connection::of(stream.get_ref().1));
    let number = ledger.open(&connection);
    let broken = Arc::new(Notify::new());
    let count = Arc::new(AtomicUsize::new(0));
    let service = service_fn({
        let (ledger, broken) = (Arc::clone(ledger), Arc::clone(&broken));
        move |request| {
            let first = count.fetch_add(1, Ordering::Relaxed) == 0;
            let (ledger, broken) = (Arc::clone(&ledger), Arc::clone(&broken));
            let connection = Arc::clone(&connection);
            async move {
                match &ledger.judge {
                    Some(judge) => judge.arrived(&connection, &request),
                    None => ledger.carry(number, &request),
                }
                Ok::<_, Infallible>(answer(&connection, first, broken, request).await)
            }
        }
    });
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(manner.streams.or(Some(100)));
    let connection = http.serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ = connection => {}
        () = broken.notified() => {}
    }
}

async fn answer(
    connection: &Connection,
    first: bool,
    broken: Arc<Notify>,
    request: Request<Incoming>,
) -> Response<Pieces> {
    let behaviour = said(request.headers(), BEHAVIOUR)
        .parse()
        .unwrap_or(Behaviour::Answer);
    let nonce = said(request.headers(), NONCE);
    let mut left = 1;
    let mut pause = Duration::ZERO;
    match behaviour {
        Behaviour::Early => {}
        Behaviour::Silence => std::future::pending().await,
        Behaviour::BreakReused if !first => break_off(&broken).await,
        Behaviour::Break => break_off(&broken).await,
        Behaviour::Drip(milliseconds) => {
            left = 5;
            pause = Duration::from_millis(milliseconds);
        }
        Behaviour::Late(milliseconds) => {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        }
        Behaviour::BreakOff => left = 2,
        Behaviour::Answer | Behaviour::Close | Behaviour::BreakReused => {}
    }
    if behaviour != Behaviour::Early && request.into_body().collect().await.is_err() {
        // Of a stream only that one has ended.
        match connection.is_h2 {
            true => std::future::pending().await,
            false => break_off(&broken).await,
        }
    }
    let mut response = Response::new(Pieces {
        piece: Bytes::from(nonce.clone()),
        left,
        pause,
        timer: None,
        broken: (behaviour == Behaviour::BreakOff).then_some(broken),
    });
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    let fields = [
        (NONCE, Some(nonce)),
        ("x-client-sha256", connection.sha256.clone()),
        ("x-client-ou", connection.ou.clone()),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            headers.insert(name, HeaderValue::try_from(value).unwrap());
        }
    }
    if behaviour == Behaviour::Close && !connection.is_h2 {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn break_off(broken: &Notify) {
    broken.notify_one();
    std::future::pending().await
}

impl Connection {
    fn of(session: &rustls::ServerConnection) -> Self {
        let profile = session
            .peer_certificates()
            .and_then(|chain| chain.first())
            .map(|leaf| Profile::parse(leaf).unwrap());
        Self {
            sha256: profile
                .as_ref()
                .map(|profile| profile.fingerprint.to_string()),
            ou: profile
                .as_ref()
                .and_then(|profile| profile.structure.as_ref())
                .map(ToString::to_string),
            resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
            is_h2: session.alpn_protocol() == Some(b"h2"),
            carried: Vec::new(),
        }
    }
}

impl Ledger {
    fn open(&self, connection: &Connection) -> usize {
        let mut connections = self.connections.lock().unwrap();
        if self.judge.is_none() {
            connections.push(connection.clone());
        }
        connections.len().saturating_sub(1)
    }

    fn carry(&self, number: usize, request: &Request<Incoming>) {
        let headers = request.headers();
        let authority = request
            .uri()
            .authority()
            .map_or_else(|| said(headers, HOST.as_str()), ToString::to_string);
        self.connections.lock().unwrap()[number]
            .carried
            .push(Carried {
                nonce: said(headers, NONCE),
                tenant: said(headers, TENANT),
                service: said(headers, SERVICE),
                authority,
            });
    }
}

pub fn said(headers: &HeaderMap, name: &str) -> String {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned()
}

/// The nonce, once or several times over.
struct Pieces {
    piece: Bytes,
    left: usize,
    pause: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// Broken off before the last piece.
    broken: Option<Arc<Notify>>,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        if this.left == 0 {
            return Poll::Ready(None);
        }
        if this.left == 1
            && let Some(broken) = &this.broken
        {
            broken.notify_one();
            return Poll::Pending;
        }
        if !this.pause.is_zero() {
            let pause = this.pause;
            let timer = this
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
            std::task::ready!(timer.as_mut().poll(cx));
            this.timer = None;
        }
        this.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(this.piece.clone()))))
    }
}

impl FromStr for Behaviour {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (word, number) = text.split_once(' ').unwrap_or((text, "0"));
        let milliseconds = number.parse().map_err(|_| ())?;
        Ok(match word {
            "answer" => Self::Answer,
            "late" => Self::Late(milliseconds),
            "drip" => Self::Drip(milliseconds),
            "early" => Self::Early,
            "close" => Self::Close,
            "break" => Self::Break,
            "break-off" => Self::BreakOff,
            "break-reused" => Self::BreakReused,
            "silence" => Self::Silence,
            _ => return Err(()),
        })
    }
}

impl Behaviour {
    /// As the field says it.
    pub fn to_field(self) -> String {
        match self {
            Self::Answer => "answer".to_owned(),
            Self::Late(milliseconds) => format!("late {milliseconds}"),
            Self::Drip(milliseconds) => format!("drip {milliseconds}"),
            Self::Early => "early".to_owned(),
            Self::Close => "close".to_owned(),
            Self::Break => "break".to_owned(),
            Self::BreakOff => "break-off".to_owned(),
            Self::BreakReused => "break-reused".to_owned(),
            Self::Silence => "silence".to_owned(),
        }
    }
}
