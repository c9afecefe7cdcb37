//! How did it arrive: listeners, TLS where they have it, and HTTP/1.1 or HTTP/2 on what they accept.
//!
//! Generic over what answers; knows no tenant and no certificate.

mod frames;
mod heads;
pub mod inherited;
pub mod listener;
mod patience;
pub mod peer;
pub mod tls;

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::inbound::listener::{Listening, Stream};
use crate::inbound::patience::Patient;
use crate::inbound::peer::{Peer, Tunnel};
use crate::inbound::tls::{Authority, HANDSHAKE, Security};
use crate::metrics::{Gauged, Metrics};
use crate::waiting::{OneAlarm, Seldom};

/// How long a worker that is out of file descriptors waits before it accepts again. Connections that end meanwhile
/// make room; without a pause the worker would spin on the error.
const PAUSE_AFTER_ACCEPT_ERROR: Duration = Duration::from_millis(50);

/// Room that hyper may use for a head, over the configured limit, so that it is Relais who answers a head that is
/// too large, with its reason; beyond this, or with more than 100 fields over HTTP/1.1, hyper cuts it off with a bare 431.
const HEAD_SLACK: usize = 128 * 1024;

/// Streams that one connection of HTTP/2 may have open.
const STREAMS_MAX: u32 = 256;

/// What the system takes of answers that has not left yet (TCP_NOTSENT_LOWAT). It says that there is room for more once
/// half of it has left; unasked, once a third of all that the socket holds has, which grows to megabytes: an application
/// that takes little at a time would seem to take nothing. What is on its way is not bounded by this, nor is the speed.
const UNSENT: u32 = 128 * 1024;

/// What an application may send ahead of one body over HTTP/2: so much memory a request holds whose service takes nothing.
/// Where a byte is 20 ms on the way to the gateway and back, it bears 100 Mbit/s.
const STREAM_WINDOW: u32 = 256 * 1024;

/// The same for all bodies of a connection: 64 that are stuck leave room for others. Not for as many as there may be
/// streams, since h2 goes by half of this, too, in how many pieces below 256 bytes it keeps before it ends the
/// connection: here 33,000 of a byte, which take 7 MiB.
const CONNECTION_WINDOW: u32 = 64 * STREAM_WINDOW;

/// How long a connection on which nothing is under way is kept at a stop, for a request that may be on its way; its
/// answer says that it is the last one. An application that is at work sends one within that time, and one that is
/// not has nothing to lose but a connection. Half of the grace, where that is shorter.
const LINGER: Duration = Duration::from_secs(1);

/// Answers requests. One is made for each listener.
pub trait Answer: Clone + Send + Sync + 'static {
    /// A request that has no answer yet.
    type Taken: Send + 'static;

    /// What answers consist of.
    type Body: Body<Data = bytes::Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + 'static;

    /// Takes a request that came from there, as far as nothing has to be waited for.
    fn take(&self, peer: &Arc<Peer>, request: Request<Incoming>) -> Self::Taken;

    /// Answers it.
    fn answer(taken: Self::Taken) -> impl Future<Output = Response<Self::Body>> + Send;
}

/// A worker's share of a listener.
#[derive(Debug)]
pub struct Entry<A> {
    /// Where connections come from.
    pub listening: Listening,
    /// Absent where HTTP is spoken in clear text.
    pub security: Option<Security>,
    /// Absent where no tunnels are taken.
    pub authority: Option<Arc<Authority>>,
    /// What answers.
    pub answer: A,
}

/// What holds for all connections from applications.
#[derive(Clone, Debug)]
pub struct Inbound {
    /// Connections at once, over all listeners and workers.
    pub room: Arc<Semaphore>,
    /// The largest request head.
    pub request_head: usize,
    /// How long a head may take, a connection may stay idle, and an answer may find nobody who takes it.
    pub head_timeout: Duration,
    /// Where connections are counted.
    pub metrics: Arc<Metrics>,
}

impl Inbound {
    /// Serves `listeners` on the current runtime until `stop` turns true, then lets requests in flight finish for
    /// at most `grace`. Who has connected by then is served, too.
    pub async fn serve<A: Answer>(
        self,
        listeners: Vec<Entry<A>>,
        mut stop: watch::Receiver<bool>,
        grace: Duration,
    ) {
        // One for each worker: connections of all workers on one channel would get in each other's way.
        let (leave, leaving) = watch::channel(false);
        let linger = LINGER.min(grace / 2);
        let mut accepting = JoinSet::new();
        for entry in listeners {
            let connections = Connections {
                inbound: self.clone(),
                http: self.http(),
                security: entry.security,
                authority: entry.authority,
                answer: entry.answer,
                leaving: leaving.clone(),
                linger,
            };
            accepting.spawn(Arc::new(connections).accept(entry.listening));
        }
        drop(leaving);
        // An error means that whoever could have said stop is gone: stop.
        let _ = stop.wait_for(|stop| *stop).await;
        leave.send_replace(true);
        let all_ended = async {
            while accepting.join_next().await.is_some() {}
            leave.closed().await;
        };
        let _ = tokio::time::timeout(grace, all_ended).await;
    }

    fn http(&self) -> auto::Builder<TokioExecutor> {
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1()
            .header_read_timeout(self.head_timeout)
            // hyper's own limit on fields stays (`gateway::headers::FIELDS_MAX`).
            .max_buf_size(self.request_head + HEAD_SLACK)
            // The answer is the service's, its date included.
            .auto_date_header(false);
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(self.request_head + HEAD_SLACK).unwrap_or(u32::MAX))
            .keep_alive_interval(self.head_timeout)
            .auto_date_header(false);
        http
    }
}

/// A connection's room, and its place in the count. A tunnel has that of the connection in which it is.
type Held = Arc<(OwnedSemaphorePermit, Gauged)>;

/// The connections of one listener on one worker.
struct Connections<A> {
    inbound: Inbound,
    http: auto::Builder<TokioExecutor>,
    /// Absent where HTTP is spoken in clear text.
    security: Option<Security>,
    authority: Option<Arc<Authority>>,
    answer: A,
    /// Turns true when a stop begins. Held by each connection, so that its end is known.
    leaving: watch::Receiver<bool>,
    linger: Duration,
}

impl<A: Answer> Connections<A> {
    async fn accept(self: Arc<Self>, listener: Listening) {
        let mut leaving = self.leaving.clone();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = leaving.wait_for(|leaving| *leaving) => break,
            };
            match accepted {
                Ok(stream) => self.welcome(stream).await,
                Err(error) => {
                    report(&error);
                    tokio::time::sleep(PAUSE_AFTER_ACCEPT_ERROR).await;
                }
            }
        }
        match listener.close() {
            Ok(connected) => {
                for stream in connected {
                    self.welcome(stream).await;
                }
            }
            Err(error) => report(&error),
        }
    }

    async fn welcome(self: &Arc<Self>, stream: Stream) {
        let inbound = &self.inbound;
        // After the accept: a loop that held room while nobody comes would keep it from those of other listeners.
        let Ok(room) = Arc::clone(&inbound.room).acquire_owned().await else {
            return;
        };
        let held = Arc::new((room, inbound.metrics.inbound_connection()));
        if let Stream::Tcp(tcp) = &stream {
            // Without it those who read slowly are waited for less long, and nothing else is different.
            let _ = SockRef::from(tcp).set_tcp_notsent_lowat(UNSENT);
        }
        match (&self.security, stream) {
            (Some(security), Stream::Tcp(tcp)) => {
                let (connections, security) = (Arc::clone(self), security.clone());
                // Not here: the next one is accepted meanwhile.
                tokio::spawn(async move { connections.secure(security, tcp, held).await });
            }
            (_, stream) => {
                let peer = stream.peer();
                tokio::spawn(self.serve(stream, peer, held));
            }
        }
    }

    /// Serves a connection once its handshake is through, if that is in time.
    async fn secure(self: &Arc<Self>, security: Security, tcp: TcpStream, held: Held) {
        let accepting = security.accept(tcp, self.inbound.head_timeout);
        let Some(accepted) = self.unless_leaving(accepting).await else {
            return;
        };
        match accepted {
            Ok((stream, tls)) => {
                let peer = Peer {
                    tls: Some(Arc::new(tls)),
                    ..Peer::default()
                };
                self.serve(Stream::Tls(Box::new(stream)), peer, held).await;
            }
            // Whoever can connect can have this written.
            Err(error) => tracing::debug!(%error, "a TLS handshake with an application failed"),
        }
    }

    /// Waits for a handshake, unless a stop begins and it is not through soon.
    async fn unless_leaving<T>(&self, accepting: impl Future<Output = T>) -> Option<T> {
        let mut leaving = self.leaving.clone();
        // Most of what a handshake needs is not needed afterwards.
        let accepting = Box::pin(accepting);
        let leave = async {
            let _ = leaving.wait_for(|leaving| *leaving).await;
            tokio::time::sleep(self.linger).await;
        };
        tokio::select! {
            accepted = accepting => Some(accepted),
            () = leave => None,
        }
    }

    /// Takes the requests in a tunnel, if the answer to CONNECT says so.
    fn intercept<B>(
        self: &Arc<Self>,
        upgrade: OnUpgrade,
        (outer, held): (&Peer, &Held),
        answer: &Response<B>,
    ) -> bool {
        let tunnel = answer.extensions().get::<Arc<Tunnel>>();
        let (Some(tunnel), Some(authority)) = (tunnel, &self.authority) else {
            return false;
        };
        let peer = Peer {
            tunnel: Some(Arc::clone(tunnel)),
            ..outer.clone()
        };
        let authority = Arc::clone(authority);
        tokio::spawn(Arc::clone(self).take(authority, upgrade, peer, Arc::clone(held)));
        true
    }

    /// Serves what comes in a tunnel. In a box, since a connection would otherwise have to hold another like itself.
    fn take(
        self: Arc<Self>,
        authority: Arc<Authority>,
        upgrade: OnUpgrade,
        peer: Peer,
        held: Held,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let host = peer
                .tunnel
                .as_ref()
                .map(|tunnel| tunnel.authority.host().to_owned());
            let limit = HANDSHAKE.min(self.inbound.head_timeout);
            let accepting = tokio::time::timeout(limit, async {
                let upgraded = upgrade.await.map_err(io::Error::other)?;
                let host = host.unwrap_or_default();
                authority.accept(&host, TokioIo::new(upgraded)).await
            });
            match self.unless_leaving(async { accepting.await? }).await {
                Some(Ok(stream)) => {
                    self.serve(Stream::Tunnel(Box::new(stream)), peer, held)
                        .await;
                }
                Some(Err(error)) => tracing::debug!(%error, "a handshake in a tunnel failed"),
                None => {}
            }
        })
    }

    fn serve(
        self: &Arc<Self>,
        stream: Stream,
        peer: Peer,
        held: Held,
    ) -> impl Future<Output = ()> + use<A> {
        let stream = Patient::new(stream, self.inbound.head_timeout);
        let shared = Arc::new((Arc::clone(self), Arc::new(peer), held));
        let service = service_fn(move |mut request: Request<Incoming>| {
            let shared = Arc::clone(&shared);
            let version = request.version();
            let asks_to_leave = heads::asks_to_leave(&request);
            let tunnel =
                (request.method() == Method::CONNECT).then(|| hyper::upgrade::on(&mut request));
            let taken = shared.0.answer.take(&shared.1, request);
            async move {
                let mut response = A::answer(taken).await;
                let (connections, peer, held) = &*shared;
                if let Some(upgrade) = tunnel
                    && connections.intercept(upgrade, (peer, held), &response)
                {
                    return Ok(response);
                }
                // It changes once. To look at what it says would take a lock.
                if asks_to_leave || connections.leaving.has_changed().unwrap_or(true) {
                    say_goodbye(version, &mut response);
                }
                Ok::<_, Infallible>(response)
            }
        });
        let mut http = self.http.clone();
        http.http1().timer(OneAlarm::default());
        let connection = http
            .serve_connection_with_upgrades(TokioIo::new(stream), service)
            .into_owned();
        let (mut leaving, linger) = (self.leaving.clone(), self.linger);
        async move {
            let mut connection = pin!(connection);
            let leave = Seldom::new(async {
                let _ = leaving.wait_for(|leaving| *leaving).await;
                tokio::time::sleep(linger).await;
            });
            let ended = tokio::select! {
                biased;
                ended = connection.as_mut() => ended,
                () = leave => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(error, "a connection from an application ended early");
            }
        }
    }
}

/// Tells an application to send its next request on another connection. HTTP/2 has a frame for that, which says it
/// when the connection is asked to end.
fn say_goodbye<B>(version: Version, response: &mut Response<B>) {
    let is_upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if version < Version::HTTP_2 && !is_upgrade {
        (response.headers_mut()).insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

fn report(error: &io::Error) {
    tracing::warn!(%error, "a connection from an application could not be accepted");
}
