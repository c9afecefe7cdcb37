//! Every metric that Relais exports, declared in one place.
//!
//! What the request path touches are the counts of one service, held since start ([`ServiceMetrics`]): looking a metric
//! up by its labels costs several hundred nanoseconds. Each application has a registry of its own, so that several can
//! run in one process (tests do).

mod service;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{Counter, Gauge, with_local_recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use rustc_hash::FxHashMap;

use crate::identity::profile::Fingerprint;
use service::{CLASSES, class_of};

pub use service::ServiceMetrics;

/// The metric of when certificates end.
const ENDS: &str = "relais_certificate_expiry_timestamp_seconds";

/// The metric of how long requests take.
const DURATION: &str = "relais_request_duration_seconds";

/// The metric of what Relais itself does of that.
const OVERHEAD: &str = "relais_gateway_overhead_seconds";

/// The services that requests were ever made to, by name.
type Services = BTreeMap<Arc<str>, Arc<ServiceMetrics>>;

/// The registry of one application.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    /// What requests count. Not the recorder's either: see there.
    services: Mutex<Services>,
    /// The structure of each certificate that is there, and when it ends. Not the recorder's: its series cannot be taken
    /// back, so that each renewal would leave one for good, and ten thousand of them cost too much to look up.
    ends: Mutex<FxHashMap<Fingerprint, (Box<str>, i64)>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Keeps a gauge one higher for as long as it lives.
pub(crate) struct Gauged(Gauge);

impl fmt::Debug for Gauged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gauged").finish_non_exhaustive()
    }
}

impl Drop for Gauged {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

impl Metrics {
    /// An empty registry.
    pub fn new() -> Arc<Self> {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let metrics = Self {
            recorder,
            handle,
            services: Mutex::default(),
            ends: Mutex::default(),
        };
        with_local_recorder(&metrics.recorder, describe);
        Arc::new(metrics)
    }

    fn services(&self) -> MutexGuard<'_, Services> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What requests to one service count: always the same for the same name.
    pub fn service(&self, name: &Arc<str>) -> Arc<ServiceMetrics> {
        let mut services = self.services();
        Arc::clone(services.entry(Arc::clone(name)).or_default())
    }

    /// Counts an answer that Relais gave in the service's place.
    pub(crate) fn problem(&self, service: &str, status: u16, code: &'static str) {
        let class = CLASSES[class_of(status)];
        let service = service.to_owned();
        with_local_recorder(&self.recorder, || {
            metrics::counter!("relais_requests_total", "service" => service, "status" => class, "code" => code)
                .increment(1);
        });
    }

    /// Counts an answer that reveals trouble with a certificate.
    pub(crate) fn certificate_problem(&self, service: &Arc<str>, problem: &'static str) {
        let service = service.to_string();
        with_local_recorder(&self.recorder, || {
            metrics::counter!(
                "relais_upstream_certificate_problems_total", "service" => service, "problem" => problem
            )
            .increment(1);
        });
    }

    /// Counts a handshake with a service.
    pub(crate) fn handshake(&self, service: &Arc<str>, resumed: bool) {
        let kind = if resumed { "resumed" } else { "full" };
        let service = service.to_string();
        with_local_recorder(&self.recorder, || {
            metrics::counter!("relais_upstream_handshakes_total", "service" => service, "kind" => kind).increment(1);
        });
    }

    /// Counts a certificate that a service refuses, while the one before it serves.
    pub(crate) fn certificate_fallback(&self, service: &Arc<str>) -> Gauged {
        let service = service.to_string();
        let gauge = with_local_recorder(
            &self.recorder,
            || metrics::gauge!("relais_certificate_fallbacks", "service" => service),
        );
        gauge.increment(1.0);
        Gauged(gauge)
    }

    /// Counts a certificate under which a service is left alone, because it could not be reached.
    pub(crate) fn breaker_open(&self, service: &Arc<str>) -> Gauged {
        let service = service.to_string();
        let gauge = with_local_recorder(
            &self.recorder,
            || metrics::gauge!("relais_upstream_breaker_open", "service" => service),
        );
        gauge.increment(1.0);
        Gauged(gauge)
    }

    /// Counts a connection to a service while it is open.
    pub(crate) fn upstream_connection(&self, service: &Arc<str>) -> Gauged {
        let service = service.to_string();
        let gauge = with_local_recorder(
            &self.recorder,
            || metrics::gauge!("relais_upstream_connections", "service" => service),
        );
        gauge.increment(1.0);
        Gauged(gauge)
    }

    /// Counts an application's connection while it is open.
    pub(crate) fn inbound_connection(&self) -> Gauged {
        let gauge = with_local_recorder(&self.recorder, || {
            metrics::gauge!("relais_inbound_connections")
        });
        gauge.increment(1.0);
        Gauged(gauge)
    }

    /// The counter of access-log lines that could not be written in time.
    pub(crate) fn access_log_dropped(&self) -> Counter {
        with_local_recorder(&self.recorder, || {
            metrics::counter!("relais_access_log_dropped_total")
        })
    }

    /// Publishes how many certificates are in which state.
    pub(crate) fn certificates(&self, state: &'static str, count: usize) {
        with_local_recorder(&self.recorder, || {
            metrics::gauge!("relais_certificates", "state" => state).set(count as f64);
        });
    }

    /// Publishes when a certificate ends, in Unix seconds, unless it was.
    pub(crate) fn certificate_ends(
        &self,
        fingerprint: Fingerprint,
        not_after: i64,
        structure: impl FnOnce() -> String,
    ) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.entry(fingerprint)
            .or_insert_with(|| (structure().into(), not_after));
    }

    /// Publishes that a certificate is no longer there.
    pub(crate) fn certificate_gone(&self, fingerprint: Fingerprint) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.remove(&fingerprint);
    }

    /// Publishes the outcome of reading the configuration and what it names.
    pub(crate) fn loaded(&self, outcome: &'static str, at: i64) {
        with_local_recorder(&self.recorder, || {
            metrics::counter!("relais_reload_total", "outcome" => outcome).increment(1);
            if outcome == "success" {
                metrics::gauge!("relais_reload_last_success_timestamp_seconds").set(at as f64);
            }
        });
    }

    /// Counts a look for another revocation list.
    pub(crate) fn crl_refresh(&self, source: &str, outcome: &'static str) {
        let source = source.to_owned();
        with_local_recorder(&self.recorder, || {
            metrics::counter!("relais_crl_refresh_total", "source" => source, "outcome" => outcome)
                .increment(1);
        });
    }

    /// Publishes when the successor of the revocation list in use is due; 0 if none is in use.
    pub(crate) fn crl_next_update(&self, source: &str, at: i64) {
        let source = source.to_owned();
        with_local_recorder(&self.recorder, || {
            metrics::gauge!("relais_crl_next_update_timestamp_seconds", "source" => source)
                .set(at as f64);
        });
    }

    /// Publishes that a revocation list is no longer looked for. The registry takes no series back: one that is not a
    /// number is left out of what is rendered.
    pub(crate) fn crl_gone(&self, source: &str) {
        let source = source.to_owned();
        with_local_recorder(&self.recorder, || {
            metrics::gauge!("relais_crl_next_update_timestamp_seconds", "source" => source)
                .set(f64::NAN);
        });
    }

    /// Counts what came of posting a notice.
    pub(crate) fn notice(&self, outcome: &'static str) {
        with_local_recorder(&self.recorder, || {
            metrics::counter!("relais_notices_total", "outcome" => outcome).increment(1);
        });
    }

    /// Everything in Prometheus's text format, but for what is no longer there.
    pub fn render(&self) -> String {
        self.tell_answers();
        let mut text = String::new();
        for line in self.handle.render().split_inclusive('\n') {
            if !line.trim_end().ends_with(" NaN") {
                text.push_str(line);
            }
        }
        self.render_services(&mut text)
            .and_then(|()| self.render_ends(&mut text))
            .expect("writing to a String does not fail");
        text
    }

    /// Has the registry tell what was counted beside it: the same metric has what Relais answers itself, by code.
    fn tell_answers(&self) {
        let services = self.services();
        with_local_recorder(&self.recorder, || {
            for (name, counted) in &*services {
                let service = || name.to_string();
                for (class, count) in CLASSES.into_iter().zip(counted.answers()) {
                    metrics::counter!("relais_requests_total", "service" => service(), "status" => class, "code" => "")
                        .absolute(count);
                }
                metrics::counter!("relais_upstream_reuse_total", "service" => service())
                    .absolute(counted.reuses());
            }
        });
    }

    fn render_services(&self, text: &mut String) -> fmt::Result {
        let services = self.services();
        writeln!(
            text,
            "# HELP {DURATION} from a request's head to the end of its answer"
        )?;
        writeln!(text, "# TYPE {DURATION} histogram")?;
        for (name, counted) in &*services {
            counted.render_duration(text, DURATION, name)?;
        }
        writeln!(
            text,
            "# HELP {OVERHEAD} what Relais itself did before the request was handed over to its connections"
        )?;
        writeln!(text, "# TYPE {OVERHEAD} histogram")?;
        for (name, counted) in &*services {
            counted.render_overhead(text, OVERHEAD, name)?;
        }
        Ok(())
    }

    fn render_ends(&self, text: &mut String) -> fmt::Result {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(
            text,
            "# HELP {ENDS} when a certificate ends, in Unix seconds"
        )?;
        writeln!(text, "# TYPE {ENDS} gauge")?;
        for (fingerprint, (structure, not_after)) in &*ends {
            writeln!(
                text,
                "{ENDS}{{structure=\"{structure}\",fingerprint=\"{fingerprint}\"}} {not_after}"
            )?;
        }
        Ok(())
    }
}

fn describe() {
    use metrics::{describe_counter, describe_gauge};
    describe_counter!(
        "relais_requests_total",
        "answers by service and status; code is set where Relais answered itself"
    );
    describe_gauge!(
        "relais_inbound_connections",
        "open connections from applications"
    );
    describe_gauge!(
        "relais_upstream_breaker_open",
        "certificates under which requests to a service are refused at once, because it could not be reached"
    );
    describe_gauge!(
        "relais_upstream_connections",
        "open connections to services"
    );
    describe_counter!(
        "relais_upstream_handshakes_total",
        "TLS handshakes with services, full or resumed"
    );
    describe_counter!(
        "relais_upstream_certificate_problems_total",
        "answers of services that reveal trouble with the certificate shown, by TLS alert or fault code"
    );
    describe_counter!(
        "relais_upstream_reuse_total",
        "requests sent over a connection that was already open"
    );
    describe_counter!(
        "relais_access_log_dropped_total",
        "access-log lines dropped because the disk was too slow"
    );
    describe_gauge!("relais_certificates", "certificates in the folder by state");
    describe_gauge!(
        "relais_certificate_fallbacks",
        "renewed certificates that a service refuses, while the one before serves"
    );
    describe_counter!(
        "relais_reload_total",
        "readings of the configuration and what it names by outcome: success, partial (something is as it was), failure"
    );
    describe_gauge!(
        "relais_reload_last_success_timestamp_seconds",
        "when all of it was last read without a problem"
    );
    describe_counter!(
        "relais_crl_refresh_total",
        "looks for another revocation list by source and outcome: new, unchanged, failure"
    );
    describe_gauge!(
        "relais_crl_next_update_timestamp_seconds",
        "when the successor of a revocation list is due, in Unix seconds; 0 where there is no list"
    );
    describe_counter!(
        "relais_notices_total",
        "posts to the webhook by outcome: delivered, refused, failed (tried again), given_up"
    );
}
