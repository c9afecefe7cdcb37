//! How a simulator shakes hands: the certificate that it shows, and what it asks for.

use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{ClientCertificate, Settings};
use crate::outbound::tls::{provider, versions};
use crate::services::HttpVersions;
use crate::simulator::pki::{Pki, Purpose, Request as Order};

pub(super) fn config(settings: Settings, pki: &Pki) -> Result<Arc<ServerConfig>, rustls::Error> {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let issued = pki.issue(&Order {
        purpose: Purpose::SslServer(names),
        ..Order::new("3187512751", settings.name)
    });
    let chain = vec![issued.cert_der.clone(), pki.issuing_der().clone()];
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(issued.key.serialize_der()));
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(settings.tls))?;
    let builder = match settings.client {
        ClientCertificate::NotRequested => builder.with_no_client_auth(),
        ClientCertificate::Optional | ClientCertificate::Required => {
            let mut roots = RootCertStore::empty();
            roots.add(pki.root_der().clone())?;
            let mut verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
            if settings.client == ClientCertificate::Optional {
                verifier = verifier.allow_unauthenticated();
            }
            let verifier = verifier
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = match settings.http {
        HttpVersions::Auto => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        HttpVersions::H1 => vec![b"http/1.1".to_vec()],
        HttpVersions::H2 => vec![b"h2".to_vec()],
    };
    Ok(Arc::new(config))
}
