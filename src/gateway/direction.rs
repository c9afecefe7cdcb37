//! Where a request goes: what is read off its head, and what the table has for it.

use std::sync::Arc;

use bytes::Bytes;
use http::uri::Authority;
use http::{Request, Response};
use hyper::body::Incoming;

use super::address::{Address, Bound, Said};
use super::caller::Known;
use super::credentials::{Credentials, Shown};
use super::exchange::Exchange;
use super::form::{self, Form};
use super::headers::Overview;
use super::reply::{Code, Problem};
use super::table::Table;
use super::{Door, Entrance, address, introspection};
use crate::identity::finess::Finess;
use crate::inbound::peer::{Peer, Tunnel};
use crate::outbound::error::Error;
use crate::outbound::pool::Pool;
use crate::services::Service;

/// What was looked up for a request.
pub(super) struct Chosen {
    pub(super) pool: Arc<Pool>,
    /// The pool that it stands in for, if it does.
    pub(super) principal: Option<Arc<Pool>>,
    /// Of the table that it was looked up in.
    pub(super) edition: u64,
}

/// Where a request goes.
pub(super) enum Directed {
    /// To a service.
    To(Direction),
    /// Nowhere: Relais was asked about itself.
    Own(Response<Bytes>),
}

/// Who asks, as far as the connection and the head tell.
pub(super) struct Asker {
    peer: Arc<Peer>,
    shown: Shown,
    is_proxied: bool,
}

impl Asker {
    fn recognise<'t>(&self, table: &'t Table, door: &Door) -> Result<Option<&'t Known>, Problem> {
        // A browser that takes Relais for its proxy would come by the listener, too. And whoever connected before a
        // certificate was required has not shown what being let in stands for by now.
        let is_told = !self.is_proxied && (!door.is_closed || self.peer.certificate().is_some());
        let listener = is_told.then_some(&door.address);
        (table.callers()).recognise(listener, &self.peer, self.shown)
    }

    /// Lets a request that has waited through once more: it has not left, and the rights of its caller may have gone
    /// meanwhile, or the service's name may mean another.
    pub(super) fn may_still(
        &self,
        table: &Table,
        door: &Door,
        service: &str,
        tenant: Option<Finess>,
    ) -> Result<(), Problem> {
        match self.recognise(table, door)? {
            Some(caller) => caller.admit(tenant, service, table.registry()),
            None => Ok(()),
        }
    }
}

/// What the request for a tunnel has said for those in it: who asks, and for whom. What that gives a right to is looked
/// up for each of them.
#[derive(Clone, Copy, Default)]
struct Agreed {
    shown: Shown,
    tenant: Option<Finess>,
}

impl Agreed {
    fn of(peer: &Peer) -> Self {
        let agreed = peer.tunnel.as_ref().map(|tunnel| &tunnel.agreed);
        let agreed = agreed.map(|agreed| agreed.downcast_ref().expect("tunnels begin here alone"));
        agreed.copied().unwrap_or_default()
    }
}

/// The way to a service.
pub(super) struct Direction {
    pub(super) chosen: Chosen,
    pub(super) asker: Asker,
    /// Where what the service is to see of the path begins.
    pub(super) remainder: usize,
    pub(super) overview: Overview,
}

impl Entrance {
    /// Where a request goes. Reads nothing but its head, and waits for nothing.
    pub(super) fn direct(
        self: &Arc<Self>,
        table: &Table,
        door: &Door,
        peer: &Arc<Peer>,
        request: &Request<Incoming>,
        exchange: &mut Exchange,
    ) -> Result<Directed, Problem> {
        let overview = Overview::of(request.headers());
        let form = self.gateway.form(door, peer, request, overview)?;
        let is_proxied = !matches!(form, Form::Plain { .. });
        door.hosts.admit(peer, request, overview, is_proxied)?;
        let outer = Agreed::of(peer);
        let credentials = Credentials::read(request.headers(), overview)?.in_tunnel(outer.shown)?;
        let asker = Asker {
            peer: Arc::clone(peer),
            shown: credentials.shown,
            is_proxied,
        };
        let said = || {
            let said = Said::read(request.headers(), overview, &credentials)?;
            Ok::<_, Problem>(Said {
                in_tunnel: outer.tenant,
                ..said
            })
        };
        let read = || {
            Ok(match form {
                Form::Plain { path } => (path, address::read(path, said()?, &door.bound)?),
                // What it is for is said inside.
                Form::Tunnel { .. } => ("", Address::default()),
                Form::Proxied { host, port, path } => {
                    let there = table.service_at(host, port, path, door.bound.service.as_deref());
                    (path, proxied(there?, said()?, &door.bound)?)
                }
            })
        };
        let recognised = asker.recognise(table, door).inspect_err(|_| {
            // What nobody was let do is on record, as far as it can be told.
            if let Ok::<_, Problem>((_, address)) = read() {
                exchange.tenant = address.tenant;
                exchange.offered = table.offered(address.service);
            }
        });
        let caller = recognised?;
        exchange.caller = caller.map(|caller| Arc::clone(&caller.name));
        if let Form::Tunnel { authority } = form {
            let said = said()?;
            let tenant = address::the_one([said.in_header, said.in_credentials, None, None])?;
            exchange.tenant = address::the_one([door.bound.tenant, tenant, None, None])?;
            let shown = credentials.shown;
            return tunnel(table, authority, Agreed { shown, tenant }).map(Directed::Own);
        }
        let (path, address) = read()?;
        exchange.tenant = address.tenant;
        let may = |service: &str| match caller {
            Some(caller) => caller.admit(address.tenant, service, table.registry()),
            None => Ok(()),
        };
        if form::climbs(address.remainder) {
            return Err(Problem::new(
                Code::RequestMalformed,
                "the path leads above where it begins, out of what the service is declared to be",
                "send the path without segments .. that climb (RFC 3986 section 5.2.4)",
            ));
        }
        if address.service == address::OWN {
            let answer = introspection::answer(table, request.method(), &address, may)?;
            return Ok(Directed::Own(answer));
        }
        if let Err(problem) = may(address.service) {
            // What a caller was kept from is on record.
            exchange.offered = table.offered(address.service);
            return Err(problem);
        }
        let chosen = choose(table, address.service, exchange)?;
        within_limit(request, chosen.pool.service())?;
        let offered = exchange.offered.as_ref();
        let offered = offered.expect("what was chosen is of a service");
        exchange.places = Some(self.admit(offered, caller, address.tenant)?);
        Ok(Directed::To(Direction {
            chosen,
            asker,
            remainder: path.len() - address.remainder.len(),
            overview,
        }))
    }
}

/// Agrees to a tunnel to a declared service, in which Relais takes the service's place.
fn tunnel(
    table: &Table,
    authority: &Authority,
    agreed: Agreed,
) -> Result<Response<Bytes>, Problem> {
    if !table.has_at(authority) {
        return Err(Problem::new(
            Code::ServiceUnknown,
            format!("no service is declared at {authority}"),
            "only the services of the configuration are reached, at the host and port of their url, and nothing else",
        ));
    }
    let mut response = Response::new(Bytes::new());
    response.extensions_mut().insert(Arc::new(Tunnel {
        authority: authority.clone(),
        agreed: Box::new(agreed),
    }));
    Ok(response)
}

/// The service that a request to a forward proxy means (RFC 9112 section 3.2.2), and nothing but a declared one.
fn proxied<'a>(
    (service, remainder): (&'a str, &'a str),
    said: Said,
    bound: &Bound,
) -> Result<Address<'a>, Problem> {
    // A browser that takes Relais for its proxy comes by the listener as well, and names no tenant.
    let named = address::the_one([None, said.in_header, said.in_credentials, said.in_tunnel])?;
    if bound.tenant.is_some() && named.is_none() {
        return Err(Problem::new(
            Code::TenantMissing,
            "a request to Relais as a proxy names its tenant itself, on a listener that is bound to one as well",
            "use http://FINESS:TOKEN@HOST:PORT as the proxy, or send X-Finess",
        ));
    }
    Ok(Address {
        tenant: address::the_one([bound.tenant, named, None, None])?,
        service,
        remainder,
    })
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
        edition: table.edition(),
    })
}

/// Refuses a body that says beforehand that it is too large. One that does not say is cut off when it gets there.
fn within_limit(request: &Request<Incoming>, service: &Service) -> Result<(), Problem> {
    let announced = hyper::body::Body::size_hint(request.body()).lower();
    if announced > service.limits.request_body {
        return Err(Error::TooLarge(service.limits.request_body).into());
    }
    Ok(())
}
