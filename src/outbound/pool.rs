//! The connections that one generation has open to one service.
//!
//! A pool is reached only through the generation and service that it was made for, by pointer. There is no table of
//! connections in which two identities could meet, and so no key whose hash could collide or from which a property
//! of the certificate could be forgotten.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use http::Request;
use http::header::HeaderValue;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::identity::generation::Generation;
use crate::outbound::Outbound;
use crate::outbound::body::Upload;
use crate::outbound::connection::{self, H1, H2};
use crate::outbound::error::{Error, Stage};
use crate::outbound::lease::{self, Lease, Origin};
use crate::outbound::tls::{self, Handshake, Secured};
use crate::services::{HttpVersions, Service};

const ALL_TAKEN: &str = "the tenant's connections to this service are all in use";

/// Connections of one (generation, service). Costs little until its first request.
#[derive(Debug)]
pub struct Pool {
    service: Arc<Service>,
    generation: Option<Arc<Generation>>,
    outbound: Arc<Outbound>,
    retired: AtomicBool,
    active: OnceLock<Box<Active>>,
}

/// What a pool needs once it is used.
#[derive(Debug)]
struct Active {
    tls: tls::Client,
    host: HeaderValue,
    /// Idle HTTP/1.1 connections, the latest last, by the worker that drives them: a request takes its own
    /// worker's first, so that it is served on one thread from start to finish.
    idle: Box<[Mutex<Vec<Idle>>]>,
    h2: Mutex<Vec<Arc<H2>>>,
    /// What ALPN chose last: it decides whether requests wait for one dial or each make their own.
    speaks: AtomicU8,
    /// Held while the first connection, or one more HTTP/2 connection, is opened.
    gate: Semaphore,
    /// The last failure behind the gate, for those who waited at it.
    failure: Mutex<Option<(Instant, Error)>>,
    /// One permit a connection, from dial to close.
    room: Arc<Semaphore>,
    /// Requests that wait for a connection to come free, whichever.
    queue: Queue,
    /// Requests that not every connection serves: they wait for one to fall idle, to use or to replace it. Were they
    /// in the same queue, they would be told of streams that somebody else could have taken.
    picky: Queue,
    /// Requests that have room in this pool and wait for room in the process.
    wanting: AtomicUsize,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: AtomicUsize,
    freed: Notify,
}

#[derive(Debug)]
struct Idle {
    h1: H1,
    since: Instant,
}

/// Which connections serve a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Wish {
    /// Any.
    Any,
    /// One that speaks HTTP/1.1, as a protocol upgrade needs.
    H1,
    /// One that nobody has used.
    Fresh {
        /// And that speaks HTTP/1.1.
        h1_only: bool,
    },
}

impl Wish {
    fn of(h1_only: bool) -> Self {
        if h1_only { Self::H1 } else { Self::Any }
    }

    fn is_h1_only(self) -> bool {
        matches!(self, Self::H1 | Self::Fresh { h1_only: true })
    }
}

const SPEAKS_UNKNOWN: u8 = 0;
const SPEAKS_H1: u8 = 1;
const SPEAKS_H2: u8 = 2;

thread_local! {
    /// Which worker this thread is. Threads that are none (tests, checks) share the first one's connections.
    static WORKER: Cell<usize> = const { Cell::new(0) };
}

/// Names this thread's share of idle connections.
pub(crate) fn become_worker(index: usize) {
    WORKER.set(index);
}

/// What the administration interface shows of a pool.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Occupancy {
    /// Connections open, idle ones included.
    pub open: usize,
    /// HTTP/1.1 connections that lie idle.
    pub idle: usize,
    /// HTTP/2 connections.
    pub h2: usize,
    /// Requests that wait for a connection.
    pub waiting: usize,
}

impl Pool {
    /// A pool for what `generation` (or, where the service wants no certificate, nobody) says to `service`.
    pub fn new(
        service: Arc<Service>,
        generation: Option<Arc<Generation>>,
        outbound: Arc<Outbound>,
    ) -> Arc<Self> {
        Arc::new(Self {
            service,
            generation,
            outbound,
            retired: AtomicBool::new(false),
            active: OnceLock::new(),
        })
    }

    /// The service that its connections lead to.
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// The generation whose certificate its connections were opened with.
    pub fn generation(&self) -> Option<&Arc<Generation>> {
        self.generation.as_ref()
    }

    /// How many connections there are.
    pub fn occupancy(&self) -> Occupancy {
        let Some(active) = self.active.get() else {
            return Occupancy::default();
        };
        Occupancy {
            open: self.service.pool.max_connections - active.room.available_permits(),
            idle: active.idle.iter().map(|shard| lock(shard).len()).sum(),
            h2: lock(&active.h2).len(),
            waiting: [&active.queue, &active.picky]
                .map(|queue| queue.waiting.load(Ordering::Relaxed))
                .iter()
                .sum(),
        }
    }

    /// Takes a connection: an idle one, a stream of a shared one, or a new one. With `h1_only`, what is taken
    /// speaks HTTP/1.1 (a protocol upgrade needs it).
    pub(crate) async fn checkout(self: &Arc<Self>, h1_only: bool) -> Result<Lease, Error> {
        let wish = Wish::of(h1_only);
        match self.reuse(wish) {
            Some(lease) => Ok(lease),
            None => self.open_or_wait(wish).await,
        }
    }

    /// Takes a new connection whatever lies idle: what lay idle has just proved dead.
    pub(crate) async fn checkout_fresh(self: &Arc<Self>, h1_only: bool) -> Result<Lease, Error> {
        self.open_or_reuse(self.active(), Wish::Fresh { h1_only }, self.patience())
            .await
    }

    fn reuse(self: &Arc<Self>, wish: Wish) -> Option<Lease> {
        let active = self.active.get()?;
        if matches!(wish, Wish::Fresh { .. }) {
            return None;
        }
        if let Some(h1) = self.idle_h1(active) {
            return Some(Lease::h1(Arc::clone(self), h1, Origin::Reused));
        }
        if wish.is_h1_only() || active.speaks.load(Ordering::Acquire) != SPEAKS_H2 {
            return None;
        }
        let now = Instant::now();
        let mut h2 = lock(&active.h2);
        // What takes no stream any more leaves at once: it closes with its last stream, and makes room.
        h2.retain(|h2| h2.takes_streams() && self.is_young(h2.opened, now));
        let stream = h2.iter().find_map(|h2| h2.stream(self))?;
        drop(h2);
        Some(Lease::h2(Arc::clone(self), stream, Origin::Reused))
    }

    /// The most recently used of this worker's idle connections, or one of another's: a handshake costs a
    /// thousand times the wake-up that crossing threads does.
    fn idle_h1(&self, active: &Active) -> Option<H1> {
        let shards = active.idle.len();
        let own = WORKER.get() % shards;
        let now = Instant::now();
        (0..shards).find_map(|step| {
            let mut shard = lock(&active.idle[(own + step) % shards]);
            while let Some(Idle { h1, since }) = shard.pop() {
                if now.saturating_duration_since(since) >= self.service.pool.idle_timeout {
                    // All below it have been idle for longer still.
                    shard.clear();
                    return None;
                }
                if self.is_young(h1.opened, now) && connection::is_between_requests(&h1) {
                    return Some(h1);
                }
            }
            None
        })
    }

    fn is_young(&self, opened: Instant, now: Instant) -> bool {
        now.saturating_duration_since(opened) < self.service.pool.max_lifetime
    }

    /// Waits as long as a dial may take: who waits for a connection is no worse off than who opens one.
    fn patience(&self) -> Instant {
        Instant::now() + self.service.timeouts.connect + self.service.timeouts.handshake
    }

    async fn open_or_wait(self: &Arc<Self>, wish: Wish) -> Result<Lease, Error> {
        let active = self.active();
        let until = self.patience();
        if wish.is_h1_only() || active.speaks.load(Ordering::Acquire) == SPEAKS_H1 {
            return self.open_or_reuse(active, wish, until).await;
        }
        // Until the protocol is known one request dials and the others wait: if it is HTTP/2 they will share
        // that connection, and in any case its TLS session makes their own handshakes cheap.
        let arrived = Instant::now();
        let gate = before(until, active.gate.acquire())
            .await
            // Whoever dials gives up earlier than those who came after it: this one has seen others take places.
            .ok_or(Error::NoCapacity(ALL_TAKEN))?
            .map_err(|_| Error::NoCapacity("the pool is closed"))?;
        if let Some(lease) = self.reuse(wish) {
            return Ok(lease);
        }
        if active.speaks.load(Ordering::Acquire) == SPEAKS_H1 {
            drop(gate);
            return self.open_or_reuse(active, wish, until).await;
        }
        if let Some((at, error)) = &*lock(&active.failure)
            && *at >= arrived
        {
            return Err(error.clone());
        }
        let opened = self.open_or_reuse(active, wish, until).await;
        if let Err(error) = &opened {
            *lock(&active.failure) = Some((Instant::now(), error.clone()));
        }
        opened
    }

    /// Opens a connection if there is room for one more, otherwise takes the first that comes free.
    async fn open_or_reuse(
        self: &Arc<Self>,
        active: &Active,
        wish: Wish,
        until: Instant,
    ) -> Result<Lease, Error> {
        let queue = match wish {
            Wish::Any => &active.queue,
            Wish::H1 | Wish::Fresh { .. } => &active.picky,
        };
        let waiting = Waiting::new(&queue.waiting);
        let room = loop {
            let freed = queue.freed.notified();
            tokio::pin!(freed);
            // Listen before looking, so that what is freed in between is not missed.
            freed.as_mut().enable();
            if let Some(lease) = self.reuse(wish) {
                return Ok(lease);
            }
            if wish != Wish::Any && active.room.available_permits() == 0 {
                self.evict_one();
            }
            tokio::select! {
                biased;
                room = self.room(until) => break room?,
                () = freed => {}
            }
        };
        // Out of the queue before the dial: what comes free meanwhile is for those who still wait.
        drop(waiting);
        self.dial(wish.is_h1_only(), room).await
    }

    /// Waits for room for one more connection: in this pool first, then in the process.
    async fn room(self: &Arc<Self>, until: Instant) -> Result<Room, Error> {
        let active = self.active();
        let own = before(until, Arc::clone(&active.room).acquire_owned())
            .await
            .and_then(Result::ok)
            .ok_or(Error::NoCapacity(ALL_TAKEN))?;
        let all = self.outbound.room(until, &active.wanting).await?;
        Ok(Room {
            _own: own,
            _all: all,
        })
    }

    async fn dial(self: &Arc<Self>, h1_only: bool, room: Room) -> Result<Lease, Error> {
        let active = self.active();
        let service = &*self.service;
        let mut secured = self.handshake(h1_only).await?;
        let origin = Origin::from(secured.handshake);
        let gauge = self.outbound.connection_gauge(service);
        secured.stream.hold((room, gauge));
        if !secured.is_h2 {
            if service.http == HttpVersions::H2 && !h1_only {
                return Err(Error::broken("the service did not choose HTTP/2"));
            }
            if !h1_only {
                active.speaks.store(SPEAKS_H1, Ordering::Release);
            }
            let h1 = connection::open_h1(secured.stream).await?;
            return Ok(Lease::h1(Arc::clone(self), h1, origin));
        }
        active.speaks.store(SPEAKS_H2, Ordering::Release);
        let h2 = connection::open_h2(secured.stream, self).await?;
        let stream = h2
            .stream(self)
            .ok_or(Error::NoCapacity("the service allows no HTTP/2 stream"))?;
        let mut shared = lock(&active.h2);
        if !self.retired.load(Ordering::Acquire) {
            shared.push(h2);
        }
        drop(shared);
        Ok(Lease::h2(Arc::clone(self), stream, origin))
    }

    /// Connects and completes a handshake, within the service's deadlines.
    pub(super) async fn handshake(self: &Arc<Self>, h1_only: bool) -> Result<Secured, Error> {
        let service = &*self.service;
        let tcp = self
            .outbound
            .dialer
            .connect(&service.target, service.timeouts.connect)
            .await?;
        let verifier = self.outbound.verifier(&service.trust)?;
        let generation = self.generation.as_deref();
        let handshake = (self.active().tls).handshake(tcp, service, generation, &verifier, h1_only);
        let secured = tokio::time::timeout(service.timeouts.handshake, handshake)
            .await
            .map_err(|_| Error::Timeout(Stage::Handshake))??;
        self.outbound
            .opened(service, secured.handshake == Handshake::Resumed);
        Ok(secured)
    }

    fn active(self: &Arc<Self>) -> &Active {
        self.active.get_or_init(|| {
            self.outbound.register(self);
            let shards = self.outbound.workers();
            Box::new(Active {
                tls: tls::Client::new(),
                host: self.service.target.host_header(),
                idle: (0..shards).map(|_| Mutex::default()).collect(),
                h2: Mutex::default(),
                speaks: AtomicU8::new(if self.service.http == HttpVersions::H1 {
                    SPEAKS_H1
                } else {
                    SPEAKS_UNKNOWN
                }),
                gate: Semaphore::new(1),
                failure: Mutex::default(),
                room: Arc::new(Semaphore::new(self.service.pool.max_connections)),
                queue: Queue::default(),
                picky: Queue::default(),
                wanting: AtomicUsize::new(0),
            })
        })
    }

    pub(crate) fn address_h1(self: &Arc<Self>, request: &mut Request<Upload>) {
        lease::in_h1_form(request, self.active().host.clone());
    }

    pub(crate) fn address_h2(&self, request: &mut Request<Upload>) {
        lease::in_h2_form(request, &self.service.target.authority);
    }

    /// Takes an HTTP/1.1 connection back once its answer was read.
    pub(crate) fn give_back(self: Arc<Self>, mut h1: H1) {
        if h1.sender.is_closed() || !self.is_young(h1.opened, Instant::now()) {
            return;
        }
        if connection::is_between_requests(&h1) {
            return self.keep(h1);
        }
        // The answer came before the request was all sent, or the connection has yet to notice that both ended. What
        // is left of a request that has its answer is not waited for longer than for a piece of one that has none.
        tokio::spawn(async move {
            if connection::ready(&mut h1, self.service.timeouts.body).await {
                self.keep(h1);
            } else {
                h1.cut();
            }
        });
    }

    fn keep(self: &Arc<Self>, h1: H1) {
        let active = self.active();
        let mut shard = lock(&active.idle[WORKER.get() % active.idle.len()]);
        // Under the lock that `retire` takes to empty the shard: a connection is either emptied out with the
        // others or finds the pool retired, and cannot slip in between.
        if self.retired.load(Ordering::Acquire) || self.owes_room(active) {
            return;
        }
        shard.push(Idle {
            h1,
            since: Instant::now(),
        });
        drop(shard);
        self.came_free();
    }

    /// Tells one waiting request, if any, that there is something to take.
    pub(crate) fn came_free(&self) {
        let Some(active) = self.active.get() else {
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

    /// Tells all waiting requests that a connection takes more streams than it seemed to.
    pub(crate) fn grew(&self) {
        if let Some(active) = self.active.get() {
            active.queue.freed.notify_waiters();
        }
    }

    /// Whether somebody outside of this pool waits for room in the process: it goes to them before it serves again
    /// here, or a busy tenant would keep all there is for itself.
    fn owes_room(&self, active: &Active) -> bool {
        self.outbound.wanting() > active.wanting.load(Ordering::SeqCst)
    }

    /// Hands out nothing that is open any more; what is in flight finishes.
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

/// What a connection occupies while it is open.
#[derive(Debug)]
struct Room {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
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

/// Locks a mutex that guards plain data: a panic elsewhere cannot have left it half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn before<T>(until: Instant, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout_at(until.into(), future).await.ok()
}
