//! A worker: a thread that serves requests, with a runtime, sockets and idle connections of its own.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use socket2::Socket;
use tokio::runtime;
use tokio::sync::{mpsc, watch};

use super::supervisor::Heart;
use crate::gateway::Entrance;
use crate::inbound::tls::{Authority, Security};
use crate::inbound::{Entry, Inbound, listener};
use crate::outbound::Outbound;

/// How all workers end together.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    /// Turns true when a stop begins; its sender goes when all workers have finished.
    pub(super) stop: watch::Receiver<bool>,
    /// How long requests in flight may take.
    pub(super) grace: Duration,
    /// Held until this worker has finished.
    pub(super) working: mpsc::Sender<()>,
}

/// One of a worker's sockets, and what is served on it.
pub(super) struct Share {
    pub(super) socket: Socket,
    pub(super) is_unix: bool,
    pub(super) security: Option<Security>,
    pub(super) authority: Option<Arc<Authority>>,
    pub(super) entrance: Arc<Entrance>,
}

/// Serves on the sockets of its share until a stop begins and what is in flight has finished, or the grace is over.
/// Blocks the thread.
pub(super) fn work(
    index: usize,
    outbound: &Outbound,
    shares: Vec<Share>,
    heart: Heart,
    inbound: Inbound,
    mut ending: Ending,
) -> anyhow::Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("a worker's runtime cannot be made")?;
    runtime.block_on(async {
        outbound.add_worker(index);
        let listeners = (shares.into_iter())
            .map(|share| {
                Ok(Entry {
                    listening: listener::Bound::attach(share.socket, share.is_unix)?,
                    security: share.security,
                    authority: share.authority,
                    answer: share.entrance,
                })
            })
            .collect::<std::io::Result<_>>()
            .context("a listener cannot be watched")?;
        tokio::spawn(heart.beat());
        let stop = ending.stop.clone();
        inbound.serve(listeners, stop, ending.grace).await;
        drop(ending.working);
        // Requests of other workers may be under way on connections to services that are driven here.
        while ending.stop.changed().await.is_ok() {}
        anyhow::Ok(())
    })?;
    // Whatever is still in flight after the grace is cut off here, with the runtime that drives it.
    runtime.shutdown_timeout(Duration::ZERO);
    Ok(())
}

/// Thousands of pooled connections need more descriptors than the usual soft limit of 1,024; the hard limit is what
/// the operator allows.
pub(super) fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit on open files stays as it is");
    }
}
