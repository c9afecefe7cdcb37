//! What a certificate says of itself: whose it is, for what, from which hierarchy, until when.
//!
//! Usage comes from key usage, extended key usage and basic constraints, never from names; the environment comes
//! from the issuer. Where a certificate contradicts itself it says nothing, so that no rule can match it.

mod authority;
mod fingerprint;
pub(crate) mod name;

use std::fmt;

use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::{
    OID_X509_COMMON_NAME, OID_X509_ORGANIZATION_NAME, OID_X509_ORGANIZATIONAL_UNIT, Oid,
};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::X509Name;

pub use self::authority::{Authority, OFFICIAL};
pub use self::fingerprint::{Fingerprint, FingerprintError};
use super::structure::StructureId;
use crate::services::Environment;

/// What a certificate says. Ten thousand of these are held, so texts are boxed and bytes are not kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Profile {
    /// The subject, as RFC 4514 writes it.
    pub subject: Box<str>,
    /// The CN of the subject: the last one, if there are several.
    pub common_name: Option<Box<str>>,
    /// The O of the subject: the last one, if there are several.
    pub organization: Option<Box<str>>,
    /// The OU of the subject that is a structure identifier; nothing if two of them disagree.
    pub structure: Option<StructureId>,
    /// The issuer, as RFC 4514 writes it.
    pub issuer: Box<str>,
    /// The serial number in upper-case hexadecimal, as OpenSSL and IGC-Santé print it.
    pub serial: Box<str>,
    /// The SHA-256 of the certificate.
    pub fingerprint: Fingerprint,
    /// Valid from then on, in seconds since 1970.
    pub not_before: i64,
    /// Valid until then, in seconds since 1970.
    pub not_after: i64,
    /// The SHA-256 of its public key (SubjectPublicKeyInfo).
    pub public_key: Fingerprint,
    /// What its key may be used for.
    pub usage: Usage,
    /// The offer of IGC-Santé that it belongs to, as far as its issuer tells.
    pub offer: Option<Offer>,
    /// The IGC-Santé hierarchy that issued it, if one did.
    pub environment: Option<Environment>,
    /// The IGC-Santé hierarchy that its own name claims: that of an authority.
    pub(crate) hierarchy: Option<Environment>,
    /// The INSi mode that its CN names, exactly.
    pub insi: Option<InsiMode>,
}

/// What a certificate's key may be used for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Usage {
    /// Client authentication in TLS (ORG AUTH_CLI): digitalSignature and clientAuth.
    AuthCli,
    /// Signature of documents and assertions (ORG SIGN): nonRepudiation.
    Sign,
    /// Encryption (ORG CONF): keyEncipherment or dataEncipherment.
    Conf,
    /// A TLS server's certificate (SERV SSL): serverAuth, which excludes its use as a client (ANS guides 001, 003).
    SslServer,
    /// A certification authority.
    Authority,
    /// None of these.
    Other,
}

impl Usage {
    /// The words that IGC-Santé has for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AuthCli => "ORG AUTH_CLI",
            Self::Sign => "ORG SIGN",
            Self::Conf => "ORG CONF",
            Self::SslServer => "SERV SSL",
            Self::Authority => "certification authority",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The offers of IGC-Santé's software certificates (gamme Élémentaire).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Offer {
    /// Organisations, for their applications: AUTH_CLI, SIGN, CONF.
    Org,
    /// Persons: AUTH, SIGN, CONF. Relais speaks for structures only.
    Pro,
    /// Servers: SSL, S/MIME.
    Serv,
}

impl Offer {
    /// IGC-Santé's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Org => "ORG",
            Self::Pro => "PRO",
            Self::Serv => "SERV",
        }
    }
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The two ways of calling INSi, each with a certificate of its own.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum InsiMode {
    /// CN `INSI-AUTO`: automated calls.
    Auto,
    /// CN `INSI-MANU`: calls that a person makes.
    Manu,
}

impl InsiMode {
    /// The CN that says so.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "INSI-AUTO",
            Self::Manu => "INSI-MANU",
        }
    }

    fn from_common_name(common_name: &str) -> Option<Self> {
        [Self::Auto, Self::Manu]
            .into_iter()
            .find(|mode| mode.as_str() == common_name)
    }

    /// The mode that a CN was meant to name, when it misses it by case, spaces or hyphens.
    ///
    /// INSi compares the CN exactly and answers `DESIR_560`: such a certificate has to be ordered anew.
    pub fn near_miss(common_name: &str) -> Option<Self> {
        if Self::from_common_name(common_name).is_some() {
            return None;
        }
        let letters: String = (common_name.chars().take(64))
            .filter(|&character| !character.is_whitespace() && !is_like_a_hyphen(character))
            .flat_map(char::to_uppercase)
            .collect();
        match letters.as_str() {
            "INSIAUTO" => Some(Self::Auto),
            "INSIMANU" => Some(Self::Manu),
            _ => None,
        }
    }
}

impl fmt::Display for InsiMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a profile cannot be read.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
pub enum ProfileError {
    /// Not an X.509 certificate in DER.
    #[error("not an X.509 certificate in DER")]
    Malformed,
    /// A certificate, then something else.
    #[error("{0} bytes follow the end of the certificate")]
    TrailingBytes(usize),
    /// An extension on which the usage depends is malformed or there twice.
    #[error("the certificate's {0} extension is malformed, or there twice")]
    Extension(&'static str),
}

impl Profile {
    /// Reads a certificate in DER. Signatures are not verified: whoever is shown the certificate does that.
    pub fn parse(der: &[u8]) -> Result<Self, ProfileError> {
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|_| ProfileError::Malformed)?;
        if !rest.is_empty() {
            return Err(ProfileError::TrailingBytes(rest.len()));
        }
        Self::of(&certificate, der)
    }

    /// The profile of a certificate that is parsed already, and its DER.
    pub(super) fn of(certificate: &X509Certificate<'_>, der: &[u8]) -> Result<Self, ProfileError> {
        let common_name = last_value(certificate.subject(), OID_X509_COMMON_NAME);
        let usage = usage(certificate)?;
        Ok(Self {
            public_key: Fingerprint::of(certificate.public_key().raw),
            offer: offer(certificate.issuer(), usage),
            subject: name::rfc4514(certificate.subject()).into(),
            insi: common_name.as_deref().and_then(InsiMode::from_common_name),
            common_name: common_name.map(Into::into),
            organization: last_value(certificate.subject(), OID_X509_ORGANIZATION_NAME)
                .map(Into::into),
            structure: structure(certificate.subject()),
            issuer: name::rfc4514(certificate.issuer()).into(),
            serial: serial(certificate.raw_serial()),
            fingerprint: Fingerprint::of(der),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            usage,
            environment: environment(certificate.issuer()),
            hierarchy: environment(certificate.subject()),
        })
    }

    /// The INSi mode that the CN was meant to name, when it misses it by case, spaces or hyphens.
    pub fn insi_near_miss(&self) -> Option<InsiMode> {
        InsiMode::near_miss(self.common_name.as_deref()?)
    }

    /// Whether the certificate is within its dates at that time, in seconds since 1970.
    pub fn is_valid_at(&self, time: i64) -> bool {
        self.dates().hold_at(time)
    }

    /// From when to when it is valid.
    pub fn dates(&self) -> Dates {
        Dates {
            not_before: self.not_before,
            not_after: self.not_after,
        }
    }
}

/// From when to when a certificate is valid, both included, in seconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Dates {
    not_before: i64,
    not_after: i64,
}

impl Dates {
    /// Whether a time is within them.
    pub fn hold_at(self, time: i64) -> bool {
        self.not_before <= time && time <= self.not_after
    }
}

/// What word processors and web forms put in place of `-`, invisible characters included.
fn is_like_a_hyphen(character: char) -> bool {
    matches!(
        character,
        '-' | '_' | '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2010}'..='\u{2015}' | '\u{2043}' | '\u{2212}'
            | '\u{fe58}' | '\u{fe63}' | '\u{feff}' | '\u{ff0d}'
    )
}

fn values<'a>(name: &'a X509Name<'_>, oid: Oid<'static>) -> impl Iterator<Item = String> + 'a {
    (name.iter_attributes())
        .filter(move |attribute| *attribute.attr_type() == oid)
        .filter_map(|attribute| name::value(attribute.attr_value()))
}

/// The most specific value: names go from the country to the entity.
fn last_value(name: &X509Name<'_>, oid: Oid<'static>) -> Option<String> {
    values(name, oid).last()
}

fn structure(subject: &X509Name<'_>) -> Option<StructureId> {
    let mut found = values(subject, OID_X509_ORGANIZATIONAL_UNIT)
        .filter_map(|unit| StructureId::parse(&unit).ok());
    let first = found.next()?;
    // A certificate for two structures would let one act as the other.
    found.all(|other| other == first).then_some(first)
}

fn environment(name: &X509Name<'_>) -> Option<Environment> {
    let mut found =
        values(name, OID_X509_ORGANIZATIONAL_UNIT).filter_map(|unit| match unit.as_str() {
            "IGC-SANTE" => Some(Environment::Production),
            "IGC-SANTE TEST" => Some(Environment::Test),
            _ => None,
        });
    let first = found.next()?;
    found.all(|other| other == first).then_some(first)
}

/// Organisations and their servers have one issuing authority in common, persons have another.
fn offer(issuer: &X509Name<'_>, usage: Usage) -> Option<Offer> {
    let name = last_value(issuer, OID_X509_COMMON_NAME)?;
    let issued_to = |whom: &str| name.split(' ').any(|word| word == whom);
    if issued_to("PERSONNES") {
        Some(Offer::Pro)
    } else if issued_to("ORGANISATIONS") {
        Some(match usage {
            Usage::SslServer => Offer::Serv,
            _ => Offer::Org,
        })
    } else {
        None
    }
}

fn serial(raw: &[u8]) -> Box<str> {
    // DER puts a zero byte before a number whose first bit is set.
    let digits = match raw {
        [0, rest @ ..] if !rest.is_empty() => rest,
        _ => raw,
    };
    digits
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect::<String>()
        .into()
}

fn usage(certificate: &X509Certificate<'_>) -> Result<Usage, ProfileError> {
    let constraints = (certificate.basic_constraints())
        .map_err(|_| ProfileError::Extension("basicConstraints"))?;
    let key_usage = certificate
        .key_usage()
        .map_err(|_| ProfileError::Extension("keyUsage"))?;
    let extended = (certificate.extended_key_usage())
        .map_err(|_| ProfileError::Extension("extendedKeyUsage"))?;

    let Some(key_usage) = key_usage.map(|extension| extension.value) else {
        // Without key usage nothing is certified but, possibly, that it is an authority.
        let authority = constraints.is_some_and(|extension| extension.value.ca);
        return Ok(if authority {
            Usage::Authority
        } else {
            Usage::Other
        });
    };
    let (server_auth, client_auth) = extended.map_or((false, false), |extension| {
        (extension.value.server_auth, extension.value.client_auth)
    });
    Ok(
        if constraints.is_some_and(|extension| extension.value.ca) || key_usage.key_cert_sign() {
            Usage::Authority
        } else if server_auth {
            Usage::SslServer
        } else if client_auth && key_usage.digital_signature() {
            Usage::AuthCli
        } else if client_auth {
            Usage::Other
        } else if key_usage.non_repudiation() {
            Usage::Sign
        } else if key_usage.key_encipherment() || key_usage.data_encipherment() {
            Usage::Conf
        } else {
            Usage::Other
        },
    )
}

#[cfg(test)]
mod tests;
