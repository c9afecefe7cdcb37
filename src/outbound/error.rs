//! Why a request could not be carried to a service.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError, PeerMisbehaved};

pub use crate::outbound::dial::guard::Forbidden;
use crate::services::InFlight;

/// Why a request could not be carried to a service. Cheap to clone: all who waited for one dial share its failure.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The service refused the client certificate, in the handshake or (TLS 1.3) right after it.
    #[error("the service refused the client certificate with the TLS alert {0:?}")]
    CertificateRejected(AlertDescription),
    /// The service did not ask for a client certificate, so the request would have gone out as nobody.
    #[error("the service did not ask for a client certificate")]
    CertificateNotRequested,
    /// The application stopped sending the request's body.
    #[error("the application stopped sending the request's body")]
    ClientStalled,
    /// The application went away, or broke HTTP, in the middle of the request's body.
    #[error("the request's body broke off: {0}")]
    ClientBroken(Arc<dyn std::error::Error + Send + Sync>),
    /// The certificate went out of use while the request was in flight, and its time was over.
    #[error("{}", cut_off(*.0))]
    CutOff(InFlight),
    /// No address answered.
    #[error("no connection to {address}: {source}")]
    Connect {
        /// The last address tried.
        address: SocketAddr,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The name has no address.
    #[error("{host} has no address: {source}")]
    Dns {
        /// The service's host.
        host: Arc<str>,
        /// What the resolver said.
        source: Arc<io::Error>,
    },
    /// The host's addresses are none that a service can have.
    #[error("{host} leads to {address}, which is not connected to: {why}")]
    Forbidden {
        /// The service's host.
        host: Arc<str>,
        /// The first of its addresses.
        address: SocketAddr,
        /// What is to be said against it.
        why: Forbidden,
    },
    /// The TLS handshake failed for another reason than trust or the client certificate.
    #[error("TLS handshake failed: {0}")]
    Handshake(Arc<io::Error>),
    /// The service could not be reached several times in a row, and is not tried for a while.
    #[error(
        "the service was not reached several times in a row, and is left alone for a moment; the last time: {last}"
    )]
    LeftAlone {
        /// Why not, the last time.
        last: Arc<Self>,
        /// How long it will be.
        wait: Duration,
    },
    /// All connections are taken, and none came free in time.
    #[error("no connection came free: {0}")]
    NoCapacity(&'static str),
    /// The service broke HTTP, or closed the connection before it answered.
    #[error("the service broke off or broke HTTP: {}", Chain(.0.as_ref()))]
    Protocol(Arc<dyn std::error::Error + Send + Sync>),
    /// The certificate was taken out of use before the request was sent: another is to be chosen.
    #[error("the certificate was replaced or withdrawn meanwhile")]
    Retired,
    /// The request's body is over the service's limit.
    #[error("the request's body is over {0} bytes")]
    TooLarge(u64),
    /// A deadline passed.
    #[error("the service did not {0} in time")]
    Timeout(Stage),
    /// The TLS settings of the service cannot be used with this certificate.
    #[error("TLS settings cannot be used: {0}")]
    Tls(Arc<rustls::Error>),
    /// The service's own certificate is not to be believed.
    #[error("the service's certificate is not trusted: {0}")]
    Untrusted(CertificateError),
}

/// What a service was to do when its deadline passed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// Accept a TCP connection.
    Connect,
    /// Complete the TLS handshake.
    Handshake,
    /// Take the request's body.
    TakeBody,
    /// Answer.
    Answer,
    /// Go on with the body of its answer.
    ContinueBody,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connect => "accept a connection",
            Self::Handshake => "complete the TLS handshake",
            Self::TakeBody => "take the request's body",
            Self::Answer => "answer",
            Self::ContinueBody => "go on with its answer",
        })
    }
}

impl Error {
    /// The service did not keep to the protocol.
    #[cold]
    pub(crate) fn broken(how: &'static str) -> Self {
        Self::Protocol(Arc::from(Box::<dyn std::error::Error + Send + Sync>::from(
            how,
        )))
    }

    /// Whether the connection itself is in doubt, and not only this one exchange on it.
    pub(crate) fn taints_connection(&self) -> bool {
        matches!(
            self,
            Self::Protocol(_) | Self::Timeout(_) | Self::CertificateRejected(_)
        )
    }

    /// Whether another connection, opened now, would most likely meet it too. Not so what one machine of several does
    /// that is being restarted: it is for whoever comes next to try again.
    pub(crate) fn would_meet_others(&self) -> bool {
        matches!(
            self,
            Self::CertificateRejected(_)
                | Self::CertificateNotRequested
                | Self::Dns { .. }
                | Self::Forbidden { .. }
                | Self::Timeout(_)
                | Self::Tls(_)
                | Self::Untrusted(_)
        )
    }

    /// Whether the service was not reached. How long it takes to answer is no matter of the connection, and may be one of
    /// what was asked; what it said itself is none either; nor is what the application did, or what there was no room
    /// for here.
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Dns { .. }
            | Self::Timeout(Stage::Connect | Stage::Handshake) => true,
            Self::Handshake(_) => !self.refuses_protocol(),
            _ => false,
        }
    }

    /// Whether it shows that the service is there: it said so itself, or took a connection before it fell silent.
    pub(crate) fn is_from_the_service(&self) -> bool {
        match self {
            Self::CertificateRejected(_)
            | Self::CertificateNotRequested
            | Self::Protocol(_)
            | Self::Timeout(Stage::TakeBody | Stage::Answer | Stage::ContinueBody)
            | Self::Untrusted(_) => true,
            Self::Handshake(_) => self.refuses_protocol(),
            _ => false,
        }
    }

    /// Whether the service speaks none of the protocols that it was offered (RFC 7301), or chose another.
    pub(crate) fn refuses_protocol(&self) -> bool {
        let Self::Handshake(error) = self else {
            return false;
        };
        matches!(
            tls_error(error),
            Some(
                rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)
                    | rustls::Error::PeerMisbehaved(
                        PeerMisbehaved::SelectedUnofferedApplicationProtocol
                    )
            )
        )
    }

    /// Reads a failed handshake: whose fault it was decides what the operator must do.
    pub(crate) fn from_handshake(error: io::Error) -> Self {
        match tls_error(&error) {
            Some(rustls::Error::InvalidCertificate(reason)) => Self::Untrusted(reason.clone()),
            Some(rustls::Error::AlertReceived(alert)) if rejects_certificate(*alert) => {
                Self::CertificateRejected(*alert)
            }
            _ => Self::Handshake(Arc::new(error)),
        }
    }

    /// Reads a failed exchange. With TLS 1.3 the refusal of a client certificate arrives only now: the client
    /// ends its side of the handshake before the server has looked at the certificate (RFC 8446 section 4.4.2.4).
    pub(crate) fn from_exchange(error: hyper::Error) -> Self {
        let mut link: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(cause) = link {
            if let Some(own) = cause.downcast_ref::<Self>() {
                return own.clone();
            }
            if let Some(alert) = cause.downcast_ref::<io::Error>().and_then(refusal) {
                return Self::CertificateRejected(alert);
            }
            link = cause.source();
        }
        Self::Protocol(Arc::new(error))
    }
}

/// The alert with which the client certificate was refused, if that is what the error is.
pub(crate) fn refusal(error: &io::Error) -> Option<AlertDescription> {
    match tls_error(error)? {
        rustls::Error::AlertReceived(alert) => {
            Some(*alert).filter(|alert| rejects_certificate(*alert))
        }
        _ => None,
    }
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref::<rustls::Error>()
}

/// The alerts with which servers refuse a client certificate (RFC 8446 section 6.2). `decrypt_error` is what a server
/// says that knows another authority of the same name: the signature on the certificate does not hold.
/// `handshake_failure` is left out: it also says that versions or suites do not match.
fn rejects_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::AccessDenied
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRequired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError
            | AlertDescription::NoCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate
    )
}

fn cut_off(in_flight: InFlight) -> &'static str {
    match in_flight {
        InFlight::Finish => {
            "the certificate was replaced while the request was in flight, and the time to finish is over"
        }
        InFlight::Cut => "the certificate was withdrawn while the request was in flight",
    }
}

/// Writes an error and what caused it on one line: hyper's own text names only the outermost layer.
struct Chain<'a>(&'a (dyn std::error::Error + Send + Sync + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
