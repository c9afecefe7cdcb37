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
    let (changed, mut changes) = mpsc::channel(1);
    let mut watching = Watching::begin(&watched, &changed);
    loop {
        // An error means that nothing was told for that long.
        if let Ok(Some(())) = timeout(UNASKED, changes.recv()).await {
            quiet(&mut changes).await;
        }
        // What went wrong was written down.
        let _ = app.reload().await;
        if !watching.is_of(&watched.directory) {
            watching = Watching::begin(&watched, &changed);
        }
    }
}

async fn quiet(changes: &mut mpsc::Receiver<()>) {
    let latest = Instant::now() + AT_LATEST;
    while let Ok(Some(())) = timeout_at(latest.min(Instant::now() + QUIET), changes.recv()).await {}
}

/// A watch over files, and over which folder: one that is put in the place of another has to be watched anew.
struct Watching {
    _watcher: Option<RecommendedWatcher>,
    folder: Option<(u64, u64)>,
}

impl Watching {
    fn begin(watched: &Watched, changed: &mpsc::Sender<()>) -> Self {
        let watcher = watcher(watched, changed.clone());
        if let Err(error) = &watcher {
            tracing::warn!(
                %error,
                "changes of certificates are not told by the system: they are looked for every {UNASKED:?}"
            );
        }
        Self {
            _watcher: watcher.ok(),
            folder: identity_of(&watched.directory),
        }
    }

    fn is_of(&self, directory: &Path) -> bool {
        self.folder == identity_of(directory)
    }
}

fn identity_of(directory: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(directory).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

fn watcher(watched: &Watched, changed: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if event.is_ok_and(|event| !changes_anything(event.kind)) {
            return;
        }
        // One that waits already says enough.
        let _ = changed.try_send(());
    })?;
    watcher.watch(&watched.directory, RecursiveMode::Recursive)?;
    for folder in watched.files.iter().filter_map(|file| file.parent()) {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

/// Files are opened and read by whoever reloads them, too.
fn changes_anything(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}
