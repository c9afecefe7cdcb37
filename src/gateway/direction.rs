//! Where a request goes: what is read off its head, and what the table has for it.

use std::sync::Arc;

use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{Method, Request, Response, Version};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;

use super::address::{Address, Bound, Said};
use super::caller::Known;
use super::credentials::{Credentials, Shown};
use super::exchange::Exchange;
use super::headers::{FIELDS_MAX, Overview};
use super::reply::{Code, Problem};
use super::table::{Offered, Table};
use super::{Door, Gateway, address, introspection};
use crate::identity::finess::Finess;
use crate::inbound::peer::Peer;
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
    /// By the service's own address, as to a forward proxy.
    Proxied {
        authority: &'a Authority,
        path: &'a str,
    },
}

/// Where a request goes.
pub(super) enum Directed<'a> {
    /// To a service.
    To(Direction<'a>),
    /// Nowhere: Relais was asked about itself.
    Own(Response<Bytes>),
}

/// Who asks, as far as the connection and the head tell.
#[derive(Clone, Copy)]
pub(super) struct Asker<'a> {
    peer: &'a Peer,
    shown: Shown,
    is_proxied: bool,
}

impl Asker<'_> {
    fn recognise<'t>(&self, table: &'t Table, door: &Door) -> Result<Option<&'t Known>, Problem> {
        let callers = table.callers();
        callers.recognise(&door.address, self.peer, self.shown, self.is_proxied)
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

/// The way to a service.
pub(super) struct Direction<'a> {
    pub(super) chosen: Chosen,
    pub(super) asker: Asker<'a>,
    /// Where what the service is to see of the path begins.
    pub(super) remainder: usize,
    pub(super) overview: Overview,
}

impl Gateway {
    /// Where a request goes. Reads nothing but its head, and waits for nothing.
    pub(super) fn direct<'a>(
        &self,
        table: &Table,
        door: &Door,
        peer: &'a Peer,
        request: &Request<Incoming>,
        exchange: &mut Exchange,
    ) -> Result<Directed<'a>, Problem> {
        let overview = Overview::of(request.headers());
        let form = self.form(door, peer, request, overview)?;
        door.hosts.admit(
            peer,
            request,
            overview,
            matches!(form, Form::Proxied { .. }),
        )?;
        let credentials = Credentials::read(request.headers(), overview)?;
        let asker = Asker {
            peer,
            shown: credentials.shown,
            is_proxied: matches!(form, Form::Proxied { .. }),
        };
        let read = || {
            let said = Said::read(request.headers(), overview, &credentials)?;
            Ok(match form {
                Form::Plain { path } => (path, address::read(path, said, &door.bound)?),
                Form::Proxied { authority, path } => {
                    (path, proxied(table, authority, path, said, &door.bound)?)
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
        let (path, address) = read()?;
        exchange.tenant = address.tenant;
        let may = |service: &str| match caller {
            Some(caller) => caller.admit(address.tenant, service, table.registry()),
            None => Ok(()),
        };
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
        exchange.places = Some(self.admit(&chosen.offered, caller, address.tenant)?);
        Ok(Directed::To(Direction {
            chosen,
            asker,
            remainder: path.len() - address.remainder.len(),
            overview,
        }))
    }

    /// How a request names where it goes, with a head of tolerable size.
    fn form<'a>(
        &self,
        door: &Door,
        peer: &Peer,
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
        if has_dot_segment(uri.path()) {
            return Err(Problem::new(
                Code::RequestMalformed,
                "the path has a segment . or .., which would lead elsewhere for who resolves it",
                "send the path as it is meant (RFC 3986 section 5.2.4)",
            ));
        }
        if !path.starts_with('/') {
            return Err(Problem::new(
                Code::RequestMalformed,
                "the request names no path",
                "send the path: /dmp/… with X-Finess",
            ));
        }
        // HTTP/2 has an authority in each request, which says nothing.
        let authority = uri
            .authority()
            .filter(|_| request.version() < Version::HTTP_2);
        // A server must take its own address in this form, too (RFC 9112 section 3.2.2).
        let is_own = |authority: &Authority| {
            let port = authority.port_u16().unwrap_or(80);
            door.port == Some(port) && door.hosts.is_ours(peer, authority.host())
        };
        match authority {
            Some(authority) if !is_own(authority) => {
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

/// Whether servers that resolve dot segments, decoded or not, would find another path: one that leaves the service's
/// base, or enters another service on the same host. Tomcat takes `..;x` for one, and Windows has another separator.
fn has_dot_segment(path: &str) -> bool {
    if !path.contains("/.") && !path.contains('%') && !path.contains('\\') {
        return false;
    }
    let decoded = percent_decode_str(path).collect::<Vec<_>>();
    let mut segments = decoded.split(|byte| matches!(byte, b'/' | b'\\'));
    segments.any(|segment| {
        let end = segment.iter().position(|byte| *byte == b';');
        matches!(&segment[..end.unwrap_or(segment.len())], b"." | b"..")
    })
}

/// The service that a request to a forward proxy means (RFC 9112 section 3.2.2), and nothing but a declared one.
fn proxied<'a>(
    table: &'a Table,
    authority: &Authority,
    path: &'a str,
    said: Said,
    bound: &'a Bound,
) -> Result<Address<'a>, Problem> {
    let (service, remainder) = table.service_at(authority, path, bound.service.as_deref())?;
    // A browser that takes Relais for its proxy comes by the listener as well, and names no tenant.
    let named = address::the_one([None, said.in_header, said.in_credentials, None])?;
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
        offered: Arc::clone(offered),
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

#[cfg(test)]
mod tests {
    use super::has_dot_segment;

    #[test]
    fn a_path_that_leads_elsewhere_for_who_resolves_it_is_told_from_one_that_does_not() {
        for path in [
            "/a/../b",
            "/a/..",
            "/./a",
            "/a/.",
            "/a/%2e%2E/b",
            "/a/.%2e",
            "/a/..;x=1/b",
            "/a/..\\b",
            "/a/%2e%2e%2fb",
            "/a/%5c..%5cb",
            "/a%2f..%2fb",
        ] {
            assert!(has_dot_segment(path), "{path}");
        }
        for path in [
            "/",
            "/a/...",
            "/a/.b",
            "/a/b.c",
            "/.well-known/x",
            "/a%2Fb",
            "/a/%20..",
            "/a..b/c",
        ] {
            assert!(!has_dot_segment(path), "{path}");
        }
    }
}
