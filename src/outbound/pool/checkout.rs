//! How a request comes by a connection: what lies idle, a new one, or the first that comes free.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{AcquireError, Notify};

use super::shelf::lock;
use super::{Active, Pool, WORKER};
use crate::outbound::connection::{H1, Stream};
use crate::outbound::error::Error;
use crate::outbound::lease::{Lease, Origin};
use crate::outbound::sessions::Turn;

pub(super) const ALL_TAKEN: &str = "the tenant's connections to this service are all in use";

const TOO_MANY_HANDSHAKES: &str = "too many connections to this service are being opened";

/// Requests for which a worker takes another's connections before it opens one of its own. Each wakes the other worker
/// and is woken by it, some 5 µs of CPU time; a resumed handshake costs 250. So nobody pays more than twice what the
/// better of both would have cost.
const BORROWED_AT_MOST: usize = 64;

/// Requests that wait for a connection, and how they are told of one.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) waiting: AtomicUsize,
    pub(super) freed: Notify,
}

/// Which connections serve a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Wish {
    /// Any.
    Any,
    /// One that speaks HTTP/1.1, as a protocol upgrade needs.
    H1,
    /// One that nobody has used.
    Fresh {
        /// And that speaks HTTP/1.1.
        h1_only: bool,
    },
    /// A new one, for which nobody is put out: it is for whoever comes first.
    Beforehand,
}

impl Wish {
    fn of(h1_only: bool) -> Self {
        if h1_only { Self::H1 } else { Self::Any }
    }

    fn is_h1_only(self) -> bool {
        matches!(self, Self::H1 | Self::Fresh { h1_only: true })
    }

    fn queue(self, active: &Active) -> &Queue {
        match self {
            Self::Any => &active.queue,
            Self::H1 | Self::Fresh { .. } | Self::Beforehand => &active.picky,
        }
    }
}

impl Pool {
    /// Takes a connection: an idle one, a stream of a shared one, or a new one. With `h1_only`, what is taken
    /// speaks HTTP/1.1 (a protocol upgrade needs it).
    ///
    /// # Errors
    /// When none can be had: the pool is retired, the service not reached, or all connections stay in use.
    pub async fn checkout(self: &Arc<Self>, h1_only: bool) -> Result<Lease, Error> {
        self.still_in_use()?;
        let wish = Wish::of(h1_only);
        match self.reuse(wish) {
            Some(lease) => Ok(lease),
            // In a box, because a handshake needs ten times the memory of all the rest of a request, which would have to
            // be moved about for each that needs none.
            None => Box::pin(self.open_or_reuse(wish)).await,
        }
    }

    /// Takes a new connection whatever lies idle: what lay idle has just proved dead.
    ///
    /// # Errors
    /// As [`Self::checkout`].
    pub async fn checkout_fresh(self: &Arc<Self>, h1_only: bool) -> Result<Lease, Error> {
        Box::pin(self.open_or_reuse(Wish::Fresh { h1_only })).await
    }

    /// Opens a connection before anybody asks for one, if there is room for it that is free.
    ///
    /// # Errors
    /// As [`Self::checkout`], and where somebody would have to be put out.
    pub(super) async fn checkout_beforehand(self: &Arc<Self>) -> Result<Lease, Error> {
        Box::pin(self.open_or_reuse(Wish::Beforehand)).await
    }

    fn reuse(self: &Arc<Self>, wish: Wish) -> Option<Lease> {
        let active = self.used()?;
        if matches!(wish, Wish::Fresh { .. } | Wish::Beforehand) {
            return None;
        }
        if self.protocol.is_shared()
            && !wish.is_h1_only()
            && let Some(stream) = self.stream(active)
        {
            return Some(Lease::h2(Arc::clone(self), stream, Origin::Reused));
        }
        let h1 = self.idle_h1(active)?;
        if h1.worker.index != WORKER.get() {
            self.has_borrowed(active);
        }
        Some(Lease::h1(Arc::clone(self), h1, Origin::Reused))
    }

    /// A stream of a shared connection.
    fn stream(self: &Arc<Self>, active: &Active) -> Option<Stream> {
        let now = Instant::now();
        let mut stream = None;
        // What takes no stream any more leaves at once: it closes with its last stream, and makes room.
        active.h2.retain(|h2| {
            let stays = h2.takes_streams() && self.is_young(h2.opened, now);
            if stays && stream.is_none() {
                stream = h2.stream(self);
            }
            stays
        });
        stream
    }

    /// This worker has taken another's connection: every so often it opens one of its own behind requests, where there
    /// is room that nobody has to be put out of.
    fn has_borrowed(self: &Arc<Self>, active: &Active) {
        let borrowed = &active.borrowed[WORKER.get() % active.borrowed.len()];
        let has_room = || active.room.available_permits() > 0 && !self.outbound.is_full();
        if borrowed.fetch_add(1, Ordering::Relaxed) + 1 >= BORROWED_AT_MOST && has_room() {
            borrowed.store(0, Ordering::Relaxed);
            tokio::spawn(Arc::clone(self).warm());
        }
    }

    /// The most recently used of this worker's idle connections, or one of another's: a handshake costs a
    /// thousand times the wake-up that crossing threads does.
    fn idle_h1(&self, active: &Active) -> Option<Box<H1>> {
        let now = Instant::now();
        loop {
            let idle = active.idle.take(WORKER.get(), |idle| {
                now.saturating_duration_since(idle.since) < self.service.pool.idle_timeout
                    && self.is_young(idle.kept.opened(), now)
                    && idle.kept.serves()
            })?;
            let awake = idle.kept.wake(|| active.cut.subscribe());
            if awake.is_some() {
                return awake;
            }
        }
    }

    /// Waits as long as a dial may take: who waits for a connection is no worse off than who opens one.
    fn patience(&self) -> Instant {
        Instant::now() + self.dial_time()
    }

    /// How long a dial may take.
    pub(super) fn dial_time(&self) -> Duration {
        self.service.timeouts.connect + self.service.timeouts.handshake
    }

    /// Opens a connection if there is room for one more, otherwise takes the first that comes free.
    async fn open_or_reuse(self: &Arc<Self>, wish: Wish) -> Result<Lease, Error> {
        let active = self.active()?;
        let (arrived, until) = (Instant::now(), self.patience());
        let queue = wish.queue(active);
        let waiting = Waiting::new(&queue.waiting);
        let (mut gate, mut turn) = (None, None);
        let mut is_its_turn = false;
        let (room, place) = loop {
            let freed = queue.freed.notified();
            tokio::pin!(freed);
            // Listen before looking, so that what is freed in between is not missed.
            freed.as_mut().enable();
            self.still_in_use()?;
            let seeking = Waiting::new(&active.seeking);
            self.weigh(active, wish);
            if let Some(lease) = self.reuse(wish) {
                return Ok(lease);
            }
            // An HTTP/2 connection is opened by one, whose connection the others share; and without a session to
            // resume, one goes first. What fails for this one fails for all who waited, at once.
            let is_shared = wish == Wish::Any && self.protocol.is_shared();
            let failed = match is_its_turn {
                false => active.failed_since(arrived),
                true => active.left_alone_since(arrived),
            };
            if let Some(error) = failed {
                return Err(error);
            }
            if is_shared && let Some(told_by) = active.is_told_by(until) {
                (gate, turn, is_its_turn) = (None, None, false);
                tokio::select! {
                    biased;
                    () = freed => {}
                    () = tokio::time::sleep_until(told_by.into()) => {}
                }
                continue;
            }
            if is_shared && gate.is_none() {
                // Gate before turn, always: who has the gate waits for a turn.
                (turn, is_its_turn) = (None, false);
                tokio::select! {
                    biased;
                    permit = before(until, active.gate.acquire()) => {
                        // A pool that is retired closes its gate.
                        self.still_in_use()?;
                        gate = Some(permit.ok_or(Error::NoCapacity(ALL_TAKEN))?);
                    }
                    () = freed => {}
                }
                continue;
            }
            if !is_shared {
                gate = None;
            }
            if turn.is_none() {
                tokio::select! {
                    biased;
                    taken = tokio::time::timeout_at(until.into(), self.turn(active, arrived)) => {
                        turn = Some(taken.map_err(|_| Error::NoCapacity(TOO_MANY_HANDSHAKES))??);
                    }
                    () = freed => {}
                }
                continue;
            }
            is_its_turn = true;
            // Before there is room: a request counted twice could move the pool to HTTP/2 without need.
            drop(seeking);
            let evicts = matches!(wish, Wish::H1 | Wish::Fresh { .. });
            if evicts && active.room.available_permits() == 0 {
                self.evict_one();
            }
            let room = tokio::select! {
                biased;
                room = self.room(wish, until) => room?,
                () = freed.as_mut() => continue,
            };
            tokio::select! {
                biased;
                place = before(until, async { Ok(active.endpoint.place().await) }) => {
                    break (room, place.ok_or(Error::NoCapacity(TOO_MANY_HANDSHAKES))?);
                }
                () = freed => {}
            }
        };
        // Out of the queue before the dial: what comes free meanwhile is for those who still wait.
        drop(waiting);
        self.still_in_use()?;
        if let Some(error) = active.left_alone_since(arrived) {
            return Err(error);
        }
        let mut turn = turn.unwrap_or_else(Turn::free);
        let dial = self.dial(wish.is_h1_only(), room, &mut turn);
        let opened = place.during(dial).await;
        match &opened {
            Ok(_) => self.reached(),
            Err(error) => self.dial_failed(error),
        }
        if let Err(error) = &opened
            && (gate.is_some() || turn.leads())
            // What a connection for an upgrade meets, others need not.
            && !wish.is_h1_only()
            && error.would_meet_others()
        {
            *lock(&active.failure) = Some((Instant::now(), error.clone()));
        }
        // A handshake takes time, and what is retired starts no request.
        self.still_in_use().and(opened)
    }

    /// Looks whether requests are to share connections from now on: because they are many, or connections are few.
    fn weigh(&self, active: &Active, wish: Wish) {
        if active.endpoint.refuses_h1() {
            self.protocol.needs_h2();
        }
        if wish != Wish::Any {
            return;
        }
        let open = self.open(active);
        let seeking = active.seeking.load(Ordering::SeqCst);
        let limit = self.service.pool.max_connections;
        self.protocol.weigh(open + seeking, limit);
        if open > 0 && self.outbound.is_full() {
            self.protocol.share();
        }
    }

    /// What is retired serves nobody any more, however long they have waited for it.
    fn still_in_use(&self) -> Result<(), Error> {
        match self.is_retired() {
            false => Ok(()),
            true => Err(Error::Retired),
        }
    }

    /// Tells one waiting request, if any, that there is something to take.
    pub(crate) fn came_free(&self) {
        let Some(active) = self.used() else {
            return;
        };
        if self.owes_room(active) {
            self.evict_one();
        }
        if active.picky.waiting.load(Ordering::SeqCst) > 0 {
            active.picky.freed.notify_waiters();
        }
        if active.queue.waiting.load(Ordering::SeqCst) > 0 {
            active.queue.freed.notify_one();
        }
    }

    /// Tells all waiting requests that a shared connection takes more streams than it seemed to, or none.
    pub(crate) fn grew(&self) {
        if let Some(active) = self.used() {
            active.queue.freed.notify_waiters();
        }
    }
}

impl Active {
    /// Until when to wait, and not longer than `until`, for a service to say how many streams a connection takes that
    /// was just opened: nothing, if there is none or it has been too long.
    fn is_told_by(&self, until: Instant) -> Option<Instant> {
        // All are in one shard. A service that allows one stream says nothing else on the next connection.
        let of_all = self.h2.look(|h2| {
            let is_known = h2.iter().any(|h2| h2.allows_one());
            let told_by = h2.iter().filter_map(|h2| h2.is_told_by()).max();
            told_by.filter(|_| !is_known)
        });
        let told_by = of_all.flatten().max()?.min(until);
        (Instant::now() < told_by).then_some(told_by)
    }

    /// What failed for the one that went first, if others had begun to wait by then.
    pub(super) fn failed_since(&self, arrived: Instant) -> Option<Error> {
        let failure = lock(&self.failure);
        let (at, error) = failure.as_ref()?;
        (*at >= arrived).then(|| error.clone())
    }
}

/// Counts a request among those that wait, for as long as it does.
pub(crate) struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    pub(crate) fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Waits for a permit until then. Nobody closes the semaphores that it may come from.
pub(crate) async fn before<T>(
    until: Instant,
    permit: impl Future<Output = Result<T, AcquireError>>,
) -> Option<T> {
    let permit = tokio::time::timeout_at(until.into(), permit).await.ok()?;
    permit.ok()
}
