//! The snapshot that requests read: which pool, and so which certificate, serves (tenant, service).

mod build;
mod holders;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use self::holders::Holders;
use crate::config::Binding;
use crate::gateway::rate::Limiter;
use crate::gateway::reply::{Code, Problem};
use crate::identity::finess::Finess;
use crate::identity::generation::Generation;
use crate::identity::registry::Registry;
use crate::identity::revocation::Revocations;
use crate::identity::select::Refusal;
use crate::identity::states::{State, now};
use crate::metrics::ServiceMetrics;
use crate::outbound::pool::Pool;
use crate::services::Service;

/// An immutable view of all tenants and services. A change makes another and swaps it in whole.
#[derive(Debug)]
pub struct Table {
    services: Vec<Offered>,
    by_name: HashMap<Arc<str>, usize>,
    /// The structures that have certificates of their own, or pinned ones.
    tenants: HashMap<Finess, Slots>,
    /// Under the éditeur's certificate, where the service takes it.
    vendor: Slots,
    generations: Vec<Arc<Generation>>,
    registry: Arc<Registry>,
    revocations: Arc<Revocations>,
    holders: Holders,
}

/// A service with what all its requests share.
#[derive(Clone, Debug)]
pub struct Offered {
    /// The service.
    pub service: Arc<Service>,
    /// Its metrics.
    pub metrics: Arc<ServiceMetrics>,
    /// Its limit on requests a second, if it has one.
    pub limiter: Option<Arc<Limiter>>,
    /// Its connections, where no certificate is shown and so all tenants share them.
    anonymous: Option<Arc<Pool>>,
}

/// By the service's index, the connections to it; nothing where no certificate may be shown.
type Slots = Box<[Option<Arc<Pool>>]>;

impl Table {
    /// The next moment at which a certificate changes its state, in Unix seconds.
    pub fn changes_at(&self, now: i64) -> Option<i64> {
        let profiles = (self.generations.iter()).map(|one| &one.identity().profile);
        profiles
            .flat_map(State::changes)
            .filter(|at| *at > now)
            .min()
    }

    /// Lets nothing that is open be used again unless `successor` uses it too.
    pub fn retire_for(&self, successor: &Self) {
        let kept: HashSet<_> = successor
            .pools()
            .into_iter()
            .map(|(_, pool)| Arc::as_ptr(&pool))
            .collect();
        for (_, pool) in self.pools() {
            if !kept.contains(&Arc::as_ptr(&pool)) {
                pool.retire();
            }
        }
    }

    /// The service of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn service(&self, name: &str) -> Result<(usize, &Offered), Problem> {
        let index = self.by_name.get(name).copied().ok_or_else(|| {
            let known: Vec<_> = self
                .services
                .iter()
                .map(|offered| &*offered.service.name)
                .collect();
            Problem::new(
                Code::ServiceUnknown,
                format!("the path's first segment is none of {}", known.join(", ")),
                "a service is served once the configuration has a [services.NAME] section for it",
            )
        })?;
        Ok((index, &self.services[index]))
    }

    /// The connections on which `tenant` may speak to a service.
    ///
    /// # Errors
    /// When no tenant is named, or it has no certificate that may be shown there now.
    pub fn pool(&self, tenant: Option<Finess>, service: usize) -> Result<&Arc<Pool>, Problem> {
        if let Some(pool) = &self.services[service].anonymous {
            return Ok(pool);
        }
        let finess = crate::gateway::address::required(tenant)?;
        Ok(self.choose(finess, service)?)
    }

    /// The connections of a tenant to a service that wants a certificate: what is pinned, else under its own
    /// certificate, else under its legal entity's, else under the éditeur's.
    ///
    /// # Errors
    /// Why there is none. It is worked out only then: thousands of tenants without a certificate for some service
    /// would each keep the reason in memory.
    pub fn choose(&self, tenant: Finess, service: usize) -> Result<&Arc<Pool>, Refusal> {
        let now = now();
        self.usable(tenant, service, now)
            .ok_or_else(|| self.refusal(tenant, service, now))
    }

    fn usable(&self, finess: Finess, service: usize, now: i64) -> Option<&Arc<Pool>> {
        let valid =
            |slot: &'_ Option<Arc<Pool>>| slot.as_ref().is_some_and(|pool| is_valid(pool, now));
        let of = |finess: &Finess| {
            let slots = self.tenants.get(finess)?;
            Some(&slots[service]).filter(|slot| valid(slot))?.as_ref()
        };
        if let Some(own) = of(&finess) {
            return Some(own);
        }
        // What is pinned is meant: nothing takes its place.
        if self.is_pinned(finess, service) {
            return None;
        }
        let entity = self.registry.legal_entity_that_speaks(finess);
        entity.and_then(|entity| of(&entity)).or_else(|| {
            let vendor = Some(&self.vendor[service]).filter(|slot| valid(slot))?;
            vendor.as_ref().filter(|_| self.knows(finess))
        })
    }

    fn is_pinned(&self, finess: Finess, service: usize) -> bool {
        let service = &self.services[service].service.name;
        self.registry.pinned(Some(finess), service).is_some()
    }

    fn knows(&self, finess: Finess) -> bool {
        self.tenants.contains_key(&finess) || self.registry.structures.get(finess).is_some()
    }

    /// All services.
    pub fn services(&self) -> &[Offered] {
        &self.services
    }

    /// All loaded generations.
    pub fn generations(&self) -> &[Arc<Generation>] {
        &self.generations
    }

    /// The loaded certificates that a binding means.
    pub fn meant(&self, binding: &Binding) -> Vec<Arc<Generation>> {
        self.holders.meant(binding, &self.registry)
    }

    /// Who is who.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What was revoked when it was made.
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// The structures that have certificates of their own or pinned ones, in order of their number, each with its
    /// pool for each service.
    pub fn tenants(&self) -> Vec<(Finess, &[Option<Arc<Pool>>])> {
        let mut tenants: Vec<_> = self
            .tenants
            .iter()
            .map(|(finess, slots)| (*finess, &**slots))
            .collect();
        tenants.sort_unstable_by_key(|(finess, _)| *finess);
        tenants
    }

    /// Every pool once, with the tenant that it speaks for, if it is one.
    pub fn pools(&self) -> Vec<(Option<Finess>, Arc<Pool>)> {
        let shared = (self.services.iter().map(|one| &one.anonymous)).chain(&self.vendor);
        let shared = shared.flatten().map(|pool| (None, Arc::clone(pool)));
        let named = self.tenants().into_iter().flat_map(|(finess, pools)| {
            pools
                .iter()
                .flatten()
                .map(move |pool| (Some(finess), Arc::clone(pool)))
        });
        let mut seen = HashSet::new();
        named
            .chain(shared)
            .filter(|(_, pool)| seen.insert(Arc::as_ptr(pool)))
            .collect()
    }

    /// Lets nothing that is open be used again.
    pub fn retire(&self) {
        for (_, pool) in self.pools() {
            pool.retire();
        }
    }
}

fn is_valid(pool: &Pool, now: i64) -> bool {
    pool.generation()
        .is_some_and(|one| one.identity().profile.is_valid_at(now))
}

/// The tenant that a generation's certificate names in its OU.
pub fn finess_of(generation: &Generation) -> Option<Finess> {
    generation.identity().profile.structure.as_ref()?.finess()
}

#[cfg(test)]
mod tests;
