//! What of a table need not be chosen anew: of ten thousand structures, a renewal concerns one.

use std::sync::Arc;

use super::{Offered, Table};
use crate::identity::finess::Finess;

impl Table {
    /// Whether the same is chosen now among the same certificates as when a table was made.
    pub(super) fn chooses_as(&self, before: &Self, now: i64) -> bool {
        !before.is_outdated(now)
            && self.offers(&before.services)
            && Arc::ptr_eq(&self.registry, &before.registry)
            && Arc::ptr_eq(&self.revocations, &before.revocations)
            && self.terms.agree(&before.terms)
    }

    /// Whether a structure's certificates to choose among are those of a table. What is pinned may be anybody's.
    pub(super) fn finds_as(&self, before: &Self, finess: Finess) -> bool {
        let is_pinned =
            |one: &Arc<Offered>| self.registry.binding(finess, &one.service.name).is_some();
        let (own, other) = (self.holders.of(finess), before.holders.of(finess));
        own.len() == other.len()
            && own.iter().zip(other).all(|(a, b)| Arc::ptr_eq(a, b))
            && !self.services.iter().any(is_pinned)
    }
}
