//! The files of a folder as they were read last. What has not changed since is not decoded anew.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::file::{self, Content};
use super::material::{Certificate, Material};
use super::password::Passwords;
use super::problem::{Problem, ProblemKind};
use super::stamp::Stamp;
use super::walk::Listing;
use crate::config::KeyReaders;
use crate::identity::profile::Fingerprint;

/// A directory of the folder.
pub(super) struct Directory {
    pub(super) path: PathBuf,
    /// By name.
    pub(super) files: Vec<Source>,
}

/// A file.
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) material: Material,
    /// What the system said of it just before it was read, if it can be told by that.
    stamp: Option<Stamp>,
    /// What was decoded. Nothing if not all of it could be: that is tried again each time, since a password may have
    /// come, or its owner changed.
    content: Option<Content>,
    /// Whether it may have changed since.
    is_stale: bool,
}

/// The priority (nice value) of threads that read files: with it, a thread at the usual one gets nine times as much of a
/// core that both want.
const BEHIND_REQUESTS: i32 = 10;

/// The authorities' certificates that files have in common.
pub(super) type Shared = HashMap<Fingerprint, Arc<Certificate>>;

impl Directory {
    /// What is there now, with what was known of it.
    pub(super) fn renewed(listing: Listing, known: Vec<Source>) -> Self {
        let mut known = known.into_iter().peekable();
        let renew = |(path, stamp): (PathBuf, Option<Stamp>)| {
            // Both are by name: what comes before is gone.
            while known
                .next_if(|one| one.path.as_os_str() < path.as_os_str())
                .is_some()
            {}
            let same = known.next_if(|one| one.path.as_os_str() == path.as_os_str());
            let mut source = same.unwrap_or_else(|| Source::new(path));
            source.is_stale = source.content.is_none() || stamp.is_none() || stamp != source.stamp;
            source.stamp = stamp;
            source
        };
        Self {
            files: listing.files.into_iter().map(renew).collect(),
            path: listing.directory,
        }
    }
}

impl Source {
    /// One that was not read yet.
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            material: Material::default(),
            stamp: None,
            content: None,
            is_stale: true,
        }
    }

    /// Whether part of it could not be decoded, so that what seems to lack is likely in there.
    pub(super) fn is_damaged(&self) -> bool {
        !self.material.problems.is_empty()
    }

    /// Whether it is the same file as `other`, or was named to go with it (`a.crt` and `a.key`).
    pub(super) fn goes_with(&self, other: &Self) -> bool {
        self.path.file_stem() == other.path.file_stem()
    }

    /// Reads it, and decodes it if it holds something else than before.
    fn read(&mut self, passwords: &Passwords, readers: KeyReaders) {
        let path: &Path = &self.path;
        let file = match file::read(path) {
            Ok(file) => file,
            Err(kind) => {
                self.content = None;
                self.material = Material::failed(Problem::new(path, kind));
                return;
            }
        };
        let content = file.content();
        if self.content == Some(content) {
            return;
        }
        // The decoders are others' code fed with whatever lies in a folder: should one panic, that is a problem of this
        // file and not the end of the gateway.
        let decode = AssertUnwindSafe(|| file::decode_read(path, &file, passwords, readers));
        self.material = catch_unwind(decode)
            .unwrap_or_else(|_| Material::failed(Problem::new(path, ProblemKind::Internal)));
        self.content = Some(content).filter(|_| !self.is_damaged());
    }
}

/// Lets the threads that serve requests go first, as far as the system allows it: to read all certificates again takes
/// every core for seconds. A thread cannot take this back, so it is for those that end when they have read.
fn give_way() {
    // On Linux this is of the calling thread alone.
    let _ = rustix::process::setpriority_process(None, BEHIND_REQUESTS);
}

/// Reads what may have changed, on all cores: making ready ten thousand RSA keys takes seconds on one.
pub(super) fn read<'a>(
    sources: impl Iterator<Item = &'a mut Source>,
    shared: &mut Shared,
    passwords: &Passwords,
    readers: KeyReaders,
) {
    let stale: Vec<_> = sources.filter(|source| source.is_stale).collect();
    let threads = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(stale.len());
    let (waiting, shared) = (Mutex::new(stale.into_iter()), Mutex::new(shared));
    let next = || {
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.next()
    };
    let work = || {
        while let Some(source) = next() {
            source.read(passwords, readers);
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            source.material.share_authorities(&mut shared);
        }
    };
    if threads < 2 {
        // One file is not worth a thread.
        return work();
    }
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                give_way();
                work();
            });
        }
    });
}
