//! What the configuration names on disk: looked at once, so that a typing error is found at start.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use zeroize::Zeroizing;

use super::raw::Mismatch;
use crate::files;

/// No field of a request is larger, since no head is.
const LARGEST_SECRET: u64 = 256 * 1024;

/// A folder that exists.
pub(super) fn directory(path: &Path) -> Result<(), Mismatch> {
    let expected = || Mismatch::expected("a folder that exists");
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(expected().hint(format!("{} is a file", path.display()))),
        Err(error) => Err(expected().hint(format!("{}: {error}", path.display()))),
    }
}

/// A regular file that can be opened.
pub(super) fn readable(path: &Path) -> Result<(), Mismatch> {
    content(path).map(drop)
}

/// The text of a file that holds a secret, on a line of its own.
pub(super) fn secret(path: &Path) -> Result<Zeroizing<String>, Mismatch> {
    let expected = || Mismatch::expected("a file with one line, which others cannot read");
    let failed = |error| expected().hint(format!("{}: {error}", path.display()));
    let (file, metadata) = files::open(path).map_err(failed)?;
    // A group may share a secret (containers mount them so); everybody on the machine may not.
    if metadata.permissions().mode() & 0o007 != 0 {
        return Err(expected().hint(format!("run: chmod o-rwx {}", path.display())));
    }
    let mut content = Zeroizing::new(Vec::new());
    files::read_bounded(file, &metadata, LARGEST_SECRET, &mut content).map_err(failed)?;
    let text = str::from_utf8(&content).map_err(|_| expected().hint("it is not UTF-8 text"))?;
    match text.trim() {
        "" => Err(expected().hint(format!("{} is empty", path.display()))),
        line => Ok(Zeroizing::new(line.to_owned())),
    }
}

/// A PEM file with at least one certificate, all of them well formed as PEM.
pub(super) fn certificates(path: &Path) -> Result<(), Mismatch> {
    let expected = || Mismatch::expected("a PEM file with certificates, or \"public\"");
    let content =
        content(path).map_err(|mismatch| expected().hint(mismatch.hint.unwrap_or_default()))?;
    // A DER certificate is an ASN.1 SEQUENCE; IGC-Santé publishes its own in that form.
    if content.first() == Some(&0x30) {
        let convert = format!(
            "this is DER: openssl x509 -inform der -in {0} -out {0}.pem",
            path.display()
        );
        return Err(expected().hint(convert));
    }
    match files::certificates(&content) {
        Ok(found) if !found.is_empty() => Ok(()),
        Ok(_) => Err(expected().hint(format!("{} has no certificate", path.display()))),
        Err(error) => Err(expected().hint(format!("{}: {error}", path.display()))),
    }
}

/// A file to append to, which exists or can be made.
pub(super) fn appendable(path: &Path) -> Result<(), Mismatch> {
    let expected =
        || Mismatch::expected("\"off\", \"stdout\", or the path of a file in a folder that exists");
    if path.is_dir() {
        return Err(expected().hint(format!("{} is a folder", path.display())));
    }
    match path.parent() {
        Some(folder) if folder.is_dir() => Ok(()),
        folder => {
            let folder = folder.unwrap_or(path).display();
            Err(expected().hint(format!("create {folder} first")))
        }
    }
}

/// A folder that exists or can be made.
pub(super) fn creatable(path: &Path) -> Result<(), Mismatch> {
    if path.is_dir() || !path.exists() && path.parent().is_some_and(Path::is_dir) {
        return Ok(());
    }
    let expected = Mismatch::expected("a folder, or a name for one in a folder that exists");
    Err(expected.hint(format!("create {} first", path.display())))
}

fn content(path: &Path) -> Result<Vec<u8>, Mismatch> {
    let expected = |why: String| Mismatch::expected("a file that can be read").hint(why);
    files::read(path).map_err(|error| expected(format!("{}: {error}", path.display())))
}
