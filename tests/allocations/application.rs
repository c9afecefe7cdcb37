//! An application on a thread of its own, which sends requests when it is told to: what it allocates is not counted.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;

use bytes::Bytes;
use http::Request;
use relais::identity::finess::Finess;
use tokio::sync::oneshot;

use crate::support::{Client, H2c};

/// A keep-alive connection to a gateway. Ends when it is dropped.
pub(crate) struct Application {
    orders: mpsc::Sender<(usize, oneshot::Sender<()>)>,
}

enum Connection {
    H1(Client),
    H2(H2c),
}

impl Application {
    /// Connects, as soon as somebody accepts. What it sends are POSTs of `body`, or GETs if that is empty.
    pub(crate) fn start(address: SocketAddr, is_h2c: bool, tenant: Finess, body: Bytes) -> Self {
        let (orders, ordered) = mpsc::channel::<(usize, oneshot::Sender<()>)>();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let mut connection = if is_h2c {
                    Connection::H2(H2c::connect(address).await)
                } else {
                    Connection::H1(Client::connect(address).await)
                };
                while let Ok((count, done)) = ordered.recv() {
                    for _ in 0..count {
                        connection.send(tenant, &body).await;
                    }
                    // Nobody waits any more if the test has failed.
                    let _ = done.send(());
                }
            });
        });
        Self { orders }
    }

    /// Sends that many requests, one after the other; to be waited for.
    pub(crate) fn send(&self, count: usize) -> oneshot::Receiver<()> {
        let (done, sent) = oneshot::channel();
        self.orders.send((count, done)).unwrap();
        sent
    }
}

impl Connection {
    async fn send(&mut self, tenant: Finess, body: &Bytes) {
        let method = if body.is_empty() { "GET" } else { "POST" };
        let request = Request::builder()
            .method(method)
            .uri("/dmp/v2/services")
            .header("x-finess", tenant.as_str())
            .header("accept", "application/soap+xml")
            .header("content-type", "application/soap+xml; charset=utf-8")
            .header("user-agent", "Logiciel/1.0")
            .body(body.clone())
            .unwrap();
        let answer = match self {
            Self::H1(client) => client.send(request).await,
            Self::H2(client) => client.send(request).await,
        };
        assert_eq!(answer.status(), 200, "{answer:?}");
    }
}
