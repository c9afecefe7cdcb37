//! Who, for what: from a request as it arrived to the service's answer.
//!
//! [`Entrance::take`] and [`Taken::answer`] read as the specification. What it refuses, and how the refusal reads, is in [`reply`].

pub mod address;
pub mod caller;
pub mod credentials;
pub mod diagnosis;
mod direction;
pub mod exchange;
mod form;
pub mod guard;
pub mod headers;
mod introspection;
pub mod limits;
pub mod rate;
pub mod reply;
pub mod table;
mod tunnel;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use crate::config::ListenAddress;
use crate::gateway::address::Bound;
use crate::gateway::diagnosis::{Diagnosis, FaultReader};
use crate::gateway::direction::{Asker, Chosen, Directed, Direction, choose};
use crate::gateway::exchange::{Exchange, Open, Outcome, Reply, Unanswered};
use crate::gateway::guard::Hosts;
use crate::gateway::limits::Count;
use crate::gateway::reply::{Code, Problem};
use crate::gateway::table::Table;
use crate::gateway::tunnel::Tunnel;
use crate::identity::finess::Finess;
use crate::inbound::peer::Peer;
use crate::metrics::Metrics;
use crate::outbound::body::{Download, Upload};
use crate::outbound::error::Error;
use crate::outbound::lease::Origin;
use crate::outbound::{self, Failure};
use crate::services::Service;
use crate::telemetry::access::AccessLog;

/// How often a certificate is chosen for one request, at most. That it is replaced while the request waits for a
/// connection happens; that it happens thrice means that something replaces without end.
const ATTEMPTS: usize = 3;

/// What every worker shares to answer requests.
#[derive(Debug)]
pub struct Gateway {
    /// The snapshot; a request takes it once and lives with what it took.
    pub table: ArcSwap<Table>,
    /// The largest request head, in bytes.
    pub request_head: usize,
    /// Requests that may be under way at once, to all services.
    pub requests: usize,
    /// How many there are.
    pub under_way: Count,
    /// Where problems are counted.
    pub metrics: Arc<Metrics>,
    /// Where each request is written down.
    pub log: AccessLog,
    /// What answers reveal of certificates.
    pub diagnosis: Arc<Diagnosis>,
}

/// One worker's way into the gateway by one listener. No worker shares it with another, since all requests hold on to
/// theirs: what several workers count in one place, they wait for each other to count.
#[derive(Debug)]
#[repr(align(128))]
pub struct Entrance {
    /// What is behind it.
    pub gateway: Arc<Gateway>,
    /// Which of the table's doors it is.
    pub door: usize,
    /// The listener's name, as JSON has it: it is in each line of the access log.
    listener: Box<str>,
}

/// What a request is answered with.
enum Answer {
    /// A service's answer, and the tunnel that it opens if it changes protocols.
    Service(Response<Download>, Option<Tunnel>),
    /// What Relais was asked about itself.
    Own(Response<Bytes>),
}

/// A request that is about to leave.
struct Departure {
    chosen: Chosen,
    asker: Asker,
    remainder: usize,
    /// What becomes of the application's connection, if the request asks for another protocol.
    application: Option<OnUpgrade>,
}

/// A request that has no answer yet.
pub struct Taken {
    entrance: Arc<Entrance>,
    departing: Result<Departing, Problem>,
    unanswered: Unanswered,
}

impl fmt::Debug for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Taken").finish_non_exhaustive()
    }
}

impl Taken {
    /// Answers it: never fails, because what goes wrong has an answer too.
    pub async fn answer(self) -> Response<Reply> {
        let Self {
            entrance,
            departing,
            mut unanswered,
        } = self;
        let answer = match departing {
            Ok(Departing::To(departure)) => entrance.forward(departure, unanswered.record()).await,
            Ok(Departing::Own(response)) => Ok(Answer::Own(response)),
            Err(problem) => Err(problem),
        };
        entrance.gateway.reply(answer, unanswered)
    }
}

/// What came of a look at a request.
enum Departing {
    To(Departure),
    Own(Response<Bytes>),
}

/// A listener as the gateway sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Door {
    /// Its address, for the log.
    pub name: Arc<str>,
    /// The same as the configuration has it, where a port may be 0.
    pub address: ListenAddress,
    /// The port that it really has, if it has one.
    pub port: Option<u16>,
    /// What it says of every request.
    pub bound: Bound,
    /// Which hosts it answers to.
    pub hosts: Hosts,
    /// Whether CONNECT to a service is taken.
    pub takes_tunnels: bool,
    /// Whether TLS lets nobody in here without a certificate, by now: a connection that is open may be older.
    pub is_closed: bool,
}

impl Entrance {
    /// The way in by one of the table's doors.
    pub fn new(gateway: &Arc<Gateway>, door: usize) -> Arc<Self> {
        // The path of a socket may need an escape.
        let listener = serde_json::to_string(&*gateway.table.load().doors()[door].name);
        Arc::new(Self {
            gateway: Arc::clone(gateway),
            door,
            listener: listener.expect("a text has a form in JSON").into(),
        })
    }

    /// Takes a request from `peer` as far as nothing has to be waited for. That is done before there is a future, which
    /// would hold, and be moved about with, all that is only passed on by it.
    pub fn take(self: &Arc<Self>, peer: &Arc<Peer>, request: Request<Incoming>) -> Taken {
        let mut unanswered = Unanswered::new(begin(&request), self);
        let record = unanswered.record();
        let departing = match self.look(peer, &request, &mut record.exchange) {
            Ok(Directed::To(direction)) => {
                Ok(Departing::To(self.prepare(request, direction, record)))
            }
            Ok(Directed::Own(response)) => {
                record.unwanted = Some(request.into_body());
                Ok(Departing::Own(response))
            }
            Err(problem) => {
                record.unwanted = Some(request.into_body());
                Err(problem)
            }
        };
        Taken {
            entrance: Arc::clone(self),
            departing,
            unanswered,
        }
    }

    /// Where a request goes, by the table that is in use now.
    fn look(
        self: &Arc<Self>,
        peer: &Arc<Peer>,
        request: &Request<Incoming>,
        exchange: &mut Exchange,
    ) -> Result<Directed, Problem> {
        // Listener and services are read out of one snapshot: a name that a listener gives may mean another service a
        // moment later. What takes a while must not keep a table that others have long replaced.
        let table = self.gateway.table.load();
        self.direct(&table, &table.doors()[self.door], peer, request, exchange)
    }

    /// Looks up the connections for a request that was meant for a service as it was when it came, as the table is now,
    /// if its caller may still make it.
    fn choose_again(
        &self,
        asker: &Asker,
        meant: &Service,
        exchange: &mut Exchange,
    ) -> Result<Chosen, Problem> {
        let table = self.gateway.table.load();
        let door = &table.doors()[self.door];
        asker.may_still(&table, door, &meant.name, exchange.tenant)?;
        let chosen = choose(&table, &meant.name, exchange)?;
        let environment = chosen.pool.service().environment;
        // A service may have moved; what was meant for a sandbox must not reach patients.
        let is_it = environment == meant.environment;
        is_it.then_some(chosen).ok_or_else(|| {
            Problem::new(
                Code::Overloaded,
                format!(
                    "{} came to be a {environment} service while the request waited",
                    meant.name
                ),
                "nothing of it was sent: send it again if it is meant for the service as it is now",
            )
        })
    }

    /// Whether a request that has come by a connection may still be made. Nearly always the table is the one that it was
    /// admitted by, which is all that is looked at then.
    fn may_leave(
        &self,
        asker: &Asker,
        chosen: &Chosen,
        tenant: Option<Finess>,
    ) -> Result<(), Problem> {
        let table = self.gateway.table.load();
        if table.edition() == chosen.edition {
            return Ok(());
        }
        let service = &chosen.pool.service().name;
        asker.may_still(&table, &table.doors()[self.door], service, tenant)
    }

    /// Makes a request's head what the service is to see.
    fn prepare(
        &self,
        mut request: Request<Incoming>,
        direction: Direction,
        record: &mut Open,
    ) -> Departure {
        let Direction {
            chosen,
            asker,
            remainder,
            overview,
        } = direction;
        let is_upgrade = headers::for_service(request.headers_mut(), overview);
        let application = is_upgrade.then(|| hyper::upgrade::on(&mut request));
        let most = chosen.pool.service().limits.request_body;
        record.take(request, |body| {
            Upload::new(body, most, headers::of_trailers)
        });
        Departure {
            chosen,
            asker,
            remainder,
            application,
        }
    }

    /// Carries a request to its service.
    async fn forward(&self, departure: Departure, record: &mut Open) -> Result<Answer, Problem> {
        let Departure {
            mut chosen,
            asker,
            remainder,
            application,
        } = departure;
        let Open {
            exchange,
            unsent,
            asked,
            ..
        } = record;
        let mut waited = Duration::ZERO;
        let offered = exchange.offered.as_ref();
        if let Some(limiter) = offered.and_then(|offered| offered.limiter.clone()) {
            waited = limiter.turn(exchange.tenant).await?;
            // The certificate may have been revoked or renewed meanwhile.
            chosen = self.choose_again(&asker, chosen.pool.service(), exchange)?;
            if let Some(request) = unsent {
                let most = chosen.pool.service().limits.request_body;
                request.body_mut().may_have(most);
            }
        }

        // From here on all is the service's, or the way to it.
        let own = exchange.begun.elapsed().saturating_sub(waited);
        let is_upgrade = application.is_some();
        let mut attempts = ATTEMPTS;
        let answer = loop {
            if let Some(request) = unsent {
                address_to(chosen.pool.service(), asked, remainder, request)?;
            }
            let tenant = exchange.tenant;
            let may_leave = || self.may_leave(&asker, &chosen, tenant);
            let sent = outbound::send(&chosen.pool, unsent, is_upgrade, may_leave).await;
            let error = match sent {
                Ok(answer) => break answer,
                Err(Failure::Refused(problem)) => return Err(problem),
                Err(Failure::Carrying(error)) => error,
            };
            attempts -= 1;
            let may_repeat = unsent.is_some() && attempts > 0;
            match error {
                // Replaced while the request waited for a connection: nothing of it has left.
                Error::Retired if may_repeat => {}
                Error::CertificateRejected(alert) => {
                    self.gateway.diagnosis.of_error(&error, exchange);
                    // What stands in is refused, too: the service may have come to know the other meanwhile.
                    if let Some(principal) = &chosen.principal {
                        principal.hurry();
                    }
                    // The certificate before it may serve on.
                    if !(chosen.pool.refused(alert) && may_repeat) {
                        return Err(error.into());
                    }
                }
                error => return Err(error.into()),
            }
            let service = Arc::clone(chosen.pool.service());
            if let Some(request) = unsent {
                take_headers_of(&service, request);
            }
            chosen = self.choose_again(&asker, &service, exchange)?;
        };
        let service = chosen.pool.service();
        let origin = answer.lease.origin();
        exchange.connection = Some((origin, answer.lease.version()));
        let outbound::Answer {
            mut response,
            lease,
        } = answer;
        let tunnel = match (response.status(), application) {
            (StatusCode::SWITCHING_PROTOCOLS, Some(application)) => {
                let upgraded = hyper::upgrade::on(&mut response);
                Some(tunnel::between(
                    application,
                    upgraded,
                    Arc::clone(&chosen.pool),
                ))
            }
            (StatusCode::SWITCHING_PROTOCOLS, None) => {
                return Err(Error::broken("it changed protocols unasked").into());
            }
            _ => None,
        };
        let response = response.map(|body| Download::new(body, lease, service.timeouts.body));
        if let Some(offered) = &exchange.offered {
            offered.metrics.overhead(own);
            if origin == Origin::Reused {
                offered.metrics.reused();
            }
        }
        Ok(Answer::Service(response, tunnel))
    }
}

impl Gateway {
    /// Forgets what is kept of tenants that have made no request for a while.
    pub fn tidy(&self) {
        let table = self.table.load();
        let rates = table.services().iter();
        (rates.filter_map(|one| one.rates.as_ref())).for_each(|rates| rates.forget_idle());
    }

    /// Makes the answer to the application of what came of its request, and closes the record or hands it on with the
    /// answer's body.
    fn reply(&self, answer: Result<Answer, Problem>, unanswered: Unanswered) -> Response<Reply> {
        let mut record = unanswered.answered();
        let exchange = &mut record.exchange;
        match answer {
            Ok(Answer::Own(response)) => {
                exchange.status = response.status().as_u16();
                response.map(|text| Reply::own(text, record))
            }
            Ok(Answer::Service(mut response, upgraded)) => {
                exchange.status = response.status().as_u16();
                if let Some(upgraded) = upgraded {
                    exchange.outcome = Outcome::Upgraded;
                    tokio::spawn(upgraded);
                }
                let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
                headers::for_application(response.headers_mut(), switching);
                let faults = FaultReader::of(&response, &self.diagnosis);
                response.map(|body| Reply::from_service(body, faults, record))
            }
            Err(problem) => {
                exchange.status = problem.status().as_u16();
                exchange.code = Some(problem.code);
                let offered = exchange.offered.as_ref();
                let service = offered.map_or("", |offered| &offered.service.name);
                self.metrics
                    .problem(service, exchange.status, problem.code.as_str());
                if problem.code == Code::Internal {
                    tracing::error!(
                        service,
                        detail = problem.detail,
                        "request failed inside the gateway"
                    );
                }
                problem.into_response().map(|text| Reply::own(text, record))
            }
        }
    }
}

/// What a service wants on each request may be a secret, and it may be elsewhere by now.
fn take_headers_of(service: &Service, request: &mut Request<Upload>) {
    for (name, _) in &service.headers {
        request.headers_mut().remove(name);
    }
}

fn begin(request: &Request<Incoming>) -> Exchange {
    Exchange {
        at: SystemTime::now(),
        begun: Instant::now(),
        method: request.method().clone(),
        version: request.version(),
        caller: None,
        tenant: None,
        offered: None,
        pool: None,
        connection: None,
        status: 0,
        code: None,
        places: None,
        upload: None,
        sent: 0,
        outcome: Outcome::Complete,
    }
}

/// Writes on a request where it goes at the service, and the fields that the service wants on each.
fn address_to(
    service: &Service,
    asked: &Uri,
    remainder: usize,
    request: &mut Request<Upload>,
) -> Result<(), Problem> {
    let path = asked.path_and_query().map_or("", |path| path.as_str());
    let target = service.target.path_and_query(&path[remainder..]);
    let target = target.map_err(|error| {
        Problem::new(
            Code::RequestMalformed,
            format!("the path cannot be passed on: {error}"),
            "",
        )
    })?;
    *request.uri_mut() = target.into();
    for (name, value) in &service.headers {
        request.headers_mut().insert(name, value.clone());
    }
    Ok(())
}
