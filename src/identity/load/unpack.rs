//! One file taken apart, with its private keys in a form that can be written down again.
//!
//! For enrolment alone: what loads a folder keeps of a key only what signs.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pkcs8::LineEnding;
use pkcs8::der::SecretDocument;
use zeroize::Zeroizing;

use super::material::{Certificate, PublicKey, key};
use super::password::Passwords;
use super::problem::{LoadError, Problem, ProblemKind};
use super::source::{self, Shared, Source};
use super::{file, pem, pkcs12, walk};
use crate::config::{Identities, KeyReaders};

/// Takes files apart, with the passwords and the `key_readers` of a configuration.
pub(crate) struct Unpacker {
    passwords: Passwords,
    readers: KeyReaders,
}

/// What a file holds.
pub(crate) struct Unpacked {
    pub(crate) certificates: Vec<Arc<Certificate>>,
    pub(crate) keys: Vec<BareKey>,
}

/// The keys of a folder that are alone in their files.
pub(crate) struct LoneKeys {
    pub(crate) keys: Vec<(PublicKey, PathBuf)>,
    /// What could not be looked into.
    pub(crate) problems: Vec<Problem>,
}

/// A private key in DER, not encrypted; wiped when dropped.
pub(crate) struct BareKey {
    pub(crate) public: PublicKey,
    label: &'static str,
    document: SecretDocument,
}

impl BareKey {
    fn new(label: &str, document: SecretDocument) -> Option<Self> {
        let (label, der) = pem::plain_key(label, document.as_bytes())?;
        let public = key(&der).ok()?.public;
        Some(Self {
            public,
            label,
            document,
        })
    }

    /// The key in PEM.
    pub(crate) fn to_pem(&self) -> Zeroizing<String> {
        let pem = self.document.to_pem(self.label, LineEnding::LF);
        pem.expect("the document is DER and the label one of RFC 7468's")
    }
}

impl Unpacker {
    /// # Errors
    /// When a configured source of passwords cannot be read.
    pub(crate) fn new(config: &Identities) -> Result<Self, LoadError> {
        Ok(Self {
            passwords: Passwords::gather(config)?,
            readers: config.key_readers,
        })
    }

    /// Takes a file apart; all of it must be readable. A PKCS#12 file may be so for everybody: browsers save it like
    /// that, and it is about to be written anew.
    pub(crate) fn unpack(&self, path: &Path) -> Result<Unpacked, Problem> {
        let readers = match file::is_pkcs12(path) {
            true => KeyReaders::Anyone,
            false => self.readers,
        };
        let material = file::decode(path, &self.passwords, readers);
        if let Some(problem) = material.problems.into_iter().next() {
            return Err(problem);
        }
        let keys = match material.keys.len() {
            0 => Vec::new(),
            _ => self.bare_keys(path)?,
        };
        Ok(Unpacked {
            certificates: material.certificates,
            keys,
        })
    }

    fn bare_keys(&self, path: &Path) -> Result<Vec<BareKey>, Problem> {
        let problem = |kind| Problem::new(path, kind);
        let opened = file::read(path).map_err(problem)?;
        let keys: Option<Vec<_>> = if file::is_pkcs12(path) {
            let archive = pkcs12::open(path, &opened.bytes, &self.passwords)?;
            (archive.keys.iter())
                .map(|bag| SecretDocument::try_from(bag.key.as_der()).ok())
                .map(|document| BareKey::new("PRIVATE KEY", document?))
                .collect()
        } else {
            let sections = pem::sections(&opened.bytes).unwrap_or_default();
            (sections.iter().filter(|section| section.is_secret()))
                .map(|section| BareKey::new(section.label, section.der().ok()?))
                .collect()
        };
        let keys = keys.filter(|keys| !keys.is_empty());
        keys.ok_or_else(|| problem(ProblemKind::NotPlain))
    }

    /// The files of a folder, at any depth, that hold one private key and nothing else. A folder that does not exist
    /// has none.
    pub(crate) fn lone_keys(&self, folder: &Path) -> Result<LoneKeys, LoadError> {
        let (mut keys, mut problems) = (Vec::new(), Vec::new());
        if !folder.exists() {
            return Ok(LoneKeys { keys, problems });
        }
        let (paths, unlisted) = walk::files(folder)?;
        problems.extend(unlisted);
        let mut sources: Vec<_> = paths.into_iter().map(Source::new).collect();
        let shared = &mut Shared::new();
        source::read(sources.iter_mut(), shared, &self.passwords, self.readers);
        for source in sources {
            let material = source.material;
            problems.extend(material.problems);
            match (&material.keys[..], &material.certificates[..]) {
                ([key], []) => keys.push((key.public, source.path)),
                ([_, _, ..], []) => problems.push(Problem::new(
                    &source.path,
                    ProblemKind::SeveralKeys(material.keys.len()),
                )),
                _ => {}
            }
        }
        Ok(LoneKeys { keys, problems })
    }

    /// Where the files that are loaded from a folder really are.
    pub(crate) fn real_files(folder: &Path) -> Result<HashSet<PathBuf>, LoadError> {
        let (paths, _) = walk::files(folder)?;
        Ok(paths
            .iter()
            .filter_map(|path| path.canonicalize().ok())
            .collect())
    }

    /// The content of a file that only its owner may read; nothing if there is none.
    pub(crate) fn secret(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, Problem> {
        let read = file::read(path).and_then(|opened| {
            opened.check_secrecy(KeyReaders::Owner)?;
            Ok(opened.bytes)
        });
        match read {
            Ok(bytes) => Ok(Some(bytes)),
            Err(ProblemKind::Unreadable(error)) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(kind) => Err(Problem::new(path, kind)),
        }
    }
}
