//! T15: who takes answers slowly, or not at all. TLS takes an answer's bytes that the socket does not, so that nothing
//! seems to wait; and a socket is no sooner ready for more than much of what it holds has been taken.

use std::time::{Duration, Instant};

use super::*;
use support::frames::{
    DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, WINDOW_UPDATE, block, frame, take,
};
use support::upstream::{Connection, Tls, Upstream};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

const PIECE: &[u8] = &[b'x'; 16 << 10];

/// A gateway that waits for two seconds, its listener with TLS, and behind it a service whose answers have that length.
fn answering(length: usize) -> (TestGateway, SocketAddr, Upstream) {
    let (gateway, upstream) = start_on(1, &[Stand::new("dmp")], |site, text| {
        let upstream = Upstream::start(&site.pki, &Tls::default(), move |connection, _| {
            in_pieces(connection, length)
        });
        let folder = site.directory.clone();
        put_server(&folder, &server(&site.pki, &[NAME]));
        let listener = "[[listeners]]\naddress = \"127.0.0.1:0\"\n[listeners.tls]\ncertificate = \"relais.pem\"\n\
                        key = \"relais.key\"\n\n[identities]";
        *text = text.replacen("[identities]", listener, 1);
        text.push_str(&upstream.service("up", ""));
        text.push_str("\n[limits]\nhead_timeout = \"2s\"\n");
        upstream
    });
    let ListenAddress::Tcp(address) = gateway.addresses[1] else {
        panic!("a TCP listener")
    };
    (gateway, address, upstream)
}

/// Answers somewhat faster than is read, in pieces that TLS still takes when the socket is full for the first time: what
/// is waited for then is a flush, and afterwards writes alone.
async fn in_pieces(mut connection: Connection, length: usize) {
    while connection.head().await.is_some() {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
        connection.write(head).await;
        for _ in 0..length / PIECE.len() {
            connection.write(PIECE).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// A way in which an application may reach the gateway.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    Clear(Http),
    Tls(Http),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Http {
    One,
    Two,
}

const WAYS: [Way; 4] = [
    Way::Clear(Http::One),
    Way::Clear(Http::Two),
    Way::Tls(Http::One),
    Way::Tls(Http::Two),
];

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Wire for S {}

/// An application that asks for `/up/x` and takes what it is told to take.
struct Reader {
    way: Way,
    wire: Box<dyn Wire>,
    ahead: Vec<u8>,
    of_head: bool,
    /// Bytes of the body so far.
    taken: usize,
    begun: Instant,
}

impl Reader {
    /// Asks over a connection whose end has little room for what it does not read at once.
    async fn begin(gateway: &TestGateway, secured: SocketAddr, way: Way) -> Self {
        let (address, http) = match way {
            Way::Clear(http) => (gateway.address(), http),
            Way::Tls(http) => (secured, http),
        };
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 << 10).unwrap();
        let tcp = within(socket.connect(address)).await.unwrap();
        let mut wire: Box<dyn Wire> = match way {
            Way::Clear(_) => Box::new(tcp),
            Way::Tls(http) => {
                let alpn = match http {
                    Http::One => "http/1.1",
                    Http::Two => "h2",
                };
                let config = application_config(&gateway.site.pki, BOTH, &[alpn], None);
                let name = ServerName::try_from(NAME).unwrap();
                let shaking = TlsConnector::from(config).connect(name, tcp);
                Box::new(within(shaking).await.unwrap())
            }
        };
        let request = request(gateway, way, http);
        within(wire.write_all(&request)).await.unwrap();
        Self {
            way,
            wire,
            ahead: Vec::new(),
            of_head: http == Http::One,
            taken: 0,
            begun: Instant::now(),
        }
    }

    /// Takes so much of the body, and no more than so many bytes a second.
    async fn take(&mut self, length: usize, pace: f64) {
        let (begun, before) = (Instant::now(), self.taken);
        while self.taken < before + length {
            let mut piece = [0; 16 << 10];
            let read = within(self.wire.read(&mut piece)).await;
            let Ok(come @ 1..) = read else {
                let (way, taken, elapsed) = (self.way, self.taken, self.begun.elapsed());
                panic!("{way:?}: {read:?} after {taken} bytes and {elapsed:?}");
            };
            self.ahead.extend_from_slice(&piece[..come]);
            self.taken += self.body();
            let due = Duration::from_secs_f64((self.taken - before) as f64 / pace);
            tokio::time::sleep(due.saturating_sub(begun.elapsed())).await;
        }
    }

    /// How much of the body is in what was read, and takes it out.
    fn body(&mut self) -> usize {
        if let Way::Clear(Http::Two) | Way::Tls(Http::Two) = self.way {
            let frames = std::iter::from_fn(|| take(&mut self.ahead));
            let data = frames.filter(|(kind, ..)| *kind == DATA);
            return data.map(|(.., payload)| payload.len()).sum();
        }
        if self.of_head {
            let end = self.ahead.windows(4).position(|four| four == b"\r\n\r\n");
            let Some(end) = end else {
                return 0;
            };
            self.ahead.drain(..end + 4);
            self.of_head = false;
        }
        std::mem::take(&mut self.ahead).len()
    }
}

/// A GET for the first tenant. Over HTTP/2 with leave to answer with as much as there is.
fn request(gateway: &TestGateway, way: Way, http: Http) -> Vec<u8> {
    let (scheme, host) = match way {
        Way::Clear(_) => ("http", "localhost"),
        Way::Tls(_) => ("https", NAME),
    };
    if http == Http::One {
        let request = gateway.get_bytes("/up/x");
        return request.replace("localhost", host).into();
    }
    let tenant = gateway.tenant(0);
    let fields = [
        (":method", "GET"),
        (":scheme", scheme),
        (":path", "/up/x"),
        (":authority", host),
        ("x-finess", tenant.as_str()),
    ];
    [
        PREFACE,
        &frame(SETTINGS, 0, 0, &[0, 4, 127, 255, 255, 255]),
        &frame(WINDOW_UPDATE, 0, 0, &[127, 0, 0, 0]),
        &frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields)),
    ]
    .concat()
}

/// Has applications of all kinds read at once.
async fn in_all_ways<Read>(length: usize, read: impl Fn(Reader) -> Read)
where
    Read: Future<Output = ()> + Send + 'static,
{
    let (gateway, address, _upstream) = answering(length);
    let mut readers = JoinSet::new();
    for way in WAYS {
        readers.spawn(read(Reader::begin(&gateway, address, way).await));
    }
    readers.join_all().await;
}

#[tokio::test]
async fn a_long_answer_arrives_whole_at_whoever_takes_it_steadily() {
    const LENGTH: usize = 6 << 20;
    // All in all this takes longer than an application is waited for.
    in_all_ways(LENGTH, |mut reader| async move {
        reader.take(LENGTH, LENGTH as f64 / 3.0).await;
    })
    .await;
}

#[tokio::test]
async fn who_takes_a_little_all_the_time_is_waited_for() {
    const LENGTH: usize = 12 << 20;
    const RATE: usize = 256 << 10;
    in_all_ways(LENGTH, |mut reader| async move {
        // In this time not a third of what a socket may hold.
        reader.take(5 * RATE, RATE as f64).await;
        reader.take(LENGTH - reader.taken, f64::INFINITY).await;
    })
    .await;
}

#[tokio::test]
async fn an_application_that_takes_no_answer_is_cut_off() {
    let (gateway, address, _upstream) = answering(64 << 20);
    for way in WAYS {
        let _reader = Reader::begin(&gateway, address, way).await;
        eventually("it is served", || {
            gateway.metric("relais_inbound_connections", &[]) == 1.0
        })
        .await;
        eventually("the connection is given up", || {
            gateway.metric("relais_inbound_connections", &[]) == 0.0
        })
        .await;
    }
}
