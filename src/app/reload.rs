//! Reads the configuration and everything that it names again, while requests go on.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use tokio::sync::watch;

use super::lists::{self, Follow};
pub use super::report::{Entry, Report, Restart, Trouble};
use super::sources::{Reading, Sources};
use super::{App, supervisor};
use crate::crls::Source;
use crate::gateway::caller::Callers;
use crate::gateway::table::{Contents, Terms};
use crate::notices::Webhook;
use crate::services::Trust;

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
    /// Reads the configuration, certificates, the table of structures and trust files again, and takes up what has
    /// changed: from then on no request starts under what is gone, and those in flight finish. What is not in order
    /// leaves everything as it was.
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
        let mut sources = Arc::clone(&self.sources).lock_owned().await;
        let app = Arc::clone(self);
        // Ten thousand files are not read on the thread that answers health checks.
        let ended =
            tokio::task::spawn_blocking(move || app.reload_now(&mut sources, is_asked)).await;
        ended.unwrap_or_else(|error| {
            self.gateway.metrics.loaded("failure", self.clock.now());
            tracing::error!(%error, "the reload panicked: what was not taken up is at the next");
            Err(error).context("the reload panicked")
        })
    }

    fn reload_now(&self, sources: &mut Sources, is_asked: bool) -> anyhow::Result<Report> {
        let begun = Instant::now();
        if is_asked {
            self.outbound.hurry();
        }
        let metrics = &self.gateway.metrics;
        let read = sources.read(&self.revocations.load(), self.clock.now());
        let mut reading = read.inspect_err(|error| {
            metrics.loaded("failure", self.clock.now());
            tracing::error!(%error, "certificates cannot be read again: those that are loaded stay");
        })?;
        if reading.is_change {
            self.take_up(sources, &reading);
        }
        sources.took_up(&reading);
        let outcome = match reading.troubles.is_empty() {
            true => "success",
            false => "partial",
        };
        if reading.is_change || reading.is_news || is_asked {
            metrics.loaded(outcome, self.clock.now());
        }
        metrics.certificates("unusable", reading.certificates.problems.len());
        let report = Report::new(&reading, begun);
        let remarks = (report.problems.clone(), report.restart.clone());
        self.remarks.store(Arc::new(remarks));
        let problems = std::mem::take(&mut reading.certificates.problems);
        self.problems.store(Arc::new(problems));
        Ok(report)
    }

    /// Puts what was read in the place of what is in use.
    fn take_up(&self, sources: &mut Sources, reading: &Reading) {
        let Reading {
            config, anchors, ..
        } = reading;
        let before = (&sources.config, &sources.anchors);
        let is_believed = |trust: &Trust| anchors.agree(before.1, trust);
        if before.0.log.level != config.log.level {
            self.set_level(&config.log.level);
        }
        let webhook_trust = config.notices.as_ref().map(|notices| &notices.trust);
        if before.0.notices != config.notices || !webhook_trust.is_none_or(is_believed) {
            let webhook = config.notices.clone();
            let webhook = webhook.and_then(|notices| Webhook::new(notices, anchors));
            self.notices.post_to(webhook);
        }
        let generations = &reading.certificates.generations;
        let is_same = before.0.revocation == config.revocation;
        let (added, gone) =
            sources
                .lists
                .renew(config, anchors, generations, is_same, self.clock.now());
        let candidate =
            (reading.certificates.is_one()).then(|| self.prepare(generations, &reading.registry));
        self.replace(&reading.certificates.removed, candidate, |old| {
            // Before the callers that rest on it: what is opened in between by what was asked for before would outlive it.
            sources.securities.renew(config, &reading.securities);
            if !is_same {
                self.rename_lists(reading, &added);
            }
            let revocations = self.revocations.load_full();
            self.outbound.believe_also(anchors, &revocations);
            let (outbound, metrics) = (&self.outbound, &self.gateway.metrics);
            Contents {
                services: old.offer(&config.services, is_believed, outbound, metrics),
                generations: generations.clone(),
                registry: Arc::clone(&reading.registry),
                terms: Terms::of(self.clock.clone(), &config.identities),
                doors: (old.doors().iter().zip(&config.listeners))
                    .map(|(door, listener)| door.renewed(listener))
                    .collect(),
                callers: Arc::new(
                    Callers::new(config.callers.iter().cloned()).after(old.callers()),
                ),
                revocations,
            }
        });
        let replacing = self.replacing();
        self.outbound
            .believe(anchors, &self.revocations.load_full());
        drop(replacing);
        for origin in &gone {
            lists::publish_gone(origin, &self.gateway.metrics);
        }
        sources.follow(gone.into_iter().map(Follow::End));
        sources.follow(added.into_iter().map(Follow::Begin));
        if !reading.configuration.is_empty() || !reading.trust.is_empty() {
            tracing::info!(configuration = ?reading.configuration, trust = ?reading.trust, "configuration taken up");
        }
    }

    /// What the configuration says of revocation holds from now on. Those whose turn it is do this.
    fn rename_lists(&self, reading: &Reading, added: &[Source]) {
        let before = self.revocations.load();
        let revocations = lists::revocations(&reading.config, &before, added);
        for source in added {
            lists::publish(source.list(), &self.gateway.metrics);
        }
        self.revocations.store(Arc::new(revocations));
    }

    fn set_level(&self, level: &str) {
        // The configuration's reader knows what levels look like.
        if let Some(Err(error)) = self.level.get().map(|known| known.set(level)) {
            tracing::warn!(%error, level, "the level of the log stays as it was");
        }
    }
}
