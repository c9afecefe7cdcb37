//! The wire between the gateway and a service: passes bytes until it is told to stall, to refuse or to break.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How often it is tried to listen again where another program uses the port just now.
const AGAIN: Duration = Duration::from_millis(10);

/// What a wire does with bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    Passes,
    /// Nothing gets through, and nothing is lost.
    Stalls,
    /// Nobody listens, and who was connected is cut off: the service has died.
    Refuses,
}

/// A wire. It breaks when dropped.
#[derive(Clone)]
pub struct Wire {
    pub address: SocketAddr,
    mode: watch::Sender<Mode>,
    cut: watch::Sender<()>,
}

impl Wire {
    /// A wire to a service.
    pub async fn to(service: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let wire = Self {
            address,
            mode: watch::channel(Mode::Passes).0,
            cut: watch::channel(()).0,
        };
        tokio::spawn(wire.clone().serve(listener, service));
        wire
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
        if mode == Mode::Refuses {
            self.cut();
        }
    }

    /// Resets all connections, in the middle of whatever they carry.
    pub fn cut(&self) {
        self.cut.send_replace(());
    }

    async fn serve(self, listener: TcpListener, service: SocketAddr) {
        let mut mode = self.mode.subscribe();
        let mut listener = Some(listener);
        loop {
            if *mode.borrow_and_update() == Mode::Refuses {
                listener = None;
                let _ = mode.changed().await;
                continue;
            }
            let Some(open) = &listener else {
                match TcpListener::bind(self.address).await {
                    Ok(open) => listener = Some(open),
                    Err(_) => tokio::time::sleep(AGAIN).await,
                }
                continue;
            };
            tokio::select! {
                accepted = open.accept() => {
                    if let Ok((tcp, _)) = accepted {
                        tokio::spawn(self.clone().pass(tcp, service));
                    }
                }
                _ = mode.changed() => {}
            }
        }
    }

    async fn pass(self, gateway: TcpStream, service: SocketAddr) {
        let mut cut = self.cut.subscribe();
        let Ok(service) = TcpStream::connect(service).await else {
            return;
        };
        for tcp in [&gateway, &service] {
            let _ = tcp.set_nodelay(true);
            // Dropped in the middle it is reset.
            let _ = socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO));
        }
        let (from_gateway, to_gateway) = gateway.into_split();
        let (from_service, to_service) = service.into_split();
        let both = async {
            tokio::join!(
                self.pump(from_gateway, to_service),
                self.pump(from_service, to_gateway)
            )
        };
        tokio::select! {
            _ = both => {}
            _ = cut.changed() => {}
        }
    }

    async fn pump(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut mode = self.mode.subscribe();
        let mut bytes = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut bytes).await {
            let _ = mode.wait_for(|mode| *mode != Mode::Stalls).await;
            if to.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    }
}
