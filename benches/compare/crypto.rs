//! What no full handshake of TLS 1.3 can do without on the client's side: an RSA signature and a key exchange.
//!
//! They are made as rustls makes them, by the same code, with a tenant's key and the group that nginx agrees to. Prints
//! the CPU time of each in microseconds, as a line of JSON: the least of several batches, because what
//! disturbs them makes them longer.

use std::env;
use std::fs;
use std::hint::black_box;

use anyhow::{Context as _, Result};
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::{Error, SignatureScheme};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;

/// Enough that a batch takes some tenths of a second: the kernel brings the CPU time of what runs up to date at its tick,
/// every 4 ms or even 10.
const SIGNATURES: u32 = 1_000;
const EXCHANGES: u32 = 5_000;
const BATCHES: u32 = 4;

/// What a client signs in TLS 1.3: 64 spaces, a label, a zero, a digest (RFC 8446, 4.4.3).
const SIGNED: [u8; 64 + 34 + 32] = [b' '; 130];

fn main() -> Result<()> {
    let file = env::args().nth(1).context("usage: crypto KEY.pem")?;
    let provider = aws_lc_rs::default_provider();
    let key = provider
        .key_provider
        .load_private_key(PrivateKeyDer::from_pem_file(&file)?)?;
    let signer = key
        .choose_scheme(&[SignatureScheme::RSA_PSS_SHA256])
        .with_context(|| format!("{file} holds no RSA key"))?;
    let peer = kx_group::X25519.start()?;
    let signature = least(SIGNATURES, || signer.sign(black_box(&SIGNED)).map(drop))?;
    let exchange = least(EXCHANGES, || {
        let own = kx_group::X25519.start()?;
        own.complete(black_box(peer.pub_key())).map(drop)
    })?;
    println!("{{\"rsa_signature_us\":{signature:.1},\"key_exchange_us\":{exchange:.1}}}");
    Ok(())
}

/// The CPU time of `work` in microseconds.
fn least(batch: u32, work: impl Fn() -> Result<(), Error>) -> Result<f64> {
    let mut least = u64::MAX;
    for _ in 0..BATCHES {
        let before = cpu_nanos()?;
        for _ in 0..batch {
            work()?;
        }
        least = least.min(cpu_nanos()? - before);
    }
    Ok(least as f64 / f64::from(batch) / 1000.0)
}

/// This thread's CPU time, where the script reads that of the proxies too.
fn cpu_nanos() -> Result<u64> {
    let schedstat = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = schedstat
        .split(' ')
        .next()
        .context("/proc/thread-self/schedstat is empty")?;
    Ok(nanos.parse()?)
}
