//! The command line.

pub mod ask;
mod ca;
pub mod check;
pub mod csr;
pub mod demo;
pub mod inspect;
pub mod install;
pub mod serve;
mod token;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::{config, hardening};

/// What went wrong is on standard error; nothing was served, or something is wrong with what was checked.
pub const EXIT_ERROR: u8 = 1;

/// A check found warnings only.
pub const EXIT_WARNINGS: u8 = 3;

/// Mutual-TLS client gateway for French e-health: applications send plain HTTP to localhost, Relais shows each
/// national service the right IGC-Santé certificate of the right structure.
#[derive(Debug, Parser)]
#[command(
    name = "relais",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway.
    ///
    /// SIGTERM or SIGINT stops it: requests in flight finish (shutdown.grace), a second one cuts them. SIGHUP has it read
    /// everything again. Sockets that systemd passes (LISTEN_FDS) are used for the listeners with their addresses.
    Serve(serve::Arguments),
    /// Tell every problem of configuration, certificates and permissions, and serve nothing.
    ///
    /// Exit code: 0 clean, 1 errors, 2 wrong usage, 3 warnings only.
    Check(check::Arguments),
    /// Have a running gateway read its configuration and what it names again, and tell what has changed.
    ///
    /// Exit code: 0 all in order, 1 not done, 2 wrong usage, 3 done, with files that are not in order.
    Reload(ask::Arguments),
    /// Tell how a running gateway is. Exit code: 0 ready, 1 not.
    Status(ask::Arguments),
    /// Run a gateway with simulated services and tenants, all on this machine.
    Demo(demo::Arguments),
    /// Tell what certificates, keys and PKCS#12 files are, what they may serve, and what not and why.
    Inspect(inspect::Arguments),
    /// Make a private key and the request for its certificate, for one structure or for all of a CSV file.
    Csr(csr::Arguments),
    /// Make an authority for listeners that take https:// requests by CONNECT (`[listeners.intercept]`).
    Ca(ca::Arguments),
    /// Make a token with which a program is recognised (`[[callers]]`).
    ///
    /// The token is printed once and kept nowhere; the configuration holds its hash.
    Token,
    /// Match delivered certificates with their keys, verify them, and put them where the gateway finds them.
    Install(install::Arguments),
}

/// Where the configuration is.
#[derive(Clone, Debug, clap::Args)]
pub struct ConfigArgument {
    /// The configuration file.
    #[arg(long, value_name = "FILE", env = config::PATH_VARIABLE, default_value = config::DEFAULT_PATH)]
    pub config: PathBuf,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Format {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON document.
    Json,
}

/// Runs a command to its exit code.
pub fn run(arguments: Arguments) -> ExitCode {
    // Each command reads or makes keys, or may be given a token; none has read one yet.
    if let Err(error) = hardening::begin() {
        eprintln!("warning: keys may be read from the memory of this process: {error}");
    }
    let ended = match arguments.command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Reload(arguments) => ask::reload(&arguments),
        Command::Status(arguments) => ask::status(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Csr(arguments) => csr::run(&arguments),
        Command::Ca(arguments) => ca::run(&arguments),
        Command::Install(arguments) => install::run(&arguments),
        Command::Token => token::run(),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(EXIT_ERROR)
    })
}

/// Prints to standard output. A reader that has had enough (`| head`) is no error.
pub(crate) fn print(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
