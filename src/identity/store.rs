//! The certificates that are in use: what the folder holds now, and the last good version of what it holds no more
//! in good order.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use crate::config::Identities;
use crate::identity::generation::Generation;
use crate::identity::load::{Folder, Identity, LoadError, Problem};
use crate::identity::profile::Profile;
use crate::identity::revocation::Revocations;
use crate::identity::select::objection_to_all;

/// The folder of certificates, and the generations that came of it.
#[derive(Debug)]
pub struct Store {
    folder: Folder,
    generations: Vec<Arc<Generation>>,
}

/// What a reading of the folder has changed.
#[derive(Debug, Default)]
pub struct Change {
    /// Everything that is to be used from now on.
    pub generations: Vec<Arc<Generation>>,
    /// Of those, the ones that are new.
    pub added: Vec<Arc<Generation>>,
    /// The ones that are no longer there.
    pub removed: Vec<Arc<Generation>>,
    /// Of those to be used, the ones whose file is no longer in order: their last good version serves on.
    pub kept: Vec<Arc<Generation>>,
    /// What is wrong with files.
    pub problems: Vec<Problem>,
}

impl Change {
    /// Whether other certificates are to be used than before.
    pub fn is_one(&self) -> bool {
        !(self.added.is_empty() && self.removed.is_empty())
    }
}

impl Store {
    /// The folder that the configuration names; nothing is read yet.
    pub fn new(config: Identities) -> Self {
        Self {
            folder: Folder::new(config),
            generations: Vec::new(),
        }
    }

    /// Reads the folder. A certificate that is unchanged keeps its generation; a new one makes another. One whose file
    /// still exists and no longer gives a certificate that could be used at `now` (in seconds since 1970) is kept as
    /// it was: a half-written pair, a key that has yet to come, a renewal that has not begun. Whoever wants a
    /// certificate out of use removes its file.
    ///
    /// # Errors
    /// When the folder or passwords cannot be read. Nothing changes then.
    pub fn read(&mut self, revocations: &Revocations, now: i64) -> Result<Change, LoadError> {
        let loaded = self.folder.read()?;
        let mut change = Change {
            problems: loaded.problems,
            ..Change::default()
        };
        let mut old: HashMap<_, Vec<Arc<Generation>>> = HashMap::new();
        for generation in self.generations.drain(..) {
            let fingerprint = generation.identity().profile.fingerprint;
            old.entry(fingerprint).or_default().push(generation);
        }
        for identity in loaded.identities {
            let known = old.get_mut(&identity.profile.fingerprint);
            let position = known
                .as_ref()
                .and_then(|known| known.iter().position(|one| is_same(one, &identity)));
            let generation = match (known, position) {
                (Some(known), Some(position)) => known.swap_remove(position),
                _ => {
                    let generation = Generation::new(identity);
                    change.added.push(Arc::clone(&generation));
                    generation
                }
            };
            change.generations.push(generation);
        }
        let is_usable = |profile: &Profile| {
            profile.is_valid_at(now)
                && !revocations.is_revoked(profile)
                && objection_to_all(profile).is_none()
        };
        let replaced: HashSet<&Path> = (change.generations.iter())
            .filter(|one| is_usable(&one.identity().profile))
            .map(|one| one.identity().path.as_path())
            .collect();
        let (kept, removed): (Vec<_>, Vec<_>) = (old.into_values().flatten()).partition(|one| {
            let Identity { profile, path, .. } = one.identity();
            is_usable(profile) && !replaced.contains(path.as_path()) && path.exists()
        });
        change.generations.extend(kept.iter().cloned());
        change
            .generations
            .sort_by(|a, b| a.identity().path.cmp(&b.identity().path));
        (change.kept, change.removed) = (kept, removed);
        self.generations.clone_from(&change.generations);
        Ok(change)
    }
}

/// Whether what was read is what is in use already, chain included.
fn is_same(generation: &Generation, identity: &Identity) -> bool {
    let old = generation.identity();
    old.path == identity.path && old.key.cert == identity.key.cert
}
