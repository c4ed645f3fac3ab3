//! `funicular check`: is a configuration right, before anything depends on it; is an installation well, or a cluster fit
//! for one.
//!
//! Owns the flags, the order of the checks and the exit code: 0 when nothing is wrong, 1 otherwise. Each module looks at
//! one thing and gives findings; nothing is changed anywhere.

mod configuration;
mod findings;
mod installation;
mod kernel;
mod kubernetes;
mod names;
mod rights;
mod routing;
mod webhook;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::assignment;
use crate::ops::output::Output;

use super::role::Role;

/// Flags of `funicular check`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration to check. `FUNICULAR_…` variables of the environment override it, as they do for the role. Without
    /// it, the installation is looked over: this machine's kernel, the cluster, what is installed in it, slices, names.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    configuration: Configuration,
    #[command(flatten)]
    installation: installation::Installation,
    #[command(flatten)]
    output: Output,
}

/// For a configuration.
#[derive(Debug, clap::Args)]
#[group(requires = "file")]
struct Configuration {
    /// Whose configuration it is; without this, told by the file's name or its keys.
    #[arg(long)]
    role: Option<Role>,
    /// Set a key over the file and the environment; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,
    /// Do not look whether the files that it names can be read: they are on another machine.
    #[arg(long)]
    no_files: bool,
    /// Show every setting in effect and where it comes from.
    #[arg(long)]
    show: bool,
}

/// Exit code 0 when nothing is wrong, 1 otherwise.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.file {
        Some(file) => configuration::run(&file, args.configuration, args.output),
        None => installation::run(&args.installation, args.output),
    }
}
