//! One immutable loaded version of an identity.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::identity::load::Identity;

/// Tells two generations apart, also two of the same certificate; never used twice in a process. A later one is greater.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct GenerationId(u64);

/// An identity as loaded at one moment. A renewal makes another; this one is never changed.
///
/// What is opened under it (TLS sessions, connections) belongs to it and goes with it, so there is nothing in
/// which an old certificate could live on after its generation was retired.
#[derive(Debug)]
pub struct Generation {
    id: GenerationId,
    identity: Arc<Identity>,
}

impl Generation {
    /// Makes the next generation out of an identity.
    pub fn new(identity: impl Into<Arc<Identity>>) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new(Self {
            id: GenerationId(NEXT.fetch_add(1, Ordering::Relaxed)),
            identity: identity.into(),
        })
    }

    /// Its number.
    pub fn id(&self) -> GenerationId {
        self.id
    }

    /// The certificate, its key and what Relais learned from them.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}
