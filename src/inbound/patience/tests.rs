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
