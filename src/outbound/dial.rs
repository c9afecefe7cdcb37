//! TCP towards a service: names to addresses, and the quickest of several addresses (RFC 8305).

pub(crate) mod guard;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::outbound::error::{Error, Stage};
use crate::services::Target;

/// How long an attempt stays alone before the next address is tried beside it (RFC 8305 section 5 recommends it).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// How long a resolved name is used again. The system's resolver tells no lifetime; ten seconds spare it a burst
/// of a thousand tenants that dial the same service, and a change of address is noticed soon enough.
const NAMES_KEPT: Duration = Duration::from_secs(10);

/// Opens TCP connections, and remembers for a moment where names led.
#[derive(Debug, Default)]
pub(crate) struct Dialer {
    names: Mutex<HashMap<Arc<str>, Resolved>>,
    /// Where this gateway listens itself.
    own: OnceLock<Box<[SocketAddr]>>,
}

#[derive(Clone, Debug)]
struct Resolved {
    at: Instant,
    addresses: Arc<[SocketAddr]>,
}

impl Dialer {
    /// Refuses to connect to these addresses, which are this gateway's own. The first call decides: listeners are bound
    /// once.
    pub(crate) fn avoid(&self, own: impl IntoIterator<Item = SocketAddr>) {
        let _ = self.own.set(own.into_iter().collect());
    }

    /// Connects to a target within `limit`, name resolution included.
    pub(crate) async fn connect(
        &self,
        target: &Target,
        limit: Duration,
    ) -> Result<TcpStream, Error> {
        let attempt = async {
            let addresses = self.resolve(target).await?;
            let own = self.own.get().map(Box::as_ref).unwrap_or_default();
            let addresses = guard::permitted(target, &addresses, own)?;
            let stream = race(&addresses).await;
            if stream.is_err() {
                // They may have moved: ask again next time.
                self.names
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(target.authority.as_str());
            }
            stream
        };
        let stream = tokio::time::timeout(limit, attempt)
            .await
            .map_err(|_| Error::Timeout(Stage::Connect))??;
        // A request is written whole; waiting for more would only delay it.
        stream.set_nodelay(true).map_err(|error| Error::Connect {
            address: peer(&stream),
            source: Arc::new(error),
        })?;
        Ok(stream)
    }

    async fn resolve(&self, target: &Target) -> Result<Arc<[SocketAddr]>, Error> {
        if let Some(address) = target.address {
            return Ok(Arc::from([address]));
        }
        let authority = target.authority.as_str();
        let known = self
            .names
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(authority)
            .cloned();
        if let Some(known) = known
            && known.at.elapsed() < NAMES_KEPT
        {
            return Ok(known.addresses);
        }
        let host: Arc<str> = target.host().into();
        let failed = |source| {
            lack(&source).unwrap_or_else(|| Error::Dns {
                host: Arc::clone(&host),
                source: Arc::new(source),
            })
        };
        let found = tokio::net::lookup_host((&*host, target.port()))
            .await
            .map_err(failed)?;
        let addresses: Arc<[SocketAddr]> = interleave(found.collect()).into();
        if addresses.is_empty() {
            return Err(failed(io::Error::new(
                io::ErrorKind::NotFound,
                "the name exists without addresses",
            )));
        }
        let resolved = Resolved {
            at: Instant::now(),
            addresses: Arc::clone(&addresses),
        };
        self.names
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(authority.into(), resolved);
        Ok(addresses)
    }
}

fn peer(stream: &TcpStream) -> SocketAddr {
    stream
        .peer_addr()
        .unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)))
}

/// Orders addresses so that families take turns, starting with the resolver's favourite (RFC 8305 section 4).
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = addresses.first().copied() else {
        return addresses;
    };
    let (mut favourite, mut other): (VecDeque<_>, VecDeque<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first.is_ipv6());
    let mut ordered = Vec::with_capacity(favourite.len() + other.len());
    while !(favourite.is_empty() && other.is_empty()) {
        ordered.extend(favourite.pop_front());
        ordered.extend(other.pop_front());
    }
    ordered
}

/// Tries addresses in order, each `NEXT_ADDRESS_AFTER` later than the one before or as soon as that one failed.
async fn race(addresses: &[SocketAddr]) -> Result<TcpStream, Error> {
    if let [address] = addresses {
        return attempt(*address).await;
    }
    let mut attempts = JoinSet::new();
    let mut waiting = addresses.iter().copied();
    let mut last = None;
    loop {
        match waiting.next() {
            Some(address) => {
                attempts.spawn(attempt(address));
            }
            None if attempts.is_empty() => break,
            None => {}
        }
        let ended = if waiting.len() == 0 {
            attempts.join_next().await
        } else {
            tokio::time::timeout(NEXT_ADDRESS_AFTER, attempts.join_next())
                .await
                .unwrap_or_default()
        };
        match ended {
            Some(Ok(Ok(stream))) => return Ok(stream),
            Some(Ok(Err(error))) => last = Some(error),
            // The head start is over, or an attempt was cancelled with its runtime.
            Some(Err(_)) | None => {}
        }
    }
    Err(last.unwrap_or(Error::Timeout(Stage::Connect)))
}

async fn attempt(address: SocketAddr) -> Result<TcpStream, Error> {
    let connected = TcpStream::connect(address).await;
    connected.map_err(|source| {
        lack(&source).unwrap_or_else(|| Error::Connect {
            address,
            source: Arc::new(source),
        })
    })
}

/// What this machine has none of any more says nothing of the service.
fn lack(error: &io::Error) -> Option<Error> {
    const LACKS: [Errno; 5] = [
        Errno::ADDRNOTAVAIL,
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOBUFS,
        Errno::NOMEM,
    ];
    let code = error.raw_os_error()?;
    let is_lack = LACKS.iter().any(|lack| lack.raw_os_error() == code);
    is_lack.then_some(Error::NoCapacity(
        "this machine has no file descriptor, port or memory left for one",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn families_take_turns_starting_with_the_resolvers_favourite() {
        let given = [
            "[::1]:1",
            "[::1]:2",
            "[::1]:3",
            "127.0.0.1:1",
            "127.0.0.1:2",
        ];
        let ordered = interleave(given.map(address).to_vec());
        let expected = [
            "[::1]:1",
            "127.0.0.1:1",
            "[::1]:2",
            "127.0.0.1:2",
            "[::1]:3",
        ];
        assert_eq!(ordered, expected.map(address));
    }

    #[tokio::test]
    async fn an_address_that_refuses_gives_way_to_the_next() {
        let open = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let stream = race(&[closed, open.local_addr().unwrap()]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), open.local_addr().unwrap());
    }

    #[tokio::test]
    async fn when_all_refuse_the_error_names_an_address() {
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let error = race(&[closed, closed]).await.unwrap_err();
        assert!(matches!(error, Error::Connect { address, .. } if address == closed));
    }
}
