//! One request to a service: sent over a connection of a pool, and once more where that is safe.

use std::sync::Arc;
use std::time::Instant;

use http::{Request, Response};
use hyper::body::Incoming;

use crate::outbound::Answer;
use crate::outbound::body::{Progress, Upload};
use crate::outbound::error::{Error, Stage};
use crate::outbound::lease::{Failed, Lease, Origin};
use crate::outbound::pool::Pool;
use crate::services::{Retry, Service};

/// Sends a request over a connection of `pool`, and once more over a fresh one where the service's `retry` allows.
/// The request's URI is the path and query at the service.
///
/// # Errors
/// Why there is no answer, with the request where no byte of it has left: whatever the error, it was not sent to
/// anybody under another certificate.
pub(crate) async fn send(pool: &Arc<Pool>, request: Request<Upload>) -> Result<Answer, Failed> {
    let service = Arc::clone(pool.service());
    let h1_only = request.headers().contains_key(http::header::UPGRADE);
    let progress = request.body().progress().cloned();
    let again = repeatable(&request, service.retry);
    let mut lease = match pool.checkout(h1_only).await {
        Ok(lease) => lease,
        Err(error) => return Err(Failed::unsent(error, request)),
    };
    let first = exchange(&mut lease, request, progress.as_deref(), &service).await;
    let (error, unsent) = match first {
        Ok(response) => {
            pool.accepted();
            return Ok(Answer { response, lease });
        }
        Err(failed) => (failed.error, failed.unsent),
    };
    if let Some(how) = pool.was_cut() {
        return Err(match unsent {
            Some(request) => Failed::unsent(Error::Retired, request),
            None => Error::CutOff(how).into(),
        });
    }
    // Only a connection that lay idle fails for reasons older than the request; and a service that says why it
    // closed (an alert) would say it again.
    let stale = lease.origin() == Origin::Reused && matches!(error, Error::Protocol(_));
    lease.end(&error);
    let is_unsent = unsent.is_some();
    let retry = match (unsent, again) {
        (Some(request), _) if service.retry != Retry::Never && stale => request,
        (None, Some(request)) if stale => request,
        (unsent, _) => return Err(Failed { error, unsent }),
    };
    let mut lease = match pool.checkout_fresh(h1_only).await {
        Ok(lease) => lease,
        Err(error) => {
            // A copy of what may have arrived is not handed back: it would be repeated more than once.
            let unsent = is_unsent.then_some(retry);
            return Err(Failed { error, unsent });
        }
    };
    match exchange(&mut lease, retry, progress.as_deref(), &service).await {
        Ok(response) => {
            pool.accepted();
            Ok(Answer { response, lease })
        }
        Err(failed) => {
            lease.end(&failed.error);
            Err(failed.error.into())
        }
    }
}

/// A copy of the request, where it may be sent again although it may already have arrived.
fn repeatable(request: &Request<Upload>, retry: Retry) -> Option<Request<Upload>> {
    if retry != Retry::Idempotent || !request.method().is_idempotent() || !request.body().is_empty()
    {
        return None;
    }
    let mut copy = Request::new(Upload::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

async fn exchange(
    lease: &mut Lease,
    request: Request<Upload>,
    progress: Option<&Progress>,
    service: &Service,
) -> Result<Response<Incoming>, Failed> {
    let timeouts = service.timeouts;
    let begun = Instant::now();
    if let Some(progress) = progress {
        // Waiting for a connection, or failing on another one, is no pause of the body.
        progress.mark();
    }
    let mut sending = std::pin::pin!(lease.send(request));
    loop {
        // Looked at before the deadline is computed, so that an end in between is not missed.
        let under_way = progress.filter(|progress| !progress.ended());
        let deadline = match progress {
            Some(progress) => progress.deadline(timeouts.response, timeouts.body),
            None => begun + timeouts.response,
        };
        if deadline <= Instant::now() {
            let error = progress.map_or(Error::Timeout(Stage::Answer), Progress::stall);
            return Err(error.into());
        }
        // A deadline that passes is computed anew, because the upload may have moved on since; so is one that the
        // upload's end brings nearer.
        tokio::select! {
            biased;
            sent = &mut sending => {
                return sent.map_err(|failed| Failed {
                    // Over HTTP/2 the exchange learns only that the upload broke off, not why.
                    error: progress.and_then(Progress::failure).cloned().unwrap_or(failed.error),
                    ..failed
                });
            }
            () = end_of(under_way) => {}
            () = tokio::time::sleep_until(deadline.into()) => {}
        }
    }
}

async fn end_of(upload: Option<&Progress>) {
    match upload {
        Some(upload) => upload.end().await,
        None => std::future::pending().await,
    }
}
