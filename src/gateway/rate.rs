//! The pace that a service allows: requests are spread evenly, and those that would wait too long are refused.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::gateway::reply::{Code, Problem};

/// How long a request may wait for its turn. A person at a screen hardly notices; beyond, the caller should know that
/// it asks for more than the service gives.
const PATIENCE: Duration = Duration::from_secs(1);

/// Lets so many requests a second through, whoever makes them.
#[derive(Debug)]
pub struct Limiter {
    turns: DefaultDirectRateLimiter,
    clock: DefaultClock,
    rate: NonZeroU32,
}

impl Limiter {
    /// A limit in requests a second.
    pub fn new(rate: NonZeroU32) -> Self {
        // Without bursts: a burst on top of the rate would be over the limit in any second that the service counts.
        let one = NonZeroU32::MIN;
        Self {
            turns: RateLimiter::direct(Quota::per_second(rate).allow_burst(one)),
            clock: DefaultClock::default(),
            rate,
        }
    }

    /// Waits for its turn.
    ///
    /// # Errors
    /// When that would take longer than a second.
    pub(crate) async fn turn(&self) -> Result<(), Problem> {
        let mut waited = Duration::ZERO;
        while let Err(early) = self.turns.check() {
            let wait = early.wait_time_from(self.clock.now());
            waited += wait;
            if waited > PATIENCE {
                return Err(Problem::new(
                    Code::Overloaded,
                    format!("the service allows {} requests a second", self.rate),
                    "send fewer; `rate` of the service sets how many there are",
                ));
            }
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn requests_are_spread_evenly_and_the_excess_is_refused() {
        let limiter = Limiter::new(NonZeroU32::new(20).unwrap());
        let begun = Instant::now();
        let turns = (0..60).map(|_| async { limiter.turn().await.map(|()| begun.elapsed()) });
        let (mut through, mut refused) = (Vec::new(), 0);
        for turn in futures_join(turns).await {
            match turn {
                Ok(at) => through.push(at),
                Err(problem) => {
                    assert_eq!(problem.code, Code::Overloaded);
                    refused += 1;
                }
            }
        }
        through.sort();
        assert!(refused > 0, "60 requests do not fit into a second of 20");
        // The first goes at once; the nth not before its turn.
        for (rank, at) in through.iter().enumerate() {
            let turn = Duration::from_millis(50) * u32::try_from(rank).unwrap();
            assert!(*at + Duration::from_millis(1) >= turn, "{rank}: {at:?}");
        }
    }

    async fn futures_join<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
        let mut pending: Vec<_> = futures.map(|one| (Box::pin(one), None)).collect();
        std::future::poll_fn(|cx| {
            for (future, output) in &mut pending {
                if output.is_none()
                    && let std::task::Poll::Ready(done) = future.as_mut().poll(cx)
                {
                    *output = Some(done);
                }
            }
            if pending.iter().all(|(_, output)| output.is_some()) {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
        pending
            .into_iter()
            .filter_map(|(_, output)| output)
            .collect()
    }
}
