//! Connections under a renewed certificate, opened before it is put to use: no request waits for their handshakes.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Pool;
use crate::outbound::Outbound;
use crate::outbound::error::Error;

/// How long a renewal waits for connections, all certificates together. A service that is slow or down delays nobody's
/// renewal for longer, and a request that comes before the connection waits as it would have anyway.
const OPENED_WITHIN: Duration = Duration::from_secs(2);

/// Certificates for which a worker opens connections at once. Each costs it a millisecond of RSA, during which its
/// requests wait.
const AT_ONCE: usize = 2;

/// A pool that is about to take over, and the one that it takes over from.
#[derive(Clone, Debug)]
pub struct Takeover {
    /// The pool under the certificate in use.
    pub from: Arc<Pool>,
    /// The pool under the renewed one.
    pub to: Arc<Pool>,
}

impl Takeover {
    /// How many connections to open: as many as there are now.
    fn wanted(&self) -> usize {
        let pool = &self.from.service.pool;
        // What stands in for the pool is what is in use.
        let used = self.from.stand_in();
        let open = used.as_ref().unwrap_or(&self.from).occupancy().open;
        open.min(pool.prewarm).min(pool.max_connections)
    }
}

impl Outbound {
    /// Opens connections in the pools that are about to take over from busy ones. What cannot be opened in time, or at
    /// all, is left to the requests.
    pub(crate) async fn warm(self: &Arc<Self>, takeovers: Vec<Takeover>) {
        let workers = self.handles();
        let permits = Arc::new(Semaphore::new(AT_ONCE * workers.len().max(1)));
        let mut warming = JoinSet::new();
        let mut free = self.room.available_permits();
        for (number, takeover) in takeovers.into_iter().enumerate() {
            let wanted = takeover.wanted();
            // Nobody else's connections are closed for what nobody has asked for yet; what is late meets less room, and
            // looks again.
            if wanted == 0 || workers.is_empty() || free < wanted {
                continue;
            }
            free -= wanted;
            let mut workers = workers.clone();
            let first = number % workers.len();
            workers.rotate_left(first);
            let permits = Arc::clone(&permits);
            warming.spawn(async move {
                let _permit = permits.acquire().await;
                open(&takeover.to, wanted, &workers).await;
            });
        }
        let all = async { while warming.join_next().await.is_some() {} };
        if tokio::time::timeout(OPENED_WITHIN, all).await.is_err() {
            // Those that are late go on by themselves.
            warming.detach_all();
        }
    }
}

/// Opens one connection, and once its protocol and session are known the others beside it, each driven by a worker.
async fn open(pool: &Arc<Pool>, wanted: usize, workers: &[Handle]) {
    let open_on = |worker: &Handle| worker.spawn(Arc::clone(pool).warm());
    let Some((first, others)) = workers.split_first() else {
        return;
    };
    let Ok(Ok(Shared(false))) = open_on(first).await else {
        return;
    };
    let others = others.iter().chain([first]).cycle();
    let others: Vec<_> = others.take(wanted - 1).map(open_on).collect();
    for other in others {
        // What went wrong will go wrong for a request too, which has somebody to tell.
        let _ = other.await;
    }
}

/// Whether requests share a connection.
pub(super) struct Shared(bool);

impl Pool {
    /// Opens a connection for whoever comes first, where nobody has to be put out for it.
    pub(super) async fn warm(self: Arc<Self>) -> Result<Shared, Error> {
        let lease = match self.checkout_beforehand().await {
            Ok(lease) => lease,
            Err(error) => {
                if let Error::CertificateRejected(alert) = error {
                    self.refused(alert);
                }
                return Err(error);
            }
        };
        let is_shared = Shared(lease.version() == http::Version::HTTP_2);
        lease.give_back_ready().await;
        Ok(is_shared)
    }
}
