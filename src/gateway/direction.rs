//! Where a request goes: what is read off its head, and what the table has for it.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, Version};
use hyper::body::Incoming;

use super::exchange::Exchange;
use super::headers::{FIELDS_MAX, Overview};
use super::reply::{Code, Problem};
use super::table::{Offered, Table};
use super::{Door, Gateway, address, introspection};
use crate::outbound::error::Error;
use crate::outbound::pool::Pool;
use crate::services::Service;

/// What was looked up for a request.
pub(super) struct Chosen {
    pub(super) pool: Arc<Pool>,
    /// The pool that it stands in for, if it does.
    pub(super) principal: Option<Arc<Pool>>,
    pub(super) offered: Arc<Offered>,
}

/// Where a request goes.
pub(super) enum Directed {
    /// To a service.
    To(Direction),
    /// Nowhere: Relais was asked about itself.
    Own(Response<Bytes>),
}

/// The way to a service.
pub(super) struct Direction {
    pub(super) chosen: Chosen,
    /// Where what the service is to see of the path begins.
    pub(super) remainder: usize,
    pub(super) overview: Overview,
}

impl Gateway {
    /// Where a request goes. Reads nothing but its head, and waits for nothing.
    pub(super) fn direct(
        &self,
        table: &Table,
        door: &Door,
        request: &Request<Incoming>,
        exchange: &mut Exchange,
    ) -> Result<Directed, Problem> {
        // First: who takes Relais for a forward proxy names foreign hosts, and should not be taken for a browser.
        let overview = Overview::of(request.headers());
        let path = self.plain_path(request, overview)?;
        door.hosts.admit(request, overview)?;
        let address = address::read(path, request.headers(), overview, &door.bound)?;
        exchange.tenant = address.tenant;

        if address.service == address::OWN {
            let answer = introspection::answer(table, request.method(), &address)?;
            return Ok(Directed::Own(answer));
        }
        let chosen = choose(table, address.service, exchange)?;
        within_limit(request, chosen.pool.service())?;
        Ok(Directed::To(Direction {
            chosen,
            remainder: path.len() - address.remainder.len(),
            overview,
        }))
    }

    /// The path and query of a request in a form that is served, with a head of tolerable size.
    fn plain_path<'a>(
        &self,
        request: &'a Request<Incoming>,
        overview: Overview,
    ) -> Result<&'a str, Problem> {
        let uri = request.uri();
        let path = uri.path_and_query().map_or("", |path| path.as_str());
        if path.len() + overview.size() > self.request_head {
            return Err(Problem::head_too_large(self.request_head));
        }
        if request.headers().len() > FIELDS_MAX {
            return Err(Problem::too_many_fields());
        }
        if request.method() == Method::CONNECT {
            return Err(Problem::new(
                Code::RequestMalformed,
                "CONNECT is not served: in a tunnel the application would make the TLS handshake itself, and Relais \
                 could show no certificate",
                "send plain HTTP to Relais: http://HOST:PORT/dmp/… with X-Finess",
            ));
        }
        if request.version() < Version::HTTP_2 && uri.authority().is_some() {
            return Err(Problem::new(
                Code::RequestMalformed,
                "the request names a whole URL, as one to a forward proxy does",
                "send the path alone: /dmp/… with X-Finess",
            ));
        }
        if !path.starts_with('/') {
            return Err(Problem::new(
                Code::RequestMalformed,
                "the request names no path",
                "send the path: /dmp/… with X-Finess",
            ));
        }
        Ok(path)
    }
}

/// Looks up the connections for a request.
pub(super) fn choose(
    table: &Table,
    service: &str,
    exchange: &mut Exchange,
) -> Result<Chosen, Problem> {
    let (index, offered) = table.service(service)?;
    exchange.offered = Some(Arc::clone(offered));
    let named = table.pool(exchange.tenant, index)?;
    let pool = table.serving(named);
    let principal = (!Arc::ptr_eq(named, &pool)).then(|| Arc::clone(named));
    exchange.pool = Some(Arc::clone(&pool));
    Ok(Chosen {
        pool,
        principal,
        offered: Arc::clone(offered),
    })
}

/// Refuses a body that says beforehand that it is too large. One that does not say is cut off when it gets there.
fn within_limit(request: &Request<Incoming>, service: &Service) -> Result<(), Problem> {
    let announced = hyper::body::Body::size_hint(request.body()).lower();
    if announced > service.max_request_body {
        return Err(Error::TooLarge(service.max_request_body).into());
    }
    Ok(())
}
