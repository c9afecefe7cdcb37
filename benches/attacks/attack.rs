//! What attackers send in bulk, and what a caller that does nothing wrong notices of it. Run by benches/attacks/run.sh.
//!
//! Starts a gateway as a process of its own in front of a simulated service. For each attack, a few connections ask one
//! request after the other: before it, while another gateway is attacked, and during it; their latencies are compared,
//! and what the gateway's process holds.
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a measuring program may panic, and its crate has no other crate to be reached from"
)]

#[allow(dead_code, reason = "tests use the rest")]
#[path = "../../tests/support/frames.rs"]
mod frames;

mod caller;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use relais::simulator::site::{Ports, Site, Stand};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use caller::{measure, percentile};
use frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, block, frame,
};

#[derive(Parser)]
#[command(about = "Attacks a gateway while a plain caller is measured")]
struct Args {
    /// The gateway's program.
    #[arg(long, default_value = "target/release/relais")]
    relais: PathBuf,
    /// Which attacks; all by default.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Attack>,
    /// Seconds that the plain caller is measured, before and during each attack.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Connections of slowloris.
    #[arg(long, default_value_t = 5000)]
    connections: usize,
    /// Streams that are opened and reset.
    #[arg(long, default_value_t = 100_000)]
    streams: u64,
    /// Connections that flood.
    #[arg(long, default_value_t = 4)]
    floods: usize,
    /// Connections of the plain caller.
    #[arg(long, default_value_t = 4)]
    callers: usize,
    /// Microseconds that each of them waits between two requests.
    #[arg(long, default_value_t = 2000)]
    pause: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Attack {
    /// Heads that never end, a byte a second.
    Slowloris,
    /// Streams reset by the client as soon as they are opened (CVE-2023-44487).
    RapidReset,
    /// Streams that the server is made to reset (CVE-2025-8671).
    MadeYouReset,
    /// A head of HTTP/2 without end.
    Continuation,
    /// SETTINGS, each of which is to be acknowledged.
    Settings,
    /// PING, likewise.
    Ping,
    /// DATA without data.
    EmptyData,
}

/// Until an attack is in full swing.
const FULL_SWING: Duration = Duration::from_millis(500);

/// What is closed by then was not kept.
const CLOSES_WITHIN: Duration = Duration::from_secs(7);

/// The gateway's process; killed at the end.
struct Gateway(Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Gateway {
    fn resident(&self) -> f64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.0.id())).unwrap();
        let pages: f64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
        pages * 4096.0 / f64::from(1 << 20)
    }

    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.0.id()))
            .unwrap()
            .count()
    }
}

/// What an attack has to know, and tells.
struct Target {
    address: SocketAddr,
    tenant: String,
    is_over: AtomicBool,
    /// Connections opened, and streams or frames sent.
    connections: AtomicU64,
    sent: AtomicU64,
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn opening() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

fn head(tenant: &str, stream: u32, method: &str, flags: u8) -> Vec<u8> {
    let path = if method == "POST" {
        "/dmp/echo"
    } else {
        "/dmp/x"
    };
    let fields = [
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("x-finess", tenant),
    ];
    frame(HEADERS, flags, stream, &block(&fields))
}

/// A connection that sends without reading much: what comes is thrown away, so that the gateway is not slowed by it.
async fn connect(target: &Target) -> Option<tokio::net::tcp::OwnedWriteHalf> {
    let stream = TcpStream::connect(target.address).await.ok()?;
    target.connections.fetch_add(1, Ordering::Relaxed);
    let (mut read, write) = stream.into_split();
    tokio::spawn(async move { tokio::io::copy(&mut read, &mut tokio::io::sink()).await });
    Some(write)
}

/// Heads that never end. A connection that was closed is opened again.
async fn drip(target: Arc<Target>) {
    while !target.is_over.load(Ordering::Relaxed) {
        let Some(mut stream) = connect(&target).await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let _ = stream
            .write_all(b"GET /dmp/x HTTP/1.1\r\nhost: localhost\r\nx-slow: ")
            .await;
        while !target.is_over.load(Ordering::Relaxed) && stream.write_all(b"x").await.is_ok() {
            target.sent.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// Streams, each of which is ended by what `end` makes for it: for as long as the attack lasts, and that many at least.
async fn streams(target: Arc<Target>, most: u64, end: fn(u32) -> Vec<u8>) {
    let goes_on =
        || !target.is_over.load(Ordering::Relaxed) || target.sent.load(Ordering::Relaxed) < most;
    while goes_on() {
        let Some(mut stream) = connect(&target).await else {
            return;
        };
        if stream.write_all(&opening()).await.is_err() {
            continue;
        }
        for number in 0..1 << 20 {
            let id = 2 * number + 1;
            let bytes = [
                head(&target.tenant, id, "GET", END_HEADERS | END_STREAM),
                end(id),
            ]
            .concat();
            target.sent.fetch_add(1, Ordering::Relaxed);
            if !goes_on() || stream.write_all(&bytes).await.is_err() {
                break;
            }
        }
    }
}

/// One frame again and again. A connection that was closed is opened again.
async fn flood(target: Arc<Target>, beginning: Vec<u8>, piece: Vec<u8>) {
    let count = (16 << 10) / piece.len() + 1;
    let pieces = piece.repeat(count);
    while !target.is_over.load(Ordering::Relaxed) {
        let Some(mut stream) = connect(&target).await else {
            return;
        };
        let _ = stream
            .write_all(&[opening(), beginning.clone()].concat())
            .await;
        while !target.is_over.load(Ordering::Relaxed) && stream.write_all(&pieces).await.is_ok() {
            target.sent.fetch_add(count as u64, Ordering::Relaxed);
        }
    }
}

/// Attacks on a thread of its own, until it is over.
fn attack(kind: Attack, target: &Arc<Target>, args: &Args) -> thread::JoinHandle<()> {
    let (target, most) = (Arc::clone(target), args.streams);
    let count = match kind {
        Attack::Slowloris => args.connections,
        _ => args.floods,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    thread::spawn(move || {
        runtime.block_on(async {
            let mut attackers = JoinSet::new();
            for _ in 0..count {
                let target = Arc::clone(&target);
                let begun = |method, flags| head(&target.tenant, 1, method, flags);
                let large = block(&[("x-large", "y".repeat(8000))]);
                match kind {
                    Attack::Slowloris => attackers.spawn(drip(target)),
                    Attack::RapidReset => attackers.spawn(streams(target, most, |stream| {
                        frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])
                    })),
                    Attack::MadeYouReset => attackers.spawn(streams(target, most, |stream| {
                        frame(WINDOW_UPDATE, 0, stream, &[0; 4])
                    })),
                    Attack::Continuation => {
                        let begun = begun("GET", END_STREAM);
                        attackers.spawn(flood(target, begun, frame(CONTINUATION, 0, 1, &large)))
                    }
                    Attack::Settings => {
                        let piece = frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]);
                        attackers.spawn(flood(target, Vec::new(), piece))
                    }
                    Attack::Ping => {
                        let piece = frame(PING, 0, 0, b"relais!!");
                        attackers.spawn(flood(target, Vec::new(), piece))
                    }
                    Attack::EmptyData => {
                        let begun = begun("POST", END_HEADERS);
                        attackers.spawn(flood(target, begun, frame(DATA, 0, 1, &[])))
                    }
                };
            }
            while attackers.join_next().await.is_some() {}
        });
    })
}

/// Starts a gateway, and waits until it listens.
async fn start(args: &Args, configuration: &Path, port: u16) -> (Gateway, SocketAddr) {
    let log = std::fs::File::create(configuration.with_extension("log")).unwrap();
    let mut command = Command::new(&args.relais);
    command.args(["serve", "--config"]).arg(configuration);
    command.stdout(Stdio::null()).stderr(log);
    let gateway = Gateway(command.spawn().expect("the gateway's program starts"));
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let begun = Instant::now();
    while TcpStream::connect(address).await.is_err() {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "the gateway does not listen"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (gateway, address)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args = Args::parse();
    let directory = tempfile::tempdir().unwrap();
    let ports = Ports {
        data: free_port(),
        admin: free_port(),
    };
    let site = Site::build(directory.path(), 1, &[Stand::new("dmp")], ports).unwrap();
    let (gateway, address) = start(&args, &site.configuration, ports.data).await;
    // Another, which is attacked in its place: what the caller of this one notices of that, the shared cores are to
    // blame for.
    let other_ports = [free_port(), free_port()];
    let text = std::fs::read_to_string(&site.configuration).unwrap();
    let text = text
        .replace(&ports.data.to_string(), &other_ports[0].to_string())
        .replace(&ports.admin.to_string(), &other_ports[1].to_string())
        .replace("access.log", "other-access.log");
    let other_configuration = directory.path().join("other.toml");
    std::fs::write(&other_configuration, text).unwrap();
    let (_other, other_address) = start(&args, &other_configuration, other_ports[0]).await;

    let all = Attack::value_variants();
    let chosen = if args.only.is_empty() {
        all
    } else {
        &args.only
    };
    println!(
        "| attack | connections | sent | requests before | during | failed | p50 before, ms | during | p99 before, ms | \
         another attacked | during | ratio to before | to another attacked | RSS before, MiB | most | after | \
         descriptors before | most | after |"
    );
    println!("|---|{}", "---:|".repeat(18));
    for kind in chosen {
        let target = |address| {
            Arc::new(Target {
                address,
                tenant: site.tenants[0].to_string(),
                is_over: AtomicBool::new(false),
                connections: AtomicU64::new(0),
                sent: AtomicU64::new(0),
            })
        };
        let (target, other) = (target(address), target(other_address));
        // Connections, sessions and buffers as they are in use.
        measure(
            &target,
            &Args {
                seconds: 1,
                ..Args::parse()
            },
        )
        .await;
        let (before, failed_before) = measure(&target, &args).await;
        let attacking = attack(*kind, &other, &args);
        tokio::time::sleep(FULL_SWING).await;
        let (beside, failed_beside) = measure(&target, &args).await;
        other.is_over.store(true, Ordering::Relaxed);
        attacking.join().unwrap();
        tokio::time::sleep(CLOSES_WITHIN).await;
        let held = (gateway.resident(), gateway.descriptors());
        let attacking = attack(*kind, &target, &args);
        tokio::time::sleep(FULL_SWING).await;
        let (during, failed) = measure(&target, &args).await;
        let most = (gateway.resident(), gateway.descriptors());
        target.is_over.store(true, Ordering::Relaxed);
        attacking.join().unwrap();
        tokio::time::sleep(CLOSES_WITHIN).await;
        let after = (gateway.resident(), gateway.descriptors());
        let [calm, shared, stormy] = [&before, &beside, &during].map(|took| percentile(took, 0.99));
        println!(
            "| {} | {} | {} | {} | {} | {} | {:.2} | {:.2} | {calm:.2} | {shared:.2} | {stormy:.2} | {:.1} | {:.1} | {:.0} | {:.0} | {:.0} | {} | {} | {} |",
            kind.to_possible_value().unwrap().get_name(),
            target.connections.load(Ordering::Relaxed),
            target.sent.load(Ordering::Relaxed),
            before.len(),
            during.len(),
            failed_before + failed_beside + failed,
            percentile(&before, 0.5),
            percentile(&during, 0.5),
            stormy / calm,
            stormy / shared,
            held.0,
            most.0,
            after.0,
            held.1,
            most.1,
            after.1,
        );
    }
}
