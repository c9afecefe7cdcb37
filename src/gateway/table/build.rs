//! How a table is made: a certificate chosen for each tenant and service, and the reason where there is none.

mod alike;
mod making;

use std::sync::Arc;

use rustc_hash::FxHashMap;

use self::making::Making;
use super::holders::Holders;
use super::{Contents, Offered, Slot, Slots, Table, Terms};
use crate::config::Binding;
use crate::gateway::Door;
use crate::gateway::caller::Callers;
use crate::gateway::rate::{Limiter, TenantRates};
use crate::identity::clock::Validity;
use crate::identity::finess::Finess;
use crate::identity::generation::Generation;
use crate::identity::profile::Profile;
use crate::identity::registry::{Registry, Relation};
use crate::identity::revocation::Revocations;
use crate::identity::rules::Rule;
use crate::identity::select::{Choice, Refusal};
use crate::metrics::Metrics;
use crate::outbound::Outbound;
use crate::outbound::pool::{Pool, Takeover};
use crate::services::{Service, Trust, WantedCertificate};

impl Table {
    /// Chooses a certificate for each tenant and service.
    pub fn new(
        services: &[Arc<Service>],
        generations: Vec<Arc<Generation>>,
        registry: Arc<Registry>,
        revocations: Arc<Revocations>,
        terms: Terms,
        outbound: &Arc<Outbound>,
        metrics: &Metrics,
    ) -> Self {
        let services = services
            .iter()
            .map(|service| Arc::new(Offered::new(service, outbound, metrics)))
            .collect();
        let contents = Contents {
            services,
            generations,
            registry,
            revocations,
            terms,
            doors: Arc::default(),
            callers: Arc::default(),
        };
        Self::build(contents, &mut Making::new(outbound, None, None))
    }

    /// The same for requests that come by these listeners, from these callers.
    #[must_use]
    pub fn with_doors(self, doors: impl IntoIterator<Item = Door>, callers: Callers) -> Self {
        Self {
            doors: doors.into_iter().collect(),
            callers: Arc::new(callers),
            ..self
        }
    }

    /// What it is made of, to make another of.
    pub fn contents(&self) -> Contents {
        Contents {
            services: self.services.clone(),
            generations: self.generations.clone(),
            registry: Arc::clone(&self.registry),
            revocations: Arc::clone(&self.revocations),
            terms: self.terms.clone(),
            doors: Arc::clone(&self.doors),
            callers: Arc::clone(&self.callers),
        }
    }

    /// What is offered once the configuration has these services. One that is unchanged, and whose authorities are
    /// believed as before (`is_believed`), is the very same as now; whatever else may change, a service's rate is that
    /// of one limiter.
    pub fn offer(
        &self,
        services: &[Service],
        is_believed: impl Fn(&Trust) -> bool,
        outbound: &Arc<Outbound>,
        metrics: &Metrics,
    ) -> Vec<Arc<Offered>> {
        let offer = |service: &Service| {
            let before = self
                .by_name
                .get(&service.name)
                .map(|&at| &self.services[at]);
            match before {
                Some(before) if *before.service == *service && is_believed(&service.trust) => {
                    Arc::clone(before)
                }
                _ => {
                    let mut offered = Offered::new(&Arc::new(service.clone()), outbound, metrics);
                    if let Some(before) = before {
                        offered.goes_on_counting(before);
                    }
                    Arc::new(offered)
                }
            }
        };
        services.iter().map(offer).collect()
    }

    /// A table of these contents, and which pools are to take over from which. What is still right keeps its
    /// connections, and so does what was opened in a `candidate` that was made before and not put to use.
    pub fn renewed(
        &self,
        contents: Contents,
        outbound: &Arc<Outbound>,
        candidate: Option<&Self>,
    ) -> (Self, Vec<Takeover>) {
        let mut making = Making::new(outbound, Some(self), candidate);
        let table = Self::build(contents, &mut making);
        (table, making.takeovers)
    }

    /// The pools of its slots; one that several tenants share comes several times.
    pub(super) fn named(&self) -> impl Iterator<Item = &Arc<Pool>> {
        let slots = self.tenants.values().chain([&self.vendor]);
        slots.flat_map(|slots| slots.iter().filter_map(Slot::pool))
    }

    fn build(contents: Contents, making: &mut Making<'_>) -> Self {
        let Contents {
            services,
            generations,
            registry,
            revocations,
            terms,
            doors,
            callers,
        } = contents;
        let by_name = (services.iter().enumerate())
            .map(|(index, one)| (Arc::clone(&one.service.name), index))
            .collect();
        let now = terms.validity.clock.now();
        let mut table = Self {
            edition: making.before.map_or(0, |before| before.edition + 1),
            made_at: now,
            changes_at: changes_at(&generations, &terms.validity, now),
            holders: Holders::new(&generations, &registry),
            vendor: vec![Slot::Absent; services.len()].into(),
            shares: std::array::from_fn(|_| {
                let own = services.iter().map(|one| Offered::clone(one));
                own.map(Arc::new).collect()
            }),
            services,
            by_name,
            tenants: FxHashMap::default(),
            generations,
            registry,
            revocations,
            terms,
            doors,
            callers,
        };
        let alike = making.before.filter(|before| table.chooses_as(before, now));
        let tenants = (table.holders.structures())
            .map(|finess| {
                let choose = |service: &Arc<Service>| table.own(finess, service, now);
                let before = making.before.and_then(|before| before.tenants.get(&finess));
                let slots = match before {
                    // Of ten thousand, most have what they had.
                    Some(slots) if alike.is_some_and(|one| table.finds_as(one, finess)) => {
                        slots.clone()
                    }
                    _ => table.slots(choose, making),
                };
                (finess, slots)
            })
            .collect();
        let vendor = table.slots(|service| table.vendors(service, now), making);
        (table.vendor, table.tenants) = (vendor, tenants);
        table
    }

    /// The pool for each service.
    fn slots(
        &self,
        choose: impl Fn(&Arc<Service>) -> Result<Arc<Generation>, Refusal>,
        making: &mut Making<'_>,
    ) -> Slots {
        let slot = |offered: &Arc<Offered>| {
            let generation = match choose(&offered.service) {
                Ok(generation) => generation,
                Err(refusal) if refusal.gives_way() => return Slot::Absent,
                Err(_) => return Slot::Refused,
            };
            Slot::Open(making.pool(&offered.service, generation))
        };
        self.services.iter().map(slot).collect()
    }

    /// The choice for a tenant among what is pinned, or else among its own certificates.
    fn own(
        &self,
        finess: Finess,
        service: &Arc<Service>,
        now: i64,
    ) -> Result<Arc<Generation>, Refusal> {
        let relation =
            |profile: &Profile| self.registry.relation(finess, profile.structure.as_ref());
        let choice = self.choice(service, now, &relation);
        match self.registry.binding(finess, &service.name) {
            Some(binding) => self.choose_pinned(binding, Some(finess), &choice),
            None => choice.among(self.holders.of(finess)).cloned(),
        }
    }

    /// The choice among the éditeur's certificates, for tenants that have none.
    fn vendors(&self, service: &Arc<Service>, now: i64) -> Result<Arc<Generation>, Refusal> {
        let relation = |profile: &Profile| match &profile.structure {
            Some(structure) if self.registry.is_vendor(structure) => Relation::Vendor,
            _ => Relation::Stranger,
        };
        let choice = self.choice(service, now, &relation);
        match self.registry.pinned(None, &service.name) {
            Some(binding) => self.choose_pinned(binding, None, &choice),
            None => choice.among(self.holders.vendor()).cloned(),
        }
    }

    fn choice<'a>(
        &'a self,
        service: &'a Service,
        now: i64,
        relation: &'a dyn Fn(&Profile) -> Relation,
    ) -> Choice<'a> {
        Choice {
            service,
            now,
            validity: &self.terms.validity,
            revocations: &self.revocations,
            relation,
        }
    }

    fn choose_pinned(
        &self,
        binding: &Binding,
        tenant: Option<Finess>,
        choice: &Choice<'_>,
    ) -> Result<Arc<Generation>, Refusal> {
        let meant = self.holders.meant(binding, tenant, &self.registry);
        if meant.is_empty() {
            return Err(Refusal::Unbound(binding.certificate.to_string()));
        }
        let chosen = match choice.among(&meant).cloned() {
            // Of another kind than the service wants: elsewhere that is no fault, here it was asked for.
            Err(Refusal::Missing {
                passed_over: Some(text),
                ..
            }) => return Err(Refusal::Pinned(Rule::InsiOnly, text)),
            Err(Refusal::Rule(rule, text)) => return Err(Refusal::Pinned(rule, text)),
            chosen => chosen?,
        };
        let profile = &chosen.identity().profile;
        if binding.client_id.is_some() && self.holders.is_shared(profile.fingerprint) {
            let text = format!(
                "the certificate of serial number {} is bound to several client_ids",
                profile.serial
            );
            return Err(Refusal::Pinned(Rule::PscClient, text));
        }
        Ok(chosen)
    }

    /// Why a tenant has no certificate for a service now.
    pub(super) fn refusal(&self, finess: Finess, service: usize, now: i64) -> Refusal {
        let offered = &self.services[service].service;
        if !self.knows(finess) {
            return Refusal::Unknown(finess);
        }
        let refused = |finess: Finess| match self.own(finess, offered, now) {
            Err(refusal) => refusal,
            // A certificate began or ended a moment ago, and the table is about to be made anew.
            Ok(_) => Refusal::Changing,
        };
        let own = refused(finess);
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
        match refused(entity) {
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

/// When the next certificate begins or ends to be used, in Unix seconds.
fn changes_at(generations: &[Arc<Generation>], validity: &Validity, now: i64) -> i64 {
    let profiles = (generations.iter()).map(|one| &one.identity().profile);
    profiles
        .flat_map(|profile| validity.bounds(profile))
        .filter(|at| *at > now)
        .min()
        .unwrap_or(i64::MAX)
}

impl Offered {
    fn new(service: &Arc<Service>, outbound: &Arc<Outbound>, metrics: &Metrics) -> Self {
        let anonymous = (service.certificate == WantedCertificate::None)
            .then(|| Pool::new(Arc::clone(service), None, Arc::clone(outbound)));
        Self {
            service: Arc::clone(service),
            metrics: metrics.service(&service.name),
            limiter: service.rate.map(|rate| Arc::new(Limiter::new(rate))),
            rates: (service.rate_per_tenant).map(|rate| Arc::new(TenantRates::new(rate))),
            load: Arc::default(),
            anonymous,
        }
    }

    /// What is under way, and what the service has seen in this second, does not change with its configuration.
    fn goes_on_counting(&mut self, before: &Self) {
        self.load = Arc::clone(&before.load);
        if self.service.rate == before.service.rate {
            self.limiter.clone_from(&before.limiter);
        }
        if self.service.rate_per_tenant == before.service.rate_per_tenant {
            self.rates.clone_from(&before.rates);
        }
    }
}
