//! What is closed although no request asks for it: what is retired, too old, or in the way of somebody else.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Pool, lock};

impl Pool {
    /// Hands out nothing that is open any more, and opens nothing; what is in flight finishes. Who waits here is told to
    /// choose again.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        let Some(active) = self.active.get() else {
            return;
        };
        for shard in &active.idle {
            lock(shard).clear();
        }
        for h2 in lock(&active.h2).drain(..) {
            h2.drain();
        }
        for queue in [&active.queue, &active.picky] {
            queue.freed.notify_waiters();
        }
    }

    /// Closes what has been idle or open for too long.
    pub(crate) fn reap(&self, now: Instant) {
        let Some(active) = self.active.get() else {
            return;
        };
        let limits = &self.service.pool;
        for shard in &active.idle {
            lock(shard).retain(|idle| {
                now.saturating_duration_since(idle.since) < limits.idle_timeout
                    && self.is_young(idle.h1.opened, now)
                    && !idle.h1.sender.is_closed()
            });
        }
        lock(&active.h2).retain(|h2| {
            let is_used = h2
                .idle_since()
                .is_none_or(|since| now.saturating_duration_since(since) < limits.idle_timeout);
            h2.takes_streams() && is_used && self.is_young(h2.opened, now)
        });
    }

    /// Closes an idle connection: of a worker's the one that has been so the longest. Returns whether there was one.
    pub(crate) fn evict_one(&self) -> bool {
        let Some(active) = self.active.get() else {
            return false;
        };
        for shard in &active.idle {
            let mut shard = lock(shard);
            if !shard.is_empty() {
                shard.remove(0);
                return true;
            }
        }
        let mut h2 = lock(&active.h2);
        match h2.iter().position(|h2| h2.idle_since().is_some()) {
            Some(position) => {
                h2.swap_remove(position).drain();
                true
            }
            None => false,
        }
    }

    /// When the connection that has been idle the longest became so.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let active = self.active.get()?;
        let h1 = active
            .idle
            .iter()
            .filter_map(|shard| lock(shard).first().map(|idle| idle.since))
            .min();
        let h2 = lock(&active.h2)
            .iter()
            .filter_map(|h2| h2.idle_since())
            .min();
        h1.into_iter().chain(h2).min()
    }
}
