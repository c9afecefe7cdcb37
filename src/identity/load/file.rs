//! One file: read whole, within bounds, then decoded by what it turns out to be.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::material::{Hash, Material, certificate, key, sha256};
use super::password::Passwords;
use super::problem::{Problem, ProblemKind};
use super::{pem, permissions, pkcs8, pkcs12};
use crate::config::KeyReaders;
use crate::files;

/// A hundred times a certificate with its chain and key.
const LARGEST: u64 = 1024 * 1024;

/// A file's bytes, wiped when dropped, and what the system said of it once open.
pub(super) struct Opened {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    metadata: Metadata,
}

/// All that decoding a file depends on, if it succeeds.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) struct Content {
    digest: Hash,
    /// Secrets that others can read, or belong to somebody else, are refused.
    mode: u32,
    owner: u32,
}

impl Opened {
    /// What it holds, to tell it from what it may hold later.
    pub(super) fn content(&self) -> Content {
        Content {
            digest: sha256(&self.bytes),
            mode: self.metadata.mode(),
            owner: self.metadata.uid(),
        }
    }

    /// Refuses the file if others can read it or it belongs to somebody else: only called once it is known to hold a secret.
    pub(super) fn check_secrecy(&self, readers: KeyReaders) -> Result<(), ProblemKind> {
        permissions::check(&self.metadata, readers)
    }
}

/// Reads a regular file whole.
pub(super) fn read(path: &Path) -> Result<Opened, ProblemKind> {
    let (file, metadata) = files::open(path).map_err(unreadable)?;
    let size = metadata.len();
    let mut bytes = Zeroizing::new(Vec::new());
    files::read_bounded(file, &metadata, LARGEST, &mut bytes).map_err(|error| {
        match error.kind() {
            io::ErrorKind::FileTooLarge => ProblemKind::TooLarge {
                size,
                limit: LARGEST,
            },
            _ => unreadable(error),
        }
    })?;
    Ok(Opened { bytes, metadata })
}

fn unreadable(error: io::Error) -> ProblemKind {
    match error.kind() {
        io::ErrorKind::InvalidInput => ProblemKind::NotAFile,
        _ => ProblemKind::Unreadable(error),
    }
}

/// Reads a file and decodes all that it holds. What cannot be decoded is a problem, and the rest still counts.
pub(super) fn decode(path: &Path, passwords: &Passwords, readers: KeyReaders) -> Material {
    match read(path) {
        Ok(file) => decode_read(path, &file, passwords, readers),
        Err(kind) => Material::failed(Problem::new(path, kind)),
    }
}

/// The same of one that was read.
pub(super) fn decode_read(
    path: &Path,
    file: &Opened,
    passwords: &Passwords,
    readers: KeyReaders,
) -> Material {
    let mut material = Material::default();
    if let Err(problem) = decode_into(&mut material, path, file, passwords, readers) {
        material.problems.push(problem);
    }
    material
}

fn decode_into(
    material: &mut Material,
    path: &Path,
    file: &Opened,
    passwords: &Passwords,
    readers: KeyReaders,
) -> Result<(), Problem> {
    let problem = |kind| Problem::new(path, kind);
    if file.bytes.trim_ascii().is_empty() {
        return Err(problem(ProblemKind::Empty));
    }
    if is_pkcs12(path) {
        file.check_secrecy(readers).map_err(problem)?;
        return pkcs12::decode(material, path, &file.bytes, passwords);
    }
    if let Some(sections) = pem::sections(&file.bytes) {
        if sections.iter().any(pem::Section::is_secret) {
            file.check_secrecy(readers).map_err(problem)?;
        }
        pem::decode(material, path, &sections, passwords);
        return Ok(());
    }
    decode_der(material, path, file, passwords, readers)
}

pub(super) fn is_pkcs12(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default();
    extension.eq_ignore_ascii_case("p12") || extension.eq_ignore_ascii_case("pfx")
}

/// DER has no label: whether it is a certificate or a key is found by trying.
fn decode_der(
    material: &mut Material,
    path: &Path,
    file: &Opened,
    passwords: &Passwords,
    readers: KeyReaders,
) -> Result<(), Problem> {
    let problem = |kind| Problem::new(path, kind);
    let bytes = &file.bytes[..];
    // All of it starts with a SEQUENCE.
    if bytes[0] != 0x30 {
        return Err(problem(ProblemKind::NotRecognised));
    }
    let error = match certificate(bytes) {
        Ok(certificate) => {
            material.certificates.push(Arc::new(certificate));
            return Ok(());
        }
        Err(error) => error,
    };
    if let Ok(der) = rustls_pki_types::PrivateKeyDer::try_from(bytes) {
        file.check_secrecy(readers).map_err(problem)?;
        material.keys.push(key(&der).map_err(problem)?);
        return Ok(());
    }
    if pkcs8::is_encrypted(bytes) {
        file.check_secrecy(readers).map_err(problem)?;
        material.keys.push(pkcs8::decrypt(path, bytes, passwords)?);
        return Ok(());
    }
    let is_key = path
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("key"));
    Err(problem(if is_key { ProblemKind::Key } else { error }))
}
