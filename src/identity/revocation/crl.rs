//! One revocation list: read, verified, and reduced to the serial numbers that it names.

use std::fmt;

use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::{
    OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER, OID_X509_EXT_CRL_NUMBER,
    OID_X509_EXT_DELTA_CRL_INDICATOR, OID_X509_EXT_ISSUER_DISTRIBUTION_POINT,
};
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;

use super::List;
use super::authorities::Authorities;
use super::problem::CrlProblem;
use crate::identity::profile::Fingerprint;
use crate::identity::profile::name::rfc4514;

/// The largest list read, in bytes: some 900,000 entries, where IGC-Santé has issued fewer certificates in all.
pub const LARGEST: usize = 32 << 20;

/// A revocation list that its issuer has signed.
pub struct Crl {
    /// The issuer, as RFC 4514 writes it.
    pub issuer: Box<str>,
    /// When it was made, in seconds since 1970.
    pub this_update: i64,
    /// When its successor is due at the latest, in seconds since 1970.
    pub next_update: i64,
    /// Whether it is about certificates of authorities only, and leaves those of servers and structures in doubt.
    pub of_authorities: bool,
    /// The SHA-256 of the bytes that it was read from.
    pub(super) fingerprint: Fingerprint,
    /// Big-endian without leading zeros, in order.
    serials: Box<[Box<[u8]>]>,
    /// The names of authorities that it takes their powers from.
    pub(super) authorities: Box<[Box<str>]>,
}

impl fmt::Debug for Crl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crl")
            .field("issuer", &self.issuer)
            .field("next_update", &self.next_update)
            .field("entries", &self.entries())
            .finish_non_exhaustive()
    }
}

impl Crl {
    /// A list of one entry that never ends.
    #[cfg(test)]
    pub(super) fn naming(issuer: &str, serial: &[u8]) -> Self {
        Self {
            issuer: issuer.into(),
            this_update: 0,
            next_update: i64::MAX,
            of_authorities: false,
            fingerprint: Fingerprint::of(serial),
            serials: [serial.into()].into(),
            authorities: Box::default(),
        }
    }

    /// Reads a list in DER or PEM and verifies it; `now` is in seconds since 1970. A list that has ended is read:
    /// what it names is revoked all the same.
    ///
    /// # Errors
    /// Why the list is not to be used.
    pub fn read(bytes: &[u8], authorities: &Authorities, now: i64) -> Result<Self, CrlProblem> {
        let der = der(bytes)?;
        let (rest, crl) =
            CertificateRevocationList::from_der(&der).map_err(|_| CrlProblem::Malformed)?;
        if !rest.is_empty() {
            return Err(CrlProblem::Malformed);
        }
        let issuer = rfc4514(crl.issuer());
        authorities.verify(&issuer, &crl)?;
        let of_authorities = check_extensions(&crl)?;
        let this_update = crl.last_update().timestamp();
        if this_update > now {
            return Err(CrlProblem::NotYetValid(this_update));
        }
        let mut serials: Vec<Box<[u8]>> = crl
            .iter_revoked_certificates()
            .map(|revoked| without_zeros(revoked.raw_serial()).into())
            .collect();
        serials.sort_unstable();
        let mut read = Self {
            issuer: issuer.into(),
            this_update,
            next_update: crl.next_update().ok_or(CrlProblem::NoEnd)?.timestamp(),
            of_authorities,
            fingerprint: Fingerprint::of(bytes),
            serials: serials.into(),
            authorities: Box::default(),
        };
        read.authorities = authorities.revoked_by(&read);
        Ok(read)
    }

    /// Reads what a source gives now, the lists of `current` being in use. Nothing, if it is one of them.
    ///
    /// # Errors
    /// Why the list is not to be used; also if it is older than the one in use, since whoever can answer in place of
    /// the authority's server could otherwise undo a revocation.
    pub fn read_next(
        bytes: &[u8],
        authorities: &Authorities,
        current: &List,
        now: i64,
    ) -> Result<Option<Self>, CrlProblem> {
        let fingerprint = Fingerprint::of(bytes);
        if current.crls().any(|crl| crl.fingerprint == fingerprint) {
            return Ok(None);
        }
        let next = Self::read(bytes, authorities, now)?;
        let mut replaced = current.crls().filter(|crl| next.succeeds(crl));
        if replaced.any(|crl| next.this_update < crl.this_update) {
            return Err(CrlProblem::Older(next.this_update));
        }
        Ok(Some(next))
    }

    /// Whether it speaks for the same certificates as another list.
    pub(super) fn succeeds(&self, other: &Self) -> bool {
        self.issuer == other.issuer && self.of_authorities == other.of_authorities
    }

    /// How many certificates it names.
    pub fn entries(&self) -> usize {
        self.serials.len()
    }

    /// Whether its successor is overdue at that time, in seconds since 1970.
    pub fn has_ended(&self, now: i64) -> bool {
        now > self.next_update
    }

    pub(super) fn has(&self, serial: &[u8]) -> bool {
        let serial = without_zeros(serial);
        (self.serials)
            .binary_search_by(|known| (**known).cmp(serial))
            .is_ok()
    }
}

fn der(bytes: &[u8]) -> Result<CertificateRevocationListDer<'_>, CrlProblem> {
    // A list in DER is a SEQUENCE.
    if bytes.first() == Some(&0x30) {
        return Ok(bytes.into());
    }
    let mut lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(bytes)
        .collect::<Result<_, _>>()
        .map_err(|_| CrlProblem::Malformed)?;
    match (lists.pop(), lists.len()) {
        (Some(list), 0) => Ok(list),
        (None, _) => Err(CrlProblem::Malformed),
        (Some(_), others) => Err(CrlProblem::Several(others + 1)),
    }
}

/// Refuses a list that does not say what it seems to: one of changes only, one that speaks for other issuers or leaves
/// something out, one with a critical extension that is not understood (RFC 5280 section 5.2). True if it is about
/// authorities only.
pub(super) fn check_extensions(crl: &CertificateRevocationList<'_>) -> Result<bool, CrlProblem> {
    let mut of_authorities = false;
    for extension in crl.extensions() {
        match extension.parsed_extension() {
            _ if extension.oid == OID_X509_EXT_DELTA_CRL_INDICATOR => {
                return Err(CrlProblem::Delta);
            }
            ParsedExtension::IssuingDistributionPoint(point) if point.indirect_crl => {
                return Err(CrlProblem::Indirect);
            }
            ParsedExtension::IssuingDistributionPoint(point)
                if point.only_contains_attribute_certs || point.only_some_reasons.is_some() =>
            {
                return Err(CrlProblem::Partial);
            }
            ParsedExtension::IssuingDistributionPoint(point) => {
                of_authorities = point.only_contains_ca_certs;
            }
            _ if extension.oid == OID_X509_EXT_CRL_NUMBER
                || extension.oid == OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER => {}
            _ if extension.critical || extension.oid == OID_X509_EXT_ISSUER_DISTRIBUTION_POINT => {
                return Err(CrlProblem::Extension(extension.oid.to_id_string()));
            }
            _ => {}
        }
    }
    Ok(of_authorities)
}

/// A serial number is a number: what encoders put in front of it does not count.
fn without_zeros(serial: &[u8]) -> &[u8] {
    let start = serial.iter().position(|byte| *byte != 0);
    &serial[start.unwrap_or(serial.len())..]
}
