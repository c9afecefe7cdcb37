//! A server that takes the site's certificates except some: those that it does not know yet, as a service has it that
//! wants each renewal declared.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use relais::identity::profile::Profile;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

/// CNs that a server refuses; what is changed here counts from the next handshake on.
pub type Unknown = Arc<Mutex<HashSet<String>>>;

/// Refuses what `unknown` names, and leaves the rest to `others`.
#[derive(Debug)]
pub struct Picky {
    pub others: Arc<dyn ClientCertVerifier>,
    pub unknown: Unknown,
}

impl ClientCertVerifier for Picky {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.others.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let name = Profile::parse(leaf).unwrap().common_name.unwrap();
        if self.unknown.lock().unwrap().contains(&*name) {
            let reason = CertificateError::ApplicationVerificationFailure;
            return Err(Error::InvalidCertificate(reason));
        }
        self.others.verify_client_cert(leaf, chain, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.others
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.others
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.others.supported_verify_schemes()
    }
}
