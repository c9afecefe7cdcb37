//! The pools of a table that is being made: those that there are, and those that take over from them.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::Table;
use crate::identity::generation::{Generation, GenerationId};
use crate::identity::structure::StructureId;
use crate::outbound::Outbound;
use crate::outbound::pool::{Pool, Takeover};
use crate::services::Service;

/// By generation and, since services of one name may be configured differently over time, the service's place in memory.
type Pools = FxHashMap<(GenerationId, *const Service), Arc<Pool>>;

/// What a table is made with, besides what it is made of.
pub(super) struct Making<'a> {
    outbound: &'a Arc<Outbound>,
    /// The table that is in use until then.
    pub(super) before: Option<&'a Table>,
    candidate: Option<&'a Table>,
    /// Worked out only if somebody has no longer what they had.
    known: Option<Known<'a>>,
    pub(super) takeovers: Vec<Takeover>,
}

/// The pools that there are.
struct Known<'a> {
    pools: Pools,
    /// Of the table in use: those of each structure at each service.
    before: FxHashMap<(&'a StructureId, &'a str), Vec<&'a Arc<Pool>>>,
}

impl<'a> Known<'a> {
    fn of(before: Option<&'a Table>, candidate: Option<&'a Table>) -> Self {
        let mut pools = Pools::default();
        for pool in candidate.into_iter().chain(before).flat_map(Table::named) {
            // What was retired meanwhile serves nobody any more.
            if let Some(generation) = pool.generation()
                && !pool.is_retired()
            {
                let key = (generation.id(), Arc::as_ptr(pool.service()));
                pools.insert(key, Arc::clone(pool));
            }
        }
        let mut by_structure: FxHashMap<_, Vec<_>> = FxHashMap::default();
        for pool in before.into_iter().flat_map(Table::named) {
            if let Some(structure) = pool.generation().and_then(|one| structure(one)) {
                let key = (structure, &*pool.service().name);
                by_structure.entry(key).or_default().push(pool);
            }
        }
        Self {
            pools,
            before: by_structure,
        }
    }

    /// What served a structure at a service: of several pools the one whose certificate was in the same file, or else
    /// the latest.
    fn predecessor(&self, service: &Service, generation: &Generation) -> Option<&'a Arc<Pool>> {
        let key = (structure(generation)?, &*service.name);
        let path = &generation.identity().path;
        let rank = |pool: &&&Arc<Pool>| {
            let before = pool.generation();
            before.map(|one| (one.identity().path == *path, one.id()))
        };
        self.before.get(&key)?.iter().max_by_key(rank).copied()
    }
}

impl<'a> Making<'a> {
    pub(super) fn new(
        outbound: &'a Arc<Outbound>,
        before: Option<&'a Table>,
        candidate: Option<&'a Table>,
    ) -> Self {
        Self {
            outbound,
            before,
            candidate,
            known: None,
            takeovers: Vec::new(),
        }
    }

    /// The pool of a generation for a service. There is one for each (generation, service), whoever uses it. A new one
    /// takes over from what served the same structure there.
    pub(super) fn pool(
        &mut self,
        service: &Arc<Service>,
        generation: Arc<Generation>,
    ) -> Arc<Pool> {
        let (before, candidate) = (self.before, self.candidate);
        let known = (self.known).get_or_insert_with(|| Known::of(before, candidate));
        let key = (generation.id(), Arc::as_ptr(service));
        if let Some(pool) = known.pools.get(&key) {
            return Arc::clone(pool);
        }
        let pool = match known.predecessor(service, &generation) {
            Some(from) => {
                let to = from.successor(service, generation);
                self.takeovers.push(Takeover {
                    from: Arc::clone(from),
                    to: Arc::clone(&to),
                });
                to
            }
            None => Pool::new(
                Arc::clone(service),
                Some(generation),
                Arc::clone(self.outbound),
            ),
        };
        known.pools.insert(key, Arc::clone(&pool));
        pool
    }
}

fn structure(generation: &Generation) -> Option<&StructureId> {
    generation.identity().profile.structure.as_ref()
}
