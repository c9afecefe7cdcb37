//! `relais serve`.

use std::process::ExitCode;

use crate::app;
use crate::cli::ConfigArgument;
use crate::config::Config;
use crate::{shutdown, telemetry};

/// Runs the gateway until a signal asks it to stop.
///
/// # Errors
/// What keeps it from starting.
pub fn run(arguments: &ConfigArgument) -> anyhow::Result<ExitCode> {
    let loaded = Config::load(&arguments.config)?;
    let level = telemetry::install(&loaded.config.log)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    // Before the sockets: a signal that arrives while they are bound must not kill half a gateway.
    let signals = shutdown::on_signals()?;
    let bound = app::bind(loaded.config)?;
    if let Some(admin) = bound.admin_address() {
        tracing::info!(address = %admin, "administration");
    }
    bound
        .with_level(level)
        .reload_on(signals.reload)
        .run(signals.stop)?;
    Ok(ExitCode::SUCCESS)
}
