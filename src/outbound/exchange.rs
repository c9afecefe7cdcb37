//! One request to a service: sent over a connection of a pool, and once more where that is safe.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Instant;

use http::{Request, Response};
use hyper::body::Incoming;

use crate::outbound::Answer;
use crate::outbound::body::{Progress, Upload};
use crate::outbound::error::{Error, Stage};
use crate::outbound::lease::{Lease, Origin};
use crate::outbound::pool::Pool;
use crate::outbound::repeats::Budget;
use crate::services::{Retry, Service};
use crate::waiting::Alarm;

/// Why a request has no answer.
#[derive(Debug)]
pub(crate) enum Failure<R> {
    /// It could not be carried to the service.
    Carrying(Error),
    /// It was not let go.
    Refused(R),
}

impl<R> From<Error> for Failure<R> {
    fn from(error: Error) -> Self {
        Self::Carrying(error)
    }
}

/// Sends a request over a connection of `pool`, and once more over a fresh one where the service's `retry` allows.
/// The request's URI is the path and query at the service. With `h1_only` the connection speaks HTTP/1.1, as a protocol
/// upgrade needs it. `may_leave` is asked each time that a connection was had: whether the request may be sent was found
/// out before, and a connection may take seconds.
///
/// # Errors
/// Why there is no answer. What is then still in `unsent` has not left, not a byte of it: it was not sent to anybody
/// under another certificate.
pub(crate) async fn send<R>(
    pool: &Arc<Pool>,
    unsent: &mut Option<Request<Upload>>,
    h1_only: bool,
    may_leave: impl Fn() -> Result<(), R>,
) -> Result<Answer, Failure<R>> {
    let trial = pool.admit()?;
    let sent = send_admitted(pool, unsent, h1_only, may_leave).await;
    if let Some(trial) = trial {
        trial.ended(match &sent {
            Err(Failure::Carrying(error)) => Some(error),
            Ok(_) | Err(Failure::Refused(_)) => None,
        });
    }
    sent
}

async fn send_admitted<R>(
    pool: &Arc<Pool>,
    unsent: &mut Option<Request<Upload>>,
    h1_only: bool,
    may_leave: impl Fn() -> Result<(), R>,
) -> Result<Answer, Failure<R>> {
    let service = &**pool.service();
    let request = unsent.as_ref().expect("there is a request to send");
    let progress = request.body().progress().cloned();
    let again = repeatable(request, service.retry);
    let mut lease = let_go(pool.checkout(h1_only).await?, &may_leave)?;
    let repeats = pool.repeats();
    if let Some(repeats) = repeats {
        repeats.pay();
    }
    let first = exchange(&mut lease, unsent, progress.as_deref(), service).await;
    let error = match first {
        Ok(response) => return Ok(answered(pool, response, lease)),
        Err(error) => error,
    };
    if let Some(how) = pool.was_cut() {
        return Err(Failure::Carrying(match unsent {
            Some(_) => Error::Retired,
            None => Error::CutOff(how),
        }));
    }
    // Only a connection that lay idle fails for reasons older than the request; and a service that says why it
    // closed (an alert) would say it again.
    let stale = lease.origin() == Origin::Reused && matches!(error, Error::Protocol(_));
    lease.end(&error);
    let is_unsent = unsent.is_some();
    let is_repeatable = match is_unsent {
        true => service.retry != Retry::Never,
        false => again.is_some(),
    };
    if !stale || !is_repeatable || !repeats.is_some_and(Budget::take) {
        return Err(error.into());
    }
    if let Some(again) = again.filter(|_| !is_unsent) {
        *unsent = Some(*again);
    }
    let fresh = pool.checkout_fresh(h1_only).await;
    let sent = match fresh
        .map_err(Failure::from)
        .and_then(|lease| let_go(lease, &may_leave))
    {
        Ok(mut lease) => match exchange(&mut lease, unsent, progress.as_deref(), service).await {
            Ok(response) => return Ok(answered(pool, response, lease)),
            Err(error) => {
                lease.end(&error);
                // Twice is enough.
                *unsent = None;
                Err(error.into())
            }
        },
        Err(failure) => Err(failure),
    };
    if !is_unsent {
        // A copy of what may have arrived is not handed back: it would be repeated more than once.
        *unsent = None;
    }
    sent
}

/// Hands out a connection to a request that may leave. Otherwise it goes back as good as it came.
fn let_go<R>(lease: Lease, may_leave: &impl Fn() -> Result<(), R>) -> Result<Lease, Failure<R>> {
    match may_leave() {
        Ok(()) => Ok(lease),
        Err(refusal) => {
            lease.give_back();
            Err(Failure::Refused(refusal))
        }
    }
}

/// The service has answered: it takes the certificate, and it is there.
fn answered(pool: &Pool, response: Response<Incoming>, lease: Lease) -> Answer {
    pool.accepted();
    pool.reached();
    Answer { response, lease }
}

/// A copy of the request, where it may be sent again although it may already have arrived.
fn repeatable(request: &Request<Upload>, retry: Retry) -> Option<Box<Request<Upload>>> {
    if retry != Retry::Idempotent || !request.method().is_idempotent() || !request.body().is_empty()
    {
        return None;
    }
    let mut copy = Request::new(Upload::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(Box::new(copy))
}

/// Sends, and waits for the answer's head for as long as the service's deadlines allow.
async fn exchange(
    lease: &mut Lease,
    unsent: &mut Option<Request<Upload>>,
    progress: Option<&Progress>,
    service: &Service,
) -> Result<Response<Incoming>, Error> {
    let begun = Instant::now();
    if let Some(progress) = progress {
        // Waiting for a connection, or failing on another one, is no pause of the body.
        progress.mark();
    }
    let timeouts = service.timeouts;
    let deadline = || match progress {
        Some(progress) => progress.deadline(timeouts.response, timeouts.body),
        None => begun + timeouts.response,
    };
    // When to look how far it is. An upload that ends meanwhile begins the time of the answer, which may be the shorter.
    let mut look = deadline().min(begun + timeouts.response);
    let mut alarm = (lease.take_alarm()).unwrap_or_else(|| Alarm::at(look));
    let answered = {
        let mut sending = pin!(lease.send(unsent));
        poll_fn(|cx| {
            if let Poll::Ready(sent) = sending.as_mut().poll(cx) {
                return Poll::Ready(sent);
            }
            loop {
                ready!(alarm.poll_until(cx, look));
                let (now, deadline) = (Instant::now(), deadline());
                if deadline <= now {
                    let stall = progress.map_or(Error::Timeout(Stage::Answer), Progress::stall);
                    return Poll::Ready(Err(stall));
                }
                look = deadline.min(now + timeouts.response);
            }
        })
        .await
    };
    lease.keep_alarm(alarm);
    // Over HTTP/2 the exchange learns only that the upload broke off, not why.
    answered.map_err(|error| {
        progress
            .and_then(Progress::failure)
            .cloned()
            .unwrap_or(error)
    })
}
