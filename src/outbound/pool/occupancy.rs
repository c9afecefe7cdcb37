//! How many connections a pool has, and what they do: for whoever looks.

use std::sync::atomic::Ordering;

use super::Pool;

/// What the administration interface shows of a pool.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Occupancy {
    /// Connections open, idle ones included.
    pub open: usize,
    /// HTTP/1.1 connections that lie idle.
    pub idle: usize,
    /// Those of them that are at rest: without the buffers of HTTP, which they get back for their next request.
    pub resting: usize,
    /// HTTP/2 connections.
    pub h2: usize,
    /// Requests that wait for a connection.
    pub waiting: usize,
}

impl Pool {
    /// How many connections there are.
    pub fn occupancy(&self) -> Occupancy {
        let Some(active) = self.used() else {
            return Occupancy::default();
        };
        Occupancy {
            open: self.open(active),
            idle: active.idle.len(),
            resting: (active.idle)
                .look(|idle| idle.iter().filter(|idle| idle.kept.is_resting()).count())
                .sum(),
            h2: active.h2.len(),
            waiting: [&active.queue, &active.picky]
                .map(|queue| queue.waiting.load(Ordering::Relaxed))
                .iter()
                .sum(),
        }
    }
}
