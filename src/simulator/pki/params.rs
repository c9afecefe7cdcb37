//! What goes into the certificates: names, extensions and dates of the real profile.

use std::net::IpAddr;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType, SerialNumber,
};

use super::{AUTHORITIES_END, Purpose, Request};
use crate::services::Environment;

/// The validity of IGC-Santé's organisation certificates.
const CERTIFICATE_YEARS: i16 = 3;

/// The CN of the root. In production's shape the names say that they are not the real ones.
pub(super) fn root_name(environment: Environment) -> &'static str {
    match environment {
        Environment::Production => "AC RACINE IGC-SANTE ELEMENTAIRE FICTIVE",
        Environment::Test => "TEST AC RACINE IGC-SANTE ELEMENTAIRE",
    }
}

pub(super) fn issuing_name(environment: Environment) -> &'static str {
    match environment {
        Environment::Production => "AC IGC-SANTE ELEMENTAIRE ORGANISATIONS FICTIVE",
        Environment::Test => "TEST AC IGC-SANTE ELEMENTAIRE ORGANISATIONS",
    }
}

pub(super) fn authority_params(
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

pub(super) fn leaf_params(request: &Request<'_>) -> CertificateParams {
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
pub(super) fn years_later(seconds: i64, years: i16) -> i64 {
    Timestamp::from_second(seconds)
        .ok()
        .and_then(|time| time.to_zoned(TimeZone::UTC).checked_add(years.years()).ok())
        .map_or(seconds, |time| time.timestamp().as_second())
}

/// What to add to 1 January 1970, for dates of rcgen.
pub(super) fn since_epoch(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

/// 16 random bytes that are a positive number of full length.
fn random_serial() -> SerialNumber {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system has randomness");
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}
