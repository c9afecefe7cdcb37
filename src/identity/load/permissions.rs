//! Who may read a file that holds secrets, and whose it may be.

use std::fs::Metadata;

use super::problem::ProblemKind;
use crate::config::KeyReaders;

/// Refuses an opened file that more people can read than `readers` allows. Where that is its owner alone, it is also
/// refused if it belongs to another account, which could give anybody the right to read it, and put another key into it.
/// Who has others read it has said that they are trusted: an account that deploys keys, or a container's, which the
/// system shows as nobody's (user namespaces).
#[cfg(unix)]
pub(super) fn check(metadata: &Metadata, readers: KeyReaders) -> Result<(), ProblemKind> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    let (excess, allowed) = match readers {
        KeyReaders::Owner => (0o077, 0o600),
        KeyReaders::Group => (0o007, 0o640),
        KeyReaders::Anyone => return Ok(()),
    };
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & excess != 0 {
        return Err(ProblemKind::ReadableByOthers { mode, allowed });
    }
    if readers != KeyReaders::Owner {
        return Ok(());
    }
    let (owner, own) = (metadata.uid(), rustix::process::geteuid().as_raw());
    match is_trusted(owner, own) {
        true => Ok(()),
        false => Err(ProblemKind::OfAnotherAccount { owner, own }),
    }
}

/// Whether a file of `owner` is to be believed by `own`. Root reads everybody's, as when `relais check` is run as root
/// over the keys of the gateway's account.
fn is_trusted(owner: u32, own: u32) -> bool {
    owner == 0 || owner == own || own == 0
}

/// Access-control lists are beyond the standard library: elsewhere the folder's own protection has to do.
#[cfg(not(unix))]
pub(super) fn check(_metadata: &Metadata, _readers: KeyReaders) -> Result<(), ProblemKind> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_the_own_account_may_own_a_key() {
        for (owner, own, trusted) in [
            (0, 0, true),
            (0, 1000, true),
            (1000, 1000, true),
            (1001, 1000, false),
            (1001, 0, true),
        ] {
            assert_eq!(is_trusted(owner, own), trusted, "{owner} for {own}");
        }
    }
}
