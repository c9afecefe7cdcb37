//! Chains that were verified before, byte by byte the same.
//!
//! Thousands of certificates speak to the same few services. Each of their handshakes is shown the same chain, and to
//! verify its signatures costs a tenth of what Relais does in one. What such a verification comes to depends on the
//! bytes, the name, the anchors and the time alone; so for the same bytes, name and anchors it is done once, and the
//! time is looked at again. That the service holds the key is proved in each handshake, and what is revoked is looked up
//! in each.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

/// Chains kept for each trust policy, those that were used last: services have one, or two while theirs is being renewed.
/// Some 5 KiB each.
const KEPT: usize = 16;

/// What was verified under one set of anchors.
#[derive(Debug, Default)]
pub(super) struct KnownChains(Mutex<VecDeque<Known>>);

#[derive(Debug)]
struct Known {
    name: ServerName<'static>,
    leaf: CertificateDer<'static>,
    intermediates: Vec<CertificateDer<'static>>,
    /// The times within which all of these certificates are valid, in Unix seconds.
    from: i64,
    to: i64,
}

impl Known {
    fn is(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
    ) -> bool {
        self.leaf == *leaf && self.intermediates == intermediates && self.name == *name
    }
}

impl KnownChains {
    fn kept(&self) -> MutexGuard<'_, VecDeque<Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this very chain was verified for this name, and all of it is in its time.
    pub(super) fn has(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> bool {
        let mut kept = self.kept();
        let found = (kept.iter()).position(|known| known.is(leaf, intermediates, name));
        let Some(known) = found.and_then(|at| kept.remove(at)) else {
            return false;
        };
        let is_in_time = (known.from..=known.to).contains(&seconds(now));
        kept.push_front(known);
        is_in_time
    }

    /// Takes down a chain that was verified now.
    pub(super) fn add(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) {
        let (mut from, mut to) = (i64::MIN, i64::MAX);
        for der in intermediates.iter().chain([leaf]) {
            // What nobody needed for the verification may be anything.
            let Ok((_, certificate)) = X509Certificate::from_der(der) else {
                return;
            };
            from = from.max(certificate.validity().not_before.timestamp());
            to = to.min(certificate.validity().not_after.timestamp());
        }
        // It may be out of its time, too.
        if !(from..=to).contains(&seconds(now)) {
            return;
        }
        let owned = intermediates.iter().map(|der| der.clone().into_owned());
        let known = Known {
            name: name.to_owned(),
            leaf: leaf.clone().into_owned(),
            intermediates: owned.collect(),
            from,
            to,
        };
        let mut kept = self.kept();
        // Another handshake may have been here before.
        kept.retain(|known| !known.is(leaf, intermediates, name));
        kept.truncate(KEPT - 1);
        kept.push_front(known);
    }
}

fn seconds(time: UnixTime) -> i64 {
    time.as_secs().cast_signed()
}
