//! TLS towards a service, under one generation.
//!
//! Each (generation, service) has a `ClientConfig` of its own, and in it a session store of its own. A key that is
//! swapped inside a shared configuration goes on resuming sessions of the old certificate, in TLS 1.2 and 1.3
//! alike; here a session cannot outlive, or wander from, the certificate under which it was made.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, HandshakeKind, SignatureScheme, SupportedProtocolVersion};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::identity::generation::Generation;
use crate::outbound::error::Error;
use crate::outbound::pace;
use crate::outbound::sessions::{Sessions, Turn};
use crate::outbound::verifier::Verifier;
use crate::outbound::wire::Wire;
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

/// What connections are opened with. Which application protocols are offered is decided for each: what was begun
/// with one set of them can be resumed with another.
#[derive(Clone, Debug)]
struct Configs {
    config: Arc<ClientConfig>,
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
        let host = service.target.host();
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            Error::Tls(Arc::new(rustls::Error::General(format!(
                "{host} is not a host name"
            ))))
        })?;
        let connector = TlsConnector::from(Arc::clone(&configs.config));
        let offered = offered(service.http, h1_only);
        let connecting = ASKED.scope(Cell::new(false), async {
            let stream = connector.with_alpn(offered).connect(name, tcp);
            turn.has_greeted();
            let stream = stream.await?;
            let handshake = match stream.get_ref().1.handshake_kind() {
                Some(HandshakeKind::Resumed) => Handshake::Resumed,
                _ => Handshake::Full,
            };
            let lacks_certificate =
                generation.is_some() && handshake == Handshake::Full && !ASKED.with(Cell::get);
            if lacks_certificate {
                // A session made without the certificate must never be resumed as if it had been shown. Said in the
                // very step in which it may have been stored, after which nobody may come back here.
                configs.spoilt.store(true, Ordering::Release);
            }
            Ok((stream, handshake, lacks_certificate))
        });
        let connected = pace::in_steps(connecting).await;
        let (stream, handshake, lacks_certificate) = connected.map_err(Error::from_handshake)?;
        if lacks_certificate {
            return Err(Error::CertificateNotRequested);
        }
        if handshake == Handshake::Resumed && configs.spoilt.load(Ordering::Acquire) {
            // Such a session may have been what this handshake resumed, in the moment before it was known.
            return Err(Error::CertificateNotRequested);
        }
        let is_h2 = stream.get_ref().1.alpn_protocol() == Some(ALPN_H2);
        Ok(Secured {
            stream: Wire::new(stream, configs.sessions),
            is_h2,
            handshake,
        })
    }

    /// Waits for the turn to make a handshake, for a request that `arrived` then.
    pub(crate) async fn turn(
        &self,
        service: &Service,
        generation: Option<&Generation>,
        verifier: &Arc<Verifier>,
        arrived: Instant,
    ) -> Result<Turn, Error> {
        match self.configs(service, generation, verifier)?.sessions {
            Some(sessions) => Ok(sessions.turn(arrived).await),
            None => Ok(Turn::free()),
        }
    }

    /// Lets go of what is not needed while nobody connects.
    pub(crate) fn rest(&self) {
        let slot = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sessions) = slot.as_ref().and_then(|configs| configs.sessions.as_ref()) {
            sessions.rest();
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
        let key = generation.map(|generation| Arc::clone(generation.identity().key()));
        // Who resumes a session is not verified again, and a list may have ended since it was begun.
        let sessions = (!verifier.must_know()).then(Sessions::new);
        let config = build(service, key, verifier, sessions.as_ref());
        let config = config.map_err(|error| Error::Tls(Arc::new(error)))?;
        let configs = Configs {
            config: Arc::new(config),
            verifier: Arc::clone(verifier),
            sessions,
            spoilt: Arc::default(),
        };
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
    sessions: Option<&Arc<Sessions>>,
) -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(service.tls))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(verifier) as _);
    let mut config = match key {
        Some(key) => builder.with_client_cert_resolver(Arc::new(Present { key })),
        None => builder.with_no_client_auth(),
    };
    config.resumption = match sessions {
        Some(sessions) => Resumption::store(Arc::clone(sessions) as _),
        None => Resumption::disabled(),
    };
    Ok(config)
}

/// The application protocols to offer, the preferred one first.
fn offered(http: HttpVersions, h1_only: bool) -> Vec<Vec<u8>> {
    let protocols: &[&[u8]] = match http {
        _ if h1_only => &[ALPN_H1],
        HttpVersions::Auto => &[ALPN_H2, ALPN_H1],
        HttpVersions::H1 => &[ALPN_H1],
        HttpVersions::H2 => &[ALPN_H2],
    };
    protocols.iter().map(|protocol| protocol.to_vec()).collect()
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
