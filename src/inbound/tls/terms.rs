//! What a listener's handshakes go by, made of the files that its configuration names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};

use super::names::Names;
use crate::config::{ClientCertificates, KeyReaders, ListenerTls};
use crate::files;
use crate::identity::load::{Pair, Problem};
use crate::identity::profile::Profile;
use crate::outbound::tls::provider;

/// In the order of preference: one connection of HTTP/2 saves an application the handshakes of many.
pub(super) const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What a listener's handshakes go by. Immutable: a file that has changed makes another, and sessions of the one before
/// are not resumed under it.
#[derive(Debug)]
pub struct Terms {
    pub(super) config: Arc<ServerConfig>,
    pub(super) names: Arc<Names>,
    pair: Pair,
    clients: Option<Clients>,
}

/// Which certificates of applications are taken.
#[derive(Debug, Eq, PartialEq)]
struct Clients {
    authorities: Vec<CertificateDer<'static>>,
    crls: Vec<CertificateRevocationListDer<'static>>,
    is_required: bool,
}

/// Why the files of a listener cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {reason}", .path.display())]
pub struct TermsError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
    /// What to do; may be empty.
    pub hint: String,
}

impl TermsError {
    fn new(path: &Path, reason: impl ToString) -> Self {
        Self {
            path: path.to_owned(),
            reason: reason.to_string(),
            hint: String::new(),
        }
    }
}

impl From<Problem> for TermsError {
    fn from(problem: Problem) -> Self {
        Self {
            path: problem.path,
            reason: problem.kind.to_string(),
            hint: problem.hint,
        }
    }
}

impl Terms {
    /// Reads the files that a configuration names.
    ///
    /// # Errors
    /// What is wrong with the first that is not in order.
    pub fn read(tls: &ListenerTls, readers: KeyReaders) -> Result<Self, TermsError> {
        let pair = Pair::read(&tls.certificate, &tls.key, readers)?;
        let clients = tls.clients.as_ref().map(Clients::read).transpose()?;
        let of_clients = tls.clients.as_ref().map(|clients| &clients.authorities);
        let config = config(&pair, clients.as_ref())
            .map_err(|reason| TermsError::new(of_clients.unwrap_or(&tls.certificate), reason))?;
        let own = pair.chain().next().map(AsRef::as_ref);
        Ok(Self {
            config: Arc::new(config),
            names: Arc::new(Names::of(own.unwrap_or_default())),
            pair,
            clients,
        })
    }

    /// What the listener's certificate says.
    pub fn profile(&self) -> &Profile {
        self.pair.profile()
    }

    /// Whether handshakes go by the same as under others, whose sessions may then be resumed.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.pair == other.pair && self.clients == other.clients
    }

    /// Whether the same certificates of applications are taken as under others.
    pub(super) fn takes_the_same(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || self.clients == other.clients
    }
}

impl Clients {
    fn read(clients: &ClientCertificates) -> Result<Self, TermsError> {
        let path = &clients.authorities;
        let pem = files::read(path).map_err(|error| TermsError::new(path, error))?;
        let authorities =
            files::certificates(&pem).map_err(|reason| TermsError::new(path, reason))?;
        if authorities.is_empty() {
            return Err(TermsError::new(path, "it holds no certificate"));
        }
        let mut crls = Vec::new();
        for path in &clients.crls {
            crls.append(&mut lists(path)?);
        }
        Ok(Self {
            authorities,
            crls,
            is_required: clients.is_required,
        })
    }
}

/// The revocation lists in a file: one in DER, or any number in PEM.
fn lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TermsError> {
    let bytes = files::read(path).map_err(|error| TermsError::new(path, error))?;
    let lists = match bytes.first() {
        Some(0x30) => vec![bytes.into()],
        _ => CertificateRevocationListDer::pem_slice_iter(&bytes)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| TermsError::new(path, error))?,
    };
    let malformed = lists.is_empty() || lists.iter().any(|list| !is_list(list));
    match malformed {
        true => Err(TermsError::new(path, "it is no revocation list")),
        false => Ok(lists),
    }
}

fn is_list(list: &CertificateRevocationListDer<'_>) -> bool {
    use x509_parser::prelude::FromDer as _;
    use x509_parser::revocation_list::CertificateRevocationList;
    CertificateRevocationList::from_der(list).is_ok_and(|(rest, _)| rest.is_empty())
}

fn config(pair: &Pair, clients: Option<&Clients>) -> Result<ServerConfig, String> {
    let failed = |error: rustls::Error| error.to_string();
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(failed)?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            for authority in &clients.authorities {
                roots.add(authority.clone()).map_err(failed)?;
            }
            // With a list, what no list speaks of is refused, and authorities are looked up as well: rustls's default,
            // and the one that a list which was forgotten cannot get around.
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
                .with_crls(clients.crls.iter().cloned());
            let verifier = match clients.is_required {
                true => verifier,
                false => verifier.allow_unauthenticated(),
            };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| error.to_string())?)
        }
    };
    let key = SingleCertAndKey::from(pair.certified());
    let mut config = builder.with_cert_resolver(Arc::new(key));
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if clients.is_some() {
        // A session that is resumed brings back the certificate that was shown when it began, and nobody looks whether
        // it was revoked, or its authority removed, since (CVE-2025-23419 in nginx, CVE-2025-23048 in httpd). What a
        // full handshake costs is paid once a connection.
        config.send_tls13_tickets = 0;
    } else {
        // Keys of this configuration alone: what begins here is resumed here and nowhere else.
        config.ticketer = Ticketer::new().map_err(failed)?;
    }
    Ok(config)
}
