//! What is revoked: the revocation lists (CRLs) of authorities, verified once, as one immutable view.
//!
//! A certificate is told by its issuer's name and its serial number, which no authority gives twice (RFC 5280
//! section 4.1.2.2). A list goes on refusing what it names when its successor is late: what is revoked stays so.

mod authorities;
mod crl;
mod problem;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::sync::Arc;

pub use self::authorities::Authorities;
pub use self::crl::{Crl, LARGEST};
pub use self::problem::CrlProblem;
use super::profile::Profile;

/// All lists as they stand. A change makes another.
#[derive(Clone, Debug, Default)]
pub struct Revocations {
    lists: Vec<List>,
    must_know: bool,
}

/// One source of lists, and what came of it.
#[derive(Clone, Debug)]
pub struct List {
    /// The file or URL, as configured.
    pub source: Arc<str>,
    /// The list in use: the last one that was right, even if its successor is overdue. Of several, the first to end.
    pub crl: Option<Arc<Crl>>,
    /// What it gave of other authorities, and which stays in use too: whoever can answer in place of a server could
    /// otherwise undo revocations, or keep out the right list, with a good list of an authority that is not meant.
    /// There is one for each authority at most.
    pub others: Vec<Arc<Crl>>,
    /// What is wrong with the source at present.
    pub problem: Option<Arc<CrlProblem>>,
}

impl List {
    /// A source that has given nothing yet.
    pub fn new(source: Arc<str>) -> Self {
        Self {
            source,
            crl: None,
            others: Vec::new(),
            problem: None,
        }
    }

    /// All lists of it that are in use.
    pub fn crls(&self) -> impl Iterator<Item = &Crl> {
        self.crl.iter().chain(&self.others).map(|crl| &**crl)
    }

    /// Takes a list into use, in the place of the one that it succeeds.
    pub fn take(&mut self, next: Crl) {
        self.others.extend(self.crl.take());
        self.others.retain(|crl| !next.succeeds(crl));
        self.others.push(Arc::new(next));
        self.others.sort_by_key(|crl| Reverse(crl.next_update));
        self.crl = self.others.pop();
    }
}

impl Revocations {
    /// A view of these lists. `must_know` makes services unbelievable whose authority has no list in force.
    pub fn new(lists: Vec<List>, must_know: bool) -> Self {
        Self { lists, must_know }
    }

    /// A view in which one certificate is revoked.
    #[cfg(test)]
    pub(crate) fn naming(issuer: &str, serial: &[u8]) -> Self {
        let mut list = List::new("made-up.crl".into());
        list.take(Crl::naming(issuer, serial));
        Self::new(vec![list], false)
    }

    /// The same view with a list put in the place of the one before from the same source. None if that source is no
    /// longer one of those in use.
    pub fn with(&self, list: &List) -> Option<Self> {
        let mut next = self.clone();
        let is_it = |one: &&mut List| one.source == list.source;
        *next.lists.iter_mut().find(is_it)? = list.clone();
        Some(next)
    }

    /// The sources in the order of the configuration.
    pub fn lists(&self) -> &[List] {
        &self.lists
    }

    /// Whether services are refused whose authority has no list in force.
    pub fn must_know(&self) -> bool {
        self.must_know
    }

    /// Whether a certificate is revoked.
    pub fn is_revoked(&self, profile: &Profile) -> bool {
        // To ask of ten thousand certificates should cost nothing where there are no lists.
        if self.lists.is_empty() {
            return false;
        }
        let serial = &profile.serial;
        let bytes: Vec<u8> = (0..serial.len() / 2)
            .filter_map(|at| u8::from_str_radix(&serial[2 * at..2 * at + 2], 16).ok())
            .collect();
        self.revokes(&profile.issuer, &bytes)
    }

    /// Whether some list of this issuer (as RFC 4514 writes it) has this serial number (big-endian), or the issuer is
    /// itself revoked.
    pub fn revokes(&self, issuer: &str, serial: &[u8]) -> bool {
        let mut authorities = self.crls().flat_map(|crl| &crl.authorities);
        self.of(issuer).any(|crl| crl.has(serial)) || authorities.any(|name| **name == *issuer)
    }

    /// Whether nobody can say if certificates of this issuer are revoked at that time, in seconds since 1970, and
    /// the configuration wants to know.
    pub fn is_in_doubt(&self, issuer: &str, now: i64) -> bool {
        self.must_know && !(self.of(issuer)).any(|crl| !crl.of_authorities && !crl.has_ended(now))
    }

    fn of(&self, issuer: &str) -> impl Iterator<Item = &Crl> {
        self.crls().filter(move |crl| &*crl.issuer == issuer)
    }

    fn crls(&self) -> impl Iterator<Item = &Crl> {
        self.lists.iter().flat_map(List::crls)
    }
}
