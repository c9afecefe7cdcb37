//! Revocation lists while the process runs: which there are, whose are believed, and what a new one changes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::App;
use crate::config::{Config, CrlSource, Unknown};
use crate::crls::{self, Rules, Source};
use crate::identity::generation::Generation;
use crate::identity::load::Certificate;
use crate::identity::revocation::{Authorities, List, Revocations};
use crate::identity::states::now;
use crate::metrics::Metrics;
use crate::outbound::trust::Anchors;
use crate::services::Trust;

/// How late a list may be looked for.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(1);

/// The lists of the configuration in use.
#[derive(Debug)]
pub(super) struct Lists {
    rules: Rules,
    authorities: Authorities,
    origins: HashSet<CrlSource>,
}

/// A source whose lists are to be followed from now on, or no longer.
#[derive(Debug)]
pub(super) enum Follow {
    /// This one, which was read already.
    Begin(Source),
    /// The one of this file or URL.
    End(CrlSource),
}

/// What a configuration says of revocation, as things stand on disk.
pub fn open_lists(
    config: &Config,
    anchors: &Anchors,
    generations: &[Arc<Generation>],
) -> Revocations {
    let (_, sources) = Lists::open(config, anchors, generations, now());
    revocations(config, &Revocations::default(), &sources)
}

/// What is revoked once these sources have come to those of `before`, and those that the configuration does not name
/// are gone.
pub(super) fn revocations(config: &Config, before: &Revocations, added: &[Source]) -> Revocations {
    let all = before.lists().iter().chain(added.iter().map(Source::list));
    let by_name: HashMap<_, _> = all.map(|list| (&list.source, list)).collect();
    let mut seen = HashSet::new();
    let origins = config.revocation.crls.iter();
    let lists = origins
        .filter(|origin| seen.insert(*origin))
        .filter_map(|origin| {
            let list = by_name.get(&crls::name_of(origin))?;
            Some(List::clone(list))
        });
    let must_know = config.revocation.unknown == Unknown::Refuse;
    Revocations::new(lists.collect(), must_know)
}

impl Lists {
    /// Reads the lists that are on disk.
    pub(super) fn open(
        config: &Config,
        anchors: &Anchors,
        generations: &[Arc<Generation>],
        now: i64,
    ) -> (Self, Vec<Source>) {
        let authorities = authorities(config, anchors, generations);
        let mut lists = Self {
            rules: Rules::new(&config.revocation, authorities.clone()),
            authorities,
            origins: HashSet::new(),
        };
        let (added, _) = lists.rename(config, now);
        (lists, added)
    }

    /// Makes them those of a configuration, which may be another than before, as may be the authorities. Gives the
    /// sources that are new, read from disk, and those that are no longer there.
    pub(super) fn renew(
        &mut self,
        config: &Config,
        anchors: &Anchors,
        generations: &[Arc<Generation>],
        is_same: bool,
        now: i64,
    ) -> (Vec<Source>, Vec<CrlSource>) {
        let authorities = authorities(config, anchors, generations);
        if !is_same || authorities != self.authorities {
            self.rules.renew(&config.revocation, authorities.clone());
            self.authorities = authorities;
        }
        self.rename(config, now)
    }

    fn rename(&mut self, config: &Config, now: i64) -> (Vec<Source>, Vec<CrlSource>) {
        let origins: HashSet<_> = config.revocation.crls.iter().cloned().collect();
        let before = std::mem::replace(&mut self.origins, origins);
        let added = self.origins.difference(&before);
        let added = added.map(|origin| self.rules.open(origin, now));
        (
            added.collect(),
            before.difference(&self.origins).cloned().collect(),
        )
    }
}

/// Whose lists are believed: the authorities of trust files, and those that came with certificates.
fn authorities(config: &Config, anchors: &Anchors, generations: &[Arc<Generation>]) -> Authorities {
    if config.revocation.crls.is_empty() {
        return Authorities::default();
    }
    let mut last: &[Arc<Certificate>] = &[];
    let chains = generations
        .iter()
        .map(|generation| generation.identity().issuers());
    // Thousands in a row are the same, and are told so faster than they are hashed.
    let chains = chains.filter(|chain| {
        let before = std::mem::replace(&mut last, chain).iter();
        !before.map(Arc::as_ptr).eq(chain.iter().map(Arc::as_ptr))
    });
    let chains = chains.flatten().map(|certificate| &certificate.der);
    let lists = config.revocation.trust.iter().cloned().map(Trust::File);
    // Not those of the webhook: whoever is believed there has no say in who is revoked.
    let services = config.services.iter().map(|service| service.trust.clone());
    let trusts: HashSet<_> = services.chain(lists).collect();
    let anchors = trusts.iter().flat_map(|trust| anchors.authorities(trust));
    Authorities::new(anchors, chains)
}

/// Keeps sources fresh, for as long as it is polled.
pub(super) async fn follow(app: Arc<App>, mut changes: mpsc::UnboundedReceiver<Follow>) {
    let mut followed: HashMap<CrlSource, AbortHandle> = HashMap::new();
    while let Some(change) = changes.recv().await {
        let ended = match change {
            Follow::Begin(source) => {
                let origin = source.origin().clone();
                let task = tokio::spawn(follow_one(Arc::clone(&app), source));
                followed.insert(origin, task.abort_handle())
            }
            Follow::End(origin) => followed.remove(&origin),
        };
        if let Some(ended) = ended {
            ended.abort();
        }
    }
}

async fn follow_one(app: Arc<App>, mut source: Source) {
    loop {
        let now = app.clock.now();
        if source.is_due(now) {
            let changed = source.look(now, &app.gateway.metrics).await;
            app.take_list(source.list(), changed);
        }
        tokio::time::sleep(LOOKED_AT_EVERY).await;
    }
}

/// Publishes when a list's successor is due.
pub(super) fn publish(list: &List, metrics: &Metrics) {
    let next_update = list.crl.as_ref().map_or(0, |crl| crl.next_update);
    metrics.crl_next_update(&list.source, next_update);
}

/// Publishes that a source is no longer one of the configuration.
pub(super) fn publish_gone(origin: &CrlSource, metrics: &Metrics) {
    metrics.crl_gone(&crls::name_of(origin));
}

impl App {
    /// Puts a list in the place of the one before, unless its source is no longer one of the configuration. `changed`
    /// says that it names other certificates.
    fn take_list(&self, list: &List, changed: bool) {
        let replacing = self.replacing();
        let Some(revocations) = self.revocations.load().with(list) else {
            return;
        };
        let revocations = Arc::new(revocations);
        self.revocations.store(Arc::clone(&revocations));
        if changed {
            self.outbound.refuse_revoked(&revocations);
        }
        publish(list, &self.gateway.metrics);
        drop(replacing);
        if changed {
            self.certificates_changed();
        } else {
            self.tell();
        }
    }
}
