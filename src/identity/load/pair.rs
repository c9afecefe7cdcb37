//! One certificate with its chain and its key, from the two files that a configuration names: what a listener proves
//! itself with.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::sign::{CertifiedKey, SigningKey};
use rustls_pki_types::CertificateDer;

use super::file;
use super::material::{Certificate, Material};
use super::password::Passwords;
use super::problem::{Problem, ProblemKind};
use crate::config::KeyReaders;
use crate::identity::profile::Profile;

/// A chain and the key that matches its first certificate.
pub struct Pair {
    chain: Vec<Arc<Certificate>>,
    signing: Arc<dyn SigningKey>,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key, whatever its own `Debug` does.
        f.debug_struct("Pair")
            .field("subject", &self.profile().subject)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Pair {
    /// A certificate has but one key, so that equal chains are equal pairs.
    fn eq(&self, other: &Self) -> bool {
        self.chain().eq(other.chain())
    }
}

impl Pair {
    /// Reads a file with a certificate and its issuers, in that order, and one with its key. Both may be the same.
    ///
    /// # Errors
    /// What is wrong with one of them: unreadable, not PEM, a key that others can read or that is another's.
    pub fn read(certificate: &Path, key: &Path, readers: KeyReaders) -> Result<Self, Problem> {
        let passwords = Passwords::none(readers);
        let decode = |path| match file::decode(path, &passwords, readers) {
            Material { mut problems, .. } if !problems.is_empty() => Err(problems.remove(0)),
            material => Ok(material),
        };
        let chain = decode(certificate)?.certificates;
        if chain.is_empty() {
            return Err(Problem::new(certificate, ProblemKind::NotRecognised));
        }
        let mut keys = decode(key)?.keys;
        let own = (keys.iter()).position(|one| one.public == chain[0].profile.public_key);
        match own {
            Some(own) => Ok(Self {
                chain,
                signing: keys.swap_remove(own).signing,
            }),
            None if keys.is_empty() => Err(Problem::new(key, ProblemKind::NotRecognised)),
            None => {
                let certificate = certificate.to_owned();
                Err(Problem::new(key, ProblemKind::KeyMismatch { certificate }))
            }
        }
    }

    /// What its certificate says.
    pub fn profile(&self) -> &Profile {
        &self.chain[0].profile
    }

    /// The certificates, its own first.
    pub fn chain(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.chain.iter().map(|certificate| &certificate.der)
    }

    /// What TLS presents.
    pub fn certified(&self) -> CertifiedKey {
        CertifiedKey::new(self.chain().cloned().collect(), Arc::clone(&self.signing))
    }
}
