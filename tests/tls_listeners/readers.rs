//! T15: who takes answers slowly, or not at all. TLS takes an answer's bytes that the socket does not, so that nothing
//! seems to wait.

use std::time::{Duration, Instant};

use super::*;
use support::frames::{
    DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, WINDOW_UPDATE, block, frame, take,
};
use support::upstream::{Connection, Tls, Upstream};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;

const PIECE: &[u8] = &[b'x'; 16 << 10];

/// A gateway that waits for a second, its listener with TLS, and behind it a service whose answers have that length.
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
        text.push_str("\n[limits]\nhead_timeout = \"1s\"\n");
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

/// Opens a connection of that protocol whose end has little room for what it does not read at once.
async fn narrow(gateway: &TestGateway, address: SocketAddr, alpn: &str) -> TlsStream<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let tcp = within(socket.connect(address)).await.unwrap();
    let config = application_config(&gateway.site.pki, BOTH, &[alpn], None);
    let name = ServerName::try_from(NAME).unwrap();
    within(TlsConnector::from(config).connect(name, tcp))
        .await
        .unwrap()
}

/// A GET of `/up/x` for the first tenant. Over HTTP/2 with leave to answer with as much as there is.
fn request(gateway: &TestGateway, alpn: &str) -> Vec<u8> {
    if alpn != "h2" {
        let request = gateway.get_bytes("/up/x");
        return request.replace("localhost", NAME).into();
    }
    let tenant = gateway.tenant(0);
    let fields = [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/up/x"),
        (":authority", NAME),
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

/// How much of an answer's body is in what was read, and takes it out. Over HTTP/1.1 all but the head is.
fn body_in(ahead: &mut Vec<u8>, alpn: &str, of_head: &mut bool) -> usize {
    if alpn == "h2" {
        let frames = std::iter::from_fn(|| take(ahead));
        return frames
            .filter(|(kind, ..)| *kind == DATA)
            .map(|(.., payload)| payload.len())
            .sum();
    }
    if *of_head {
        let Some(end) = ahead.windows(4).position(|four| four == b"\r\n\r\n") else {
            return 0;
        };
        ahead.drain(..end + 4);
        *of_head = false;
    }
    std::mem::take(ahead).len()
}

#[tokio::test]
async fn a_long_answer_arrives_whole_at_whoever_takes_it_steadily() {
    const LENGTH: usize = 12 << 20;
    /// Bytes that are taken in a second: three times as long as an application is waited for.
    const PACE: f64 = LENGTH as f64 / 3.0;
    let (gateway, address, _upstream) = answering(LENGTH);
    for alpn in ["http/1.1", "h2"] {
        let mut stream = narrow(&gateway, address, alpn).await;
        let request = request(&gateway, alpn);
        within(stream.write_all(&request)).await.unwrap();
        let begun = Instant::now();
        let (mut taken, mut ahead, mut of_head) = (0, Vec::new(), true);
        while taken < LENGTH {
            let mut piece = [0; 16 << 10];
            let read = within(stream.read(&mut piece)).await;
            let Ok(length @ 1..) = read else {
                panic!(
                    "{alpn}: {read:?} after {taken} of {LENGTH}, {:?}",
                    begun.elapsed()
                );
            };
            ahead.extend_from_slice(&piece[..length]);
            taken += body_in(&mut ahead, alpn, &mut of_head);
            let due = Duration::from_secs_f64(taken as f64 / PACE);
            tokio::time::sleep(due.saturating_sub(begun.elapsed())).await;
        }
        assert!(begun.elapsed() > Duration::from_secs(2), "in no hurry");
    }
}

#[tokio::test]
async fn an_application_that_takes_no_answer_is_cut_off_over_tls_too() {
    let (gateway, address, _upstream) = answering(64 << 20);
    for alpn in ["http/1.1", "h2"] {
        let mut stream = narrow(&gateway, address, alpn).await;
        let request = request(&gateway, alpn);
        within(stream.write_all(&request)).await.unwrap();
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
