//! Requests to a gateway from several applications at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use relais::identity::finess::Finess;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::support::{Client, H2c};
use crate::{cpu, one_thread};

/// Requests in flight.
const APPLICATIONS: usize = 16;

/// What all requests of a load have in common.
#[derive(Clone)]
pub(crate) struct Asked {
    /// Path and query.
    pub(crate) path: &'static str,
    /// The tenants, in turn.
    pub(crate) tenants: Arc<[Finess]>,
    /// The body of a POST; of a GET, where it is empty.
    pub(crate) body: Bytes,
}

/// Keep-alive connections to a gateway, and the runtime that they are driven on.
pub(crate) struct Load {
    runtime: Runtime,
    connections: Vec<Connection>,
    asked: Asked,
    in_turn: Arc<AtomicUsize>,
}

enum Connection {
    H1(Client),
    H2(H2c),
}

impl Load {
    /// Connects, and sends enough for the gateway to have its connections to the service.
    pub(crate) fn new(gateway: SocketAddr, is_h2c: bool, asked: Asked) -> Self {
        let runtime = one_thread();
        let connections = runtime.block_on(async {
            let mut connections = Vec::new();
            for _ in 0..APPLICATIONS {
                connections.push(if is_h2c {
                    Connection::H2(H2c::connect(gateway).await)
                } else {
                    Connection::H1(Client::connect(gateway).await)
                });
            }
            connections
        });
        let tenants = asked.tenants.len() as u64;
        let mut load = Self {
            runtime,
            connections,
            asked,
            in_turn: Arc::default(),
        };
        load.send(tenants);
        load
    }

    /// What the gateway's workers compute for so many requests.
    pub(crate) fn cost(&mut self, requests: u64) -> Duration {
        let each = requests.div_ceil(APPLICATIONS as u64);
        let before = cpu::of_workers();
        self.send(each);
        let spent = cpu::of_workers() - before;
        spent.mul_f64(requests as f64 / (each * APPLICATIONS as u64) as f64)
    }

    /// Sends that many requests on each connection, and fails unless all succeed.
    fn send(&mut self, each: u64) {
        let mut sending = JoinSet::new();
        for mut connection in self.connections.drain(..) {
            let (asked, in_turn) = (self.asked.clone(), Arc::clone(&self.in_turn));
            let send = async move {
                for _ in 0..each {
                    let turn = in_turn.fetch_add(1, Ordering::Relaxed);
                    connection.send(&asked, turn).await;
                }
                connection
            };
            sending.spawn_on(send, self.runtime.handle());
        }
        self.connections = self.runtime.block_on(sending.join_all());
    }
}

impl Connection {
    async fn send(&mut self, asked: &Asked, turn: usize) {
        let method = if asked.body.is_empty() { "GET" } else { "POST" };
        let tenant = asked.tenants[turn % asked.tenants.len()];
        let request = Request::builder()
            .method(method)
            .uri(asked.path)
            .header("x-finess", tenant.as_str())
            .header("content-type", "application/soap+xml; charset=utf-8")
            .body(asked.body.clone())
            .expect("the path and the fields are valid");
        let answer = match self {
            Self::H1(client) => client.send(request).await,
            Self::H2(client) => client.send(request).await,
        };
        assert_eq!(answer.status(), 200, "{answer:?}");
    }
}
