//! The private keys that wait for their certificates.

use std::path::{Path, PathBuf};

use super::{Refusal, files};
use crate::identity::load::{LoadError, LoneKeys, PublicKey, Unpacker};

/// How many files that cannot be looked into are named.
const MOST_NAMED: usize = 10;

/// The keys of a folder.
pub(super) struct Waiting {
    folder: PathBuf,
    found: LoneKeys,
}

impl Waiting {
    /// Looks through a folder. What waits is removed once it has its certificate, so nothing that is served counts,
    /// wherever it really lies.
    pub(super) fn read(
        unpacker: &Unpacker,
        folder: PathBuf,
        served: &Path,
    ) -> Result<Self, LoadError> {
        let served = Unpacker::real_files(served)?;
        let is_served =
            |file: &Path| (file.canonicalize()).is_ok_and(|real| served.contains(&real));
        let mut found = unpacker.lone_keys(&folder)?;
        found.keys.retain(|(_, file)| !is_served(file));
        found.problems.retain(|problem| !is_served(&problem.path));
        Ok(Self { folder, found })
    }

    /// The file of a certificate's key.
    pub(super) fn file_of(&self, public: PublicKey) -> Option<PathBuf> {
        let found = self.found.keys.iter().find(|(other, _)| *other == public);
        found.map(|(_, file)| file.clone())
    }

    /// Why a certificate has no key, and which files could not be looked into.
    pub(super) fn none_fits(&self) -> Vec<Refusal> {
        let none = Refusal::new(
            format!(
                "none of the {} keys in {} is its own",
                self.found.keys.len(),
                self.folder.display()
            ),
            "install it on the machine where its request was made; --pending names another folder of keys",
        );
        let closed = self.found.problems.iter().take(MOST_NAMED);
        [none]
            .into_iter()
            .chain(closed.map(Refusal::from))
            .collect()
    }

    /// Removes a key that has its certificate, and the request: the certificate says what it said, and the next one
    /// may have the same name. Tells what could not be removed.
    pub(super) fn remove(&mut self, key: &Path) -> Vec<String> {
        self.found.keys.retain(|(_, other)| other != key);
        let both = [&key.with_extension("csr"), key];
        let failed = both
            .into_iter()
            .filter_map(|file| Some((file, files::remove(file).err()?)));
        failed
            .map(|(file, error)| {
                format!(
                    "{} is no longer needed and could not be removed ({error}): remove it",
                    file.display()
                )
            })
            .collect()
    }
}
