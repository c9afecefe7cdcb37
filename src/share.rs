//! What every worker adds to for each request is kept in shares, one for each thread, so that workers never wait for a
//! line of the processor's cache that another has just written. What is to be apart is aligned to 128 bytes: processors
//! fetch lines of 64 in pairs.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Shares of one thing. Workers beyond that share with others.
pub(crate) const COUNT: usize = 32;

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static OWN: usize = THREADS.fetch_add(1, Ordering::Relaxed);
}

/// Which share is this thread's. Threads are counted round.
pub(crate) fn own() -> usize {
    OWN.with(|own| own % COUNT)
}
