//! The connections that one generation has open to one service.
//!
//! A pool is reached only through the generation and service that it was made for, by pointer. There is no table of
//! connections in which two identities could meet, and so no key whose hash could collide or from which a property
//! of the certificate could be forgotten.

mod breaker;
mod checkout;
mod occupancy;
mod prewarm;
mod protocol;
mod room;
mod shelf;
mod succession;
mod upkeep;

use std::cell::Cell;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use http::Request;
use http::header::HeaderValue;
use tokio::sync::{Semaphore, watch};

use crate::identity::generation::Generation;
use crate::identity::profile::{Dates, Profile};
use crate::outbound::Outbound;
use crate::outbound::body::Upload;
use crate::outbound::connection::{self, H1, H2};
use crate::outbound::endpoint::Endpoint;
use crate::outbound::error::{Error, Stage};
use crate::outbound::lease::{self, Lease, Origin};
use crate::outbound::repeats::Budget;
use crate::outbound::rest::Kept;
use crate::outbound::sessions::Turn;
use crate::outbound::tls::{self, Handshake, Secured};
use crate::services::{HttpVersions, InFlight, Service};

use breaker::Breaker;
use checkout::Queue;
use protocol::Protocol;
use room::Room;
use shelf::Shelf;
use succession::Succession;

pub(crate) use checkout::{Waiting, before};
pub use occupancy::Occupancy;
pub use prewarm::Takeover;
pub use succession::Rejected;

/// Connections of one (generation, service). Costs little until its first request.
#[derive(Debug)]
pub struct Pool {
    service: Arc<Service>,
    generation: Option<Arc<Generation>>,
    /// Those of its certificate: looked at for each request, and three steps away in memory otherwise.
    dates: Option<Dates>,
    /// What the access log says of its certificate, once it has said it: for the same reason.
    certificate_in_log: OnceLock<Box<str>>,
    outbound: Arc<Outbound>,
    /// When requests in flight have to be over, once it is retired.
    over: Mutex<Option<(Instant, InFlight)>>,
    succession: Succession,
    protocol: Protocol,
    breaker: Breaker,
    /// Made by the first request; nothing, for good, if the pool was retired before.
    active: OnceLock<Option<Box<Active>>>,
}

/// What a pool needs once it is used.
#[derive(Debug)]
struct Active {
    tls: tls::Client,
    endpoint: Arc<Endpoint>,
    host: HeaderValue,
    /// Idle HTTP/1.1 connections, by the worker that drives them: a request takes its own worker's first, so that it
    /// is served on one thread from start to finish.
    idle: Shelf<Idle>,
    /// Requests of each worker that took another's connection, since it last opened one of its own for that.
    borrowed: Box<[AtomicUsize]>,
    /// HTTP/2 connections, which requests share: in one shard, because all must find the same.
    h2: Shelf<Arc<H2>>,
    /// Held while an HTTP/2 connection is opened, which the others will share.
    gate: Semaphore,
    /// The last failure of a handshake that others waited for.
    failure: Mutex<Option<(Instant, Error)>>,
    /// One permit a connection, from dial to close.
    room: Arc<Semaphore>,
    /// Requests that wait for a connection to come free, whichever.
    queue: Queue,
    /// Requests that wait and have no room yet for a connection of their own.
    seeking: AtomicUsize,
    /// Requests that not every connection serves: they wait for one to fall idle, to use or to replace it. Were they
    /// in the same queue, they would be told of streams that somebody else could have taken.
    picky: Queue,
    /// Requests that have room in this pool and wait for room in the process.
    wanting: AtomicUsize,
    /// Turns true when whatever is still open is to be closed, in the middle of a request or not.
    cut: watch::Sender<bool>,
}

#[derive(Debug)]
struct Idle {
    kept: Kept,
    since: Instant,
}

thread_local! {
    /// Which worker this thread is. Threads that are none (tests, checks) share the first one's connections.
    static WORKER: Cell<usize> = const { Cell::new(0) };
}

/// Names this thread's share of idle connections.
pub(crate) fn become_worker(index: usize) {
    WORKER.set(index);
}

/// This thread's share of idle connections.
pub(crate) fn worker() -> usize {
    WORKER.get()
}

impl Pool {
    /// A pool for what `generation` (or, where the service wants no certificate, nobody) says to `service`.
    pub fn new(
        service: Arc<Service>,
        generation: Option<Arc<Generation>>,
        outbound: Arc<Outbound>,
    ) -> Arc<Self> {
        let protocol = Protocol::of(service.http);
        Self::with(
            service,
            generation,
            outbound,
            Succession::of(None),
            protocol,
        )
    }

    fn with(
        service: Arc<Service>,
        generation: Option<Arc<Generation>>,
        outbound: Arc<Outbound>,
        succession: Succession,
        protocol: Protocol,
    ) -> Arc<Self> {
        let dates = (generation.as_ref()).map(|one| one.identity().profile.dates());
        Arc::new(Self {
            service,
            generation,
            dates,
            certificate_in_log: OnceLock::new(),
            outbound,
            over: Mutex::default(),
            succession,
            protocol,
            breaker: Breaker::default(),
            active: OnceLock::new(),
        })
    }

    /// What a pool that takes over from this one begins with.
    fn protocol_towards(&self, service: &Service) -> Protocol {
        match service.target == self.service.target {
            true => self.protocol.inherited(service.http),
            false => Protocol::of(service.http),
        }
    }

    /// The service that its connections lead to.
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// The generation whose certificate its connections were opened with.
    pub fn generation(&self) -> Option<&Arc<Generation>> {
        self.generation.as_ref()
    }

    /// From when to when its certificate is valid, if it has one.
    pub fn dates(&self) -> Option<Dates> {
        self.dates
    }

    /// What the access log says of its certificate, which is made once.
    pub(crate) fn certificate_in_log(
        &self,
        make: impl FnOnce(&Profile) -> Box<str>,
    ) -> Option<&str> {
        let profile = &self.generation.as_ref()?.identity().profile;
        Some(self.certificate_in_log.get_or_init(|| make(profile)))
    }

    /// Whether it serves nobody any more.
    pub fn is_retired(&self) -> bool {
        match self.active.get() {
            None => false,
            Some(None) => true,
            Some(Some(active)) => active.idle.is_retired(),
        }
    }

    fn is_young(&self, opened: Instant, now: Instant) -> bool {
        now.saturating_duration_since(opened) < self.service.pool.max_lifetime
    }

    async fn dial(
        self: &Arc<Self>,
        h1_only: bool,
        room: Room,
        turn: &mut Turn,
    ) -> Result<Lease, Error> {
        let active = self.active()?;
        let service = &*self.service;
        let offers_h1 = h1_only || !self.protocol.is_shared();
        let mut secured = match self.handshake(offers_h1, turn).await {
            Err(error) if offers_h1 && !h1_only && self.wants_h2(&error) => {
                self.protocol.needs_h2();
                active.endpoint.set_refuses_h1(true);
                self.handshake(false, turn).await?
            }
            secured => secured?,
        };
        if self.awaits_verdict() {
            self.hear(&mut secured).await?;
        }
        let origin = Origin::from(secured.handshake);
        let gauge = self.outbound.connection_gauge(service);
        secured.stream.hold((room, gauge));
        if !secured.is_h2 {
            if service.http == HttpVersions::H2 && !h1_only {
                return Err(Error::broken("the service did not choose HTTP/2"));
            }
            if !offers_h1 {
                self.protocol.needs_h1();
                active.endpoint.set_refuses_h1(false);
            }
            let h1 = connection::open_h1(secured.stream, active.cut.subscribe()).await?;
            return Ok(Lease::h1(Arc::clone(self), h1, origin));
        }
        let h2 = connection::open_h2(secured.stream, self, active.cut.subscribe()).await?;
        let stream = h2
            .stream(self)
            .ok_or(Error::NoCapacity("the service allows no HTTP/2 stream"))?;
        // Refused by what was retired meanwhile, it closes with this stream.
        drop(active.h2.put(0, h2));
        Ok(Lease::h2(Arc::clone(self), stream, origin))
    }

    /// Whether the service refused to speak HTTP/1.1 and may be spoken to in HTTP/2.
    fn wants_h2(&self, error: &Error) -> bool {
        self.service.http == HttpVersions::Auto && error.refuses_protocol()
    }

    /// Connects and completes a handshake, within the service's deadlines.
    pub(super) async fn handshake(
        self: &Arc<Self>,
        h1_only: bool,
        turn: &mut Turn,
    ) -> Result<Secured, Error> {
        let service = &*self.service;
        turn.begin();
        let tcp = self
            .outbound
            .dialer
            .connect(&service.target, service.timeouts.connect)
            .await?;
        let verifier = self.outbound.verifier(&service.trust)?;
        let generation = self.generation.as_deref();
        let tls = &self.active()?.tls;
        let handshake = tls.handshake(tcp, service, generation, &verifier, h1_only, turn);
        let secured = tokio::time::timeout(service.timeouts.handshake, handshake)
            .await
            .map_err(|_| Error::Timeout(Stage::Handshake))??;
        turn.ended(secured.handshake);
        self.outbound
            .opened(service, secured.handshake == Handshake::Resumed);
        Ok(secured)
    }

    /// Waits for the turn to make a handshake: as long as there is no session to resume and one may come.
    async fn turn(&self, active: &Active, arrived: Instant) -> Result<Turn, Error> {
        let verifier = self.outbound.verifier(&self.service.trust)?;
        let generation = self.generation.as_deref();
        let tls = &active.tls;
        tls.turn(&self.service, generation, &verifier, arrived)
            .await
    }

    /// What requests need, made now if this is the first.
    ///
    /// # Errors
    /// When the pool was retired before there was a first.
    fn active(self: &Arc<Self>) -> Result<&Active, Error> {
        let active = self.active.get_or_init(|| {
            self.outbound.register(self);
            Some(Box::new(Active {
                tls: tls::Client::new(),
                endpoint: self.outbound.endpoint(&self.service.target),
                host: self.service.target.host_header(),
                idle: Shelf::new(self.outbound.workers()),
                borrowed: (0..self.outbound.workers())
                    .map(|_| AtomicUsize::new(0))
                    .collect(),
                h2: Shelf::new(1),
                gate: Semaphore::new(1),
                failure: Mutex::default(),
                room: Arc::new(Semaphore::new(self.service.pool.max_connections)),
                queue: Queue::default(),
                seeking: AtomicUsize::new(0),
                picky: Queue::default(),
                wanting: AtomicUsize::new(0),
                cut: watch::Sender::new(false),
            }))
        });
        active.as_deref().ok_or(Error::Retired)
    }

    /// The same, if there was a request.
    fn used(&self) -> Option<&Active> {
        self.active.get()?.as_deref()
    }

    /// What pays for a second attempt of a request. There is one once a connection was had.
    pub(crate) fn repeats(&self) -> Option<&Budget> {
        Some(&self.used()?.endpoint.repeats)
    }

    pub(crate) fn address_h1(&self, request: &mut Request<Upload>) {
        let active = self.used().expect("who has a connection has used the pool");
        lease::in_h1_form(request, active.host.clone());
    }

    pub(crate) fn address_h2(&self, request: &mut Request<Upload>) {
        lease::in_h2_form(request, &self.service.target.authority);
    }

    /// Takes an HTTP/1.1 connection back once its answer was read.
    pub(crate) fn give_back(self: &Arc<Self>, h1: Box<H1>) {
        if !connection::is_between_requests(&h1) && !h1.sender.is_closed() {
            // The answer came before the request was all sent, or the connection has yet to notice that both ended.
            tokio::spawn(Arc::clone(self).take_back(h1));
            return;
        }
        self.keep(h1);
    }

    /// The same, done only when the connection lies ready.
    pub(crate) async fn take_back(self: Arc<Self>, mut h1: Box<H1>) {
        // What is left of a request that has its answer is not waited for longer than for a piece of one that has none.
        if connection::ready(&mut h1, self.service.timeouts.body).await {
            self.keep(h1);
        } else {
            h1.cut();
        }
    }

    fn keep(&self, h1: Box<H1>) {
        let now = Instant::now();
        let Some(active) = self.used() else {
            return;
        };
        if h1.sender.is_closed() || !self.is_young(h1.opened, now) {
            return;
        }
        if self.owes_room(active) || self.owes_a_shared_one(active) {
            return;
        }
        let driver = h1.worker.index;
        let idle = Idle {
            kept: Kept::Awake(h1),
            since: now,
        };
        if active.idle.put(driver, idle).is_ok() {
            self.came_free();
        }
    }
}

/// Where the shelf's locks come from.
mod sync {
    pub(super) use std::sync::atomic::{AtomicBool, Ordering};
    pub(super) use std::sync::{Mutex, MutexGuard};
}
