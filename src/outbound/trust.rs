//! Whose certificates are believed: the web's roots, and the authorities in trust files as these were when they were
//! last in order.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls_pki_types::CertificateDer;

use crate::files;
use crate::outbound::tls;
use crate::services::Trust;

/// The anchors of each trust policy that is in use. Immutable: to read files again makes others.
#[derive(Clone, Debug, Default)]
pub struct Anchors(HashMap<Trust, Arc<Believed>>);

/// The anchors of one policy.
#[derive(Debug)]
pub(crate) struct Believed {
    /// What the file holds; nothing for the web's roots, whose revocation lists are not looked for.
    authorities: Vec<CertificateDer<'static>>,
    /// Made once, because that parses every root.
    pub(crate) chain: Arc<WebPkiServerVerifier>,
}

/// A service's trust anchors cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file cannot be read.
    #[error("trust file {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is not PEM, or a certificate in it cannot be an anchor.
    #[error("trust file {path}: {reason}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

impl TrustError {
    /// The file.
    pub fn path(&self) -> &Path {
        let (Self::Read { path, .. } | Self::Unusable { path, .. }) = self;
        path
    }

    /// What is wrong with it.
    pub fn reason(&self) -> String {
        match self {
            Self::Read { source, .. } => source.to_string(),
            Self::Unusable { reason, .. } => reason.clone(),
        }
    }
}

impl Anchors {
    /// Those of these policies.
    ///
    /// # Errors
    /// When a file cannot be used.
    pub fn of<'a>(trusts: impl IntoIterator<Item = &'a Trust>) -> Result<Self, TrustError> {
        let (anchors, errors) = Self::default().again(trusts);
        errors.into_iter().next().map_or(Ok(anchors), Err)
    }

    /// Reads the files of these policies again. One that is not in order has the anchors that it had before; if it had
    /// none, it has none now.
    pub fn again<'a>(
        &self,
        trusts: impl IntoIterator<Item = &'a Trust>,
    ) -> (Self, Vec<TrustError>) {
        let mut errors = Vec::new();
        let mut anchors = HashMap::new();
        for trust in trusts {
            if anchors.contains_key(trust) {
                continue;
            }
            let last = self.0.get(trust);
            let now = Believed::read(trust, last).map_err(|error| errors.push(error));
            if let Some(believed) = now.ok().or_else(|| last.cloned()) {
                anchors.insert(trust.clone(), believed);
            }
        }
        (Self(anchors), errors)
    }

    /// Whether there are anchors for a policy.
    pub fn has(&self, trust: &Trust) -> bool {
        self.0.contains_key(trust)
    }

    /// Whether another set of anchors believes the same authorities under a policy.
    pub fn agree(&self, other: &Self, trust: &Trust) -> bool {
        match (self.0.get(trust), other.0.get(trust)) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }

    /// The certificates of a trust file.
    pub fn authorities(&self, trust: &Trust) -> &[CertificateDer<'static>] {
        self.0
            .get(trust)
            .map_or(&[], |believed| &believed.authorities)
    }

    pub(crate) fn get(&self, trust: &Trust) -> Option<&Arc<Believed>> {
        self.0.get(trust)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Trust, &Arc<Believed>)> {
        self.0.iter()
    }
}

impl Believed {
    /// The anchors of a policy: the last ones, where their file says the same as then.
    fn read(trust: &Trust, last: Option<&Arc<Self>>) -> Result<Arc<Self>, TrustError> {
        let (authorities, path) = match (trust, last) {
            (Trust::Public, Some(last)) => return Ok(Arc::clone(last)),
            (Trust::Public, None) => (Vec::new(), Path::new("public")),
            (Trust::File(path), _) => (certificates(path)?, path.as_path()),
        };
        if let Some(last) = last.filter(|last| last.authorities == authorities) {
            return Ok(Arc::clone(last));
        }
        let unusable = |reason: String| TrustError::Unusable {
            path: path.to_owned(),
            reason,
        };
        let mut roots = RootCertStore::empty();
        match trust {
            Trust::Public => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Trust::File(_) => {
                for authority in &authorities {
                    let added = roots.add(authority.clone());
                    added.map_err(|error| unusable(error.to_string()))?;
                }
            }
        }
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), tls::provider())
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Arc::new(Self { authorities, chain }))
    }
}

/// The certificates in a trust file: one at least.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let pem = files::read(path).map_err(|source| TrustError::Read {
        path: path.to_owned(),
        source,
    })?;
    let unusable = |reason: String| TrustError::Unusable {
        path: path.to_owned(),
        reason,
    };
    let certificates = files::certificates(&pem).map_err(unusable)?;
    if certificates.is_empty() {
        return Err(unusable("it holds no certificate".to_owned()));
    }
    Ok(certificates)
}
