//! Where certificates stand in their life, and how that is published.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::identity::generation::Generation;
use crate::identity::load::Problem;
use crate::identity::profile::Profile;
use crate::metrics::Metrics;

/// A month: the notice that IGC-Santé itself gives before a certificate ends.
const EXPIRING_SECONDS: i64 = 30 * 24 * 3600;

/// Where a certificate stands in its life.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum State {
    /// It has ended.
    Expired,
    /// It ends within thirty days.
    Expiring,
    /// It has not begun.
    NotYetValid,
    /// It is valid for longer than thirty days.
    Valid,
}

impl State {
    /// The state at a moment in Unix seconds.
    pub fn of(profile: &Profile, now: i64) -> Self {
        if now < profile.not_before {
            Self::NotYetValid
        } else if now > profile.not_after {
            Self::Expired
        } else if profile.not_after - now <= EXPIRING_SECONDS {
            Self::Expiring
        } else {
            Self::Valid
        }
    }

    /// The moments at which a certificate's state changes.
    pub fn changes(profile: &Profile) -> [i64; 3] {
        let ended = profile.not_after.saturating_add(1);
        [
            profile.not_before,
            profile.not_after.saturating_sub(EXPIRING_SECONDS),
            ended,
        ]
    }

    /// The word that metrics and the administration interface use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Expiring => "expiring",
            Self::NotYetValid => "not_yet_valid",
            Self::Valid => "valid",
        }
    }
}

/// Publishes the outcome of reading the folder.
pub fn publish_loaded(generations: &[Arc<Generation>], problems: &[Problem], metrics: &Metrics) {
    publish_states(generations, metrics);
    metrics.certificates("unusable", problems.len());
    let outcome = if problems.is_empty() {
        "success"
    } else {
        "partial"
    };
    metrics.loaded(outcome, now());
}

/// Publishes how many certificates are in which state now, and when each ends.
pub fn publish_states(generations: &[Arc<Generation>], metrics: &Metrics) {
    let now = now();
    let mut counts: BTreeMap<State, usize> = [
        State::Expired,
        State::Expiring,
        State::NotYetValid,
        State::Valid,
    ]
    .map(|state| (state, 0))
    .into();
    for generation in generations {
        let profile = &generation.identity().profile;
        *counts.entry(State::of(profile, now)).or_default() += 1;
        let structure = profile
            .structure
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        metrics.certificate_expiry(
            structure,
            profile.fingerprint.to_string(),
            profile.not_after,
        );
    }
    for (state, count) in counts {
        metrics.certificates(state.as_str(), count);
    }
}

/// Seconds since 1970.
pub fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs().cast_signed())
}
