//! The snapshot that requests read: which pool, and so which certificate, serves (tenant, service).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::gateway::reply::{Code, Problem};
use crate::identity::finess::Finess;
use crate::identity::generation::{Generation, GenerationId};
use crate::identity::select::{Refusal, select};
use crate::identity::states::{State, now};
use crate::metrics::{Metrics, ServiceMetrics};
use crate::outbound::Outbound;
use crate::outbound::pool::Pool;
use crate::services::{Service, WantedCertificate};

/// An immutable view of all tenants and services. A change makes another and swaps it in whole.
#[derive(Debug)]
pub struct Table {
    services: Vec<Offered>,
    by_name: HashMap<Arc<str>, usize>,
    tenants: HashMap<Finess, Tenant>,
    generations: Vec<Arc<Generation>>,
}

/// A service with its held metrics.
#[derive(Clone, Debug)]
pub struct Offered {
    /// The service.
    pub service: Arc<Service>,
    /// Its handles.
    pub metrics: Arc<ServiceMetrics>,
    /// Its connections, where no certificate is shown and so all tenants share them.
    anonymous: Option<Arc<Pool>>,
}

/// A tenant's certificates, and what was chosen among them for each service.
#[derive(Debug)]
struct Tenant {
    generations: Vec<Arc<Generation>>,
    /// By the service's index; nothing where no certificate may be shown.
    pools: Box<[Option<Arc<Pool>>]>,
}

impl Table {
    /// Chooses a certificate for each tenant and service.
    pub fn new(
        services: &[Arc<Service>],
        generations: Vec<Arc<Generation>>,
        outbound: &Arc<Outbound>,
        metrics: &Metrics,
    ) -> Self {
        let services: Vec<_> = services
            .iter()
            .map(|service| Offered::new(service, outbound, metrics))
            .collect();
        let by_name = services
            .iter()
            .enumerate()
            .map(|(index, one)| (Arc::clone(&one.service.name), index))
            .collect();
        let mut theirs: HashMap<Finess, Vec<Arc<Generation>>> = HashMap::new();
        for generation in &generations {
            if let Some(finess) = finess_of(generation) {
                theirs
                    .entry(finess)
                    .or_default()
                    .push(Arc::clone(generation));
            }
        }
        Self {
            tenants: choose(&services, theirs, outbound, HashMap::new()),
            services,
            by_name,
            generations,
        }
    }

    /// The same tenants and services as they stand now that certificates have begun or ended. What is still right
    /// keeps its connections.
    pub fn renewed(&self, outbound: &Arc<Outbound>) -> Self {
        let theirs = self
            .tenants
            .iter()
            .map(|(finess, tenant)| (*finess, tenant.generations.clone()))
            .collect();
        let mut pools = HashMap::new();
        for (index, pool) in self
            .tenants
            .values()
            .flat_map(|tenant| tenant.pools.iter().enumerate())
        {
            if let Some(pool) = pool
                && let Some(generation) = pool.generation()
            {
                pools.insert((generation.id(), index), Arc::clone(pool));
            }
        }
        Self {
            services: self.services.clone(),
            by_name: self.by_name.clone(),
            tenants: choose(&self.services, theirs, outbound, pools),
            generations: self.generations.clone(),
        }
    }

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
}

type Pools = HashMap<(GenerationId, usize), Arc<Pool>>;

/// Chooses a certificate for each tenant and service. There is one pool for each (generation, service), whoever uses
/// it: one of `pools` if it is there, else a new one.
fn choose(
    services: &[Offered],
    theirs: HashMap<Finess, Vec<Arc<Generation>>>,
    outbound: &Arc<Outbound>,
    mut pools: Pools,
) -> HashMap<Finess, Tenant> {
    let now = now();
    let mut chosen_for = |generations: &[Arc<Generation>]| {
        let chosen = services.iter().enumerate().map(|(index, offered)| {
            let generation = select(generations, &offered.service, now).ok()?;
            let pool = pools.entry((generation.id(), index)).or_insert_with(|| {
                Pool::new(
                    Arc::clone(&offered.service),
                    Some(Arc::clone(generation)),
                    Arc::clone(outbound),
                )
            });
            Some(Arc::clone(pool))
        });
        chosen.collect()
    };
    theirs
        .into_iter()
        .map(|(finess, generations)| {
            let pools = chosen_for(&generations);
            (finess, Tenant { generations, pools })
        })
        .collect()
}

impl Table {
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
    /// When the tenant is unknown, or has no certificate that may be shown there now.
    pub fn pool(&self, tenant: Option<Finess>, service: usize) -> Result<&Arc<Pool>, Problem> {
        let offered = &self.services[service];
        if let Some(pool) = &offered.anonymous {
            return Ok(pool);
        }
        let finess = crate::gateway::address::required(tenant)?;
        let tenant = self.tenants.get(&finess).ok_or_else(|| {
            Problem::new(
                Code::TenantUnknown,
                format!("no certificate of structure {finess} is loaded"),
                "put its certificate and key in the folder and restart Relais; `relais check` lists what would be loaded",
            )
        })?;
        let now = now();
        match &tenant.pools[service] {
            Some(pool) if is_valid(pool, now) => Ok(pool),
            _ => Err(tenant.refusal(&offered.service, now).into()),
        }
    }

    /// All services.
    pub fn services(&self) -> &[Offered] {
        &self.services
    }

    /// All loaded generations.
    pub fn generations(&self) -> &[Arc<Generation>] {
        &self.generations
    }

    /// All tenants in order of their number, each with its pool for each service.
    pub fn tenants(&self) -> Vec<(Finess, &[Option<Arc<Pool>>])> {
        let mut tenants: Vec<_> = self
            .tenants
            .iter()
            .map(|(finess, tenant)| (*finess, &*tenant.pools))
            .collect();
        tenants.sort_unstable_by_key(|(finess, _)| *finess);
        tenants
    }

    /// The certificate that a tenant would show to a service now.
    ///
    /// # Errors
    /// Why there is none. A structure without any certificate has none of the kind wanted.
    pub fn choose(
        &self,
        tenant: Finess,
        service: usize,
    ) -> Result<Option<&Arc<Generation>>, Refusal> {
        let service = &self.services[service].service;
        if service.certificate == WantedCertificate::None {
            return Ok(None);
        }
        let theirs = self
            .tenants
            .get(&tenant)
            .map_or(&[][..], |tenant| &tenant.generations);
        select(theirs, service, now()).map(Some)
    }

    /// Every pool once, with the tenant that it speaks for, if it is one.
    pub fn pools(&self) -> Vec<(Option<Finess>, Arc<Pool>)> {
        let anonymous = self
            .services
            .iter()
            .filter_map(|one| one.anonymous.clone())
            .map(|pool| (None, pool));
        let named = self.tenants().into_iter().flat_map(|(finess, pools)| {
            pools
                .iter()
                .flatten()
                .map(move |pool| (Some(finess), Arc::clone(pool)))
        });
        anonymous.chain(named).collect()
    }

    /// Lets nothing that is open be used again.
    pub fn retire(&self) {
        for (_, pool) in self.pools() {
            pool.retire();
        }
    }
}

impl Offered {
    fn new(service: &Arc<Service>, outbound: &Arc<Outbound>, metrics: &Metrics) -> Self {
        let anonymous = (service.certificate == WantedCertificate::None)
            .then(|| Pool::new(Arc::clone(service), None, Arc::clone(outbound)));
        Self {
            service: Arc::clone(service),
            metrics: metrics.service(&service.name),
            anonymous,
        }
    }
}

impl Tenant {
    /// Why no certificate was chosen, or why the chosen one no longer serves. Worked out when it is asked for, since
    /// thousands of tenants without a certificate for some service would each keep the reason in memory.
    fn refusal(&self, service: &Service, now: i64) -> Refusal {
        match select(&self.generations, service, now) {
            Err(refusal) => refusal,
            // A certificate began or ended a moment ago, and the table is about to be made anew.
            Ok(generation) => Refusal::NotYetValid(format!(
                "serial {} of {}",
                generation.identity().profile.serial,
                generation.identity().path.display()
            )),
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
