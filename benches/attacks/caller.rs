//! The plain caller, whom an attack should not concern.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{Args, Target};

/// The plain caller: latencies of all its requests, sorted, and how many failed.
pub async fn measure(target: &Target, args: &Args) -> (Vec<Duration>, usize) {
    let until = Instant::now() + Duration::from_secs(args.seconds);
    let mut callers = JoinSet::new();
    for _ in 0..args.callers {
        let (address, pause) = (target.address, Duration::from_micros(args.pause));
        let request = format!(
            "GET /dmp/x HTTP/1.1\r\nhost: localhost\r\nx-finess: {}\r\n\r\n",
            target.tenant
        );
        callers.spawn(async move {
            let (mut took, mut failed) = (Vec::new(), 0);
            let mut open = None;
            while Instant::now() < until {
                let begun = Instant::now();
                let mut stream = match open.take() {
                    Some(stream) => stream,
                    None => TcpStream::connect(address).await.unwrap(),
                };
                if exchange(&mut stream, request.as_bytes()).await.is_some() {
                    open = Some(stream);
                } else {
                    failed += 1;
                }
                took.push(begun.elapsed());
                tokio::time::sleep(pause).await;
            }
            (took, failed)
        });
    }
    let (mut took, mut failed) = (Vec::new(), 0);
    for (one, missed) in callers.join_all().await {
        took.extend(one);
        failed += missed;
    }
    took.sort();
    (took, failed)
}

/// One request, and its answer read to the end.
async fn exchange(stream: &mut TcpStream, request: &[u8]) -> Option<()> {
    stream.write_all(request).await.ok()?;
    let mut answer = Vec::new();
    let mut piece = [0; 8192];
    loop {
        let length = stream.read(&mut piece).await.ok()?;
        if length == 0 {
            return None;
        }
        answer.extend_from_slice(&piece[..length]);
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let head = head.to_ascii_lowercase();
        let announced = head.split("content-length: ").nth(1)?;
        let announced: usize = announced.lines().next()?.parse().ok()?;
        if body.len() >= announced {
            return head.starts_with("http/1.1 200").then_some(());
        }
    }
}

/// The latency, in milliseconds, that so large a share of requests stays below.
pub fn percentile(took: &[Duration], share: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a place in a list"
    )]
    let place = (took.len() as f64 * share) as usize;
    let at = took.get(place.min(took.len().saturating_sub(1)));
    at.map_or(f64::NAN, |took| took.as_secs_f64() * 1000.0)
}
