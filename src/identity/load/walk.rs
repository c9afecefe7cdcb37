//! The files of a folder that may hold certificates and keys, at any depth.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::problem::{LoadError, Problem, ProblemKind};

/// The extensions that are read. A folder may hold notes and requests besides.
const EXTENSIONS: [&str; 7] = ["pem", "crt", "cer", "der", "key", "p12", "pfx"];

/// Lists the files to read, sorted, and the directories that could not be listed.
pub(super) fn walk(root: &Path) -> Result<(Vec<PathBuf>, Vec<Problem>), LoadError> {
    let mut files = Vec::new();
    let mut problems = Vec::new();
    // Real paths: links make cycles, and a directory reached twice is read once.
    let mut seen = HashSet::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        match list(&directory, &mut seen, &mut files) {
            Ok(directories) => pending.extend(directories),
            Err(source) if directory == root => {
                return Err(LoadError::Directory {
                    path: directory,
                    source,
                });
            }
            Err(error) => problems.push(Problem::new(&directory, ProblemKind::Unreadable(error))),
        }
    }
    files.sort_unstable();
    Ok((files, problems))
}

/// Adds the files of one directory, and returns its directories in the order in which a stack gives them back sorted.
fn list(
    directory: &Path,
    seen: &mut HashSet<PathBuf>,
    files: &mut Vec<PathBuf>,
) -> io::Result<Vec<PathBuf>> {
    if !seen.insert(directory.canonicalize()?) {
        return Ok(Vec::new());
    }
    let mut directories = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // Hidden names are editors' leavings, and the real directories behind Kubernetes' `..data` link.
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        let is_link = entry.file_type()?.is_symlink();
        if entry.file_type()?.is_dir() || (is_link && path.is_dir()) {
            directories.push((is_link, path));
        } else if has_wanted_extension(&path) {
            files.push(path);
        }
    }
    // Links last, so that files are known by their real names where they have one.
    directories.sort_unstable();
    directories.reverse();
    Ok(directories.into_iter().map(|(_, path)| path).collect())
}

/// Whether files of such a name are read.
pub(crate) fn has_wanted_extension(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|found| {
        EXTENSIONS
            .iter()
            .any(|known| known.eq_ignore_ascii_case(found))
    })
}
