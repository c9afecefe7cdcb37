//! TLS of a listener: handshakes, and what they establish of the application at the other end.
//!
//! Each listener has a `ServerConfig` of its own, and in it ticket keys of its own, so that a session which began on
//! one is never resumed on another.

mod authority;
mod names;
mod terms;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub use self::authority::Authority;
pub use self::names::Names;
pub use self::terms::{Terms, TermsError};
use crate::config::{KeyReaders, ListenerTls};
use crate::identity::profile::{Fingerprint, Profile};
use crate::inbound::peer::{Certificate, Tls};
use crate::outbound::pace;

/// How long a handshake may take, where heads may take longer: two round trips, and nothing that a person does.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(10);

/// The TLS of one listener, as its files are by now. Clones are of the same.
#[derive(Clone, Debug)]
pub struct Security(Arc<ArcSwap<Terms>>);

impl Security {
    /// Reads the files that a configuration names for the first time.
    ///
    /// # Errors
    /// When they are not in order.
    pub fn read(tls: &ListenerTls, readers: KeyReaders) -> Result<Self, TermsError> {
        Terms::read(tls, readers).map(|terms| Self(Arc::new(ArcSwap::from_pointee(terms))))
    }

    /// Reads the files again: the terms that are to be in use then, unless they are as before, and what is not in order
    /// and stays as it is.
    ///
    /// # Errors
    /// When what is not in order is of files that `running` does not name.
    pub fn read_again(
        &self,
        tls: &ListenerTls,
        running: &ListenerTls,
        readers: KeyReaders,
        now: i64,
    ) -> Result<(Option<Arc<Terms>>, Vec<TermsError>), TermsError> {
        let read = self.0.load().read_again(tls, running, readers, now);
        read.map(|(terms, told)| (terms.map(Arc::new), told))
    }

    /// Has handshakes go by others from now on. Connections that are open go on.
    pub fn renew(&self, terms: Arc<Terms>) {
        self.0.store(terms);
    }

    /// Completes a handshake, and tells what it has established.
    pub(super) async fn accept(
        &self,
        tcp: TcpStream,
        limit: Duration,
    ) -> io::Result<(TlsStream<TcpStream>, Tls)> {
        let terms = self.0.load_full();
        let accepting = TlsAcceptor::from(Arc::clone(&terms.config)).accept(tcp);
        // A handshake is up to a millisecond of work for the worker; those that come by the hundred take turns with
        // everything else that it does.
        let accepted =
            tokio::time::timeout(HANDSHAKE.min(limit), pace::in_steps_inbound(accepting));
        let stream = accepted.await??;
        let session = stream.get_ref().1;
        let shown = session.peer_certificates().and_then(<[_]>::first);
        // A handshake may be held open over the reload from which on its certificate is refused, or one is required.
        // A renewal of the listener's own certificate changes nothing here.
        if !terms.takes_the_same(&self.0.load()) {
            return Err(io::Error::other(
                "which certificates are taken has changed during the handshake",
            ));
        }
        let certificate = shown.map(|der| proven(der)).transpose()?;
        let tls = Tls {
            server_name: session
                .server_name()
                .map(|name| name.to_ascii_lowercase().into()),
            certificate,
            names: Arc::clone(&terms.names),
        };
        Ok((stream, tls))
    }
}

/// What a certificate says that rustls has verified.
fn proven(der: &[u8]) -> io::Result<Certificate> {
    // One that cannot be read here must not pass for none at all.
    let profile = Profile::parse(der).map_err(io::Error::other)?;
    Ok(Certificate {
        fingerprint: Fingerprint::of(der),
        subject: profile.subject,
    })
}
