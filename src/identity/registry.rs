//! Who is who: which structure is a site of which, which certificates are the éditeur's, which are pinned to whom.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{Binding, Tenants};
use crate::identity::finess::Finess;
use crate::identity::structure::StructureId;
use crate::identity::tenants::{self, Mistake, Structures};

/// What the configuration says of structures and certificates, beyond what certificates say themselves.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Registry {
    /// Sites, their legal entities, sectors and names.
    pub structures: Arc<Structures>,
    bindings: Vec<Binding>,
    /// Positions in `bindings` by tenant: an éditeur may have one for each of thousands.
    by_tenant: HashMap<Option<Finess>, Vec<usize>>,
    vendor: Vec<StructureId>,
}

/// What the structure that a certificate names is to a tenant. The order is that of preference.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Relation {
    /// The tenant itself.
    Own,
    /// The tenant's legal entity (EJ), in a sector where it speaks for its sites.
    LegalEntity,
    /// Its legal entity, in a sector where it does not.
    SilentLegalEntity,
    /// The éditeur.
    Vendor,
    /// Somebody else, or nobody that is known.
    Stranger,
}

impl Registry {
    /// Reads the table of structures that a configuration names, and takes the rest from the configuration itself.
    /// What is wrong with the table is told, and the rest of it is used.
    pub fn load(
        tenants: &Tenants,
        bindings: Vec<Binding>,
        vendor: Vec<StructureId>,
    ) -> (Self, Vec<Mistake>) {
        let (structures, mistakes) = tenants::load(tenants);
        (Self::new(structures, bindings, vendor), mistakes)
    }

    /// Of structures, pinned certificates, and the éditeur's own structures.
    pub fn new(
        structures: impl Into<Arc<Structures>>,
        bindings: Vec<Binding>,
        vendor: Vec<StructureId>,
    ) -> Self {
        let mut by_tenant: HashMap<_, Vec<usize>> = HashMap::new();
        for (at, binding) in bindings.iter().enumerate() {
            by_tenant.entry(binding.tenant).or_default().push(at);
        }
        Self {
            structures: structures.into(),
            bindings,
            by_tenant,
            vendor,
        }
    }

    /// Certificates pinned to a service, for one tenant or all.
    pub fn bindings(&self) -> &[Binding] {
        &self.bindings
    }

    /// What `structure` is to `tenant`.
    pub fn relation(&self, tenant: Finess, structure: Option<&StructureId>) -> Relation {
        let Some(structure) = structure else {
            return Relation::Stranger;
        };
        if self.is_vendor(structure) {
            return Relation::Vendor;
        }
        match structure.finess() {
            Some(own) if own == tenant => Relation::Own,
            Some(other) if self.legal_entity(tenant) == Some(other) => {
                match self.legal_entity_that_speaks(tenant) {
                    Some(_) => Relation::LegalEntity,
                    None => Relation::SilentLegalEntity,
                }
            }
            _ => Relation::Stranger,
        }
    }

    /// Whether a structure is the éditeur's.
    pub fn is_vendor(&self, structure: &StructureId) -> bool {
        self.vendor.contains(structure)
    }

    /// The legal entity that a site belongs to.
    pub fn legal_entity(&self, tenant: Finess) -> Option<Finess> {
        self.structures.legal_entity(tenant)
    }

    /// The same, where the site's sector lets the legal entity's certificate speak for it. An unknown sector does.
    pub fn legal_entity_that_speaks(&self, tenant: Finess) -> Option<Finess> {
        self.structures.legal_entity_that_speaks(tenant)
    }

    /// What is pinned for a tenant and a service: for this tenant, else for all.
    pub fn binding(&self, tenant: Finess, service: &str) -> Option<&Binding> {
        self.pinned(Some(tenant), service)
            .or_else(|| self.pinned(None, service))
    }

    /// What is pinned for a service and exactly this tenant, or for all.
    pub fn pinned(&self, tenant: Option<Finess>, service: &str) -> Option<&Binding> {
        let theirs = self.by_tenant.get(&tenant)?;
        (theirs.iter().map(|&at| &self.bindings[at])).find(|one| one.service == service)
    }
}
