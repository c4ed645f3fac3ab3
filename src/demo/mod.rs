//! The whole system on one machine.

use std::process::ExitCode;

/// Flags of `funicular demo`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs `funicular demo`.
///
/// # Errors
/// Whatever kept it from starting or ended it.
pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
