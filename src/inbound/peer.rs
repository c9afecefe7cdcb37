//! Who opened a connection, as far as the system and TLS vouch for it.

use std::any::Any;
use std::sync::Arc;

use http::uri::Authority;

use crate::identity::profile::Fingerprint;
use crate::inbound::tls::Names;

/// What is known of the other end of a connection. Nothing of it was said by the application itself.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// The process, on a Unix socket.
    pub process: Option<Process>,
    /// What TLS established, on a listener that speaks it.
    pub tls: Option<Arc<Tls>>,
    /// The tunnel in which requests come, if they do.
    pub tunnel: Option<Arc<Tunnel>>,
}

impl Peer {
    /// The certificate that it proved to hold, if it did.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.tls.as_ref()?.certificate.as_ref()
    }
}

/// What was asked for with CONNECT. An answer to it that has this among its extensions says that the requests in the
/// tunnel are to be taken here.
#[derive(Debug)]
pub struct Tunnel {
    /// Where the application believes that it leads.
    pub authority: Authority,
    /// What whoever agreed to it wants to know again for each request in it. A tunnel lives long: no secret.
    pub agreed: Box<dyn Any + Send + Sync>,
}

/// The account, and the group, that stand for all those which have no number in the user namespace of this process
/// (user_namespaces(7); the kernel's default of `overflowuid`). It is nobody in particular.
pub const NOBODY: u32 = 65_534;

/// The process at the other end of a Unix socket, as it was when it connected (`SO_PEERCRED`, unix(7)).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Process {
    /// The account under which it ran.
    pub uid: u32,
    /// Its primary group. The kernel tells of no others here.
    pub gid: u32,
}

/// What a TLS handshake established.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tls {
    /// The name that the application asked for (SNI), in lower case.
    pub server_name: Option<Box<str>>,
    /// The certificate that it proved to hold, and that the listener's authorities have issued.
    pub certificate: Option<Certificate>,
    /// The names in the certificate that it was shown itself.
    pub names: Arc<Names>,
}

/// An application's certificate, after it was verified.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Certificate {
    /// The SHA-256 of the certificate.
    pub fingerprint: Fingerprint,
    /// Its subject, as RFC 4514 writes it.
    pub subject: Box<str>,
}
