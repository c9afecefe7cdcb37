//! Files that others write.

use std::fs;
use std::io;
use std::path::Path;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject as _};

/// The largest file that is read whole: no configuration and no list of authorities comes near it.
const LARGEST: u64 = 64 * 1024 * 1024;

/// Reads a regular file. Opening a pipe would wait for whoever writes to it, and nothing else would be read meanwhile.
///
/// # Errors
/// What the system says; that it is no regular file, or too large to be one of ours.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    if metadata.len() > LARGEST {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    fs::read(path)
}

/// The certificates of a PEM file: possibly none.
///
/// # Errors
/// What is wrong with the file, in words.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>();
    certificates.map_err(|error| match error {
        // The library tells the missing line by the numbers of its letters.
        pem::Error::MissingSectionEnd { .. } => {
            "it is cut off: a section has no END line".to_owned()
        }
        error => error.to_string(),
    })
}
