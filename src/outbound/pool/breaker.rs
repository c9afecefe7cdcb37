//! What keeps requests from a service that cannot be reached: after some failures in a row they are refused at once for
//! a while, and then one at a time tries.
//!
//! A pool has its own, and so each certificate at each service: what one meets says nothing of the others. Only failures
//! to reach the service count ([`Error::is_outage`]). Whatever it answers, a SOAP fault or a 503, closes the breaker.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::shelf::lock;
use super::{Active, Pool};
use crate::metrics::Gauged;
use crate::outbound::error::Error;

/// Failures in a row that open it. One or two are a machine of several that is being restarted.
const FAILURES: u32 = 5;

/// How long it is open at first: as long as a front end takes to be reloaded.
const OPEN_FOR: Duration = Duration::from_secs(1);

/// How long in the end: a service that is back is noticed within half a minute.
const OPEN_FOR_AT_MOST: Duration = Duration::from_secs(30);

/// Counts failures, and is open after too many.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// In a row. It is open from [`FAILURES`] on: all that requests look at.
    failures: AtomicU32,
    open: Mutex<Option<Open>>,
}

struct Open {
    /// The last failure, for those who are refused.
    last: Arc<Error>,
    pause: Duration,
    /// When the next request may try.
    until: Instant,
    /// Since when one does.
    tried_since: Option<Instant>,
    _counted: Gauged,
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Open")
            .field("last", &self.last)
            .field("pause", &self.pause)
            .finish_non_exhaustive()
    }
}

impl Open {
    fn refusal(&self, now: Instant) -> Error {
        Error::LeftAlone {
            last: Arc::clone(&self.last),
            wait: self.until.saturating_duration_since(now),
        }
    }
}

/// A request that tries whether the service can be reached again. What becomes of it decides for the others; if nothing
/// does (the application goes away), another may try.
#[derive(Debug)]
pub(crate) struct Trial {
    pool: Arc<Pool>,
    since: Instant,
}

impl Pool {
    /// Lets a request through, if need be as the one that tries.
    ///
    /// # Errors
    /// When the service could not be reached lately.
    pub(crate) fn admit(self: &Arc<Self>) -> Result<Option<Trial>, Error> {
        if !self.is_left_alone() {
            return Ok(None);
        }
        let mut open = lock(&self.breaker.open);
        let Some(open) = open.as_mut() else {
            return Ok(None);
        };
        let now = Instant::now();
        // One that waits for an answer for longer keeps nobody else from trying.
        let is_tried = (open.tried_since).is_some_and(|since| now < since + OPEN_FOR_AT_MOST);
        if now < open.until || is_tried {
            return Err(open.refusal(now));
        }
        open.tried_since = Some(now);
        Ok(Some(Trial {
            pool: Arc::clone(self),
            since: now,
        }))
    }

    /// Whether requests are refused because the service could not be reached.
    pub fn is_left_alone(&self) -> bool {
        self.breaker.failures.load(Ordering::Relaxed) >= FAILURES
    }

    /// The service was not reached, or something else went wrong.
    pub(crate) fn failed(&self, error: &Error) {
        if !self.service.breaker || !error.is_outage() || self.is_left_alone() || self.is_retired()
        {
            return;
        }
        let failures = self.breaker.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if failures >= FAILURES {
            self.leave_alone(error, OPEN_FOR);
        }
    }

    /// The service has answered, whatever it said.
    pub(crate) fn answered(&self) {
        if self.breaker.failures.load(Ordering::Relaxed) > 0 {
            self.close_breaker();
        }
    }

    /// Lets requests through again: the service was reached, or nobody asks this pool any more.
    pub(super) fn close_breaker(&self) {
        let mut open = lock(&self.breaker.open);
        // Under the lock, or it could be open and no request would know.
        self.breaker.failures.store(0, Ordering::Relaxed);
        if open.take().is_some() && !self.is_retired() {
            tracing::debug!(service = %self.service.name, "the service is reached again");
        }
    }

    fn leave_alone(&self, error: &Error, pause: Duration) {
        let now = Instant::now();
        let mut state = lock(&self.breaker.open);
        let is_new = state.is_none();
        let open = state.get_or_insert_with(|| Open {
            last: Arc::new(error.clone()),
            pause,
            until: now + pause,
            tried_since: None,
            _counted: self.outbound.breaker_gauge(&self.service),
        });
        if !is_new {
            open.last = Arc::new(error.clone());
            open.pause = pause;
            open.until = now + pause;
            open.tried_since = None;
        }
        self.breaker.failures.store(FAILURES, Ordering::Relaxed);
        let refusal = open.refusal(now);
        drop(state);
        if is_new {
            // Thousands of certificates may meet the same; the metric counts them.
            tracing::debug!(
                service = %self.service.name, %error,
                "the service cannot be reached: requests are refused at once until one gets through"
            );
        }
        if let Some(active) = self.used() {
            active.refuse_waiting(refusal, now);
        }
    }
}

impl Active {
    /// Why there is no use in going on, for a request that arrived before it was known.
    pub(super) fn left_alone_since(&self, arrived: Instant) -> Option<Error> {
        let failed = self.failed_since(arrived);
        failed.filter(|error| matches!(error, Error::LeftAlone { .. }))
    }

    /// Who waits for a connection would wait in vain.
    fn refuse_waiting(&self, refusal: Error, now: Instant) {
        *lock(&self.failure) = Some((now, refusal));
        for queue in [&self.queue, &self.picky] {
            queue.freed.notify_waiters();
        }
    }
}

impl Trial {
    /// What became of it, if it failed.
    pub(crate) fn ended(self, error: Option<&Error>) {
        match error {
            // It refuses the certificate: it is there.
            Some(Error::CertificateRejected(_)) => self.pool.close_breaker(),
            Some(error) if error.is_outage() => {
                let pause = lock(&self.pool.breaker.open)
                    .as_ref()
                    .filter(|open| open.tried_since == Some(self.since))
                    .map(|open| (open.pause * 2).min(OPEN_FOR_AT_MOST));
                if let Some(pause) = pause {
                    self.pool.leave_alone(error, pause);
                }
            }
            Some(_) | None => {}
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if let Some(open) = lock(&self.pool.breaker.open).as_mut()
            && open.tried_since == Some(self.since)
        {
            open.tried_since = None;
        }
    }
}
