//! What a simulator saw of a request and of whom it came from, and the plain answer that says it.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{HeaderName, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use rustls::HandshakeKind;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::identity::profile::{Fingerprint, Profile};

/// The SHA-256 of the client certificate that a simulator saw, on each of its answers.
pub const X_CLIENT_SHA256: HeaderName = HeaderName::from_static("x-client-sha256");

/// The structure id in the client certificate that a simulator saw, on each of its answers.
pub const X_CLIENT_OU: HeaderName = HeaderName::from_static("x-client-ou");

/// What a simulator saw of a request: its answer, in JSON.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Seen {
    /// The simulator's name.
    pub service: String,
    /// The request's method.
    pub method: String,
    /// The request's path and query.
    pub path: String,
    /// The HTTP version.
    pub http: String,
    /// The TLS version.
    pub tls: String,
    /// Whether the TLS session was resumed.
    pub resumed: bool,
    /// The client certificate's subject (RFC 4514), if one was shown.
    pub subject: Option<String>,
    /// Its structure id.
    pub ou: Option<String>,
    /// Its CN.
    pub cn: Option<String>,
    /// Its SHA-256.
    pub sha256: Option<String>,
    /// The request's fields, one a line.
    pub headers: Vec<(String, String)>,
    /// Bytes in the request's body.
    pub body_bytes: usize,
}

/// What is known of a connection once its handshake is done.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) profile: Option<Arc<Profile>>,
    fingerprint: Option<Fingerprint>,
    tls: String,
    pub(super) resumed: bool,
}

pub(super) fn peer(session: &rustls::ServerConnection) -> Peer {
    let leaf: Option<&CertificateDer<'_>> =
        session.peer_certificates().and_then(|chain| chain.first());
    let profile = leaf
        .and_then(|leaf| Profile::parse(leaf).ok())
        .map(Arc::new);
    Peer {
        fingerprint: profile.as_ref().map(|profile| profile.fingerprint),
        profile,
        tls: session
            .protocol_version()
            .map(|version| format!("{version:?}"))
            .unwrap_or_default(),
        resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
    }
}

/// Answers with what was seen, or with the body itself where the path ends in `/echo`.
pub(super) async fn plain(
    name: &str,
    peer: &Peer,
    request: Request<Incoming>,
) -> Response<BoxBody<Bytes, hyper::Error>> {
    let (head, body) = request.into_parts();
    if head.uri.path().ends_with("/echo") {
        let mut response = Response::new(body.boxed());
        if let Some(content_type) = head.headers.get(CONTENT_TYPE) {
            response
                .headers_mut()
                .insert(CONTENT_TYPE, content_type.clone());
        }
        return response;
    }
    let mut seen = saw(name, peer, &head);
    let Ok(body) = body.collect().await else {
        return Response::new(whole(Bytes::new()));
    };
    seen.body_bytes = body.to_bytes().len();
    let json = serde_json::to_vec_pretty(&seen).unwrap_or_default();
    let mut response = Response::new(whole(json.into()));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(super) fn whole(bytes: Bytes) -> BoxBody<Bytes, hyper::Error> {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

pub(super) fn saw(name: &str, peer: &Peer, head: &Parts) -> Seen {
    let profile = peer.profile.as_deref();
    let text = |(name, value): (&HeaderName, &HeaderValue)| {
        (
            name.to_string(),
            String::from_utf8_lossy(value.as_bytes()).into_owned(),
        )
    };
    Seen {
        service: name.to_owned(),
        method: head.method.to_string(),
        path: head
            .uri
            .path_and_query()
            .map(ToString::to_string)
            .unwrap_or_default(),
        http: format!("{:?}", head.version),
        tls: peer.tls.clone(),
        resumed: peer.resumed,
        subject: profile.map(|profile| profile.subject.to_string()),
        ou: profile
            .and_then(|profile| profile.structure.as_ref())
            .map(ToString::to_string),
        cn: profile
            .and_then(|profile| profile.common_name.as_deref())
            .map(str::to_owned),
        sha256: peer.fingerprint.map(|fingerprint| fingerprint.to_string()),
        headers: head.headers.iter().map(text).collect(),
        body_bytes: 0,
    }
}

/// Says on the answer itself whose certificate was seen, so that a load generator need not read bodies.
pub(super) fn mark(response: &mut Response<BoxBody<Bytes, hyper::Error>>, peer: &Peer) {
    let structure = peer
        .profile
        .as_ref()
        .and_then(|profile| profile.structure.as_ref());
    let fields = [
        (X_CLIENT_OU, structure.map(ToString::to_string)),
        (
            X_CLIENT_SHA256,
            peer.fingerprint.map(|fingerprint| fingerprint.to_string()),
        ),
    ];
    for (name, value) in fields {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
}
