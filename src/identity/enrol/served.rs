//! The certificates that are served, or will be, and what `[[bindings]]` say of them.

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::{Binding, BoundBy};
use crate::identity::generation::Generation;
use crate::identity::profile::{Fingerprint, Profile};
use crate::identity::registry::{Registry, Relation};

/// All of them.
pub(super) struct Served {
    known: Vec<Known>,
    registry: Registry,
}

/// A certificate and its file.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) profile: Arc<Profile>,
    pub(super) path: PathBuf,
}

impl Served {
    pub(super) fn new(generations: &[Arc<Generation>], registry: Registry) -> Self {
        let identities = generations.iter().map(|generation| generation.identity());
        let known = identities.map(|identity| Known {
            profile: Arc::clone(&identity.profile),
            path: identity.path.clone(),
        });
        Self {
            known: known.collect(),
            registry,
        }
    }

    pub(super) fn add(&mut self, new: Known) {
        self.known.push(new);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Known> {
        self.known.iter()
    }

    pub(super) fn find(&self, fingerprint: Fingerprint) -> Option<&Known> {
        self.iter()
            .find(|one| one.profile.fingerprint == fingerprint)
    }

    /// The others of its kind: those among which, and it, the gateway has to choose.
    pub(super) fn peers(&self, one: &Known) -> impl Iterator<Item = &Known> {
        self.iter().filter(|other| {
            other.kind() == one.kind() && other.profile.fingerprint != one.profile.fingerprint
        })
    }

    /// Of these the one that cannot be told from it by when it began.
    pub(super) fn twin(&self, one: &Known) -> Option<&Known> {
        self.peers(one)
            .find(|other| other.profile.not_before == one.profile.not_before)
    }

    /// The bindings that name a certificate, by whatever it has.
    pub(super) fn pins(&self, one: &Known) -> impl Iterator<Item = &Binding> {
        (self.registry.bindings().iter()).filter(|binding| match &binding.certificate {
            BoundBy::Fingerprint(fingerprint) => *fingerprint == one.profile.fingerprint,
            BoundBy::File(path) => *path == one.path,
            BoundBy::CommonName(name) => {
                one.profile.common_name.as_deref() == Some(name) && self.may_mean(binding, one)
            }
        })
    }

    pub(super) fn is_pinned(&self, one: &Known) -> bool {
        self.pins(one).next().is_some()
    }

    /// Those of the bindings that a renewal under the same name does not follow.
    pub(super) fn exact_pins(&self, one: &Known) -> impl Iterator<Item = &Binding> {
        self.pins(one)
            .filter(|binding| !matches!(binding.certificate, BoundBy::CommonName(_)))
    }

    /// Many have the same CN: a binding means the tenant's, its legal entity's, or the éditeur's.
    fn may_mean(&self, binding: &Binding, one: &Known) -> bool {
        let structure = one.profile.structure.as_ref();
        match binding.tenant {
            Some(tenant) => self.registry.relation(tenant, structure) != Relation::Stranger,
            None => self.is_vendors(one),
        }
    }

    /// Whether it is the éditeur's.
    pub(super) fn is_vendors(&self, one: &Known) -> bool {
        (one.profile.structure.as_ref()).is_some_and(|structure| self.registry.is_vendor(structure))
    }
}

impl Known {
    /// What those that could take each other's place have in common.
    fn kind(&self) -> impl PartialEq + use<'_> {
        let profile = &self.profile;
        let structure = profile.structure.as_ref();
        (structure, profile.environment, profile.usage, profile.insi)
    }
}
