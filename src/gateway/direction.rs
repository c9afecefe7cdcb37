//! Where a request goes: what is read off its head, and what the table has for it.

use std::sync::Arc;

use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{Method, Request, Response, Version};
use hyper::body::Incoming;

use super::address::{Address, Bound, Said};
use super::credentials::Credentials;
use super::exchange::Exchange;
use super::headers::{FIELDS_MAX, Overview};
use super::reply::{Code, Problem};
use super::table::{Offered, Table};
use super::{Door, Gateway, address, introspection};
use crate::inbound::peer::{Peer, Tunnel};
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

/// How a request names where it goes.
enum Form<'a> {
    /// By its path, at Relais itself.
    Plain { path: &'a str },
    /// A tunnel to there (RFC 9110 section 9.3.6).
    Tunnel { authority: &'a Authority },
    /// By the service's own address, as to a forward proxy.
    Proxied {
        authority: &'a Authority,
        path: &'a str,
    },
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
        peer: &Peer,
        request: &Request<Incoming>,
        exchange: &mut Exchange,
    ) -> Result<Directed, Problem> {
        let overview = Overview::of(request.headers());
        let form = self.form(door, peer, request, overview)?;
        let is_proxied = !matches!(form, Form::Plain { .. });
        door.hosts.admit(peer, request, overview, is_proxied)?;
        let credentials = credentials(peer, request, overview)?;
        let caller = table
            .callers()
            .recognise(&door.address, peer, &credentials)?;
        exchange.caller = caller.map(|caller| Arc::clone(&caller.name));
        let said = said(peer, request, overview, &credentials)?;
        let (path, address) = match form {
            Form::Plain { path } => (path, address::read(path, said, &door.bound)?),
            Form::Tunnel { authority } => {
                let named = [door.bound.tenant, said.in_header, said.in_credentials, None];
                exchange.tenant = address::the_one(named)?;
                return tunnel(table, authority, request).map(Directed::Own);
            }
            Form::Proxied { authority, path } => {
                (path, proxied(table, authority, path, said, &door.bound)?)
            }
        };
        exchange.tenant = address.tenant;
        let may = |service: &str| match caller {
            Some(caller) => caller.admit(address.tenant, service, table.registry()),
            None => Ok(()),
        };
        if address.service == address::OWN {
            let answer = introspection::answer(table, request.method(), &address, may)?;
            return Ok(Directed::Own(answer));
        }
        may(address.service)?;
        let chosen = choose(table, address.service, exchange)?;
        within_limit(request, chosen.pool.service())?;
        Ok(Directed::To(Direction {
            chosen,
            remainder: path.len() - address.remainder.len(),
            overview,
        }))
    }

    /// How a request names where it goes, with a head of tolerable size.
    fn form<'a>(
        &self,
        door: &Door,
        peer: &'a Peer,
        request: &'a Request<Incoming>,
        overview: Overview,
    ) -> Result<Form<'a>, Problem> {
        let uri = request.uri();
        let path = uri.path_and_query().map_or("", |path| path.as_str());
        if path.len() + overview.size() > self.request_head {
            return Err(Problem::head_too_large(self.request_head));
        }
        if request.headers().len() > FIELDS_MAX {
            return Err(Problem::too_many_fields());
        }
        if request.method() == Method::CONNECT
            && door.takes_tunnels
            && peer.tunnel.is_none()
            && request.version() == Version::HTTP_11
            && let Some(authority) = uri.authority()
        {
            return Ok(Form::Tunnel { authority });
        }
        if request.method() == Method::CONNECT {
            return Err(Problem::new(
                Code::RequestMalformed,
                "CONNECT is not served: in a tunnel the application would make the TLS handshake itself, and Relais \
                 could show no certificate",
                "use the service's address with http:// in place of https://, or send the path to Relais itself: \
                 http://HOST:PORT/dmp/… with X-Finess",
            ));
        }
        if request.method() == Method::TRACE {
            // What comes back would hold what Relais adds for the service, an API key for one (RFC 9110 section 9.3.8).
            return Err(Problem::new(
                Code::RequestMalformed,
                "TRACE is not passed on: the answer would show what only the service is to see",
                "",
            ));
        }
        if !path.starts_with('/') {
            return Err(Problem::new(
                Code::RequestMalformed,
                "the request names no path",
                "send the path: /dmp/… with X-Finess",
            ));
        }
        if let Some(tunnel) = &peer.tunnel {
            let authority = &tunnel.authority;
            return Ok(Form::Proxied { authority, path });
        }
        // HTTP/2 has an authority in each request, which says nothing.
        let authority = uri
            .authority()
            .filter(|_| request.version() < Version::HTTP_2);
        match authority {
            // A server must take its own address in this form, too (RFC 9112 section 3.2.2).
            Some(authority) if !door.hosts.is_ours(peer, authority.host()) => {
                if uri.scheme() != Some(&Scheme::HTTP) {
                    return Err(Problem::new(
                        Code::RequestMalformed,
                        "only http:// is taken in this form: TLS towards the service is Relais's to speak",
                        "write the service's address with http:// in place of https://",
                    ));
                }
                Ok(Form::Proxied { authority, path })
            }
            _ => Ok(Form::Plain { path }),
        }
    }
}

/// What says who makes a request: its own head, or that with which its tunnel was asked for.
fn credentials(
    peer: &Peer,
    request: &Request<Incoming>,
    overview: Overview,
) -> Result<Credentials, Problem> {
    let own = Credentials::read(request.headers(), overview)?;
    match &peer.tunnel {
        Some(tunnel) => own.in_tunnel(Credentials::read(
            &tunnel.fields,
            Overview::of(&tunnel.fields),
        )?),
        None => Ok(own),
    }
}

/// What says for whom, likewise.
fn said(
    peer: &Peer,
    request: &Request<Incoming>,
    overview: Overview,
    credentials: &Credentials,
) -> Result<Said, Problem> {
    let mut said = Said::read(request.headers(), overview, credentials)?;
    if let Some(tunnel) = &peer.tunnel {
        let overview = Overview::of(&tunnel.fields);
        let credentials = Credentials::read(&tunnel.fields, overview)?;
        let asked = Said::read(&tunnel.fields, overview, &credentials)?;
        said.in_tunnel = address::the_one([asked.in_header, asked.in_credentials, None, None])?;
    }
    Ok(said)
}

/// Agrees to a tunnel to a declared service, in which Relais takes the service's place.
fn tunnel(
    table: &Table,
    authority: &Authority,
    request: &Request<Incoming>,
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
        fields: request.headers().clone(),
    }));
    Ok(response)
}

/// The service that a request to a forward proxy means (RFC 9112 section 3.2.2), and nothing but a declared one.
fn proxied<'a>(
    table: &'a Table,
    authority: &Authority,
    path: &'a str,
    said: Said,
    bound: &Bound,
) -> Result<Address<'a>, Problem> {
    let (service, remainder) = table.service_at(authority, path)?;
    if bound
        .service
        .as_deref()
        .is_some_and(|bound| bound != service)
    {
        return Err(Problem::new(
            Code::ServiceUnknown,
            format!("this listener serves another service than {service}"),
            "use a listener that is bound to no service, or to this one",
        ));
    }
    Ok(Address {
        tenant: address::the_one([
            bound.tenant,
            said.in_header,
            said.in_credentials,
            said.in_tunnel,
        ])?,
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
