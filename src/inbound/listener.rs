//! Sockets on which applications reach Relais.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::server::TlsStream;

use crate::config::ListenAddress;
use crate::inbound::inherited::{Inherited, Origin};
use crate::inbound::peer::{Peer, Process};

/// Connections that the kernel holds while workers are busy; it caps this at its own `somaxconn`.
const BACKLOG: i32 = 4096;

/// The mode of a Unix socket: its group may be given to the applications that may use it.
const SOCKET_MODE: u32 = 0o660;

/// An address could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {reason}{}", hint(.reason))]
pub struct BindError {
    address: String,
    /// In the text, and so not its `source`: a reader of the chain would see it twice.
    reason: io::Error,
}

impl BindError {
    /// An address as people know it, and what the system said.
    pub(crate) fn new(address: String, reason: io::Error) -> Self {
        Self { address, reason }
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => " (is another gateway, or another program, running there?)",
        io::ErrorKind::PermissionDenied => {
            " (ports below 1024 and foreign folders need privileges)"
        }
        io::ErrorKind::AddrNotAvailable => " (no interface of this machine has this address)",
        io::ErrorKind::NotFound => " (the socket's folder does not exist)",
        _ => "",
    }
}

/// A bound address, not yet attached to a runtime. Holds at least one socket for each worker.
#[derive(Debug)]
pub struct Bound {
    sockets: Vec<Socket>,
    address: ListenAddress,
    /// Who had the sockets before, if they were not bound here.
    origin: Option<Origin>,
}

/// One worker's share of a bound address.
#[derive(Debug)]
pub enum Listening {
    /// A TCP listener of its own, among which the kernel spreads connections; or a handle on an inherited one.
    Tcp(TcpListener),
    /// A handle on the one Unix socket.
    Unix(UnixListener),
}

impl Bound {
    /// Binds an address for `workers`, or takes the sockets that were inherited for it.
    ///
    /// # Errors
    /// When the address is taken, absent or forbidden.
    pub fn bind(
        address: &ListenAddress,
        workers: usize,
        inherited: &mut Inherited,
    ) -> Result<Self, BindError> {
        let failed = |reason| BindError::new(describe(address), reason);
        if let Some((sockets, origin)) = inherited.claim(address) {
            return Ok(Self {
                sockets: spread(sockets, workers).map_err(failed)?,
                address: address.clone(),
                origin: Some(origin),
            });
        }
        let (sockets, address) = match address {
            ListenAddress::Tcp(address) => {
                let sockets = tcp(*address, workers).map_err(failed)?;
                let actual = sockets[0]
                    .local_addr()
                    .ok()
                    .and_then(|local| local.as_socket())
                    .unwrap_or(*address);
                (sockets, ListenAddress::Tcp(actual))
            }
            ListenAddress::Unix(path) => {
                let sockets = unix(path, workers).map_err(failed)?;
                (sockets, ListenAddress::Unix(path.clone()))
            }
        };
        Ok(Self {
            sockets,
            address,
            origin: None,
        })
    }

    /// The address as it ended up: a port 0 has become a real one.
    pub fn address(&self) -> &ListenAddress {
        &self.address
    }

    /// Takes one worker's share. To be called on that worker's runtime.
    ///
    /// # Errors
    /// When the runtime cannot watch the socket.
    pub fn attach(socket: Socket, is_unix: bool) -> io::Result<Listening> {
        if is_unix {
            UnixListener::from_std(socket.into()).map(Listening::Unix)
        } else {
            TcpListener::from_std(socket.into()).map(Listening::Tcp)
        }
    }

    /// The sockets: one for each worker, or more if a predecessor had more workers.
    pub fn into_sockets(self) -> Vec<Socket> {
        self.sockets
    }
}

/// An address as people write it.
pub fn describe(address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp(address) => address.to_string(),
        ListenAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}

fn tcp(address: SocketAddr, workers: usize) -> io::Result<Vec<Socket>> {
    if address.port() != 0 {
        // Sockets that share a port would let a second gateway of the same user take half of this one's
        // connections without a word. An exclusive socket finds out whether the port is free.
        open(address, false)?;
    }
    let first = open(address, true)?;
    let actual = first.local_addr()?.as_socket().unwrap_or(address);
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(open(actual, true)?);
    }
    sockets
        .iter()
        .try_for_each(|socket| socket.listen(BACKLOG))?;
    Ok(sockets)
}

fn open(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of a gateway that was stopped a moment ago do not keep the port taken.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn unix(path: &Path, workers: usize) -> io::Result<Vec<Socket>> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
    socket.listen(BACKLOG)?;
    spread(vec![socket], workers)
}

/// Gives each worker a handle. Workers that share a socket are all woken by a connection, and one of them gets it:
/// under load that costs wake-ups, and the busiest of them may get more than its part, where the kernel would spread
/// connections evenly over sockets of their own (`SO_REUSEPORT`). In exchange, no connection is lost with a socket.
fn spread(mut sockets: Vec<Socket>, workers: usize) -> io::Result<Vec<Socket>> {
    for index in sockets.len()..workers {
        sockets.push(sockets[index % sockets.len()].try_clone()?);
    }
    Ok(sockets)
}

/// Removes what a killed gateway left behind; a socket that somebody answers on stays.
fn remove_stale(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    let Ok(found) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "the path is taken by something that is no socket",
        ));
    }
    if is_answered(path)? {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    std::fs::remove_file(path)
}

/// Whether somebody listens on a socket's file.
fn is_answered(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A queue that is full is an answer, too; it need not be waited for.
    socket.set_nonblocking(true)?;
    // Only a refusal says that nobody listens; a socket of another account, for one, says something else.
    match socket.connect(&socket2::SockAddr::unix(path)?) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes a Unix socket's file when the gateway stops, unless a successor listens on it or has put its own in its
/// place. Dropped after the last handle on the socket.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode: what was bound, and not just what has its name.
    bound: (u64, u64),
}

impl SocketFile {
    /// Watches over the file of a bound address, if it has one. A file of systemd's is systemd's to remove.
    pub fn of(bound: &Bound) -> Option<Self> {
        match &bound.address {
            ListenAddress::Tcp(_) => None,
            ListenAddress::Unix(_) if bound.origin == Some(Origin::Supervisor) => None,
            ListenAddress::Unix(path) => Some(Self {
                bound: file_at(path)?,
                path: path.clone(),
            }),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_own = file_at(&self.path) == Some(self.bound);
        if is_own && matches!(is_answered(&self.path), Ok(false)) {
            // It may be gone by now, and then there is nothing to tidy.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn file_at(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

/// A connection from an application.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
    /// Over TLS, after the handshake. In a box: it is larger by far, and most listeners have none.
    Tls(Box<TlsStream<TcpStream>>),
    /// Over TLS in a tunnel, in which an application believes to reach a service.
    Tunnel(Box<TlsStream<TokioIo<Upgraded>>>),
}

impl Listening {
    /// Waits for the next connection.
    ///
    /// # Errors
    /// What the system says, out of file descriptors for one.
    pub async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // An answer is written whole; waiting for more would only delay it.
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(listener) => listener
                .accept()
                .await
                .map(|(stream, _)| Stream::Unix(stream)),
        }
    }

    /// Stops listening, and returns those who have connected by now: closed with the socket, they would be reset.
    ///
    /// # Errors
    /// When the runtime does not let go of the socket.
    pub fn close(self) -> io::Result<Vec<Stream>> {
        // The system is asked, and not the runtime, which may not have heard of the latest.
        let socket = match self {
            Self::Tcp(listener) => Socket::from(listener.into_std()?),
            Self::Unix(listener) => Socket::from(listener.into_std()?),
        };
        let is_unix = socket.domain()? == Domain::UNIX;
        // More than the queue holds are only there if they come faster than they are taken.
        let connected = (0..BACKLOG).map_while(|_| socket.accept().ok());
        Ok(connected
            .filter_map(|(stream, _)| Stream::new(stream, is_unix).ok())
            .collect())
    }
}

impl Stream {
    /// Who is at the other end.
    pub(super) fn peer(&self) -> Peer {
        let process = match self {
            Self::Tcp(_) | Self::Tls(_) | Self::Tunnel(_) => None,
            // The kernel always knows; without its answer nobody is taken for anybody.
            Self::Unix(stream) => stream.peer_cred().ok().map(|peer| Process {
                uid: peer.uid(),
                gid: peer.gid(),
            }),
        };
        Peer {
            process,
            ..Peer::default()
        }
    }

    fn new(socket: Socket, is_unix: bool) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        if is_unix {
            return UnixStream::from_std(socket.into()).map(Self::Unix);
        }
        socket.set_tcp_nodelay(true)?;
        TcpStream::from_std(socket.into()).map(Self::Tcp)
    }
}

macro_rules! either {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Self::Tcp($stream) => $call,
            Self::Unix($stream) => $call,
            Self::Tls($stream) => $call,
            Self::Tunnel($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
