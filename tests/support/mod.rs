//! The real gateway in this process, on free ports, in front of simulators: what the tests of the request path share.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary is a crate, and uses its own part of this"
)]

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use relais::app::{self, App};
use relais::config::{Config, ListenAddress};
use relais::identity::finess::Finess;
use relais::simulator::server::Seen;
use relais::simulator::site::{Ports, Site, Stand};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::watch;

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
    let directory = tempfile::tempdir().unwrap();
    let site = Site::build(directory.path(), tenants, stands, Ports::default()).unwrap();
    let mut text = std::fs::read_to_string(&site.configuration).unwrap();
    writeln!(text).unwrap();
    edit(&mut text);
    std::fs::write(&site.configuration, text).unwrap();
    let loaded =
        Config::load(Some(&site.configuration)).unwrap_or_else(|problems| panic!("{problems}"));
    let bound = app::bind(loaded.config).unwrap();
    let (stop, stopped) = watch::channel(false);
    let addresses = bound.addresses().to_vec();
    let admin = bound.admin_address().unwrap();
    let app = Arc::clone(bound.app());
    let running = Some(thread::spawn(move || bound.run(stopped)));
    TestGateway {
        site,
        app,
        addresses,
        admin,
        stop,
        running,
        directory,
    }
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
        let (sender, connection) = http1::handshake(TokioIo::new(tcp)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        Self { sender, address }
    }

    pub async fn send(&mut self, mut request: Request<Bytes>) -> Answered {
        if !request.headers().contains_key("host") {
            let host = self.address.to_string().parse().unwrap();
            request.headers_mut().insert("host", host);
        }
        within(self.sender.ready()).await.unwrap();
        let response = within(self.sender.send_request(request.map(Full::new)))
            .await
            .unwrap();
        let (parts, body) = response.into_parts();
        let body = within(body.collect()).await.unwrap().to_bytes();
        Answered(Response::from_parts(parts, body))
    }
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

/// Waits for a future, not longer than [`DEADLINE`].
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("the deadline of the test has passed")
}
