//! One file looked at on its own, for a person who wants to know what it is.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer as _;

use super::file;
use super::password::Passwords;
use super::problem::{LoadError, Problem};
use crate::config::{Identities, KeyReaders, Reload};
use crate::identity::profile::{Profile, name};
use crate::services::InFlight;

/// What a file holds.
#[derive(Debug)]
pub struct Examined {
    /// Its certificates, in the file's order.
    pub certificates: Vec<ExaminedCertificate>,
    /// Private keys that belong to none of them.
    pub lone_keys: usize,
    /// The subjects of certificate requests (RFC 4514).
    pub requests: Vec<String>,
    /// What could not be read.
    pub problems: Vec<Problem>,
}

/// A certificate in a file.
#[derive(Debug)]
pub struct ExaminedCertificate {
    /// What it says.
    pub profile: Arc<Profile>,
    /// Whether its private key is in the file too.
    pub has_key: bool,
}

/// Looks at a file, with the passwords in `password_file` for what is encrypted. Permissions are not judged.
///
/// # Errors
/// When the password file cannot be read.
pub fn examine(path: &Path, password_file: Option<&Path>) -> Result<Examined, LoadError> {
    let passwords = Passwords::gather(&Identities {
        directory: path.to_owned(),
        password_file: password_file.map(Path::to_owned),
        password_env: None,
        password_credential: None,
        key_readers: KeyReaders::Anyone,
        reload: Reload::Manual,
        retire_before_expiry: Duration::ZERO,
        withdrawal: InFlight::Finish,
    })?;
    let requests = requests(path);
    if !requests.is_empty() {
        return Ok(Examined {
            certificates: Vec::new(),
            lone_keys: 0,
            requests,
            problems: Vec::new(),
        });
    }
    let material = file::decode(path, &passwords, KeyReaders::Anyone);
    let has_key = |public| material.keys.iter().any(|key| key.public == public);
    let certificates: Vec<_> = material
        .certificates
        .iter()
        .map(|one| ExaminedCertificate {
            profile: Arc::clone(&one.profile),
            has_key: has_key(one.profile.public_key),
        })
        .collect();
    let is_lone = |public| {
        material
            .certificates
            .iter()
            .all(|one| one.profile.public_key != public)
    };
    let lone_keys = material
        .keys
        .iter()
        .filter(|key| is_lone(key.public))
        .count();
    Ok(Examined {
        certificates,
        lone_keys,
        requests,
        problems: material.problems,
    })
}

/// The subjects of the PKCS#10 requests in a file; none when it is something else.
fn requests(path: &Path) -> Vec<String> {
    let Ok(opened) = file::read(path) else {
        return Vec::new();
    };
    let mut subjects = Vec::new();
    let mut rest: &[u8] = &opened.bytes;
    while let Ok((after, pem)) = parse_x509_pem(rest) {
        if pem.label.ends_with("CERTIFICATE REQUEST")
            && let Ok((_, request)) = X509CertificationRequest::from_der(&pem.contents)
        {
            subjects.push(name::rfc4514(&request.certification_request_info.subject));
        }
        rest = after;
    }
    subjects
}
