//! One HTTP/2 connection of an application: what is slow or small on one stream is nothing to the others.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use relais::simulator::site::Stand;
use support::frames::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, frame, take,
};
use support::upstream::{Tls, Upstream};
use support::{H2c, TestGateway, in_front_of, start_on, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Uploads that get stuck at once.
const STUCK: usize = 20;

/// More than the buffers of the sockets to a service hold, and less than a request may have.
const MORE_THAN_BUFFERS: usize = 48 << 20;

const PIECE: Bytes = Bytes::from_static(&[0; 16 << 10]);

/// What is not taken for so long is not going to be.
const STUCK_AFTER: Duration = Duration::from_millis(500);

/// Counts the pieces that could be sent.
struct Upload {
    left: usize,
    sent: Arc<AtomicUsize>,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(left) = self.left.checked_sub(1) else {
            return Poll::Ready(None);
        };
        self.left = left;
        self.sent.fetch_add(1, Ordering::AcqRel);
        Poll::Ready(Some(Ok(Frame::data(PIECE))))
    }
}

fn post<B>(gateway: &TestGateway, path: &str, body: B) -> Request<B> {
    let tenant = gateway.tenant(0);
    Request::post(path)
        .header("x-finess", tenant.as_str())
        .body(body)
        .unwrap()
}

#[tokio::test]
async fn uploads_that_no_service_takes_leave_the_others_of_their_connection_alone() {
    let (gateway, _upstream) = in_front_of(&Tls::default(), "", |connection, _| async move {
        std::future::pending::<Infallible>().await;
        drop(connection);
    });
    let mut application = H2c::connect(gateway.address()).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let mut stuck = JoinSet::new();
    for _ in 0..STUCK {
        let upload = Upload {
            left: MORE_THAN_BUFFERS / PIECE.len(),
            sent: Arc::clone(&sent),
        };
        let uri = format!("http://{}/up/x", gateway.address());
        let request = post(&gateway, &uri, upload.boxed());
        stuck.spawn(application.sender.send_request(request));
    }
    let all_stuck = async {
        let mut before = 0;
        loop {
            tokio::time::sleep(STUCK_AFTER).await;
            let now = sent.load(Ordering::Acquire);
            if now > STUCK && now == before {
                return;
            }
            before = now;
        }
    };
    within(all_stuck).await;
    let body = Bytes::from(vec![7; 1 << 20]);
    let answer = application
        .send(post(&gateway, "/dmp/echo", body.clone()))
        .await;
    assert_eq!(answer.status(), 200);
    assert!(answer.0.body() == &body);
}

/// An application that writes its frames itself.
struct Frames {
    stream: TcpStream,
    ahead: Vec<u8>,
}

impl Frames {
    async fn connect(gateway: &TestGateway) -> Self {
        let stream = TcpStream::connect(gateway.address()).await.unwrap();
        let mut frames = Self {
            stream,
            ahead: Vec::new(),
        };
        frames.write(PREFACE).await;
        frames.write(&frame(SETTINGS, 0, 0, &[])).await;
        frames
    }

    async fn write(&mut self, bytes: &[u8]) {
        within(self.stream.write_all(bytes)).await.unwrap();
    }

    /// The next frame, which must not be the end of the connection or of a stream: its kind, flags, stream, payload.
    async fn next(&mut self) -> (u8, u8, u32, Vec<u8>) {
        loop {
            if let Some(frame) = take(&mut self.ahead) {
                assert!(!matches!(frame.0, GOAWAY | RST_STREAM), "{frame:?}");
                return frame;
            }
            let read = within(self.stream.read_buf(&mut self.ahead)).await.unwrap();
            assert_ne!(read, 0, "the connection is closed");
        }
    }
}

#[tokio::test]
async fn thousands_of_small_pieces_that_no_service_takes_yet_leave_the_connection_alone() {
    let (gateway, _upstream) = start_on(1, &[Stand::new("dmp")], |_, text| {
        // It says nothing, and so the request waits for a handshake.
        let upstream = Upstream::mute();
        text.push_str(&upstream.service("up", ""));
        upstream
    });
    let mut application = Frames::connect(&gateway).await;
    application
        .write(&gateway.head_frame(1, "POST", "/up/x", END_HEADERS))
        .await;
    application
        .write(&frame(DATA, 0, 1, &[b'x'; 20]).repeat(3000))
        .await;
    application
        .write(&gateway.head_frame(3, "GET", "/dmp/x", END_HEADERS | END_STREAM))
        .await;
    loop {
        if let (HEADERS, _, 3, _) = application.next().await {
            break;
        }
    }
}

#[tokio::test]
async fn a_stream_of_small_messages_goes_on_for_who_acknowledges_each() {
    const MESSAGES: usize = 5000;
    let (gateway, _upstream) = in_front_of(&Tls::default(), "", |mut connection, _| async move {
        connection.head().await;
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        connection.write(head).await;
        let message = "19\r\ntwenty-five bytes of news\r\n";
        for _ in 0..MESSAGES / 10 {
            connection.write(message.repeat(10)).await;
        }
        connection.write("0\r\n\r\n").await;
        connection.rest().await;
    });
    let mut application = Frames::connect(&gateway).await;
    application
        .write(&gateway.head_frame(1, "GET", "/up/x", END_HEADERS | END_STREAM))
        .await;
    let mut left = 25 * MESSAGES;
    while left > 0 {
        let (DATA, _, _, payload) = application.next().await else {
            continue;
        };
        left -= payload.len();
        let taken = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let acknowledged = [
            frame(WINDOW_UPDATE, 0, 0, &taken),
            frame(WINDOW_UPDATE, 0, 1, &taken),
            // How long that takes (gRPC's bandwidth estimation).
            frame(PING, 0, 0, b"relais!!"),
        ];
        application.write(&acknowledged.concat()).await;
    }
}
