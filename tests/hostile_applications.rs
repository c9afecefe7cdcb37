//! Applications that mean harm: they are dropped, or wait for themselves alone. In small; the figures are those of
//! benches/attacks/run.sh.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use relais::simulator::site::Stand;
use support::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, block, frame, take,
};
use support::raw::Raw;
use support::upstream::{Tls, Upstream, serve_h2};
use support::{TestGateway, eventually, in_front_of, start, start_on, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Patience with applications that a test can wait for.
const IMPATIENT: &str = "\n[limits]\nhead_timeout = \"500ms\"\n";

/// Memory that no attack of this size may cost: what all of them send together is more.
const GROWTH_AT_MOST: usize = 256 << 20;

fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = pages.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// Everybody else is served meanwhile, on every worker.
async fn others_are_served(gateway: &TestGateway) {
    for _ in 0..4 {
        let answer = gateway.get(gateway.tenant(0), "/dmp/x").await;
        assert_eq!(answer.status(), 200, "{answer:?}");
    }
}

const WHOLE: u8 = END_HEADERS | END_STREAM;

fn opening(settings: &[u8]) -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, settings)].concat()
}

/// Sends without reading, and tells how many bytes were taken before nobody took them.
async fn pour(address: SocketAddr, bytes: Vec<u8>, again: usize) -> (TcpStream, usize, bool) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut taken = 0;
    for _ in 0..again {
        let sent = tokio::time::timeout(support::DEADLINE, stream.write_all(&bytes)).await;
        if !matches!(sent, Ok(Ok(()))) {
            return (stream, taken, false);
        }
        taken += bytes.len();
    }
    (stream, taken, true)
}

/// Reads until the gateway closes: the kinds of frames that came, and the reason of a GOAWAY.
async fn frames(mut stream: TcpStream) -> (Vec<u8>, Option<u32>) {
    let (mut ahead, mut piece) = (Vec::new(), [0; 16 << 10]);
    let (mut kinds, mut reason) = (Vec::new(), None);
    while let Ok(length @ 1..) = within(stream.read(&mut piece)).await {
        ahead.extend_from_slice(&piece[..length]);
        while let Some((kind, _, _, payload)) = take(&mut ahead) {
            kinds.push(kind);
            if kind == GOAWAY {
                reason = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
            }
        }
    }
    (kinds, reason)
}

#[tokio::test]
async fn heads_that_never_end_keep_their_connections_for_a_while_and_nobody_elses() {
    // As many as may be open at all, and as many again.
    let limits = "\n[limits]\nhead_timeout = \"500ms\"\ninbound_connections = 40\n";
    let gateway = start(1, &[Stand::new("dmp")], limits);
    let mut slow = JoinSet::new();
    for _ in 0..80 {
        let address = gateway.address();
        slow.spawn(async move {
            let mut raw = Raw::connect(address).await;
            for byte in b"GET /dmp/x HTTP/1.1\r\nhost: localhost\r\nx-slow: "
                .iter()
                .cycle()
            {
                // A byte at a time: always something new, and never a head.
                if raw.stream.write_all(&[*byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }
    others_are_served(&gateway).await;
    within(async { while slow.join_next().await.is_some() {} }).await;
    others_are_served(&gateway).await;
}

#[tokio::test]
async fn bodies_that_drip_take_a_connection_each_and_no_more() {
    let (gateway, upstream) = in_front_of(
        &Tls::default(),
        "pool.max_connections = 2\ntimeouts.body = \"300ms\"",
        |mut connection, _| async move {
            connection.head().await;
            connection.rest().await;
        },
    );
    let mut slow = JoinSet::new();
    for _ in 0..10 {
        let (address, head) = (
            gateway.address(),
            gateway.post_bytes("/up/x", "content-length: 99"),
        );
        slow.spawn(async move {
            let mut raw = Raw::connect(address).await;
            raw.write(head + "x").await;
            raw.answer(false).await.unwrap().status
        });
    }
    others_are_served(&gateway).await;
    for status in within(slow.join_all()).await {
        assert!(matches!(status, 408 | 503 | 504), "{status}");
    }
    assert!(upstream.most_open() <= 2, "{}", upstream.most_open());
    eventually("all are left", || upstream.open() == 0).await;
}

#[tokio::test]
async fn connections_that_say_nothing_are_closed_over_http_1() {
    let limits = "\n[limits]\nhead_timeout = \"500ms\"\ninbound_connections = 20\n";
    let gateway = start(1, &[Stand::new("dmp")], limits);
    let mut idle = Vec::new();
    for _ in 0..20 {
        let mut raw = Raw::connect(gateway.address()).await;
        raw.write(gateway.get_bytes("/dmp/x")).await;
        idle.push(raw);
    }
    for raw in &mut idle {
        assert_eq!(raw.answer(false).await.unwrap().status, 200);
    }
    // All places are taken; they come free without anybody's doing.
    others_are_served(&gateway).await;
    for mut raw in idle {
        assert_eq!(raw.rest().await, b"");
    }
}

#[tokio::test]
async fn rapid_resets_end_the_connection_and_reach_the_service_in_bounds() {
    // CVE-2023-44487.
    let begun = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&begun);
    let (gateway, upstream) = in_front_of(&Tls::h2(), IMPATIENT, move |connection, _| {
        let counted = Arc::clone(&counted);
        serve_h2(connection, 100, move |_| {
            counted.fetch_add(1, Ordering::AcqRel);
            std::future::pending::<Response<Full<Bytes>>>()
        })
    });
    let mut bytes = opening(&[]);
    let count = 5000;
    for number in 0..count {
        let stream = 2 * number + 1;
        bytes.extend(gateway.head_frame(stream, "GET", "/up/x", WHOLE));
        bytes.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
    }
    let (stream, _, _) = pour(gateway.address(), bytes, 1).await;
    others_are_served(&gateway).await;
    let (_, reason) = frames(stream).await;
    // ENHANCE_YOUR_CALM, unless the connection was reset with what it had not read.
    assert!(matches!(reason, None | Some(11)), "{reason:?}");
    assert!(begun.load(Ordering::Acquire) < count as usize / 2);
    assert!(upstream.most_open() <= 64);
    others_are_served(&gateway).await;
}

#[tokio::test]
async fn resets_that_are_provoked_end_the_connection() {
    // CVE-2025-8671: it is the server that resets, and so a limit on what the client resets does not count them.
    let gateway = start(1, &[Stand::new("dmp")], IMPATIENT);
    for (name, provoked) in [
        ("an increment of 0", |stream| {
            frame(WINDOW_UPDATE, 0, stream, &[0; 4])
        }),
        ("a window that overflows", |stream| {
            frame(WINDOW_UPDATE, 0, stream, &[127, 255, 255, 255])
        }),
        ("DATA after the end", |stream| frame(DATA, 0, stream, b"x")),
    ] as [(&str, fn(u32) -> Vec<u8>); 3]
    {
        let mut bytes = opening(&[]);
        for number in 0..5000 {
            let stream = 2 * number + 1;
            bytes.extend(gateway.head_frame(stream, "GET", "/dmp/x", WHOLE));
            bytes.extend(provoked(stream));
        }
        let (stream, _, _) = pour(gateway.address(), bytes, 1).await;
        others_are_served(&gateway).await;
        let (_, reason) = frames(stream).await;
        assert_ne!(reason, Some(0), "{name}");
        others_are_served(&gateway).await;
    }
}

#[tokio::test]
async fn floods_over_http_2_are_cut_off_and_cost_little() {
    let gateway = start(1, &[Stand::new("dmp")], IMPATIENT);
    let large = block(&[("x-large", "y".repeat(8000))]);
    let post = gateway.head_frame(1, "POST", "/dmp/echo", END_HEADERS);
    let begun = gateway.head_frame(1, "GET", "/dmp/x", END_STREAM);
    let floods = [
        (
            "CONTINUATION",
            begun.clone(),
            frame(CONTINUATION, 0, 1, &large),
        ),
        ("empty CONTINUATION", begun, frame(CONTINUATION, 0, 1, &[])),
        (
            "SETTINGS",
            vec![],
            frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]),
        ),
        ("SETTINGS ACK", vec![], frame(SETTINGS, ACK, 0, &[])),
        ("PING", vec![], frame(PING, 0, 0, b"relais!!")),
        ("empty DATA", post.clone(), frame(DATA, 0, 1, &[])),
        ("padding", post, frame(DATA, 8, 1, &[255; 256])),
        (
            "WINDOW_UPDATE",
            vec![],
            frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        ),
        ("unknown frames", vec![], frame(77, 0, 1, &[0; 100])),
        ("PRIORITY", vec![], frame(2, 0, 1, &[0, 0, 0, 3, 7])),
        (
            "trailers",
            gateway.head_frame(1, "GET", "/dmp/x", WHOLE),
            frame(HEADERS, WHOLE, 1, &large),
        ),
    ];
    let before = resident();
    for (name, beginning, piece) in floods {
        let address = gateway.address();
        let flood = tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let _ = stream.write_all(&[opening(&[]), beginning].concat()).await;
            let piece = piece.repeat((16 << 10) / piece.len() + 1);
            let mut taken = 0;
            while stream.write_all(&piece).await.is_ok() {
                taken += piece.len();
            }
            taken
        });
        others_are_served(&gateway).await;
        let taken = within(flood).await.unwrap();
        // What lies in the sockets' buffers counts for taken.
        assert!(taken < 16 << 20, "{name}: {taken} bytes");
        others_are_served(&gateway).await;
        let grown = resident().saturating_sub(before);
        assert!(grown < GROWTH_AT_MOST, "{name}: {grown} bytes");
    }
}

#[tokio::test]
async fn bodies_that_come_byte_by_byte_and_that_nobody_takes_are_cut_off_before_they_cost_much() {
    // The gateway keeps what no service takes yet, each piece for itself.
    let (gateway, _upstream) = start_on(1, &[Stand::new("dmp")], |_, text| {
        let upstream = Upstream::mute();
        text.push_str(&upstream.service("up", ""));
        upstream
    });
    let before = resident();
    let mut connections = Vec::new();
    for _ in 0..10 {
        let mut bytes = opening(&[]);
        bytes.extend(frame(SETTINGS, ACK, 0, &[]));
        for number in 0..4 {
            let stream = 2 * number + 1;
            bytes.extend(gateway.head_frame(stream, "POST", "/up/x", END_HEADERS));
            bytes.extend(frame(DATA, 0, stream, b"x").repeat(30_000));
        }
        connections.push(pour(gateway.address(), bytes, 1).await);
    }
    others_are_served(&gateway).await;
    let grown = resident().saturating_sub(before);
    assert!(grown < GROWTH_AT_MOST, "{grown} bytes");
    for (stream, ..) in connections {
        let (_, reason) = frames(stream).await;
        // ENHANCE_YOUR_CALM, unless the connection was reset with what it had not read.
        assert!(matches!(reason, None | Some(11)), "{reason:?}");
    }
}

#[tokio::test]
async fn a_head_that_unfolds_to_much_is_refused() {
    // A field of 4 KiB that is sent once, and 16,000 times named by its place in HPACK's table.
    let gateway = start(1, &[Stand::new("dmp")], IMPATIENT);
    let before = resident();
    for _ in 0..20 {
        let mut bomb = vec![0x40];
        let mut field = block(&[("x-bomb", "y".repeat(3900))]);
        bomb.extend(field.drain(1..));
        bomb.extend(std::iter::repeat_n(0x80 | 62, 12_000));
        let fields = block(&[(":method", "GET"), (":scheme", "http"), (":path", "/dmp/x")]);
        let bytes = [
            opening(&[]),
            frame(HEADERS, WHOLE, 1, &[fields, bomb].concat()),
        ]
        .concat();
        let (mut stream, _, _) = pour(gateway.address(), bytes, 1).await;
        // Whatever is said of it, it is said at once.
        let mut piece = [0; 1024];
        within(stream.read(&mut piece)).await.unwrap();
    }
    others_are_served(&gateway).await;
    let grown = resident().saturating_sub(before);
    assert!(grown < GROWTH_AT_MOST, "{grown} bytes");
    let requests = gateway.metric(
        "relais_requests_total",
        &["service=\"dmp\"", "status=\"2xx\""],
    );
    assert_eq!(requests, 4.0);
}

#[tokio::test]
async fn more_streams_than_are_allowed_are_refused() {
    let gateway = start(1, &[Stand::new("dmp")], IMPATIENT);
    let mut bytes = opening(&[]);
    for number in 0..2000 {
        // None of them ends.
        bytes.extend(gateway.head_frame(2 * number + 1, "POST", "/dmp/echo", END_HEADERS));
    }
    let (_stream, _, _) = pour(gateway.address(), bytes, 1).await;
    others_are_served(&gateway).await;
}

#[tokio::test]
async fn an_application_whose_windows_stay_closed_keeps_what_its_own_requests_hold_and_gives_it_back()
 {
    let (gateway, upstream) =
        in_front_of(&Tls::default(), IMPATIENT, |mut connection, _| async move {
            while connection.head().await.is_some() {
                connection.answer(&"x".repeat(1 << 20)).await;
            }
        });
    // SETTINGS_INITIAL_WINDOW_SIZE 0.
    let mut bytes = opening(&[0, 4, 0, 0, 0, 0]);
    for number in 0..10 {
        bytes.extend(gateway.head_frame(2 * number + 1, "GET", "/up/x", WHOLE));
    }
    let (mut stream, _, _) = pour(gateway.address(), bytes, 1).await;
    eventually("it has begun", || upstream.open() > 0).await;
    others_are_served(&gateway).await;
    assert!(upstream.most_open() <= 10);
    // Nothing was read of what it was sent.
    stream.shutdown().await.unwrap();
    drop(stream);
    eventually("the service is left", || upstream.open() == 0).await;
}
