//! What a rotation and the requests beside it leave of connections, in all orders in which their threads can meet.
//!
//! The shelf under test is the gateway's own source, with locks that try each order in turn.

use std::mem;

use loom::sync::atomic::AtomicUsize;
use loom::sync::{Arc, Mutex};
use loom::thread::JoinHandle;
use loom::{model, thread};

use shelf::{Shelf, lock};
use sync::Ordering;

#[path = "../src/outbound/pool/shelf.rs"]
mod shelf;

/// Where the shelf's locks come from.
mod sync {
    pub(super) use loom::sync::atomic::{AtomicBool, Ordering};
    pub(super) use loom::sync::{Mutex, MutexGuard};
}

const OLD: u8 = 1;
const NEW: u8 = 2;

/// A connection under a generation's certificate, open until it is dropped.
struct Connection {
    generation: u8,
    /// Its own, and so not a place where threads meet in the model.
    _open: std::sync::Arc<()>,
}

/// What a generation has open, and what of it lies idle: on one shard a worker.
struct Pool {
    generation: u8,
    idle: Shelf<Connection>,
    open: std::sync::Arc<()>,
}

impl Pool {
    fn new(generation: u8) -> Arc<Self> {
        Arc::new(Self {
            generation,
            idle: Shelf::new(2),
            open: std::sync::Arc::default(),
        })
    }

    fn dial(&self) -> Connection {
        Connection {
            generation: self.generation,
            _open: std::sync::Arc::clone(&self.open),
        }
    }

    fn keep_one(&self, worker: usize) {
        assert!(self.idle.put(worker, self.dial()).is_ok());
    }

    fn checkout(&self, worker: usize) -> Connection {
        (self.idle.take(worker, |_| true)).unwrap_or_else(|| self.dial())
    }

    /// Connections that are not closed.
    fn open(&self) -> usize {
        std::sync::Arc::strong_count(&self.open) - 1
    }
}

/// The end of a request that had its connection before all else began: the connection is checked in.
fn check_in(pool: &Arc<Pool>, worker: usize) -> JoinHandle<()> {
    let (pool, connection) = (Arc::clone(pool), pool.dial());
    thread::spawn(move || drop(pool.idle.put(worker, connection)))
}

/// The table of one tenant and one service.
struct Table(Mutex<Arc<Pool>>);

impl Table {
    fn of(pool: &Arc<Pool>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Arc::clone(pool))))
    }

    fn look_up(&self) -> Arc<Pool> {
        Arc::clone(&lock(&self.0))
    }

    fn publish(&self, successor: Arc<Pool>) -> Arc<Pool> {
        mem::replace(&mut *lock(&self.0), successor)
    }

    /// A request from beginning to end; which generation's connection it was on.
    fn request(&self, worker: usize) -> u8 {
        let pool = self.look_up();
        let connection = pool.checkout(worker);
        let generation = connection.generation;
        drop(pool.idle.put(worker, connection));
        generation
    }
}

#[test]
fn a_retired_generation_has_nothing_to_take_and_what_is_checked_in_later_is_closed() {
    model(|| {
        let (old, new) = (Pool::new(OLD), Pool::new(NEW));
        old.keep_one(0);
        let table = Table::of(&old);
        let request = thread::spawn({
            let table = Arc::clone(&table);
            move || table.request(0)
        });
        drop(table.publish(Arc::clone(&new)).idle.retire());
        assert!(old.idle.take(0, |_| true).is_none());
        assert_eq!(old.idle.len(), 0);
        request.join().unwrap();
        assert_eq!(old.idle.len(), 0);
        assert_eq!(old.open(), 0, "a connection of the old generation leaked");
        assert_eq!(new.open(), new.idle.len());
    });
}

#[test]
fn a_request_after_the_publication_never_gets_a_connection_of_the_old_generation() {
    model(|| {
        let (old, new) = (Pool::new(OLD), Pool::new(NEW));
        let table = Table::of(&old);
        let in_flight = check_in(&old, 1);
        let published = Arc::new(AtomicUsize::new(0));
        let request = thread::spawn({
            let (table, published) = (Arc::clone(&table), Arc::clone(&published));
            move || {
                let is_after = published.load(Ordering::Acquire) == 1;
                let generation = table.request(0);
                assert!(!is_after || generation == NEW);
            }
        });
        let retiring = table.publish(new);
        published.store(1, Ordering::Release);
        drop(retiring.idle.retire());
        in_flight.join().unwrap();
        request.join().unwrap();
        assert_eq!(old.open(), 0);
    });
}

#[test]
fn two_requests_at_once_get_two_connections_of_those_that_lie_idle() {
    model(|| {
        let idle = Arc::new(Shelf::new(2));
        for number in [1, 2] {
            assert!(idle.put(0, number).is_ok());
        }
        let other = thread::spawn({
            let idle = Arc::clone(&idle);
            move || idle.take(1, |_| true)
        });
        let mut taken = [idle.take(0, |_| true), other.join().unwrap()];
        taken.sort_unstable();
        assert_eq!(taken, [Some(1), Some(2)]);
    });
}

#[test]
fn a_connection_that_lay_idle_before_the_rotation_is_taken_once_or_closed() {
    model(|| {
        let old = Pool::new(OLD);
        old.keep_one(0);
        let requests = [0, 1].map(|worker| {
            let old = Arc::clone(&old);
            thread::spawn(move || old.idle.take(worker, |_| true))
        });
        let closed = old.idle.retire();
        let taken = requests.map(|request| request.join().unwrap());
        let taken: Vec<_> = taken.into_iter().flatten().collect();
        assert_eq!(taken.len() + closed.len(), 1);
        assert_eq!(old.open(), 1);
    });
}

#[test]
fn a_connection_goes_to_a_request_or_to_the_upkeep_and_never_to_both() {
    model(|| {
        let pool = Pool::new(OLD);
        pool.keep_one(1);
        let request = thread::spawn({
            let pool = Arc::clone(&pool);
            move || pool.idle.take(0, |_| true)
        });
        let looked_over = thread::spawn({
            let pool = Arc::clone(&pool);
            move || pool.idle.retain(|_| false)
        });
        let evicted = pool.idle.evict(|_| true);
        let taken = request.join().unwrap();
        looked_over.join().unwrap();
        assert!(taken.is_none() || evicted.is_none());
        assert_eq!(
            pool.open(),
            usize::from(taken.is_some()) + usize::from(evicted.is_some())
        );
        assert_eq!(pool.idle.len(), 0);
    });
}

/// An HTTP/2 connection, as far as a rotation goes.
#[derive(Default)]
struct Shared {
    draining: sync::AtomicBool,
}

#[test]
fn a_shared_connection_opened_during_the_rotation_is_refused_or_drained() {
    model(|| {
        let shared = Arc::new(Shelf::new(1));
        let retired = Arc::new(AtomicUsize::new(0));
        let dial = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let opened = Arc::new(Shared::default());
                let is_kept = shared.put(0, Arc::clone(&opened)).is_ok();
                (opened, is_kept)
            }
        });
        let request = thread::spawn({
            let (shared, retired) = (Arc::clone(&shared), Arc::clone(&retired));
            move || {
                let is_after = retired.load(Ordering::Acquire) == 1;
                let mut found = false;
                shared.retain(|_: &mut Arc<Shared>| {
                    found = true;
                    true
                });
                assert!(!(is_after && found));
            }
        });
        for one in shared.retire() {
            one.draining.store(true, Ordering::Release);
        }
        retired.store(1, Ordering::Release);
        request.join().unwrap();
        let (opened, is_kept) = dial.join().unwrap();
        assert_eq!(opened.draining.load(Ordering::Acquire), is_kept);
        assert_eq!(shared.len(), 0);
    });
}
