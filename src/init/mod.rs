//! Pod network set-up.

use std::process::ExitCode;

/// Flags of `funicular init`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs `funicular init`.
///
/// # Errors
/// Whatever kept it from starting or ended it.
pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
