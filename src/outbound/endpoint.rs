//! What the pools of all certificates share of one service: how many handshakes it sees at once, what it
//! refuses, and how many requests it is sent twice.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::outbound::repeats::Budget;

/// Handshakes that a service sees at once, for each worker. They are prepared and read on the worker, at some 0.3 ms
/// each besides the signature: if all went on in the same moment, another request would wait for 5 ms. A service that is
/// 20 ms away still takes 300 new connections a second of each worker.
const AT_ONCE: usize = 16;

/// How long a handshake counts. One that takes longer waits for the network or for a service that is down, not for a
/// processor: others need not wait with it.
const COUNTS_FOR: Duration = Duration::from_millis(500);

/// A service, as all certificates meet it.
///
/// The limit is each service's own: where one limit served all, a service that answers nobody would have all its
/// places taken, and no other could be reached.
#[derive(Debug)]
pub(crate) struct Endpoint {
    handshakes: Arc<Semaphore>,
    refuses_h1: AtomicBool,
    /// How many requests may be sent a second time.
    pub(crate) repeats: Budget,
}

impl Endpoint {
    pub(crate) fn new(workers: NonZeroUsize) -> Self {
        Self {
            handshakes: Arc::new(Semaphore::new(AT_ONCE * workers.get())),
            refuses_h1: AtomicBool::new(false),
            repeats: Budget::new(),
        }
    }

    /// Whether the service has refused HTTP/1.1.
    pub(crate) fn refuses_h1(&self) -> bool {
        self.refuses_h1.load(Ordering::Relaxed)
    }

    /// What one certificate has found out, no other need.
    pub(crate) fn set_refuses_h1(&self, refuses: bool) {
        self.refuses_h1.store(refuses, Ordering::Relaxed);
    }

    /// Waits for a place among the handshakes, in the order of asking.
    pub(crate) async fn place(&self) -> Place {
        Place(Arc::clone(&self.handshakes).acquire_owned().await.ok())
    }
}

/// A place among the handshakes that a service sees at once.
#[derive(Debug)]
pub(crate) struct Place(Option<OwnedSemaphorePermit>);

impl Place {
    /// Makes a handshake, and leaves the place to another when it is over or takes long.
    pub(crate) async fn during<T>(mut self, handshake: impl Future<Output = T>) -> T {
        let mut handshake = std::pin::pin!(handshake);
        tokio::select! {
            biased;
            done = &mut handshake => return done,
            () = tokio::time::sleep(COUNTS_FOR) => {}
        }
        self.0 = None;
        handshake.await
    }
}
