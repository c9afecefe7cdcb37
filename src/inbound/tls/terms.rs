//! What a listener's handshakes go by, made of the files that its configuration names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::danger::ClientCertVerifier;
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
    pair: Arc<Pair>,
    clients: Option<Arc<Clients>>,
}

/// Which certificates of applications are taken.
#[derive(Debug)]
struct Clients {
    authorities: Vec<CertificateDer<'static>>,
    crls: Vec<CertificateRevocationListDer<'static>>,
    is_required: bool,
    /// Made of the others.
    verifier: Arc<dyn ClientCertVerifier>,
}

impl PartialEq for Clients {
    fn eq(&self, other: &Self) -> bool {
        self.authorities == other.authorities
            && self.crls == other.crls
            && self.is_required == other.is_required
    }
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
        Self::of(tls, Arc::new(pair), Clients::of(tls)?)
    }

    /// Reads the files again. Its own pair and what is asked of applications are apart: one that is not in order stays
    /// as it is, and is told of, and the other is taken up. Nothing if both are as before.
    ///
    /// # Errors
    /// When one that is not in order is of files that `running`, by which these were read, does not name.
    pub(super) fn read_again(
        &self,
        tls: &ListenerTls,
        running: &ListenerTls,
        readers: KeyReaders,
        now: i64,
    ) -> Result<(Option<Self>, Vec<TermsError>), TermsError> {
        let mut told = Vec::new();
        let mut tell = |error, is_named_anew| match is_named_anew {
            true => Err(error),
            false => {
                told.push(error);
                Ok(())
            }
        };
        let pair = match self.pair_again(tls, readers, now) {
            Ok(pair) => Arc::new(pair),
            Err(error) => {
                let named = |tls: &ListenerTls| (tls.certificate.clone(), tls.key.clone());
                tell(error, named(tls) != named(running))?;
                Arc::clone(&self.pair)
            }
        };
        let clients = match Clients::of(tls) {
            Ok(clients) => clients,
            Err(error) => {
                tell(error, tls.clients != running.clients)?;
                self.clients.clone()
            }
        };
        // Sessions may be resumed as long as handshakes go by the same.
        let is_same = pair == self.pair && clients == self.clients;
        let terms = (!is_same).then(|| Self::of(tls, pair, clients));
        Ok((terms.transpose()?, told))
    }

    /// What the listener's certificate says.
    pub fn profile(&self) -> &Profile {
        self.pair.profile()
    }

    fn pair_again(
        &self,
        tls: &ListenerTls,
        readers: KeyReaders,
        now: i64,
    ) -> Result<Pair, TermsError> {
        let pair = Pair::read(&tls.certificate, &tls.key, readers)?;
        let is_valid = |pair: &Pair| pair.profile().is_valid_at(now);
        if !is_valid(&pair) && is_valid(&self.pair) {
            return Err(TermsError {
                path: tls.certificate.clone(),
                reason: "the certificate is not valid at this time".to_owned(),
                hint: "the one before is shown on; put one in its place that is".to_owned(),
            });
        }
        Ok(pair)
    }

    fn of(
        tls: &ListenerTls,
        pair: Arc<Pair>,
        clients: Option<Arc<Clients>>,
    ) -> Result<Self, TermsError> {
        let config = config(&pair, clients.as_deref())
            .map_err(|error| TermsError::new(&tls.certificate, error))?;
        let own = pair.chain().next().map(AsRef::as_ref);
        Ok(Self {
            config: Arc::new(config),
            names: Arc::new(Names::of(own.unwrap_or_default())),
            pair,
            clients,
        })
    }

    /// Whether the same certificates of applications are taken as under others.
    pub(super) fn takes_the_same(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || self.clients == other.clients
    }
}

impl Clients {
    fn of(tls: &ListenerTls) -> Result<Option<Arc<Self>>, TermsError> {
        let read = tls.clients.as_ref().map(Self::read).transpose()?;
        Ok(read.map(Arc::new))
    }

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
        let is_required = clients.is_required;
        let verifier = verifier(&authorities, &crls, is_required)
            .map_err(|reason| TermsError::new(path, reason))?;
        Ok(Self {
            authorities,
            crls,
            is_required,
            verifier,
        })
    }
}

fn verifier(
    authorities: &[CertificateDer<'static>],
    crls: &[CertificateRevocationListDer<'static>],
    is_required: bool,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        let added = roots.add(authority.clone());
        added.map_err(|error| error.to_string())?;
    }
    // With a list, what no list speaks of is refused, and authorities are looked up as well: rustls's default, and the
    // one that a list which was forgotten cannot get around.
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .with_crls(crls.iter().cloned());
    let verifier = match is_required {
        true => verifier,
        false => verifier.allow_unauthenticated(),
    };
    verifier.build().map_err(|error| error.to_string())
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

fn config(pair: &Pair, clients: Option<&Clients>) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => builder.with_client_cert_verifier(Arc::clone(&clients.verifier)),
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
        config.ticketer = Ticketer::new()?;
    }
    Ok(config)
}
