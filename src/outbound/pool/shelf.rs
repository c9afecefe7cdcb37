//! Connections that lie ready for the next request, until they are retired.
//!
//! What a rotation promises rests on the order of events in this file, so the file stands alone: its locks come from
//! the module around it, and `tests/interleavings.rs` puts others there, with which it goes through all orders in
//! which threads can meet.

use std::mem;
use std::sync::PoisonError;

use super::sync::{AtomicBool, Mutex, MutexGuard, Ordering};

/// Connections of one kind, the latest last, in shards that threads prefer so as not to meet each other.
#[derive(Debug)]
pub(super) struct Shelf<T> {
    shards: Box<[Mutex<Vec<T>>]>,
    retired: AtomicBool,
}

impl<T> Shelf<T> {
    /// An empty shelf of so many shards: one at least.
    pub(super) fn new(shards: usize) -> Self {
        Self {
            shards: (0..shards).map(|_| Mutex::new(Vec::new())).collect(),
            retired: AtomicBool::new(false),
        }
    }

    /// Keeps a connection in a shard, counted round.
    ///
    /// # Errors
    /// Once the shelf is retired: the connection, which is the caller's to close.
    pub(super) fn put(&self, shard: usize, connection: T) -> Result<(), T> {
        let mut kept = lock(&self.shards[shard % self.shards.len()]);
        // Under the lock that `retire` takes to empty the shard: a connection is either emptied out with the
        // others or finds the shelf retired, and cannot slip in between.
        if self.is_retired() {
            return Err(connection);
        }
        kept.push(connection);
        Ok(())
    }

    /// Takes the latest connection that serves: of the shard `first`, counted round, or else of another. Those that
    /// do not and were looked at are closed.
    pub(super) fn take(&self, first: usize, mut serves: impl FnMut(&T) -> bool) -> Option<T> {
        let shards = self.shards.len();
        (0..shards).find_map(|step| {
            let mut kept = lock(&self.shards[(first + step) % shards]);
            loop {
                let connection = kept.pop()?;
                if serves(&connection) {
                    return Some(connection);
                }
            }
        })
    }

    /// Takes a connection that `goes`, the oldest such of its shard.
    pub(super) fn evict(&self, mut goes: impl FnMut(&T) -> bool) -> Option<T> {
        self.shards.iter().find_map(|shard| {
            let mut kept = lock(shard);
            let position = kept.iter().position(&mut goes)?;
            Some(kept.remove(position))
        })
    }

    /// Closes every connection that does not stay.
    pub(super) fn retain(&self, mut stays: impl FnMut(&mut T) -> bool) {
        for shard in &self.shards {
            lock(shard).retain_mut(&mut stays);
        }
    }

    /// Looks at one shard after the other, each with its oldest connection first.
    pub(super) fn look<R>(&self, mut at: impl FnMut(&[T]) -> R) -> impl Iterator<Item = R> {
        self.shards.iter().map(move |shard| at(&lock(shard)))
    }

    /// How many connections there are.
    pub(super) fn len(&self) -> usize {
        self.look(<[T]>::len).sum()
    }

    /// Takes all connections. When it returns the shelf is empty and stays so.
    pub(super) fn retire(&self) -> Vec<T> {
        self.retired.store(true, Ordering::Release);
        (self.shards.iter())
            .flat_map(|shard| mem::take(&mut *lock(shard)))
            .collect()
    }

    /// Whether it is, or is about to be, empty for good.
    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }
}

/// Locks a mutex that guards plain data: a panic elsewhere cannot have left it half-changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
