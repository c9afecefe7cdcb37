//! One file taken apart, with its private keys in a form that can be written down again.
//!
//! For enrolment alone: what loads a folder keeps of a key only what signs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pkcs8::LineEnding;
use pkcs8::der::SecretDocument;
use zeroize::Zeroizing;

use super::material::{Certificate, PublicKey, key};
use super::password::Passwords;
use super::problem::{LoadError, Problem, ProblemKind};
use super::{decode_all, file, pem, pkcs12, walk};
use crate::config::{Identities, KeyReaders};

/// Takes files apart, with the passwords of a configuration. Permissions are not judged: what was delivered is about
/// to be written anew.
pub(crate) struct Unpacker(Passwords);

/// What a file holds.
pub(crate) struct Unpacked {
    pub(crate) certificates: Vec<Arc<Certificate>>,
    pub(crate) keys: Vec<BareKey>,
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
        let config = Identities {
            key_readers: KeyReaders::Anyone,
            ..config.clone()
        };
        Passwords::gather(&config).map(Self)
    }

    /// Takes a file apart; all of it must be readable.
    pub(crate) fn unpack(&self, path: &Path) -> Result<Unpacked, Problem> {
        let material = file::decode(path, &self.0, KeyReaders::Anyone);
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
            let archive = pkcs12::open(path, &opened.bytes, &self.0)?;
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
        keys.ok_or_else(|| {
            problem(ProblemKind::UnsupportedEncryption(
                "only keys that are not encrypted are taken from PEM",
            ))
        })
    }

    /// The files of a folder, at any depth, that hold one private key and nothing else. A folder that does not exist
    /// has none.
    pub(crate) fn lone_keys(&self, folder: &Path) -> Result<Vec<(PublicKey, PathBuf)>, LoadError> {
        if !folder.exists() {
            return Ok(Vec::new());
        }
        let (paths, _) = walk::walk(folder)?;
        let sources = decode_all(paths, &self.0, KeyReaders::Anyone);
        let lone = sources.into_iter().filter_map(|source| {
            match (&source.material.keys[..], &source.material.certificates[..]) {
                ([key], []) => Some((key.public, source.path)),
                _ => None,
            }
        });
        Ok(lone.collect())
    }
}
