//! Has the kernel keep the process to the files that its configuration needs (Landlock, Linux 5.13): an option, on in
//! the systemd unit.
//!
//! What is given is folders, because what is rotated or renewed is another file under the same name. It holds for this
//! thread and those that it starts, so it is begun before any is.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context as _, ensure};
use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetStatus, make_bitflags, path_beneath_rules,
};

use crate::config::{AccessLog, Config, ListenAddress};

/// What there was to be kept from when this was written: files and folders, not network or signals. A kernel that knows
/// less keeps the process from less.
const KNOWN: ABI = ABI::V5;

/// What the system's libraries read to find names, addresses and accounts, and themselves when they are needed.
const SYSTEM: [&str; 6] = [
    "/etc",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/run/systemd/resolve",
];

/// How much of a processor the process may use is written here; the standard library reads it.
const OWN: [&str; 2] = ["/proc/self", "/sys/fs/cgroup"];

/// A log is appended to, and made anew when it was rotated; its last byte is looked at.
const LOG: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | WriteFile | MakeReg});

/// A socket is made, and removed at the end.
const SOCKET: BitFlags<AccessFs> = make_bitflags!(AccessFs::{MakeSock | RemoveFile});

/// Lists are written under a name of their own and then renamed.
const CACHE: BitFlags<AccessFs> =
    make_bitflags!(AccessFs::{ReadFile | ReadDir | WriteFile | Truncate | MakeReg | RemoveFile});

/// What the kernel keeps this process to. There is one for all of it.
static ENTERED: OnceLock<Sandbox> = OnceLock::new();

#[derive(Debug)]
struct Sandbox {
    state: State,
    /// The folders that can be read, as they are named and as they are.
    readable: BTreeSet<PathBuf>,
    /// The folder of fetched revocation lists.
    cache: Option<PathBuf>,
}

/// How far the kernel does what it was asked to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum State {
    /// All of it.
    Enforced,
    /// All that this kernel knows.
    Partly,
    /// Nothing: it has no Landlock, or was started without.
    NotEnforced,
}

impl State {
    /// The word that status and log use.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Enforced => "enforced",
            Self::Partly => "partly enforced",
            Self::NotEnforced => "not enforced",
        }
    }
}

/// Keeps this thread, and all that it starts, to what the configuration needs. To be called once, before others are
/// started.
///
/// # Errors
/// When the kernel could and does not, or a folder to write to cannot be made or is `/`.
pub(crate) fn enter(config: &Config) -> anyhow::Result<State> {
    if let Some(cache) = &config.revocation.cache {
        // A folder can be given only once it is there.
        fs::create_dir_all(cache).context("the folder for revocation lists (revocation.cache)")?;
    }
    let (log, sockets) = (log(config), sockets(config));
    let mut writable = log.iter().chain(&sockets).chain(&config.revocation.cache);
    ensure!(
        !writable.any(|folder| folder.parent().is_none()),
        "the access log, Unix sockets and revocation.cache cannot lie in / itself with process.sandbox: \
         all files could be written to"
    );
    let readable = readable(config);
    let system = SYSTEM.iter().chain(&OWN).map(PathBuf::from);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))?
        .create()?
        .add_rules(path_beneath_rules(
            readable.iter().cloned().chain(system),
            read,
        ))?
        .add_rules(path_beneath_rules(log, LOG))?
        .add_rules(path_beneath_rules(sockets, SOCKET))?
        .add_rules(path_beneath_rules(&config.revocation.cache, CACHE))?
        .restrict_self()
        .context("the sandbox cannot be entered (process.sandbox)")?;
    let state = match status.ruleset {
        RulesetStatus::FullyEnforced => State::Enforced,
        RulesetStatus::PartiallyEnforced => State::Partly,
        RulesetStatus::NotEnforced => State::NotEnforced,
    };
    let entered = ENTERED.set(Sandbox {
        state,
        readable,
        cache: config.revocation.cache.clone(),
    });
    debug_assert!(entered.is_ok(), "a process has one sandbox");
    Ok(state)
}

/// How far it is enforced, where one was asked for.
pub(crate) fn state() -> Option<State> {
    Some(ENTERED.get()?.state)
}

/// A folder that a configuration needs and that cannot be used before a restart.
pub(crate) fn out_of_reach(config: &Config) -> Option<PathBuf> {
    let entered = ENTERED
        .get()
        .filter(|one| one.state != State::NotEnforced)?;
    let cache = config.revocation.cache.as_ref();
    let other_cache = cache.filter(|_| cache != entered.cache.as_ref()).cloned();
    let folders = readable(config).into_iter();
    let real = |folder: &Path| fs::canonicalize(folder).is_ok_and(|real| entered.covers(&real));
    let mut unreadable = folders.filter(|folder| !entered.covers(folder) && !real(folder));
    other_cache.or_else(|| unreadable.next())
}

/// Whether the sandbox is why a file or folder cannot be read: where it is, and not where a link to it is, counts.
pub(crate) fn is_out_of_reach(path: &Path) -> bool {
    let Some(entered) = ENTERED.get() else {
        return false;
    };
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    entered.state != State::NotEnforced && !entered.covers(&real)
}

impl Sandbox {
    fn covers(&self, path: &Path) -> bool {
        let system = SYSTEM.iter().chain(&OWN).map(Path::new);
        let mut folders = self.readable.iter().map(PathBuf::as_path).chain(system);
        folders.any(|folder| path.starts_with(folder))
    }
}

/// The folders in which files are that are read: by their names, and where links lead now.
fn readable(config: &Config) -> BTreeSet<PathBuf> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let resolver = PathBuf::from("/etc/resolv.conf");
    let named = (config.reads.iter().cloned()).chain([config.file.clone(), resolver]);
    let real = |path: &PathBuf| fs::canonicalize(path).ok();
    let named: Vec<_> = named.chain(credentials).collect();
    (named.iter().cloned())
        .chain(named.iter().filter_map(real))
        .map(folder_of)
        .collect()
}

/// The folder itself, or that of a file: what will take the file's place is there. A file in `/` is given itself, because
/// its folder is all there is; what takes its place is read after a restart.
fn folder_of(path: PathBuf) -> PathBuf {
    match path.parent() {
        Some(folder) if !path.is_dir() && folder.parent().is_some() => folder.to_owned(),
        _ => path,
    }
}

fn log(config: &Config) -> Vec<PathBuf> {
    let AccessLog::File(path) = &config.log.access else {
        return Vec::new();
    };
    let real = fs::canonicalize(path).ok();
    let both = real.iter().chain([path]);
    both.filter_map(|path| path.parent())
        .map(Path::to_owned)
        .collect()
}

fn sockets(config: &Config) -> Vec<PathBuf> {
    let paths = config
        .listeners
        .iter()
        .filter_map(|one| match &one.address {
            ListenAddress::Unix(path) => path.parent(),
            ListenAddress::Tcp(_) => None,
        });
    paths.map(Path::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_its_folder_away_unless_that_is_everything() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key.pem");
        assert_eq!(folder_of(file), folder.path());
        let own = folder.path().to_owned();
        assert_eq!(folder_of(own.clone()), own);
        let in_root = PathBuf::from("/key.pem");
        assert_eq!(folder_of(in_root.clone()), in_root);
        let one_below = folder_of(PathBuf::from("/certs/key.pem"));
        assert_eq!(one_below, Path::new("/certs"));
    }
}
