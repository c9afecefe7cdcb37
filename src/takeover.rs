//! A successor takes over a gateway's listening sockets, and only then asks it to stop.
//!
//! The sockets themselves change hands, over a Unix socket of the abstract namespace whose name holds the process id.
//! A second socket on the same address (`SO_REUSEPORT`) would have a queue of its own, and the kernel resets what is in
//! the queue of one that closes; a socket that is handed over is never closed, and neither is its queue.
//!
//! Only processes of the same account are given anything: they could bind the same addresses anyway.

use std::io::{self, IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::process::{Signal, geteuid, getpid, kill_process};
use socket2::Socket;
use tokio::io::AsyncReadExt as _;

use crate::inbound::inherited::{Inherited, Origin};

/// How long one message may take between two processes of one machine, of which one may be busy starting.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long nobody is answered after an attempt that failed: a process that is out of file descriptors would spin, and
/// another account could fill the log.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Comes with each socket, since a socket cannot be sent alone.
const ONE_SOCKET: u8 = b's';

/// Comes after the last socket.
const THAT_IS_ALL: u8 = b'.';

/// What a successor says when it serves.
const I_SERVE: u8 = b'!';

/// The sockets of a gateway cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    /// Nobody answers under that name.
    #[error(
        "no gateway with process id {pid} hands over its sockets ({reason}): it must be a `relais serve` that is not \
         yet stopping, in the same network namespace"
    )]
    Absent {
        /// Its process id.
        pid: u32,
        /// What the system said.
        reason: io::Error,
    },
    /// Somebody of another account answers, who may not be what it says.
    #[error(
        "who answers as the gateway with process id {0} runs under another account, or in another container: start its \
         successor beside it, under the same account"
    )]
    OtherAccount(u32),
    /// It began and did not end.
    #[error("the gateway with process id {pid} has not handed over its sockets: {reason}")]
    Incomplete {
        /// Its process id.
        pid: u32,
        /// What the system said.
        reason: io::Error,
    },
}

fn name(pid: u32) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("relais-takeover-{pid}"))
}

/// A gateway that goes on until its successor serves.
#[derive(Debug)]
pub struct Predecessor {
    stream: UnixStream,
}

impl Predecessor {
    /// Takes the sockets of the gateway with this process id.
    ///
    /// # Errors
    /// When there is none, or it does not answer.
    pub fn find(pid: u32, sockets: &mut Inherited) -> Result<Self, TakeoverError> {
        let absent = |reason| TakeoverError::Absent { pid, reason };
        let stream =
            (name(pid).and_then(|name| UnixStream::connect_addr(&name))).map_err(absent)?;
        let incomplete = |reason| TakeoverError::Incomplete { pid, reason };
        if !is_own(&stream, pid).map_err(incomplete)? {
            return Err(TakeoverError::OtherAccount(pid));
        }
        stream
            .set_read_timeout(Some(MESSAGE_TIMEOUT))
            .map_err(incomplete)?;
        while let Some(socket) = receive(&stream).map_err(incomplete)? {
            sockets
                .add(socket, Origin::Predecessor)
                .map_err(incomplete)?;
        }
        Ok(Self { stream })
    }

    /// Asks it to stop. To be called when requests are served here.
    pub fn dismiss(mut self) {
        match self.stream.write_all(&[I_SERVE]) {
            Ok(()) => tracing::info!("the gateway before this one was asked to stop"),
            Err(error) => tracing::warn!(%error, "the gateway before this one is gone already"),
        }
    }
}

/// Another account could have put itself under the name of a gateway that is gone, to get at requests; and so could a
/// process of the same account in another container on the same network, whose id is another when seen from here.
fn is_own(stream: &UnixStream, pid: u32) -> io::Result<bool> {
    // What asks the system without a runtime takes no id for none, which is what a process in another container has.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let _entered = runtime.enter();
    let stream = stream.try_clone()?;
    let set_back = stream.try_clone()?;
    stream.set_nonblocking(true)?;
    let peer = tokio::net::UnixStream::from_std(stream)?.peer_cred()?;
    // Both are handles on one socket, and so is the caller's.
    set_back.set_nonblocking(false)?;
    let is_it = peer.pid().is_some_and(|own| u32::try_from(own) == Ok(pid));
    Ok(is_it && peer.uid() == geteuid().as_raw())
}

fn receive(stream: &UnixStream) -> io::Result<Option<Socket>> {
    let mut said = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(&mut said)];
    let received = recvmsg(stream, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let socket = (control.drain())
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
            _ => None,
        })
        .next();
    match (received.bytes, said[0], socket) {
        (1, ONE_SOCKET, Some(socket)) => Ok(Some(socket.into())),
        (1, THAT_IS_ALL, None) => Ok(None),
        (0, ..) => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// A gateway's readiness to be taken over, for as long as it lives.
#[derive(Debug)]
pub struct Offer {
    listener: UnixListener,
    sockets: Arc<[Socket]>,
}

impl Offer {
    /// Offers these sockets to a successor.
    ///
    /// # Errors
    /// When the name is taken, as by a process of the same id in another container on the same network.
    pub fn new(sockets: Vec<Socket>) -> io::Result<Self> {
        let listener = UnixListener::bind_addr(&name(std::process::id())?)?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            sockets: sockets.into(),
        })
    }

    /// Hands the sockets over to each that asks, until one of them serves; then has this process stop.
    pub async fn serve(self) {
        let listener = match tokio::net::UnixListener::from_std(self.listener) {
            Ok(listener) => listener,
            Err(error) => return report(&error),
        };
        loop {
            let answered = match listener.accept().await {
                Ok((stream, _)) => hand_over(stream, Arc::clone(&self.sockets)).await,
                Err(error) => Err(error),
            };
            match answered {
                Ok(()) => break,
                Err(error) => report(&error),
            }
            tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
        }
        tracing::info!("a successor serves: stopping");
        stop_this_process();
    }
}

/// The way of every other wish to stop.
pub(crate) fn stop_this_process() {
    if let Err(error) = kill_process(getpid(), Signal::TERM) {
        tracing::error!(%error, "cannot stop: stop this process by hand");
    }
}

fn report(error: &io::Error) {
    tracing::warn!(%error, "nobody took over: this gateway goes on");
}

/// Returns when the successor serves.
async fn hand_over(stream: tokio::net::UnixStream, sockets: Arc<[Socket]>) -> io::Result<()> {
    // A process that cannot be seen from here, in another container, has 0 for its id.
    let peer = stream.peer_cred()?;
    let is_seen = peer.pid().is_some_and(|pid| pid > 0);
    if !is_seen || peer.uid() != geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    tracing::info!(sockets = sockets.len(), "handing over to a successor");
    let stream = stream.into_std()?;
    // A successor that does not read must not hold up the side plane.
    let sent = tokio::task::spawn_blocking(move || {
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(MESSAGE_TIMEOUT))?;
        (sockets.iter()).try_for_each(|socket| send(&stream, ONE_SOCKET, Some(socket)))?;
        send(&stream, THAT_IS_ALL, None)?;
        stream.set_nonblocking(true)?;
        io::Result::Ok(stream)
    });
    let stream = sent.await.map_err(io::Error::other)??;
    let mut stream = tokio::net::UnixStream::from_std(stream)?;
    // Loading thousands of certificates takes a while; that it fails is seen as the end of the connection.
    match stream.read_u8().await? {
        I_SERVE => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn send(stream: &UnixStream, what: u8, socket: Option<&Socket>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let socket = socket.map(AsFd::as_fd);
    if let Some(socket) = &socket {
        control.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(
            socket,
        )));
    }
    let bytes = [what];
    sendmsg(
        stream,
        &[IoSlice::new(&bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}
