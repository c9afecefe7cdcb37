//! What a configuration names on disk and is read again with it.

use std::collections::HashSet;
use std::path::PathBuf;

use http::uri::Scheme;

use super::{Config, CrlSource, ListenerTls};
use crate::services::Trust;

impl Config {
    /// Whom it names to be believed: by services, by the webhook, and as authorities that sign revocation lists.
    pub fn trusts(&self) -> Vec<Trust> {
        let services = self.services.iter().map(|service| service.trust.clone());
        let webhook = self.notices.iter();
        let webhook = webhook
            .filter(|notices| notices.webhook.scheme() == Some(&Scheme::HTTPS))
            .map(|notices| notices.trust.clone());
        let lists = self.revocation.trust.iter().cloned().map(Trust::File);
        let trusts: HashSet<_> = services.chain(webhook).chain(lists).collect();
        trusts.into_iter().collect()
    }

    /// The files that a reload reads, besides the folder of certificates: the configuration itself, passwords, tables
    /// of structures, trust files, and what listeners speak TLS with.
    pub fn files(&self) -> Vec<PathBuf> {
        let trusted = self.trusts().into_iter().filter_map(|trust| match trust {
            Trust::File(path) => Some(path),
            Trust::Public => None,
        });
        let listeners = self.listeners.iter().filter_map(|one| one.tls.as_ref());
        [self.file.clone()]
            .into_iter()
            .chain(self.identities.password_file.clone())
            .chain(self.tenants.files.iter().cloned())
            .chain(trusted)
            .chain(listeners.flat_map(ListenerTls::files).cloned())
            .collect()
    }

    /// Everything on disk that is read time and again, and keeps its last good state where it is not in order.
    pub(super) fn in_use(&self) -> HashSet<PathBuf> {
        let lists = self
            .revocation
            .crls
            .iter()
            .filter_map(|source| match source {
                CrlSource::File(path) => Some(path.clone()),
                CrlSource::Url(_) => None,
            });
        let folder = self.identities.directory.clone();
        self.files()
            .into_iter()
            .chain(lists)
            .chain([folder])
            .collect()
    }
}

impl ListenerTls {
    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let clients = self.clients.iter();
        let of_clients =
            clients.flat_map(|clients| [&clients.authorities].into_iter().chain(&clients.crls));
        [&self.certificate, &self.key].into_iter().chain(of_clients)
    }
}
