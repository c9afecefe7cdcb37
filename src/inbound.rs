//! How did it arrive: listeners, and HTTP/1.1 or h2c on what they accept.
//!
//! Generic over what answers; knows no tenant and no certificate.

pub mod listener;
mod patience;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::inbound::listener::Listening;
use crate::inbound::patience::Patient;
use crate::metrics::Metrics;

/// How long a worker that is out of file descriptors waits before it accepts again. Connections that end meanwhile
/// make room; without a pause the worker would spin on the error.
const PAUSE_AFTER_ACCEPT_ERROR: Duration = Duration::from_millis(50);

/// Room that hyper may use for a head, over the configured limit, so that it is Relais who answers a head that is
/// too large, with its reason; beyond this hyper cuts it off with a bare 431.
const HEAD_SLACK: usize = 128 * 1024;

/// Fields in a head. hyper's 100 is its own; a SOAP stack behind two proxies stays far below either.
const FIELDS_MAX: usize = 256;

/// Streams that one h2c connection may have open.
const STREAMS_MAX: u32 = 256;

/// Answers requests. One is made for each listener.
pub trait Answer: Clone + Send + 'static {
    /// What answers consist of.
    type Body: Body<Data = bytes::Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + 'static;

    /// Answers one request.
    fn answer(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Self::Body>> + Send;
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
    /// at most `grace`.
    pub async fn serve<A: Answer>(
        self,
        listeners: Vec<(Listening, A)>,
        mut stop: watch::Receiver<bool>,
        grace: Duration,
    ) {
        let graceful = Arc::new(GracefulShutdown::new());
        let mut accepting = JoinSet::new();
        for (listener, answer) in listeners {
            accepting.spawn(self.clone().accept(listener, answer, Arc::clone(&graceful)));
        }
        // An error means that whoever could have said stop is gone: stop.
        let _ = stop.wait_for(|stop| *stop).await;
        accepting.shutdown().await;
        if let Some(graceful) = Arc::into_inner(graceful) {
            let _ = tokio::time::timeout(grace, graceful.shutdown()).await;
        }
    }

    async fn accept<A: Answer>(
        self,
        listener: Listening,
        answer: A,
        graceful: Arc<GracefulShutdown>,
    ) {
        let http = self.http();
        loop {
            let stream = match listener.accept().await {
                Ok(stream) => stream,
                Err(error) => {
                    report(&error);
                    tokio::time::sleep(PAUSE_AFTER_ACCEPT_ERROR).await;
                    continue;
                }
            };
            // After the accept: a loop that held room while nobody comes would keep it from those of other listeners.
            let Ok(room) = Arc::clone(&self.room).acquire_owned().await else {
                return;
            };
            let held = (room, self.metrics.inbound_connection());
            let stream = Patient::new(stream, self.head_timeout);
            let served = serve(http.clone(), stream, answer.clone(), graceful.watcher());
            tokio::spawn(async move {
                served.await;
                drop(held);
            });
        }
    }

    fn http(&self) -> auto::Builder<TokioExecutor> {
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.head_timeout)
            .max_buf_size(self.request_head + HEAD_SLACK)
            .max_headers(FIELDS_MAX)
            // The answer is the service's, its date included.
            .auto_date_header(false);
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(u32::try_from(self.request_head + HEAD_SLACK).unwrap_or(u32::MAX))
            .keep_alive_interval(self.head_timeout)
            .auto_date_header(false);
        http
    }
}

async fn serve<A: Answer>(
    http: auto::Builder<TokioExecutor>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    answer: A,
    watcher: Watcher,
) {
    let service = service_fn(move |request| {
        let answer = answer.clone();
        async move { Ok::<_, Infallible>(answer.answer(request).await) }
    });
    let connection = http.serve_connection_with_upgrades(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection.into_owned()).await {
        tracing::debug!(error, "a connection from an application ended early");
    }
}

fn report(error: &io::Error) {
    tracing::warn!(%error, "a connection from an application could not be accepted");
}
