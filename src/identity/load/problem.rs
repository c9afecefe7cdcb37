//! What can be wrong with a folder of certificates, file by file, and what to do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::identity::profile::ProfileError;

/// Something wrong with one file; the others are loaded all the same.
#[derive(Debug)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub kind: ProblemKind,
    /// What the operator can do, a command where there is one. Never empty.
    pub hint: String,
}

/// What is wrong with a file. Nothing here ever quotes what the file holds.
#[derive(Debug, Error)]
pub enum ProblemKind {
    /// The system refuses to read it.
    #[error("the file cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    /// A pipe, a socket, a device.
    #[error("not a regular file")]
    NotAFile,
    /// Larger than anything that belongs here.
    #[error("the file has {size} bytes, more than the {limit} that certificates and keys can need")]
    TooLarge {
        /// Its size.
        size: u64,
        /// The largest size accepted.
        limit: u64,
    },
    /// Zero bytes, or only blanks.
    #[error("the file is empty")]
    Empty,
    /// Neither PEM nor DER, or PEM of something else.
    #[error("the file holds neither a certificate nor a private key")]
    NotRecognised,
    /// A PEM section without its end.
    #[error("the PEM section `{label}` has no end: the file is truncated")]
    Truncated {
        /// The section's label.
        label: String,
    },
    /// A PEM section whose content is not base64 of DER.
    #[error("the PEM section `{label}` is damaged")]
    Damaged {
        /// The section's label.
        label: String,
    },
    /// A certificate that cannot be read.
    #[error("the certificate cannot be read: {0}")]
    Certificate(#[source] ProfileError),
    /// A private key that cannot be read, or of a type that TLS does not use.
    #[error("the private key cannot be read, or is of a type or size that is not supported")]
    Key,
    /// A PKCS#12 file that cannot be read.
    #[error("the PKCS#12 file cannot be read: {0}")]
    Pkcs12(String),
    /// Encryption that Relais does not undo.
    #[error("the private key is encrypted in a way that is not supported ({0})")]
    UnsupportedEncryption(&'static str),
    /// Encryption that whoever opens it works on for hours; what it asks for, and what is enough.
    #[error("opening the file takes {0}")]
    TooCostly(String),
    /// One that signs, and that cannot be written down again as it is.
    #[error(
        "the private key is encrypted or not in PEM, and only PEM without encryption is put into place"
    )]
    NotPlain,
    /// Which of them is meant to wait for a certificate cannot be told.
    #[error("the file holds {0} private keys")]
    SeveralKeys(usize),
    /// It is encrypted, and there is no password to try.
    #[error("the file is encrypted and no password is configured for it")]
    PasswordMissing,
    /// It is encrypted, and no password opens it.
    #[error("the file is encrypted and none of the {tried} passwords known for it opens it")]
    WrongPassword {
        /// How many were tried.
        tried: usize,
    },
    /// A password file that is not text.
    #[error("the password file is not UTF-8 text")]
    PasswordNotText,
    /// Secrets that others can read.
    #[error(
        "the file holds a secret and its mode {mode:04o} opens it to more people than `key_readers` allows"
    )]
    ReadableByOthers {
        /// The permission bits.
        mode: u32,
        /// The ones it may have.
        allowed: u32,
    },
    /// Secrets that somebody else can change and show to others.
    #[error(
        "the file holds a secret and belongs to user {owner}, not to root or to user {own} who reads it"
    )]
    OfAnotherAccount {
        /// Whose it is.
        owner: u32,
        /// Who reads it.
        own: u32,
    },
    /// A private key beside a certificate that is not its own.
    #[error("the private key is not that of the certificate in {}", .certificate.display())]
    KeyMismatch {
        /// Where that certificate is.
        certificate: PathBuf,
    },
    /// A certificate that cannot be used for want of its key.
    #[error("no private key in this directory matches the certificate `{subject}`")]
    CertificateWithoutKey {
        /// The certificate's subject.
        subject: Box<str>,
    },
    /// A private key that cannot be used for want of its certificate.
    #[error("no certificate in this directory matches the private key")]
    KeyWithoutCertificate,
    /// The certificate was loaded already, from another file.
    #[error("the certificate `{subject}` is in {} as well, and was loaded from there", .first.display())]
    Duplicate {
        /// The certificate's subject.
        subject: Box<str>,
        /// Where it was loaded from.
        first: PathBuf,
    },
    /// A defect of a decoder, contained to the file that revealed it.
    #[error("reading the file failed unexpectedly")]
    Internal,
}

impl Problem {
    /// A problem with the hint that its kind suggests.
    pub(super) fn new(path: &Path, kind: ProblemKind) -> Self {
        let hint = hint(path, &kind);
        Self {
            path: path.to_owned(),
            kind,
            hint,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.path.display(), self.kind, self.hint)
    }
}

fn hint(path: &Path, kind: &ProblemKind) -> String {
    let file = shell_word(path);
    match kind {
        ProblemKind::Unreadable(error) if error.kind() == io::ErrorKind::NotFound => {
            "check the name, and where it leads if it is a link".to_owned()
        }
        ProblemKind::Unreadable(_) => {
            "check that the account Relais runs under may read it".to_owned()
        }
        ProblemKind::NotAFile | ProblemKind::TooLarge { .. } => {
            "a file is expected that holds certificates and keys, and nothing else".to_owned()
        }
        ProblemKind::Empty => {
            "copy it again: whatever wrote it may have been interrupted".to_owned()
        }
        ProblemKind::NotRecognised => {
            "PEM (text, `-----BEGIN …`, not UTF-16), DER, or PKCS#12 named .p12 or .pfx is expected"
                .to_owned()
        }
        ProblemKind::Truncated { .. } | ProblemKind::Damaged { .. } => {
            "copy it again from where it was delivered or made".to_owned()
        }
        ProblemKind::Certificate(_) => {
            format!("see what `openssl x509 -in {file} -noout -text` says of it")
        }
        ProblemKind::Key => {
            "RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, and Ed25519 are supported"
                .to_owned()
        }
        ProblemKind::Pkcs12(_) => format!(
            "convert it: openssl pkcs12 -legacy -in {file} -nodes | openssl pkcs12 -export -out {file}.new"
        ),
        ProblemKind::UnsupportedEncryption(_) => {
            format!("convert it: openssl pkcs8 -topk8 -v2 aes-256-cbc -in {file} -out {file}.new")
        }
        ProblemKind::TooCostly(_) => {
            "export it again from where it was made, with the tool's own number of rounds"
                .to_owned()
        }
        ProblemKind::NotPlain => {
            format!("convert it: openssl pkey -in {file} -out {file}.new")
        }
        ProblemKind::SeveralKeys(_) => "put each in a file of its own".to_owned(),
        ProblemKind::PasswordMissing => {
            format!("put the password in {file}.password, or configure one under [identities]")
        }
        ProblemKind::WrongPassword { .. } => {
            format!("put the right password in {file}.password, readable by its owner alone")
        }
        ProblemKind::PasswordNotText => {
            "write the password in UTF-8, on a line of its own".to_owned()
        }
        ProblemKind::ReadableByOthers { allowed, .. } => format!("run: chmod {allowed:o} {file}"),
        ProblemKind::OfAnotherAccount { own, .. } => format!(
            "run: chown {own} {file}; or set `key_readers = \"group\"` if whoever it belongs to is trusted"
        ),
        ProblemKind::KeyMismatch { .. } => {
            "put the key that the certificate's request was made with beside it".to_owned()
        }
        ProblemKind::CertificateWithoutKey { .. } => {
            "put its private key in the same directory: that which its request was made with"
                .to_owned()
        }
        ProblemKind::KeyWithoutCertificate => {
            "put its certificate in the same directory, or remove it".to_owned()
        }
        ProblemKind::Duplicate { .. } => "keep one of the two files".to_owned(),
        ProblemKind::Internal => {
            "please report it, with the kind of file but never the file itself".to_owned()
        }
    }
}

/// The path as a shell reads it back.
pub(crate) fn shell_word(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain =
        |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '@' | '+' | ':');
    if !text.is_empty() && text.chars().all(plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// Why nothing could be loaded at all.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The folder cannot be listed.
    #[error(
        "the certificate folder {} cannot be read: {source}; \
         check `directory` under [identities], and that the account Relais runs under may list it", .path.display()
    )]
    Directory {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The password file is wrong.
    #[error("the password file {0}")]
    PasswordFile(Problem),
    /// The environment variable is not set, or not text.
    #[error(
        "the environment variable that `password_env` under [identities] names is not set, or not UTF-8; \
         set it, or remove the key"
    )]
    PasswordEnv,
    /// Not run by systemd, or the unit passes no credentials.
    #[error(
        "`password_credential` is configured but CREDENTIALS_DIRECTORY is not set; \
         add `LoadCredential=NAME:/path/to/file`, with NAME as the key has it, to the systemd unit, or remove the key"
    )]
    NoCredentials,
    /// The systemd credential is wrong.
    #[error("`password_credential` under [identities]: {0}")]
    PasswordCredential(Problem),
}
