//! What an application may keep waiting, where hyper sets no limit.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::yield_now;
use tokio::time::{Instant, Sleep};

use crate::inbound::frames::Frames;
use crate::inbound::heads::Heads;

/// With this HTTP/2 begins (RFC 9113 section 3.4). Until what has come differs from it, hyper cannot tell which
/// version it will be, and no deadline of either version runs.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long an application that was answered may go on sending what nobody wants before it is cut off. Cut at once,
/// it would fail to write and perhaps never read why (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(5);

/// How long it may then be silent without having closed its side. A stop waits as long for idle connections.
const QUIET: Duration = Duration::from_secs(1);

/// What is still taken over HTTP/2 of an application that nobody wants to hear: what lies in the sockets' buffers, so that
/// it reads why (GOAWAY). What comes after that it sends without having listened. Over HTTP/1.1 it may be any large body.
const TAKEN_OVER_HTTP_2: usize = 256 * 1024;

/// Bytes that one connection is read for, or one read if it brings more, before the worker turns to the others: some
/// hundred frames, or one piece of a body.
const BYTES_A_TURN: usize = 8 * 1024;

/// What a read counts for at least: the runtime lets a task have 128 reads and writes at a time (`tokio::task::coop`),
/// and half of them are left for writes.
const BYTES_A_READ: usize = BYTES_A_TURN / 64;

/// A connection from an application that must begin, take its answers, and be left, in time.
#[derive(Debug)]
pub(super) struct Patient<S> {
    stream: S,
    limit: Duration,
    heads: Heads,
    /// Where a request was refused: what hyper is still to read.
    end: Option<&'static [u8]>,
    /// Bytes that were read since the others had their turn.
    turn: usize,
    /// How much of the preface has come, while it may still be one.
    opening: Option<usize>,
    /// Over HTTP/2.
    frames: Option<Box<Frames>>,
    reading: Option<Pin<Box<Sleep>>>,
    /// One for writes, flushes and the end. TLS holds back what the socket does not take, and calls it written, so
    /// flushes have to be waited for; but the whole of a long answer may pass without one that ends, and so each write
    /// that is taken begins the time anew. What TLS takes while the socket takes nothing is 64 KiB at most (rustls's
    /// limit on its buffer), so that nobody who takes nothing gets far by this.
    sending: Option<Pin<Box<Sleep>>>,
    /// There is nothing to hear from this application any more.
    is_flooded: bool,
    is_shut: bool,
    leave: Option<Leave>,
}

/// How much longer an application is listened to that has nothing more to expect.
#[derive(Debug)]
struct Leave {
    at_last: Instant,
    quiet: Pin<Box<Sleep>>,
    /// Bytes that were taken and that nobody wants.
    forgotten: usize,
}

impl<S> Patient<S> {
    /// Waits for at most `limit` at a time.
    pub(super) fn new(stream: S, limit: Duration) -> Self {
        Self {
            stream,
            limit,
            heads: Heads::default(),
            end: None,
            turn: 0,
            opening: Some(0),
            frames: None,
            reading: None,
            sending: None,
            is_flooded: false,
            is_shut: false,
            leave: None,
        }
    }

    /// What a write, a flush or the end came to, or that the application was waited for long enough.
    fn taken<T>(
        &mut self,
        cx: &mut Context<'_>,
        taken: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if taken.is_ready() {
            self.sending = None;
            return taken;
        }
        late(&mut self.sending, self.limit, cx)
    }
}

/// Arms a timer that is not armed yet; an error once it has run out.
fn late<T>(
    timer: &mut Option<Pin<Box<Sleep>>>,
    limit: Duration,
    cx: &mut Context<'_>,
) -> Poll<io::Result<T>> {
    let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
    ready!(timer.as_mut().poll(cx));
    Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
}

/// Reads, but lets others have their turn where much has come. The runtime counts a read for one, however much it brought:
/// a flood of small frames of HTTP/2 would have its worker for a tenth of a second at a time. Its budget is left alone,
/// since writes need it: those of HTTP/2 come after all that there is to read.
fn poll_read_in_turn<S: AsyncRead + Unpin>(
    stream: &mut S,
    turn: &mut usize,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    if *turn >= BYTES_A_TURN {
        *turn = 0;
        // Has the task woken once the runtime has looked at its sockets and timers.
        let _ = pin!(yield_now()).poll(cx);
        return Poll::Pending;
    }
    let before = buf.filled().len();
    let read = Pin::new(stream).poll_read(cx, buf);
    let come = buf.filled().len() - before;
    *turn = match read.is_pending() {
        true => 0,
        false => *turn + come.max(BYTES_A_READ),
    };
    read
}

impl<S> Patient<S> {
    /// What a read came to, unless it brought what makes a flood of frames.
    fn unless_flood(
        &mut self,
        read: Poll<io::Result<()>>,
        come: &[u8],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        self.is_flooded |= (self.frames.as_mut()).is_some_and(|frames| !frames.read(come));
        match self.is_flooded {
            true => self.keep_waiting(cx),
            false => read,
        }
    }

    /// Reads no more, and closes a while later: closed at once, whoever floods would be back at once, with a connection
    /// that costs more than one that nobody reads.
    fn keep_waiting<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        late(&mut self.reading, self.limit.min(LINGER), cx)
    }

    /// Looks at what was sent of that.
    fn sent<'b>(
        &mut self,
        bufs: impl IntoIterator<Item = &'b [u8]>,
        written: &Poll<io::Result<usize>>,
    ) {
        if let (Some(frames), Poll::Ready(Ok(bytes))) = (&mut self.frames, written) {
            let mut left = *bytes;
            for buf in bufs {
                let sent = left.min(buf.len());
                frames.sent(&buf[..sent]);
                left -= sent;
            }
        }
    }

    /// Gives hyper what is left of the end of a request that was refused, and nothing more.
    fn poll_end(&mut self, end: &'static [u8], buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if end.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let (now, later) = end.split_at(end.len().min(buf.remaining()));
        buf.put_slice(now);
        self.end = Some(later);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(end) = this.end {
            return this.poll_end(end, buf);
        }
        if this.is_flooded {
            return this.keep_waiting(cx);
        }
        let before = buf.filled().len();
        let read = poll_read_in_turn(&mut this.stream, &mut this.turn, cx, buf);
        if let Some(spoilt) = this.heads.look(&mut buf.filled_mut()[before..]) {
            buf.set_filled(before + spoilt.passed);
            this.opening = None;
            this.reading = None;
            this.end = Some(spoilt.end);
            // With nothing read, hyper would take it for the end of the connection.
            if spoilt.passed == 0 || buf.remaining() > 0 && !spoilt.end.is_empty() {
                return this.poll_end(spoilt.end, buf);
            }
            return read;
        }
        let Some(matched) = this.opening else {
            return this.unless_flood(read, &buf.filled()[before..], cx);
        };
        if read.is_pending() {
            return late(&mut this.reading, this.limit, cx);
        }
        let (come, expected) = (&buf.filled()[before..], &PREFACE[matched..]);
        let undecided = come.len() < expected.len() && expected.starts_with(come);
        this.opening = undecided.then_some(matched + come.len());
        if !undecided {
            this.reading = None;
        }
        if let Some(frames) = come.strip_prefix(expected) {
            this.frames = Some(Box::new(Frames::new()));
            return this.unless_flood(read, frames, cx);
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.sent([buf], &written);
        this.taken(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.sent(bufs.iter().map(|buf| &**buf), &written);
        this.taken(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        this.taken(cx, flushed)
    }

    /// Ends the answers, then takes and forgets what the application is still sending.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.is_shut {
            let shut = Pin::new(&mut this.stream).poll_shutdown(cx);
            ready!(this.taken(cx, shut))?;
            this.is_shut = true;
        }
        if this.is_flooded {
            return this.keep_waiting(cx);
        }
        let leave = this.leave.get_or_insert_with(|| Leave {
            at_last: Instant::now() + LINGER,
            quiet: Box::pin(tokio::time::sleep(QUIET)),
            forgotten: 0,
        });
        let mut scratch = [0; 16 * 1024];
        loop {
            let mut buf = ReadBuf::new(&mut scratch);
            match poll_read_in_turn(&mut this.stream, &mut this.turn, cx, &mut buf) {
                // A flood leaves no moment in which a timer could be polled.
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    let now = Instant::now();
                    leave.forgotten += buf.filled().len();
                    if this.frames.is_some() && leave.forgotten > TAKEN_OVER_HTTP_2 {
                        this.is_flooded = true;
                        return this.keep_waiting(cx);
                    }
                    if now >= leave.at_last {
                        return Poll::Ready(Ok(()));
                    }
                    leave.quiet.as_mut().reset(leave.at_last.min(now + QUIET));
                }
                Poll::Pending => return leave.quiet.as_mut().poll(cx).map(Ok),
                Poll::Ready(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests;
