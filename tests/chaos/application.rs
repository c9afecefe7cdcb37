//! Applications: each makes one request after the other, as different callers for different tenants, and looks at what
//! comes back.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::judge::{BEGUN, CALLER, Judge, NEVER};
use super::scene::{CALLERS, Random, SERVICES, TENANTS};
use crate::support::{DEADLINE, token_of};
use crate::witness::{BEHAVIOUR, Behaviour, NONCE, SERVICE, TENANT};

/// What all applications share.
pub struct Load {
    pub address: std::net::SocketAddr,
    pub judge: Arc<Judge>,
    pub tenants: Vec<relais::identity::finess::Finess>,
    /// Requests to make in all.
    pub requests: u64,
    pub made: AtomicU64,
    /// How often each answer came: `200`, or the code of the problem.
    pub answers: Mutex<BTreeMap<String, u64>>,
    /// The problems that took longer than any of the gateway's other deadlines here.
    pub slow: Mutex<Vec<String>>,
}

/// So long only who waits for a connection until the patience of that ends: all deadlines of services are shorter.
const SLOW: Duration = Duration::from_millis(2500);

type Sent = BoxBody<Bytes, Infallible>;

enum Connection {
    H1(http1::SendRequest<Sent>),
    H2(http2::SendRequest<Sent>),
}

/// One request.
struct Step {
    nonce: u64,
    tenant: usize,
    service: usize,
    caller: usize,
    behaviour: Behaviour,
    body: usize,
    /// Leaves after so long.
    leaves: Option<Duration>,
    /// Says something on top that makes it a request that must not pass.
    trick: Option<usize>,
}

impl Step {
    fn random(random: &mut Random, nonce: u64) -> Self {
        let behaviour = match random.below(1000) {
            0..860 => Behaviour::Answer,
            860..900 => Behaviour::Late(random.below(20)),
            900..925 => Behaviour::Drip(random.below(5)),
            925..940 => Behaviour::Early,
            940..965 => Behaviour::Close,
            965..973 => Behaviour::Break,
            973..981 => Behaviour::BreakOff,
            981..998 => Behaviour::BreakReused,
            _ => Behaviour::Silence,
        };
        let body = match random.below(100) {
            0..70 => 0,
            70..98 => 1 + random.below(2000),
            _ => 200_000,
        };
        let leaves = (random.below(50) == 0).then(|| Duration::from_millis(random.below(30)));
        let trick = (random.below(20) == 0).then(|| random.below(6) as usize);
        Self {
            nonce,
            tenant: random.below(TENANTS as u64) as usize,
            service: random.below(SERVICES.len() as u64) as usize,
            // Mostly those who may do something.
            caller: [0, 0, 0, 2, 2, 2, 1, 1, 3, 4][random.below(10) as usize],
            behaviour,
            body: body as usize,
            leaves,
            trick,
        }
    }

    fn request(&self, load: &Load, host: &str) -> Request<Sent> {
        let tenant = load.tenants[self.tenant];
        let other = load.tenants[(self.tenant + 1) % TENANTS];
        let service = SERVICES[self.service];
        let mut path = format!("{host}/{service}/x");
        let mut request = Request::builder()
            .method(if self.body == 0 { "GET" } else { "POST" })
            .header("x-finess", tenant.as_str())
            .header(NONCE, self.nonce)
            .header(TENANT, tenant.as_str())
            .header(SERVICE, service)
            .header(BEHAVIOUR, self.behaviour.to_field())
            .header(BEGUN, load.judge.now())
            .header(CALLER, self.caller);
        if let Some(name) = CALLERS[self.caller] {
            request = request.header("x-relais-token", token_of(name));
        }
        if self.trick.is_some() {
            request = request.header(NEVER, "1");
        }
        match self.trick {
            Some(0) => request = request.header("x-finess", other.as_str()),
            Some(1) => path = format!("{host}/@{other}/{service}/x"),
            Some(2) => request = request.header("x_finess", other.as_str()),
            Some(3) => request = request.header("x-relais-token", token_of("alpha")),
            Some(4) => request = request.header("origin", "http://localhost"),
            // Of a user who is no tenant.
            Some(_) => request = request.header("proxy-authorization", "Basic eDp5"),
            None => {}
        }
        // A token that is there twice is refused; one that is there once by now would be a request like others.
        if self.trick == Some(3) && CALLERS[self.caller].is_none() {
            request = request.header("x-relais-token", token_of("second"));
        }
        let piece = Bytes::from(vec![b'x'; self.body]);
        let body = match self.leaves {
            // Its end does not come before the application leaves.
            Some(_) if self.body > 0 => Unfinished(Some(piece)).boxed(),
            _ => Full::new(piece).boxed(),
        };
        request.uri(path).body(body).unwrap()
    }
}

/// A body that begins and does not go on.
struct Unfinished(Option<Bytes>);

impl Load {
    /// Makes requests until there are enough of them.
    pub async fn run(self: Arc<Self>, seed: u64) {
        let mut random = Random::new(seed);
        let mut connection = None;
        loop {
            let nonce = self.made.fetch_add(1, Ordering::Relaxed);
            if nonce >= self.requests {
                return;
            }
            let step = Step::random(&mut random, nonce);
            let speaks_h2 = seed.is_multiple_of(4);
            if connection.is_none() {
                connection = self.connect(speaks_h2).await;
            }
            let Some(open) = &mut connection else {
                self.count("refused");
                continue;
            };
            let begun = Instant::now();
            let patience = step.leaves.unwrap_or(DEADLINE);
            let asked = tokio::time::timeout(patience, self.ask(open, &step)).await;
            let stays = match asked {
                Ok(Ok(stays)) => stays,
                Ok(Err(wrong)) => {
                    self.judge.note(wrong);
                    false
                }
                Err(_) if step.leaves.is_some() => {
                    self.count("left");
                    false
                }
                Err(_) => {
                    self.judge.note(format!("{nonce} was answered by nobody"));
                    false
                }
            };
            if begun.elapsed() > SLOW {
                let mut slow = self.slow.lock().unwrap();
                slow.push(format!(
                    "{nonce} from {} to {} µs: tenant {}, {}, {:?}, body {}",
                    self.judge.now() - u64::try_from(begun.elapsed().as_micros()).unwrap(),
                    self.judge.now(),
                    step.tenant,
                    SERVICES[step.service],
                    step.behaviour,
                    step.body,
                ));
            }
            if !stays {
                connection = None;
            }
        }
    }

    async fn connect(&self, speaks_h2: bool) -> Option<Connection> {
        let tcp = TcpStream::connect(self.address).await.ok()?;
        let io = TokioIo::new(tcp);
        if speaks_h2 {
            let (sender, driver) = http2::handshake(TokioExecutor::new(), io).await.ok()?;
            tokio::spawn(driver);
            return Some(Connection::H2(sender));
        }
        let (sender, driver) = http1::handshake(io).await.ok()?;
        tokio::spawn(driver);
        Some(Connection::H1(sender))
    }

    /// Whether the connection can be used again; an error if the answer is not what it must be.
    async fn ask(&self, connection: &mut Connection, step: &Step) -> Result<bool, String> {
        let response = match connection {
            Connection::H1(sender) => {
                if sender.ready().await.is_err() {
                    return Ok(false);
                }
                let mut request = step.request(self, "");
                let host = self.address.to_string().parse().unwrap();
                request.headers_mut().insert("host", host);
                sender.send_request(request).await
            }
            Connection::H2(sender) => {
                if sender.ready().await.is_err() {
                    return Ok(false);
                }
                let request = step.request(self, &format!("http://{}", self.address));
                sender.send_request(request).await
            }
        };
        let Ok(response) = response else {
            self.count("cut");
            return Ok(false);
        };
        self.answered(response, step).await
    }

    async fn answered(&self, response: Response<Incoming>, step: &Step) -> Result<bool, String> {
        if response.headers().contains_key("proxy-status") {
            let Ok(body) = response.into_body().collect().await else {
                return Ok(false);
            };
            let problem: serde_json::Value = serde_json::from_slice(&body.to_bytes())
                .map_err(|error| format!("a problem that is none: {error}"))?;
            let code = problem["code"].as_str().unwrap_or("?");
            if code == "internal" {
                return Err(format!("an internal error: {problem}"));
            }
            match code {
                "overloaded" => self.count(&format!("overloaded: {}", problem["detail"])),
                code => self.count(code),
            }
            return Ok(true);
        }
        let header = |name| {
            response
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
        };
        let tenant = self.tenants[step.tenant];
        let is_right = header(NONCE) == Some(&step.nonce.to_string())
            && header("x-client-ou") == Some(&format!("1{tenant}"))
            && header("x-client-sha256")
                .is_some_and(|sha256| self.judge.is_of(sha256, step.tenant))
            && step.trick.is_none();
        if !is_right {
            return Err(format!("{} for {tenant} got {response:?}", step.nonce));
        }
        let Ok(body) = response.into_body().collect().await else {
            self.count("broken off");
            return Ok(false);
        };
        let pieces = if matches!(step.behaviour, Behaviour::Drip(_)) {
            5
        } else {
            1
        };
        if body.to_bytes() != step.nonce.to_string().repeat(pieces) {
            return Err(format!("the body of {} is another's", step.nonce));
        }
        self.count("200");
        Ok(true)
    }

    fn count(&self, what: &str) {
        *self
            .answers
            .lock()
            .unwrap()
            .entry(what.to_owned())
            .or_default() += 1;
    }
}

impl Body for Unfinished {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0.take() {
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            None => Poll::Pending,
        }
    }
}
