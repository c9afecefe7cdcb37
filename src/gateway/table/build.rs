//! How a table is made: a certificate chosen for each tenant and service, and the reason where there is none.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Offered, Table, Tenant, finess_of};
use crate::config::{Binding, BoundBy};
use crate::gateway::rate::Limiter;
use crate::identity::finess::Finess;
use crate::identity::generation::{Generation, GenerationId};
use crate::identity::profile::Profile;
use crate::identity::registry::{Registry, Relation};
use crate::identity::revocation::Revocations;
use crate::identity::rules::Rule;
use crate::identity::select::{Choice, Refusal};
use crate::identity::states::now;
use crate::metrics::Metrics;
use crate::outbound::Outbound;
use crate::outbound::pool::Pool;
use crate::services::{Owner, Service, WantedCertificate};

type Pools = HashMap<(GenerationId, usize), Arc<Pool>>;

impl Table {
    /// Chooses a certificate for each tenant and service.
    pub fn new(
        services: &[Arc<Service>],
        generations: Vec<Arc<Generation>>,
        registry: Registry,
        revocations: Arc<Revocations>,
        outbound: &Arc<Outbound>,
        metrics: &Metrics,
    ) -> Self {
        let services = services
            .iter()
            .map(|service| Offered::new(service, outbound, metrics))
            .collect();
        let mut pools = Pools::new();
        Self::build(
            services,
            generations,
            Arc::new(registry),
            revocations,
            outbound,
            &mut pools,
        )
    }

    /// The same as things stand now that certificates have begun, ended or been revoked. What is still right keeps
    /// its connections.
    pub fn renewed(&self, revocations: Arc<Revocations>, outbound: &Arc<Outbound>) -> Self {
        let mut pools = Pools::new();
        let slots = self.tenants.values().map(|tenant| &tenant.pools);
        for (index, pool) in slots
            .chain([&self.vendor])
            .flat_map(|slots| slots.iter().enumerate())
        {
            if let Some(pool) = pool
                && let Some(generation) = pool.generation()
            {
                pools.insert((generation.id(), index), Arc::clone(pool));
            }
        }
        Self::build(
            self.services.clone(),
            self.generations.clone(),
            Arc::clone(&self.registry),
            revocations,
            outbound,
            &mut pools,
        )
    }

    fn build(
        services: Vec<Offered>,
        generations: Vec<Arc<Generation>>,
        registry: Arc<Registry>,
        revocations: Arc<Revocations>,
        outbound: &Arc<Outbound>,
        pools: &mut Pools,
    ) -> Self {
        let by_name = (services.iter().enumerate())
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
        for tenant in registry
            .bindings()
            .iter()
            .filter_map(|binding| binding.tenant)
        {
            theirs.entry(tenant).or_default();
        }
        let mut table = Self {
            pinned: pinned(&registry, &generations),
            vendor: vec![None; services.len()].into(),
            services,
            by_name,
            tenants: HashMap::new(),
            generations,
            registry,
            revocations,
        };
        let mut pool_of = |index: usize, service: &Arc<Service>, generation: &Arc<Generation>| {
            // One pool for each (generation, service), whoever uses it.
            let pool = pools.entry((generation.id(), index)).or_insert_with(|| {
                Pool::new(
                    Arc::clone(service),
                    Some(Arc::clone(generation)),
                    Arc::clone(outbound),
                )
            });
            Arc::clone(pool)
        };
        let now = now();
        let offered = || table.services.iter().map(|one| &one.service).enumerate();
        let vendor = offered()
            .map(|(index, service)| {
                let chosen = table.vendors(service, now).ok()?;
                Some(pool_of(index, service, &chosen))
            })
            .collect();
        let tenants = theirs
            .into_iter()
            .map(|(finess, generations)| {
                let pools = offered()
                    .map(|(index, service)| {
                        let chosen = table.own(finess, &generations, service, now).ok()?;
                        Some(pool_of(index, service, &chosen))
                    })
                    .collect();
                (finess, Tenant { generations, pools })
            })
            .collect();
        (table.vendor, table.tenants) = (vendor, tenants);
        table
    }

    /// The choice for a tenant among what is pinned, or else among its own certificates.
    fn own(
        &self,
        finess: Finess,
        generations: &[Arc<Generation>],
        service: &Arc<Service>,
        now: i64,
    ) -> Result<Arc<Generation>, Refusal> {
        let relation =
            |profile: &Profile| self.registry.relation(finess, profile.structure.as_ref());
        let choice = Choice {
            service,
            now,
            is_revoked: &|profile| self.revocations.is_revoked(profile),
            relation: &relation,
        };
        match self.registry.binding(finess, &service.name) {
            Some(binding) => self.choose_pinned(binding, &choice),
            None => choice.among(generations).cloned(),
        }
    }

    /// The choice among the éditeur's certificates, for tenants that have none.
    fn vendors(&self, service: &Arc<Service>, now: i64) -> Result<Arc<Generation>, Refusal> {
        let relation = |profile: &Profile| match &profile.structure {
            Some(structure) if self.registry.is_vendor(structure) => Relation::Vendor,
            _ => Relation::Stranger,
        };
        let choice = Choice {
            service,
            now,
            is_revoked: &|profile| self.revocations.is_revoked(profile),
            relation: &relation,
        };
        if let Some(binding) = self.registry.pinned(None, &service.name) {
            return self.choose_pinned(binding, &choice);
        }
        let theirs: Vec<_> = (self.generations.iter())
            .filter(|one| relation(&one.identity().profile) == Relation::Vendor)
            .cloned()
            .collect();
        match service.owner {
            Owner::Vendor => choice.among(&theirs).cloned(),
            Owner::Structure => choice.among(&[]).cloned(),
        }
    }

    fn choose_pinned(
        &self,
        binding: &Binding,
        choice: &Choice<'_>,
    ) -> Result<Arc<Generation>, Refusal> {
        let Some(meant) = self.pinned.get(&binding.certificate) else {
            return Err(Refusal::Unbound(binding.certificate.to_string()));
        };
        match choice.among(meant).cloned() {
            // Of another kind than the service wants: elsewhere that is no fault, here it was asked for.
            Err(Refusal::Missing {
                passed_over: Some(text),
                ..
            }) => Err(Refusal::Rule(Rule::InsiOnly, text)),
            chosen => chosen,
        }
    }

    /// Why a tenant has no certificate for a service now.
    pub(super) fn refusal(&self, finess: Finess, service: usize, now: i64) -> Refusal {
        let offered = &self.services[service].service;
        if !self.knows(finess) {
            return Refusal::Unknown(finess);
        }
        let refused = |finess: &Finess| {
            let generations = self
                .tenants
                .get(finess)
                .map_or(&[][..], |own| &own.generations);
            match self.own(*finess, generations, offered, now) {
                Err(refusal) => refusal,
                // A certificate began or ended a moment ago, and the table is about to be made anew.
                Ok(generation) => Refusal::NotYetValid(format!(
                    "serial {} of {}",
                    generation.identity().profile.serial,
                    generation.identity().path.display()
                )),
            }
        };
        let own = refused(&finess);
        let Refusal::Missing {
            wanted,
            environment,
            passed_over,
            ..
        } = &own
        else {
            return own;
        };
        let Some(entity) = self.registry.legal_entity(finess) else {
            return own;
        };
        if self.registry.legal_entity_that_speaks(finess).is_none() {
            return match self.usable(entity, service, now) {
                None => own,
                Some(_) => Refusal::Rule(
                    Rule::SectorSite,
                    format!(
                        "{finess} has no certificate, and that of its legal entity {entity} does not speak for it in its sector"
                    ),
                ),
            };
        }
        match refused(&entity) {
            Refusal::Missing { .. } => Refusal::Missing {
                wanted: *wanted,
                environment: *environment,
                legal_entity: Some(entity),
                passed_over: passed_over.clone(),
            },
            of_entity => of_entity,
        }
    }
}

/// The loaded certificates that bindings mean.
fn pinned(
    registry: &Registry,
    generations: &[Arc<Generation>],
) -> HashMap<BoundBy, Vec<Arc<Generation>>> {
    let mut meant: HashMap<_, Vec<_>> = registry
        .bindings()
        .iter()
        .map(|binding| (binding.certificate.clone(), Vec::new()))
        .collect();
    if meant.is_empty() {
        return meant;
    }
    for generation in generations {
        let identity = generation.identity();
        let name = identity.profile.common_name.as_deref().unwrap_or_default();
        let called = [
            BoundBy::Fingerprint(identity.profile.fingerprint),
            BoundBy::File(identity.path.clone()),
            BoundBy::CommonName(name.to_owned()),
        ];
        for way in &called {
            if let Some(known) = meant.get_mut(way) {
                known.push(Arc::clone(generation));
            }
        }
    }
    meant.retain(|_, known| !known.is_empty());
    meant
}

impl Offered {
    fn new(service: &Arc<Service>, outbound: &Arc<Outbound>, metrics: &Metrics) -> Self {
        let anonymous = (service.certificate == WantedCertificate::None)
            .then(|| Pool::new(Arc::clone(service), None, Arc::clone(outbound)));
        Self {
            service: Arc::clone(service),
            metrics: metrics.service(&service.name),
            limiter: service.rate.map(|rate| Arc::new(Limiter::new(rate))),
            anonymous,
        }
    }
}
