//! What listeners speak TLS with, as it was when it was last in order.

use std::sync::Arc;

use anyhow::Context as _;

use super::report::Trouble;
use crate::config::Config;
use crate::inbound::listener::describe;
use crate::inbound::tls::{Security, Terms};

/// The TLS of each listener that has it, in the order of the configuration.
#[derive(Debug)]
pub(super) struct Securities(Vec<Option<Security>>);

/// What is to be in use for each listener; nothing where it is as before.
pub(super) type Renewed = Vec<Option<Arc<Terms>>>;

impl Securities {
    /// Reads the files that a configuration names for the first time.
    ///
    /// # Errors
    /// When they are not in order: a listener without its certificate can answer nobody.
    pub(super) fn open(config: &Config) -> anyhow::Result<Self> {
        let readers = config.identities.key_readers;
        let open = |listener: &crate::config::Listener| {
            let tls = listener.tls.as_ref()?;
            let read = Security::read(tls, readers);
            Some(read.with_context(|| format!("TLS of {}", describe(&listener.address))))
        };
        let all = config.listeners.iter().map(|one| open(one).transpose());
        all.collect::<Result<_, _>>().map(Self)
    }

    /// Each listener's, to be handed to its workers.
    pub(super) fn each(&self) -> impl Iterator<Item = Option<Security>> + '_ {
        self.0.iter().cloned()
    }

    /// Reads the files again under a configuration whose listeners are those that are bound, `before` being in use.
    /// What is not in order stays as it is.
    ///
    /// # Errors
    /// When a listener is to go by other files than the configuration named before, and cannot: callers may rest on
    /// what they ask of applications, and would be taken up without it.
    pub(super) fn read(
        &self,
        config: &Config,
        before: &Config,
        now: i64,
    ) -> anyhow::Result<(Renewed, Vec<Trouble>)> {
        let (mut renewed, mut troubles) = (Vec::new(), Vec::new());
        let listeners = config.listeners.iter().zip(&before.listeners);
        for (security, (listener, running)) in self.0.iter().zip(listeners) {
            let tls = listener.tls.as_ref().zip(running.tls.as_ref());
            let (Some(security), Some((tls, running))) = (security, tls) else {
                renewed.push(None);
                continue;
            };
            let readers = config.identities.key_readers;
            let (terms, told) = security.read_again(tls, running, readers, now)?;
            renewed.push(terms);
            troubles.extend(told.iter().map(Trouble::from));
        }
        Ok((renewed, troubles))
    }

    /// Has handshakes go by what was read.
    pub(super) fn renew(&self, config: &Config, renewed: &Renewed) {
        let all = self.0.iter().zip(renewed).zip(&config.listeners);
        for ((security, terms), listener) in all {
            if let (Some(security), Some(terms)) = (security, terms) {
                security.renew(Arc::clone(terms));
                tracing::info!(address = %describe(&listener.address), "certificate of a listener taken up");
            }
        }
    }
}
