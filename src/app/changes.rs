//! What changes while the process runs, and the one way in which it does: another table takes the place of the one
//! before.

use std::ops::Range;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

use super::App;
use crate::gateway::table::{Contents, Table};
use crate::identity::generation::Generation;
use crate::identity::registry::Registry;
use crate::identity::states::{self, State};

/// How late a certificate's beginning or end may be acted upon.
const CLOCK_LOOKED_AT_EVERY: Duration = Duration::from_millis(200);

/// A table that is to take the place of another, if that is still in use by then.
pub(super) struct Candidate {
    of: Arc<Table>,
    table: Arc<Table>,
}

/// Makes the table anew whenever a certificate begins or ends, so that the one that is right by now is shown; and tells
/// of those that come near their end.
pub(super) async fn follow_the_clock(app: Arc<App>) {
    let mut seen = app.gateway.table.load_full();
    let mut refused = 0;
    let mut told = app.told_until(app.clock.now());
    loop {
        // A clock that is set leaps over any time slept through, so it is looked at again and again.
        tokio::time::sleep(CLOCK_LOOKED_AT_EVERY).await;
        let now = app.clock.now();
        let rejections = app.outbound.rejections();
        if rejections != refused {
            refused = rejections;
            app.tell();
        }
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
        self.replace(&[], None, |old| Contents {
            revocations: self.revocations.load_full(),
            ..old.contents()
        });
    }

    /// Makes a table of these certificates and structures, and opens connections in its pools that are to take over
    /// from busy ones. It waits for them on the runtime that calls it, and so must not be called on one of its threads
    /// that has more to do.
    pub(super) fn prepare(
        &self,
        generations: &[Arc<Generation>],
        registry: &Arc<Registry>,
    ) -> Candidate {
        let of = self.gateway.table.load_full();
        let contents = Contents {
            generations: generations.to_vec(),
            registry: Arc::clone(registry),
            revocations: self.revocations.load_full(),
            ..of.contents()
        };
        let (table, takeovers) = of.renewed(contents, &self.outbound, None);
        Handle::current().block_on(self.outbound.warm(takeovers));
        let table = Arc::new(table);
        Candidate { of, table }
    }

    /// Puts a table of other contents in the place of the one in use, and says of the certificates that are gone that
    /// they are. One at a time: each table is made of the one before, or something that another has changed would be
    /// lost. `with` runs when it is this one's turn; the candidate is used if by then it is what would be made.
    pub(super) fn replace(
        &self,
        gone: &[Arc<Generation>],
        candidate: Option<Candidate>,
        with: impl FnOnce(&Table) -> Contents,
    ) {
        let replacing = self.replacing();
        let old = self.gateway.table.load_full();
        let contents = with(&old);
        let prepared = candidate.as_ref().map(|made| &made.table);
        let renewed = match &candidate {
            Some(Candidate { of, table })
                if Arc::ptr_eq(of, &old) && table.is_made_of(&contents) =>
            {
                Arc::clone(table)
            }
            _ => {
                let prepared = prepared.map(|table| &**table);
                Arc::new(old.renewed(contents, &self.outbound, prepared).0)
            }
        };
        renewed.withdraw(&self.outbound.pools());
        self.gateway.table.store(Arc::clone(&renewed));
        for unused in [Some(&old), prepared].into_iter().flatten() {
            if !Arc::ptr_eq(unused, &renewed) {
                unused.retire_for(&renewed);
            }
        }
        let (metrics, now) = (&self.gateway.metrics, self.clock.now());
        // Before what is there: one that was removed from one file may be there in another.
        states::publish_gone(gone, metrics);
        states::publish_states(renewed.generations(), renewed.revocations(), metrics, now);
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
        let now = self.clock.now();
        states::publish_states(table.generations(), &self.revocations.load(), metrics, now);
        drop(replacing);
        self.tell();
    }

    /// From now until the next moment at which a certificate's state changes or somebody is to be told of its end.
    fn told_until(&self, now: i64) -> Range<i64> {
        let table = self.gateway.table.load();
        let profiles = (table.generations().iter()).map(|one| &one.identity().profile);
        let changes = profiles
            .flat_map(|profile| State::changes(profile))
            .filter(|at| *at > now);
        now..changes.min().unwrap_or(i64::MAX)
    }

    /// Tells what needs somebody's attention and was not told yet.
    pub(super) fn tell(&self) {
        let table = self.gateway.table.load();
        self.notices.look(
            table.generations(),
            &self.revocations.load(),
            &self.outbound.rejected(),
            self.clock.now(),
        );
    }
}
