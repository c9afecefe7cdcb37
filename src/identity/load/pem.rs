//! PEM files: sections between `BEGIN` and `END` lines, whatever text surrounds them.
//!
//! Base64 is decoded by the `der` crate, in constant time and into memory that is wiped: private keys pass here.
//! It wants lines of 64 characters, which not every tool writes, so each section is wrapped anew.

use std::path::Path;
use std::sync::Arc;

use pkcs8::der::SecretDocument;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use zeroize::Zeroizing;

use super::material::{Key, Material, certificate, key};
use super::password::Passwords;
use super::pkcs8 as encrypted;
use super::problem::{Problem, ProblemKind, shell_word};

/// One section.
pub(super) struct Section<'a> {
    pub(super) label: &'a str,
    body: Vec<&'a [u8]>,
    is_complete: bool,
}

impl Section<'_> {
    /// Whether it holds a private key, encrypted or not.
    pub(super) fn is_secret(&self) -> bool {
        self.label.ends_with("PRIVATE KEY")
    }

    /// `Proc-Type: 4,ENCRYPTED`: OpenSSL's own encryption, from before PKCS#8.
    fn is_traditionally_encrypted(&self) -> bool {
        self.body
            .iter()
            .any(|line| line.starts_with(b"Proc-Type:") && line.ends_with(b"ENCRYPTED"))
    }

    pub(super) fn der(&self) -> Result<SecretDocument, ProblemKind> {
        let label = self.label.to_owned();
        if !self.is_complete {
            return Err(ProblemKind::Truncated { label });
        }
        let size = self.body.iter().map(|line| line.len()).sum::<usize>();
        let mut text = Zeroizing::new(String::with_capacity(
            size + size / 64 + 2 * label.len() + 64,
        ));
        text.push_str(&format!("-----BEGIN {label}-----\n"));
        let characters = (self.body.iter().flat_map(|line| line.iter()))
            .filter(|byte| !byte.is_ascii_whitespace());
        let mut column = 0;
        for &byte in characters {
            if column == 64 {
                text.push('\n');
                column = 0;
            }
            text.push(char::from(byte));
            column += 1;
        }
        text.push_str(&format!("\n-----END {label}-----\n"));
        let (_, der) =
            SecretDocument::from_pem(&text).map_err(|_| ProblemKind::Damaged { label })?;
        Ok(der)
    }
}

/// The sections of a file; nothing if it is not PEM at all.
pub(super) fn sections(bytes: &[u8]) -> Option<Vec<Section<'_>>> {
    let mut sections: Vec<Section<'_>> = Vec::new();
    let mut is_open = false;
    for line in bytes.split(|&byte| byte == b'\n' || byte == b'\r') {
        // The byte order mark of Windows editors may come before the first line.
        let line = line
            .strip_prefix(b"\xef\xbb\xbf")
            .unwrap_or(line)
            .trim_ascii();
        if let Some(label) = label(line, b"-----BEGIN ") {
            sections.push(Section {
                label,
                body: Vec::new(),
                is_complete: false,
            });
            is_open = true;
        } else if is_open && let Some(section) = sections.last_mut() {
            match label_end(line) {
                Some(end) => {
                    section.is_complete = end == section.label;
                    is_open = false;
                }
                None => section.body.push(line),
            }
        }
    }
    (!sections.is_empty()).then_some(sections)
}

fn label_end(line: &[u8]) -> Option<&str> {
    label(line, b"-----END ")
}

fn label<'a>(line: &'a [u8], start: &[u8]) -> Option<&'a str> {
    let label = line.strip_prefix(start)?.strip_suffix(b"-----")?;
    // Labels are echoed: what could be a piece of a secret is no label. Those in use are short words.
    let is_label = label.len() <= 40
        && (label.split(|byte| *byte == b' '))
            .all(|word| word.len() <= 16 && word.iter().all(u8::is_ascii_graphic));
    str::from_utf8(label).ok().filter(|_| is_label)
}

/// Decodes the sections of one file.
pub(super) fn decode(
    material: &mut Material,
    path: &Path,
    sections: &[Section<'_>],
    passwords: &Passwords,
) {
    let mut is_of_use = false;
    for section in sections {
        let outcome = match section.label {
            "CERTIFICATE" | "X509 CERTIFICATE" => (section.der())
                .and_then(|der| certificate(der.as_bytes()))
                .map(|certificate| material.certificates.push(Arc::new(certificate)))
                .map_err(|kind| Problem::new(path, kind)),
            _ if section.is_secret() => {
                private_key(path, section, passwords).map(|key| material.keys.push(key))
            }
            // What may well lie beside certificates; parameters come before EC keys.
            "CERTIFICATE REQUEST"
            | "NEW CERTIFICATE REQUEST"
            | "X509 CRL"
            | "PUBLIC KEY"
            | "EC PARAMETERS"
            | "DH PARAMETERS" => Ok(()),
            _ => continue,
        };
        is_of_use = true;
        material.problems.extend(outcome.err());
    }
    if !is_of_use {
        let mut problem = Problem::new(path, ProblemKind::NotRecognised);
        if sections.iter().any(|section| section.label == "PKCS7") {
            let file = shell_word(path);
            problem.hint =
                format!("convert it: openssl pkcs7 -in {file} -print_certs -out {file}.new");
        }
        material.problems.push(problem);
    }
}

fn private_key(path: &Path, section: &Section<'_>, passwords: &Passwords) -> Result<Key, Problem> {
    let problem = |kind| Problem::new(path, kind);
    if section.is_traditionally_encrypted() {
        return Err(problem(ProblemKind::UnsupportedEncryption(
            "traditional OpenSSL format, `Proc-Type: 4,ENCRYPTED`",
        )));
    }
    let document = section.der().map_err(problem)?;
    let bytes = document.as_bytes();
    if section.label == "ENCRYPTED PRIVATE KEY" {
        return encrypted::decrypt(path, bytes, passwords);
    }
    let (_, der) = plain_key(section.label, bytes).ok_or_else(|| problem(ProblemKind::Key))?;
    key(&der).map_err(problem)
}

/// The three forms of a private key that is not encrypted, by their labels.
pub(super) fn plain_key<'a>(
    label: &str,
    bytes: &'a [u8],
) -> Option<(&'static str, PrivateKeyDer<'a>)> {
    Some(match label {
        "PRIVATE KEY" => (
            "PRIVATE KEY",
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(bytes)),
        ),
        "RSA PRIVATE KEY" => (
            "RSA PRIVATE KEY",
            PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(bytes)),
        ),
        "EC PRIVATE KEY" => (
            "EC PRIVATE KEY",
            PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(bytes)),
        ),
        _ => return None,
    })
}
