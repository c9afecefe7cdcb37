//! Everything that is read again while the process runs, as it was when it was last in order.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::{mpsc, watch};

use super::difference::{Restart, hold_back, taken_up};
use super::lists::{Follow, Lists};
use super::report::Trouble;
use super::securities::{Renewed, Securities};
use super::watching::Watched;
use crate::config::{Config, Problem};
use crate::identity::load::{self, Stamp};
use crate::identity::registry::Registry;
use crate::identity::revocation::Revocations;
use crate::identity::store::{Change, Store};
use crate::identity::tenants::{self, Mistake, Structures};
use crate::outbound::trust::Anchors;
use crate::sandbox;
use crate::services::Trust;

/// What is in use, and where it came from.
#[derive(Debug)]
pub(super) struct Sources {
    /// The configuration in use. What needs a restart is as it was at the start.
    pub(super) config: Config,
    pub(super) anchors: Anchors,
    pub(super) lists: Lists,
    /// What listeners speak TLS with.
    pub(super) securities: Securities,
    /// Tells of sources of revocation lists that come and go.
    pub(super) following: mpsc::UnboundedSender<Follow>,
    /// What is watched, if anything is.
    pub(super) watched: watch::Sender<Option<Watched>>,
    store: Store,
    structures: Arc<Structures>,
    registry: Arc<Registry>,
    /// What the system said of the files of structures when they were read.
    stamps: Vec<Option<Stamp>>,
    mistakes: Vec<Mistake>,
    /// What was written down last time, so that it is not again each time that files are looked at.
    said: HashSet<String>,
    warnings: Option<Vec<Problem>>,
    /// Something was read and, since whoever was to take it up has panicked, is not in use.
    is_pending: bool,
}

/// What a reading came to. Nothing of it is in use yet.
#[derive(Debug)]
pub(super) struct Reading {
    /// The configuration to use: that of the file, or the one before.
    pub(super) config: Config,
    pub(super) anchors: Anchors,
    pub(super) certificates: Change,
    pub(super) registry: Arc<Registry>,
    /// The sections of the configuration that are not as before.
    pub(super) configuration: Vec<String>,
    pub(super) restart: Vec<Restart>,
    /// The trust files that name other authorities than before.
    pub(super) trust: Vec<PathBuf>,
    pub(super) securities: Renewed,
    pub(super) troubles: Vec<Trouble>,
    /// Whether anything is not as before.
    pub(super) is_change: bool,
    /// Whether something is told of it that was not last time.
    pub(super) is_news: bool,
}

/// What there is at the start.
pub(super) struct Start {
    pub(super) certificates: Change,
    pub(super) registry: Arc<Registry>,
    pub(super) revocations: Revocations,
    /// Sources of revocation lists to follow.
    pub(super) followed: mpsc::UnboundedReceiver<Follow>,
    pub(super) troubles: Vec<Trouble>,
}

impl Sources {
    /// Reads what a configuration names for the first time: there is nothing older to keep in the place of what is not
    /// in order.
    ///
    /// # Errors
    /// When the folder of certificates, passwords, trust files or the certificate of a listener cannot be read.
    pub(super) fn open(config: Config, now: i64) -> anyhow::Result<(Self, Start)> {
        let anchors = Anchors::of(&config.trusts())?;
        let securities = Securities::open(&config)?;
        make_cache(&config)?;
        let mut store = Store::default();
        let certificates = store.read(&config.identities, &Revocations::default(), now)?;
        let generations = &certificates.generations;
        let (lists, added) = Lists::open(&config, &anchors, generations, now);
        let revocations = super::lists::revocations(&config, &Revocations::default(), &added);
        let (structures, mistakes) = tenants::load(&config.tenants);
        let structures = Arc::new(structures);
        let registry = Arc::new(registry(&config, &structures));
        let (following, followed) = mpsc::unbounded_channel();
        let watched = watch::Sender::new(Watched::of(&config));
        let mut sources = Self {
            config,
            anchors,
            lists,
            securities,
            following,
            watched,
            store,
            structures,
            registry: Arc::clone(&registry),
            stamps: Vec::new(),
            mistakes,
            said: HashSet::new(),
            warnings: None,
            is_pending: false,
        };
        sources.follow(added.into_iter().map(Follow::Begin));
        let troubles = sources.troubles(&certificates.problems);
        sources.say(&certificates, &troubles, &[]);
        let start = Start {
            certificates,
            registry,
            revocations,
            followed,
            troubles,
        };
        Ok((sources, start))
    }

    /// Reads everything again: first the configuration, then under it what it names. One that is not in order is as it
    /// was; nothing else waits for it.
    ///
    /// # Errors
    /// When the folder of certificates or passwords cannot be read.
    pub(super) fn read(&mut self, revocations: &Revocations, now: i64) -> anyhow::Result<Reading> {
        let mut troubles = Vec::new();
        let mut warnings = Vec::new();
        let mut reading = None;
        match self.config.load_again() {
            Ok(loaded) => {
                warnings = loaded.warnings;
                let file = loaded.config.file.clone();
                let read = self.read_under(loaded.config, revocations, now);
                reading = read
                    .map_err(|error| troubles.push(Trouble::refused(&file, &error)))
                    .ok();
            }
            Err(problems) => troubles.extend(problems.errors.iter().map(Trouble::from)),
        }
        let mut reading = match reading {
            Some(reading) => reading,
            None => self.read_under(self.config.clone(), revocations, now)?,
        };
        troubles.append(&mut reading.troubles);
        troubles.extend(self.troubles(&reading.certificates.problems));
        reading.is_news = self.say(&reading.certificates, &troubles, &reading.restart);
        self.warn(warnings);
        reading.troubles = troubles;
        Ok(reading)
    }

    /// Reads what a configuration names. The folder of certificates comes last: what is read of it is in use then.
    fn read_under(
        &mut self,
        mut config: Config,
        revocations: &Revocations,
        now: i64,
    ) -> anyhow::Result<Reading> {
        let restart = hold_back(&mut config, &self.config);
        if let Some(folder) = sandbox::out_of_reach(&config) {
            anyhow::bail!(
                "{} is none of the folders that the sandbox was set up for (process.sandbox): restart the gateway",
                folder.display()
            );
        }
        let configuration = taken_up(&self.config, &config);
        let (anchors, errors) = self.anchors.again(&config.trusts());
        let mut troubles = Vec::new();
        for error in errors {
            troubles.push(Trouble::from(&error));
            if !anchors.has(&Trust::File(error.path().to_owned())) {
                return Err(error.into());
            }
        }
        if config.revocation.cache != self.config.revocation.cache {
            make_cache(&config)?;
        }
        let (securities, of_listeners) = self.securities.read(&config, &self.config, now)?;
        troubles.extend(of_listeners);
        let certificates = self.store.read(&config.identities, revocations, now)?;
        let registry = self.read_structures(&config);
        let is_other = |trust: &Trust| match trust {
            Trust::File(path)
                if self.anchors.has(trust) && !self.anchors.agree(&anchors, trust) =>
            {
                Some(path.clone())
            }
            Trust::File(_) | Trust::Public => None,
        };
        let mut trust: Vec<_> = config.trusts().iter().filter_map(is_other).collect();
        trust.sort_unstable();
        let was_pending = std::mem::replace(&mut self.is_pending, true);
        let is_change = was_pending
            || certificates.is_one()
            || !Arc::ptr_eq(&registry, &self.registry)
            || !configuration.is_empty()
            || !trust.is_empty()
            || securities.iter().any(Option::is_some);
        Ok(Reading {
            config,
            anchors,
            certificates,
            registry,
            configuration,
            restart,
            trust,
            securities,
            troubles,
            is_change,
            is_news: false,
        })
    }

    /// Reads the table of structures if its files have changed. One with errors leaves the last good one in use: a site
    /// must not change its identity because a file is half written.
    fn read_structures(&mut self, config: &Config) -> Arc<Registry> {
        let tenants = &config.tenants;
        let stamps: Vec<_> = tenants.files.iter().map(|path| Stamp::of(path)).collect();
        let is_same = stamps == self.stamps && *tenants == self.config.tenants;
        if !is_same || stamps.iter().any(Option::is_none) {
            let (structures, mistakes) = tenants::load(tenants);
            self.stamps = stamps;
            if mistakes.iter().all(Mistake::is_warning) && *self.structures != structures {
                self.structures = Arc::new(structures);
            }
            self.mistakes = mistakes;
        }
        let registry = registry(config, &self.structures);
        match registry == *self.registry {
            true => Arc::clone(&self.registry),
            false => Arc::new(registry),
        }
    }

    /// Remembers what is in use from now on.
    pub(super) fn took_up(&mut self, reading: &Reading) {
        self.is_pending = false;
        self.config.clone_from(&reading.config);
        self.anchors.clone_from(&reading.anchors);
        self.registry = Arc::clone(&reading.registry);
        let watched = Watched::of(&self.config);
        self.watched.send_if_modified(|before| {
            let is_other = *before != watched;
            *before = watched;
            is_other
        });
    }

    /// Has sources of revocation lists followed, or no longer.
    pub(super) fn follow(&self, changes: impl IntoIterator<Item = Follow>) {
        for change in changes {
            // Nobody follows any more once the gateway stops.
            let _ = self.following.send(change);
        }
    }

    fn troubles(&self, problems: &[load::Problem]) -> Vec<Trouble> {
        let problems = problems.iter().map(Trouble::from);
        problems
            .chain(self.mistakes.iter().map(Trouble::from))
            .collect()
    }

    /// Writes down what should be looked at in the configuration, where it is not as the last time.
    fn warn(&mut self, warnings: Vec<Problem>) {
        // Those at the start were written down by whoever read it.
        if let Some(known) = self.warnings.replace(warnings) {
            let all = self.warnings.iter().flatten();
            for warning in all.filter(|one| !known.contains(one)) {
                tracing::warn!("{warning}");
            }
        }
    }

    /// Writes down what was not said last time, and tells whether there was anything.
    fn say(&mut self, certificates: &Change, troubles: &[Trouble], restart: &[Restart]) -> bool {
        let mut said = HashSet::new();
        let mut is_news = false;
        for Trouble { file, reason, hint } in troubles {
            let text = format!("{file}: {reason}");
            if !self.said.contains(&text) {
                tracing::warn!(file, reason, hint, "a file is not in order");
                is_news = true;
            }
            said.insert(text);
        }
        for Restart {
            key,
            running,
            configured,
        } in restart
        {
            let text = format!("{key}: {configured}");
            if !self.said.contains(&text) {
                tracing::warn!(key, running, configured, "this needs a restart");
            }
            said.insert(text);
        }
        for generation in &certificates.kept {
            let path = generation.identity().path.display().to_string();
            if !self.said.contains(&path) {
                tracing::warn!(
                    path,
                    "the certificate that was loaded from this file before is used on"
                );
            }
            said.insert(path);
        }
        self.said = said;
        if certificates.is_one() {
            tracing::info!(
                certificates = certificates.generations.len(),
                added = certificates.added.len(),
                removed = certificates.removed.len(),
                unusable = certificates.problems.len(),
                "certificates loaded"
            );
        }
        is_news
    }
}

/// The registry that a configuration makes of the structures.
fn registry(config: &Config, structures: &Arc<Structures>) -> Registry {
    let (bindings, vendor) = (config.bindings.clone(), config.vendor.clone());
    Registry::new(Arc::clone(structures), bindings, vendor)
}

fn make_cache(config: &Config) -> anyhow::Result<()> {
    if let Some(cache) = &config.revocation.cache {
        fs::create_dir_all(cache).context("the folder for revocation lists (revocation.cache)")?;
    }
    Ok(())
}
