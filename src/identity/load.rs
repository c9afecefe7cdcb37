//! Loads a folder of certificates and private keys, whatever their formats, into identities.
//!
//! Files are decoded in parallel, then put together directory by directory. One bad file never stops the others: it
//! is reported by name, with its reason and a hint. Private keys are wiped from memory once they are ready to sign.

mod examine;
mod file;
mod material;
mod pairing;
mod password;
mod pem;
mod permissions;
mod pkcs12;
mod pkcs8;
mod problem;
mod stamp;
#[cfg(test)]
mod tests;
mod unpack;
mod walk;

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustls::sign::CertifiedKey;

pub use self::examine::{Examined, ExaminedCertificate, examine};
use self::material::Material;
pub(crate) use self::material::{Certificate, PublicKey};
use self::pairing::Source;
use self::password::Passwords;
pub(crate) use self::problem::shell_word;
pub use self::problem::{LoadError, Problem, ProblemKind};
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
    pub profile: Profile,
    /// The chain, leaf first and without the root, and the key that matches the leaf.
    pub key: Arc<CertifiedKey>,
    /// The file that the leaf came from.
    pub path: PathBuf,
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
    /// The identities, by the order of their paths; each certificate once.
    pub identities: Vec<Identity>,
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
    /// What was decoded without a problem, with what the system said of the file then.
    decoded: HashMap<PathBuf, (Stamp, Material)>,
    /// Who was allowed to read keys then.
    readers: Option<KeyReaders>,
}

impl fmt::Debug for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Folder")
            .field("files", &self.decoded.len())
            .finish_non_exhaustive()
    }
}

impl Folder {
    /// Reads what is now in the folder that the configuration names, at any depth.
    ///
    /// # Errors
    /// If the folder itself or a configured source of passwords cannot be read. What was known before is not lost.
    pub fn read(&mut self, config: &Identities) -> Result<Loaded, LoadError> {
        let passwords = Passwords::gather(config)?;
        let (paths, unlisted) = walk::walk(&config.directory)?;
        let stamps: Vec<_> = paths.iter().map(|path| Stamp::of(path)).collect();
        let mut known = std::mem::take(&mut self.decoded);
        if self.readers.replace(config.key_readers) != Some(config.key_readers) {
            // What was in order may be open to too many now.
            known.clear();
        }
        let mut sources = Vec::with_capacity(paths.len());
        let mut changed = Vec::new();
        for (path, stamp) in paths.iter().zip(&stamps) {
            match known.remove(path) {
                Some((then, material)) if *stamp == Some(then) => sources.push(Source {
                    path: path.clone(),
                    material,
                }),
                _ => changed.push(path.clone()),
            }
        }
        sources.extend(decode_all(changed, &passwords, config.key_readers));
        sources.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        // A file that cannot be decoded is tried again each time: a password may have come, or its owner changed.
        let is_whole: Vec<_> = sources.iter().map(|source| !source.is_damaged()).collect();
        let damaged = (sources.iter().filter(|source| source.is_damaged()))
            .map(|source| source.path.clone())
            .collect();
        let mut loaded = pairing::pair(&config.directory, &mut sources);
        loaded.damaged = damaged;
        loaded.problems.extend(unlisted);
        loaded.problems.sort_by(|a, b| a.path.cmp(&b.path));
        self.decoded = sources
            .into_iter()
            .zip(stamps)
            .zip(is_whole)
            .filter_map(|((source, stamp), is_whole)| {
                Some((source.path, (stamp.filter(|_| is_whole)?, source.material)))
            })
            .collect();
        Ok(loaded)
    }
}

/// Decodes files on all cores: making ready ten thousand RSA keys takes seconds on one.
fn decode_all(paths: Vec<PathBuf>, passwords: &Passwords, readers: KeyReaders) -> Vec<Source> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        let mut authorities = HashMap::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(path) = paths.get(index) else {
                return done;
            };
            let mut material = decode(path, passwords, readers);
            material.share_authorities(&mut authorities);
            done.push((index, material));
        }
    };
    let threads = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(paths.len());
    let mut decoded: Vec<(usize, Material)> = thread::scope(|scope| {
        #[expect(
            clippy::needless_collect,
            reason = "lazily, each thread would start when the one before is joined"
        )]
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        (workers.into_iter())
            .flat_map(|worker| worker.join().expect("panics are caught file by file"))
            .collect()
    });
    decoded.sort_unstable_by_key(|(index, _)| *index);
    (paths.into_iter().zip(decoded))
        .map(|(path, (_, material))| Source { path, material })
        .collect()
}

/// Decodes one file. The decoders are others' code fed with whatever lies in a folder: should one panic, that is a
/// problem of this file and not the end of the gateway.
fn decode(path: &Path, passwords: &Passwords, readers: KeyReaders) -> Material {
    catch_unwind(AssertUnwindSafe(|| file::decode(path, passwords, readers))).unwrap_or_else(|_| {
        Material {
            problems: vec![Problem::new(path, ProblemKind::Internal)],
            ..Material::default()
        }
    })
}
