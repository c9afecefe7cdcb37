//! Over which wire: connections to services, each opened under one generation and kept for it alone.
//!
//! Knows generations and services, but no tenant and no route. A [`Pool`] belongs to one (generation, service);
//! [`Outbound`] holds what all pools share: name resolution, trust, the limit on connections, the reaper.

pub mod body;
mod connection;
pub(crate) mod dial;
mod endpoint;
pub mod error;
mod exchange;
pub mod lease;
pub(crate) mod pace;
pub mod pool;
mod probe;
mod repeats;
mod rest;
mod sessions;
pub mod tls;
pub mod trust;
mod verifier;
mod wire;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::Response;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::identity::revocation::Revocations;
use crate::metrics::{Gauged, Metrics};
use crate::outbound::dial::Dialer;
use crate::outbound::endpoint::Endpoint;
use crate::outbound::error::Error;
use crate::outbound::lease::Lease;
use crate::outbound::pool::{Pool, Rejected};
use crate::outbound::trust::Anchors;
use crate::outbound::verifier::Verifier;
use crate::services::{Service, Target, Trust};

pub(crate) use exchange::{Failure, send};

/// How often idle connections are looked over. A connection may outstay its timeout by this much.
const REAP_EVERY: Duration = Duration::from_secs(1);

/// Refused certificates that are tried again at once, beyond the limit on connections. Where a service knows none of
/// thousands of renewals, it should not take this for an attack.
const TRIED_AT_ONCE: usize = 4;

/// What all pools share.
#[derive(Debug)]
pub struct Outbound {
    workers: NonZeroUsize,
    dialer: Dialer,
    /// One for each address that a service was ever reached at.
    endpoints: Mutex<HashMap<Target, Arc<Endpoint>>>,
    /// One for each trust policy in use.
    verifiers: ArcSwap<HashMap<Trust, Arc<Verifier>>>,
    room: Arc<Semaphore>,
    /// Requests that wait for that room.
    wanting: AtomicUsize,
    /// How often a service has begun or ceased to refuse a renewed certificate.
    rejections: AtomicUsize,
    /// Held to try a refused certificate again.
    trying: Arc<Semaphore>,
    /// The workers' runtimes, as they start.
    handles: Mutex<Vec<Handle>>,
    /// The pools that have ever been used.
    pools: Mutex<Vec<Weak<Pool>>>,
    metrics: Arc<Metrics>,
}

/// An answer's head, and the connection that its body is still on.
#[derive(Debug)]
pub struct Answer {
    /// The service's answer.
    pub response: Response<Incoming>,
    /// The connection; to be returned once the body was read.
    pub lease: Lease,
}

impl Outbound {
    /// Prepares to reach services that are believed by these anchors.
    pub fn new(
        anchors: &Anchors,
        connections: usize,
        workers: NonZeroUsize,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let outbound = Self {
            workers,
            dialer: Dialer::default(),
            endpoints: Mutex::default(),
            verifiers: ArcSwap::default(),
            room: Arc::new(Semaphore::new(connections)),
            wanting: AtomicUsize::new(0),
            rejections: AtomicUsize::new(0),
            trying: Arc::new(Semaphore::new(TRIED_AT_ONCE)),
            handles: Mutex::default(),
            pools: Mutex::default(),
            metrics,
        };
        outbound.believe(anchors, &Arc::default());
        Arc::new(outbound)
    }

    /// Never connects to these addresses, on which this gateway listens: requests would go round in a loop.
    pub fn avoid(&self, own: impl IntoIterator<Item = SocketAddr>) {
        self.dialer.avoid(own);
    }

    /// Makes this thread the worker of that number, to be called on its runtime: connections can be opened there
    /// before a request asks for them.
    pub fn add_worker(&self, index: usize) {
        pool::become_worker(index);
        pace::prepare();
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        handles.push(Handle::current());
    }

    fn handles(&self) -> Vec<Handle> {
        let handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        handles.clone()
    }

    /// The renewed certificates that services refuse.
    pub fn rejected(&self) -> Vec<Rejected> {
        let pools = self.pools();
        pools.iter().filter_map(Pool::rejected).collect()
    }

    /// Another number whenever [`Self::rejected`] is another answer.
    pub fn rejections(&self) -> usize {
        self.rejections.load(Ordering::Acquire)
    }

    fn rejections_changed(&self) {
        self.rejections.fetch_add(1, Ordering::AcqRel);
    }

    /// Tries all of them again soon.
    pub(crate) fn hurry(&self) {
        self.pools().iter().for_each(|pool| pool.hurry());
    }

    /// Threads that serve requests, each with idle connections of its own.
    pub(crate) fn workers(&self) -> usize {
        self.workers.get()
    }

    /// Believes these anchors and no others in every handshake from now on, and refuses services whose certificate is
    /// revoked where their authority is not one of the web's. Connections that are open stay: whoever no longer
    /// believes their authority retires their pools.
    pub fn believe(&self, anchors: &Anchors, revocations: &Arc<Revocations>) {
        let verifiers = self.made_of(anchors, revocations);
        self.verifiers.store(Arc::new(verifiers));
    }

    /// Believes these anchors besides those of other policies: for the moment in which services as they were and as
    /// they are to be are both in use.
    pub fn believe_also(&self, anchors: &Anchors, revocations: &Arc<Revocations>) {
        let mut verifiers = HashMap::clone(&self.verifiers.load());
        verifiers.extend(self.made_of(anchors, revocations));
        self.verifiers.store(Arc::new(verifiers));
    }

    /// What is unchanged keeps its verifier, and with it the TLS sessions that were begun under it.
    fn made_of(
        &self,
        anchors: &Anchors,
        revocations: &Arc<Revocations>,
    ) -> HashMap<Trust, Arc<Verifier>> {
        let before = self.verifiers.load();
        let verifier = |trust: &Trust, chain| {
            let revocations = match trust {
                Trust::Public => None,
                Trust::File(_) => Some(revocations),
            };
            let same = before.get(trust);
            match same.filter(|verifier| verifier.is_of(chain, revocations)) {
                Some(verifier) => Arc::clone(verifier),
                None => Arc::new(Verifier::new(chain, revocations)),
            }
        };
        (anchors.iter())
            .map(|(trust, believed)| (trust.clone(), verifier(trust, &believed.chain)))
            .collect()
    }

    /// Refuses what is revoked by now, under the anchors that are believed already.
    pub fn refuse_revoked(&self, revocations: &Arc<Revocations>) {
        let verifiers = self.verifiers.load();
        let renewed = verifiers.iter().map(|(trust, verifier)| {
            let verifier = match trust {
                Trust::Public => Arc::clone(verifier),
                Trust::File(_) => Arc::new(verifier.with(revocations)),
            };
            (trust.clone(), verifier)
        });
        self.verifiers.store(Arc::new(renewed.collect()));
    }

    /// Of what is in use there is a verifier. A connection that finds none belongs to a pool that was retired while it
    /// was dialled.
    fn verifier(&self, trust: &Trust) -> Result<Arc<Verifier>, Error> {
        (self.verifiers.load().get(trust).cloned()).ok_or(Error::Retired)
    }

    /// Room for one more connection in the process, if there is any.
    fn free_room(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room).try_acquire_owned().ok()
    }

    /// Waits for room for one more connection in the process; when there is none, closes an idle one to make it.
    /// Connections that come free while somebody waits here are closed as well (`Pool::came_free`).
    async fn room(
        &self,
        until: Instant,
        wanting: &AtomicUsize,
    ) -> Result<OwnedSemaphorePermit, Error> {
        if let Some(permit) = self.free_room() {
            return Ok(permit);
        }
        // Counted before looking, so that what comes free in between is not kept.
        let _waiting = (
            pool::Waiting::new(&self.wanting),
            pool::Waiting::new(wanting),
        );
        self.evict_one();
        pool::before(until, Arc::clone(&self.room).acquire_owned())
            .await
            .ok_or(Error::NoCapacity(
                "all upstream connections of the gateway are in use",
            ))
    }

    fn evict_one(&self) {
        let idlest = self
            .pools()
            .into_iter()
            .filter_map(|pool| pool.idle_since().map(|since| (since, pool)))
            .min_by_key(|(since, _)| *since);
        if let Some((_, pool)) = idlest {
            pool.evict_one();
        }
    }

    /// What the pools of all certificates share of a service.
    fn endpoint(&self, target: &Target) -> Arc<Endpoint> {
        let mut endpoints = (self.endpoints.lock()).unwrap_or_else(PoisonError::into_inner);
        match endpoints.get(target) {
            Some(endpoint) => Arc::clone(endpoint),
            None => {
                let endpoint = Arc::new(Endpoint::new(self.workers));
                endpoints.insert(target.clone(), Arc::clone(&endpoint));
                endpoint
            }
        }
    }

    /// Whether there is no room for one more connection in the process.
    fn is_full(&self) -> bool {
        self.room.available_permits() == 0
    }

    /// How many requests wait for room in the process.
    fn wanting(&self) -> usize {
        self.wanting.load(Ordering::SeqCst)
    }

    fn register(&self, pool: &Arc<Pool>) {
        self.pools
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::downgrade(pool));
    }

    /// The pools that have been used and still exist.
    pub fn pools(&self) -> Vec<Arc<Pool>> {
        self.pools
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .filter_map(Weak::upgrade)
            .collect()
    }

    fn opened(&self, service: &Service, resumed: bool) {
        self.metrics.handshake(&service.name, resumed);
    }

    fn fallback_gauge(&self, service: &Service) -> Gauged {
        self.metrics.certificate_fallback(&service.name)
    }

    fn breaker_gauge(&self, service: &Service) -> Gauged {
        self.metrics.breaker_open(&service.name)
    }

    fn connection_gauge(&self, service: &Service) -> Gauged {
        self.metrics.upstream_connection(&service.name)
    }

    /// Closes connections that have been idle or open for too long, for as long as it is polled.
    pub async fn reap(self: Arc<Self>) {
        let mut tick = tokio::time::interval(REAP_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let now = Instant::now();
            self.pools
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .retain(|pool| pool.strong_count() > 0);
            (self.endpoints.lock())
                .unwrap_or_else(PoisonError::into_inner)
                .retain(|_, endpoint| Arc::strong_count(endpoint) > 1);
            for pool in self.pools() {
                pool.reap(now);
                if let Ok(permit) = Arc::clone(&self.trying).try_acquire_owned()
                    && pool.is_due(now)
                {
                    tokio::spawn(async move {
                        pool.try_again().await;
                        drop(permit);
                    });
                }
            }
        }
    }
}
