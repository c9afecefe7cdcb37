//! Bodies in both directions: streamed, counted, never gathered.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::outbound::error::{Error, Stage};
use crate::outbound::lease::Lease;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request's body on its way to the service.
#[derive(Debug)]
pub struct Upload {
    /// Absent where there is no body to send.
    flow: Option<Flow>,
}

#[derive(Debug)]
struct Flow {
    inner: Incoming,
    limit: u64,
    /// Takes out of trailers what is not for the service.
    trailers: fn(&mut HeaderMap),
    progress: Arc<Progress>,
}

/// How far an upload has come, for those who wait for the answer to it.
#[derive(Debug)]
pub(crate) struct Progress {
    begun: Instant,
    /// Milliseconds from `begun` to the last piece, or to the end.
    last: AtomicU64,
    bytes: AtomicU64,
    ended: AtomicBool,
    /// Whether it is the application whom everybody waits for.
    awaits_client: AtomicBool,
    /// Why the upload was broken off on this side. Over HTTP/2 the request itself learns only that it was.
    failure: OnceLock<Error>,
}

impl Upload {
    /// Follows a body of at most `limit` bytes, whose trailers, if it has any, go through `trailers`.
    pub fn new(inner: Incoming, limit: u64, trailers: fn(&mut HeaderMap)) -> Self {
        let flow = (!inner.is_end_stream()).then(|| {
            let progress = Arc::new(Progress::new());
            Flow {
                inner,
                limit,
                trailers,
                progress,
            }
        });
        Self { flow }
    }

    /// No body.
    pub fn empty() -> Self {
        Self { flow: None }
    }

    /// It may have at most so many bytes.
    pub(crate) fn may_have(&mut self, limit: u64) {
        if let Some(flow) = &mut self.flow {
            flow.limit = limit;
        }
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.flow.is_none()
    }

    pub(crate) fn progress(&self) -> Option<&Arc<Progress>> {
        self.flow.as_ref().map(|flow| &flow.progress)
    }
}

impl Progress {
    fn new() -> Self {
        Self {
            begun: Instant::now(),
            last: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            awaits_client: AtomicBool::new(false),
            failure: OnceLock::new(),
        }
    }

    /// Bytes passed on so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    fn mark_end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// When patience ends: `body` after the last piece while pieces come, `response` after the end.
    pub(crate) fn deadline(&self, response: Duration, body: Duration) -> Instant {
        let last = self.begun + Duration::from_millis(self.last.load(Ordering::Acquire));
        last + if self.ended() { response } else { body }
    }

    /// Why patience ended.
    pub(crate) fn stall(&self) -> Error {
        if self.ended() {
            Error::Timeout(Stage::Answer)
        } else if self.awaits_client.load(Ordering::Acquire) {
            Error::ClientStalled
        } else {
            Error::Timeout(Stage::TakeBody)
        }
    }

    /// Why the upload was broken off, if it was.
    pub(crate) fn failure(&self) -> Option<&Error> {
        self.failure.get()
    }

    fn fail(&self, error: Error) -> BoxError {
        self.failure.get_or_init(|| error).clone().into()
    }

    /// Counts patience anew from here.
    pub(crate) fn mark(&self) {
        let elapsed = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(elapsed, Ordering::Release);
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(Flow {
            inner,
            limit,
            trailers,
            progress,
        }) = &mut self.flow
        else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(&mut *inner).poll_frame(cx);
        progress
            .awaits_client
            .store(polled.is_pending(), Ordering::Release);
        let frame = ready!(polled);
        progress.mark();
        match frame {
            Some(Ok(mut frame)) => {
                if let Some(fields) = frame.trailers_mut() {
                    trailers(fields);
                }
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                let total = progress.bytes.fetch_add(length, Ordering::Relaxed) + length;
                if total > *limit {
                    return Poll::Ready(Some(Err(progress.fail(Error::TooLarge(*limit)))));
                }
                if inner.is_end_stream() {
                    progress.mark_end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                let error = Error::ClientBroken(Arc::new(error));
                Poll::Ready(Some(Err(progress.fail(error))))
            }
            None => {
                progress.mark_end();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.flow
            .as_ref()
            .is_none_or(|flow| flow.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.flow
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), |flow| flow.inner.size_hint())
    }
}

/// A response's body on its way back. At its end the connection returns to its pool; dropped before, the
/// connection is closed, because what remains unread on it belongs to nobody else.
#[derive(Debug)]
pub struct Download {
    inner: Incoming,
    lease: Option<Lease>,
    silence: Duration,
    /// Armed while a piece is awaited, so that small answers cost no timer.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Download {
    pub(crate) fn new(inner: Incoming, lease: Lease, silence: Duration) -> Self {
        let mut download = Self {
            inner,
            lease: Some(lease),
            silence,
            timer: None,
        };
        download.release_at_end();
        download
    }

    /// The connection is free as soon as the last byte was read, not when somebody asks for one more: an
    /// application that has its whole answer may send its next request at once.
    fn release_at_end(&mut self) {
        if self.inner.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.give_back();
        }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.timer = None;
                this.release_at_end();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.lease = None;
                Poll::Ready(Some(Err(Error::from_exchange(error))))
            }
            Poll::Ready(None) => {
                if let Some(lease) = this.lease.take() {
                    lease.give_back();
                }
                Poll::Ready(None)
            }
            Poll::Pending => {
                let silence = this.silence;
                let timer = this
                    .timer
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(silence)));
                ready!(timer.as_mut().poll(cx));
                this.lease = None;
                Poll::Ready(Some(Err(Error::Timeout(Stage::ContinueBody))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESPONSE: Duration = Duration::from_secs(60);
    const BODY: Duration = Duration::from_secs(5);

    /// An upload whose last piece passed a minute after its begin.
    fn after_a_minute() -> Progress {
        Progress {
            last: AtomicU64::new(60_000),
            ..Progress::new()
        }
    }

    #[test]
    fn while_pieces_come_patience_counts_from_the_last_one() {
        let progress = after_a_minute();
        let last = progress.begun + Duration::from_secs(60);
        assert_eq!(progress.deadline(RESPONSE, BODY), last + BODY);
        progress.ended.store(true, Ordering::Release);
        assert_eq!(progress.deadline(RESPONSE, BODY), last + RESPONSE);
    }

    #[test]
    fn a_new_attempt_counts_anew() {
        let progress = after_a_minute();
        progress.mark();
        assert!(progress.deadline(RESPONSE, BODY) < progress.begun + BODY + BODY);
    }

    #[test]
    fn whoever_was_waited_for_is_blamed() {
        let progress = Progress::new();
        assert!(matches!(progress.stall(), Error::Timeout(Stage::TakeBody)));
        progress.awaits_client.store(true, Ordering::Release);
        assert!(matches!(progress.stall(), Error::ClientStalled));
        progress.ended.store(true, Ordering::Release);
        assert!(matches!(progress.stall(), Error::Timeout(Stage::Answer)));
    }

    #[test]
    fn the_first_failure_is_the_one_that_is_told() {
        let progress = Progress::new();
        assert!(progress.failure().is_none());
        drop(progress.fail(Error::TooLarge(5)));
        drop(progress.fail(Error::ClientStalled));
        assert!(matches!(progress.failure(), Some(Error::TooLarge(5))));
    }
}
