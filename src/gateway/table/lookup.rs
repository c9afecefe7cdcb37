//! Which service a request means: by the name in its path, or by the service's own address.

use std::sync::Arc;

use http::uri::Authority;

use super::{Offered, Table};
use crate::gateway::reply::{Code, Problem};
use crate::services::Target;

impl Table {
    /// The service of this name.
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
        Ok((index, &self.services[index]))
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
    /// several on one host it is the one whose base says most of the path.
    ///
    /// # Errors
    /// When none is declared there.
    pub fn service_at<'a>(
        &'a self,
        authority: &Authority,
        path: &'a str,
    ) -> Result<(&'a str, &'a str), Problem> {
        let is_there = |target: &Target| {
            let port = authority.port_u16();
            // 80 is what http:// means, and what the application would have used with https:// is the service's own.
            let is_same_port = port.is_none_or(|port| port == 80 || port == target.port());
            is_same_port
                && authority
                    .host()
                    .eq_ignore_ascii_case(target.authority.host())
        };
        let remainder = |target: &Target| {
            let rest = path.strip_prefix(&*target.base_path)?;
            (rest.is_empty() || rest.starts_with(['/', '?'])).then_some(rest)
        };
        let services = || {
            let services = self.services.iter().map(|one| &*one.service);
            services
                .filter(|service| is_there(&service.target))
                .filter_map(|service| Some((&*service.name, remainder(&service.target)?)))
        };
        let refused = |detail: String, hint| Problem::new(Code::ServiceUnknown, detail, hint);
        let host = authority.host();
        let nearest = services().min_by_key(|(_, rest)| rest.len());
        let (name, rest) = nearest.ok_or_else(|| {
            refused(
                format!("no service is declared at that path of {host}"),
                "only the services of the configuration are reached, at their own url, and nothing else",
            )
        })?;
        if services().any(|(other, same)| other != name && same.len() == rest.len()) {
            return Err(refused(
                format!("several services are declared at that path of {host}"),
                "name the service in the path: http://HOST:PORT/SERVICE/… of Relais itself",
            ));
        }
        Ok((name, rest))
    }
}
