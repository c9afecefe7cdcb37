//! What the tests of the whole crate share, so that each does not make keys of its own.

use std::sync::LazyLock;

use super::*;

/// The test environment's PKI.
pub(crate) static TEST: LazyLock<Pki> = LazyLock::new(|| Pki::new(Environment::Test));

/// The production environment's.
pub(crate) static PRODUCTION: LazyLock<Pki> = LazyLock::new(|| Pki::new(Environment::Production));

/// Four keys.
pub(crate) static KEYS: LazyLock<Vec<Arc<KeyPair>>> = LazyLock::new(|| generate_keys(4));

/// A request whose certificate has the shared key of that rank.
pub(crate) fn request<'a>(structure: &'a str, common_name: &'a str, key: usize) -> Request<'a> {
    Request {
        key: Some(Arc::clone(&KEYS[key])),
        ..Request::new(structure, common_name)
    }
}
