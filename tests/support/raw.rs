//! Bytes as they are, for requests that no library would send and answers that none would let through.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::within;

/// A connection on which a test writes and reads bytes.
pub struct Raw<S = TcpStream> {
    pub stream: S,
    ahead: Vec<u8>,
}

/// An answer as it stood on the wire.
#[derive(Debug)]
pub struct RawAnswer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    /// Whether the body came to the end that its framing announces.
    pub complete: bool,
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::over(within(TcpStream::connect(address)).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    pub fn over(stream: S) -> Self {
        Self {
            stream,
            ahead: Vec::new(),
        }
    }

    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        within(self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// Reads some bytes into what was read ahead; false at the end.
    async fn more(&mut self) -> bool {
        let mut piece = [0; 4096];
        match within(self.stream.read(&mut piece)).await {
            Ok(0) | Err(_) => false,
            Ok(length) => {
                self.ahead.extend_from_slice(&piece[..length]);
                true
            }
        }
    }

    async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            let found = self
                .ahead
                .windows(end.len())
                .position(|window| window == end);
            if let Some(at) = found {
                return Some(self.ahead.drain(..at + end.len()).collect());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Reads a head, an interim one included; nothing if the connection ended first.
    pub async fn head(&mut self) -> Option<String> {
        let head = self.until(b"\r\n\r\n").await?;
        Some(String::from_utf8(head).unwrap())
    }

    /// Reads that many bytes.
    pub async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.ahead.len() < length {
            assert!(self.more().await, "the connection ended early");
        }
        self.ahead.drain(..length).collect()
    }

    /// Reads an answer to its end, be it proper or not. `head_only` is how answers to HEAD are.
    pub async fn answer(&mut self, head_only: bool) -> Option<RawAnswer> {
        let head = self.head().await?;
        let status = head[9..12].parse().unwrap();
        let field = |name: &str| {
            head.lines().find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix(name)
                    .map(str::to_owned)
            })
        };
        let (body, complete) = if head_only || matches!(status, 100..=199 | 204 | 304) {
            (Vec::new(), true)
        } else if let Some(length) = field("content-length: ") {
            let length: usize = length.parse().unwrap();
            while self.ahead.len() < length && self.more().await {}
            let complete = self.ahead.len() >= length;
            let taken = length.min(self.ahead.len());
            (self.ahead.drain(..taken).collect(), complete)
        } else if field("transfer-encoding: chunked").is_some() {
            self.chunks().await
        } else {
            while self.more().await {}
            (std::mem::take(&mut self.ahead), true)
        };
        Some(RawAnswer {
            status,
            head,
            body,
            complete,
        })
    }

    async fn chunks(&mut self) -> (Vec<u8>, bool) {
        let mut body = Vec::new();
        loop {
            let Some(line) = self.until(b"\r\n").await else {
                return (body, false);
            };
            let size = usize::from_str_radix(String::from_utf8(line).unwrap().trim(), 16).unwrap();
            if size == 0 {
                // Trailers, if any, end as a head does; without them there is just the empty line.
                while let Some(line) = self.until(b"\r\n").await {
                    if line == b"\r\n" {
                        return (body, true);
                    }
                    body.extend_from_slice(b"[trailer] ");
                    body.extend_from_slice(&line);
                }
                return (body, false);
            }
            while self.ahead.len() < size + 2 {
                if !self.more().await {
                    body.append(&mut self.ahead);
                    return (body, false);
                }
            }
            body.extend(self.ahead.drain(..size));
            self.ahead.drain(..2);
        }
    }

    /// Waits for the gateway to close; what it still said before.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.ahead)
    }
}
