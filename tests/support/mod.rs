//! The real gateway in this process, on free ports, in front of simulators: what the tests of the request path share.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "each test binary is a crate, and uses its own part of this; a failed unwrap names its line"
)]

pub mod frames;
pub mod picky;
pub mod process;
pub mod raw;
pub mod upstream;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use relais::app::{self, App};
use relais::config::{Config, ListenAddress};
use relais::gateway::caller::TokenHash;
use relais::identity::finess::Finess;
use relais::simulator::server::Seen;
use relais::simulator::site::{Ports, Site, Stand};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use raw::Raw;
use upstream::{Connection, Tls, Upstream};

/// No test waits longer than this for anything.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A gateway in front of a simulated site; stops and tidies up when dropped.
pub struct TestGateway {
    pub site: Site,
    pub app: Arc<App>,
    pub addresses: Vec<ListenAddress>,
    pub admin: SocketAddr,
    stop: watch::Sender<bool>,
    running: Option<JoinHandle<anyhow::Result<()>>>,
    directory: TempDir,
}

/// Starts a gateway for `tenants` structures in front of simulators of `stands`, with `extra` appended to its
/// configuration file. A `[services.NAME]` table in `extra` may also describe a server of the test's own.
pub fn start(tenants: usize, stands: &[Stand], extra: &str) -> TestGateway {
    start_with(tenants, stands, |text| text.push_str(extra))
}

/// The same, with the whole configuration in the test's hands.
pub fn start_with(tenants: usize, stands: &[Stand], edit: impl FnOnce(&mut String)) -> TestGateway {
    start_on(tenants, stands, |_, text| edit(text)).0
}

/// A gateway in front of one server of the test's own, as service `up` with further lines of configuration.
pub fn in_front_of<F, Served>(tls: &Tls, extra: &str, serve: F) -> (TestGateway, Upstream)
where
    F: Fn(Connection, usize) -> Served + Clone + Send + 'static,
    Served: Future<Output = ()> + Send + 'static,
{
    start_on(1, &[Stand::new("dmp")], |site, text| {
        let upstream = Upstream::start(&site.pki, tls, serve);
        text.push_str(&upstream.service("up", extra));
        upstream
    })
}

/// Starts a gateway once `edit` has done what it likes with the site and the configuration.
pub fn start_on<T>(
    tenants: usize,
    stands: &[Stand],
    edit: impl FnOnce(&Site, &mut String) -> T,
) -> (TestGateway, T) {
    let directory = tempfile::tempdir().unwrap();
    let site = Site::build(directory.path(), tenants, stands, Ports::default()).unwrap();
    let mut text = std::fs::read_to_string(&site.configuration).unwrap();
    writeln!(text).unwrap();
    let edited = edit(&site, &mut text);
    if !text.contains("[shutdown]") {
        // A test that is over waits for nobody.
        text.push_str("\n[shutdown]\ngrace = \"100ms\"\n");
    }
    std::fs::write(&site.configuration, text).unwrap();
    let loaded = Config::load(&site.configuration).unwrap_or_else(|problems| panic!("{problems}"));
    let bound = app::bind(loaded.config).unwrap();
    let (stop, stopped) = watch::channel(false);
    let addresses = bound.addresses();
    let admin = bound.admin_address().unwrap();
    let app = Arc::clone(bound.app());
    let running = Some(thread::spawn(move || bound.run(stopped)));
    let gateway = TestGateway {
        site,
        app,
        addresses,
        admin,
        stop,
        running,
        directory,
    };
    (gateway, edited)
}

impl TestGateway {
    /// The first TCP listener.
    pub fn address(&self) -> SocketAddr {
        let tcp = self.addresses.iter().find_map(|address| match address {
            ListenAddress::Tcp(address) => Some(*address),
            ListenAddress::Unix(_) => None,
        });
        tcp.unwrap()
    }

    /// The folder that the site is in.
    pub fn path(&self) -> &std::path::Path {
        self.directory.path()
    }

    pub fn tenant(&self, index: usize) -> Finess {
        self.site.tenants[index]
    }

    /// Sends a GET for a tenant, on a connection of its own.
    pub async fn get(&self, tenant: Finess, path: &str) -> Answered {
        self.send(
            Request::get(path)
                .header("x-finess", tenant.as_str())
                .body(Bytes::new())
                .unwrap(),
        )
        .await
    }

    /// Sends a request on a connection of its own; `Host` is added where it is missing.
    pub async fn send(&self, request: Request<Bytes>) -> Answered {
        let mut client = self.connect().await;
        client.send(request).await
    }

    /// A keep-alive connection to the first TCP listener.
    pub async fn connect(&self) -> Client {
        Client::connect(self.address()).await
    }

    /// A connection to the first TCP listener on which the test writes bytes.
    pub async fn raw(&self) -> Raw {
        Raw::connect(self.address()).await
    }

    /// A GET of `path` for the first tenant, as bytes.
    pub fn get_bytes(&self, path: &str) -> String {
        format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nx-finess: {}\r\n\r\n",
            self.tenant(0)
        )
    }

    /// Starts a POST to `path` for the first tenant: line and fields, `framing` among them.
    pub fn post_bytes(&self, path: &str, framing: &str) -> String {
        format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nx-finess: {}\r\n{framing}\r\n\r\n",
            self.tenant(0)
        )
    }

    /// The head of a request for the first tenant, as a frame of HTTP/2.
    pub fn head_frame(&self, stream: u32, method: &str, path: &str, flags: u8) -> Vec<u8> {
        let tenant = self.tenant(0);
        let fields = [
            (":method", method),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
            ("x-finess", tenant.as_str()),
        ];
        frames::frame(frames::HEADERS, flags, stream, &frames::block(&fields))
    }

    /// Asks the administration listener.
    pub async fn admin(&self, path: &str) -> Answered {
        let mut client = Client::connect(self.admin).await;
        client
            .send(Request::get(path).body(Bytes::new()).unwrap())
            .await
    }

    /// The sum of a metric's series whose labels contain each of `labels` (as `name="value"`).
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let rendered = self.app.gateway.metrics.render();
        rendered
            .lines()
            .filter_map(|line| {
                let (series, value) = line.rsplit_once(' ')?;
                let found = series.split('{').next() == Some(name)
                    && labels.iter().all(|label| series.contains(label));
                found.then(|| value.parse::<f64>().unwrap())
            })
            .sum()
    }

    /// The lines of the access log so far.
    pub fn log(&self) -> Vec<serde_json::Value> {
        self.app.gateway.log.flush(DEADLINE);
        let log = std::fs::read_to_string(self.path().join("access.log")).unwrap();
        // Lines of several workers come in any order.
        let mut lines: Vec<serde_json::Value> = log
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        lines.sort_by_key(|line| line["time"].as_str().map(str::to_owned));
        lines
    }

    /// Asks for a stop without waiting for it.
    pub fn begin_stop(&self) {
        self.stop.send_replace(true);
    }

    /// Stops, and fails the test if the gateway ended badly.
    pub fn stop(mut self) {
        self.begin_stop();
        self.running.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(running) = self.running.take() {
            let _ = running.join();
        }
    }
}

/// An HTTP/1.1 connection to a gateway.
pub struct Client {
    sender: http1::SendRequest<Full<Bytes>>,
    address: SocketAddr,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let tcp = within(TcpStream::connect(address)).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(tcp)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        Self { sender, address }
    }

    pub async fn send(&mut self, request: Request<Bytes>) -> Answered {
        self.try_send(request).await.unwrap()
    }

    /// The same with a connection that may have been closed, and an answer that may break off.
    pub async fn try_send(&mut self, mut request: Request<Bytes>) -> Option<Answered> {
        request
            .headers_mut()
            .entry("host")
            .or_insert_with(|| self.address.to_string().parse().unwrap());
        within(self.sender.ready()).await.ok()?;
        let response = within(self.sender.send_request(request.map(Full::new)))
            .await
            .ok()?;
        let (parts, body) = response.into_parts();
        let body = within(body.collect()).await.ok()?.to_bytes();
        Some(Answered(Response::from_parts(parts, body)))
    }
}

/// An h2c connection to a gateway; a clone is the same connection.
#[derive(Clone)]
pub struct H2c {
    pub sender: http2::SendRequest<BoxBody<Bytes, std::io::Error>>,
    address: SocketAddr,
}

impl H2c {
    pub async fn connect(address: SocketAddr) -> Self {
        let tcp = within(TcpStream::connect(address)).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tcp))
            .await
            .unwrap();
        tokio::spawn(connection);
        Self { sender, address }
    }

    /// Sends a request whose URI is a path; the answer's body is still to come.
    pub async fn begin(
        &mut self,
        request: Request<BoxBody<Bytes, std::io::Error>>,
    ) -> hyper::Result<Response<Incoming>> {
        let (mut parts, body) = request.into_parts();
        parts.uri = format!("http://{}{}", self.address, parts.uri)
            .parse()
            .unwrap();
        within(self.sender.ready()).await?;
        within(self.sender.send_request(Request::from_parts(parts, body))).await
    }

    pub async fn send(&mut self, request: Request<Bytes>) -> Answered {
        let response = self.begin(request.map(whole)).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = within(body.collect()).await.unwrap().to_bytes();
        Answered(Response::from_parts(parts, body))
    }
}

/// A body that is there already.
pub fn whole(bytes: Bytes) -> BoxBody<Bytes, std::io::Error> {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

/// A whole answer.
#[derive(Debug)]
pub struct Answered(pub Response<Bytes>);

impl Answered {
    pub fn status(&self) -> u16 {
        self.0.status().as_u16()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.0
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap())
    }

    /// What the simulator saw.
    pub fn seen(&self) -> Seen {
        serde_json::from_slice(self.0.body())
            .unwrap_or_else(|_| panic!("not a simulator's answer: {self:?}"))
    }

    /// The `code` of a problem answer, checked to be in the form that is promised.
    pub fn code(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let problem: serde_json::Value = serde_json::from_slice(self.0.body()).unwrap();
        assert_eq!(problem["status"], self.status(), "{self:?}");
        for field in ["type", "title", "detail"] {
            assert!(
                problem[field].as_str().is_some_and(|text| !text.is_empty()),
                "{field} in {self:?}"
            );
        }
        let code = problem["code"].as_str().unwrap().to_owned();
        let proxy_status = self.header("proxy-status").unwrap();
        assert!(proxy_status.starts_with("relais; error="), "{proxy_status}");
        code
    }
}

/// Sends a GET to `up` for the first tenant, and fails the test unless it succeeds.
pub async fn is_answered(gateway: &TestGateway) {
    let answer = gateway.get(gateway.tenant(0), "/up/x").await;
    assert_eq!(answer.status(), 200, "{answer:?}");
}

/// The token of a caller in these tests, made of its name.
pub fn token_of(name: &str) -> String {
    let random: Vec<u8> = name.bytes().cycle().take(32).collect();
    format!("relais_{}", URL_SAFE_NO_PAD.encode(random))
}

/// Its hash, as the configuration has it.
pub fn hash_of(name: &str) -> String {
    TokenHash::of(token_of(name).as_bytes()).to_string()
}

/// Starts that many requests at once, each on a connection of its own.
pub fn burst(gateway: &TestGateway, count: usize) -> JoinSet<Answered> {
    let mut requests = JoinSet::new();
    for _ in 0..count {
        let (address, tenant) = (gateway.address(), gateway.tenant(0));
        requests.spawn(async move {
            let request = Request::get("/up/x")
                .header("x-finess", tenant.as_str())
                .body(Bytes::new())
                .unwrap();
            H2c::connect(address).await.send(request).await
        });
    }
    requests
}

/// Waits until the connections of answered requests lie in their pools. An answer can be read a moment before its
/// connection is back, and a request that comes just then on another worker opens one of its own.
pub async fn settled(gateway: &TestGateway) {
    eventually("the connections are back", || {
        let pools = gateway.app.outbound.pools();
        pools.iter().all(|pool| {
            let occupancy = pool.occupancy();
            occupancy.idle + occupancy.h2 == occupancy.open
        })
    })
    .await;
}

/// Requests that wait for a connection to a service.
pub fn waiting_for_a_connection(gateway: &TestGateway) -> usize {
    let pools = gateway.app.outbound.pools();
    pools.iter().map(|pool| pool.occupancy().waiting).sum()
}

/// A POST to `up` for the first tenant, of more than all buffers hold.
pub fn large_post(gateway: &TestGateway) -> Request<Bytes> {
    Request::post("/up/x")
        .header("x-finess", gateway.tenant(0).as_str())
        .body(Bytes::from(vec![b'x'; 8 << 20]))
        .unwrap()
}

/// Looks again and again until it is so, not longer than [`DEADLINE`]. For what the gateway does on its own, with
/// no event that a test could wait for.
pub async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let until = std::time::Instant::now() + DEADLINE;
    while !so() {
        assert!(std::time::Instant::now() < until, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits for a future, not longer than [`DEADLINE`].
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("the deadline of the test has passed")
}
