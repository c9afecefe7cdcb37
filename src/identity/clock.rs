//! What time it is, and which certificates are in their time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::identity::profile::{Dates, Profile};

/// The system's clock, or one that a test has set. Copies are set together.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// Seconds by which it is ahead of the system's.
    ahead: Arc<AtomicI64>,
}

impl Clock {
    /// Seconds since 1970.
    pub fn now(&self) -> i64 {
        let system = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs().cast_signed());
        system.saturating_add(self.ahead.load(Ordering::Relaxed))
    }

    /// Sets it so many seconds ahead of the system's clock, or behind where they are negative, as an administrator
    /// might set the system's.
    pub fn set(&self, ahead: i64) {
        self.ahead.store(ahead, Ordering::Relaxed);
    }
}

/// Which certificates are in their time: begun, and not about to end.
#[derive(Clone, Debug, Default)]
pub struct Validity {
    /// What time it is.
    pub clock: Clock,
    /// How many seconds before its end a certificate is no longer used (`identities.retire_before_expiry`).
    margin: i64,
}

impl Validity {
    /// By that clock, with that margin before a certificate's end.
    pub fn new(clock: Clock, margin: Duration) -> Self {
        Self {
            clock,
            margin: i64::try_from(margin.as_secs()).unwrap_or(i64::MAX),
        }
    }

    /// Whether another has the same margin.
    pub fn agrees(&self, other: &Self) -> bool {
        self.margin == other.margin
    }

    /// Whether a certificate may be used at `now`, in seconds since 1970.
    pub fn holds(&self, dates: Dates, now: i64) -> bool {
        dates.hold_at(now) && dates.hold_at(now.saturating_add(self.margin))
    }

    /// The first second of a certificate's use, and the first in which it is used no more.
    pub fn bounds(&self, profile: &Profile) -> [i64; 2] {
        let end = profile.not_after.saturating_add(1);
        [profile.not_before, end.saturating_sub(self.margin)]
    }
}
