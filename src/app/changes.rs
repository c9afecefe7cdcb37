//! What changes while the process runs: certificates begin and end, and lists revoke them.

use std::ops::Range;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use tokio::runtime::Handle;

use super::App;
use crate::config::{Revocation, Unknown};
use crate::crls::{self, Source};
use crate::gateway::table::Table;
use crate::identity::generation::Generation;
use crate::identity::registry::Registry;
use crate::identity::revocation::{Authorities, List, Revocations};
use crate::identity::states::{self, State};
use crate::metrics::Metrics;
use crate::notices::{self, Webhook};
use crate::outbound::pool::Takeover;
use crate::outbound::{self, TrustError};
use crate::services::{Service, Trust};

/// How late a certificate's beginning or end may be acted upon.
const CLOCK_LOOKED_AT_EVERY: Duration = Duration::from_millis(200);

/// How late a list may be looked for.
const LISTS_LOOKED_AT_EVERY: Duration = Duration::from_secs(1);

/// Reads the lists that are on disk at `now`, in seconds since 1970: what they name is refused from the first request on.
///
/// # Errors
/// When a file of authorities cannot be used.
pub fn open_lists(
    config: &Revocation,
    services: &[Arc<Service>],
    generations: &[Arc<Generation>],
    metrics: &Metrics,
    now: i64,
) -> Result<(Vec<Source>, Revocations), TrustError> {
    let must_know = config.unknown == Unknown::Refuse;
    if config.crls.is_empty() {
        return Ok((Vec::new(), Revocations::new(Vec::new(), must_know)));
    }
    let trusted = services.iter().filter_map(|service| match &service.trust {
        Trust::File(path) => Some(path),
        Trust::Public => None,
    });
    let mut anchors: Vec<CertificateDer<'static>> = Vec::new();
    for path in trusted.chain(&config.trust) {
        anchors.extend(outbound::authorities(path)?);
    }
    let chains = generations
        .iter()
        .flat_map(|generation| generation.identity().key.cert.iter().skip(1));
    let authorities = Authorities::new(&anchors, chains);
    let sources = crls::open(config, authorities, now);
    for source in &sources {
        publish(source.list(), metrics);
    }
    let lists = sources.iter().map(|source| source.list().clone()).collect();
    Ok((sources, Revocations::new(lists, must_know)))
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

/// Keeps lists fresh, and posts what there is to tell.
pub(super) fn follow_lists(app: &Arc<App>, sources: Vec<Source>, webhook: Option<Webhook>) {
    for (index, source) in sources.into_iter().enumerate() {
        tokio::spawn(follow_list(Arc::clone(app), index, source));
    }
    if let Some(webhook) = webhook {
        let (notices, metrics) = (Arc::clone(&app.notices), Arc::clone(&app.gateway.metrics));
        tokio::spawn(notices::deliver(notices, webhook, metrics));
    }
}

/// Keeps one source fresh, the `index`th of the configuration, for as long as it is polled.
async fn follow_list(app: Arc<App>, index: usize, mut source: Source) {
    loop {
        let now = app.clock.now();
        if source.is_due(now) {
            let changed = source.look(now, &app.gateway.metrics).await;
            app.take_list(index, source.list().clone(), changed);
        }
        tokio::time::sleep(LISTS_LOOKED_AT_EVERY).await;
    }
}

fn publish(list: &List, metrics: &Metrics) {
    let next_update = list.crl.as_ref().map_or(0, |crl| crl.next_update);
    metrics.crl_next_update(&list.source, next_update);
}

/// A table that is to take the place of another, if that is still in use by then.
struct Candidate {
    of: Arc<Table>,
    table: Arc<Table>,
}

impl App {
    /// Chooses certificates anew, now that one has begun, ended or been revoked. What is open under one that is no
    /// longer chosen is not used again.
    pub fn certificates_changed(&self) {
        self.replace(None, |old| {
            (old.generations().to_vec(), Arc::clone(old.registry()))
        });
    }

    /// Puts these certificates and structures in the place of those in use. Where a certificate that is in use is
    /// renewed, connections are opened under the new one first: this waits for them on the runtime that calls it, and
    /// so must not be called on one of its threads that has more to do.
    pub(super) fn replace_table(&self, generations: &[Arc<Generation>], registry: &Arc<Registry>) {
        let with = |_: &Table| (generations.to_vec(), Arc::clone(registry));
        let of = self.gateway.table.load_full();
        let (table, takeovers) = self.renewed(&of, None, with);
        Handle::current().block_on(self.outbound.warm(takeovers));
        let table = Arc::new(table);
        self.replace(Some(Candidate { of, table }), with);
    }

    /// One at a time: each table is made of the one before, or something that another has changed would be lost.
    fn replace(
        &self,
        candidate: Option<Candidate>,
        with: impl FnOnce(&Table) -> (Vec<Arc<Generation>>, Arc<Registry>),
    ) {
        let replacing = self
            .replacing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let old = self.gateway.table.load_full();
        let revocations = self.revocations.load();
        let candidate = candidate.as_ref();
        let renewed = match candidate {
            Some(made) if Arc::ptr_eq(&made.of, &old) && made.table.is_made_with(&revocations) => {
                Arc::clone(&made.table)
            }
            // Certificates have ended or been revoked meanwhile.
            made => Arc::new(self.renewed(&old, made.map(|made| &*made.table), with).0),
        };
        self.gateway.table.store(Arc::clone(&renewed));
        for unused in [Some(&old), candidate.map(|made| &made.table)] {
            let unused = unused.filter(|unused| !Arc::ptr_eq(unused, &renewed));
            unused.inspect(|unused| unused.retire_for(&renewed, self.withdrawal));
        }
        drop(replacing);
        self.publish_states();
    }

    fn renewed(
        &self,
        old: &Table,
        candidate: Option<&Table>,
        with: impl FnOnce(&Table) -> (Vec<Arc<Generation>>, Arc<Registry>),
    ) -> (Table, Vec<Takeover>) {
        let (generations, registry) = with(old);
        let revocations = self.revocations.load_full();
        old.renewed(
            generations,
            registry,
            revocations,
            &self.outbound,
            candidate,
        )
    }

    /// Publishes that certificates are no longer there.
    pub(super) fn publish_gone(&self, generations: &[Arc<Generation>]) {
        let _replacing = self
            .replacing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let metrics = &self.gateway.metrics;
        states::publish_gone(generations, metrics);
        // One that was removed from one file may be there in another.
        let table = self.gateway.table.load();
        states::publish_states(
            table.generations(),
            &self.revocations.load(),
            metrics,
            self.clock.now(),
        );
    }

    /// Publishes how certificates stand, and tells what was not told yet.
    fn publish_states(&self) {
        let replacing = self
            .replacing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let table = self.gateway.table.load();
        let metrics = &self.gateway.metrics;
        states::publish_states(
            table.generations(),
            &self.revocations.load(),
            metrics,
            self.clock.now(),
        );
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
        self.notices.look(
            table.generations(),
            &self.revocations.load(),
            &self.outbound.rejected(),
            self.clock.now(),
        );
    }

    /// Puts a list in the place of the one before. `changed` says that it names other certificates.
    fn take_list(&self, index: usize, list: List, changed: bool) {
        self.revocations
            .rcu(|revocations| revocations.with(index, list.clone()));
        if changed {
            self.outbound.refuse_revoked(&self.revocations.load());
            self.certificates_changed();
        } else {
            self.tell();
        }
        publish(&list, &self.gateway.metrics);
    }
}
