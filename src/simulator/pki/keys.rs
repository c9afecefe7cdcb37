//! Key pairs: slow to make, so made on all cores and shared where a test can.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};

/// Makes RSA-2048 keys, on all cores.
///
/// # Panics
/// If the system has no randomness to make keys from.
pub fn generate_keys(count: usize) -> Vec<Arc<KeyPair>> {
    let left = AtomicUsize::new(count);
    let take_one = || {
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            left.checked_sub(1)
        })
        .is_ok()
    };
    let make = || {
        let mut keys = Vec::new();
        while take_one() {
            keys.push(Arc::new(generate_key()));
        }
        keys
    };
    let threads = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(count);
    thread::scope(|scope| {
        #[expect(
            clippy::needless_collect,
            reason = "lazily, each thread would start when the one before is joined"
        )]
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(make)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("key generation does not panic"))
            .collect()
    })
}

pub(super) fn generate_key() -> KeyPair {
    KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)
        .expect("RSA-2048 keys can be made wherever there is randomness")
}
