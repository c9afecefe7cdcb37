//! Logs: diagnostics on standard error, and a line for each request.

pub mod access;
mod line;

use std::fmt;
use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::reload::Handle;

use crate::config::{Log, LogFormat};

/// Sets the level of diagnostics while the process runs.
pub struct Level(Box<dyn Fn(EnvFilter) + Send + Sync>);

impl fmt::Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Level").finish_non_exhaustive()
    }
}

impl Level {
    /// Writes down what this level (`log.level`) lets through, from now on.
    ///
    /// # Errors
    /// When it is not a filter directive.
    pub fn set(&self, level: &str) -> Result<(), ParseError> {
        (self.0)(filter(level)?);
        Ok(())
    }
}

/// Sends diagnostics to standard error. The first call in a process decides; later ones change nothing, and get nothing
/// to set a level with.
///
/// # Errors
/// When the level is not a filter directive.
pub fn install(log: &Log) -> Result<Option<Level>, ParseError> {
    let builder = tracing_subscriber::fmt()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let filter = filter(&log.level)?;
    let (level, installed) = match log.format {
        LogFormat::Text => {
            let builder = builder.with_target(false).with_env_filter(filter);
            let builder = builder.with_filter_reloading();
            (Level::of(builder.reload_handle()), builder.try_init())
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_env_filter(filter);
            let builder = builder.with_filter_reloading();
            (Level::of(builder.reload_handle()), builder.try_init())
        }
    };
    // Otherwise another application in the same process (a test) has installed its own already.
    Ok(installed.is_ok().then_some(level))
}

impl Level {
    fn of<S: 'static>(handle: Handle<EnvFilter, S>) -> Self {
        // It fails only when the subscriber is gone, and then nobody writes anything.
        Self(Box::new(move |filter| drop(handle.reload(filter))))
    }
}

fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().parse(directives(level))
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
