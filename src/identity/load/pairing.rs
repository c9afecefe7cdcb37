//! Puts certificates, keys and chains together, and says what is left over.
//!
//! A key belongs to a certificate when their public keys are the same, whatever the files are called; names only
//! decide which of several equal keys is taken, and which certificate a stray key was meant for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;

use super::material::{Certificate, Hash, Key, Material, PublicKey};
use super::problem::{Problem, ProblemKind};
use super::{Identity, Loaded};
use crate::identity::profile::Fingerprint;

/// Longer than any chain of IGC-Santé's, and an end to circular ones.
const LONGEST_CHAIN: usize = 8;

/// A decoded file.
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) material: Material,
}

impl Source {
    fn directory(&self) -> &Path {
        self.path.parent().unwrap_or_else(|| Path::new(""))
    }

    /// Whether part of it could not be decoded, so that what seems to lack is likely in there.
    pub(super) fn is_damaged(&self) -> bool {
        !self.material.problems.is_empty()
    }

    /// Whether it is the same file as `other`, or was named to go with it (`a.crt` and `a.key`).
    fn goes_with(&self, other: &Self) -> bool {
        self.path.file_stem() == other.path.file_stem()
    }
}

/// Puts together what the files below `root` hold; sources are sorted by path.
pub(super) fn pair(root: &Path, sources: &mut [Source]) -> Loaded {
    let mut pairing = Pairing::default();
    {
        let directories = by_directory(sources);
        let authorities = Authorities::index(root, sources);
        for files in directories.values() {
            pairing.pair_directory(files, &authorities);
        }
        for files in directories.values() {
            pairing.report_left_over(files);
        }
    }
    let Pairing {
        mut identities,
        mut problems,
        ..
    } = pairing;
    identities.sort_by(|a, b| a.path.cmp(&b.path));
    problems.extend(
        sources
            .iter_mut()
            .flat_map(|source| source.material.problems.drain(..)),
    );
    problems.sort_by(|a, b| a.path.cmp(&b.path));
    Loaded {
        identities,
        problems,
        damaged: Vec::new(),
    }
}

fn by_directory(sources: &[Source]) -> BTreeMap<&Path, Vec<&Source>> {
    let mut directories: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for source in sources {
        directories
            .entry(source.directory())
            .or_default()
            .push(source);
    }
    directories
}

#[derive(Default)]
struct Pairing<'a> {
    identities: Vec<Identity>,
    problems: Vec<Problem>,
    /// Where each certificate was loaded from.
    loaded: HashMap<Fingerprint, &'a Path>,
    /// By directory: certificates, which are no authorities, for which there was no key.
    without_key: HashMap<&'a Path, Vec<(&'a Source, &'a Certificate)>>,
}

impl<'a> Pairing<'a> {
    fn pair_directory(&mut self, files: &[&'a Source], authorities: &Authorities<'a>) {
        let keys = keys_by_public_key(files);
        for &file in files {
            let mut in_this_file = HashSet::new();
            for certificate in &file.material.certificates {
                if !in_this_file.insert(certificate.profile.fingerprint) {
                    continue;
                }
                match key_of(certificate, file, &keys) {
                    Some(key) => self.load(file, certificate, key, authorities),
                    None if certificate.is_authority() => {}
                    None => (self.without_key.entry(file.directory()).or_default())
                        .push((file, certificate)),
                }
            }
        }
    }

    fn load(
        &mut self,
        file: &'a Source,
        certificate: &Certificate,
        key: &Key,
        authorities: &Authorities<'a>,
    ) {
        if let Some(first) = self.loaded.get(&certificate.profile.fingerprint) {
            self.problems.push(duplicate(file, certificate, first));
            return;
        }
        self.loaded
            .insert(certificate.profile.fingerprint, &file.path);
        let chain = authorities.chain(file, certificate);
        self.identities.push(Identity {
            profile: certificate.profile.clone(),
            key: Arc::new(CertifiedKey::new(chain, Arc::clone(&key.signing))),
            path: file.path.clone(),
        });
    }

    /// Once everything is loaded: a certificate without key may be a copy of one that was loaded elsewhere.
    fn report_left_over(&mut self, files: &[&'a Source]) {
        let Some(directory) = files.first().map(|file| file.directory()) else {
            return;
        };
        let mut certificates = Vec::new();
        for (file, certificate) in self.without_key.remove(directory).unwrap_or_default() {
            match self.loaded.get(&certificate.profile.fingerprint) {
                Some(first) => self.problems.push(duplicate(file, certificate, first)),
                None => certificates.push((file, certificate)),
            }
        }
        let mismatched = self.report_keys(files, &certificates);
        for (file, certificate) in certificates {
            // Damaged files are reported as such; what they lack is not the news.
            let is_explained = mismatched.contains(&certificate.profile.fingerprint)
                || files
                    .iter()
                    .any(|other| other.is_damaged() && other.goes_with(file));
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
    fn report_keys(
        &mut self,
        files: &[&'a Source],
        certificates: &[(&'a Source, &'a Certificate)],
    ) -> HashSet<Fingerprint> {
        let known: HashSet<PublicKey> = (files.iter())
            .flat_map(|file| &file.material.certificates)
            .map(|certificate| certificate.profile.public_key)
            .collect();
        let mut mismatched = HashSet::new();
        for file in files {
            if file
                .material
                .keys
                .iter()
                .all(|key| known.contains(&key.public))
            {
                continue;
            }
            let meant = certificates.iter().find(|(other, _)| other.goes_with(file));
            let kind = match meant {
                Some((other, certificate)) => {
                    mismatched.insert(certificate.profile.fingerprint);
                    ProblemKind::KeyMismatch {
                        certificate: other.path.clone(),
                    }
                }
                None if files
                    .iter()
                    .any(|other| other.is_damaged() && other.goes_with(file)) =>
                {
                    continue;
                }
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

type Keys<'a> = HashMap<PublicKey, Vec<(&'a Source, &'a Key)>>;

fn keys_by_public_key<'a>(files: &[&'a Source]) -> Keys<'a> {
    let mut keys: Keys<'a> = HashMap::new();
    for &file in files {
        for key in &file.material.keys {
            keys.entry(key.public).or_default().push((file, key));
        }
    }
    keys
}

/// The key in the certificate's own file if there is one, else in the file of the same stem, else in any.
fn key_of<'a>(certificate: &Certificate, file: &Source, keys: &Keys<'a>) -> Option<&'a Key> {
    let candidates = keys.get(&certificate.profile.public_key)?;
    (candidates
        .iter()
        .find(|(source, _)| source.path == file.path))
    .or_else(|| candidates.iter().find(|(source, _)| source.goes_with(file)))
    .or_else(|| candidates.first())
    .map(|(_, key)| *key)
}

/// The authorities' certificates found in each directory: what chains are completed with.
struct Authorities<'a> {
    root: &'a Path,
    by_directory: HashMap<&'a Path, HashMap<Hash, Vec<&'a Certificate>>>,
}

impl<'a> Authorities<'a> {
    fn index(root: &'a Path, sources: &'a [Source]) -> Self {
        let mut by_directory: HashMap<_, HashMap<Hash, Vec<&Certificate>>> = HashMap::new();
        for source in sources {
            for authority in source
                .material
                .certificates
                .iter()
                .filter(|c| c.is_authority())
            {
                let by_subject = by_directory.entry(source.directory()).or_default();
                let same_name = by_subject.entry(authority.subject).or_default();
                // Every bundle of a folder repeats its issuer: keep each once.
                if same_name
                    .iter()
                    .all(|other| other.profile.fingerprint != authority.profile.fingerprint)
                {
                    same_name.push(authority);
                }
            }
        }
        Self { root, by_directory }
    }

    /// The leaf, then its issuers as far as they are known, without the self-signed root: peers have it or do not
    /// believe it.
    fn chain(&self, file: &Source, leaf: &Certificate) -> Vec<CertificateDer<'static>> {
        let mut chain = vec![leaf];
        while let Some(last) = chain.last().filter(|last| !last.is_self_issued())
            && chain.len() < LONGEST_CHAIN
            && let Some(issuer) = self.issuer(file, last)
            && !issuer.is_self_issued()
        {
            chain.push(issuer);
        }
        chain
            .into_iter()
            .map(|certificate| certificate.der.clone())
            .collect()
    }

    /// Looks in the leaf's own file, then in its directory, then upwards to the folder itself.
    fn issuer<'c>(
        &'c self,
        file: &'c Source,
        certificate: &Certificate,
    ) -> Option<&'c Certificate> {
        let own = file
            .material
            .certificates
            .iter()
            .map(AsRef::as_ref)
            .filter(|other| certificate.is_issued_by(other));
        newest(own).or_else(|| {
            (file.directory().ancestors())
                .take_while(|directory| directory.starts_with(self.root))
                .filter_map(|directory| self.by_directory.get(directory)?.get(&certificate.issuer))
                .find_map(|named| {
                    newest(
                        named
                            .iter()
                            .copied()
                            .filter(|other| certificate.is_issued_by(other)),
                    )
                })
        })
    }
}

/// An authority that was certified anew has the same name and key: the later certificate will serve longer.
fn newest<'c>(authorities: impl Iterator<Item = &'c Certificate>) -> Option<&'c Certificate> {
    authorities.max_by_key(|authority| authority.profile.not_after)
}
