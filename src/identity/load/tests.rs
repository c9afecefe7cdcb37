//! Folders, good and bad: what is loaded, and what is said of the rest.

mod again;
mod bad;
mod formats;
mod layouts;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::config::Reload;
use crate::services::InFlight;
use crate::simulator::pki::{Issued, Pki, shared, write_private};

/// A folder of its own for each test.
struct Folder {
    directory: TempDir,
    config: Identities,
}

impl Folder {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = Identities {
            directory: directory.path().to_owned(),
            password_file: None,
            password_env: None,
            password_credential: None,
            key_readers: KeyReaders::Owner,
            reload: Reload::Manual,
            retire_before_expiry: Duration::ZERO,
            withdrawal: InFlight::Finish,
        };
        Self { directory, config }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> &Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_private(&path, contents).unwrap();
        self
    }

    fn load(&self) -> Loaded {
        load(&self.config).unwrap()
    }

    /// Loads a folder with nothing wrong and one identity, that of the certificate.
    fn load_only(&self, issued: &Issued) -> Arc<Identity> {
        let mut loaded = self.load();
        assert_eq!(texts(&loaded), [] as [String; 0]);
        assert_eq!(loaded.identities.len(), 1);
        let identity = loaded.identities.remove(0);
        assert_eq!(identity.key().cert[0], issued.cert_der);
        identity.key().keys_match().unwrap();
        identity
    }

    /// The only problem of a folder.
    fn problem(&self) -> Problem {
        let mut loaded = self.load();
        assert_eq!(loaded.problems.len(), 1, "{:?}", loaded.problems);
        let problem = loaded.problems.remove(0);
        assert!(!problem.hint.is_empty());
        problem
    }
}

fn texts(loaded: &Loaded) -> Vec<String> {
    loaded.problems.iter().map(Problem::to_string).collect()
}

fn pki() -> &'static Pki {
    &shared::TEST
}

/// A certificate with the shared key of that rank.
fn issue(structure: &str, common_name: &str, key: usize) -> Issued {
    pki().issue(&shared::request(structure, common_name, key))
}

/// PEM of anything, in lines of 64 characters.
fn pem(label: &str, der: &[u8]) -> String {
    use ::pkcs8::der::pem::{LineEnding, encode_string};
    encode_string(label, LineEnding::LF, der).unwrap()
}
