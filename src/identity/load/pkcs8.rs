//! Encrypted PKCS#8 keys (PBES2: what OpenSSL and IGC-Santé's tools write today).

use std::path::Path;

use pkcs8::pkcs5::pbes2::Kdf;
use pkcs8::pkcs5::{self, EncryptionScheme};
use pkcs8::{EncryptedPrivateKeyInfoRef, Error};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::material::{Key, key};
use super::password::Passwords;
use super::problem::{Problem, ProblemKind};

/// 1.2.840.113549.1.12.1: the encryption of PKCS#12, which old tools put in PKCS#8 as well.
const PKCS12_ENCRYPTION: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x01];

/// OpenSSL writes 2,048 rounds, careful people a million; a file that asks for more would stall the loading.
const MOST_ROUNDS: u32 = 10_000_000;

/// The most memory that scrypt may ask for, in bytes: OpenSSL asks for 16 MiB.
const MOST_MEMORY: u64 = 256 * 1024 * 1024;

/// How often scrypt may ask for it, one after the other; OpenSSL asks once.
const MOST_LANES: u16 = 16;

/// Whether bytes in DER are an encrypted private key, supported or not.
pub(super) fn is_encrypted(der: &[u8]) -> bool {
    EncryptedPrivateKeyInfoRef::try_from(der).is_ok() || has_pkcs12_encryption(der)
}

fn has_pkcs12_encryption(der: &[u8]) -> bool {
    // The algorithm comes first, after at most two headers of five bytes.
    let start = &der[..der.len().min(32)];
    start
        .windows(PKCS12_ENCRYPTION.len())
        .any(|window| window == PKCS12_ENCRYPTION)
}

/// Opens an encrypted key with the first password that does.
pub(super) fn decrypt(path: &Path, der: &[u8], passwords: &Passwords) -> Result<Key, Problem> {
    let problem = |kind| Problem::new(path, kind);
    if has_pkcs12_encryption(der) {
        return Err(problem(ProblemKind::UnsupportedEncryption(
            "PKCS#12 encryption within PKCS#8",
        )));
    }
    // The document is whole DER already: what is not understood is its algorithm.
    let sealed = EncryptedPrivateKeyInfoRef::try_from(der)
        .map_err(|_| problem(ProblemKind::UnsupportedEncryption("unknown algorithm")))?;
    check_cost(&sealed.encryption_algorithm).map_err(problem)?;

    let own = passwords.own(path)?;
    let mut tried = 0;
    for password in own.iter().chain(passwords.shared()) {
        tried += 1;
        let opened = match sealed.decrypt(password.as_str()) {
            Ok(opened) => opened,
            Err(Error::EncryptedPrivateKey(pkcs5::Error::UnsupportedAlgorithm { .. })) => {
                return Err(problem(ProblemKind::UnsupportedEncryption(
                    "unknown algorithm",
                )));
            }
            Err(_) => continue,
        };
        // One wrong password in some hundreds yields bytes with valid padding: they are no key then.
        let opened = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(opened.as_bytes()));
        if let Ok(key) = key(&opened) {
            return Ok(key);
        }
    }
    Err(problem(match tried {
        0 => ProblemKind::PasswordMissing,
        _ => ProblemKind::WrongPassword { tried },
    }))
}

fn check_cost(scheme: &EncryptionScheme) -> Result<(), ProblemKind> {
    let Some(parameters) = scheme.pbes2() else {
        return Err(ProblemKind::UnsupportedEncryption("PBES1"));
    };
    match &parameters.kdf {
        Kdf::Pbkdf2(pbkdf2) if pbkdf2.iteration_count > MOST_ROUNDS => {
            Err(ProblemKind::TooCostly(format!(
                "{} rounds of PBKDF2, more than {MOST_ROUNDS}",
                pbkdf2.iteration_count
            )))
        }
        Kdf::Pbkdf2(_) => Ok(()),
        Kdf::Scrypt(scrypt) => {
            let memory = scrypt
                .cost_parameter
                .saturating_mul(u64::from(scrypt.block_size))
                .saturating_mul(128);
            if memory <= MOST_MEMORY && scrypt.parallelization <= MOST_LANES {
                return Ok(());
            }
            Err(ProblemKind::TooCostly(format!(
                "{} times {memory} bytes of memory for scrypt, more than {MOST_LANES} times {MOST_MEMORY}",
                scrypt.parallelization
            )))
        }
        _ => Err(ProblemKind::UnsupportedEncryption("unknown key derivation")),
    }
}
