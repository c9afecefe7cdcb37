//! What is closed although no request asks for it: what is retired, too old, or in the way of somebody else.

use std::time::{Duration, Instant};

use super::shelf::lock;
use super::{Active, Pool};
use crate::outbound::connection;
use crate::outbound::rest::RESTS_AFTER;
use crate::services::InFlight;

impl Pool {
    /// Hands out nothing that is open any more, and opens nothing. Who waits here is told to choose again; what is in
    /// flight finishes or is cut off. What stood in for the pool goes with it.
    pub fn retire(&self, in_flight: InFlight) {
        // What has served nobody yet never will: either this comes first, or the first request does and is seen.
        let active = self.active.get_or_init(|| None);
        self.settle();
        self.close_breaker();
        let now = Instant::now();
        let within = match in_flight {
            InFlight::Finish => self.service.pool.drain,
            InFlight::Cut => Duration::ZERO,
        };
        let mut over = lock(&self.over);
        // What was to finish may have to be cut after all, when its certificate is revoked later.
        if over.is_none_or(|(at, _)| now + within < at) {
            *over = Some((now + within, in_flight));
        }
        drop(over);
        let Some(active) = active else {
            return;
        };
        drop(active.idle.retire());
        for h2 in active.h2.retire() {
            h2.drain();
        }
        for queue in [&active.queue, &active.picky] {
            queue.freed.notify_waiters();
        }
        active.gate.close();
        self.cut_if_over(now);
    }

    fn cut_if_over(&self, now: Instant) {
        if let Some(active) = self.used()
            && lock(&self.over).is_some_and(|(at, _)| at <= now)
        {
            active.cut.send_replace(true);
        }
    }

    /// How the pool's requests were cut off, if they were.
    pub(crate) fn was_cut(&self) -> Option<InFlight> {
        let is_cut = self.used().is_some_and(|active| *active.cut.borrow());
        lock(&self.over).filter(|_| is_cut).map(|(_, how)| how)
    }

    /// Waits until what is open is to be closed.
    pub(crate) async fn cut_off(&self) {
        let cut = self.used().map(|active| active.cut.subscribe());
        match cut {
            Some(cut) => connection::cut(cut).await,
            None => std::future::pending().await,
        }
    }

    /// Closes what has been idle or open for too long, and puts to rest what has been idle for a while.
    pub fn reap(&self, now: Instant) {
        let Some(active) = self.used() else {
            return;
        };
        self.cut_if_over(now);
        if self.protocol.is_weighed() {
            self.protocol.counted(self.in_flight(active));
        }
        let limits = &self.service.pool;
        let mut rests = false;
        active.idle.retain(|idle| {
            let idle_for = now.saturating_duration_since(idle.since);
            rests |= idle_for >= RESTS_AFTER && idle.kept.rest();
            idle_for < limits.idle_timeout
                && self.is_young(idle.kept.opened(), now)
                && idle.kept.is_open()
        });
        if rests {
            active.tls.rest();
        }
        active.h2.retain(|h2| {
            let is_used = h2
                .idle_since()
                .is_none_or(|since| now.saturating_duration_since(since) < limits.idle_timeout);
            h2.takes_streams() && is_used && self.is_young(h2.opened, now)
        });
    }

    /// Requests on connections, as far as that can be told without stopping them.
    fn in_flight(&self, active: &Active) -> usize {
        let (h2, streams) = (active.h2)
            .look(|h2| (h2.len(), h2.iter().map(|h2| h2.in_flight()).sum::<usize>()))
            .fold((0, 0), |(h2, all), (more, streams)| {
                (h2 + more, all + streams)
            });
        streams + self.open(active).saturating_sub(active.idle.len() + h2)
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
