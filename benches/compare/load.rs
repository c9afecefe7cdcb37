//! A load generator that checks identities: which certificate did the upstream see, on every single response.
//!
//! The upstream answers with the `OU` of the client certificate it was shown in one header, and echoes the
//! request's `X-Load-Id` in another: the first tells one tenant's connection used for another's request, the
//! second a response that belongs to another request. Whether a connection's handshake was full or resumed it tells in
//! a third, on the first response of that connection. The result is one line of JSON; the exit code is 0 only if every
//! response was right. `--record` also writes a line for each request: when, how, under which serial number.

mod pace;

use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Error, Result, anyhow, ensure};
use bytes::Bytes;
use bytesize::ByteSize;
use clap::{Parser, ValueEnum};
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::{LocalSet, spawn_local};

use pace::Pace;

/// The response header that tells how the service's connection began: `full` or `resumed`.
const HANDSHAKE: &str = "x-handshake";

#[derive(Parser)]
#[command(
    about = "Loads a gateway with interleaved tenants and checks the identity of every response"
)]
struct Args {
    /// The gateway's address.
    #[arg(long, default_value = "127.0.0.1:8080")]
    target: SocketAddr,
    /// A file of FINESS numbers, one a line.
    #[arg(long)]
    tenants: PathBuf,
    /// Use only so many of them, the first.
    #[arg(long)]
    first: Option<usize>,
    /// In which order tenants follow each other.
    #[arg(long, value_enum, default_value_t = Order::RoundRobin)]
    order: Order,
    /// Connections to the gateway, each with one request at a time.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Stop after so many requests.
    #[arg(long, required_unless_present = "duration")]
    requests: Option<u64>,
    /// Stop after so long, such as `10s`.
    #[arg(long)]
    duration: Option<humantime::Duration>,
    /// Path of each request.
    #[arg(long, default_value = "/dmp/bench")]
    path: String,
    /// Size of each request's body: `0`, `4KiB`… Requests with one are POSTs.
    #[arg(long, default_value = "0")]
    body: ByteSize,
    /// The response header that must be `1` and the tenant's FINESS number.
    #[arg(long, default_value = "x-client-ou")]
    identity_header: HeaderName,
    /// Send so many requests a second, evenly, rather than as many as possible. They are due whether or not those before
    /// them have been answered, and one that is sent late because all connections are busy has its wait counted.
    #[arg(long)]
    rate: Option<u32>,
    /// Write a line for each request to this file: its start and its end (Unix time), how long it took (all in
    /// microseconds), what came of it (`200`, `closed_idle`, `failed`), and the serial number of the certificate that
    /// the upstream saw.
    #[arg(long)]
    record: Option<PathBuf>,
    /// The response header that bears this number.
    #[arg(long, default_value = "x-client-serial")]
    serial_header: HeaderName,
}

#[derive(Clone, Copy, ValueEnum)]
enum Order {
    RoundRobin,
    Random,
}

/// What all connections share; they run on one thread.
struct Load {
    args: Args,
    tenants: Vec<(HeaderValue, HeaderValue)>,
    body: Bytes,
    deadline: Option<Instant>,
    pace: Option<Pace>,
    sent: Cell<u64>,
    random: Cell<u64>,
    tally: RefCell<Tally>,
    record: Option<RefCell<BufWriter<File>>>,
    /// The same moment on both clocks: records are compared with what others have done.
    begun: (Instant, SystemTime),
}

/// What went wrong with a request.
struct Failure {
    /// It was lost with a connection that had served before, and no byte of an answer came. A server may close such a
    /// connection at any time, and a client may repeat a GET that meets with that (RFC 9110, 9.2.2): whether one does
    /// decides whether its user notices.
    closed_idle: bool,
    error: Error,
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self {
            closed_idle: false,
            error: error.into(),
        }
    }
}

#[derive(Default)]
struct Tally {
    /// One entry per response, in microseconds.
    latencies: Vec<u32>,
    failed: u64,
    /// Of those that failed.
    closed_idle: u64,
    wrong_identity: u64,
    wrong_response: u64,
    full_handshakes: u64,
    resumed_handshakes: u64,
    connections_opened: u64,
    first_failure: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let load = Rc::new(Load::new(Args::parse())?);
    let started = Instant::now();
    LocalSet::new()
        .run_until(async {
            let connections: Vec<_> = (0..load.args.connections)
                .map(|_| spawn_local(load.clone().run()))
                .collect();
            for connection in connections {
                connection.await??;
            }
            anyhow::Ok(())
        })
        .await?;
    if let Some(record) = &load.record {
        record.borrow_mut().flush()?;
    }
    let mut tally = load.tally.take();
    println!("{}", tally.report(started.elapsed()));
    Ok(if tally.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl Load {
    fn new(args: Args) -> Result<Self> {
        let list = fs::read_to_string(&args.tenants)
            .with_context(|| format!("cannot read {}", args.tenants.display()))?;
        let tenants = list
            .split_whitespace()
            .take(args.first.unwrap_or(usize::MAX))
            .map(|finess| Ok((finess.try_into()?, format!("1{finess}").try_into()?)))
            .collect::<Result<Vec<_>>>()?;
        ensure!(
            !tenants.is_empty(),
            "no tenant in {}",
            args.tenants.display()
        );
        let begun = (Instant::now(), SystemTime::now());
        Ok(Self {
            tenants,
            body: vec![b'x'; usize::try_from(args.body.as_u64())?].into(),
            deadline: args.duration.map(|duration| begun.0 + *duration),
            pace: args.rate.map(|rate| Pace::start(rate, begun.0)),
            sent: Cell::new(0),
            random: Cell::new(0x9e37_79b9_7f4a_7c15),
            tally: RefCell::default(),
            record: (args.record.as_ref())
                .map(|path| {
                    let file = File::create(path);
                    file.with_context(|| format!("cannot write {}", path.display()))
                })
                .transpose()?
                .map(|file| RefCell::new(BufWriter::new(file))),
            begun,
            args,
        })
    }

    /// One connection: a request after the other until the load is over, on a new connection after each failure.
    async fn run(self: Rc<Self>) -> Result<()> {
        let mut sender = None;
        while let Some(number) = self.next() {
            let due = match &self.pace {
                Some(pace) => pace.due(number).await,
                None => None,
            };
            let (finess, ou) = &self.tenants[self.tenant(number)];
            let started = Instant::now();
            // A request that is sent late, because the one before took long, has waited: that counts.
            let waited = due.map_or(Duration::ZERO, |due| started.duration_since(due));
            let exchanged = self.exchange(&mut sender, number, finess, ou).await;
            let ended = Instant::now();
            let took = waited + (ended - started);
            let (outcome, serial) = match exchanged {
                Ok(serial) => {
                    let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
                    self.tally.borrow_mut().latencies.push(micros);
                    ("200", serial)
                }
                Err(Failure { closed_idle, error }) => {
                    sender = None;
                    let mut tally = self.tally.borrow_mut();
                    tally.failed += 1;
                    tally.closed_idle += u64::from(closed_idle);
                    tally
                        .first_failure
                        .get_or_insert_with(|| format!("{error:#}"));
                    let outcome = if closed_idle { "closed_idle" } else { "failed" };
                    (outcome, None)
                }
            };
            if let Some(record) = &self.record {
                let serial = serial.as_ref().and_then(|serial| serial.to_str().ok());
                writeln!(
                    record.borrow_mut(),
                    "{} {} {} {outcome} {}",
                    self.unix_micros(started)?,
                    self.unix_micros(ended)?,
                    took.as_micros(),
                    serial.unwrap_or("-")
                )?;
            }
        }
        Ok(())
    }

    fn unix_micros(&self, at: Instant) -> Result<u128> {
        let (begun, unix) = self.begun;
        let since = (unix + (at - begun)).duration_since(UNIX_EPOCH)?;
        Ok(since.as_micros())
    }

    /// The number of the next request, unless there is none. At a rate, all that are due before the end are sent, however
    /// late: those that a stall keeps waiting are what is measured.
    fn next(&self) -> Option<u64> {
        let number = self.sent.get();
        let at = (self.pace.as_ref()).map_or_else(Instant::now, |pace| pace.at(number));
        if self
            .args
            .requests
            .is_some_and(|requests| number >= requests)
            || self.deadline.is_some_and(|deadline| at >= deadline)
        {
            return None;
        }
        self.sent.set(number + 1);
        Some(number)
    }

    fn tenant(&self, number: u64) -> usize {
        let choice = match self.args.order {
            Order::RoundRobin => number,
            Order::Random => {
                // xorshift64: no more is asked of it than to be uncorrelated with the connections' turns.
                let mut x = self.random.get();
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                self.random.set(x);
                x
            }
        };
        (choice % self.tenants.len() as u64) as usize
    }

    async fn exchange(
        &self,
        slot: &mut Option<SendRequest<Full<Bytes>>>,
        number: u64,
        finess: &HeaderValue,
        ou: &HeaderValue,
    ) -> Result<Option<HeaderValue>, Failure> {
        let open = slot.take().filter(|sender| !sender.is_closed());
        let is_reused = open.is_some();
        let mut sender = match open {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let id = HeaderValue::from(number);
        let request = Request::builder()
            .method(if self.body.is_empty() { "GET" } else { "POST" })
            .uri(&self.args.path)
            .header(header::HOST, self.args.target.to_string())
            .header("x-finess", finess)
            .header("x-load-id", &id)
            .body(Full::new(self.body.clone()))?;
        let may_repeat = is_reused && self.body.is_empty();
        let answered = async {
            sender.ready().await?;
            sender.send_request(request).await
        };
        let response = answered.await.map_err(|error| Failure {
            closed_idle: may_repeat && !error.is_parse(),
            error: error.into(),
        })?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        if head.status != StatusCode::OK {
            let text = String::from_utf8_lossy(&body);
            return Err(anyhow!("status {}: {text}", head.status).into());
        }
        let mut tally = self.tally.borrow_mut();
        tally.wrong_identity += u64::from(head.headers.get(&self.args.identity_header) != Some(ou));
        tally.wrong_response += u64::from(head.headers.get("x-load-id") != Some(&id));
        match head.headers.get(HANDSHAKE).map(HeaderValue::as_bytes) {
            Some(b"full") => tally.full_handshakes += 1,
            Some(b"resumed") => tally.resumed_handshakes += 1,
            _ => {}
        }
        *slot = Some(sender);
        Ok(head.headers.get(&self.args.serial_header).cloned())
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>> {
        self.tally.borrow_mut().connections_opened += 1;
        let stream = TcpStream::connect(self.args.target).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        spawn_local(connection);
        Ok(sender)
    }
}

impl Tally {
    fn is_clean(&self) -> bool {
        !self.latencies.is_empty() && self.failed + self.wrong_identity + self.wrong_response == 0
    }

    fn report(&mut self, elapsed: Duration) -> serde_json::Value {
        self.latencies.sort_unstable();
        let answered = self.latencies.len();
        let percentile = |p: usize| {
            self.latencies
                .get((answered * p / 100).min(answered.saturating_sub(1)))
        };
        serde_json::json!({
            "requests": answered as u64 + self.failed,
            "failed": self.failed,
            "closed_idle": self.closed_idle,
            "wrong_identity": self.wrong_identity,
            "wrong_response": self.wrong_response,
            "full_handshakes": self.full_handshakes,
            "resumed_handshakes": self.resumed_handshakes,
            "connections_opened": self.connections_opened,
            "seconds": elapsed.as_secs_f64(),
            "requests_per_second": (answered as f64 / elapsed.as_secs_f64()).round(),
            "p50_us": percentile(50),
            "p99_us": percentile(99),
            "max_us": self.latencies.last(),
            "first_failure": self.first_failure,
        })
    }
}
