//! The access log: one line a request, written behind requests.
//!
//! A line is made where its request was served, in a buffer that only this thread adds to, and a thread of its own
//! carries what has gathered to the file. Handed over one by one, records cost two thirds of a request again: each
//! woke the other thread.

mod book;
mod file;

use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use metrics::Counter;

use self::book::{Book, Sink};
use self::file::LogFile;
use super::line::{self, Second};
use crate::config;
use crate::gateway::exchange::Exchange;
use crate::metrics::Metrics;
use crate::share;

/// How long lines gather before they are written. Who follows the log hardly notices, and the writing thread is woken
/// ten times a second, or as often as so many bytes come:
const GATHER: Duration = Duration::from_millis(100);

/// bytes of one thread that are written without waiting for more.
const MANY: usize = 128 * 1024;

/// Bytes that a buffer keeps room for between two batches.
const KEPT: usize = 2 * MANY;

/// Bytes of one thread that may wait for a slow disk, ten thousand lines. Beyond them lines are dropped and counted:
/// requests do not wait for a log.
const MOST: usize = 4 * 1024 * 1024;

/// What may wait for the writing thread. It takes all lines whenever it hears of some, so nothing is lost when this is
/// full.
const CALLS: usize = 4;

/// How long nothing is written before the writing thread looks whether the file is still in its place. It looks before
/// it writes, too; whoever rotates the log of an idle gateway finds a new file as well.
const LOOK_AFTER: Duration = Duration::from_secs(1);

/// How often a stop looks whether the log takes lines again.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Where records go, if anywhere. Cheap to clone.
#[derive(Clone)]
pub struct AccessLog(Option<Arc<Desk>>);

/// The way to the writing thread, which ends with it.
struct Desk {
    trays: Arc<Trays>,
    calls: SyncSender<Call>,
    dropped: Counter,
}

/// What gathers until it is written.
#[derive(Default)]
struct Trays {
    /// Lines by thread.
    lines: [Tray; share::COUNT],
    /// Whether the writing thread was told that there are some.
    told: AtomicBool,
}

/// Alone on a line of the processor's cache, or workers would slow each other down although they share nothing.
#[derive(Default)]
#[repr(align(128))]
struct Tray(Mutex<Lines>);

#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    second: Second,
}

impl Tray {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        // A panic elsewhere cannot have left more than half a line.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Call {
    /// There are lines.
    Some,
    /// There are so many that they should be written now.
    Many,
    /// Everything so far is to be written when the sender hears back.
    Flush(SyncSender<()>),
}

impl std::fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("AccessLog").field(&self.0.is_some()).finish()
    }
}

impl AccessLog {
    /// Opens the log and starts the thread that writes it.
    ///
    /// # Errors
    /// When the file cannot be opened for appending, or the thread not be started.
    pub fn open(config: &config::AccessLog, metrics: &Metrics) -> io::Result<Self> {
        let dropped = metrics.access_log_dropped();
        match config {
            config::AccessLog::Off => Ok(Self(None)),
            config::AccessLog::Stdout => Self::to(io::stdout(), dropped),
            config::AccessLog::File(path) => Self::to(LogFile::open(path)?, dropped),
        }
    }

    fn to(out: impl Sink + Send + 'static, dropped: Counter) -> io::Result<Self> {
        let (calls, called) = mpsc::sync_channel(CALLS);
        let trays = Arc::new(Trays::default());
        let (gathered, counted) = (Arc::clone(&trays), dropped.clone());
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_lines(&gathered, &called, out, &counted))?;
        Ok(Self(Some(Arc::new(Desk {
            trays,
            calls,
            dropped,
        }))))
    }

    /// Takes a finished record; drops and counts it when too many wait.
    /// `listener` is the listener's name as JSON has it.
    pub(crate) fn write(&self, listener: &str, exchange: &Exchange, took: Duration) {
        if let Some(desk) = &self.0
            && !desk.add(|lines, second| line::write(lines, second, listener, exchange, took))
        {
            desk.dropped.increment(1);
        }
    }

    /// Waits until all that was taken so far is written, or `limit` has passed.
    pub fn flush(&self, limit: Duration) {
        let Some(desk) = &self.0 else { return };
        let until = Instant::now() + limit;
        let (done, written) = mpsc::sync_channel(1);
        let mut flush = Call::Flush(done);
        // Not `send`, which waits for as long as whoever reads the log does.
        while let Err(TrySendError::Full(again)) = desk.calls.try_send(flush) {
            if Instant::now() >= until {
                return;
            }
            thread::park_timeout(LOOK_EVERY);
            flush = again;
        }
        let _ = written.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

impl Desk {
    /// Has a line added, unless too much waits.
    fn add(&self, line: impl FnOnce(&mut Vec<u8>, &mut Second)) -> bool {
        let tray = &self.trays.lines[share::own()];
        let mut guard = tray.lines();
        let Lines { bytes, second } = &mut *guard;
        let before = bytes.len();
        if before >= MOST {
            return false;
        }
        line(bytes, second);
        let after = bytes.len();
        drop(guard);
        if before < MANY && after >= MANY {
            let _ = self.calls.try_send(Call::Many);
        }
        // Looked at after the line is there, and taken back before lines are taken: whoever finds it told left the
        // line before the tray was emptied.
        if !self.trays.told.load(Ordering::Acquire) && !self.trays.told.swap(true, Ordering::AcqRel)
        {
            let _ = self.calls.try_send(Call::Some);
        }
        true
    }
}

fn write_lines(trays: &Trays, called: &Receiver<Call>, out: impl Sink, dropped: &Counter) {
    let mut book = Book::new(out);
    let mut batch = Vec::new();
    loop {
        let mut call = match called.recv_timeout(LOOK_AFTER) {
            Ok(call) => call,
            Err(RecvTimeoutError::Timeout) => {
                book.turn();
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if matches!(call, Call::Some) {
            // An error means that nothing more will come, and so that nothing more is to be waited for.
            call = called.recv_timeout(GATHER).unwrap_or(Call::Many);
        }
        trays.told.store(false, Ordering::Release);
        for tray in &trays.lines {
            // What gathers from now on gathers in the buffer of the batch before: nobody waits for a copy.
            mem::swap(&mut tray.lines().bytes, &mut batch);
            dropped.increment(book.write(&batch));
            batch.clear();
            // What piled up while the disk was slow is not kept for good.
            batch.shrink_to(KEPT);
        }
        if let Call::Flush(done) = call {
            let _ = done.try_send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn log_to(out: impl Sink + Send + 'static) -> AccessLog {
        AccessLog::to(out, Counter::noop()).unwrap()
    }

    fn add(log: &AccessLog, line: &[u8]) -> bool {
        let desk = log.0.as_ref().unwrap();
        desk.add(|lines, _| lines.extend_from_slice(line))
    }

    #[test]
    fn a_line_is_written_although_no_other_follows_it() {
        let (mut read, write) = io::pipe().unwrap();
        let log = log_to(write);
        for line in [b"one\n", b"two\n"] {
            assert!(add(&log, line));
            let mut come = [0; 4];
            read.read_exact(&mut come).unwrap();
            assert_eq!(&come, line);
        }
    }

    #[test]
    fn nothing_is_lost_with_the_last_who_writes() {
        let (mut read, write) = io::pipe().unwrap();
        let log = log_to(write);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1_000).for_each(|_| assert!(add(&log, b"line\n"))));
            }
        });
        drop(log);
        let mut come = String::new();
        read.read_to_string(&mut come).unwrap();
        assert_eq!(come.lines().filter(|line| *line == "line").count(), 4_000);
    }

    #[test]
    fn a_log_that_nobody_reads_keeps_no_request_waiting_and_is_bounded() {
        let (mut read, write) = io::pipe().unwrap();
        let log = log_to(write);
        let mut line = [b'x'; 1024];
        line[1023] = b'\n';
        // The pipe, what is being written, and what waits: more than that is refused.
        let taken = (0..3 * MOST / line.len()).filter(|_| add(&log, &line));
        let taken = taken.count();
        assert!((MOST..3 * MOST).contains(&(taken * line.len())), "{taken}");
        log.flush(Duration::from_millis(1));
        let drain = thread::spawn(move || io::copy(&mut read, &mut io::sink()).unwrap());
        log.flush(SOON);
        drop(log);
        assert_eq!(drain.join().unwrap(), (taken * line.len()) as u64);
    }
}
