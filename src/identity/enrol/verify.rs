//! Whether a delivered certificate may be served here.

use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, Error, RootCertStore};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::Refusal;
use crate::config::Config;
use crate::identity::load::{Certificate, Unpacker};
use crate::identity::profile::Profile;
use crate::identity::revocation::Revocations;
use crate::identity::select::objection_to_all;
use crate::identity::states::timestamp;
use crate::services::{Environment, Trust};

/// Everything that keeps a certificate from being served in these environments, now.
pub(super) fn objections(
    profile: &Profile,
    environments: &[Environment],
    revocations: &Revocations,
    now: i64,
) -> Vec<Refusal> {
    let mut found = Vec::new();
    let mut object = |message: String, hint: &str| found.push(Refusal::new(message, hint));
    if let Some((rule, text)) = objection_to_all(profile) {
        object(format!("it {text}"), rule.remedy());
    }
    if let Some(own) = profile
        .environment
        .filter(|own| !environments.contains(own))
    {
        object(
            format!("a {own} certificate, and this configuration has no {own} service"),
            "order it in the other environment, or name the configuration file of that one with --config",
        );
    }
    if profile.structure.is_none() {
        object(
            "its OU names no structure".to_owned(),
            "order one in a structure's name: the platform writes its number into the OU",
        );
    }
    if revocations.is_revoked(profile) {
        object("it is revoked".to_owned(), "order another, with a new key");
    }
    if now > profile.not_after {
        object(
            format!("it expired on {}", timestamp(profile.not_after)),
            "order its renewal",
        );
    }
    found
}

/// The authorities in the `trust` files of all services. That each can be read was seen with the configuration.
pub(super) fn trusted(config: &Config, unpacker: &Unpacker) -> Vec<Arc<Certificate>> {
    let mut files: Vec<_> = (config.services.iter())
        .filter_map(|service| match &service.trust {
            Trust::File(path) => Some(path),
            Trust::Public => None,
        })
        .collect();
    files.sort();
    files.dedup();
    (files.into_iter())
        .filter_map(|file| unpacker.unpack(file).ok())
        .flat_map(|unpacked| unpacked.certificates)
        .collect()
}

/// The chain to show: the leaf, then its issuers as far as they are known, without the self-signed root.
pub(super) fn chain<'a>(
    leaf: &'a Certificate,
    delivered: &'a [Arc<Certificate>],
    trusted: &'a [Arc<Certificate>],
) -> Vec<&'a Certificate> {
    let mut chain = vec![leaf];
    // Circular chains exist; none is longer than the number of certificates.
    while chain.len() <= delivered.len() + trusted.len()
        && let Some(last) = chain.last()
        && let Some(issuer) = (delivered.iter().chain(trusted)).find(|one| last.is_issued_by(one))
        && !issuer.is_self_issued()
    {
        chain.push(issuer);
    }
    chain
}

/// Follows the signatures to one of the authorities that the configuration trusts, as a service would.
///
/// Nothing is returned when all is well, a warning when no authority here has the issuer's name.
pub(super) fn signatures(
    chain: &[&Certificate],
    trusted: &[Arc<Certificate>],
    now: i64,
) -> Result<Option<String>, Refusal> {
    let unknown = || {
        "no `trust` file of the configuration has its issuer, so its signature was not verified"
            .to_owned()
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(trusted.iter().map(|authority| authority.der.clone()));
    let provider = Arc::new(default_provider());
    let Ok(verifier) =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()
    else {
        return Ok(Some(unknown()));
    };
    let [leaf, issuers @ ..] = chain else {
        return Ok(Some(unknown()));
    };
    let issuers: Vec<CertificateDer<'_>> = issuers.iter().map(|one| one.der.clone()).collect();
    // One that has not begun may be put in place in time.
    let at = u64::try_from(now.max(leaf.profile.not_before)).unwrap_or_default();
    let at = UnixTime::since_unix_epoch(Duration::from_secs(at));
    match verifier.verify_client_cert(&leaf.der, &issuers, at) {
        Ok(_) => Ok(None),
        Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => Ok(Some(unknown())),
        Err(error) => Err(Refusal::new(
            format!("its chain does not verify: {error}"),
            "compare it with what the platform delivers, and the `trust` files with the authorities that the ANS publishes",
        )),
    }
}
