//! The record of one request: kept while it runs, written and counted when its answer has ended.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{Method, Request, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::gateway::Entrance;
use crate::gateway::diagnosis::FaultReader;
use crate::gateway::limits::Places;
use crate::gateway::reply::Code;
use crate::gateway::table::Offered;
use crate::identity::finess::Finess;
use crate::outbound::body::{Download, Progress, Upload};
use crate::outbound::error::Error;
use crate::outbound::lease::Origin;
use crate::outbound::pool::Pool;

/// Who asked what of whom, under which certificate, and how it ended. Path, query, fields and bodies
/// are not here: they may hold an INS number or a token.
#[derive(Debug)]
pub struct Exchange {
    /// When the request's head had arrived.
    pub at: SystemTime,
    /// The same moment on the clock that measures.
    pub begun: Instant,
    /// The method.
    pub method: Method,
    /// The version that the application speaks.
    pub version: Version,
    /// The caller, once known, where there are callers.
    pub caller: Option<Arc<str>>,
    /// The tenant, once known.
    pub tenant: Option<Finess>,
    /// The service and its metrics, once known.
    pub offered: Option<Arc<Offered>>,
    /// The pool, and with it the certificate, once chosen.
    pub pool: Option<Arc<Pool>>,
    /// How the connection to the service was had, and what it speaks.
    pub connection: Option<(Origin, Version)>,
    /// The answer's status; 0 while there is none.
    pub status: u16,
    /// Why Relais answered itself.
    pub code: Option<Code>,
    /// What it counts as, among those that are under way.
    pub(crate) places: Option<Places>,
    /// The request's body.
    pub(crate) upload: Option<Arc<Progress>>,
    /// Bytes of the answer's body passed on.
    pub sent: u64,
    /// How the answer ended.
    pub outcome: Outcome,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The application went away before the end.
    Aborted,
    /// It was passed on to its end.
    Complete,
    /// It broke off on the service's side.
    Failed,
    /// The connection left HTTP for another protocol.
    Upgraded,
}

impl Outcome {
    /// The word that logs use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aborted => "aborted",
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Upgraded => "upgraded",
        }
    }
}

impl Exchange {
    /// Bytes of the request's body passed on.
    pub fn received(&self) -> u64 {
        self.upload.as_ref().map_or(0, |progress| progress.bytes())
    }
}

/// A request that has no answer yet. If the application goes away before there is one, the record says so.
#[derive(Debug)]
pub(crate) struct Unanswered(Option<Record>);

/// The record of a request, and where it will be written. In a box, because it is handed on several times.
pub(crate) type Record = Box<Open>;

/// A record that is not written yet.
pub(crate) struct Open {
    pub(crate) exchange: Exchange,
    /// What there is to send, as long as it has not left. Here it lies in one place, where it would be moved from one
    /// future to the next.
    pub(crate) unsent: Option<Request<Upload>>,
    /// Its target as the application wrote it.
    pub(crate) asked: Uri,
    /// The body of a request that is not sent. Let go before there is an answer, it would cost an application over
    /// HTTP/1.1 its connection: hyper would give up reading what is still to come of it.
    pub(crate) unwanted: Option<Incoming>,
    entrance: Arc<Entrance>,
}

/// Says nothing of what there is to send: tokens, and paths that may hold an INS number.
impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open")
            .field("exchange", &self.exchange)
            .finish_non_exhaustive()
    }
}

impl Open {
    /// Takes a request whose head is as the service is to see it, but for where it goes.
    pub(crate) fn take(
        &mut self,
        request: Request<Incoming>,
        into: impl FnOnce(Incoming) -> Upload,
    ) {
        let (mut parts, body) = request.into_parts();
        parts.extensions.clear();
        self.asked = std::mem::take(&mut parts.uri);
        let upload = into(body);
        self.exchange.upload = upload.progress().cloned();
        self.unsent = Some(Request::from_parts(parts, upload));
    }

    fn write(&self, took: Duration) {
        let Entrance {
            gateway, listener, ..
        } = &*self.entrance;
        gateway.log.write(listener, &self.exchange, took);
    }
}

impl Unanswered {
    pub(crate) fn new(exchange: Exchange, entrance: &Arc<Entrance>) -> Self {
        Self(Some(Box::new(Open {
            exchange,
            unsent: None,
            asked: Uri::default(),
            unwanted: None,
            entrance: Arc::clone(entrance),
        })))
    }

    pub(crate) fn record(&mut self) -> &mut Open {
        self.0.as_mut().expect("it is taken out with `self` only")
    }

    /// There is an answer now, and the record goes with it.
    pub(crate) fn answered(mut self) -> Record {
        let mut record = self.0.take().expect("it is taken out with `self` only");
        // What was not sent by now is not sent any more, and nobody is to go on uploading it. Nor is the head kept for as
        // long as the answer takes.
        record.unsent = None;
        record.unwanted = None;
        record.asked = Uri::default();
        record
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(mut record) = self.0.take() {
            record.exchange.outcome = Outcome::Aborted;
            record.write(record.exchange.begun.elapsed());
        }
    }
}

/// The body of an answer. Writes the record when it ends, or when the application no longer wants it.
#[derive(Debug)]
pub struct Reply {
    body: Content,
    /// Reads what passes, where it may be a fault that tells of the certificate.
    faults: Option<FaultReader>,
    record: Option<Record>,
}

#[derive(Debug)]
enum Content {
    Service(Download),
    Own(Option<Bytes>),
}

impl Reply {
    /// A service's answer.
    pub(crate) fn from_service(
        body: Download,
        faults: Option<FaultReader>,
        record: Record,
    ) -> Self {
        Self {
            body: Content::Service(body),
            faults,
            record: Some(record),
        }
    }

    /// What Relais itself has to say.
    pub(crate) fn own(text: Bytes, record: Record) -> Self {
        Self {
            body: Content::Own(Some(text)),
            faults: None,
            record: Some(record),
        }
    }

    fn end(&mut self, outcome: Outcome) {
        let Some(mut record) = self.record.take() else {
            return;
        };
        let exchange = &mut record.exchange;
        if exchange.outcome != Outcome::Upgraded {
            exchange.outcome = outcome;
        }
        let took = exchange.begun.elapsed();
        if let Some(offered) = &exchange.offered
            && exchange.code.is_none()
        {
            offered.metrics.answered(exchange.status, took);
        }
        record.write(took);
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let polled = match &mut this.body {
            Content::Service(download) => Pin::new(download).poll_frame(cx),
            Content::Own(text) => Poll::Ready(
                text.take()
                    .filter(|text| !text.is_empty())
                    .map(|text| Ok(Frame::data(text))),
            ),
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(record), Some(data)) = (&mut this.record, frame.data_ref()) {
                    let exchange = &mut record.exchange;
                    exchange.sent += data.len() as u64;
                    this.faults.take_if(|faults| !faults.read(data, exchange));
                }
                if this.is_end_stream() {
                    this.end(Outcome::Complete);
                }
            }
            Poll::Ready(Some(Err(_))) => this.end(Outcome::Failed),
            Poll::Ready(None) => this.end(Outcome::Complete),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Content::Service(download) => download.is_end_stream(),
            Content::Own(text) => text.as_ref().is_none_or(Bytes::is_empty),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Content::Service(download) => download.size_hint(),
            Content::Own(text) => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        // An answer without a body (HEAD, 204, 304) is complete although nobody polls it.
        let is_head =
            (self.record.as_ref()).is_some_and(|record| record.exchange.method == Method::HEAD);
        let outcome = if is_head || self.is_end_stream() {
            Outcome::Complete
        } else {
            Outcome::Aborted
        };
        self.end(outcome);
    }
}
