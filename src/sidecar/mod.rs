//! The per-pod proxy.

pub mod resolve;
pub mod stub;

use std::process::ExitCode;

/// Flags of `funicular sidecar`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs `funicular sidecar`.
///
/// # Errors
/// Whatever kept it from starting or ended it.
pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
