//! `relais serve`.

use std::process::ExitCode;

use crate::app;
use crate::cli::ConfigArgument;
use crate::config::Config;
use crate::inbound::inherited::Inherited;
use crate::sandbox::{self, State};
use crate::takeover::Predecessor;
use crate::{hardening, shutdown, telemetry};

/// Arguments of `relais serve`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Take over from the gateway with this process id, without a refused connection.
    ///
    /// For a new version or configuration where no systemd holds the sockets: start it beside the one that runs, under
    /// the same account. It takes over the sockets of addresses that both have, binds the others, and when it serves it
    /// asks the other to stop, which lets its requests in flight finish; do not signal that one yourself, a second
    /// signal would cut them. If it cannot start, the other goes on.
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    takeover: Option<u32>,
}

/// Runs the gateway until a signal asks it to stop.
///
/// # Errors
/// What keeps it from starting.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    // First: it unsets variables, which only a process without other threads may do.
    let mut inherited = Inherited::from_environment()?;
    let loaded = Config::load(&arguments.config.config)?;
    let level = telemetry::install(&loaded.config.log)?;
    if loaded.config.process.core_dumps {
        hardening::allow_core_dumps()?;
        tracing::warn!(
            "core files and debuggers are allowed (process.core_dumps): they have the keys"
        );
    }
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    if loaded.config.process.sandbox {
        // Before the first thread, since it holds for this one and those that it starts.
        match sandbox::enter(&loaded.config)? {
            State::NotEnforced => tracing::warn!(
                "this kernel has no Landlock, or was started without: nothing keeps the process to its files \
                 (process.sandbox)"
            ),
            state => tracing::info!(state = state.as_str(), "sandbox"),
        }
    }
    // Before the sockets: a signal that arrives while they are bound must not kill half a gateway.
    let signals = shutdown::on_signals()?;
    let predecessor = (arguments.takeover)
        .map(|pid| Predecessor::find(pid, &mut inherited))
        .transpose()?;
    let mut bound = app::bind_with(loaded.config, inherited)?;
    if let Some(predecessor) = predecessor {
        bound = bound.take_over_from(predecessor);
    }
    if let Err(error) = bound.offer_sockets() {
        tracing::warn!(%error, "no successor will be able to take over (--takeover)");
    }
    if let Some(admin) = bound.admin_address() {
        tracing::info!(address = %admin, "administration");
    }
    bound
        .with_level(level)
        .reload_on(signals.reload)
        .run(signals.stop)?;
    Ok(ExitCode::SUCCESS)
}
