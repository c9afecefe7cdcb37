//! The certificates that are in use: what the folder holds now, and the last good version of what it holds no more
//! in good order.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::config::Identities;
use crate::identity::generation::{Generation, GenerationId};
use crate::identity::load::{Folder, Identity, LoadError, Problem};
use crate::identity::profile::{Fingerprint, Profile};
use crate::identity::revocation::Revocations;
use crate::identity::select::objection_to_all;

/// The folder of certificates, and the generations that came of it.
#[derive(Debug, Default)]
pub struct Store {
    folder: Folder,
    /// By the paths of their files.
    generations: Vec<Arc<Generation>>,
    /// Of those, the ones over which one of another kind was written.
    set_aside: HashSet<GenerationId>,
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
    /// Reads the folder that a configuration names, which may be another than before. A certificate that is unchanged
    /// keeps its generation; a new one makes another. One whose file still exists in the folder and no longer gives a
    /// certificate that could be used at `now` (in seconds since 1970) is kept as it was: a half-written pair, a key
    /// that has yet to come, a renewal that has not begun. Whoever wants a certificate out of use removes its file.
    ///
    /// One that has ended is kept too: to choose is for others, and a clock that was set wrongly for a while would
    /// otherwise take what cannot be read again out of use for good.
    ///
    /// # Errors
    /// When the folder or passwords cannot be read. Nothing changes then.
    pub fn read(
        &mut self,
        config: &Identities,
        revocations: &Revocations,
        now: i64,
    ) -> Result<Change, LoadError> {
        let loaded = self.folder.read(config)?;
        let mut change = Change {
            problems: loaded.problems,
            ..Change::default()
        };
        let damaged: HashSet<PathBuf> = loaded.damaged.into_iter().collect();
        let mut unchanged: FxHashMap<_, _> = (self.generations.iter())
            .map(|one| (ptr::from_ref(one.identity()), one))
            .collect();
        let identities = loaded.identities.into_iter();
        let read: Vec<_> = identities
            .map(|identity| (unchanged.remove(&Arc::as_ptr(&identity)), identity))
            .collect();
        // Few are left over: those that are not in memory as they were.
        let mut old: HashMap<_, Vec<&Arc<Generation>>> = HashMap::new();
        for generation in unchanged.into_values() {
            let fingerprint = generation.identity().profile.fingerprint;
            old.entry(fingerprint).or_default().push(generation);
        }
        for (same, identity) in read {
            let same = same.or_else(|| {
                let theirs = old.get_mut(&identity.profile.fingerprint)?;
                let position = theirs.iter().position(|one| is_same(one, &identity))?;
                Some(theirs.swap_remove(position))
            });
            if let Some(generation) = same {
                change.generations.push(Arc::clone(generation));
            } else if !(damaged.contains(&identity.path) && self.knows(&identity.path)) {
                // Of a file that is half there, nothing new is taken: its chain may be in the other half.
                let generation = Generation::new(identity);
                change.added.push(Arc::clone(&generation));
                change.generations.push(generation);
            }
        }
        let (kept, removed) = {
            let left_over = old.keys().copied().collect();
            let mut now_there = Present::of(&change, &damaged, left_over, revocations, now);
            let was_set_aside = |one: &Arc<Generation>| self.set_aside.contains(&one.id());
            let gone: Vec<_> = old.into_values().flatten().cloned().collect();
            for one in gone.iter().filter(|one| was_set_aside(one)) {
                now_there.is_put_right_by_successor_of(one);
            }
            let leaves = |one: &Arc<Generation>| {
                let is_inside = one.identity().path.starts_with(&config.directory);
                is_inside && now_there.leaves(one, was_set_aside(one), revocations)
            };
            let (kept, removed) = gone.into_iter().partition::<Vec<_>, _>(leaves);
            self.set_aside = (kept.iter())
                .filter(|one| was_set_aside(one) || now_there.is_read(one))
                .map(|one| one.id())
                .collect();
            (kept, removed)
        };
        if !kept.is_empty() {
            change.generations.extend(Vec::clone(&kept));
            (change.generations).sort_by(|a, b| a.identity().path.cmp(&b.identity().path));
        }
        (change.kept, change.removed) = (kept, removed);
        self.generations.clone_from(&change.generations);
        Ok(change)
    }

    /// Whether a certificate of this file is in use.
    fn knows(&self, path: &Path) -> bool {
        !of_file(&self.generations, path).is_empty()
    }
}

/// Those of a file, among generations by the paths of their files.
fn of_file<'a>(generations: &'a [Arc<Generation>], path: &Path) -> &'a [Arc<Generation>] {
    let from = generations.partition_point(|one| *one.identity().path < *path);
    let rest = &generations[from..];
    let to = rest.partition_point(|one| *one.identity().path == *path);
    &rest[..to]
}

/// What the folder gives now, to find what takes the place of a generation that it no longer gives.
struct Present<'a> {
    /// Of those that may be wanted.
    certificates: FxHashSet<Fingerprint>,
    /// By the paths of their files.
    generations: &'a [Arc<Generation>],
    added: HashSet<GenerationId>,
    damaged: &'a HashSet<PathBuf>,
    revocations: &'a Revocations,
    now: i64,
    /// The files in which the right certificate has taken the place of one that was set aside.
    put_right: HashSet<PathBuf>,
}

impl<'a> Present<'a> {
    fn of(
        change: &'a Change,
        damaged: &'a HashSet<PathBuf>,
        wanted: FxHashSet<Fingerprint>,
        revocations: &'a Revocations,
        now: i64,
    ) -> Self {
        let generations = &change.generations;
        let certificates = (generations.iter()).map(|one| one.identity().profile.fingerprint);
        Self {
            certificates: match wanted.is_empty() {
                true => wanted,
                false => certificates.filter(|one| wanted.contains(one)).collect(),
            },
            generations,
            added: change.added.iter().map(|one| one.id()).collect(),
            damaged,
            revocations,
            now,
            put_right: HashSet::new(),
        }
    }

    /// What a file gives that can be used, where all of it could be decoded; and whether it was not there before.
    fn of_file(&self, path: &Path) -> impl Iterator<Item = (&'a Profile, bool)> {
        let there = match self.damaged.contains(path) {
            true => &[],
            false => of_file(self.generations, path),
        };
        let there = there
            .iter()
            .map(|one| (&*one.identity().profile, self.added.contains(&one.id())));
        there.filter(|(one, _)| is_usable(one, self.revocations, self.now))
    }

    /// Whether all of a generation's file could be read, and something else is in it.
    fn is_read(&self, old: &Generation) -> bool {
        let path = &*old.identity().path;
        !self.damaged.contains(path) && !of_file(self.generations, path).is_empty()
    }

    /// Notes that a file is put right, if it holds the successor of a generation that was set aside: whatever else was in
    /// it meanwhile was there by mistake.
    fn is_put_right_by_successor_of(&mut self, old: &Generation) {
        let Identity { profile, path, .. } = old.identity();
        let is_right = (self.of_file(path)).any(|(one, _)| !is_of_other_kind(one, profile));
        if is_right {
            self.put_right.insert(path.to_path_buf());
        }
    }

    /// Whether a generation is left in use: its file is there, and nothing that came of it takes its place.
    fn leaves(&self, old: &Generation, was_set_aside: bool, revocations: &Revocations) -> bool {
        let Identity { profile, path, .. } = old.identity();
        // The same certificate in another file is no second one.
        let is_elsewhere = self.certificates.contains(&profile.fingerprint);
        // What was there beside it already says that it was taken out.
        let mut successors = (self.of_file(path))
            .filter(|(one, is_new)| !is_of_other_kind(one, profile) || !is_new && !was_set_aside);
        let is_succeeded = successors.next().is_some() || self.put_right.contains(&**path);
        let is_out = revocations.is_revoked(profile) || objection_to_all(profile).is_some();
        !is_out && !is_elsewhere && !is_succeeded && !is_gone(path)
    }
}

/// Whether a certificate can be used, and so takes the place of what was in its file before.
fn is_usable(profile: &Profile, revocations: &Revocations, now: i64) -> bool {
    profile.is_valid_at(now)
        && !revocations.is_revoked(profile)
        && objection_to_all(profile).is_none()
}

/// Whether a certificate of the same structure is for something else: the one for INSi, or one of the other environment,
/// delivered into the wrong file. Another structure's was put there on purpose.
fn is_of_other_kind(new: &Profile, old: &Profile) -> bool {
    let kind = |profile: &Profile| (profile.environment, profile.insi);
    new.structure == old.structure && kind(new) != kind(old)
}

/// What cannot be looked at is not gone.
fn is_gone(path: &Path) -> bool {
    (path.symlink_metadata()).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Whether what was read is what is in use already, chain included.
fn is_same(generation: &Generation, identity: &Identity) -> bool {
    let old = generation.identity();
    // An issuer's certificate that cannot be found any more is no reason to show less of the chain than before.
    let mut shown = old.chain.iter().map(|certificate| &certificate.der);
    let mut chain = identity.chain.iter().map(|certificate| &certificate.der);
    old.path == identity.path && chain.all(|certificate| shown.next() == Some(certificate))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::{KeyReaders, Reload};
    use crate::identity::states::now;
    use crate::simulator::pki::{Request, shared, write_private};

    #[test]
    fn a_clock_that_leaps_takes_nothing_out_of_use_that_cannot_be_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let config = Identities {
            directory: folder.path().to_owned(),
            password_file: None,
            password_env: None,
            password_credential: None,
            key_readers: KeyReaders::Owner,
            reload: Reload::Manual,
            retire_before_expiry: std::time::Duration::ZERO,
            withdrawal: crate::services::InFlight::Finish,
        };
        let path = folder.path().join("one.pem");
        let issued = shared::TEST.issue(&Request::new("10B0000009", "Un"));
        write_private(&path, issued.pem()).unwrap();
        let mut store = Store::default();
        let read = |store: &mut Store, now| {
            let change = store.read(&config, &Revocations::default(), now).unwrap();
            (change.kept.len(), change.removed.len())
        };
        assert_eq!(read(&mut store, now()), (0, 0));
        write_private(&path, "-----BEGIN CERTIFICATE-----").unwrap();
        let century = 100 * 365 * 24 * 3600;
        for at in [now(), now() + century, 0, now()] {
            assert_eq!(read(&mut store, at), (1, 0), "at {at}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(read(&mut store, now()), (0, 1));
    }
}
