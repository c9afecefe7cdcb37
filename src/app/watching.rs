//! Notices that files have changed, so that nobody has to say so.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::App;
use crate::config::{Config, Reload};
use crate::identity::load;

/// How long nothing may change before files are read: a deployment writes several, one after the other.
const QUIET: Duration = Duration::from_millis(100);

/// How long is waited for quiet at most: where something writes without end, certificates are taken up all the same.
const AT_LATEST: Duration = Duration::from_secs(1);

/// How often files are looked at unasked. Network file systems tell nothing, and what the kernel tells can be lost.
/// Looking at ten thousand files takes some forty milliseconds.
const UNASKED: Duration = Duration::from_secs(30);

/// What is watched.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Watched {
    /// The folder of certificates, at any depth.
    directory: PathBuf,
    /// Single files. What is watched is their folder, where an editor puts a new file in the place of the old.
    files: BTreeSet<PathBuf>,
}

/// Reloads whenever what is to be watched has changed, for as long as it is polled.
pub(super) async fn follow(app: Arc<App>, mut wanted: watch::Receiver<Option<Watched>>) {
    let (changed, mut changes) = mpsc::channel(1);
    loop {
        let watched = wanted.borrow_and_update().clone();
        let Some(watched) = watched.map(Arc::new) else {
            match wanted.changed().await {
                Ok(()) => continue,
                Err(_) => return,
            }
        };
        let Some(watching) = Watching::begin(&watched, &changed).await else {
            return;
        };
        // What has changed before it was watched.
        app.look().await;
        while watching.is_in_order().await && !wanted.has_changed().unwrap_or(true) {
            tokio::select! {
                told = timeout(UNASKED, changes.recv()) => {
                    // An error means that nothing was told for that long.
                    if let Ok(Some(())) = told {
                        quiet(&mut changes).await;
                    }
                    app.look().await;
                }
                // Something else is to be watched.
                _ = wanted.changed() => break,
            }
        }
    }
}

async fn quiet(changes: &mut mpsc::Receiver<()>) {
    let latest = Instant::now() + AT_LATEST;
    while let Ok(Some(())) = timeout_at(latest.min(Instant::now() + QUIET), changes.recv()).await {}
}

/// A watch over files, and over which folders: one that is put in the place of another has to be watched anew.
struct Watching {
    /// Held for as long as it is to watch.
    _watcher: Option<RecommendedWatcher>,
    /// Whether all of the folder of certificates is watched.
    is_whole: bool,
    folders: Arc<Vec<PathBuf>>,
    /// What the folders were when it began.
    found: Vec<Option<Folder>>,
    /// One of them has come, gone or been renamed. File systems give the number of one that is gone to the next.
    is_outdated: Arc<AtomicBool>,
    since: Instant,
}

/// Tells a folder from one in its place, links followed: device and number (inode).
type Folder = (u64, u64);

fn folder_at(path: &PathBuf) -> Option<Folder> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

impl Watching {
    /// Begins to watch; nothing if the runtime ends. Elsewhere, because a large folder takes a while, and a network
    /// file system may take for ever.
    async fn begin(watched: &Arc<Watched>, changed: &mpsc::Sender<()>) -> Option<Self> {
        let (watched, changed) = (Arc::clone(watched), changed.clone());
        let begin = move || {
            let folders = Arc::new(watched.folders());
            let found = folders.iter().map(folder_at).collect();
            let is_outdated = Arc::new(AtomicBool::new(false));
            let ear = Ear {
                watched: Arc::clone(&watched),
                folders: Arc::clone(&folders),
                is_outdated: Arc::clone(&is_outdated),
                changed,
            };
            let watcher = watcher(&watched, &folders, ear);
            if let Err(error) = &watcher {
                tracing::debug!(%error, "changes of files are not told by the system");
            }
            let (watcher, is_whole) = watcher.ok().unzip();
            Self {
                _watcher: watcher,
                is_whole: is_whole.unwrap_or(false),
                folders,
                found,
                is_outdated,
                since: Instant::now(),
            }
        };
        match tokio::task::spawn_blocking(begin).await {
            Ok(begun) => Some(begun),
            // Where the system gives no thread the library panics. Files are looked at now and then all the same.
            Err(error) if error.is_panic() => Some(Self {
                _watcher: None,
                is_whole: false,
                folders: Arc::default(),
                found: Vec::new(),
                is_outdated: Arc::default(),
                since: Instant::now(),
            }),
            Err(_) => None,
        }
    }

    /// Whether it still watches what it should. One that could not begin is tried again after a while.
    async fn is_in_order(&self) -> bool {
        if !self.is_whole && self.since.elapsed() >= UNASKED {
            return false;
        }
        if self.is_outdated.load(Ordering::Acquire) {
            return false;
        }
        let folders = Arc::clone(&self.folders);
        let found = move || folders.iter().map(folder_at).collect::<Vec<_>>();
        let found = tokio::task::spawn_blocking(found).await;
        found.is_ok_and(|found| found == self.found)
    }
}

/// What hears of changes.
struct Ear {
    watched: Arc<Watched>,
    folders: Arc<Vec<PathBuf>>,
    is_outdated: Arc<AtomicBool>,
    changed: mpsc::Sender<()>,
}

impl Ear {
    fn hear(&self, event: notify::Result<Event>) {
        if let Ok(event) = &event {
            let moves = matches!(
                event.kind,
                EventKind::Create(_)
                    | EventKind::Remove(_)
                    | EventKind::Modify(ModifyKind::Name(_))
            );
            let is_folder = |path: &PathBuf| self.folders.contains(path);
            if moves && event.paths.iter().any(is_folder) {
                self.is_outdated.store(true, Ordering::Release);
            } else if !self.watched.is_concerned(event) {
                return;
            }
        }
        // One that waits already says enough.
        let _ = self.changed.try_send(());
    }
}

/// A watcher, and whether it watches the whole folder of certificates.
fn watcher(
    watched: &Watched,
    folders: &[PathBuf],
    ear: Ear,
) -> notify::Result<(RecommendedWatcher, bool)> {
    let mut watcher = notify::recommended_watcher(move |event| ear.hear(event))?;
    // Where the folder of certificates, which may be a link, is put in the place of another.
    let above = watched.directory.parent();
    let others = folders.iter().map(PathBuf::as_path).chain(above);
    // To watch the folder of certificates twice would be to watch it less deeply.
    let others: BTreeSet<_> = others
        .filter(|one| !one.starts_with(&watched.directory))
        .collect();
    for folder in others {
        // Where the system tells nothing of one, it is looked at all the same, only later.
        if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
            tracing::debug!(folder = %folder.display(), %error, "changes in a folder are not told by the system");
        }
    }
    // Last: if it is gone for a moment, whoever watches the folder above is told of the next.
    let whole = watcher.watch(&watched.directory, RecursiveMode::Recursive);
    if let Err(error) = &whole {
        tracing::debug!(%error, "changes in the folder of certificates are not told by the system");
    }
    Ok((watcher, whole.is_ok()))
}

impl Watched {
    /// What a configuration wants to be watched: nothing, if it is read again only when asked.
    pub(super) fn of(config: &Config) -> Option<Self> {
        (config.identities.reload == Reload::Auto).then(|| Self {
            directory: plain(&config.identities.directory),
            files: config.files().iter().map(|file| plain(file)).collect(),
        })
    }

    /// The folders that all of it is in.
    fn folders(&self) -> Vec<PathBuf> {
        let folders = self.files.iter().filter_map(|file| file.parent());
        let folders: BTreeSet<_> = folders.chain([self.directory.as_path()]).collect();
        folders.into_iter().map(Path::to_owned).collect()
    }

    /// Whether an event may have changed what is loaded. Files are opened and read by whoever reloads them, too; and a
    /// log that lies beside them must not have them read for each of its lines.
    fn is_concerned(&self, event: &Event) -> bool {
        let is_change = match event.kind {
            EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
            _ => true,
        };
        // Without a path the system says that it has lost count.
        is_change && (event.paths.is_empty() || event.paths.iter().any(|path| self.is_ours(path)))
    }

    fn is_ours(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        // Kubernetes swaps a link of such a name for all files of a folder at once.
        if name.starts_with(b"..") || self.files.contains(path) {
            return true;
        }
        // What has no extension may be a folder, which comes and goes with all that is in it.
        let is_read = match path.extension() {
            None => true,
            Some(extension) => extension == "password" || load::is_read(path),
        };
        path.starts_with(&self.directory) && is_read
    }
}

/// A path as the system names it when it tells of a change: one way to a folder is one watch, and `trust/../relais.toml`
/// would never be told of. Links are left as they are, since they may come to point elsewhere.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            // What is above a link is not where it points to; then the name stays as it is.
            Component::ParentDir if !plain.is_symlink() && plain.pop() => {}
            part => plain.push(part),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, RemoveKind};

    use super::*;

    #[test]
    fn a_folder_that_is_removed_or_made_anew_has_to_be_watched_anew_whatever_its_number() {
        let folder = PathBuf::from("/srv/certs");
        let watched = Watched {
            directory: folder,
            files: BTreeSet::new(),
        };
        let (changed, mut changes) = mpsc::channel(1);
        let ear = Ear {
            folders: Arc::new(watched.folders()),
            watched: Arc::new(watched),
            is_outdated: Arc::default(),
            changed,
        };
        let mut hears = |kind, path: &str| {
            ear.is_outdated.store(false, Ordering::Release);
            ear.hear(Ok(Event::new(kind).add_path(path.into())));
            let is_outdated = ear.is_outdated.load(Ordering::Acquire);
            (changes.try_recv().is_ok(), is_outdated)
        };
        let removed = EventKind::Remove(RemoveKind::Any);
        let made = EventKind::Create(CreateKind::Any);
        assert_eq!(hears(removed, "/srv/certs"), (true, true));
        assert_eq!(hears(made, "/srv/certs"), (true, true));
        assert_eq!(hears(made, "/srv/certs/one.pem"), (true, false));
        assert_eq!(hears(made, "/srv/access.log"), (false, false));
    }

    #[test]
    fn a_file_is_known_by_the_name_under_which_the_system_tells_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        fs::create_dir(real.join("a")).unwrap();
        std::os::unix::fs::symlink("a", real.join("link")).unwrap();
        assert_eq!(plain(&real.join("a/../b/./c.pem")), real.join("b/c.pem"));
        let through = real.join("link/../c.pem");
        assert_eq!(
            plain(&through),
            through,
            "what is above a link is elsewhere"
        );
    }

    #[test]
    fn the_same_configuration_is_watched_in_the_same_way() {
        let path = Path::new("tests/config/valid/full.toml");
        let text = fs::read_to_string(path).unwrap();
        let watched = || Watched::of(&Config::from_toml(&text, path, []).unwrap().config);
        let first = watched().unwrap();
        assert!(first.files.len() >= 4, "{first:?}");
        // Sets of files have no order of their own.
        assert!((0..20).all(|_| watched().as_ref() == Some(&first)));
    }
}
