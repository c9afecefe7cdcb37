//! The SHA-256 of a certificate: what tells one identity from every other.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;
use thiserror::Error;

/// The SHA-256 of a certificate's DER encoding.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Fingerprint([u8; 32]);

/// Why a text is not a fingerprint.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error(
    "a certificate fingerprint is its SHA-256 in 64 hexadecimal digits, colons allowed between bytes; \
     `openssl x509 -noout -fingerprint -sha256` prints it"
)]
pub struct FingerprintError;

impl Fingerprint {
    /// The fingerprint of a certificate in DER.
    pub fn of(der: &[u8]) -> Self {
        let digest = digest::digest(&digest::SHA256, der);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }

    /// The digest itself.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    /// Accepts both cases, and the colons that OpenSSL and browsers print.
    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let separated = match text.len() {
            64 => false,
            95 => true,
            _ => return Err(FingerprintError),
        };
        let mut bytes = [0; 32];
        let stride = if separated { 3 } else { 2 };
        for (byte, chunk) in bytes.iter_mut().zip(text.as_bytes().chunks(stride)) {
            let (Some(high), Some(low)) = (hex_value(chunk[0]), hex_value(chunk[1])) else {
                return Err(FingerprintError);
            };
            if chunk.get(2).is_some_and(|&separator| separator != b':') {
                return Err(FingerprintError);
            }
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 64];
        for (digits, byte) in text.chunks_exact_mut(2).zip(self.0) {
            digits[0] = HEX[usize::from(byte >> 4)];
            digits[1] = HEX[usize::from(byte & 15)];
        }
        f.write_str(str::from_utf8(&text).expect("digits are ASCII"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_openssl_prints() {
        let fingerprint = Fingerprint::of(b"");
        let plain = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(fingerprint.to_string(), plain);
        let pairs: Vec<String> = (0..32)
            .map(|i| plain[2 * i..2 * i + 2].to_uppercase())
            .collect();
        assert_eq!(pairs.join(":").parse(), Ok(fingerprint));
        assert_eq!(
            pairs.join("-").parse::<Fingerprint>(),
            Err(FingerprintError)
        );
        assert_eq!("e3b0".parse::<Fingerprint>(), Err(FingerprintError));
    }

    proptest! {
        #[test]
        fn never_panics_and_round_trips(bytes: [u8; 32], text in "\\PC{0,100}|[0-9a-f:é]{60,96}") {
            let fingerprint = Fingerprint(bytes);
            prop_assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
            let _ = text.parse::<Fingerprint>();
        }
    }
}
