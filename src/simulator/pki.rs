//! A throw-away PKI with the shape of IGC-Santé: a root, the issuing authority of organisations, their certificates.
//!
//! Names, extensions and dates are those of the real profile; keys are RSA-2048 throughout, authorities included,
//! because a 4096-bit key takes seconds to make and nothing here has to last.

use std::fmt;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256, RsaKeySize,
    SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;

use crate::services::Environment;

/// 2049-12-31T23:59:59Z, when authorities end: the last second that certificates write with two digits for the year
/// (RFC 5280 section 4.1.2.5). No certificate can outlast its issuer, and examples should last.
pub const AUTHORITIES_END: i64 = 2_524_607_999;

/// The validity of IGC-Santé's organisation certificates.
const CERTIFICATE_YEARS: i16 = 3;

/// A root and an issuing authority, both made for the occasion.
pub struct Pki {
    environment: Environment,
    root: Certificate,
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
        let certificate = (leaf_params(request).signed_by(&*key, &self.issuer))
            .expect("the parameters are complete and the issuer's key works");
        Issued {
            cert_der: certificate.der().clone(),
            cert_pem: certificate.pem(),
            issuing_pem: Arc::clone(&self.issuing_pem),
            key,
        }
    }
}

impl Issued {
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

/// Makes RSA-2048 keys, on all cores.
///
/// # Panics
/// If the system has no randomness to make keys from.
pub fn generate_keys(count: usize) -> Vec<Arc<KeyPair>> {
    let left = AtomicUsize::new(count);
    let take_one = || {
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            left.checked_sub(1)
        })
        .is_ok()
    };
    let make = || {
        let mut keys = Vec::new();
        while take_one() {
            keys.push(Arc::new(generate_key()));
        }
        keys
    };
    let threads = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(count);
    thread::scope(|scope| {
        #[expect(
            clippy::needless_collect,
            reason = "lazily, each thread would start when the one before is joined"
        )]
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(make)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("key generation does not panic"))
            .collect()
    })
}

/// Writes a new file that only its owner can read, as private keys and passwords must be.
pub fn write_private(path: &Path, contents: impl AsRef<[u8]>) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(contents.as_ref())
}

fn generate_key() -> KeyPair {
    KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)
        .expect("RSA-2048 keys can be made wherever there is randomness")
}

/// The CN of the root. In production's shape the names say that they are not the real ones.
fn root_name(environment: Environment) -> &'static str {
    match environment {
        Environment::Production => "AC RACINE IGC-SANTE ELEMENTAIRE FICTIVE",
        Environment::Test => "TEST AC RACINE IGC-SANTE ELEMENTAIRE",
    }
}

fn issuing_name(environment: Environment) -> &'static str {
    match environment {
        Environment::Production => "AC IGC-SANTE ELEMENTAIRE ORGANISATIONS FICTIVE",
        Environment::Test => "TEST AC IGC-SANTE ELEMENTAIRE ORGANISATIONS",
    }
}

fn authority_params(
    environment: Environment,
    common_name: &str,
    path_length: Option<u8>,
) -> CertificateParams {
    let hierarchy = match environment {
        Environment::Production => "IGC-SANTE",
        Environment::Test => "IGC-SANTE TEST",
    };
    let mut name = DistinguishedName::new();
    name.push(DnType::CountryName, printable("FR"));
    name.push(DnType::OrganizationName, "ASIP-SANTE");
    name.push(DnType::OrganizationalUnitName, "0002 187512751");
    // rcgen keeps one value per type: the second OU goes in under the number of the same attribute.
    name.push(DnType::CustomDnType(vec![2, 5, 4, 11]), hierarchy);
    name.push(DnType::CommonName, common_name);

    let now = Timestamp::now().as_second();
    let mut params = params(name, now - 3600, AUTHORITIES_END);
    params.is_ca = IsCa::Ca(path_length.map_or(
        BasicConstraints::Unconstrained,
        BasicConstraints::Constrained,
    ));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf_params(request: &Request<'_>) -> CertificateParams {
    let mut name = DistinguishedName::new();
    name.push(DnType::CountryName, printable("FR"));
    name.push(DnType::StateOrProvinceName, "Rhône (69)");
    name.push(DnType::OrganizationName, request.organization);
    name.push(DnType::OrganizationalUnitName, request.structure);
    name.push(DnType::CommonName, request.common_name);

    let not_before = (request.not_before).unwrap_or_else(|| Timestamp::now().as_second() - 3600);
    let not_after = (request.not_after)
        .unwrap_or_else(|| years_later(not_before, CERTIFICATE_YEARS).min(AUTHORITIES_END));
    let mut params = params(name, not_before, not_after);
    if let Some(serial) = request.serial {
        params.serial_number = Some(SerialNumber::from_slice(&serial));
    }
    params.is_ca = IsCa::ExplicitNoCa;
    let (key_usages, extended) = match &request.purpose {
        Purpose::AuthCli => (
            vec![KeyUsagePurpose::DigitalSignature],
            ExtendedKeyUsagePurpose::ClientAuth,
        ),
        Purpose::Sign => (
            vec![
                KeyUsagePurpose::DigitalSignature,
                KeyUsagePurpose::ContentCommitment,
            ],
            ExtendedKeyUsagePurpose::EmailProtection,
        ),
        Purpose::Conf => (
            vec![
                KeyUsagePurpose::KeyEncipherment,
                KeyUsagePurpose::DataEncipherment,
            ],
            ExtendedKeyUsagePurpose::EmailProtection,
        ),
        Purpose::SslServer(_) => (
            vec![
                KeyUsagePurpose::DigitalSignature,
                KeyUsagePurpose::KeyEncipherment,
            ],
            ExtendedKeyUsagePurpose::ServerAuth,
        ),
    };
    params.key_usages = key_usages;
    params.extended_key_usages = vec![extended];
    if let Purpose::SslServer(names) = &request.purpose {
        params.subject_alt_names = names.iter().map(|name| alternative_name(name)).collect();
    }
    params
}

fn params(name: DistinguishedName, not_before: i64, not_after: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    // rcgen speaks in the types of the `time` crate, and offers this one way to them.
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch(not_before);
    params.not_after = epoch + since_epoch(not_after);
    params.serial_number = Some(random_serial());
    params.use_authority_key_identifier_extension = true;
    params
}

fn printable(text: &str) -> rcgen::DnValue {
    rcgen::DnValue::PrintableString(
        text.try_into()
            .expect("country codes are printable strings"),
    )
}

fn alternative_name(name: &str) -> SanType {
    match name.parse::<IpAddr>() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => SanType::DnsName(name.try_into().expect("DNS names are ASCII")),
    }
}

/// The same day and hour some years later, as certificates are dated.
fn years_later(seconds: i64, years: i16) -> i64 {
    Timestamp::from_second(seconds)
        .ok()
        .and_then(|time| time.to_zoned(TimeZone::UTC).checked_add(years.years()).ok())
        .map_or(seconds, |time| time.timestamp().as_second())
}

fn since_epoch(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

/// 16 random bytes that are a positive number of full length.
fn random_serial() -> SerialNumber {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system has randomness");
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
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

/// What the tests of the whole crate share, so that each does not make keys of its own.
#[cfg(test)]
pub(crate) mod shared {
    use std::sync::LazyLock;

    use super::*;

    /// The test environment's PKI.
    pub(crate) static TEST: LazyLock<Pki> = LazyLock::new(|| Pki::new(Environment::Test));

    /// The production environment's.
    pub(crate) static PRODUCTION: LazyLock<Pki> =
        LazyLock::new(|| Pki::new(Environment::Production));

    /// Four keys.
    pub(crate) static KEYS: LazyLock<Vec<Arc<KeyPair>>> = LazyLock::new(|| generate_keys(4));

    /// A request whose certificate has the shared key of that rank.
    pub(crate) fn request<'a>(structure: &'a str, common_name: &'a str, key: usize) -> Request<'a> {
        Request {
            key: Some(Arc::clone(&KEYS[key])),
            ..Request::new(structure, common_name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_valid_for_three_years_to_the_second() {
        // 29 February 2028, and the last day of its month three years later.
        assert_eq!(years_later(1_835_395_200, 3), 1_930_003_200);
        assert_eq!(years_later(1_700_000_000, 3), 1_794_694_400);
    }

    #[test]
    fn keys_are_made_in_the_number_asked_for() {
        assert_eq!(generate_keys(0).len(), 0);
        assert_eq!(generate_keys(3).len(), 3);
    }

    #[test]
    fn what_holds_a_key_does_not_show_it() {
        let issued = shared::TEST.issue(&shared::request("1060785003", "DUI", 0));
        assert_eq!(format!("{issued:?}"), "Issued { .. }");
    }

    #[cfg(unix)]
    #[test]
    fn private_files_are_readable_by_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.key");
        write_private(&path, "x").unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}
