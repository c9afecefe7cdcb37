//! x
use std::process::ExitCode;
/// A
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {}
/// R
///
/// # Errors
/// e
pub fn run(_: &Arguments) -> anyhow::Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
