//! What files are made of once decoded: certificates and private keys, not yet put together.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest;
use pkcs8::LineEnding;
use pkcs8::der::Document;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::SigningKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer as _;

use super::problem::{Problem, ProblemKind};
use crate::identity::profile::{Fingerprint, Profile, ProfileError, Usage};

/// All that one file holds.
#[derive(Default)]
pub(super) struct Material {
    pub(super) certificates: Vec<Arc<Certificate>>,
    pub(super) keys: Vec<Key>,
    pub(super) problems: Vec<Problem>,
}

impl Material {
    /// That of a file of which nothing could be decoded.
    pub(super) fn failed(problem: Problem) -> Self {
        Self {
            problems: vec![problem],
            ..Self::default()
        }
    }

    /// Makes all files share the authorities' certificates, which every bundle repeats: this halves what a large
    /// folder needs, and tells at a glance whether a chain is as before.
    pub(super) fn share_authorities(&mut self, known: &mut HashMap<Fingerprint, Arc<Certificate>>) {
        for certificate in self
            .certificates
            .iter_mut()
            .filter(|certificate| certificate.is_authority())
        {
            let first = known
                .entry(certificate.profile.fingerprint)
                .or_insert_with(|| Arc::clone(certificate));
            *certificate = Arc::clone(first);
        }
    }
}

/// The SHA-256 of something in DER.
pub(crate) type Hash = [u8; 32];

/// The SHA-256 of a public key (SubjectPublicKeyInfo): what a certificate and its key have in common.
pub(crate) type PublicKey = Fingerprint;

/// A private key, ready to sign.
pub(super) struct Key {
    pub(super) signing: Arc<dyn SigningKey>,
    pub(super) public: PublicKey,
}

/// A certificate, and what it takes to find its key and its issuer.
pub(crate) struct Certificate {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) profile: Arc<Profile>,
    /// Names and key identifiers, to find issuers by. Hashes, because all files of a folder are held at once.
    pub(super) subject: Hash,
    pub(super) issuer: Hash,
    subject_key: Option<Hash>,
    authority_key: Option<Hash>,
}

impl Certificate {
    pub(crate) fn is_authority(&self) -> bool {
        self.profile.usage == Usage::Authority
    }

    /// The certificate in PEM.
    pub(crate) fn to_pem(&self) -> String {
        (Document::try_from(&*self.der))
            .and_then(|document| document.to_pem("CERTIFICATE", LineEnding::LF))
            .expect("a certificate that was read is DER, and its label is RFC 7468's")
    }

    pub(crate) fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }

    /// Whether `other` may have issued it, by names and key identifiers; the peer verifies the signature.
    pub(crate) fn is_issued_by(&self, other: &Self) -> bool {
        let same_key = match (&self.authority_key, &other.subject_key) {
            (Some(wanted), Some(found)) => wanted == found,
            _ => true,
        };
        other.is_authority() && self.issuer == other.subject && same_key
    }
}

/// Reads a certificate in DER.
pub(super) fn certificate(der: &[u8]) -> Result<Certificate, ProblemKind> {
    let (rest, parsed) = X509Certificate::from_der(der)
        .map_err(|_| ProblemKind::Certificate(ProfileError::Malformed))?;
    if !rest.is_empty() {
        return Err(ProblemKind::Certificate(ProfileError::TrailingBytes(
            rest.len(),
        )));
    }
    let profile = Profile::of(&parsed, der).map_err(ProblemKind::Certificate)?;
    let (mut subject_key, mut authority_key) = (None, None);
    for extension in parsed.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => subject_key = Some(sha256(id.0)),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                authority_key = id.key_identifier.as_ref().map(|id| sha256(id.0));
            }
            _ => {}
        }
    }
    Ok(Certificate {
        profile: Arc::new(profile),
        subject: sha256(parsed.subject().as_raw()),
        issuer: sha256(parsed.issuer().as_raw()),
        subject_key,
        authority_key,
        der: CertificateDer::from(der.to_vec()),
    })
}

/// Makes a private key ready to sign. The DER stays the caller's to wipe.
pub(super) fn key(der: &PrivateKeyDer<'_>) -> Result<Key, ProblemKind> {
    let signing = any_supported_type(der).map_err(|_| ProblemKind::Key)?;
    let public = signing
        .public_key()
        .map(|public| Fingerprint::of(public.as_ref()))
        .ok_or(ProblemKind::Key)?;
    Ok(Key { signing, public })
}

pub(crate) fn sha256(bytes: &[u8]) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}
