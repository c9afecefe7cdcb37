//! One request's hold on a connection, and the request put in the form that the connection speaks.

use std::sync::Arc;

use http::header::{CONNECTION, HOST, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{PathAndQuery, Scheme};
use http::{Request, Response, Uri, Version};
use hyper::body::Incoming;

use crate::outbound::body::Upload;
use crate::outbound::connection::{H1, Stream};
use crate::outbound::error::Error;
use crate::outbound::pool::{self, Pool};
use crate::outbound::tls::Handshake;
use crate::waiting::Alarm;

/// A connection (or a stream of one) that serves one request. It remembers its own pool, and can return to no
/// other: that is how a connection never carries another identity's request.
#[derive(Debug)]
pub struct Lease {
    pool: Arc<Pool>,
    /// Absent once it was given back.
    line: Option<Line>,
    version: Version,
    origin: Origin,
}

#[derive(Debug)]
enum Line {
    H1(Box<H1>),
    H2(Stream),
}

/// Where a leased connection came from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// It lay idle, or had room for one more stream.
    Reused,
    /// It was opened for this request with a full handshake.
    Full,
    /// It was opened for this request by resuming a TLS session of the same generation.
    Resumed,
}

impl Origin {
    /// The word that logs use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reused => "reused",
            Self::Full => "full",
            Self::Resumed => "resumed",
        }
    }
}

impl From<Handshake> for Origin {
    fn from(handshake: Handshake) -> Self {
        match handshake {
            Handshake::Full => Self::Full,
            Handshake::Resumed => Self::Resumed,
        }
    }
}

impl Lease {
    pub(crate) fn h1(pool: Arc<Pool>, connection: Box<H1>, origin: Origin) -> Self {
        Self {
            pool,
            line: Some(Line::H1(connection)),
            version: Version::HTTP_11,
            origin,
        }
    }

    pub(crate) fn h2(pool: Arc<Pool>, stream: Stream, origin: Origin) -> Self {
        Self {
            pool,
            line: Some(Line::H2(stream)),
            version: Version::HTTP_2,
            origin,
        }
    }

    /// Where the connection came from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// `HTTP/1.1` or `HTTP/2.0`.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Sends a request whose URI is a path and query, without `Host`. After an error, what is still there has not left:
    /// not a byte of it.
    pub(crate) async fn send(
        &mut self,
        unsent: &mut Option<Request<Upload>>,
    ) -> Result<Response<Incoming>, Error> {
        const UNSENT: &str = "there is a request to send";
        let line = self.line.as_mut();
        let request = unsent.as_mut().expect(UNSENT);
        let sent = match line.expect("who gives a lease back has it no longer") {
            Line::H1(h1) => {
                self.pool.address_h1(request);
                let request = unsent.take().expect(UNSENT);
                h1.sender.try_send_request(request).await
            }
            Line::H2(stream) => {
                self.pool.address_h2(request);
                let request = unsent.take().expect(UNSENT);
                let mut sender = stream.connection.sender.clone();
                let sent = sender.try_send_request(request).await;
                if sent.is_ok() {
                    stream.connection.answered();
                }
                sent
            }
        };
        sent.map_err(|mut failed| {
            *unsent = failed.take_message();
            let error = Error::from_exchange(failed.into_error());
            match &self.line {
                Some(Line::H2(stream)) => stream.connection.explain(error),
                _ => error,
            }
        })
    }

    /// The timer of the connection's deadlines, to be given back: one is kept for all requests of an HTTP/1.1
    /// connection.
    pub(crate) fn take_alarm(&mut self) -> Option<Alarm> {
        match &mut self.line {
            Some(Line::H1(h1)) => {
                let own = h1.alarm.take_if(|(worker, _)| *worker == pool::worker());
                own.map(|(_, alarm)| alarm)
            }
            _ => None,
        }
    }

    pub(crate) fn keep_alarm(&mut self, alarm: Alarm) {
        if let Some(Line::H1(h1)) = &mut self.line {
            h1.alarm = Some((pool::worker(), alarm));
        }
    }

    /// Returns the connection to the pool that it came from.
    pub fn give_back(mut self) {
        // A stream is over when it is dropped.
        if let Some(Line::H1(h1)) = self.line.take() {
            self.pool.give_back(h1);
        }
    }

    /// The same for a connection that nobody has used, which takes a moment to begin: done only when it lies ready.
    pub(crate) async fn give_back_ready(mut self) {
        if let Some(Line::H1(h1)) = self.line.take() {
            Arc::clone(&self.pool).take_back(h1).await;
        }
    }

    /// Ends a failed exchange. An HTTP/1.1 connection is closed; an HTTP/2 one keeps its other streams, but takes
    /// no new one when the failure casts doubt on it.
    pub(crate) fn end(self, error: &Error) {
        if let Some(Line::H2(stream)) = &self.line
            && error.taints_connection()
        {
            stream.connection.drain();
            // Nobody is to wait for another stream of it.
            self.pool.grew();
        }
    }
}

/// An exchange that was not brought to its end costs an HTTP/1.1 connection, and an HTTP/2 one a stream.
impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(Line::H1(h1)) = self.line.take() {
            h1.cut();
        }
    }
}

/// Puts a request in HTTP/1.1's form: origin-form target and a `Host` field (RFC 9112 section 3.2.1).
pub(crate) fn in_h1_form(request: &mut Request<Upload>, host: HeaderValue) {
    // Only what came back unsent from an HTTP/2 connection has more than that.
    if request.uri().authority().is_some() {
        *request.uri_mut() = Uri::from(take_path(request));
    }
    *request.version_mut() = Version::HTTP_11;
    request.headers_mut().insert(HOST, host);
}

/// Puts a request in HTTP/2's form: absolute target, no connection-specific field (RFC 9113 section 8.2.2).
pub(crate) fn in_h2_form(request: &mut Request<Upload>, authority: &http::uri::Authority) {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTPS);
    parts.authority = Some(authority.clone());
    parts.path_and_query = Some(take_path(request));
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    *request.version_mut() = Version::HTTP_2;
    let headers = request.headers_mut();
    for name in [HOST, CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    if headers.get(TE).is_some_and(|te| te != "trailers") {
        headers.remove(TE);
    }
    // Values are slices of the buffer that the head arrived in, and HPACK's table keeps values for as long as the
    // connection lasts: a field that changes with each request would pin a whole buffer for each of its values
    // (measured: 0.7 MiB for a connection).
    for value in headers.values_mut() {
        let sensitive = value.is_sensitive();
        if let Ok(copy) = HeaderValue::from_bytes(value.as_bytes()) {
            *value = copy;
            value.set_sensitive(sensitive);
        }
    }
}

/// The path and query: taken, because a copy of a path that was just made costs an allocation.
fn take_path(request: &mut Request<Upload>) -> PathAndQuery {
    std::mem::take(request.uri_mut())
        .into_parts()
        .path_and_query
        .unwrap_or_else(|| PathAndQuery::from_static("/"))
}
