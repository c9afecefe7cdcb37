//! The files of a folder that may hold certificates and keys, at any depth.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::problem::{LoadError, Problem, ProblemKind};
use super::stamp::Stamp;

/// The extensions that are read. A folder may hold notes and requests besides.
const EXTENSIONS: [&str; 7] = ["pem", "crt", "cer", "der", "key", "p12", "pfx"];

/// A directory, and its files to read.
pub(super) struct Listing {
    pub(super) directory: PathBuf,
    /// By name, each with its stamp if it can be told by that.
    pub(super) files: Vec<(PathBuf, Option<Stamp>)>,
}

/// Lists the directories by their paths, and what is wrong with those that could not be listed. Files are told by their
/// stamps if they have been at rest for a while at `now`, which must not be later than it is.
pub(super) fn walk(
    root: &Path,
    now: SystemTime,
) -> Result<(Vec<Listing>, Vec<Problem>), LoadError> {
    let mut walk = Walk {
        now,
        seen: HashSet::new(),
        listings: Vec::new(),
    };
    let mut problems = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        match walk.list(&directory) {
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
    let mut listings = walk.listings;
    listings.sort_by(|a, b| a.directory.cmp(&b.directory));
    Ok((listings, problems))
}

/// The files of all directories by their paths, and what is wrong with those that could not be listed.
pub(super) fn files(root: &Path) -> Result<(Vec<PathBuf>, Vec<Problem>), LoadError> {
    let (listings, problems) = walk(root, SystemTime::now())?;
    let files = listings.into_iter().flat_map(|listing| listing.files);
    let mut files: Vec<_> = files.map(|(path, _)| path).collect();
    files.sort();
    Ok((files, problems))
}

struct Walk {
    now: SystemTime,
    /// By device and inode: links make cycles, and a directory reached twice is read once.
    seen: HashSet<(u64, u64)>,
    listings: Vec<Listing>,
}

impl Walk {
    /// Notes the files of one directory, and returns its directories in the order in which a stack gives them back
    /// sorted.
    fn list(&mut self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let metadata = fs::metadata(directory)?;
        if !self.seen.insert((metadata.dev(), metadata.ino())) {
            return Ok(Vec::new());
        }
        let (mut files, mut directories) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            // Hidden names are editors' leavings, and the real directories behind Kubernetes' `..data` link.
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = entry.path();
            let kind = entry.file_type()?;
            if kind.is_dir() || (kind.is_symlink() && path.is_dir()) {
                directories.push((kind.is_symlink(), path));
            } else if has_wanted_extension(&path) {
                // The entry's own is found faster than by its path, but is that of a link.
                let metadata = match kind.is_symlink() {
                    true => fs::metadata(&path),
                    false => entry.metadata(),
                };
                let stamp = metadata.ok();
                let stamp = stamp.and_then(|metadata| Stamp::settled(&metadata, self.now));
                files.push((path, stamp));
            }
        }
        // They differ by their names alone, so bytes will do.
        files.sort_unstable_by(|(a, _), (b, _)| a.as_os_str().cmp(b.as_os_str()));
        self.listings.push(Listing {
            directory: directory.to_owned(),
            files,
        });
        // Links last, so that files are known by their real names where they have one.
        directories.sort_unstable();
        directories.reverse();
        Ok(directories.into_iter().map(|(_, path)| path).collect())
    }
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
