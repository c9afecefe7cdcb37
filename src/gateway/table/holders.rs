//! Who holds which certificates: each structure, the éditeur, and what bindings mean by file or fingerprint.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{Binding, BoundBy};
use crate::identity::finess::Finess;
use crate::identity::generation::Generation;
use crate::identity::registry::Registry;

/// All loaded certificates, by who may be meant by them.
#[derive(Debug, Default)]
pub(super) struct Holders {
    /// The structures that have certificates, or for which some are pinned.
    by_structure: HashMap<Finess, Vec<Arc<Generation>>>,
    vendor: Vec<Arc<Generation>>,
    exact: HashMap<BoundBy, Vec<Arc<Generation>>>,
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
        holders
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

    /// What a binding means. Thousands of certificates may have the same CN: it is looked for among those that may
    /// be meant at all, the tenant's own, its legal entity's and the éditeur's.
    pub(super) fn meant(&self, binding: &Binding, registry: &Registry) -> Vec<Arc<Generation>> {
        let BoundBy::CommonName(name) = &binding.certificate else {
            return (self.exact.get(&binding.certificate).cloned()).unwrap_or_default();
        };
        let entity = (binding.tenant).and_then(|tenant| registry.legal_entity(tenant));
        let theirs = [binding.tenant, entity].into_iter().flatten();
        (theirs.flat_map(|finess| self.of(finess)))
            .chain(&self.vendor)
            .filter(|one| one.identity().profile.common_name.as_deref() == Some(name))
            .cloned()
            .collect()
    }
}
