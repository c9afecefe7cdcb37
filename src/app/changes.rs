//! What changes while the process runs, and the one way in which it does: another table takes the place of the one
//! before.

use std::ops::Range;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use super::App;
use crate::gateway::table::{Offered, Table};
use crate::identity::generation::Generation;
use crate::identity::registry::Registry;
use crate::identity::states::{self, State, now};

/// How late a certificate's beginning or end may be acted upon.
const CLOCK_LOOKED_AT_EVERY: Duration = Duration::from_millis(200);

/// What a table is made of, besides what is revoked.
pub(super) struct Contents {
    pub(super) services: Vec<Offered>,
    pub(super) generations: Vec<Arc<Generation>>,
    pub(super) registry: Arc<Registry>,
}

/// Makes the table anew whenever a certificate begins or ends, so that the one that is right by now is shown; and tells
/// of those that come near their end.
pub(super) async fn follow_the_clock(app: Arc<App>) {
    let mut seen = app.gateway.table.load_full();
    let mut told = app.told_until(now());
    loop {
        // A clock that is set leaps over any time slept through, so it is looked at again and again.
        tokio::time::sleep(CLOCK_LOOKED_AT_EVERY).await;
        let now = now();
        if app.gateway.table.load().is_outdated(now) {
            app.certificates_changed();
            tracing::info!("a certificate has begun or ended: certificates chosen anew");
        } else if !told.contains(&now) {
            app.publish_states();
        } else if Arc::ptr_eq(&seen, &app.gateway.table.load()) {
            continue;
        }
        // Also when others have put a new table in place: its certificates have moments of their own.
        seen = app.gateway.table.load_full();
        told = app.told_until(now);
    }
}

impl App {
    /// Chooses certificates anew, now that one has begun, ended or been revoked. What is open under one that is no
    /// longer chosen is not used again.
    pub fn certificates_changed(&self) {
        let as_they_are = |old: &Table| Contents {
            services: old.services().to_vec(),
            generations: old.generations().to_vec(),
            registry: Arc::clone(old.registry()),
        };
        self.replace(&[], as_they_are);
    }

    /// Puts a table of other contents in the place of the one in use, and says of the certificates that are gone that
    /// they are. One at a time: each table is made of the one before, or something that another has changed would be
    /// lost. `with` runs when it is this one's turn.
    pub(super) fn replace(&self, gone: &[Arc<Generation>], with: impl FnOnce(&Table) -> Contents) {
        let replacing = self.replacing();
        let old = self.gateway.table.load_full();
        let Contents {
            services,
            generations,
            registry,
        } = with(&old);
        let revocations = self.revocations.load_full();
        let renewed = old.renewed(services, generations, registry, revocations, &self.outbound);
        let renewed = Arc::new(renewed);
        self.gateway.table.store(Arc::clone(&renewed));
        old.retire_for(&renewed);
        let metrics = &self.gateway.metrics;
        // Before what is there: one that was removed from one file may be there in another.
        states::publish_gone(gone, metrics);
        states::publish_states(renewed.generations(), renewed.revocations(), metrics);
        drop(replacing);
        self.tell();
    }

    /// Whoever changes what is in use waits here for its turn.
    pub(super) fn replacing(&self) -> MutexGuard<'_, ()> {
        self.replacing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes how certificates stand, and tells what was not told yet.
    fn publish_states(&self) {
        let replacing = self.replacing();
        let table = self.gateway.table.load();
        let metrics = &self.gateway.metrics;
        states::publish_states(table.generations(), &self.revocations.load(), metrics);
        drop(replacing);
        self.tell();
    }

    /// From now until the next moment at which a certificate's state changes or somebody is to be told of its end.
    fn told_until(&self, now: i64) -> Range<i64> {
        let table = self.gateway.table.load();
        let profiles = (table.generations().iter()).map(|one| &one.identity().profile);
        let changes = profiles.flat_map(State::changes).filter(|at| *at > now);
        now..changes.min().unwrap_or(i64::MAX)
    }

    /// Tells what needs somebody's attention and was not told yet.
    pub(super) fn tell(&self) {
        let table = self.gateway.table.load();
        self.notices
            .look(table.generations(), &self.revocations.load(), now());
    }
}
