//! The per-pod proxy.

pub mod directory;
pub mod inbound;
mod listener;
pub mod original;
pub mod outbound;
pub mod report;
pub mod resolve;
pub mod secrets;
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
