//! The whole system on one machine: `funicular demo`.
//!
//! Every role runs as a process of its own in network namespaces that vanish with the demo; the programs that call and
//! answer are real ones. [`enclosure`] makes the room and its certain end, [`plan`] says who is where, [`site`] builds
//! it on a [`bed`], [`story`] shows and checks it, [`render`] prints what it found.

pub mod bed;
mod enclosure;
pub mod material;
pub mod plan;
pub mod probe;
pub mod process;
pub mod programs;
mod render;
pub mod site;

use std::process::ExitCode;

/// Flags of `funicular demo`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    program: Option<programs::Program>,
    /// Leave everything running when the story is told, until Ctrl-C, with the commands to look around.
    #[arg(long)]
    keep: bool,
    /// For people or for machines.
    #[arg(short, long, value_enum, default_value_t)]
    output: render::Format,
    /// Set by the demo itself when it starts itself inside its namespaces.
    #[arg(long, hide = true)]
    inside: bool,
}

/// Runs `funicular demo`.
///
/// # Errors
/// Whatever kept it from starting or ended it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(program) = args.program {
        return programs::run(program);
    }
    anyhow::bail!("not built yet")
}
