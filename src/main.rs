//! The process edge: allocator, arguments, exit code.

use std::process::ExitCode;

use clap::Parser;
use relais::cli::{Arguments, run};

/// A gateway allocates and frees in step with requests on every worker; mimalloc keeps that on the worker's own pages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    run(Arguments::parse())
}
