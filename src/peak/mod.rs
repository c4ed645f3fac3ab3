//! The control plane: authoritative DNS.

use std::process::ExitCode;

mod dns;

/// Flags of `funicular peak`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs `funicular peak`.
///
/// # Errors
/// Whatever kept it from starting or ended it.
pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
