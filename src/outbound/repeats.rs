//! How many requests may be sent a second time: a service that is dying must not be hit twice as often for it.
//!
//! As in finagle and linkerd, a share of all requests, and a few a second besides for services that are seldom used.
//! tower's budget takes a lock with each request; this one looks at a number.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// Requests that pay for one repeat: 20 %.
const REQUESTS_FOR_ONE: u32 = 5;

/// Repeats that can be saved up. A machine that is restarted behind a busy service breaks as many connections at once.
const SAVED_AT_MOST: u32 = 100;

/// Repeats a second that nothing has to pay for, as finagle has it.
const RESERVE: NonZeroU32 = NonZeroU32::new(10).expect("it is not zero");

/// What requests to one service have paid in.
#[derive(Debug)]
pub(crate) struct Budget {
    paid: AtomicU32,
    reserve: DefaultDirectRateLimiter,
}

impl Budget {
    pub(crate) fn new() -> Self {
        Self {
            paid: AtomicU32::new(0),
            reserve: RateLimiter::direct(Quota::per_second(RESERVE)),
        }
    }

    /// A request is made.
    pub(crate) fn pay(&self) {
        // It is full most of the time. Two that look at once may overfill it, which harms nobody.
        if self.paid.load(Ordering::Relaxed) < SAVED_AT_MOST * REQUESTS_FOR_ONE {
            self.paid.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether one may be made a second time.
    pub(crate) fn take(&self) -> bool {
        let less = |paid: u32| paid.checked_sub(REQUESTS_FOR_ONE);
        let taken = (self.paid).fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        taken.is_ok() || self.reserve.check().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn taken(budget: &Budget) -> u32 {
        (0..10_000).filter(|_| budget.take()).count() as u32
    }

    #[test]
    fn a_share_of_requests_and_a_few_a_second_may_be_repeated() {
        let (budget, begun) = (Budget::new(), Instant::now());
        for _ in 0..100 {
            budget.pay();
        }
        let taken = taken(&budget);
        let share = 100 / REQUESTS_FOR_ONE + RESERVE.get();
        let since = RESERVE.get() * (begun.elapsed().as_secs() as u32 + 1);
        assert!((share..=share + since).contains(&taken), "{taken}");
    }

    #[test]
    fn no_more_is_saved_than_a_restart_may_cost() {
        let (budget, begun) = (Budget::new(), Instant::now());
        for _ in 0..1_000_000 {
            budget.pay();
        }
        let taken = taken(&budget);
        let since = RESERVE.get() * (begun.elapsed().as_secs() as u32 + 2);
        assert!(
            (SAVED_AT_MOST..=SAVED_AT_MOST + since).contains(&taken),
            "{taken}"
        );
    }
}
