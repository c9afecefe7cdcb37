//! PKCS#12 files: AES as written today, RC2 and triple DES as older tools of the field wrote it.

use std::path::Path;
use std::sync::Arc;

use p12_keystore::Pkcs12Archive;
use p12_keystore::error::Error;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::material::{Material, certificate, key};
use super::password::Passwords;
use super::problem::{Problem, ProblemKind};

/// Opens a PKCS#12 file with the first password that does, and takes all its certificates and keys.
pub(super) fn decode(
    material: &mut Material,
    path: &Path,
    bytes: &[u8],
    passwords: &Passwords,
) -> Result<(), Problem> {
    let archive = open(path, bytes, passwords)?;
    let problem = |kind| Problem::new(path, kind);
    for bag in &archive.certs {
        match certificate(bag.cert.as_der()) {
            Ok(certificate) => material.certificates.push(Arc::new(certificate)),
            Err(kind) => material.problems.push(problem(kind)),
        }
    }
    for bag in &archive.keys {
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(bag.key.as_der()));
        material.keys.push(key(&der).map_err(problem)?);
    }
    if archive.certs.is_empty() && archive.keys.is_empty() {
        return Err(problem(ProblemKind::NotRecognised));
    }
    Ok(())
}

pub(super) fn open(
    path: &Path,
    bytes: &[u8],
    passwords: &Passwords,
) -> Result<Pkcs12Archive, Problem> {
    let own = passwords.own(path)?;
    let known = (own.iter().chain(passwords.shared())).map(|password| password.as_str());
    let mut tried = 0;
    // Last, none: some tools can only write PKCS#12, and people who want no password leave it empty.
    for password in known.chain([""]) {
        match Pkcs12Archive::from_pkcs12(bytes, password) {
            Ok(archive) => return Ok(archive),
            Err(Error::MacError(_) | Error::Pkcs5Error(_) | Error::UnpadError) => tried += 1,
            Err(error) => return Err(Problem::new(path, refusal(&error))),
        }
    }
    Err(Problem::new(
        path,
        match tried {
            1 => ProblemKind::PasswordMissing,
            _ => ProblemKind::WrongPassword { tried: tried - 1 },
        },
    ))
}

/// The library's words, where they tell nothing of the content.
fn refusal(error: &Error) -> ProblemKind {
    if let Error::InvalidParameters = error {
        // The library has bounds of its own, and looks before it begins.
        let text = "more than 1000000 rounds or 1 GiB of memory, or how much is not said";
        return ProblemKind::TooCostly(text.to_owned());
    }
    ProblemKind::Pkcs12(
        match error {
            Error::UnsupportedEncryptionScheme | Error::UnsupportedMacAlgorithm => {
                "its encryption is not supported"
            }
            Error::InvalidVersion
            | Error::UnsupportedContentType
            | Error::UnsupportedCertificateType => "it is of a kind that is not supported",
            Error::InvalidPrivateKey => "its private key is malformed",
            _ => "it is damaged, or no PKCS#12 at all",
        }
        .to_owned(),
    )
}
