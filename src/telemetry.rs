//! Logs: diagnostics on standard error, and a line for each request.

pub mod access;

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::config::{Log, LogFormat};

/// Sends diagnostics to standard error. The first call in a process decides; later ones change nothing.
///
/// # Errors
/// When the level is not a filter directive.
pub fn install(log: &Log) -> Result<(), ParseError> {
    let filter = EnvFilter::builder().parse(directives(&log.level))?;
    let builder = tracing_subscriber::fmt()
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let installed = match log.format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    // Another application in the same process (a test) has installed its own already.
    drop(installed);
    Ok(())
}

/// A level alone is for Relais. What it is built on says nothing below errors: at `debug` HTTP libraries write paths
/// and header fields down. Whoever names a target has been warned by the reference.
fn directives(level: &str) -> String {
    if level.contains('=') || level == "off" {
        level.to_owned()
    } else {
        format!("error,relais={level}")
    }
}
