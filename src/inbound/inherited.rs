//! Listening sockets that were open before this process: systemd's (socket activation), or those of the gateway that
//! this one takes over from. Whoever connects meanwhile waits in their queues, and is not refused.

use std::fs;
use std::io;
use std::path::Path;

use listenfd::ListenFd;
use socket2::Socket;

use crate::config::ListenAddress;
use crate::inbound::listener::describe;

/// The first file descriptor that systemd passes (sd_listen_fds(3)).
const FIRST_DESCRIPTOR: usize = 3;

/// A socket that systemd passed cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// It is none on which connections could be accepted.
    #[error(
        "file descriptor {descriptor}, which systemd has passed (LISTEN_FDS), is no listening stream socket with an \
         address or a path: the socket unit needs ListenStream= and Accept=no"
    )]
    NotListening {
        /// Its number in this process.
        descriptor: usize,
    },
    /// Nothing is configured for it.
    #[error(
        "systemd has passed a socket that listens on {address}, where the configuration has neither a listener nor \
         administration: take it out of the socket unit, or give that address to one{}",
        loopback_hint(.address)
    )]
    Unclaimed {
        /// Where it listens, as people write it.
        address: String,
    },
}

fn loopback_hint(address: &str) -> &'static str {
    let is_elsewhere = address
        .parse()
        .is_ok_and(|address: std::net::SocketAddr| !address.ip().is_loopback());
    if is_elsewhere {
        " of this machine alone (only loopback addresses are served without TLS and [[callers]])"
    } else {
        ""
    }
}

/// Who had a socket before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// systemd, which keeps it when this process ends.
    Supervisor,
    /// The gateway before this one.
    Predecessor,
}

#[derive(Debug)]
struct Given {
    socket: Socket,
    address: ListenAddress,
    origin: Origin,
}

/// Sockets that wait for the listener that they belong to.
#[derive(Debug, Default)]
pub struct Inherited {
    given: Vec<Given>,
}

impl Inherited {
    /// Takes what systemd has passed, if it has. To be called before the process has other threads: the variables
    /// that say so are unset.
    ///
    /// # Errors
    /// When something was passed on which no connection can be accepted.
    pub fn from_environment() -> Result<Self, InheritError> {
        let mut inherited = Self::default();
        let mut passed = ListenFd::from_env();
        for index in 0..passed.len() {
            let socket = match passed.take_unix_listener(index) {
                Ok(socket) => socket.map(Socket::from),
                Err(_) => (passed.take_tcp_listener(index).ok().flatten()).map(Socket::from),
            };
            let added = socket.and_then(|socket| inherited.add(socket, Origin::Supervisor).ok());
            if added.is_none() {
                let descriptor = FIRST_DESCRIPTOR + index;
                return Err(InheritError::NotListening { descriptor });
            }
        }
        Ok(inherited)
    }

    /// Adds a socket.
    ///
    /// # Errors
    /// When it does not listen, or has no address that could be configured.
    pub fn add(&mut self, socket: Socket, origin: Origin) -> io::Result<()> {
        let local = socket.local_addr()?;
        let address = match (local.as_socket(), local.as_pathname()) {
            (Some(address), _) => ListenAddress::Tcp(address),
            (None, Some(path)) => ListenAddress::Unix(path.to_owned()),
            (None, None) => return Err(io::ErrorKind::AddrNotAvailable.into()),
        };
        if !socket.is_listener()? {
            return Err(io::ErrorKind::NotConnected.into());
        }
        socket.set_nonblocking(true)?;
        socket.set_cloexec(true)?;
        self.given.push(Given {
            socket,
            address,
            origin,
        });
        Ok(())
    }

    /// Hands out the sockets that listen on an address, all from one origin; none if there are none.
    pub fn claim(&mut self, address: &ListenAddress) -> Option<(Vec<Socket>, Origin)> {
        let matching = |given: &Given| is_same(&given.address, address);
        let origin = self.given.iter().find(|given| matching(given))?.origin;
        let claimed = (self.given)
            .extract_if(.., |given| matching(given) && given.origin == origin)
            .map(|given| given.socket)
            .collect();
        Some((claimed, origin))
    }

    /// Ends the search for listeners. What a predecessor alone listened on is left to it, and ends with it.
    ///
    /// # Errors
    /// When systemd has passed a socket that belongs to nobody: its connections would wait for ever.
    pub fn all_claimed(self) -> Result<(), InheritError> {
        for Given {
            address, origin, ..
        } in self.given
        {
            let address = describe(&address);
            match origin {
                Origin::Supervisor => return Err(InheritError::Unclaimed { address }),
                Origin::Predecessor => tracing::info!(address, "no longer listened on"),
            }
        }
        Ok(())
    }
}

/// One path can be written in several ways, and the system knows it as it was written when it was bound.
fn is_same(given: &ListenAddress, configured: &ListenAddress) -> bool {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    match (given, configured) {
        (ListenAddress::Unix(given), ListenAddress::Unix(configured)) => {
            real(given) == real(configured)
        }
        (given, configured) => given == configured,
    }
}
