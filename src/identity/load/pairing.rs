//! Puts certificates, keys and chains together, and says what is left over.
//!
//! A key belongs to a certificate when their public keys are the same, whatever the files are called; names only
//! decide which of several equal keys is taken, and which certificate a stray key was meant for.

use std::collections::HashSet;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::ptr;
use std::sync::{Arc, OnceLock};

use rustc_hash::{FxBuildHasher, FxHashMap, FxHashSet};

use super::Identity;
use super::material::{Certificate, Hash, Key, PublicKey};
use super::problem::{Problem, ProblemKind};
use super::source::{Directory, Source};
use crate::identity::profile::Fingerprint;

/// Longer than any chain of IGC-Santé's, and an end to circular ones.
const LONGEST_CHAIN: usize = 8;

/// The identities that were made the last time, by their certificates.
pub(super) type Pairs = FxHashMap<Fingerprint, Arc<Identity>>;

fn identity(
    file: &Source,
    certificate: &Arc<Certificate>,
    key: &Key,
    issuers: &[&Arc<Certificate>],
) -> Arc<Identity> {
    let chain = [certificate].into_iter().chain(issuers.iter().copied());
    Arc::new(Identity {
        profile: Arc::clone(&certificate.profile),
        chain: chain.cloned().collect(),
        signing: Arc::clone(&key.signing),
        presented: OnceLock::new(),
        path: file.path.clone(),
    })
}

/// Whether it is what would be made of the same certificate, whose key can be but one, and these. An authority's
/// certificate is the same in memory wherever it was found.
fn is_of(identity: &Identity, file: &Source, issuers: &[&Arc<Certificate>]) -> bool {
    identity.path.as_os_str() == file.path.as_os_str()
        && identity.issuers().len() == issuers.len()
        && (identity.issuers().iter().zip(issuers)).all(|(a, b)| Arc::ptr_eq(a, b))
}

/// Puts together what the files below `root` hold, and leaves in `pairs` what came of it. Returns the identities by
/// their paths, and what is wrong besides with what could be decoded.
pub(super) fn pair(
    root: &Path,
    directories: &[Directory],
    pairs: &mut Pairs,
) -> (Vec<Arc<Identity>>, Vec<Problem>) {
    let authorities = Authorities::index(root, directories);
    let before = std::mem::take(pairs);
    let mut pairing = Pairing {
        // There are mostly as many as before, and to grow step by step is half the work.
        pairs: Pairs::with_capacity_and_hasher(before.len(), FxBuildHasher),
        before,
        ..Pairing::default()
    };
    let left_over: Vec<_> = (directories.iter())
        .map(|directory| pairing.pair_directory(directory, &authorities))
        .collect();
    for (directory, left_over) in directories.iter().zip(left_over) {
        pairing.report(&directory.files, left_over);
    }
    *pairs = pairing.pairs;
    let mut identities = pairing.identities;
    // Those of one directory are.
    if directories.len() > 1 {
        identities.sort_by(|a, b| a.path.cmp(&b.path));
    }
    (identities, pairing.problems)
}

/// What in a directory has no counterpart there.
struct LeftOver<'a> {
    /// Certificates, which are no authorities, for which there was no key.
    certificates: Vec<(&'a Source, &'a Arc<Certificate>)>,
    /// The public keys of private keys for which there was no certificate.
    keys: FxHashSet<PublicKey>,
}

#[derive(Default)]
struct Pairing {
    before: Pairs,
    pairs: Pairs,
    identities: Vec<Arc<Identity>>,
    problems: Vec<Problem>,
}

impl Pairing {
    fn pair_directory<'a>(
        &mut self,
        directory: &'a Directory,
        authorities: &Authorities<'a>,
    ) -> LeftOver<'a> {
        let mut keys = keys_by_public_key(&directory.files);
        let above = authorities.above(&directory.path);
        let mut certificates = Vec::new();
        for file in &directory.files {
            for (rank, certificate) in file.material.certificates.iter().enumerate() {
                let fingerprint = certificate.profile.fingerprint;
                let mut before = file.material.certificates[..rank].iter();
                if before.any(|other| other.profile.fingerprint == fingerprint) {
                    continue;
                }
                match keys.get_mut(&certificate.profile.public_key) {
                    Some(keys) => self.load(file, certificate, keys.take_for(file), &above),
                    None if certificate.is_authority() => {}
                    None => certificates.push((file, certificate)),
                }
            }
        }
        let keys = keys.into_iter().filter(|(_, one)| !one.is_taken);
        LeftOver {
            certificates,
            keys: keys.map(|(public, _)| public).collect(),
        }
    }

    fn load(
        &mut self,
        file: &Source,
        certificate: &Arc<Certificate>,
        key: &Key,
        above: &Above<'_>,
    ) {
        let vacant = match self.pairs.entry(certificate.profile.fingerprint) {
            Entry::Vacant(vacant) => vacant,
            Entry::Occupied(first) => {
                let problem = duplicate(file, certificate, &first.get().path);
                self.problems.push(problem);
                return;
            }
        };
        let issuers = issuers(file, certificate, above);
        let identity = (self.before.remove(vacant.key()))
            .filter(|before| is_of(before, file, &issuers))
            .unwrap_or_else(|| identity(file, certificate, key, &issuers));
        self.identities.push(Arc::clone(&identity));
        vacant.insert(identity);
    }

    /// Once everything is loaded: a certificate without key may be a copy of one that was loaded elsewhere.
    fn report<'a>(&mut self, files: &'a [Source], left_over: LeftOver<'a>) {
        let mut certificates = Vec::new();
        for (file, certificate) in left_over.certificates {
            match self.pairs.get(&certificate.profile.fingerprint) {
                Some(first) => {
                    let problem = duplicate(file, certificate, &first.path);
                    self.problems.push(problem);
                }
                None => certificates.push((file, certificate)),
            }
        }
        if certificates.is_empty() && left_over.keys.is_empty() {
            return;
        }
        let damaged: Vec<_> = files.iter().filter(|file| file.is_damaged()).collect();
        let is_left_over = |key: &Key| left_over.keys.contains(&key.public);
        let with_keys = (files.iter()).filter(|file| file.material.keys.iter().any(is_left_over));
        let mismatched = self.report_keys(with_keys, &certificates, &damaged);
        for (file, certificate) in certificates {
            // Damaged files are reported as such; what they lack is not the news.
            let is_explained = mismatched.contains(&certificate.profile.fingerprint)
                || damaged.iter().any(|other| other.goes_with(file));
            if !is_explained {
                let subject = certificate.profile.subject.clone();
                self.problems.push(Problem::new(
                    &file.path,
                    ProblemKind::CertificateWithoutKey { subject },
                ));
            }
        }
    }

    /// Reports the keys without certificate, and returns the certificates that they were meant for.
    fn report_keys<'a>(
        &mut self,
        files: impl Iterator<Item = &'a Source>,
        certificates: &[(&Source, &Arc<Certificate>)],
        damaged: &[&Source],
    ) -> HashSet<Fingerprint> {
        let mut mismatched = HashSet::new();
        for file in files {
            let meant = certificates.iter().find(|(other, _)| other.goes_with(file));
            let kind = match meant {
                Some((other, certificate)) => {
                    mismatched.insert(certificate.profile.fingerprint);
                    ProblemKind::KeyMismatch {
                        certificate: other.path.clone(),
                    }
                }
                None if damaged.iter().any(|other| other.goes_with(file)) => continue,
                None => ProblemKind::KeyWithoutCertificate,
            };
            self.problems.push(Problem::new(&file.path, kind));
        }
        mismatched
    }
}

fn duplicate(file: &Source, certificate: &Certificate, first: &Path) -> Problem {
    Problem::new(
        &file.path,
        ProblemKind::Duplicate {
            subject: certificate.profile.subject.clone(),
            first: first.to_owned(),
        },
    )
}

/// The private keys of a directory.
type Keys<'a> = FxHashMap<PublicKey, Equals<'a>>;

/// A private key, as often as it is there.
struct Equals<'a> {
    first: (&'a Source, &'a Key),
    others: Vec<(&'a Source, &'a Key)>,
    /// Whether it is a certificate's.
    is_taken: bool,
}

impl<'a> Equals<'a> {
    /// The key in the certificate's own file if there is one, else in the file of the same stem, else in any.
    fn take_for(&mut self, file: &Source) -> &'a Key {
        self.is_taken = true;
        let mut all = [self.first].into_iter().chain(self.others.iter().copied());
        let own = all.clone().find(|(source, _)| ptr::eq(*source, file));
        let key = own.or_else(|| all.find(|(source, _)| source.goes_with(file)));
        key.unwrap_or(self.first).1
    }
}

fn keys_by_public_key(files: &[Source]) -> Keys<'_> {
    let mut keys = Keys::with_capacity_and_hasher(files.len(), FxBuildHasher);
    for file in files {
        for key in &file.material.keys {
            let found = (file, key);
            keys.entry(key.public)
                .and_modify(|equals| equals.others.push(found))
                .or_insert(Equals {
                    first: found,
                    others: Vec::new(),
                    is_taken: false,
                });
        }
    }
    keys
}

/// Authorities' certificates by their names.
type BySubject<'a> = FxHashMap<Hash, Vec<&'a Arc<Certificate>>>;

/// Those in a directory, then those in the one above it, up to the folder itself.
type Above<'i> = Vec<&'i BySubject<'i>>;

/// The authorities' certificates found in each directory: what chains are completed with.
struct Authorities<'a> {
    root: &'a Path,
    by_directory: FxHashMap<&'a Path, BySubject<'a>>,
}

impl<'a> Authorities<'a> {
    fn index(root: &'a Path, directories: &'a [Directory]) -> Self {
        let mut by_directory = FxHashMap::default();
        for directory in directories {
            let mut by_subject = BySubject::default();
            let files = directory.files.iter();
            let certificates = files.flat_map(|file| &file.material.certificates);
            for authority in certificates.filter(|one| one.is_authority()) {
                let same_name = by_subject.entry(authority.subject).or_default();
                // Every bundle of a folder repeats its issuer: keep each once.
                if !same_name.iter().any(|other| Arc::ptr_eq(other, authority)) {
                    same_name.push(authority);
                }
            }
            if !by_subject.is_empty() {
                by_directory.insert(&*directory.path, by_subject);
            }
        }
        Self { root, by_directory }
    }

    fn above(&self, directory: &Path) -> Above<'_> {
        (directory.ancestors())
            .take_while(|above| above.starts_with(self.root))
            .filter_map(|above| self.by_directory.get(above))
            .collect()
    }
}

/// A leaf's issuers as far as they are known, without the self-signed root: peers have it or do not believe it.
fn issuers<'i>(
    file: &'i Source,
    leaf: &'i Arc<Certificate>,
    above: &Above<'i>,
) -> Vec<&'i Arc<Certificate>> {
    let mut issuers: Vec<&Arc<Certificate>> = Vec::new();
    while let last = issuers.last().copied().unwrap_or(leaf)
        && !last.is_self_issued()
        && issuers.len() + 1 < LONGEST_CHAIN
        && let Some(issuer) = issuer(file, last, above)
        && !issuer.is_self_issued()
    {
        issuers.push(issuer);
    }
    issuers
}

/// Looks in the leaf's own file, then in its directory, then upwards to the folder itself.
fn issuer<'i>(
    file: &'i Source,
    certificate: &Certificate,
    above: &Above<'i>,
) -> Option<&'i Arc<Certificate>> {
    let is_issuer = |other: &&'i Arc<Certificate>| certificate.is_issued_by(other);
    newest(file.material.certificates.iter().filter(is_issuer)).or_else(|| {
        let mut named = above.iter().filter_map(|one| one.get(&certificate.issuer));
        named.find_map(|named| newest(named.iter().copied().filter(is_issuer)))
    })
}

/// An authority that was certified anew has the same name and key: the later certificate will serve longer.
fn newest<'c>(
    authorities: impl Iterator<Item = &'c Arc<Certificate>>,
) -> Option<&'c Arc<Certificate>> {
    authorities.max_by_key(|authority| authority.profile.not_after)
}
