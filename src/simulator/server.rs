//! A stand-in for a national service: demands a client certificate as the service does, and answers by the service's
//! rules or, where it is plain, with what it saw.

mod seen;
mod tls;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use jiff::Timestamp;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use self::seen::{Peer, mark, peer, plain, saw, whole};
pub use self::seen::{Seen, X_CLIENT_OU, X_CLIENT_SHA256};
use crate::services::{HttpVersions, TlsVersions};
use crate::simulator::pki::Pki;
use crate::simulator::services::{BODY_MAX, Behaviour, Call, Register, Rules};

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
    /// Which service's rules it enforces.
    pub behaviour: Behaviour,
}

/// What a simulator does about client certificates.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClientCertificate {
    /// It does not ask.
    NotRequested,
    /// It asks, and sees whether one is shown that should not be.
    Optional,
    /// Nobody gets in without one of its own PKI.
    Required,
}

/// A running simulator; stops when dropped.
#[derive(Debug)]
pub struct Simulator {
    /// Where it listens.
    pub address: SocketAddr,
    inside: Arc<Inside>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the connections of a simulator share.
struct Inside {
    name: &'static str,
    rules: Option<Rules>,
    register: Arc<Register>,
    full: AtomicUsize,
    resumed: AtomicUsize,
    last: Mutex<Option<Seen>>,
}

impl Simulator {
    /// Starts a simulator on a free loopback port, with a server certificate of `pki` for `localhost`.
    ///
    /// # Errors
    /// When no port or thread can be had.
    pub fn start(settings: Settings, pki: &Pki, register: &Arc<Register>) -> io::Result<Self> {
        let tls = tls::config(settings, pki).map_err(io::Error::other)?;
        let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let inside = Arc::new(Inside {
            name: settings.name,
            rules: Rules::of(settings.behaviour),
            register: Arc::clone(register),
            full: AtomicUsize::new(0),
            resumed: AtomicUsize::new(0),
            last: Mutex::new(None),
        });
        let of_thread = Arc::clone(&inside);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = thread::Builder::new()
            .name(format!("simulator-{}", settings.name))
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = accept(listener, TlsAcceptor::from(tls), of_thread) => {}
                        // Dropping the sender stops it as well.
                        _ = stopped => {}
                    }
                });
            })?;
        Ok(Self {
            address,
            inside,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Handshakes so far: full ones and resumed ones.
    pub fn handshakes(&self) -> (usize, usize) {
        let count = |counter: &AtomicUsize| counter.load(Ordering::Acquire);
        (count(&self.inside.full), count(&self.inside.resumed))
    }

    /// What it saw of the last request, and forgets; nothing if none has come since. Only simulators that enforce
    /// rules keep it: plain ones answer with it.
    pub fn take_seen(&self) -> Option<Seen> {
        (self.inside.last.lock())
            .unwrap_or_else(PoisonError::into_inner)
            .take()
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

async fn accept(listener: std::net::TcpListener, acceptor: TlsAcceptor, inside: Arc<Inside>) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    loop {
        let Ok((tcp, _)) = listener.accept().await else {
            continue;
        };
        tokio::spawn(serve(tcp, acceptor.clone(), Arc::clone(&inside)));
    }
}

async fn serve(tcp: TcpStream, acceptor: TlsAcceptor, inside: Arc<Inside>) {
    let _ = tcp.set_nodelay(true);
    // A client that fails the handshake is told so by TLS itself.
    let Ok(stream) = acceptor.accept(tcp).await else {
        return;
    };
    let peer = peer(stream.get_ref().1);
    let counter = if peer.resumed {
        &inside.resumed
    } else {
        &inside.full
    };
    counter.fetch_add(1, Ordering::AcqRel);
    let service = service_fn(move |request| {
        let (inside, peer) = (Arc::clone(&inside), peer.clone());
        async move { Ok::<_, Infallible>(inside.answer(&peer, request).await) }
    });
    // How a connection ends is for its client to judge.
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

impl Inside {
    async fn answer(
        &self,
        peer: &Peer,
        request: Request<Incoming>,
    ) -> Response<BoxBody<Bytes, hyper::Error>> {
        let mut response = match &self.rules {
            None => plain(self.name, peer, request).await,
            Some(rules) => self.by_rules(rules, peer, request).await,
        };
        mark(&mut response, peer);
        response
    }

    async fn by_rules(
        &self,
        rules: &Rules,
        peer: &Peer,
        request: Request<Incoming>,
    ) -> Response<BoxBody<Bytes, hyper::Error>> {
        let (head, body) = request.into_parts();
        let body = read(body).await;
        let mut seen = saw(self.name, peer, &head);
        seen.body_bytes = body.len();
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
        let call = Call {
            profile: peer.profile.as_deref(),
            head: &head,
            body: &body,
            now: Instant::now(),
            time: Timestamp::now().as_second(),
        };
        rules.answer(&self.register, &call).map(whole)
    }
}

/// Reads a body to its end, so that its sender reads the answer, and keeps one byte more than any service accepts.
async fn read(mut body: Incoming) -> Vec<u8> {
    let mut kept = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        if let Some(data) = frame.data_ref() {
            let room = (BODY_MAX + 1).saturating_sub(kept.len());
            kept.extend_from_slice(&data[..data.len().min(room)]);
        }
    }
    kept
}

impl fmt::Debug for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inside")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
