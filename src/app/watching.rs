//! Notices that files have changed, so that nobody has to say so.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::App;
use crate::identity::load;

/// How long nothing may change before files are read: a deployment writes several, one after the other.
const QUIET: Duration = Duration::from_millis(100);

/// How long is waited for quiet at most: where something writes without end, certificates are taken up all the same.
const AT_LATEST: Duration = Duration::from_secs(1);

/// How often files are looked at unasked. Network file systems tell nothing, and what the kernel tells can be lost.
/// Looking at ten thousand files takes some twenty milliseconds.
const UNASKED: Duration = Duration::from_secs(30);

/// What is watched.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    /// The folder of certificates, at any depth.
    pub(super) directory: PathBuf,
    /// Single files. What is watched is their folder, where an editor puts a new file in the place of the old.
    pub(super) files: Vec<PathBuf>,
}

/// Reloads whenever what is watched has changed, for as long as it is polled.
pub(super) async fn follow(app: Arc<App>, watched: Watched) {
    let watched = Arc::new(watched);
    let (changed, mut changes) = mpsc::channel(1);
    loop {
        let Some(watching) = Watching::begin(&watched, &changed).await else {
            return;
        };
        // What has changed before it was watched.
        app.look().await;
        while watching.is_in_order(&watched).await {
            // An error means that nothing was told for that long.
            if let Ok(Some(())) = timeout(UNASKED, changes.recv()).await {
                quiet(&mut changes).await;
            }
            app.look().await;
        }
    }
}

async fn quiet(changes: &mut mpsc::Receiver<()>) {
    let latest = Instant::now() + AT_LATEST;
    while let Ok(Some(())) = timeout_at(latest.min(Instant::now() + QUIET), changes.recv()).await {}
}

/// A watch over files, and over which folder: one that is put in the place of another has to be watched anew.
struct Watching {
    watcher: Option<RecommendedWatcher>,
    folder: Option<(u64, u64)>,
    since: Instant,
}

impl Watching {
    /// Begins to watch; nothing if the runtime ends. Elsewhere, because a large folder takes a while, and a network
    /// file system may take for ever.
    async fn begin(watched: &Arc<Watched>, changed: &mpsc::Sender<()>) -> Option<Self> {
        let (watched, changed) = (Arc::clone(watched), changed.clone());
        let begin = move || {
            let folder = identity_of(&watched.directory);
            let watcher = watcher(&watched, changed);
            if let Err(error) = &watcher {
                tracing::debug!(%error, "changes of certificates are not told by the system");
            }
            Self {
                watcher: watcher.ok(),
                folder,
                since: Instant::now(),
            }
        };
        tokio::task::spawn_blocking(begin).await.ok()
    }

    /// Whether it still watches what it should. One that could not begin is tried again after a while.
    async fn is_in_order(&self, watched: &Arc<Watched>) -> bool {
        if self.watcher.is_none() {
            return self.since.elapsed() < UNASKED;
        }
        let watched = Arc::clone(watched);
        let found = tokio::task::spawn_blocking(move || identity_of(&watched.directory)).await;
        found.is_ok_and(|found| found == self.folder)
    }
}

fn identity_of(directory: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(directory).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

fn watcher(
    watched: &Arc<Watched>,
    changed: mpsc::Sender<()>,
) -> notify::Result<RecommendedWatcher> {
    let told_of = Arc::clone(watched);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if event.is_ok_and(|event| !told_of.is_concerned(&event)) {
            return;
        }
        // One that waits already says enough.
        let _ = changed.try_send(());
    })?;
    watcher.watch(&watched.directory, RecursiveMode::Recursive)?;
    let folders = watched.files.iter().filter_map(|file| file.parent());
    // To watch the folder of certificates twice would be to watch it less deeply.
    for folder in folders.filter(|folder| *folder != watched.directory) {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

impl Watched {
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
        if name.starts_with(b"..") || self.files.iter().any(|file| file == path) {
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
