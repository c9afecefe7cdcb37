//! The two kinds of upstream connection, as a pool keeps them.

mod driver;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::outbound::body::Upload;
use crate::outbound::error::Error;
use crate::outbound::pool::{self, Pool};
use crate::outbound::rest::{Berth, Lent, Resting};
use crate::outbound::wire::{Refusal, Wire};
use crate::waiting::{Alarm, Seldom};

use driver::Driver;

/// The largest response head taken from a service. hyper allows 400 KiB unasked; no service answers with a tenth
/// of this, and a pool's worth of such heads must fit in memory.
const RESPONSE_HEAD_MAX: usize = 128 * 1024;

/// Streams that are opened before the service's SETTINGS frame has said how many it allows; other requests wait for the
/// frame, which is under way. A service that allows fewer would refuse what is over, and the requests would fail. hyper
/// would take them and keep them in a queue, out of which they would start under a certificate that was retired
/// meanwhile.
const STREAMS_UNTIL_TOLD: usize = 1;

/// How long requests wait for that frame before they open another connection beside. It is the first that a service
/// sends, and a packet that was lost is sent again after a second (RFC 6298).
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// Streams of a connection at most, whatever the service allows: others go to another connection. nginx allows as many
/// unless told otherwise.
const STREAMS_MAX: usize = 128;

/// What one HTTP/2 stream may be ahead of the application that reads it, which is kept in memory meanwhile. At 20 ms to
/// a service and back it lets a hundred megabits a second through.
const H2_STREAM_WINDOW: u32 = 256 * 1024;

/// Room for all streams of a connection: answers that nobody reads would fill less, and then nothing came in for the
/// others, which may be other tenants'. What all connections hold is bounded by the requests under way. More than is
/// needed is not for nothing: h2 takes small frames, which cost it more than they hold, in proportion to it.
const H2_CONNECTION_WINDOW: u32 = H2_STREAM_WINDOW * STREAMS_MAX as u32;

/// How often a silent HTTP/2 connection with streams in flight is asked whether it is still there.
const H2_PING_EVERY: Duration = Duration::from_secs(20);

/// An HTTP/1.1 connection that nobody else uses. In a box, because each request has it moved from hand to hand.
#[derive(Debug)]
pub(crate) struct H1 {
    pub(crate) sender: http1::SendRequest<Upload>,
    pub(crate) opened: Instant,
    /// The timer of its requests' deadlines, once there was one, and the worker whose it is: another's may stop before
    /// this one.
    pub(crate) alarm: Option<(usize, Alarm)>,
    task: AbortHandle,
    berth: Arc<Berth>,
    pub(crate) worker: Worker,
}

/// An HTTP/2 connection that several requests of one generation share.
#[derive(Debug)]
pub(crate) struct H2 {
    pub(crate) sender: http2::SendRequest<Upload>,
    pub(crate) opened: Instant,
    streams: AtomicUsize,
    /// Milliseconds from `opened` to the end of the last stream; 0 while none has ended.
    ended: AtomicU64,
    /// What the service allows, as its last SETTINGS frame had it.
    allowed: Arc<AtomicUsize>,
    /// Whether the service has answered a request: SETTINGS came before that.
    has_answered: AtomicBool,
    /// No new stream: too old, in trouble, or its generation is retired.
    draining: AtomicBool,
    refusal: Refusal,
    _in_use: watch::Sender<()>,
}

/// A place among the streams of a connection; gives it back when dropped, to one who waits for it if there is one.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) connection: Arc<H2>,
    pool: Arc<Pool>,
}

/// Waits until the requests of a pool are to be cut off.
pub(crate) async fn cut(mut cut_off: watch::Receiver<bool>) {
    if cut_off.wait_for(|is_cut| *is_cut).await.is_err() {
        // The pool is gone, and nobody can cut anything off any more.
        std::future::pending().await
    }
}

/// The worker that drives a connection, and that its socket is registered with.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    pub(crate) index: usize,
    runtime: Handle,
}

impl Worker {
    fn current() -> Self {
        Self {
            index: pool::worker(),
            runtime: Handle::current(),
        }
    }
}

/// Speaks HTTP/1.1 on a fresh wire.
pub(crate) async fn open_h1(wire: Wire, cut_off: watch::Receiver<bool>) -> Result<Box<H1>, Error> {
    speak_h1(Box::new(wire), Instant::now(), Worker::current(), cut_off).await
}

/// Speaks HTTP/1.1 again on a wire that was at rest. Nothing, where that is not possible at once.
pub(crate) fn wake_h1(
    wire: Box<Wire>,
    opened: Instant,
    worker: Worker,
    cut_off: watch::Receiver<bool>,
) -> Option<Box<H1>> {
    let spoken = pin!(speak_h1(wire, opened, worker, cut_off));
    // HTTP/1.1 begins with a request, so there is nothing to wait for.
    match spoken.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(spoken) => spoken.ok(),
        Poll::Pending => None,
    }
}

async fn speak_h1(
    wire: Box<Wire>,
    opened: Instant,
    worker: Worker,
    cut_off: watch::Receiver<bool>,
) -> Result<Box<H1>, Error> {
    let (lent, berth) = Lent::new(wire);
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(RESPONSE_HEAD_MAX)
        .handshake(TokioIo::new(lent))
        .await
        .map_err(Error::from_exchange)?;
    let mut connection = connection.with_upgrades();
    let ending = Arc::clone(&berth);
    let mut cut = Seldom::new(cut(cut_off));
    // An async block would hold the connection twice, as what it was given and as what it drives.
    let task = worker.runtime.spawn(poll_fn(move |cx| {
        // What goes wrong on the connection is told to the request that it goes wrong for.
        match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(ended) => {
                if ended.is_err() {
                    // What it lost in its error may be the beginning of an answer that nobody asked for.
                    ending.is_lost();
                }
                Poll::Ready(())
            }
            Poll::Pending => Pin::new(&mut cut).poll(cx),
        }
    }));
    Ok(Box::new(H1 {
        sender,
        opened,
        alarm: None,
        task: task.abort_handle(),
        berth,
        worker,
    }))
}

impl H1 {
    /// What becomes of the connection when this is dropped, if it is between two requests.
    pub(crate) fn rest(&self) -> Resting {
        Resting::new(Arc::clone(&self.berth), self.opened, self.worker.clone())
    }

    /// Closes the connection in the middle of a request. Left to itself it would go on writing for as long as the
    /// service does not take what is left. What was upgraded is no longer its own and stays.
    pub(crate) fn cut(&self) {
        self.task.abort();
    }
}

/// Speaks HTTP/2 on a fresh wire, and tells `pool` when the service allows another number of streams.
pub(crate) async fn open_h2(
    wire: Wire,
    pool: &Arc<Pool>,
    cut_off: watch::Receiver<bool>,
) -> Result<Arc<H2>, Error> {
    let refusal = Arc::clone(wire.refusal());
    let (in_use, driver) = Driver::new(cut_off);
    let (sender, connection) = http2::Builder::new(driver.clone())
        .timer(TokioTimer::new())
        .initial_max_send_streams(STREAMS_UNTIL_TOLD)
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_header_list_size(RESPONSE_HEAD_MAX as u32)
        .keep_alive_interval(H2_PING_EVERY)
        .handshake(TokioIo::new(wire))
        .await
        .map_err(|error| explain(&refusal, Error::from_exchange(error)))?;
    let allowed = Arc::new(AtomicUsize::new(STREAMS_UNTIL_TOLD));
    let (told, pool) = (Arc::clone(&allowed), Arc::downgrade(pool));
    let (news, refused) = (Arc::clone(&driver.news), Arc::clone(&refusal));
    let mut open = Some(connection);
    let reading = poll_fn(move |cx| {
        let Some(connection) = &mut open else {
            return Poll::Ready(());
        };
        news.reader.get_or_init(|| cx.waker().clone());
        let polled = Pin::new(&mut *connection).poll(cx).map(drop);
        let streams = connection.current_max_send_streams().min(STREAMS_MAX);
        if polled.is_ready() {
            // Gone before anybody is told, so that whoever waits for a stream of it sees that it takes none.
            open = None;
        } else if told.swap(streams, Ordering::SeqCst) == streams {
            return polled;
        }
        news.has_come.store(true, Ordering::Relaxed);
        if let Some(pool) = pool.upgrade() {
            if polled.is_ready()
                && let Some(alert) = refused.get()
            {
                // It would meet all who wait for a stream, one handshake after the other.
                pool.refuse_waiting(Error::CertificateRejected(*alert), Instant::now());
            } else {
                pool.grew();
            }
        }
        polled
    });
    driver.run(reading, || ());
    Ok(Arc::new(H2 {
        sender,
        opened: Instant::now(),
        streams: AtomicUsize::new(0),
        ended: AtomicU64::new(0),
        allowed,
        has_answered: AtomicBool::new(false),
        draining: AtomicBool::new(false),
        refusal,
        _in_use: in_use,
    }))
}

impl H2 {
    /// Takes a place for one more stream, if there is one.
    pub(crate) fn stream(self: &Arc<Self>, pool: &Arc<Pool>) -> Option<Stream> {
        if !self.takes_streams() {
            return None;
        }
        let allowed = self.allowed.load(Ordering::SeqCst);
        self.streams
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |streams| {
                (streams < allowed).then_some(streams + 1)
            })
            .ok()?;
        Some(Stream {
            connection: Arc::clone(self),
            pool: Arc::clone(pool),
        })
    }

    /// Until when to wait for the service to say how many streams it allows, if it has not.
    pub(crate) fn is_told_by(&self) -> Option<Instant> {
        let is_untold = self.allowed.load(Ordering::SeqCst) == STREAMS_UNTIL_TOLD;
        (is_untold && self.takes_streams()).then(|| self.opened + TOLD_WITHIN)
    }

    /// Whether the service is known to allow one stream at once.
    pub(crate) fn allows_one(&self) -> bool {
        self.has_answered.load(Ordering::Relaxed)
            && self.allowed.load(Ordering::SeqCst) == STREAMS_UNTIL_TOLD
    }

    /// The service has answered a request.
    pub(crate) fn answered(&self) {
        self.has_answered.store(true, Ordering::Relaxed);
    }

    pub(crate) fn takes_streams(&self) -> bool {
        !self.draining.load(Ordering::Acquire) && !self.sender.is_closed()
    }

    /// How many streams it has.
    pub(crate) fn in_flight(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// Since when it has had no stream, if it has none.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let ended = Duration::from_millis(self.ended.load(Ordering::Acquire));
        (self.streams.load(Ordering::SeqCst) == 0).then(|| self.opened + ended)
    }

    /// What a failure on this connection really was.
    pub(crate) fn explain(&self, error: Error) -> Error {
        explain(&self.refusal, error)
    }

    /// Lets the streams in flight finish and takes no other.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }
}

fn explain(refusal: &Refusal, error: Error) -> Error {
    match refusal.get() {
        Some(alert) => Error::CertificateRejected(*alert),
        None => error,
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let connection = &self.connection;
        let age = u64::try_from(connection.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        connection.ended.store(age.max(1), Ordering::Release);
        // In one order with the count of those who wait: either they find the place or they are told of it.
        connection.streams.fetch_sub(1, Ordering::SeqCst);
        self.pool.came_free();
    }
}

/// Polls whether an HTTP/1.1 connection is between two requests.
pub(crate) async fn ready(h1: &mut H1, limit: Duration) -> bool {
    matches!(
        tokio::time::timeout(limit, poll_fn(|cx| h1.sender.poll_ready(cx))).await,
        Ok(Ok(()))
    )
}

/// Whether an HTTP/1.1 connection can take a request at this instant.
pub(crate) fn is_between_requests(h1: &H1) -> bool {
    h1.sender.is_ready() && !h1.sender.is_closed()
}
