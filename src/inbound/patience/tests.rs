//! What is waited for, and for how long.

use super::*;

/// Takes all that is written and gets rid of nothing, as TLS does whose socket is full.
struct Clogged;

impl AsyncRead for Clogged {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Clogged {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

#[tokio::test]
async fn who_sends_without_end_gives_way_and_keeps_the_budget_for_answers() {
    use tokio::io::AsyncWriteExt as _;
    use tokio::task::coop::has_budget_remaining;
    for size in [1, 8, 1024] {
        let (mut application, stream) = tokio::io::duplex(256 * 1024);
        application.write_all(&[b'x'; 64 * 1024]).await.unwrap();
        let mut stream = Patient::new(stream, Duration::from_secs(10));
        let mut turns = Vec::new();
        yield_now().await;
        std::future::poll_fn(|cx| {
            let mut read = 0;
            loop {
                let mut piece = vec![0; size];
                let mut buf = ReadBuf::new(&mut piece);
                match Pin::new(&mut stream).poll_read(cx, &mut buf) {
                    Poll::Ready(Ok(())) => read += buf.filled().len(),
                    Poll::Ready(Err(error)) => panic!("{error}"),
                    Poll::Pending => break,
                }
            }
            assert!(has_budget_remaining(), "in pieces of {size}");
            turns.push(read);
            // It is woken although nothing more comes.
            match turns.len() {
                2 => Poll::Ready(()),
                _ => Poll::Pending,
            }
        })
        .await;
        assert!(turns.iter().all(|read| (1..=BYTES_A_TURN).contains(read)));
    }
}

#[tokio::test]
async fn the_end_of_a_refused_head_is_read_however_small_the_buffer() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (mut application, stream) = tokio::io::duplex(1024);
    let head = b"GET / HTTP/1.1\nHost: x\r\n\r\n";
    application.write_all(head).await.unwrap();
    let mut stream = Patient::new(stream, Duration::from_secs(10));
    let mut read = Vec::new();
    let error = loop {
        let mut piece = [0; 3];
        match stream.read(&mut piece).await {
            Ok(length) => read.extend_from_slice(&piece[..length]),
            Err(error) => break error,
        }
    };
    assert_eq!(read, b"GET / HTTP/1.1\0\r\n\r\n");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn what_was_written_and_does_not_leave_is_waited_for_no_longer_than_the_limit() {
    use tokio::io::AsyncWriteExt as _;
    let limit = Duration::from_millis(50);
    let mut stream = Patient::new(Clogged, limit);
    stream.write_all(b"x").await.unwrap();
    let begun = Instant::now();
    let late = |ended: io::Result<()>| ended.unwrap_err().kind() == io::ErrorKind::TimedOut;
    let ended = tokio::time::timeout(Duration::from_secs(10), stream.flush());
    assert!(late(ended.await.unwrap()));
    assert!(begun.elapsed() >= limit);
    let mut stream = Patient::new(Clogged, limit);
    let ended = tokio::time::timeout(Duration::from_secs(10), stream.shutdown());
    assert!(late(ended.await.unwrap()));
}

/// Holds back what is written, as TLS does over a socket that takes a byte a millisecond.
#[derive(Default)]
struct Slow {
    held: usize,
    leaving: Option<Pin<Box<Sleep>>>,
}

impl Slow {
    const HOLDS: usize = 64;

    /// Waits until no more than so much is held.
    fn poll_held(&mut self, cx: &mut Context<'_>, at_most: usize) -> Poll<()> {
        while self.held > at_most {
            let leaving = self
                .leaving
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::from_millis(1))));
            ready!(leaving.as_mut().poll(cx));
            self.leaving = None;
            self.held -= 1;
        }
        Poll::Ready(())
    }
}

impl AsyncRead for Slow {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Slow {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_held(cx, Self::HOLDS - 1));
        let taken = buf.len().min(Self::HOLDS - self.held);
        self.held += taken;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_held(cx, 0).map(Ok)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

#[tokio::test]
async fn who_takes_what_is_written_is_waited_for_however_long_it_takes_in_all() {
    use tokio::io::AsyncWriteExt as _;
    // As long as it takes to get rid of everything several times over; all of it takes longer still.
    let limit = Duration::from_secs(1);
    for end_at_once in [false, true] {
        let mut stream = Patient::new(Slow::default(), limit);
        stream.write_all(&[0; Slow::HOLDS]).await.unwrap();
        // There is nothing more to write yet, and so hyper flushes.
        std::future::poll_fn(|cx| {
            assert!(Pin::new(&mut stream).poll_flush(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        let begun = Instant::now();
        while begun.elapsed() < limit + limit / 4 {
            stream.write_all(b"and more").await.unwrap();
        }
        match end_at_once {
            false => stream.flush().await.unwrap(),
            true => stream.shutdown().await.unwrap(),
        }
        assert_eq!(stream.stream.held, 0);
    }
}
