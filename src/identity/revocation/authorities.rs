//! Whose revocation lists are believed.

use std::collections::{BTreeMap, HashSet};

use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;

use super::crl::Crl;
use super::problem::CrlProblem;
use crate::identity::profile::name::rfc4514;

/// The certificates of the authorities whose lists are believed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Authorities(HashSet<CertificateDer<'static>>);

impl Authorities {
    /// `anchors` are believed as they are. `others`, such as the chains that certificates came with, are if an
    /// authority already believed has signed them: whoever hands in a chain must not revoke others' certificates.
    pub fn new<'a>(
        anchors: impl IntoIterator<Item = &'a CertificateDer<'static>>,
        others: impl IntoIterator<Item = &'a CertificateDer<'static>>,
    ) -> Self {
        let mut authorities = Self(distinct(anchors));
        // Thousands of chains repeat a handful of authorities.
        let mut waiting = distinct(others);
        loop {
            let (signed, rest): (HashSet<_>, HashSet<_>) = waiting
                .into_iter()
                .partition(|other| authorities.have_signed(other));
            if signed.is_empty() {
                return authorities;
            }
            authorities.0.extend(signed);
            waiting = rest;
        }
    }

    /// Verifies a list's signature.
    pub(super) fn verify(
        &self,
        issuer: &str,
        crl: &CertificateRevocationList<'_>,
    ) -> Result<(), CrlProblem> {
        let mut issuers = self.named(issuer).peekable();
        if issuers.peek().is_none() {
            return Err(CrlProblem::UnknownIssuer(issuer.to_owned()));
        }
        // An authority that has changed its key has a certificate for each.
        if issuers.any(|one| crl.verify_signature(one.public_key()).is_ok()) {
            return Ok(());
        }
        Err(CrlProblem::BadSignature(issuer.to_owned()))
    }

    /// The names of authorities of which a list names every certificate that is known. Whoever has renewed a
    /// certificate may have the old one revoked, and goes on under the new one.
    pub(super) fn revoked_by(&self, crl: &Crl) -> Box<[Box<str>]> {
        let mut names: BTreeMap<String, bool> = BTreeMap::new();
        for one in self.parsed() {
            let is_named = rfc4514(one.issuer()) == *crl.issuer && crl.has(one.raw_serial());
            *names.entry(rfc4514(one.subject())).or_insert(true) &= is_named;
        }
        let revoked = names.into_iter().filter(|(_, all_named)| *all_named);
        revoked.map(|(name, _)| name.into()).collect()
    }

    fn have_signed(&self, der: &CertificateDer<'_>) -> bool {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            return false;
        };
        self.named(&rfc4514(certificate.issuer()))
            .any(|one| certificate.verify_signature(Some(one.public_key())).is_ok())
    }

    /// The authorities of that name that may sign lists (RFC 5280 section 6.3.3 f).
    fn named(&self, name: &str) -> impl Iterator<Item = X509Certificate<'_>> {
        self.parsed()
            .filter(move |one| rfc4514(one.subject()) == name && may_sign_lists(one))
    }

    fn parsed(&self) -> impl Iterator<Item = X509Certificate<'_>> {
        self.0.iter().filter_map(|der| {
            let (_, certificate) = X509Certificate::from_der(der).ok()?;
            Some(certificate)
        })
    }
}

fn distinct<'a>(
    certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>,
) -> HashSet<CertificateDer<'static>> {
    // Compared before they are copied: thousands of chains repeat a handful.
    let distinct: HashSet<_> = certificates.into_iter().collect();
    distinct.into_iter().cloned().collect()
}

fn may_sign_lists(certificate: &X509Certificate<'_>) -> bool {
    let key_usage = certificate.key_usage();
    certificate.is_ca()
        && key_usage.is_ok_and(|usage| usage.is_none_or(|usage| usage.value.crl_sign()))
}
