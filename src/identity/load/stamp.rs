//! Whether a file is still the one that was read.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// File systems date changes by ticks of their own, some by the second: a file that changed just now may change once
/// more without looking any different.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// What the system says of a file, links followed: a link that points elsewhere makes another file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    mode: u32,
    /// Seconds and nanoseconds. Of contents, names or permissions; unlike the time of modification, nobody sets it.
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of a file that has been at rest for a while; nothing for any other.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        Self::settled(&fs::metadata(path).ok()?, SystemTime::now())
    }

    /// The same of what the system said of a file, no earlier than `now`.
    pub(super) fn settled(metadata: &Metadata, now: SystemTime) -> Option<Self> {
        let changed = Duration::new(
            u64::try_from(metadata.ctime()).ok()?,
            u32::try_from(metadata.ctime_nsec()).ok()?,
        );
        let now = now.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        // A change in the future is one by another clock, and no less fresh.
        let is_settled = now
            .checked_sub(changed)
            .is_some_and(|ago| ago >= SETTLED_AFTER);
        is_settled.then_some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            mode: metadata.mode(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}
