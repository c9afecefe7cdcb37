//! Tokens: random enough that a plain hash of one tells nothing, and kept as that hash alone.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use aws_lc_rs::{constant_time, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::identity::profile::Fingerprint;

/// Before the hash in the configuration, so that a token put there by mistake is not taken for one.
const SCHEME: &str = "sha256:";

/// Bytes of a token that are random. Guessing 256 bits is out of reach, so that the hash need not be a slow one, as
/// for passwords, which people choose.
const RANDOM: usize = 32;

/// Before a token, so that people and scanners of leaked secrets know what it is.
const MARK: &str = "relais_";

/// The SHA-256 of a token.
#[derive(Clone, Copy, Eq)]
pub struct TokenHash(Fingerprint);

/// Why a text is not the hash of a token.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the hash of a token is sha256: and 64 hexadecimal digits; `relais token` prints one")]
pub struct TokenHashError;

impl TokenHash {
    /// The hash of what is shown as a token, if it has the form of one. Nothing else is worth hashing: what people
    /// choose themselves can be guessed from its hash, and an empty field is what a script sends that forgot its secret.
    pub fn of_shown(shown: &[u8]) -> Option<Self> {
        let random = shown.strip_prefix(MARK.as_bytes())?;
        let is_one = URL_SAFE_NO_PAD
            .decode(random)
            .map(Zeroizing::new)
            .is_ok_and(|random| random.len() == RANDOM);
        is_one.then(|| Self::of(shown))
    }

    /// The hash of a token.
    pub fn of(token: &[u8]) -> Self {
        Self(Fingerprint::of(token))
    }
}

/// A new token, to be shown once and kept nowhere.
///
/// # Errors
/// When the system has no random numbers.
pub fn new_token() -> Result<Zeroizing<String>, aws_lc_rs::error::Unspecified> {
    let mut random = Zeroizing::new([0; RANDOM]);
    rand::fill(&mut *random)?;
    let mut token = Zeroizing::new(MARK.to_owned());
    // In its final size, so that no copy of a part is left behind.
    token.reserve_exact(RANDOM.div_ceil(3) * 4);
    URL_SAFE_NO_PAD.encode_string(*random, &mut token);
    Ok(token)
}

impl Hash for TokenHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl FromStr for TokenHash {
    type Err = TokenHashError;

    fn from_str(text: &str) -> Result<Self, TokenHashError> {
        let digits = text.strip_prefix(SCHEME).ok_or(TokenHashError)?;
        // Without the colons in which certificates' are printed.
        if digits.contains(':') {
            return Err(TokenHashError);
        }
        let hash = Self(digits.parse().map_err(|_| TokenHashError)?);
        // What hashing gives whose input is missing.
        (hash != Self::of(b""))
            .then_some(hash)
            .ok_or(TokenHashError)
    }
}

/// The time that it takes tells nothing of how much is right: that would tell of a hash, from which no token follows,
/// but it costs nothing to be sure.
impl PartialEq for TokenHash {
    fn eq(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(self.0.as_bytes(), other.0.as_bytes()).is_ok()
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.0)
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_recognised_by_the_hash_that_was_printed_for_it() {
        let token = new_token().unwrap();
        let printed = TokenHash::of(token.as_bytes()).to_string();
        let kept: TokenHash = printed.parse().unwrap();
        assert_eq!(Some(kept), TokenHash::of_shown(token.as_bytes()));
        let other = new_token().unwrap();
        assert_ne!(Some(kept), TokenHash::of_shown(other.as_bytes()));
        assert!(
            token.starts_with(MARK) && token.len() == MARK.len() + 43,
            "{}",
            token.len()
        );
    }

    #[test]
    fn what_people_make_up_is_no_token() {
        let token = new_token().unwrap();
        for wrong in [
            "",
            "relais_",
            "secret",
            &token[..49],
            &format!("{}=", *token),
            &token[7..],
        ] {
            assert_eq!(TokenHash::of_shown(wrong.as_bytes()), None, "{wrong}");
        }
        assert!(TokenHash::of(b"").to_string().parse::<TokenHash>().is_err());
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        let hash = TokenHash::of(b"x").to_string();
        for wrong in [
            "",
            "relais_x",
            &hash[7..],
            &hash[..70],
            &format!("{hash}0"),
            &hash.replace("sha256", "md5"),
        ] {
            assert_eq!(wrong.parse::<TokenHash>(), Err(TokenHashError), "{wrong}");
        }
        assert_eq!(
            hash.to_uppercase().replace("SHA256", "sha256").parse(),
            Ok(TokenHash::of(b"x"))
        );
    }
}
