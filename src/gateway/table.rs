//! The snapshot that requests read: which pool, and so which certificate, serves (tenant, service).

mod build;
mod holders;
mod lookup;

use std::cell::OnceCell;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use self::holders::Holders;
use crate::config::Identities;
use crate::gateway::Door;
use crate::gateway::caller::Callers;
use crate::gateway::limits::Load;
use crate::gateway::rate::{Limiter, TenantRates};
use crate::gateway::reply::Problem;
use crate::identity::clock::{Clock, Validity};
use crate::identity::finess::Finess;
use crate::identity::generation::{Generation, GenerationId};
use crate::identity::profile::{Fingerprint, InsiMode, Profile};
use crate::identity::registry::Registry;
use crate::identity::revocation::Revocations;
use crate::identity::select::Refusal;
use crate::identity::structure::StructureId;
use crate::metrics::ServiceMetrics;
use crate::outbound::pool::Pool;
use crate::services::{Environment, InFlight, Service};
use crate::share;

/// An immutable view of all tenants and services. A change makes another and swaps it in whole.
#[derive(Debug)]
pub struct Table {
    edition: u64,
    services: Vec<Arc<Offered>>,
    /// The same once more for each share of the threads, for requests to hold on to.
    shares: [Box<[Arc<Offered>]>; share::COUNT],
    by_name: FxHashMap<Arc<str>, usize>,
    /// The structures that have certificates of their own, or pinned ones.
    tenants: FxHashMap<Finess, Slots>,
    /// Under the éditeur's certificate, where the service takes it.
    vendor: Slots,
    generations: Vec<Arc<Generation>>,
    registry: Arc<Registry>,
    revocations: Arc<Revocations>,
    terms: Terms,
    doors: Arc<[Door]>,
    callers: Arc<Callers>,
    holders: Holders,
    /// When it was made, in Unix seconds.
    made_at: i64,
    /// When the next certificate begins or ends, in Unix seconds.
    changes_at: i64,
}

/// What a table is made of.
#[derive(Debug)]
pub struct Contents {
    /// The services, in the order of the configuration.
    pub services: Vec<Arc<Offered>>,
    /// The certificates to choose from.
    pub generations: Vec<Arc<Generation>>,
    /// Who is who.
    pub registry: Arc<Registry>,
    /// What is revoked.
    pub revocations: Arc<Revocations>,
    /// How long certificates are used.
    pub terms: Terms,
    /// What each listener says of its requests, in the order in which they were bound.
    pub doors: Arc<[Door]>,
    /// Who may make requests.
    pub callers: Arc<Callers>,
}

/// How long certificates are used, and what becomes of what is in flight then.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Which are in their time.
    pub validity: Validity,
    /// What becomes of requests in flight under those that are revoked, or removed with nothing in their place.
    pub withdrawal: InFlight,
}

impl Terms {
    /// What a configuration says.
    pub fn of(clock: Clock, config: &Identities) -> Self {
        Self {
            validity: Validity::new(clock, config.retire_before_expiry),
            withdrawal: config.withdrawal,
        }
    }

    fn agree(&self, other: &Self) -> bool {
        self.validity.agrees(&other.validity) && self.withdrawal == other.withdrawal
    }
}

/// What is there of certificates by now, to judge those that were in use before.
struct Standing<'a> {
    revocations: &'a Revocations,
    loaded: HashSet<GenerationId>,
    paths: HashSet<&'a Path>,
    kinds: HashSet<(
        Option<&'a StructureId>,
        Option<Environment>,
        Option<InsiMode>,
    )>,
}

impl<'a> Standing<'a> {
    fn of(table: &'a Table) -> Self {
        let identities = || table.generations.iter().map(|one| one.identity());
        Self {
            revocations: &table.revocations,
            loaded: table.generations.iter().map(|one| one.id()).collect(),
            paths: identities().map(|one| one.path.as_path()).collect(),
            kinds: identities().map(|one| kind(&one.profile)).collect(),
        }
    }

    /// Whether a certificate is still loaded or was written over by another, and is not revoked. Whoever wants one out
    /// of use removes its file.
    fn may_be_used(&self, one: &Generation) -> bool {
        let is_there = || {
            self.loaded.contains(&one.id()) || self.paths.contains(one.identity().path.as_path())
        };
        !self.revocations.is_revoked(&one.identity().profile) && is_there()
    }

    /// Whether a certificate is revoked, or gone and nothing of its kind has come in its place.
    fn is_withdrawn(&self, one: &Generation) -> bool {
        let profile = &one.identity().profile;
        self.revocations.is_revoked(profile)
            || !self.may_be_used(one) && !self.kinds.contains(&kind(profile))
    }
}

fn kind(profile: &Profile) -> (Option<&StructureId>, Option<Environment>, Option<InsiMode>) {
    (
        profile.structure.as_ref(),
        profile.environment,
        profile.insi,
    )
}

/// A service with what all its requests share. On lines of the processor's cache of its own, with its reference count:
/// see `share`.
#[derive(Clone, Debug)]
#[repr(align(128))]
pub struct Offered {
    /// The service.
    pub service: Arc<Service>,
    /// Its metrics.
    pub metrics: Arc<ServiceMetrics>,
    /// Its limit on requests a second, if it has one.
    pub limiter: Option<Arc<Limiter>>,
    /// Its limit on each tenant's requests a second, if it has one.
    pub rates: Option<Arc<TenantRates>>,
    /// What is under way to it.
    pub load: Arc<Load>,
    /// Its connections, where no certificate is shown and so all tenants share them.
    anonymous: Option<Arc<Pool>>,
}

/// What a structure has for a service.
#[derive(Clone, Debug)]
pub enum Slot {
    /// A certificate, and the connections under it.
    Open(Arc<Pool>),
    /// No certificate of the kind that the service wants: its legal entity's may be used.
    Absent,
    /// A certificate that is not to be used (ended, revoked, pinned wrongly), or several that nothing tells apart.
    /// Nothing takes its place, or the service would see another identity from one second to the next.
    Refused,
}

/// By the service's index.
type Slots = Box<[Slot]>;

impl Slot {
    /// The connections, if there is a certificate.
    pub fn pool(&self) -> Option<&Arc<Pool>> {
        match self {
            Self::Open(pool) => Some(pool),
            Self::Absent | Self::Refused => None,
        }
    }
}

impl Table {
    /// Whether certificates have begun or ended since it was made, so that others would be chosen at `now`, in Unix
    /// seconds. A clock that was set back counts too.
    pub fn is_outdated(&self, now: i64) -> bool {
        !(self.made_at..self.changes_at).contains(&now)
    }

    /// Lets nothing that is open be used again unless `successor` uses it too; requests in flight finish.
    pub fn retire_for(&self, successor: &Self) {
        let kept: FxHashSet<_> = successor.every().map(Arc::as_ptr).collect();
        for pool in self.every() {
            if !kept.contains(&Arc::as_ptr(pool)) {
                pool.retire(InFlight::Finish);
            }
        }
    }

    /// Every pool; one that several tenants share comes several times.
    fn every(&self) -> impl Iterator<Item = &Arc<Pool>> {
        let anonymous = self.services.iter();
        anonymous
            .filter_map(|one| one.anonymous.as_ref())
            .chain(self.named())
    }

    /// Has certificates that are not to be used any more taken out of use wherever they still are: nothing falls back
    /// on them, and of all these `pools` those in which something may still be in flight under one are cut off, if the
    /// terms say so. To be called before anybody uses the table.
    pub fn withdraw(&self, pools: &[Arc<Pool>]) {
        let standing = OnceCell::new();
        let standing = || standing.get_or_init(|| Standing::of(self));
        for pool in self.every() {
            pool.keep_previous_if(|one| standing().may_be_used(one));
        }
        if self.terms.withdrawal == InFlight::Cut {
            let withdrawn = |pool: &&Arc<Pool>| {
                let generation = pool.generation();
                generation.is_some_and(|one| standing().is_withdrawn(one))
            };
            (pools.iter().filter(withdrawn)).for_each(|pool| pool.retire(InFlight::Cut));
        }
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
        let now = self.terms.validity.clock.now();
        self.usable(tenant, service, now)
            .ok_or_else(|| self.refusal(tenant, service, now))
    }

    /// The first slot that says something: the structure's own, its legal entity's, the éditeur's.
    fn usable(&self, finess: Finess, service: usize, now: i64) -> Option<&Arc<Pool>> {
        let says = |finess: Finess| {
            let slot = &self.tenants.get(&finess)?[service];
            Some(slot).filter(|slot| !matches!(slot, Slot::Absent))
        };
        let entity = || says(self.registry.legal_entity_that_speaks(finess)?);
        let vendor = || Some(&self.vendor[service]).filter(|_| self.knows(finess));
        let pool = says(finess).or_else(entity).or_else(vendor)?.pool()?;
        Some(pool).filter(|pool| self.is_in_time(pool, now))
    }

    /// The pool that serves in place of one whose certificate its service refuses: under the certificate before it, as
    /// long as that is in its time. Otherwise the pool itself.
    pub fn serving(&self, pool: &Arc<Pool>) -> Arc<Pool> {
        let stand_in = pool.stand_in();
        let in_time = stand_in.filter(|one| self.is_in_time(one, self.terms.validity.clock.now()));
        in_time.unwrap_or_else(|| Arc::clone(pool))
    }

    fn is_in_time(&self, pool: &Pool, now: i64) -> bool {
        (pool.dates()).is_some_and(|dates| self.terms.validity.holds(dates, now))
    }

    /// Whether anything is known of a structure: a certificate, or a line of the table of structures.
    pub fn knows(&self, finess: Finess) -> bool {
        self.tenants.contains_key(&finess) || self.registry.structures.get(finess).is_some()
    }

    /// Whether there is a structure that can use a service which wants a certificate.
    pub fn serves_anybody(&self) -> bool {
        let slots = self.tenants.values().chain([&self.vendor]);
        slots
            .flat_map(|slots| slots.iter())
            .any(|slot| slot.pool().is_some())
    }

    /// What each listener says of its requests.
    pub fn doors(&self) -> &[Door] {
        &self.doors
    }

    /// Who may make requests.
    pub fn callers(&self) -> &Callers {
        &self.callers
    }

    /// All services.
    pub fn services(&self) -> &[Arc<Offered>] {
        &self.services
    }

    /// All loaded generations.
    pub fn generations(&self) -> &[Arc<Generation>] {
        &self.generations
    }

    /// Who is who.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The certificates that bindings give to several clients of Pro Santé Connect, with those clients.
    pub fn shared_clients(&self) -> impl Iterator<Item = (Fingerprint, Vec<&str>)> {
        self.holders.shared_clients()
    }

    /// Whether these are the very services that it offers.
    fn offers(&self, services: &[Arc<Offered>]) -> bool {
        let pairs = self.services.iter().zip(services);
        self.services.len() == services.len()
            && pairs
                .into_iter()
                .all(|(own, other)| Arc::ptr_eq(&own.service, &other.service))
    }

    /// Whether it is made of these contents, and so is as good as one made of them now.
    pub fn is_made_of(&self, contents: &Contents) -> bool {
        let ids =
            |generations: &[Arc<Generation>]| generations.iter().map(|one| one.id()).collect();
        let (own, other): (Vec<_>, Vec<_>) = (ids(&self.generations), ids(&contents.generations));
        self.offers(&contents.services)
            && own == other
            && Arc::ptr_eq(&self.registry, &contents.registry)
            && Arc::ptr_eq(&self.revocations, &contents.revocations)
            && self.terms.agree(&contents.terms)
            && self.doors == contents.doors
            && self.callers == contents.callers
    }

    /// What was revoked when it was made.
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// The structures that have certificates of their own or pinned ones, in order of their number, each with its
    /// pool for each service.
    pub fn tenants(&self) -> Vec<(Finess, &[Slot])> {
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
        let anonymous = self
            .services
            .iter()
            .filter_map(|one| one.anonymous.as_ref());
        let shared = anonymous.chain(self.vendor.iter().filter_map(Slot::pool));
        let shared = shared.map(|pool| (None, Arc::clone(pool)));
        let named = self.tenants().into_iter().flat_map(|(finess, pools)| {
            (pools.iter())
                .filter_map(Slot::pool)
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
        for pool in self.every() {
            pool.retire(InFlight::Finish);
        }
    }
}

/// The tenant that a generation's certificate names in its OU.
pub fn finess_of(generation: &Generation) -> Option<Finess> {
    generation.identity().profile.structure.as_ref()?.finess()
}

#[cfg(test)]
mod tests;
