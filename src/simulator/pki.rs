//! A throw-away PKI with the shape of IGC-Santé: a root, the issuing authority of organisations, their certificates.
//!
//! Names, extensions and dates are those of the real profile; keys are RSA-2048 throughout, authorities included,
//! because a 4096-bit key takes seconds to make and nothing here has to last.

mod keys;
mod params;
#[cfg(test)]
pub(crate) mod shared;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    Certificate, CertificateRevocationList, CertificateRevocationListParams,
    CertificateSigningRequestParams, Issuer, KeyIdMethod, KeyPair, PublicKeyData, RevocationReason,
    RevokedCertParams, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use self::keys::generate_key;
pub use self::keys::generate_keys;
use self::params::{authority_params, issuing_name, leaf_params, root_name, since_epoch};
use crate::services::Environment;

/// 2049-12-31T23:59:59Z, when authorities end: the last second that certificates write with two digits for the year
/// (RFC 5280 section 4.1.2.5). No certificate can outlast its issuer, and examples should last.
pub const AUTHORITIES_END: i64 = 2_524_607_999;

/// A root and an issuing authority, both made for the occasion.
pub struct Pki {
    environment: Environment,
    root: Certificate,
    root_issuer: Issuer<'static, KeyPair>,
    issuing: Certificate,
    issuer: Issuer<'static, KeyPair>,
    issuing_pem: Arc<str>,
}

/// A certificate to issue.
#[derive(Clone)]
pub struct Request<'a> {
    /// The OU: a structure identifier, `1060785003`.
    pub structure: &'a str,
    /// The CN: the name of the application, or `INSI-AUTO`.
    pub common_name: &'a str,
    /// The O: the name of the structure.
    pub organization: &'a str,
    /// What the key is for.
    pub purpose: Purpose,
    /// Start of validity, in seconds since 1970; an hour ago unless said otherwise.
    pub not_before: Option<i64>,
    /// End of validity, in seconds since 1970; three years after the start unless said otherwise.
    pub not_after: Option<i64>,
    /// The key to certify; a new one unless said otherwise. Thousands of certificates may share a few hundred.
    pub key: Option<Arc<KeyPair>>,
    /// Its serial number; a random one unless said otherwise. Numbers are unique to an issuer only.
    pub serial: Option<[u8; 16]>,
}

/// What a certificate's key is for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Purpose {
    /// ORG AUTH_CLI: TLS client authentication.
    AuthCli,
    /// ORG SIGN: signature.
    Sign,
    /// ORG CONF: encryption.
    Conf,
    /// SERV SSL: a TLS server that answers to these DNS names and IP addresses.
    SslServer(Vec<String>),
}

/// A certificate, and what is needed to use it.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub cert_der: CertificateDer<'static>,
    /// Its key.
    pub key: Arc<KeyPair>,
    cert_pem: String,
    issuing_pem: Arc<str>,
}

impl<'a> Request<'a> {
    /// An ORG AUTH_CLI certificate with a new key, valid from now on.
    pub fn new(structure: &'a str, common_name: &'a str) -> Self {
        Self {
            structure,
            common_name,
            organization: "STRUCTURE FICTIVE",
            purpose: Purpose::AuthCli,
            not_before: None,
            not_after: None,
            key: None,
            serial: None,
        }
    }
}

impl Pki {
    /// Makes a PKI whose certificates Relais reads as coming from this environment.
    ///
    /// # Panics
    /// If the system has no randomness to make keys from.
    pub fn new(environment: Environment) -> Self {
        let root_params = authority_params(environment, root_name(environment), None);
        let root_key = generate_key();
        let root = (root_params.self_signed(&root_key))
            .expect("the parameters are complete and the key fresh");
        let root_issuer = Issuer::new(root_params, root_key);

        let params = authority_params(environment, issuing_name(environment), Some(0));
        let key = generate_key();
        let issuing = (params.signed_by(&key, &root_issuer))
            .expect("the parameters are complete and the key fresh");
        Self {
            environment,
            issuing_pem: issuing.pem().into(),
            root,
            root_issuer,
            issuing,
            issuer: Issuer::new(params, key),
        }
    }

    /// The environment that its certificates belong to.
    pub fn environment(&self) -> Environment {
        self.environment
    }

    /// The root's certificate.
    pub fn root_der(&self) -> &CertificateDer<'static> {
        self.root.der()
    }

    /// The issuing authority's certificate.
    pub fn issuing_der(&self) -> &CertificateDer<'static> {
        self.issuing.der()
    }

    /// The issuing authority's certificate and the root's: what a file of trust anchors holds.
    pub fn authority_pem(&self) -> String {
        format!("{}{}", self.issuing.pem(), self.root.pem())
    }

    /// Issues a certificate.
    ///
    /// # Panics
    /// If a server's name is not ASCII.
    pub fn issue(&self, request: &Request<'_>) -> Issued {
        let key = request
            .key
            .clone()
            .unwrap_or_else(|| Arc::new(generate_key()));
        let certificate = self.sign(request, &*key);
        Issued {
            cert_der: certificate.der().clone(),
            cert_pem: certificate.pem(),
            issuing_pem: Arc::clone(&self.issuing_pem),
            key,
        }
    }

    /// Certifies the key of a certificate request (PKCS#10 in PEM), as the platform does: of the request it keeps
    /// the public key alone, and everything else comes from what it knows itself, which is `order` (whose key is
    /// not used).
    ///
    /// # Errors
    /// When it is no such request, or is not signed by the key in it.
    pub fn certify(
        &self,
        request_pem: &str,
        order: &Request<'_>,
    ) -> Result<Certificate, rcgen::Error> {
        let request = CertificateSigningRequestParams::from_pem(request_pem)?;
        Ok(self.sign(order, &request.public_key))
    }

    /// The issuing authority's list of revoked certificates, by serial number, with its dates in seconds since 1970.
    ///
    /// # Panics
    /// If the list would end before it begins.
    pub fn revoke(
        &self,
        serials: &[&[u8]],
        this_update: i64,
        next_update: i64,
    ) -> CertificateRevocationList {
        list(&self.issuer, serials, this_update, next_update)
    }

    /// The root's list, which names the issuing authority, with its dates in seconds since 1970.
    ///
    /// # Panics
    /// If the list would end before it begins.
    pub fn revoke_issuing(&self, this_update: i64, next_update: i64) -> CertificateRevocationList {
        let serial = serial(self.issuing.der());
        list(&self.root_issuer, &[&serial], this_update, next_update)
    }

    fn sign(&self, request: &Request<'_>, key: &impl PublicKeyData) -> Certificate {
        (leaf_params(request).signed_by(key, &self.issuer))
            .expect("the parameters are complete and the issuer's key works")
    }
}

fn list(
    issuer: &Issuer<'_, KeyPair>,
    serials: &[&[u8]],
    this_update: i64,
    next_update: i64,
) -> CertificateRevocationList {
    let date = |seconds| rcgen::date_time_ymd(1970, 1, 1) + since_epoch(seconds);
    let revoked = |serial: &&[u8]| RevokedCertParams {
        serial_number: SerialNumber::from_slice(serial),
        revocation_time: date(this_update),
        reason_code: Some(RevocationReason::KeyCompromise),
        invalidity_date: None,
    };
    let list = CertificateRevocationListParams {
        this_update: date(this_update),
        next_update: date(next_update),
        // Grows from one list to the next, as RFC 5280 section 5.2.3 wants.
        crl_number: SerialNumber::from(this_update.unsigned_abs()),
        issuing_distribution_point: None,
        revoked_certs: serials.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(issuer)
        .expect("the dates are in order and the issuer may sign lists")
}

fn serial(certificate: &CertificateDer<'_>) -> Vec<u8> {
    let (_, certificate) =
        X509Certificate::from_der(certificate).expect("it was made a moment ago");
    certificate.serial.to_bytes_be()
}

impl Issued {
    /// The serial number: a positive number, most significant byte first.
    pub fn serial(&self) -> Vec<u8> {
        serial(&self.cert_der)
    }

    /// The certificate, in PEM.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The certificate and its issuer's, in PEM.
    pub fn chain_pem(&self) -> String {
        format!("{}{}", self.cert_pem, self.issuing_pem)
    }

    /// The private key in PEM, not encrypted (PKCS#8).
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// All of it in PEM: the certificate, its issuer's, the private key.
    pub fn pem(&self) -> String {
        format!("{}{}", self.chain_pem(), self.key_pem())
    }
}

/// Writes a new file that only its owner can read, as private keys and passwords must be.
pub fn write_private(path: &Path, contents: impl AsRef<[u8]>) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(contents.as_ref())
}

impl fmt::Debug for Pki {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pki")
            .field("environment", &self.environment)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("structure", &self.structure)
            .field("common_name", &self.common_name)
            .field("purpose", &self.purpose)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").finish_non_exhaustive()
    }
}
