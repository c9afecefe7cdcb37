//! Who may read a file that holds secrets.

use std::fs::Metadata;

use super::problem::ProblemKind;
use crate::config::KeyReaders;

/// Refuses an opened file that more people can read than `readers` allows.
#[cfg(unix)]
pub(super) fn check(metadata: &Metadata, readers: KeyReaders) -> Result<(), ProblemKind> {
    use std::os::unix::fs::PermissionsExt as _;

    let (excess, allowed) = match readers {
        KeyReaders::Owner => (0o077, 0o600),
        KeyReaders::Group => (0o007, 0o640),
        KeyReaders::Anyone => return Ok(()),
    };
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & excess == 0 {
        Ok(())
    } else {
        Err(ProblemKind::ReadableByOthers { mode, allowed })
    }
}

/// Access-control lists are beyond the standard library: elsewhere the folder's own protection has to do.
#[cfg(not(unix))]
pub(super) fn check(_metadata: &Metadata, _readers: KeyReaders) -> Result<(), ProblemKind> {
    Ok(())
}
