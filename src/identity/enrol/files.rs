//! Files that are there whole or not at all, and that only those can read who may.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::identity::load::shell_word;

/// How the names of files begin that are being written.
const UNFINISHED: &str = ".relais-unfinished-";

/// The longest name made out of a text, in characters: file systems take 255 bytes, and more than this comes along.
const LONGEST_SLUG: usize = 100;

/// The mode of a file for its owner alone.
pub(crate) const SECRET: u32 = 0o600;

/// The mode of a file that all may read.
pub(crate) const PUBLIC: u32 = 0o644;

/// Puts a new file of this mode in place. It is written under a hidden name, which loading passes over, and gets its own when all
/// of it has reached the disk.
///
/// Fails with `AlreadyExists`, and changes nothing, when there is a file of that name.
pub(crate) fn place(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    // Made with mode 0600, and removed again should anything fail.
    let mut file = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .tempfile_in(folder)?;
    // Tells another run that this is no leaving. Where files cannot be locked there are none to be swept either.
    let _ = file.as_file().try_lock();
    file.write_all(contents)?;
    // Not left to the umask, which keeps new files to the account.
    (file.as_file()).set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path).map_err(|error| error.error)?;
    sync_folder(folder)
}

/// Removes what an interrupted run left unfinished in a folder: a private key may be in it.
pub(crate) fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_unfinished =
            (entry.file_name().as_encoded_bytes()).starts_with(UNFINISHED.as_bytes());
        let file = || OpenOptions::new().write(true).open(entry.path());
        if is_unfinished && file().is_ok_and(|file| file.try_lock().is_ok()) {
            // Whoever may not remove it could not have left it.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// What may keep the gateway from reading files that this account writes in a folder: it usually runs as the folder's
/// owner. Root can read them.
#[cfg(unix)]
pub(super) fn stranger(folder: &Path) -> Option<String> {
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(folder).ok()?);
    let own = rustix::process::geteuid().as_raw();
    (owner != own && owner != 0).then(|| {
        format!(
            "{} belongs to user {owner}, and this is written by user {own} for nobody else to read: \
             if the gateway runs as user {owner}, run: chown -R {owner} {}",
            folder.display(),
            shell_word(folder)
        )
    })
}

/// Elsewhere files get the protection of their folder.
#[cfg(not(unix))]
pub(super) fn stranger(_folder: &Path) -> Option<String> {
    None
}

/// Makes a folder that only its owner can enter, and those above it, where they are missing.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Removes a file that may be gone already.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A name is on the disk when its folder is.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

/// Elsewhere folders cannot be opened, and the file system sees to it.
#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

/// A name for files, out of any text: lower-case ASCII letters and digits, joined by single hyphens; not long.
pub(super) fn slug(text: &str) -> String {
    let mut slug = String::new();
    for character in text.chars().flat_map(char::to_lowercase) {
        let plain = match character {
            'à' | 'â' | 'ä' => 'a',
            'ç' => 'c',
            'é' | 'è' | 'ê' | 'ë' => 'e',
            'î' | 'ï' => 'i',
            'ô' | 'ö' => 'o',
            'ù' | 'û' | 'ü' => 'u',
            other => other,
        };
        if plain.is_ascii_alphanumeric() {
            slug.push(plain);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.truncate(LONGEST_SLUG);
    let slug = slug.trim_end_matches('-');
    // A name in another script leaves nothing.
    if slug.is_empty() { "certificate" } else { slug }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_becomes_a_name_for_files() {
        for (text, expected) in [
            ("INSI-AUTO", "insi-auto"),
            (
                "Proxy DMP CHU de Besançon (n° 2)",
                "proxy-dmp-chu-de-besancon-n-2",
            ),
            ("../../etc/passwd", "etc-passwd"),
            ("Ελλάδα", "certificate"),
            ("", "certificate"),
        ] {
            assert_eq!(slug(text), expected);
        }
    }

    #[test]
    fn a_long_text_becomes_a_name_that_file_systems_take() {
        assert_eq!(slug(&"é".repeat(300)), "e".repeat(100));
        assert_eq!(slug(&format!("{} x", "a".repeat(99))), "a".repeat(99));
    }

    #[test]
    fn what_is_being_written_is_not_swept_away() {
        let directory = tempfile::tempdir().unwrap();
        let left = directory.path().join(".relais-unfinished-left");
        fs::write(&left, b"a key").unwrap();
        let written = directory.path().join(".relais-unfinished-written");
        let file = fs::File::create(&written).unwrap();
        file.try_lock().unwrap();
        sweep(directory.path());
        assert!(written.exists() && !left.exists());
    }

    #[test]
    fn a_file_that_is_there_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        place(&path, b"first", SECRET).unwrap();
        let error = place(&path, b"second", PUBLIC).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        // Nor is anything left beside it.
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
