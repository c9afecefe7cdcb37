//! Who holds which certificates: each structure, the éditeur, and what bindings mean by file or fingerprint.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::config::{Binding, BoundBy};
use crate::identity::finess::Finess;
use crate::identity::generation::Generation;
use crate::identity::profile::Fingerprint;
use crate::identity::registry::Registry;

/// All loaded certificates, by who may be meant by them.
#[derive(Debug, Default)]
pub(super) struct Holders {
    /// The structures that have certificates, or for which some are pinned.
    by_structure: FxHashMap<Finess, Vec<Arc<Generation>>>,
    vendor: Vec<Arc<Generation>>,
    exact: HashMap<BoundBy, Vec<Arc<Generation>>>,
    /// The clients of Pro Santé Connect that certificates are bound to.
    clients: HashMap<Fingerprint, BTreeSet<String>>,
}

impl Holders {
    pub(super) fn new(generations: &[Arc<Generation>], registry: &Registry) -> Self {
        let mut holders = Self::default();
        for binding in registry.bindings() {
            holders
                .exact
                .insert(binding.certificate.clone(), Vec::new());
            if let Some(tenant) = binding.tenant {
                holders.by_structure.entry(tenant).or_default();
            }
        }
        for generation in generations {
            holders.add(generation, registry);
        }
        for binding in registry.bindings() {
            let Some(client) = &binding.client_id else {
                continue;
            };
            for generation in holders.meant(binding, binding.tenant, registry) {
                let fingerprint = generation.identity().profile.fingerprint;
                let clients = holders.clients.entry(fingerprint).or_default();
                clients.insert(client.clone());
            }
        }
        holders
    }

    /// The certificates that are bound to several clients of Pro Santé Connect.
    pub(super) fn shared_clients(&self) -> impl Iterator<Item = (Fingerprint, Vec<&str>)> {
        let shared = self.clients.iter().filter(|(_, clients)| clients.len() > 1);
        shared.map(|(fingerprint, clients)| {
            (*fingerprint, clients.iter().map(String::as_str).collect())
        })
    }

    /// Whether a certificate is one of them.
    pub(super) fn is_shared(&self, fingerprint: Fingerprint) -> bool {
        (self.clients.get(&fingerprint)).is_some_and(|clients| clients.len() > 1)
    }

    fn add(&mut self, generation: &Arc<Generation>, registry: &Registry) {
        let identity = generation.identity();
        if let Some(structure) = &identity.profile.structure {
            if let Some(finess) = structure.finess() {
                let theirs = self.by_structure.entry(finess).or_default();
                theirs.push(Arc::clone(generation));
            }
            if registry.is_vendor(structure) {
                self.vendor.push(Arc::clone(generation));
            }
        }
        if self.exact.is_empty() {
            return;
        }
        let ways = [
            BoundBy::Fingerprint(identity.profile.fingerprint),
            BoundBy::File(identity.path.clone()),
        ];
        for way in &ways {
            if let Some(meant) = self.exact.get_mut(way) {
                meant.push(Arc::clone(generation));
            }
        }
    }

    /// The structures that have certificates, or for which some are pinned.
    pub(super) fn structures(&self) -> impl Iterator<Item = Finess> {
        self.by_structure.keys().copied()
    }

    /// A structure's own.
    pub(super) fn of(&self, finess: Finess) -> &[Arc<Generation>] {
        self.by_structure.get(&finess).map_or(&[], Vec::as_slice)
    }

    /// The éditeur's.
    pub(super) fn vendor(&self) -> &[Arc<Generation>] {
        &self.vendor
    }

    /// What a binding means for a tenant. Thousands of certificates may have the same CN: it is looked for among those
    /// that may be meant at all, the tenant's own, its legal entity's and the éditeur's.
    pub(super) fn meant(
        &self,
        binding: &Binding,
        tenant: Option<Finess>,
        registry: &Registry,
    ) -> Vec<Arc<Generation>> {
        let BoundBy::CommonName(name) = &binding.certificate else {
            return (self.exact.get(&binding.certificate).cloned()).unwrap_or_default();
        };
        let entity = tenant.and_then(|tenant| registry.legal_entity(tenant));
        let theirs = [tenant, entity].into_iter().flatten();
        (theirs.flat_map(|finess| self.of(finess)))
            .chain(&self.vendor)
            .filter(|one| one.identity().profile.common_name.as_deref() == Some(name))
            .cloned()
            .collect()
    }
}
