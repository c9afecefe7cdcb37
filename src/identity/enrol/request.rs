//! A request for a certificate: a new RSA-2048 key, and the PKCS#10 that the platform wants.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rcgen::{
    CertificateParams, CertificateSigningRequest, KeyPair, PKCS_RSA_SHA256, PublicKeyData as _,
    RsaKeySize,
};
use serde::Serialize;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;
use zeroize::Zeroizing;

use super::subject::Subject;
use super::{Refusal, files};
use crate::identity::load::Unpacker;
use crate::identity::profile::{Fingerprint, name};

/// A request that waits for its certificate.
#[derive(Clone, Debug, Serialize)]
pub struct Pending {
    /// The private key, which only its owner can read and which never leaves this machine.
    pub key: PathBuf,
    /// The request to upload.
    pub csr: PathBuf,
    /// The subject asked for, in RFC 4514 order.
    pub subject: String,
    /// The SHA-256 of the public key (SubjectPublicKeyInfo), in hexadecimal.
    pub public_key_sha256: String,
}

/// Makes a key and its request in a folder, which is made where it is missing.
///
/// A key without its request, which an interruption leaves, gets that request.
///
/// # Errors
/// When a request has the same file name, or files cannot be written.
pub fn make(subject: &Subject, folder: &Path) -> Result<Pending, Refusal> {
    prepare(folder)?;
    let (_, csr_file) = names(subject, folder);
    if csr_file.exists() {
        return Err(pending(&csr_file));
    }
    complete(subject, folder)
}

/// Makes the folder where it is missing, and clears away what an interruption left unfinished there.
pub(super) fn prepare(folder: &Path) -> Result<(), Refusal> {
    files::make_folder(folder).map_err(|error| Refusal::system(folder, &error))?;
    files::sweep(folder);
    Ok(())
}

/// Makes of a key and its request what is not there yet. An RSA signature of this kind is the same each time, so a
/// request that is there is known by its bytes.
pub(super) fn complete(subject: &Subject, folder: &Path) -> Result<Pending, Refusal> {
    let (key_file, csr_file) = names(subject, folder);
    let found = read_key(&key_file)?;
    let is_new = found.is_none();
    let key = found.unwrap_or_else(generate);
    let csr = request(subject, &key);
    let pem = csr.pem().map_err(|_| unusable(&key_file))?;
    let is_there = is_written(&csr_file, &pem)?;
    if is_new {
        let text = Zeroizing::new(key.serialize_pem());
        place(&key_file, text.as_bytes())?;
    }
    if !is_there {
        place(&csr_file, pem.as_bytes())?;
    }
    Ok(Pending {
        subject: subject_of(&csr),
        public_key_sha256: Fingerprint::of(&key.subject_public_key_info()).to_string(),
        key: key_file,
        csr: csr_file,
    })
}

/// The files of a key and its request.
fn names(subject: &Subject, folder: &Path) -> (PathBuf, PathBuf) {
    let service = files::slug(subject.service_name.as_str());
    let file = |extension| folder.join(format!("{}-{service}.{extension}", subject.finess));
    (file("key"), file("csr"))
}

/// Whether this very request is in the file; nothing may be in it but that.
fn is_written(file: &Path, pem: &str) -> Result<bool, Refusal> {
    match fs::read(file) {
        Ok(bytes) if bytes == pem.as_bytes() => Ok(true),
        Ok(_) => Err(pending(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Refusal::system(file, &error)),
    }
}

fn place(file: &Path, contents: &[u8]) -> Result<(), Refusal> {
    files::place(file, contents, files::SECRET).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => pending(file),
        _ => Refusal::system(file, &error),
    })
}

/// The refusal of a request whose file name another one has.
fn pending(file: &Path) -> Refusal {
    Refusal::new(
        format!("a request is pending already: {}", file.display()),
        "upload that one; or, if no certificate was ordered with it, remove it and the .key beside it, \
         or choose another folder with --out",
    )
}

fn unusable(file: &Path) -> Refusal {
    Refusal::new(
        format!(
            "{}: not an RSA key in PKCS#8 that a request can be made with",
            file.display()
        ),
        "if no certificate was ordered with it, remove it and run the command again",
    )
}

fn read_key(file: &Path) -> Result<Option<Zeroizing<KeyPair>>, Refusal> {
    let Some(bytes) = Unpacker::secret(file).map_err(|problem| Refusal::from(&problem))? else {
        return Ok(None);
    };
    let text = str::from_utf8(&bytes).map_err(|_| unusable(file))?;
    KeyPair::from_pkcs8_pem_and_sign_algo(text, &PKCS_RSA_SHA256)
        .map(|key| Some(Zeroizing::new(key)))
        .map_err(|_| unusable(file))
}

fn generate() -> Zeroizing<KeyPair> {
    // IGC-Santé certifies RSA keys of 2048 bits.
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048);
    Zeroizing::new(key.expect("RSA-2048 keys can be made wherever there is randomness"))
}

fn request(subject: &Subject, key: &KeyPair) -> CertificateSigningRequest {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject.distinguished_name();
    (params.serialize_request(key)).expect("the parameters are a name alone, and the key can sign")
}

fn subject_of(csr: &CertificateSigningRequest) -> String {
    X509CertificationRequest::from_der(csr.der()).map_or_else(
        |_| String::new(),
        |(_, parsed)| name::rfc4514(&parsed.certification_request_info.subject),
    )
}
