//! Files that others write.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject as _};

use crate::sandbox;

/// The largest file that is read whole: no configuration and no list of authorities comes near it.
const LARGEST: u64 = 64 * 1024 * 1024;

/// Room in a buffer beyond a file's size, so that its end is found without more. Files of `/proc` have no size at all.
const SPARE: usize = 4096;

/// Opens a regular file to read, and tells what the system says of it.
///
/// It is opened once, and what is asked is asked of what was opened: whatever a name leads to a moment later is not what
/// was looked at. Links are followed, since Kubernetes mounts secrets through them.
///
/// # Errors
/// What the system says; [`io::ErrorKind::InvalidInput`] if it is no regular file.
pub(crate) fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let not_a_file = || io::Error::new(io::ErrorKind::InvalidInput, "it is not a file");
    // A pipe would otherwise wait for whoever writes to it, and nothing else be read meanwhile; a terminal would become
    // that of the process. Regular files know no waiting.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .map_err(|error| match Errno::from_io_error(&error) {
            // What opening a socket comes to.
            Some(Errno::NXIO) => not_a_file(),
            Some(Errno::ACCESS) if sandbox::is_out_of_reach(path) => io::Error::new(
                io::ErrorKind::PermissionDenied,
                "it is, or leads to, a file outside of the folders that the sandbox was set up for: a link that leads out of \
                 the folders named in the configuration cannot be followed; move the file into one of them, or restart \
                 the gateway if the configuration names its folder by now, or without the sandbox \
                 (process.sandbox, RELAIS__PROCESS__SANDBOX=false)",
            ),
            _ => error,
        })?;
    let metadata = file.metadata()?;
    match metadata.is_file() {
        true => Ok((file, metadata)),
        false => Err(not_a_file()),
    }
}

/// Reads a regular file.
///
/// # Errors
/// What the system says; that it is no regular file, or too large to be one of ours.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let (file, metadata) = open(path)?;
    let mut bytes = Vec::new();
    read_bounded(file, &metadata, LARGEST, &mut bytes)?;
    Ok(bytes)
}

/// Reads what [`open`] opened, `largest` bytes at most, into an empty buffer.
///
/// # Errors
/// What the system says; that it is larger.
pub(crate) fn read_bounded(
    file: File,
    metadata: &Metadata,
    largest: u64,
    into: &mut Vec<u8>,
) -> io::Result<()> {
    let size = metadata.len();
    if size > largest {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    // Sized at once: a buffer that grows leaves copies of secrets behind. A file that grows meanwhile is cut off, and
    // read again when it is noticed to have changed.
    let size = usize::try_from(size).map_err(|_| io::ErrorKind::FileTooLarge)?;
    into.reserve_exact(size + SPARE);
    file.take((size + SPARE) as u64).read_to_end(into)?;
    Ok(())
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    /// Kubernetes mounts secrets so; T17.
    #[test]
    fn a_file_is_read_through_links() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("..2026")).unwrap();
        fs::write(path("..2026/tls.key"), "a key").unwrap();
        symlink("..2026", path("..data")).unwrap();
        symlink("..data/tls.key", path("tls.key")).unwrap();
        assert_eq!(read(&path("tls.key")).unwrap(), b"a key");
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        mkfifoat(CWD, path("pipe"), Mode::RUSR | Mode::WUSR).unwrap();
        let _socket = UnixListener::bind(path("socket")).unwrap();
        symlink("pipe", path("link")).unwrap();
        for name in ["pipe", "socket", "link", "."] {
            let error = read(&path(name)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name}: {error}");
        }
        let error = read(Path::new("/dev/zero")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(LARGEST + 1).unwrap();
        let error = read(file.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn what_is_put_in_place_of_an_opened_file_is_not_what_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.key");
        fs::write(&path, "first").unwrap();
        let (file, metadata) = open(&path).unwrap();
        fs::rename(&path, folder.path().join("b.key")).unwrap();
        mkfifoat(CWD, &path, Mode::RUSR).unwrap();
        let mut bytes = Vec::new();
        read_bounded(file, &metadata, LARGEST, &mut bytes).unwrap();
        assert_eq!(bytes, b"first");
    }
}
