//! Reads certificates and the table of structures again, while requests go on.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use anyhow::Context as _;
use serde::Serialize;
use tokio::sync::watch;

use super::{App, supervisor};
use crate::config::{Binding, Identities, Tenants};
use crate::identity::generation::Generation;
use crate::identity::load::{LoadError, Problem, Stamp};
use crate::identity::registry::Registry;
use crate::identity::revocation::Revocations;
use crate::identity::store::{Change, Store};
use crate::identity::structure::StructureId;
use crate::identity::tenants::Mistake;

/// Where certificates and structures come from.
#[derive(Debug)]
pub(super) struct Sources {
    store: Store,
    tenants: Tenants,
    bindings: Vec<Binding>,
    vendor: Vec<StructureId>,
    registry: Arc<Registry>,
    /// What the system said of the files of structures when they were read.
    stamps: Vec<Option<Stamp>>,
    mistakes: Vec<Mistake>,
    /// What was written down of files last time, so that it is not again each time that they are looked at.
    told: HashSet<String>,
}

/// What a reload has changed.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whether other certificates or structures are in use than before.
    pub changed: bool,
    /// How many certificates there are now.
    pub certificates: usize,
    /// The new ones.
    pub added: Vec<Entry>,
    /// The ones that are no longer used.
    pub removed: Vec<Entry>,
    /// The ones whose file is no longer in order, and which are used as they were.
    pub kept: Vec<Entry>,
    /// What is wrong with files.
    pub problems: Vec<Trouble>,
    /// How long it took.
    pub milliseconds: u64,
}

/// A certificate in a report.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// Its file.
    pub file: String,
    /// Its subject (RFC 4514).
    pub subject: String,
    /// Its serial number.
    pub serial: String,
}

/// What is wrong with a file.
#[derive(Debug, Serialize)]
pub struct Trouble {
    /// The file.
    pub file: String,
    /// What is wrong.
    pub reason: String,
    /// What to do.
    pub hint: String,
}

impl Sources {
    pub(super) fn new(
        identities: Identities,
        tenants: Tenants,
        bindings: Vec<Binding>,
        vendor: Vec<StructureId>,
    ) -> Self {
        let mut sources = Self {
            store: Store::new(identities),
            tenants,
            bindings,
            vendor,
            registry: Arc::default(),
            stamps: Vec::new(),
            mistakes: Vec::new(),
            told: HashSet::new(),
        };
        // There is nothing older to keep in the place of what is wrong.
        let (registry, mistakes) = sources.structures();
        (sources.registry, sources.mistakes) = (Arc::new(registry), mistakes);
        sources
    }

    pub(super) fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.registry)
    }

    /// Reads the folder of certificates, and says what of it cannot be used.
    pub(super) fn read_certificates(
        &mut self,
        revocations: &Revocations,
        now: i64,
    ) -> Result<Change, LoadError> {
        let change = self.store.read(revocations, now)?;
        let mut told = HashSet::new();
        for problem in &change.problems {
            let text = problem.to_string();
            if !self.told.contains(&text) {
                tracing::warn!(
                    path = %problem.path.display(),
                    reason = %problem.kind,
                    hint = %problem.hint,
                    "a file cannot be used"
                );
            }
            told.insert(text);
        }
        for generation in &change.kept {
            let path = generation.identity().path.display().to_string();
            if !self.told.contains(&path) {
                tracing::warn!(
                    path,
                    "the certificate that was loaded from this file before is used on"
                );
            }
            told.insert(path);
        }
        self.told = told;
        if change.is_one() {
            tracing::info!(
                certificates = change.generations.len(),
                added = change.added.len(),
                removed = change.removed.len(),
                unusable = change.problems.len(),
                "certificates loaded"
            );
        }
        Ok(change)
    }

    /// Reads the table of structures if its files have changed. One with errors leaves the last good one in use: a site
    /// must not change its identity because a file is half written.
    fn read_structures(&mut self) -> bool {
        let stamps: Vec<_> = (self.tenants.files.iter())
            .map(|path| Stamp::of(path))
            .collect();
        let is_read = stamps == self.stamps && stamps.iter().all(Option::is_some);
        if is_read {
            return false;
        }
        let (registry, mistakes) = self.structures();
        self.stamps = stamps;
        let is_good = mistakes.iter().all(Mistake::is_warning);
        self.mistakes = mistakes;
        let is_new = is_good && *self.registry != registry;
        if is_new {
            self.registry = Arc::new(registry);
        }
        is_new
    }

    fn structures(&self) -> (Registry, Vec<Mistake>) {
        let (bindings, vendor) = (self.bindings.clone(), self.vendor.clone());
        let (registry, mistakes) = Registry::load(&self.tenants, bindings, vendor);
        let known: HashSet<_> = self.mistakes.iter().map(ToString::to_string).collect();
        for mistake in mistakes
            .iter()
            .filter(|one| !known.contains(&one.to_string()))
        {
            tracing::warn!(
                place = %mistake.place,
                reason = %mistake.kind,
                hint = mistake.hint(),
                "the table of structures has a mistake"
            );
        }
        (registry, mistakes)
    }
}

/// Reloads whenever `changes` does, for as long as it is polled. What went wrong was written down.
pub(super) async fn on(app: Arc<App>, mut changes: watch::Receiver<()>) {
    while changes.changed().await.is_ok() {
        if app.is_stopping() {
            tracing::info!("no reload: the gateway is stopping");
            continue;
        }
        supervisor::tell_reloading();
        let _ = app.reload().await;
        app.tell_ready();
    }
}

impl App {
    /// Reads certificates and the table of structures again, and takes up what has changed: from then on no request
    /// starts under what is gone, and those in flight finish. What is not in order leaves everything as it was.
    ///
    /// # Errors
    /// When the folder or passwords cannot be read.
    pub async fn reload(self: &Arc<Self>) -> anyhow::Result<Report> {
        self.read_again(true).await
    }

    /// The same without having been asked: it is no reload if nothing has changed.
    pub(super) async fn look(self: &Arc<Self>) {
        // What went wrong was written down.
        let _ = self.read_again(false).await;
    }

    async fn read_again(self: &Arc<Self>, is_asked: bool) -> anyhow::Result<Report> {
        // Those who come meanwhile wait here, and not each on a thread of its own.
        let _turn = self.reloading.lock().await;
        let app = Arc::clone(self);
        // Ten thousand files are not read on the thread that answers health checks.
        tokio::task::spawn_blocking(move || app.reload_now(is_asked))
            .await
            .context("the reload panicked")?
    }

    fn reload_now(&self, is_asked: bool) -> anyhow::Result<Report> {
        let begun = Instant::now();
        if is_asked {
            self.outbound.hurry();
        }
        let metrics = &self.gateway.metrics;
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let read = sources.read_certificates(&self.revocations.load(), self.clock.now());
        let change = read.inspect_err(|error| {
            metrics.loaded("failure", self.clock.now());
            tracing::error!(%error, "certificates cannot be read again: those that are loaded stay");
        })?;
        let structures = sources.read_structures();
        let changed = change.is_one() || structures;
        if changed {
            self.replace_table(&change.generations, &sources.registry());
            self.publish_gone(&change.removed);
        }
        let outcome = match change.problems.is_empty() && sources.mistakes.is_empty() {
            true => "success",
            false => "partial",
        };
        if changed || is_asked {
            metrics.loaded(outcome, self.clock.now());
        }
        metrics.certificates("unusable", change.problems.len());
        let mut report = Report::new(&change, changed, begun);
        report
            .problems
            .extend(sources.mistakes.iter().map(Trouble::from));
        self.problems.store(Arc::new(change.problems));
        Ok(report)
    }
}

impl Report {
    fn new(change: &Change, changed: bool, begun: Instant) -> Self {
        let entries = |generations: &[Arc<Generation>]| generations.iter().map(Entry::of).collect();
        Self {
            changed,
            certificates: change.generations.len(),
            added: entries(&change.added),
            removed: entries(&change.removed),
            kept: entries(&change.kept),
            problems: change.problems.iter().map(Trouble::of).collect(),
            milliseconds: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl Entry {
    fn of(generation: &Arc<Generation>) -> Self {
        let identity = generation.identity();
        Self {
            file: identity.path.display().to_string(),
            subject: identity.profile.subject.to_string(),
            serial: identity.profile.serial.to_string(),
        }
    }
}

impl From<&Mistake> for Trouble {
    fn from(mistake: &Mistake) -> Self {
        Self {
            file: mistake.place.to_string(),
            reason: mistake.kind.to_string(),
            hint: mistake.hint().to_owned(),
        }
    }
}

impl Trouble {
    fn of(problem: &Problem) -> Self {
        Self {
            file: problem.path.display().to_string(),
            reason: problem.kind.to_string(),
            hint: problem.hint.clone(),
        }
    }
}
