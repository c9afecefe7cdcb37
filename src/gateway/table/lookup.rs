//! Which service a request means: by the name in its path, or by the service's own address.

use std::sync::Arc;

use http::uri::Authority;

use super::{Offered, Table};
use crate::gateway::reply::{Code, Problem};
use crate::services::{HTTPS, Service, Target};
use crate::share;

impl Table {
    /// How many tables were in use before it: each is made of the one that it follows. By the number a request knows the
    /// table again that it was admitted by, without holding it; its address could be another's by then.
    pub(crate) fn edition(&self) -> u64 {
        self.edition
    }

    /// The service of this name, as this worker's own requests hold on to it.
    ///
    /// # Errors
    /// When there is none.
    pub fn service(&self, name: &str) -> Result<(usize, &Arc<Offered>), Problem> {
        let index = self.by_name.get(name).copied().ok_or_else(|| {
            let known: Vec<_> = self
                .services
                .iter()
                .map(|offered| &*offered.service.name)
                .collect();
            Problem::new(
                Code::ServiceUnknown,
                format!("the path's first segment is none of {}", known.join(", ")),
                "a service is served once the configuration has a [services.NAME] section for it",
            )
        })?;
        Ok((index, &self.shares[share::own()][index]))
    }

    /// What is offered under a name.
    pub(crate) fn offered(&self, name: &str) -> Option<Arc<Offered>> {
        let (_, offered) = self.service(name).ok()?;
        Some(Arc::clone(offered))
    }

    /// Whether a service is declared at exactly that host and port.
    pub fn has_at(&self, authority: &Authority) -> bool {
        self.services.iter().any(|offered| {
            let target = &offered.service.target;
            authority.port_u16() == Some(target.port())
                && authority
                    .host()
                    .eq_ignore_ascii_case(target.authority.host())
        })
    }

    /// The service at an address as a forward proxy is given it, and what is left of the path after its own base. Of
    /// several on one host it is the one whose base says most of the path; on a listener for one service it is that.
    ///
    /// # Errors
    /// When none is declared there.
    pub fn service_at<'a>(
        &'a self,
        host: &str,
        port: Option<u16>,
        path: &'a str,
        bound: Option<&str>,
    ) -> Result<(&'a str, &'a str), Problem> {
        let refused = |detail: String, hint| Problem::new(Code::ServiceUnknown, detail, hint);
        let services = self.services.iter().map(|one| &*one.service);
        let there: Vec<_> = services
            .filter(|service| bound.is_none_or(|bound| bound == &*service.name))
            .filter(|service| host.eq_ignore_ascii_case(service.target.authority.host()))
            .filter(|service| port.is_none_or(|port| port == service.target.port()))
            .collect();
        // Without a port the address means what it would with https://; services elsewhere only where nothing is there.
        let is_usual = |service: &&Service| port.is_some() || service.target.port() == HTTPS;
        let usual: Vec<_> = there.iter().copied().filter(is_usual).collect();
        let candidates = if usual.is_empty() { there } else { usual };
        let remainder = |target: &Target| {
            let rest = path.strip_prefix(&*target.base_path)?;
            (rest.is_empty() || rest.starts_with(['/', '?'])).then_some(rest)
        };
        let found = (candidates.into_iter())
            .filter_map(|service| Some((&*service.name, remainder(&service.target)?)));
        let mut found: Vec<_> = found.collect();
        found.sort_by_key(|(_, rest)| rest.len());
        match found[..] {
            [] => Err(refused(
                format!("no service is declared at that path of {host}"),
                "only the services of the configuration are reached, at their own url, and nothing else",
            )),
            [(_, rest), (_, other), ..] if rest.len() == other.len() => Err(refused(
                format!("several services are declared at that path of {host}"),
                "name the service in the path: http://HOST:PORT/SERVICE/… of Relais itself",
            )),
            [found, ..] => Ok(found),
        }
    }
}
