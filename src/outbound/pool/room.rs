//! Room for connections, of which there is so much in a pool and so much in the process.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;

use super::checkout::{ALL_TAKEN, Wish, before};
use super::{Active, Pool};
use crate::outbound::error::Error;

/// What a connection occupies while it is open.
#[derive(Debug)]
pub(super) struct Room {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Pool {
    /// Connections from dial to close.
    pub(super) fn open(&self, active: &Active) -> usize {
        self.service.pool.max_connections - active.room.available_permits()
    }

    /// Waits for room for one more connection: in this pool first, then in the process.
    pub(super) async fn room(self: &Arc<Self>, wish: Wish, until: Instant) -> Result<Room, Error> {
        let active = self.active()?;
        if wish == Wish::Beforehand {
            return self.free_room(active).ok_or(Error::NoCapacity(ALL_TAKEN));
        }
        let own = before(until, Arc::clone(&active.room).acquire_owned())
            .await
            .ok_or(Error::NoCapacity(ALL_TAKEN))?;
        let all = self.outbound.room(until, &active.wanting).await?;
        Ok(Room {
            _own: own,
            _all: all,
        })
    }

    /// The same, if nobody has to be waited for.
    fn free_room(&self, active: &Active) -> Option<Room> {
        Some(Room {
            _own: Arc::clone(&active.room).try_acquire_owned().ok()?,
            _all: self.outbound.free_room()?,
        })
    }

    /// Whether somebody outside of this pool waits for room in the process: it goes to them before it serves again
    /// here, or a busy tenant would keep all there is for itself.
    pub(super) fn owes_room(&self, active: &Active) -> bool {
        self.outbound.wanting() > active.wanting.load(Ordering::SeqCst)
    }

    /// Whether a connection that many could share waits for room: then one that serves one request at a time goes.
    pub(super) fn owes_a_shared_one(&self, active: &Active) -> bool {
        self.protocol.is_shared()
            && active.gate.available_permits() == 0
            && (active.room.available_permits() == 0 || self.outbound.is_full())
    }
}
