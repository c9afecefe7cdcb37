//! TLS towards a service, under one generation.
//!
//! Each (generation, service) has a `ClientConfig` of its own, and in it a session store of its own. A key that is
//! swapped inside a shared configuration goes on resuming sessions of the old certificate, in TLS 1.2 and 1.3
//! alike; here a session cannot outlive, or wander from, the certificate under which it was made.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, ClientConfig, HandshakeKind, ProtocolVersion, SignatureScheme,
    SupportedProtocolVersion,
};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::identity::generation::Generation;
use crate::outbound::error::{self, Error};
use crate::outbound::sessions::{Sessions, Turn};
use crate::outbound::verifier::Verifier;
use crate::services::{HttpVersions, Service, TlsVersions};

const ALPN_H2: &[u8] = b"h2";
const ALPN_H1: &[u8] = b"http/1.1";

tokio::task_local! {
    /// Whether the server asked, in the handshake under way, for a certificate that the key can answer for. rustls
    /// tells nobody but the resolver, which the handshakes of a configuration share; the task tells them apart.
    static ASKED: Cell<bool>;
}

/// The TLS client of one (generation, service).
#[derive(Debug)]
pub(crate) struct Client {
    /// Made at the first dial: most of the thousands that are loaded are idle. Made anew, sessions and all, when the
    /// verifier is another: who resumes a session is not verified again.
    configs: Mutex<Option<Configs>>,
}

/// The two sets of application protocols offered share one session store.
#[derive(Clone, Debug)]
struct Configs {
    preferred: Arc<ClientConfig>,
    h1_only: Arc<ClientConfig>,
    verifier: Arc<Verifier>,
    /// Absent where no session may be resumed.
    sessions: Option<Arc<Sessions>>,
    /// A session was made in which the certificate was not asked for, and may be in the store.
    spoilt: Arc<AtomicBool>,
}

/// How a handshake went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Handshake {
    /// Certificates were shown and verified.
    Full,
    /// An earlier session of the same generation was resumed.
    Resumed,
}

/// A connection ready for HTTP.
pub(crate) struct Secured {
    pub(crate) stream: Wire,
    pub(crate) is_h2: bool,
    pub(crate) handshake: Handshake,
}

impl Client {
    pub(crate) fn new() -> Self {
        Self {
            configs: Mutex::new(None),
        }
    }

    /// Completes a handshake on `tcp`. Fails closed when the service wants a certificate in Relais's books and
    /// does not ask for one on the wire.
    pub(crate) async fn handshake(
        &self,
        tcp: TcpStream,
        service: &Service,
        generation: Option<&Generation>,
        verifier: &Arc<Verifier>,
        h1_only: bool,
        turn: &mut Turn,
    ) -> Result<Secured, Error> {
        let configs = self.configs(service, generation, verifier)?;
        let config = Arc::clone(if h1_only {
            &configs.h1_only
        } else {
            &configs.preferred
        });
        let host = service.target.host();
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            Error::Tls(Arc::new(rustls::Error::General(format!(
                "{host} is not a host name"
            ))))
        })?;
        let (stream, asked) = ASKED
            .scope(Cell::new(false), async {
                let stream = TlsConnector::from(config).connect(name, tcp);
                turn.has_greeted();
                (stream.await, ASKED.with(Cell::get))
            })
            .await;
        let stream = stream.map_err(Error::from_handshake)?;
        let (_, session) = stream.get_ref();
        let handshake = match session.handshake_kind() {
            Some(HandshakeKind::Resumed) => Handshake::Resumed,
            _ => Handshake::Full,
        };
        if generation.is_some() && handshake == Handshake::Full && !asked {
            // A session made without the certificate must never be resumed as if it had been shown.
            configs.spoilt.store(true, Ordering::Release);
            return Err(Error::CertificateNotRequested);
        }
        if handshake == Handshake::Resumed && configs.spoilt.load(Ordering::Acquire) {
            // Such a session may have been what this handshake resumed, in the moment before it was known.
            return Err(Error::CertificateNotRequested);
        }
        let is_h2 = session.alpn_protocol() == Some(ALPN_H2);
        Ok(Secured {
            stream: Wire {
                stream,
                fresh: true,
                ahead: None,
                refusal: Arc::default(),
                sessions: configs.sessions,
                held: Held(None),
            },
            is_h2,
            handshake,
        })
    }

    /// Waits for the turn to make a handshake.
    pub(crate) async fn turn(
        &self,
        service: &Service,
        generation: Option<&Generation>,
        verifier: &Arc<Verifier>,
    ) -> Result<Turn, Error> {
        match self.configs(service, generation, verifier)?.sessions {
            Some(sessions) => Ok(sessions.turn().await),
            None => Ok(Turn::free()),
        }
    }

    fn configs(
        &self,
        service: &Service,
        generation: Option<&Generation>,
        verifier: &Arc<Verifier>,
    ) -> Result<Configs, Error> {
        let mut slot = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(configs) = slot.as_ref().filter(|configs| configs.serve(verifier)) {
            return Ok(configs.clone());
        }
        let key = generation.map(|generation| Arc::clone(&generation.identity().key));
        let configs = build(service, key, verifier).map_err(|error| Error::Tls(Arc::new(error)))?;
        *slot = Some(configs.clone());
        Ok(configs)
    }
}

impl Configs {
    fn serve(&self, verifier: &Arc<Verifier>) -> bool {
        Arc::ptr_eq(&self.verifier, verifier) && !self.spoilt.load(Ordering::Acquire)
    }
}

fn build(
    service: &Service,
    key: Option<Arc<CertifiedKey>>,
    verifier: &Arc<Verifier>,
) -> Result<Configs, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(service.tls))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(verifier) as _);
    let mut h1_only = match key {
        Some(key) => builder.with_client_cert_resolver(Arc::new(Present { key })),
        None => builder.with_no_client_auth(),
    };
    // Who resumes a session is not verified again, and a list may have ended since it was begun.
    let sessions = (!verifier.must_know()).then(Sessions::new);
    h1_only.resumption = match &sessions {
        Some(sessions) => Resumption::store(Arc::clone(sessions) as _),
        None => Resumption::disabled(),
    };
    h1_only.alpn_protocols = vec![ALPN_H1.to_vec()];
    // A clone keeps the resolver, the verifier and the session store, so both resume each other's sessions.
    let mut preferred = h1_only.clone();
    preferred.alpn_protocols = match service.http {
        HttpVersions::Auto => vec![ALPN_H2.to_vec(), ALPN_H1.to_vec()],
        HttpVersions::H1 => vec![ALPN_H1.to_vec()],
        HttpVersions::H2 => vec![ALPN_H2.to_vec()],
    };
    Ok(Configs {
        preferred: Arc::new(preferred),
        h1_only: Arc::new(h1_only),
        verifier: Arc::clone(verifier),
        sessions,
        spoilt: Arc::default(),
    })
}

/// The cryptography that all of Relais uses, passed on explicitly: nothing rests on a process-wide default.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())))
}

pub(crate) fn versions(tls: TlsVersions) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] =
        [&rustls::version::TLS13, &rustls::version::TLS12];
    match tls {
        TlsVersions::Only12 => &BOTH[1..],
        TlsVersions::Only13 => &BOTH[..1],
        TlsVersions::Tls12And13 => &BOTH,
    }
}

/// Shows one certificate to whoever asks, whatever authorities the server hints at: the alternative to the right
/// certificate is never another one.
#[derive(Debug)]
struct Present {
    key: Arc<CertifiedKey>,
}

impl ResolvesClientCert for Present {
    fn resolve(&self, _hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        // Where the key can make none of the signatures that the server takes, rustls goes on without a certificate,
        // and a server that merely likes to see one would let the request in as nobody's.
        self.key.key.choose_scheme(schemes)?;
        // Outside of `Client::handshake` there is nobody to tell.
        let _ = ASKED.try_with(|asked| asked.set(true));
        Some(Arc::clone(&self.key))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A TLS connection that, when it can no longer be written to, looks for the alert in which the peer said why.
///
/// A server that refuses a TLS 1.3 client certificate sends its alert and closes, often while the request is still
/// being written. The write fails with a bare "connection reset", and the reason lies unread behind it.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TlsStream<TcpStream>,
    /// Nothing has been read yet: only then can the alert be about the certificate.
    fresh: bool,
    /// What was read in search of an alert and turned out to be the beginning of an answer.
    ahead: Option<u8>,
    refusal: Refusal,
    /// Told if the server answers before it has sent a ticket.
    sessions: Option<Arc<Sessions>>,
    /// What the connection occupies; below the stream, so that it is given back when the socket is closed.
    held: Held,
}

/// Anything that lasts as long as a connection, in HTTP or after it.
struct Held(Option<Box<dyn Send>>);

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Held").field(&self.0.is_some()).finish()
    }
}

/// The alert in which the peer refused the client certificate, once it has arrived. HTTP/2 tells its streams no
/// more of an error than its text, so the alert is kept beside the connection.
pub(crate) type Refusal = Arc<OnceLock<AlertDescription>>;

impl Wire {
    /// Waits for what the server says to the client certificate. In TLS 1.2 the handshake has said it already; in
    /// TLS 1.3 a session ticket is a yes, an alert a no. False: it closed without a word.
    pub(crate) async fn verdict(&mut self) -> io::Result<bool> {
        std::future::poll_fn(|cx| {
            let session = self.stream.get_ref().1;
            if session.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
                return Poll::Ready(Ok(true));
            }
            let mut scratch = [0; 1];
            let mut buf = ReadBuf::new(&mut scratch);
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut buf);
            if let Some(byte) = buf.filled().first() {
                // Whoever speaks HTTP has taken the certificate; what was read is the beginning of it.
                self.ahead = Some(*byte);
                self.was_read();
            }
            if self.stream.get_ref().1.tls13_tickets_received() > 0 {
                return Poll::Ready(Ok(true));
            }
            ready!(read)?;
            Poll::Ready(Ok(!buf.filled().is_empty()))
        })
        .await
    }

    /// Keeps something for as long as the connection is open.
    pub(crate) fn hold(&mut self, what: impl Send + 'static) {
        self.held = Held(Some(Box::new(what)));
    }

    pub(crate) fn refusal(&self) -> &Refusal {
        &self.refusal
    }

    /// The peer has begun to answer.
    fn was_read(&mut self) {
        self.fresh = false;
        if let Some(sessions) = self.sessions.take()
            && self.stream.get_ref().1.tls13_tickets_received() == 0
        {
            sessions.answered_without_ticket();
        }
    }

    fn note(&self, error: &io::Error) {
        if let Some(alert) = error::refusal(error).filter(|_| self.fresh) {
            let _ = self.refusal.set(alert);
        }
    }

    /// What to return of an attempt to write: in place of a failure, its reason. What the peer said last may be in the
    /// socket and its readiness not yet known to the runtime: then it is waited for, since what follows a reset is
    /// certain to wake the reader.
    fn with_reason<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: io::Result<T>,
    ) -> Poll<io::Result<T>> {
        let failure = match written {
            Err(failure) if self.fresh => failure,
            written => return Poll::Ready(written),
        };
        let mut byte = [0; 1];
        let mut buf = ReadBuf::new(&mut byte);
        match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf)) {
            Err(reason)
                if reason
                    .get_ref()
                    .is_some_and(|inner| inner.is::<rustls::Error>()) =>
            {
                self.note(&reason);
                Poll::Ready(Err(reason))
            }
            // An answer, and not an alert: it is read first, and the failure comes up again after it.
            Ok(()) if !buf.filled().is_empty() => {
                self.ahead = buf.filled().first().copied();
                self.was_read();
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            _ => Poll::Ready(Err(failure)),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(byte) = this.ahead.take() {
            buf.put_slice(&[byte]);
            return Poll::Ready(Ok(()));
        }
        let read = ready!(Pin::new(&mut this.stream).poll_read(cx, buf));
        match &read {
            Ok(()) => this.was_read(),
            Err(error) => this.note(error),
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, buf));
        this.with_reason(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, bufs));
        this.with_reason(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = ready!(Pin::new(&mut this.stream).poll_flush(cx));
        this.with_reason(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
