//! What the requests to one service count.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::share;

/// From what a hit in memory takes to the slowest answers that a service's timeout lets through, in microseconds.
const DURATION: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 10_000_000, 60_000_000,
];

/// From a few microseconds to a delay that somebody would notice, in microseconds.
const OVERHEAD: [u64; 10] = [5, 10, 20, 50, 100, 200, 500, 1_000, 5_000, 50_000];

/// The classes of status codes.
pub(super) const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// What requests to one service count, each worker for itself. Counting costs a request some nanoseconds; the
/// registry's own histograms keep each sample until somebody scrapes, and all workers add to the same one.
#[derive(Debug, Default)]
pub struct ServiceMetrics {
    shares: [Share; share::COUNT],
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Share {
    answers: [AtomicU64; CLASSES.len()],
    reused: AtomicU64,
    duration: Distribution<{ DURATION.len() + 1 }>,
    overhead: Distribution<{ OVERHEAD.len() + 1 }>,
}

/// How often it took how long.
#[derive(Debug)]
struct Distribution<const N: usize> {
    /// By the first bound that is not less; the last for what is over all bounds.
    counts: [AtomicU64; N],
    /// All of it in seconds: the bits of an `f64`, since a whole number of nanoseconds would be full after half a year of
    /// a thousand requests at a time.
    seconds: AtomicU64,
}

impl<const N: usize> Default for Distribution<N> {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            seconds: AtomicU64::new(0f64.to_bits()),
        }
    }
}

impl<const N: usize> Distribution<N> {
    fn record(&self, bounds: &[u64], took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let is_within = |bound: &u64| nanoseconds <= bound * 1_000;
        let at = bounds.iter().position(is_within).unwrap_or(N - 1);
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        let more = |bits| Some((f64::from_bits(bits) + took.as_secs_f64()).to_bits());
        let _ = (self.seconds).fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }
}

impl ServiceMetrics {
    fn own(&self) -> &Share {
        &self.shares[share::own()]
    }

    pub(crate) fn answered(&self, status: u16, took: Duration) {
        let own = self.own();
        own.answers[class_of(status)].fetch_add(1, Ordering::Relaxed);
        own.duration.record(&DURATION, took);
    }

    pub(crate) fn overhead(&self, took: Duration) {
        self.own().overhead.record(&OVERHEAD, took);
    }

    pub(crate) fn reused(&self) {
        self.own().reused.fetch_add(1, Ordering::Relaxed);
    }

    fn sum(&self, count: impl Fn(&Share) -> &AtomicU64) -> u64 {
        let counts = self.shares.iter().map(count);
        counts.map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Answers of services, by class of status.
    pub(super) fn answers(&self) -> [u64; CLASSES.len()] {
        std::array::from_fn(|class| self.sum(|share| &share.answers[class]))
    }

    /// Requests sent over a connection that was already open.
    pub(super) fn reuses(&self) -> u64 {
        self.sum(|share| &share.reused)
    }

    /// The series of `relais_request_duration_seconds`, which is `name`.
    pub(super) fn render_duration(
        &self,
        text: &mut String,
        name: &str,
        service: &str,
    ) -> fmt::Result {
        self.render(text, name, service, &DURATION, |share| &share.duration)
    }

    /// The series of `relais_gateway_overhead_seconds`, which is `name`.
    pub(super) fn render_overhead(
        &self,
        text: &mut String,
        name: &str,
        service: &str,
    ) -> fmt::Result {
        self.render(text, name, service, &OVERHEAD, |share| &share.overhead)
    }

    fn render<const N: usize>(
        &self,
        text: &mut String,
        name: &str,
        service: &str,
        bounds: &[u64],
        of: impl Fn(&Share) -> &Distribution<N>,
    ) -> fmt::Result {
        let mut count = 0;
        for at in 0..N {
            count += self.sum(|share| &of(share).counts[at]);
            let bound = bounds.get(at).map(|bound| *bound as f64 / 1e6);
            let bound = bound.map_or_else(|| "+Inf".to_owned(), |seconds| seconds.to_string());
            writeln!(
                text,
                "{name}_bucket{{service=\"{service}\",le=\"{bound}\"}} {count}"
            )?;
        }
        let seconds = |share| f64::from_bits(of(share).seconds.load(Ordering::Relaxed));
        let seconds: f64 = self.shares.iter().map(seconds).sum();
        writeln!(text, "{name}_sum{{service=\"{service}\"}} {seconds}")?;
        writeln!(text, "{name}_count{{service=\"{service}\"}} {count}")
    }
}

/// Which of [`CLASSES`] a status is in.
pub(super) fn class_of(status: u16) -> usize {
    usize::from((status / 100).clamp(1, 5)) - 1
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn what_threads_count_apart_is_told_together() {
        let metrics = ServiceMetrics::default();
        thread::scope(|scope| {
            for _ in 0..2 * share::COUNT {
                scope.spawn(|| {
                    metrics.answered(200, Duration::from_micros(500));
                    metrics.answered(503, Duration::from_secs(61));
                    metrics.overhead(Duration::from_nanos(5_001));
                    metrics.reused();
                });
            }
        });
        let all = 2 * share::COUNT as u64;
        assert_eq!(metrics.answers(), [0, all, 0, 0, all]);
        assert_eq!(metrics.reuses(), all);

        let mut text = String::new();
        metrics.render_duration(&mut text, "took", "dmp").unwrap();
        metrics.render_overhead(&mut text, "own", "dmp").unwrap();
        for (series, count) in [
            // A bound is within its bucket.
            (r#"took_bucket{service="dmp",le="0.0005"}"#, all),
            (r#"took_bucket{service="dmp",le="60"}"#, all),
            (r#"took_bucket{service="dmp",le="+Inf"}"#, 2 * all),
            (r#"took_count{service="dmp"}"#, 2 * all),
            (r#"own_bucket{service="dmp",le="0.000005"}"#, 0),
            (r#"own_bucket{service="dmp",le="0.00001"}"#, all),
            (r#"own_count{service="dmp"}"#, all),
        ] {
            let line = format!("{series} {count}");
            assert!(text.lines().any(|one| one == line), "{line} in {text}");
        }
        let sum = text
            .lines()
            .find_map(|line| line.strip_prefix("took_sum{service=\"dmp\"} "));
        let sum: f64 = sum.unwrap().parse().unwrap();
        assert!((sum - all as f64 * 61.0005).abs() < 1e-6, "{sum}");
    }
}
