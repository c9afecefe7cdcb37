//! What is closed although no request asks for it: what is retired, too old, or in the way of somebody else.

use std::time::Instant;

use super::Pool;

impl Pool {
    /// Hands out nothing that is open any more, and opens nothing; what is in flight finishes. Who waits here is told to
    /// choose again.
    pub fn retire(&self) {
        // What has served nobody yet never will: either this comes first, or the first request does and is seen.
        let Some(active) = self.active.get_or_init(|| None) else {
            return;
        };
        drop(active.idle.retire());
        for h2 in active.h2.retire() {
            h2.drain();
        }
        for queue in [&active.queue, &active.picky] {
            queue.freed.notify_waiters();
        }
    }

    /// Closes what has been idle or open for too long.
    pub(crate) fn reap(&self, now: Instant) {
        let Some(active) = self.used() else {
            return;
        };
        let limits = &self.service.pool;
        active.idle.retain(|idle| {
            now.saturating_duration_since(idle.since) < limits.idle_timeout
                && self.is_young(idle.h1.opened, now)
                && !idle.h1.sender.is_closed()
        });
        active.h2.retain(|h2| {
            let is_used = h2
                .idle_since()
                .is_none_or(|since| now.saturating_duration_since(since) < limits.idle_timeout);
            h2.takes_streams() && is_used && self.is_young(h2.opened, now)
        });
    }

    /// Closes an idle connection: of a worker's the one that has been so the longest. Returns whether there was one.
    pub(crate) fn evict_one(&self) -> bool {
        let Some(active) = self.used() else {
            return false;
        };
        if active.idle.evict(|_| true).is_some() {
            return true;
        }
        let h2 = active.h2.evict(|h2| h2.idle_since().is_some());
        h2.inspect(|h2| h2.drain()).is_some()
    }

    /// When the connection that has been idle the longest became so.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let active = self.used()?;
        let h1 = (active.idle).look(|idle| idle.first().map(|idle| idle.since));
        let h2 = (active.h2).look(|h2| h2.iter().filter_map(|h2| h2.idle_since()).min());
        h1.chain(h2).flatten().min()
    }
}
