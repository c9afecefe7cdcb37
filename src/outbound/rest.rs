//! HTTP/1.1 connections at rest: open, and without what HTTP needs to speak.
//!
//! hyper keeps a connection's buffers and queues, some 40 KiB, for as long as it has the connection; TLS alone needs a
//! quarter of that. A connection that has lain idle for a while is therefore taken out of hyper, and put back for its
//! next request. The service notices nothing.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use crate::outbound::connection::{self, H1, Worker};
use crate::outbound::wire::Wire;

/// How long a connection lies idle before it is put to rest. To wake it takes a few microseconds, which those that are
/// used every second or two never pay.
pub(crate) const RESTS_AFTER: Duration = Duration::from_secs(5);

/// An idle connection.
#[derive(Debug)]
pub(crate) enum Kept {
    /// Ready to be written to.
    Awake(Box<H1>),
    /// To be woken first.
    Resting(Resting),
}

/// A connection without hyper.
#[derive(Debug)]
pub(crate) struct Resting {
    berth: Arc<Berth>,
    opened: Instant,
    worker: Worker,
}

/// Where a wire goes when hyper lets go of it.
#[derive(Debug, Default)]
pub(crate) struct Berth {
    /// It is to be kept, and not to be closed.
    is_wanted: AtomicBool,
    wire: Mutex<Option<Box<Wire>>>,
}

/// A wire on loan to hyper.
#[derive(Debug)]
pub(crate) struct Lent {
    /// Absent in `drop` alone.
    wire: Option<Box<Wire>>,
    berth: Arc<Berth>,
}

impl Kept {
    pub(crate) fn opened(&self) -> Instant {
        match self {
            Self::Awake(h1) => h1.opened,
            Self::Resting(resting) => resting.opened,
        }
    }

    /// Whether it is at rest by now.
    pub(crate) fn is_resting(&self) -> bool {
        matches!(self, Self::Resting(resting) if resting.berth.lock().is_some())
    }

    /// Whether it can take a request at this instant.
    pub(crate) fn serves(&self) -> bool {
        match self {
            Self::Awake(h1) => connection::is_between_requests(h1),
            Self::Resting(resting) => resting.is_open(),
        }
    }

    /// Whether it may still serve later.
    pub(crate) fn is_open(&self) -> bool {
        match self {
            Self::Awake(h1) => !h1.sender.is_closed(),
            Self::Resting(resting) => resting.is_open(),
        }
    }

    /// Puts it to rest, unless it is, or is about to close. Tells whether it did.
    pub(crate) fn rest(&mut self) -> bool {
        match self {
            Self::Awake(h1) if connection::is_between_requests(h1) => {
                let resting = h1.rest();
                // Drops the sender, with which hyper's part ends: only once it is known that the wire is wanted.
                *self = Self::Resting(resting);
                true
            }
            _ => false,
        }
    }

    /// Makes it ready; nothing, if it closed meanwhile or is just being put to rest.
    pub(crate) fn wake(self, cut_off: impl FnOnce() -> watch::Receiver<bool>) -> Option<Box<H1>> {
        match self {
            Self::Awake(h1) => Some(h1),
            Self::Resting(resting) => resting.wake(cut_off()),
        }
    }
}

impl Resting {
    /// From now on `berth` gets the wire when hyper lets go of it.
    pub(crate) fn new(berth: Arc<Berth>, opened: Instant, worker: Worker) -> Self {
        berth.is_wanted.store(true, Ordering::Release);
        Self {
            berth,
            opened,
            worker,
        }
    }

    /// Looks whether the service has closed it, or said what nobody asked for. Nobody else listens to it.
    fn is_open(&self) -> bool {
        let mut wire = self.berth.lock();
        match wire.as_mut() {
            Some(wire) => is_silent(wire),
            // It is on its way, unless hyper had lost it before.
            None => Arc::strong_count(&self.berth) > 1,
        }
    }

    fn wake(self, cut_off: watch::Receiver<bool>) -> Option<Box<H1>> {
        let wire = self.berth.lock().take()?;
        connection::wake_h1(wire, self.opened, self.worker, cut_off)
    }
}

/// Says goodbye. What does not go out at once does not matter: the service learns of the end either way.
impl Drop for Berth {
    fn drop(&mut self) {
        if let Some(wire) = self.lock().as_mut() {
            let mut now = Context::from_waker(Waker::noop());
            let _ = Pin::new(wire).poll_shutdown(&mut now);
        }
    }
}

impl Berth {
    /// The wire is not to be kept any more.
    pub(crate) fn is_lost(&self) {
        self.is_wanted.store(false, Ordering::Release);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Box<Wire>>> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nothing has arrived but what concerns TLS alone.
fn is_silent(wire: &mut Wire) -> bool {
    let mut byte = [0; 1];
    let mut read = ReadBuf::new(&mut byte);
    let mut now = Context::from_waker(Waker::noop());
    // Unconstrained, because the runtime has tasks believe after a while that nothing is ready, and many are looked at
    // in one go.
    let look = poll_fn(|cx| Pin::new(&mut *wire).poll_read(cx, &mut read));
    pin!(tokio::task::unconstrained(look))
        .poll(&mut now)
        .is_pending()
}

impl Lent {
    pub(crate) fn new(wire: Box<Wire>) -> (Self, Arc<Berth>) {
        let berth = Arc::new(Berth::default());
        let lent = Self {
            wire: Some(wire),
            berth: Arc::clone(&berth),
        };
        (lent, berth)
    }

    fn wire(self: Pin<&mut Self>) -> Pin<&mut Wire> {
        let wire = self.get_mut().wire.as_deref_mut();
        Pin::new(wire.expect("it is taken when this is dropped"))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.berth.is_wanted.load(Ordering::Acquire) {
            *self.berth.lock() = self.wire.take();
        }
    }
}

impl AsyncRead for Lent {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.wire().poll_read(cx, buf)
    }
}

impl AsyncWrite for Lent {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.wire().poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.wire().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        (self.wire.as_ref()).is_some_and(|wire| wire.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Not to say goodbye is what it is all about.
        match self.berth.is_wanted.load(Ordering::Acquire) {
            true => Poll::Ready(Ok(())),
            false => self.wire().poll_shutdown(cx),
        }
    }
}
