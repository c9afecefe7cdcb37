//! The pace that a service allows: requests are spread evenly, and those that would wait too long are refused.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::time::Instant;

use crate::gateway::reply::{Code, Problem};
use crate::identity::finess::Finess;

/// How long a request may wait for its turn. A person at a screen hardly notices; beyond, the caller should know that
/// it asks for more than the service gives.
const PATIENCE: Duration = Duration::from_secs(1);

/// Lets so many requests a second through, whoever makes them. Turns are given in the order of arrival, without
/// bursts: a burst on top of the rate would be over the limit in any second that the service counts.
#[derive(Debug)]
pub struct Limiter {
    rate: NonZeroU32,
    turns: Mutex<Turns>,
}

#[derive(Debug)]
struct Turns {
    /// The first turn that nobody has.
    next: Instant,
    /// Turns that have yet to come, in order: never more than fit into [`PATIENCE`]. Whoever has one and goes away has
    /// it all the same: who gives up again and again would leave none to the others otherwise.
    given: VecDeque<(Instant, Option<Finess>)>,
    /// How many of them each tenant has.
    shares: HashMap<Option<Finess>, u32>,
}

impl Turns {
    /// Forgets turns that have come.
    fn come(&mut self, now: Instant) {
        while let Some((_, tenant)) = self.given.pop_front_if(|(turn, _)| *turn <= now) {
            if let Entry::Occupied(mut share) = self.shares.entry(tenant) {
                *share.get_mut() -= 1;
                if *share.get() == 0 {
                    share.remove();
                }
            }
        }
    }
}

impl Limiter {
    /// A limit in requests a second.
    pub fn new(rate: NonZeroU32) -> Self {
        Self {
            rate,
            turns: Mutex::new(Turns {
                next: Instant::now(),
                given: VecDeque::new(),
                shares: HashMap::new(),
            }),
        }
    }

    /// Waits for its turn, and tells how long it had to.
    ///
    /// # Errors
    /// When that would take longer than a second, or when half of the turns to come are the same tenant's: one may
    /// not leave the others without.
    pub(crate) async fn turn(&self, tenant: Option<Finess>) -> Result<Duration, Problem> {
        let now = Instant::now();
        let turn = self.reserve(now, tenant).ok_or_else(|| {
            Problem::new(
                Code::Overloaded,
                format!("the service allows {} requests a second", self.rate),
                "send fewer; `rate` of the service sets how many there are",
            )
        })?;
        tokio::time::sleep_until(turn).await;
        Ok(turn - now)
    }

    fn reserve(&self, now: Instant, tenant: Option<Finess>) -> Option<Instant> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.come(now);
        let turn = turns.next.max(now);
        let share = (self.rate.get() / 2).max(1);
        let theirs = turns.shares.get(&tenant).copied().unwrap_or(0);
        // Without tenant there is nobody to be fair to.
        if turn - now > PATIENCE || (tenant.is_some() && theirs >= share) {
            return None;
        }
        turns.shares.insert(tenant, theirs + 1);
        turns.given.push_back((turn, tenant));
        turns.next = turn + PATIENCE / self.rate.get();
        Some(turn)
    }
}

/// Lets each tenant so many requests a second through, and after a pause as many at once. Nobody waits: the service has
/// not asked for it, and who is over it is to send less.
///
/// `governor` says yes or no, which is all that it takes here; [`Limiter`] gives turns, some of them in the future, and
/// so cannot be made of it.
#[derive(Debug)]
pub struct TenantRates {
    rate: NonZeroU32,
    seen: DefaultKeyedRateLimiter<Finess>,
}

impl TenantRates {
    /// A limit in requests a second.
    pub fn new(rate: NonZeroU32) -> Self {
        Self {
            rate,
            seen: RateLimiter::keyed(Quota::per_second(rate)),
        }
    }

    pub(super) fn admit(&self, tenant: Finess) -> Result<(), Problem> {
        self.seen.check_key(&tenant).map_err(|_| {
            Problem::new(
                Code::Overloaded,
                format!("{tenant} makes more than {} requests a second", self.rate),
                "send fewer; `rate_per_tenant` of the service sets how many there may be",
            )
        })
    }

    /// Forgets who has made no request for so long that it makes no difference.
    pub(super) fn forget_idle(&self) {
        self.seen.retain_recent();
        self.seen.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::site::sample_finess;

    const RATE: u32 = 20;

    fn limiter() -> Limiter {
        Limiter::new(NonZeroU32::new(RATE).unwrap())
    }

    #[test]
    fn a_tenant_over_its_rate_leaves_the_others_theirs_and_is_forgotten() {
        let rates = TenantRates::new(NonZeroU32::new(1000).unwrap());
        let (busy, other) = (sample_finess(0), sample_finess(1));
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while rates.admit(busy).is_ok() {
            assert!(std::time::Instant::now() < end, "it is never over");
        }
        assert!(rates.admit(other).is_ok());
        while !rates.seen.is_empty() {
            assert!(
                std::time::Instant::now() < end,
                "somebody is never forgotten"
            );
            rates.forget_idle();
        }
        assert!(rates.admit(busy).is_ok());
    }

    #[test]
    fn turns_are_spread_evenly_and_the_excess_is_refused() {
        let (limiter, now) = (limiter(), Instant::now());
        let reserved: Vec<_> = (0..60).map_while(|_| limiter.reserve(now, None)).collect();
        // The first goes at once, and one more at the end of each fraction of the second that they may wait.
        assert_eq!(reserved.len() as u32, RATE + 1);
        for (turn, waiting) in reserved.iter().zip(0..) {
            assert_eq!(*turn - now, PATIENCE / RATE * waiting);
        }
        assert!(limiter.reserve(now, None).is_none());
        let later = now + PATIENCE;
        assert!(limiter.reserve(later, None).is_some(), "turns come back");
    }

    #[test]
    fn after_a_pause_there_is_no_burst() {
        let (limiter, now) = (limiter(), Instant::now());
        let later = now + PATIENCE * 10;
        let first = limiter.reserve(later, None).unwrap();
        let second = limiter.reserve(later, None).unwrap();
        assert_eq!((first, second), (later, later + PATIENCE / RATE));
    }

    #[test]
    fn one_tenant_leaves_turns_to_the_others_and_has_new_ones_when_its_own_have_come() {
        let (limiter, now) = (limiter(), Instant::now());
        let (busy, other) = (Some(sample_finess(0)), Some(sample_finess(1)));
        let theirs = (0..60).map_while(|_| limiter.reserve(now, busy)).count();
        // The first goes at once.
        assert_eq!(theirs as u32, 1 + RATE / 2);
        assert!(limiter.reserve(now, other).is_some());
        assert!(limiter.reserve(now, busy).is_none());
        assert!(limiter.reserve(now + PATIENCE / RATE, busy).is_some());
        limiter.reserve(now + PATIENCE * 2, None).unwrap();
        let turns = limiter.turns.lock().unwrap();
        assert_eq!((turns.given.len(), turns.shares.len()), (1, 1), "forgotten");
    }

    #[test]
    fn a_tenant_that_gives_up_again_and_again_leaves_the_others_their_turns() {
        let (limiter, start) = (limiter(), Instant::now());
        let (hasty, other) = (Some(sample_finess(0)), Some(sample_finess(1)));
        for round in 0..100 {
            let now = start + PATIENCE / 4 * round;
            for _ in 0..60 {
                // It does not wait for the turn that it has.
                let _given_up = limiter.reserve(now, hasty);
            }
            assert!(limiter.reserve(now, other).is_some());
        }
    }
}
