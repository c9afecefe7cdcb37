//! How many requests are under way at once: in all, to a service, for a tenant, from a caller.
//!
//! What is over a limit is refused at once, because nothing may queue without bound. A place is held until the answer's
//! body has ended, so it lies in the record of the request and not around a future (which is as far as tower's
//! limits reach).

use std::array;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::{FxBuildHasher, FxHashMap};

use super::caller::Known;
use super::reply::{Code, Problem};
use super::table::Offered;
use super::{Entrance, Gateway};
use crate::identity::finess::Finess;
use crate::services::Service;

/// Parts that the count of tenants is in, each with a lock of its own: workers that count at the same moment seldom
/// meet, and the lock is held for a look-up.
const PARTS: usize = 16;

/// How many requests are under way. The limit is whoever's who asks: it may change while they are. All workers count here,
/// so nothing else is on its lines of the processor's cache.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Count(AtomicUsize);

/// What a count is held by. Requests hold on to what is their worker's own, where there is such.
trait Counts {
    fn count(&self) -> &Count;
}

impl Counts for Arc<Count> {
    fn count(&self) -> &Count {
        self
    }
}

impl Counts for Arc<Offered> {
    fn count(&self) -> &Count {
        &self.load.all
    }
}

impl Counts for Arc<Entrance> {
    fn count(&self) -> &Count {
        &self.gateway.under_way
    }
}

/// One of those that are counted, until it is dropped.
#[derive(Debug)]
struct Counted<C: Counts>(C);

impl<C: Counts> Counted<C> {
    fn enter(by: C, most: usize) -> Option<Self> {
        // Counted before it is looked at, so that workers that meet here never have to try again; what is dropped at once
        // leaves its place, and may at worst have another refused that is at the limit too.
        let counted = by.count().0.fetch_add(1, Ordering::Relaxed);
        let place = Self(by);
        (counted < most).then_some(place)
    }
}

impl<C: Counts> Drop for Counted<C> {
    fn drop(&mut self) {
        self.0.count().0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is under way to one service. A tenant is the structure that a request speaks for, and not the certificate under
/// which it does: what one site has under way is bounded, though it shares its legal entity's certificate, or the éditeur's,
/// with others. They share its connections too, and leave each other some only where the limit is below
/// `pool.max_connections`.
#[derive(Debug)]
pub struct Load {
    all: Count,
    /// Those that have something under way, and no others.
    tenants: [Part; PARTS],
}

/// On cache lines of its own, so that workers that count different tenants do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Part(Mutex<FxHashMap<Finess, usize>>);

impl Default for Load {
    fn default() -> Self {
        Self {
            all: Count::default(),
            tenants: array::from_fn(|_| Part::default()),
        }
    }
}

/// A tenant's request, until it is dropped.
#[derive(Debug)]
struct CountedFor {
    offered: Arc<Offered>,
    tenant: Finess,
}

impl Load {
    fn part(&self, tenant: Finess) -> MutexGuard<'_, FxHashMap<Finess, usize>> {
        // The remainder is never as much as a part too many.
        let part = FxBuildHasher.hash_one(tenant) as usize % PARTS;
        (self.tenants[part].0.lock()).unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there was room for one more.
    fn enter(&self, tenant: Finess, most: usize) -> bool {
        let mut part = self.part(tenant);
        let theirs = part.entry(tenant).or_insert(0);
        let has_room = *theirs < most;
        *theirs += usize::from(has_room);
        has_room
    }

    fn leave(&self, tenant: Finess) {
        let mut part = self.part(tenant);
        if let Some(theirs) = part.get_mut(&tenant) {
            *theirs -= 1;
            if *theirs == 0 {
                part.remove(&tenant);
            }
        }
    }
}

impl Drop for CountedFor {
    fn drop(&mut self) {
        self.offered.load.leave(self.tenant);
    }
}

/// A request's places, until its answer has ended.
#[derive(Debug)]
pub(crate) struct Places {
    _of_caller: Option<Counted<Arc<Count>>>,
    _of_tenant: Option<CountedFor>,
    _of_service: Option<Counted<Arc<Offered>>>,
    _of_all: Counted<Arc<Entrance>>,
}

impl Gateway {
    /// How many requests are under way, in all.
    pub fn requests_under_way(&self) -> usize {
        self.under_way.0.load(Ordering::Relaxed)
    }
}

impl Entrance {
    /// Lets a request to a service through, unless too many are under way.
    ///
    /// # Errors
    /// Which limit it meets, and whose.
    pub(super) fn admit(
        self: &Arc<Self>,
        offered: &Arc<Offered>,
        caller: Option<&Known>,
        tenant: Option<Finess>,
    ) -> Result<Places, Problem> {
        let service = &*offered.service;
        let of_caller = caller.map(of_caller).transpose()?.flatten();
        let of_tenant = tenant
            .map(|tenant| of_tenant(offered, service, tenant))
            .transpose()?;
        let most = service.limits.requests;
        let of_service = most.map(|most| of_service(offered, service, most));
        let of_service = of_service.transpose()?;
        let most = self.gateway.requests;
        let of_all = Counted::enter(Arc::clone(self), most).ok_or_else(|| {
            overloaded(
                format!("{most} requests are under way, in all"),
                "limits.requests sets how many may be",
            )
        })?;
        if let (Some(rates), Some(tenant)) = (&offered.rates, tenant) {
            rates.admit(tenant)?;
        }
        Ok(Places {
            _of_caller: of_caller,
            _of_tenant: of_tenant,
            _of_service: of_service,
            _of_all: of_all,
        })
    }
}

fn of_caller(caller: &Known) -> Result<Option<Counted<Arc<Count>>>, Problem> {
    let Some(most) = caller.requests else {
        return Ok(None);
    };
    let counted = Counted::enter(Arc::clone(&caller.under_way), most).ok_or_else(|| {
        overloaded(
            format!("the caller {} has {most} requests under way", caller.name),
            "`requests` of the caller sets how many it may have",
        )
    })?;
    Ok(Some(counted))
}

fn of_tenant(
    offered: &Arc<Offered>,
    service: &Service,
    tenant: Finess,
) -> Result<CountedFor, Problem> {
    let most = service.limits.requests_per_tenant;
    if !offered.load.enter(tenant, most) {
        return Err(overloaded(
            format!(
                "{most} requests for {tenant} to {} are under way",
                service.name
            ),
            "limits.requests_per_tenant of the service sets how many may be",
        ));
    }
    Ok(CountedFor {
        offered: Arc::clone(offered),
        tenant,
    })
}

fn of_service(
    offered: &Arc<Offered>,
    service: &Service,
    most: usize,
) -> Result<Counted<Arc<Offered>>, Problem> {
    Counted::enter(Arc::clone(offered), most).ok_or_else(|| {
        overloaded(
            format!("{most} requests to {} are under way", service.name),
            "limits.requests of the service sets how many may be",
        )
    })
}

fn overloaded(detail: String, hint: &'static str) -> Problem {
    Problem::new(Code::Overloaded, detail, hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::site::sample_finess;

    #[test]
    fn a_place_is_free_again_once_it_is_left() {
        let count = Arc::new(Count::default());
        let enter = |most| Counted::enter(Arc::clone(&count), most);
        let first = enter(2).unwrap();
        let _second = enter(2).unwrap();
        assert!(enter(2).is_none());
        assert!(enter(3).is_some(), "the limit is the asker's");
        drop(first);
        assert!(enter(2).is_some());
    }

    #[test]
    fn tenants_take_no_place_of_each_other_and_leave_nothing_behind() {
        let load = Load::default();
        let all = || (0..100).map(sample_finess);
        assert!(all().all(|one| load.enter(one, 1)));
        assert!(all().all(|one| !load.enter(one, 1)));
        all().for_each(|one| load.leave(one));
        let parts = load.tenants.iter();
        assert_eq!(
            parts
                .map(|part| part.0.lock().unwrap().len())
                .sum::<usize>(),
            0
        );
    }
}
