//! Time that threads have computed, as the kernel books it. Unlike the time that passes it holds nothing of what
//! clients and simulators do in the same process, or others on the same machine.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// How long threads that have nothing to do any more take to fall asleep, at most: the kernel books what they have
/// computed when they leave the processor.
const ASLEEP_AFTER: Duration = Duration::from_millis(1);

/// What this thread computes to do something so many times.
pub(crate) fn of_this_thread(times: u64, mut done: impl FnMut()) -> Duration {
    let so_far = || {
        thread::park_timeout(Duration::from_nanos(1));
        booked(Path::new("/proc/thread-self"))
    };
    let before = so_far();
    for _ in 0..times {
        done();
    }
    so_far() - before
}

/// What the workers of the gateway in this process have computed so far.
pub(crate) fn of_workers() -> Duration {
    thread::park_timeout(ASLEEP_AFTER);
    let threads = fs::read_dir("/proc/self/task").expect("Linux tells of threads");
    threads
        .filter_map(|thread| Some(thread.ok()?.path()))
        .filter(|thread| {
            let name = fs::read_to_string(thread.join("comm"));
            name.is_ok_and(|name| name.starts_with("worker-"))
        })
        .map(|thread| booked(&thread))
        .sum()
}

fn booked(thread: &Path) -> Duration {
    let stat = fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
    let nanoseconds = stat.split(' ').next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanoseconds.expect("the kernel counts what threads compute"))
}
