//! Where certificates stand in their life, and how that is published.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::identity::clock::Clock;
use crate::identity::generation::Generation;
use crate::identity::load::Problem;
use crate::identity::profile::Profile;
use crate::identity::revocation::Revocations;
use crate::metrics::Metrics;

/// How many days before its end somebody is told of a certificate. Ordering one takes a few working days, and longer
/// where a person must be found who may.
pub const NOTICE_DAYS: [u16; 4] = [90, 60, 30, 7];

/// From when on a certificate counts as expiring: IGC-Santé itself gives a month's notice.
const EXPIRING_DAYS: u16 = 30;

const DAY: i64 = 24 * 3600;

/// Where a certificate stands in its life.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum State {
    /// It has ended.
    Expired,
    /// It ends within thirty days.
    Expiring,
    /// It has not begun.
    NotYetValid,
    /// Its authority has revoked it, whatever its dates.
    Revoked,
    /// It is valid for longer than thirty days.
    Valid,
}

impl State {
    const ALL: [Self; 5] = [
        Self::Expired,
        Self::Expiring,
        Self::NotYetValid,
        Self::Revoked,
        Self::Valid,
    ];

    /// The state at a moment in Unix seconds.
    pub fn of(profile: &Profile, revocations: &Revocations, now: i64) -> Self {
        if revocations.is_revoked(profile) {
            Self::Revoked
        } else if now < profile.not_before {
            Self::NotYetValid
        } else if now > profile.not_after {
            Self::Expired
        } else if days_left(profile, now, &[EXPIRING_DAYS]).is_some() {
            Self::Expiring
        } else {
            Self::Valid
        }
    }

    /// The moments at which a certificate's state changes, or somebody is to be told of its end.
    pub fn changes(profile: &Profile) -> [i64; 6] {
        let before = |days: u16| profile.not_after.saturating_sub(i64::from(days) * DAY);
        let [first, second, third, fourth] = NOTICE_DAYS.map(before);
        let ended = profile.not_after.saturating_add(1);
        [profile.not_before, first, second, third, fourth, ended]
    }

    /// The word that metrics and the administration interface use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Expiring => "expiring",
            Self::NotYetValid => "not_yet_valid",
            Self::Revoked => "revoked",
            Self::Valid => "valid",
        }
    }
}

/// The last of [`NOTICE_DAYS`] that a certificate has come to at a moment in Unix seconds.
pub fn notice_days(profile: &Profile, now: i64) -> Option<u16> {
    days_left(profile, now, &NOTICE_DAYS)
}

/// The fewest of `days` within which the certificate ends.
fn days_left(profile: &Profile, now: i64, days: &[u16]) -> Option<u16> {
    let left = profile.not_after.saturating_sub(now);
    let within = days.iter().filter(|days| left <= i64::from(**days) * DAY);
    within.min().copied()
}

/// Publishes the outcome of reading the folder at `now`, in seconds since 1970.
pub fn publish_loaded(
    generations: &[Arc<Generation>],
    problems: &[Problem],
    revocations: &Revocations,
    metrics: &Metrics,
    now: i64,
) {
    publish_states(generations, revocations, metrics, now);
    metrics.certificates("unusable", problems.len());
    let outcome = if problems.is_empty() {
        "success"
    } else {
        "partial"
    };
    metrics.loaded(outcome, now);
}

/// Publishes how many certificates are in which state at `now`, in seconds since 1970, and when each ends.
pub fn publish_states(
    generations: &[Arc<Generation>],
    revocations: &Revocations,
    metrics: &Metrics,
    now: i64,
) {
    let mut counts: BTreeMap<State, usize> = State::ALL.map(|state| (state, 0)).into();
    for generation in generations {
        let profile = &generation.identity().profile;
        let state = State::of(profile, revocations, now);
        *counts.entry(state).or_default() += 1;
        let structure = || {
            let structure = profile.structure.as_ref().map(ToString::to_string);
            structure.unwrap_or_default()
        };
        metrics.certificate_ends(profile.fingerprint, profile.not_after, structure);
    }
    for (state, count) in counts {
        metrics.certificates(state.as_str(), count);
    }
}

/// Publishes that certificates are no longer there.
pub fn publish_gone(generations: &[Arc<Generation>], metrics: &Metrics) {
    for generation in generations {
        metrics.certificate_gone(generation.identity().profile.fingerprint);
    }
}

/// A moment in Unix seconds as RFC 3339 writes it.
pub fn timestamp(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |at| at.to_string())
}

/// Seconds since 1970, by the system's clock.
pub fn now() -> i64 {
    Clock::default().now()
}
