//! Whom to believe at the other end: the chain up to a trust anchor, and whether a certificate in it was revoked.
//!
//! `webpki` checks the chain. It could check revocation too, but verifies the signature over a whole list of
//! megabytes in every handshake; [`Revocations`] holds lists that were verified once.

mod known;

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use crate::identity::profile::name::rfc4514;
use crate::identity::revocation::Revocations;

use known::KnownChains;

/// Verifies services' certificates under one trust policy. Never changed: a new list makes another, and with it TLS
/// configurations whose sessions were all begun under that list.
#[derive(Debug)]
pub(crate) struct Verifier {
    chain: Arc<WebPkiServerVerifier>,
    /// None where the web's public authorities are believed: their lists are not for Relais to fetch.
    revocations: Option<Arc<Revocations>>,
    /// Chains that need not be verified again. A verifier has its own, and one of other anchors knows nothing of them.
    known: KnownChains,
}

impl Verifier {
    pub(super) fn new(
        chain: &Arc<WebPkiServerVerifier>,
        revocations: Option<&Arc<Revocations>>,
    ) -> Self {
        Self {
            chain: Arc::clone(chain),
            revocations: revocations.cloned(),
            known: KnownChains::default(),
        }
    }

    /// The same trust, with what is revoked by now.
    pub(super) fn with(&self, revocations: &Arc<Revocations>) -> Self {
        Self::new(&self.chain, Some(revocations))
    }

    /// Whether it says of each certificate what one made of these would say.
    pub(super) fn is_of(
        &self,
        chain: &Arc<WebPkiServerVerifier>,
        revocations: Option<&Arc<Revocations>>,
    ) -> bool {
        let is_same = match (&self.revocations, revocations) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        is_same && Arc::ptr_eq(&self.chain, chain)
    }

    /// Whether what it says of a certificate holds only as long as a list is in force.
    pub(super) fn must_know(&self) -> bool {
        (self.revocations.as_ref()).is_some_and(|revocations| revocations.must_know())
    }

    /// Nothing in the chain may be revoked. Only the service's own certificate can be in doubt: the configuration
    /// need not have the lists of roots.
    fn check_revocation(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let Some(revocations) = &self.revocations else {
            return Ok(());
        };
        for der in intermediates.iter().chain([leaf]) {
            let (_, certificate) =
                X509Certificate::from_der(der).map_err(|_| CertificateError::BadEncoding)?;
            let issuer = rfc4514(certificate.issuer());
            if revocations.revokes(&issuer, certificate.raw_serial()) {
                return Err(CertificateError::Revoked.into());
            }
            if der == leaf && revocations.is_in_doubt(&issuer, now.as_secs().cast_signed()) {
                return Err(CertificateError::UnknownRevocationStatus.into());
            }
        }
        Ok(())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !(self.known).has(end_entity, intermediates, server_name, now) {
            self.chain.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            )?;
            (self.known).add(end_entity, intermediates, server_name, now);
        }
        self.check_revocation(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests;
