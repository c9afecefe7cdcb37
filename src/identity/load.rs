//! Loads a folder of certificates and private keys, whatever their formats, into identities.
//!
//! Files are decoded in parallel, then put together directory by directory. One bad file never stops the others: it
//! is reported by name, with its reason and a hint. Private keys are wiped from memory once they are ready to sign.

mod examine;
mod file;
mod material;
mod pair;
mod pairing;
mod password;
mod pem;
mod permissions;
mod pkcs12;
mod pkcs8;
mod problem;
mod source;
mod stamp;
#[cfg(test)]
mod tests;
mod unpack;
mod walk;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use rustc_hash::FxHashMap;
use rustls::sign::{CertifiedKey, SigningKey};

pub use self::examine::{Examined, ExaminedCertificate, examine};
pub(crate) use self::material::{Certificate, PublicKey};
pub use self::pair::Pair;
use self::pairing::Pairs;
use self::password::Passwords;
pub(crate) use self::problem::shell_word;
pub use self::problem::{LoadError, Problem, ProblemKind};
use self::source::{Directory, Shared};
pub(crate) use self::stamp::Stamp;
pub(crate) use self::unpack::{BareKey, LoneKeys, Unpacked, Unpacker};
pub(crate) use self::walk::has_wanted_extension as is_read;
use super::profile::Profile;
use crate::config::{Identities, KeyReaders};

/// A certificate that can be presented: its chain, its private key, and what it says.
///
/// It is loaded whatever its dates and usage: what it may serve for is for selection to decide.
pub struct Identity {
    /// What the certificate says.
    pub profile: Arc<Profile>,
    /// The chain, leaf first and without the root. Authorities' certificates are the same in memory for all.
    pub(super) chain: Box<[Arc<Certificate>]>,
    /// The key that matches the leaf.
    pub(super) signing: Arc<dyn SigningKey>,
    /// What TLS presents, once it has been asked for: rustls wants a copy of every certificate in the chain, and most
    /// of the thousands that are loaded are idle.
    pub(super) presented: OnceLock<Arc<CertifiedKey>>,
    /// The file that the leaf came from.
    pub path: PathBuf,
}

impl Identity {
    /// The chain, leaf first and without the root, and the key that matches the leaf.
    pub fn key(&self) -> &Arc<CertifiedKey> {
        self.presented.get_or_init(|| {
            let chain = self.chain.iter().map(|certificate| certificate.der.clone());
            let signing = Arc::clone(&self.signing);
            Arc::new(CertifiedKey::new(chain.collect(), signing))
        })
    }

    /// The certificates of the chain above the leaf.
    pub(crate) fn issuers(&self) -> &[Arc<Certificate>] {
        self.chain.get(1..).unwrap_or_default()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key, whatever its own `Debug` does.
        f.debug_struct("Identity")
            .field("profile", &self.profile)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// What a folder gave.
#[derive(Debug)]
pub struct Loaded {
    /// The identities, by the order of their paths; each certificate once. One that is as it was the last time is the
    /// very same.
    pub identities: Vec<Arc<Identity>>,
    /// What is wrong, by the order of paths.
    pub problems: Vec<Problem>,
    /// Files of which not all could be decoded: what is missing may be in there.
    pub damaged: Vec<PathBuf>,
}

/// Loads the folder that the configuration names, at any depth.
///
/// Fails only if the folder itself or a configured source of passwords cannot be read.
pub fn load(config: &Identities) -> Result<Loaded, LoadError> {
    Folder::default().read(config)
}

/// A folder that is read time and again: what has not changed since is not decoded anew.
#[derive(Default)]
pub struct Folder {
    /// What there was the last time, by path.
    directories: Vec<Directory>,
    /// What came of it.
    pairs: Pairs,
    authorities: Shared,
    /// Where passwords were read from then.
    sources: Option<(Option<PathBuf>, Option<String>)>,
    /// Who was allowed to read keys then.
    readers: Option<KeyReaders>,
}

impl fmt::Debug for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Folder")
            .field("directories", &self.directories.len())
            .finish_non_exhaustive()
    }
}

impl Folder {
    /// Reads what is now in the folder that the configuration names, at any depth.
    ///
    /// # Errors
    /// If the folder itself cannot be read, or at first a configured source of passwords; one that could be read before
    /// is a problem like others. What was known before is not lost.
    pub fn read(&mut self, config: &Identities) -> Result<Loaded, LoadError> {
        self.read_at(config, SystemTime::now())
    }

    /// The same, where a change must have been a while before `now` for a file to be told by its stamp.
    fn read_at(&mut self, config: &Identities, now: SystemTime) -> Result<Loaded, LoadError> {
        let sources = (
            config.password_file.clone(),
            config.password_credential.clone(),
        );
        let (passwords, unread) = match Passwords::gather(config) {
            Ok(passwords) => (passwords, None),
            // What is loaded needs no password any more: one bad file must not keep all others from being read.
            Err(LoadError::PasswordFile(problem) | LoadError::PasswordCredential(problem))
                if self.sources.as_ref() == Some(&sources) =>
            {
                (Passwords::none(config.key_readers), Some(problem))
            }
            Err(error) => return Err(error),
        };
        let (listings, unlisted) = walk::walk(&config.directory, now)?;
        self.sources = Some(sources);
        if self.readers.replace(config.key_readers) != Some(config.key_readers) {
            // What was in order may be open to too many now.
            self.directories.clear();
        }
        let mut known: FxHashMap<_, _> = (self.directories.drain(..))
            .map(|one| (one.path, one.files))
            .collect();
        let renew = |listing: walk::Listing| {
            let known = known.remove(&listing.directory);
            Directory::renewed(listing, known.unwrap_or_default())
        };
        self.directories = listings.into_iter().map(renew).collect();
        drop(known);
        let files = self.directories.iter_mut().flat_map(|one| &mut one.files);
        let (shared, readers) = (&mut self.authorities, config.key_readers);
        source::read(files, shared, &passwords, readers);
        let files = self.directories.iter().flat_map(|one| &one.files);
        let damaged = files.filter(|one| one.is_damaged());
        let damaged = damaged.map(|one| one.path.clone()).collect();
        let (identities, mut problems) =
            pairing::pair(&config.directory, &self.directories, &mut self.pairs);
        let files = self.directories.iter_mut().flat_map(|one| &mut one.files);
        problems.extend(files.flat_map(|one| one.material.problems.drain(..)));
        problems.extend(unlisted.into_iter().chain(unread));
        problems.sort_by(|a, b| a.path.cmp(&b.path));
        // Those that no file holds any more.
        self.authorities.retain(|_, one| Arc::strong_count(one) > 1);
        Ok(Loaded {
            identities,
            problems,
            damaged,
        })
    }
}
