//! What keeps requests from a service that cannot be reached: after some failures in a row they are refused at once for
//! a while, and then one at a time tries.
//!
//! A pool has its own, and so each certificate at each service: what one meets says nothing of the others. Only failures
//! to reach the service count ([`Error::is_outage`]), because tenants may share a certificate: one whose own requests are
//! answered late must not keep the others out. A connection that is open closes the breaker, before anything is answered.

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

impl Breaker {
    fn is_open(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= FAILURES
    }

    /// Lets a request through, with the name of its trial if it is one. A trial that takes longer than `bound` keeps
    /// nobody else from trying.
    fn admit(&self, now: Instant, bound: Duration) -> Result<Option<Instant>, Error> {
        if !self.is_open() {
            return Ok(None);
        }
        let mut open = lock(&self.open);
        let Some(open) = open.as_mut() else {
            return Ok(None);
        };
        let is_tried = open.tried_since.is_some_and(|since| now < since + bound);
        if now < open.until || is_tried {
            return Err(open.refusal(now));
        }
        open.tried_since = Some(now);
        Ok(Some(now))
    }

    /// Counts a failure. What those who wait are told, if it was the last straw.
    fn count(&self, error: &Error, now: Instant, gauge: impl FnOnce() -> Gauged) -> Option<Error> {
        if self.is_open() || self.failures.fetch_add(1, Ordering::Relaxed) + 1 < FAILURES {
            return None;
        }
        let mut state = lock(&self.open);
        let open = state.get_or_insert_with(|| Open {
            last: Arc::new(error.clone()),
            pause: OPEN_FOR,
            until: now + OPEN_FOR,
            tried_since: None,
            _counted: gauge(),
        });
        // Under the lock, or it could be open and no request would know.
        self.failures.store(FAILURES, Ordering::Relaxed);
        Some(open.refusal(now))
    }

    /// Stays open for twice as long, because the trial failed. What those who wait are told, unless another has begun.
    fn prolong(&self, error: &Error, since: Instant, now: Instant) -> Option<Error> {
        let mut state = lock(&self.open);
        let open = (state.as_mut()).filter(|open| open.tried_since == Some(since))?;
        open.last = Arc::new(error.clone());
        open.pause = (open.pause * 2).min(OPEN_FOR_AT_MOST);
        open.until = now + open.pause;
        open.tried_since = None;
        Some(open.refusal(now))
    }

    /// Another may try: nothing came of the trial.
    fn abandon(&self, since: Instant) {
        if let Some(open) = lock(&self.open).as_mut()
            && open.tried_since == Some(since)
        {
            open.tried_since = None;
        }
    }

    /// Lets all through. Whether that is news.
    fn close(&self) -> bool {
        let mut open = lock(&self.open);
        // Under the lock, or it could be open and no request would know.
        self.failures.store(0, Ordering::Relaxed);
        open.take().is_some()
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
        let since = self.breaker.admit(Instant::now(), self.dial_time())?;
        Ok(since.map(|since| Trial {
            pool: Arc::clone(self),
            since,
        }))
    }

    /// Whether requests are refused because the service could not be reached.
    pub fn is_left_alone(&self) -> bool {
        self.breaker.is_open()
    }

    /// No connection could be opened, for whatever reason.
    pub(super) fn dial_failed(&self, error: &Error) {
        if error.is_from_the_service() {
            self.reached();
        }
        if !self.service.breaker || !error.is_outage() || self.is_retired() {
            return;
        }
        let now = Instant::now();
        let gauge = || self.outbound.breaker_gauge(&self.service);
        if let Some(refusal) = self.breaker.count(error, now, gauge) {
            // Thousands of certificates may meet the same; the metric counts them.
            tracing::debug!(
                service = %self.service.name, %error,
                "the service cannot be reached: requests are refused at once until one gets through"
            );
            self.refuse_waiting(refusal, now);
        }
    }

    /// The service is there: it has taken a connection, or answered, whatever it said.
    pub(crate) fn reached(&self) {
        if self.breaker.failures.load(Ordering::Relaxed) > 0 {
            self.close_breaker();
        }
    }

    /// Lets requests through again: the service was reached, or nobody asks this pool any more.
    pub(super) fn close_breaker(&self) {
        if self.breaker.close() && !self.is_retired() {
            tracing::debug!(service = %self.service.name, "the service is reached again");
        }
    }

    /// Who waits for a connection would wait in vain.
    pub(crate) fn refuse_waiting(&self, refusal: Error, now: Instant) {
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
            Some(error) if error.is_from_the_service() => self.pool.reached(),
            Some(error) if error.is_outage() => {
                let now = Instant::now();
                if let Some(refusal) = self.pool.breaker.prolong(error, self.since, now) {
                    self.pool.refuse_waiting(refusal, now);
                }
            }
            // The application, or this machine: neither says anything of the service.
            Some(_) | None => {}
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.pool.breaker.abandon(self.since);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::outbound::error::Stage;

    const BOUND: Duration = Duration::from_secs(20);

    const UNREACHED: Error = Error::Timeout(Stage::Connect);

    fn fails(breaker: &Breaker, now: Instant) -> Option<Error> {
        breaker.count(&UNREACHED, now, || {
            Metrics::new().breaker_open(&"up".into())
        })
    }

    fn opened(now: Instant) -> Breaker {
        let breaker = Breaker::default();
        for _ in 1..FAILURES {
            assert!(fails(&breaker, now).is_none());
            assert!(breaker.admit(now, BOUND).unwrap().is_none());
        }
        assert!(fails(&breaker, now).is_some());
        breaker
    }

    fn wait(breaker: &Breaker, now: Instant) -> Duration {
        match breaker.admit(now, BOUND).unwrap_err() {
            Error::LeftAlone { wait, .. } => wait,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn each_trial_that_fails_doubles_the_pause_up_to_half_a_minute() {
        let mut now = Instant::now();
        let breaker = opened(now);
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            let pause = Duration::from_secs(seconds);
            assert_eq!(wait(&breaker, now), pause);
            now += pause;
            let since = breaker.admit(now, BOUND).unwrap().unwrap();
            assert!(breaker.prolong(&UNREACHED, since, now).is_some());
        }
    }

    #[test]
    fn one_tries_at_a_time_and_another_once_its_time_is_over_or_it_gives_up() {
        let now = Instant::now() + OPEN_FOR;
        let breaker = opened(now - OPEN_FOR);
        let first = breaker.admit(now, BOUND).unwrap().unwrap();
        assert!(breaker.admit(now + BOUND / 2, BOUND).is_err());
        let second = breaker.admit(now + BOUND, BOUND).unwrap().unwrap();
        // What becomes of the first is of no interest any more.
        assert!(breaker.prolong(&UNREACHED, first, now + BOUND).is_none());
        breaker.abandon(first);
        assert!(breaker.admit(now + BOUND, BOUND).is_err());
        breaker.abandon(second);
        assert!(breaker.admit(now + BOUND, BOUND).unwrap().is_some());
    }

    #[test]
    fn closed_it_counts_from_the_start() {
        let now = Instant::now();
        let breaker = opened(now);
        assert!(breaker.close());
        assert!(!breaker.close());
        for _ in 1..FAILURES {
            assert!(fails(&breaker, now).is_none());
        }
        assert!(breaker.admit(now, BOUND).unwrap().is_none());
        assert!(fails(&breaker, now).is_some());
    }
}
