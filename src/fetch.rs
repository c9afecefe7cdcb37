//! One HTTP exchange of the side plane: a revocation list fetched, a notice handed over, a gateway asked.
//!
//! A connection each, HTTP/1.1, no redirects, and a bound on time and on size.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::outbound::dial::Dialer;
use crate::outbound::tls;
use crate::outbound::trust::Believed;
use crate::services::Target;

/// How long all addresses of a host together may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("{0}")]
    Connect(#[from] crate::outbound::error::Error),
    #[error("TLS handshake failed: {0}")]
    Handshake(#[source] io::Error),
    #[error("the exchange broke off: {0}")]
    Http(#[from] hyper::Error),
    #[error("the URL cannot be used")]
    Url,
    #[error("there was no whole answer within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
}

/// A TLS client that believes these anchors and shows no certificate.
pub(crate) fn tls_client(believed: &Believed) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for TLS 1.2 and 1.3")
        .with_webpki_verifier(Arc::clone(&believed.chain))
        .with_no_client_auth();
    Arc::new(config)
}

/// Sends a request to the host of its URI and reads the answer whole: over TLS if a client for it is given, else
/// in the clear.
pub(crate) async fn exchange(
    request: Request<Bytes>,
    tls: Option<&Arc<ClientConfig>>,
    within: Duration,
    at_most: usize,
) -> Result<Response<Bytes>, FetchError> {
    tokio::time::timeout(within, attempt(request, tls, at_most))
        .await
        .map_err(|_| FetchError::Timeout(within))?
}

async fn attempt(
    mut request: Request<Bytes>,
    tls: Option<&Arc<ClientConfig>>,
    at_most: usize,
) -> Result<Response<Bytes>, FetchError> {
    let target = target(request.uri())?;
    let host = request.uri().authority().ok_or(FetchError::Url)?.as_str();
    let host = HeaderValue::from_str(host).map_err(|_| FetchError::Url)?;
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.unwrap_or(PathAndQuery::from_static("/")).into();
    let agent = HeaderValue::from_static(concat!("relais/", env!("CARGO_PKG_VERSION")));
    request.headers_mut().insert(HOST, host);
    request.headers_mut().insert(USER_AGENT, agent);
    let tcp = Dialer::default().connect(&target, CONNECT).await?;
    let Some(config) = tls else {
        return converse(tcp, request, at_most).await;
    };
    let name = ServerName::try_from(target.host().to_owned()).map_err(|_| FetchError::Url)?;
    let connected = TlsConnector::from(Arc::clone(config)).connect(name, tcp);
    let stream = connected.await.map_err(FetchError::Handshake)?;
    converse(stream, request, at_most).await
}

fn target(uri: &Uri) -> Result<Target, FetchError> {
    let authority = uri.authority().ok_or(FetchError::Url)?;
    let in_clear = uri.scheme() == Some(&Scheme::HTTP);
    let authority = match authority.port() {
        None if in_clear => Authority::try_from(format!("{authority}:80")),
        _ => Ok(authority.clone()),
    };
    Ok(Target {
        authority: authority.map_err(|_| FetchError::Url)?,
        base_path: Box::default(),
        address: None,
    })
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Bytes>,
    at_most: usize,
) -> Result<Response<Bytes>, FetchError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with this function, however it ends.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let (head, body) = sender
        .send_request(request.map(Full::new))
        .await?
        .into_parts();
    let body = Limited::new(body, at_most).collect().await;
    let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
        Ok(error) => FetchError::Http(*error),
        Err(error) => {
            debug_assert!(error.is::<LengthLimitError>(), "{error}");
            FetchError::TooLarge(at_most)
        }
    })?;
    Ok(Response::from_parts(head, body.to_bytes()))
}
