//! Requests at a constant rate: each is due at its own time, whether or not those before it have been answered.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

#[derive(Clone)]
pub(crate) struct Pace {
    begun: Instant,
    interval: Duration,
    /// A permit for each request that is due.
    permits: Arc<Semaphore>,
}

impl Pace {
    /// A thread of its own makes requests due: the runtime's timer counts milliseconds, and would send all of one at once.
    #[expect(
        clippy::disallowed_methods,
        reason = "nobody else waits on this thread, and it has to wake to the microsecond"
    )]
    pub(crate) fn start(rate: u32, begun: Instant) -> Self {
        let pace = Self {
            begun,
            interval: Duration::from_secs(1) / rate.max(1),
            permits: Arc::new(Semaphore::new(0)),
        };
        let own = pace.clone();
        thread::spawn(move || {
            for number in 0.. {
                thread::sleep(own.at(number).saturating_duration_since(Instant::now()));
                own.permits.add_permits(1);
            }
        });
        pace
    }

    /// When a request is due.
    pub(crate) fn at(&self, number: u64) -> Instant {
        self.begun + self.interval.mul_f64(number as f64)
    }

    /// Waits until a request is due. If it should have been sent already, says since when.
    pub(crate) async fn due(&self, number: u64) -> Option<Instant> {
        if let Ok(permit) = self.permits.try_acquire() {
            permit.forget();
            return Some(self.at(number));
        }
        if let Ok(permit) = self.permits.acquire().await {
            permit.forget();
        }
        None
    }
}
