//! A TLS connection to a service, and what the service says on it of the client certificate.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use rustls::{AlertDescription, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::outbound::error;
use crate::outbound::sessions::Sessions;

/// A TLS connection that, when it can no longer be written to, looks for the alert in which the peer said why.
///
/// A server that refuses a TLS 1.3 client certificate sends its alert and closes, often while the request is still
/// being written. The write fails with a bare "connection reset", and the reason lies unread behind it.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TlsStream<TcpStream>,
    /// Nothing has been read yet: only then can the alert be about the certificate.
    fresh: bool,
    /// What was read in search of an alert and turned out to be the beginning of an answer.
    ahead: Option<u8>,
    refusal: Refusal,
    /// Told if the server answers before it has sent a ticket.
    sessions: Option<Arc<Sessions>>,
    /// What the connection occupies; below the stream, so that it is given back when the socket is closed.
    held: Held,
}

/// Anything that lasts as long as a connection, in HTTP or after it.
struct Held(Option<Box<dyn Send>>);

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Held").field(&self.0.is_some()).finish()
    }
}

/// The alert in which the peer refused the client certificate, once it has arrived. HTTP/2 tells its streams no
/// more of an error than its text, so the alert is kept beside the connection.
pub(crate) type Refusal = Arc<OnceLock<AlertDescription>>;

impl Wire {
    /// A connection whose handshake is over. `sessions` are told if the server answers before it has sent a ticket.
    pub(crate) fn new(stream: TlsStream<TcpStream>, sessions: Option<Arc<Sessions>>) -> Self {
        Self {
            stream,
            fresh: true,
            ahead: None,
            refusal: Arc::default(),
            sessions,
            held: Held(None),
        }
    }

    /// Waits for what the server says to the client certificate. In TLS 1.2 the handshake has said it already; in
    /// TLS 1.3 a session ticket is a yes, an alert a no. False: it closed without a word.
    pub(crate) async fn verdict(&mut self) -> io::Result<bool> {
        std::future::poll_fn(|cx| {
            let session = self.stream.get_ref().1;
            if session.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
                return Poll::Ready(Ok(true));
            }
            let mut scratch = [0; 1];
            let mut buf = ReadBuf::new(&mut scratch);
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut buf);
            if let Some(byte) = buf.filled().first() {
                // Whoever speaks HTTP has taken the certificate; what was read is the beginning of it.
                self.ahead = Some(*byte);
                self.was_read();
            }
            if self.stream.get_ref().1.tls13_tickets_received() > 0 {
                return Poll::Ready(Ok(true));
            }
            ready!(read)?;
            Poll::Ready(Ok(!buf.filled().is_empty()))
        })
        .await
    }

    /// Keeps something for as long as the connection is open.
    pub(crate) fn hold(&mut self, what: impl Send + 'static) {
        self.held = Held(Some(Box::new(what)));
    }

    pub(crate) fn refusal(&self) -> &Refusal {
        &self.refusal
    }

    /// The peer has begun to answer.
    fn was_read(&mut self) {
        self.fresh = false;
        if let Some(sessions) = self.sessions.take()
            && self.stream.get_ref().1.tls13_tickets_received() == 0
        {
            sessions.answered_without_ticket();
        }
    }

    fn note(&self, error: &io::Error) {
        if let Some(alert) = error::refusal(error).filter(|_| self.fresh) {
            let _ = self.refusal.set(alert);
        }
    }

    /// What to return of an attempt to write: in place of a failure, its reason. What the peer said last may be in the
    /// socket and its readiness not yet known to the runtime: then it is waited for, since what follows a reset is
    /// certain to wake the reader.
    fn with_reason<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: io::Result<T>,
    ) -> Poll<io::Result<T>> {
        let failure = match written {
            Err(failure) if self.fresh => failure,
            written => return Poll::Ready(written),
        };
        let mut byte = [0; 1];
        let mut buf = ReadBuf::new(&mut byte);
        match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf)) {
            Err(reason)
                if reason
                    .get_ref()
                    .is_some_and(|inner| inner.is::<rustls::Error>()) =>
            {
                self.note(&reason);
                Poll::Ready(Err(reason))
            }
            // An answer, and not an alert: it is read first, and the failure comes up again after it.
            Ok(()) if !buf.filled().is_empty() => {
                self.ahead = buf.filled().first().copied();
                self.was_read();
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            _ => Poll::Ready(Err(failure)),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(byte) = this.ahead.take() {
            buf.put_slice(&[byte]);
            return Poll::Ready(Ok(()));
        }
        let read = ready!(Pin::new(&mut this.stream).poll_read(cx, buf));
        match &read {
            Ok(()) => this.was_read(),
            Err(error) => this.note(error),
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, buf));
        this.with_reason(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, bufs));
        this.with_reason(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = ready!(Pin::new(&mut this.stream).poll_flush(cx));
        this.with_reason(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
