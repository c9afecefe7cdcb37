//! Files that are there whole or not at all, and that only their owner can read.

use std::fs::{self, DirBuilder};
use std::io::{self, Write as _};
use std::path::Path;

/// Puts a new file in place. It is written under a hidden name, which loading passes over, and gets its own when all
/// of it has reached the disk.
///
/// Fails with `AlreadyExists`, and changes nothing, when there is a file of that name.
pub(super) fn place(path: &Path, contents: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    // Made with mode 0600, and removed again should anything fail.
    let mut file = tempfile::Builder::new()
        .prefix(".relais-")
        .tempfile_in(folder)?;
    file.write_all(contents)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path).map_err(|error| error.error)?;
    sync_folder(folder)
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
pub(super) fn remove(path: &Path) -> io::Result<()> {
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

/// A name for files, out of any text: lower-case ASCII letters and digits, joined by single hyphens.
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
    fn a_file_that_is_there_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        place(&path, b"first").unwrap();
        let error = place(&path, b"second").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        // Nor is anything left beside it.
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
