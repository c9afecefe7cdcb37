//! The process edge: allocator, arguments, exit code.

use std::process::ExitCode;

use clap::Parser;
use relais::cli::{Arguments, run};

/// A gateway allocates and frees in step with requests on every worker; mimalloc keeps that on the worker's own pages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    use_small_pages();
    run(Arguments::parse())
}

/// The allocator asks for huge pages, and each thread's share of them is mostly empty: a thousand idle tenants would
/// take 31 MiB instead of 18 (`benches/compare/run.sh --only memory`). Before anything of size is allocated.
fn use_small_pages() {
    // Where the kernel does not have it, memory at rest is larger, and nothing else is different.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}
