//! What is closed although no request asks for it: what is retired, too old, or in the way of somebody else.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{InFlight, Pool, lock};
use crate::outbound::connection;

impl Pool {
    /// Hands out nothing that is open any more, and opens nothing. Who waits here is told to choose again; what is in
    /// flight finishes or is cut off. What stood in for the pool goes with it.
    pub fn retire(&self, in_flight: InFlight) {
        self.retired.store(true, Ordering::Release);
        self.settle(in_flight);
        let within = match in_flight {
            InFlight::Finish => self.service.pool.drain,
            InFlight::Cut => Duration::ZERO,
        };
        let over = self
            .over
            .get_or_init(|| (Instant::now() + within, in_flight));
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
        if over.0 <= Instant::now() {
            active.cut.send_replace(true);
        }
    }

    /// How the pool's requests were cut off, if they were.
    pub(crate) fn cut(&self) -> Option<InFlight> {
        let is_cut = self.active.get().is_some_and(|active| *active.cut.borrow());
        self.over.get().filter(|_| is_cut).map(|(_, how)| *how)
    }

    /// Waits until what is open is to be closed.
    pub(crate) fn is_cut(self: &Arc<Self>) -> impl Future<Output = ()> + Send + use<> {
        connection::cut(self.active().cut.subscribe())
    }

    /// Closes what has been idle or open for too long.
    pub(crate) fn reap(&self, now: Instant) {
        let Some(active) = self.active.get() else {
            return;
        };
        if self.over.get().is_some_and(|(over, _)| *over <= now) {
            active.cut.send_replace(true);
        }
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
