//! Micro-benchmarks, each subject in a file: `cargo bench -- selection` runs one, `cargo bench -- --test` tries all out
//! without timing anything.
//!
//! Whole programs are compared by `benches/compare` and `benches/rotation`.

mod checkout;
mod cpu;
mod handshakes;
mod headers;
mod load;
mod registry;
mod requests;
mod rotation;
mod selection;
#[path = "../tests/support/mod.rs"]
mod support;
mod swap;

use criterion::{criterion_group, criterion_main};
use tokio::runtime::{self, Runtime};

/// The program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// So many of something, or a few if the benchmarks are only tried out: making certificates takes long.
fn unless_tried_out(count: usize) -> usize {
    const FEW: usize = 20;
    match std::env::args().any(|argument| argument == "--test") {
        true => count.min(FEW),
        false => count,
    }
}

/// A runtime of the calling thread.
fn one_thread() -> Runtime {
    runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be made")
}

criterion_group!(
    benches,
    selection::selection,
    checkout::checkout,
    headers::headers,
    swap::swap,
    registry::tenants,
    handshakes::handshakes,
    requests::requests,
    rotation::rotation,
);
criterion_main!(benches);
