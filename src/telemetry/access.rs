//! The access log: one line a request, written off the request path.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use metrics::Counter;
use serde::Serialize;

use crate::config;
use crate::gateway::exchange::Exchange;
use crate::identity::profile::Profile;
use crate::metrics::Metrics;

/// Lines that may wait for a slow disk. Beyond them lines are dropped and counted: requests do not wait for a log.
const WAITING_LINES: usize = 16 * 1024;

/// How often a stop looks whether the log takes lines again.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Where records go. Cheap to clone.
#[derive(Clone)]
pub struct AccessLog {
    lines: Option<SyncSender<Line>>,
    dropped: Counter,
}

enum Line {
    Record(Box<(Exchange, Duration)>),
    /// Everything before it is to be on disk when the sender hears back.
    Flush(SyncSender<()>),
}

impl std::fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessLog")
            .field("on", &self.lines.is_some())
            .finish_non_exhaustive()
    }
}

impl AccessLog {
    /// Opens the log and starts the thread that writes it.
    ///
    /// # Errors
    /// When the file cannot be opened for appending, or the thread not be started.
    pub fn open(config: &config::AccessLog, metrics: &Metrics) -> io::Result<Self> {
        let dropped = metrics.access_log_dropped();
        let out: Box<dyn Write + Send> = match config {
            config::AccessLog::Off => {
                return Ok(Self {
                    lines: None,
                    dropped,
                });
            }
            config::AccessLog::Stdout => Box::new(io::stdout()),
            config::AccessLog::File(path) => Box::new(append(path)?),
        };
        let counted = dropped.clone();
        let (lines, incoming) = mpsc::sync_channel(WAITING_LINES);
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_lines(&incoming, out, &counted))?;
        Ok(Self {
            lines: Some(lines),
            dropped,
        })
    }

    /// Takes a finished record; drops and counts it when too many wait.
    pub(crate) fn write(&self, exchange: Exchange, took: Duration) {
        let Some(lines) = &self.lines else { return };
        if let Err(TrySendError::Full(_)) = lines.try_send(Line::Record(Box::new((exchange, took))))
        {
            self.dropped.increment(1);
        }
    }

    /// Waits until all that was taken so far is written, or `limit` has passed.
    pub fn flush(&self, limit: Duration) {
        let Some(lines) = &self.lines else { return };
        let until = Instant::now() + limit;
        let (done, written) = mpsc::sync_channel(1);
        let mut flush = Line::Flush(done);
        // Not `send`, which waits for as long as whoever reads the log does.
        while let Err(TrySendError::Full(again)) = lines.try_send(flush) {
            if Instant::now() >= until {
                return;
            }
            thread::park_timeout(LOOK_EVERY);
            flush = again;
        }
        let _ = written.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

fn append(path: &Path) -> io::Result<std::fs::File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // Who asked what of whom is nobody else's business.
        options.mode(0o640);
    }
    options.open(path)
}

fn write_lines(incoming: &Receiver<Line>, mut out: impl Write, dropped: &Counter) {
    let mut failing = false;
    let mut batch = Vec::new();
    while let Ok(first) = incoming.recv() {
        // What piled up meanwhile goes out in one write.
        let (mut lines, mut flushed) = (0, None);
        let mut next = Some(first);
        while let Some(line) = next {
            match line {
                Line::Record(record) => {
                    lines += u64::from(write_record(&mut batch, &record.0, record.1).is_ok());
                }
                Line::Flush(done) => flushed = Some(done),
            }
            next = if flushed.is_none() {
                incoming.try_recv().ok()
            } else {
                None
            };
        }
        let written = out.write_all(&batch).and_then(|()| out.flush());
        batch.clear();
        if let Err(error) = &written {
            // A full disk is no reason to stop serving, and every reason to be told of.
            dropped.increment(lines);
            if !failing {
                tracing::error!(%error, "the access log cannot be written: lines are lost and counted");
            }
        }
        failing = written.is_err();
        if let Some(done) = flushed {
            let _ = done.try_send(());
        }
    }
}

/// One line. Fields that are not known (a request refused before its tenant was read) are absent.
#[derive(Serialize)]
struct Record<'a> {
    time: String,
    listener: &'a str,
    method: &'a str,
    version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    #[serde(flatten)]
    certificate: Option<Certificate<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    outcome: &'static str,
    bytes_received: u64,
    bytes_sent: u64,
    duration_ms: f64,
}

#[derive(Serialize)]
struct Certificate<'a> {
    certificate_serial: &'a str,
    certificate_sha256: String,
}

fn write_record(out: &mut Vec<u8>, exchange: &Exchange, took: Duration) -> serde_json::Result<()> {
    let profile: Option<&Profile> = exchange
        .pool
        .as_ref()
        .and_then(|pool| pool.generation())
        .map(|one| &*one.identity().profile);
    let record = Record {
        time: Timestamp::try_from(exchange.at)
            .map(|at| format!("{at:.3}"))
            .unwrap_or_default(),
        listener: &exchange.listener,
        method: exchange.method.as_str(),
        version: format!("{:?}", exchange.version),
        tenant: exchange.tenant.as_ref().map(|finess| finess.as_str()),
        service: exchange.service.as_ref().map(|(name, _)| &**name),
        certificate: profile.map(|profile| Certificate {
            certificate_serial: &profile.serial,
            certificate_sha256: profile.fingerprint.to_string(),
        }),
        connection: exchange.connection.map(|(origin, _)| origin.as_str()),
        upstream_version: exchange
            .connection
            .map(|(_, version)| format!("{version:?}")),
        status: (exchange.status != 0).then_some(exchange.status),
        code: exchange.code.map(|code| code.as_str()),
        outcome: exchange.outcome.as_str(),
        bytes_received: exchange.received(),
        bytes_sent: exchange.sent,
        duration_ms: (took.as_secs_f64() * 1e6).round() / 1e3,
    };
    serde_json::to_writer(&mut *out, &record)?;
    out.push(b'\n');
    Ok(())
}
