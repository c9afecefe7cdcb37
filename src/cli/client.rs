//! The small HTTP client with which commands ask a gateway on this machine.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use http::header::{HOST, HeaderValue};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Longer than a gateway takes to give up on a service by itself, so that its own answer is what is shown.
const PATIENCE: Duration = Duration::from_secs(90);

/// Sends a request, whose URI is a path, and reads the whole answer.
///
/// # Errors
/// When the gateway cannot be reached or does not answer.
pub async fn send(address: SocketAddr, request: Request<Bytes>) -> anyhow::Result<Response<Bytes>> {
    let what = format!("{} http://{address}{}", request.method(), request.uri());
    let exchange = async {
        let tcp = TcpStream::connect(address).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(tcp)).await?;
        tokio::spawn(connection);
        let mut request = request.map(Full::new);
        let host = HeaderValue::try_from(address.to_string())?;
        request.headers_mut().insert(HOST, host);
        let (parts, body) = sender.send_request(request).await?.into_parts();
        anyhow::Ok(Response::from_parts(
            parts,
            body.collect().await?.to_bytes(),
        ))
    };
    tokio::time::timeout(PATIENCE, exchange)
        .await
        .map_err(|_| anyhow!("no answer within {PATIENCE:?}"))
        .flatten()
        .context(what)
}
