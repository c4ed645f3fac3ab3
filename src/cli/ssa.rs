//! \`funicular ssa\`: compute, check, explain, vectors.

use std::process::ExitCode;

/// Flags of `funicular ssa`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
