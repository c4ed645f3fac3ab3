//! The command line: which commands there are, and the exit code each ends with.
//!
//! Owns parsing and dispatch alone. A role's flags stand in that role's folder, people's commands in `cli/`.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

mod check;
mod completion;
mod inject;
mod manifests;
mod record;
mod role;
mod schema;
mod slices;
mod ssa;
mod why;

/// Structured Service Addressing for unmodified services.
#[derive(Debug, Parser)]
#[command(name = "funicular", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check a configuration, every fault with its place; or without one, this machine, a cluster and an installation.
    Check(check::Args),
    /// Print a shell's completion script.
    Completion(completion::Args),
    /// Show the whole system working on this machine, in private network namespaces.
    Demo(crate::demo::Args),
    /// Set up a pod's network: redirect rules and local routes. Runs once, privileged, then is gone.
    Init(crate::init::Args),
    /// Put sidecars into manifests, as the webhook does into pods.
    Inject(inject::Inject),
    /// Route slices to the pods of this node, and carry strays while slices move.
    Node(crate::node::Args),
    /// Serve DNS zones.
    Peak(crate::peak::Args),
    /// Look at and change the records of Peak's registry.
    Record(record::Args),
    /// Print what a configuration may hold: JSON Schema, or the manual's reference.
    Schema(schema::Args),
    /// Carry a pod's calls: intercept, resolve, authenticate; accept, verify, forward.
    Sidecar(crate::sidecar::Args),
    /// Show who owns which slices of a service, and move them.
    Slices(slices::Args),
    /// Compute, check and explain structured service addresses.
    Ssa(ssa::Args),
    /// Take sidecars out of manifests again.
    Uninject(inject::Uninject),
    /// Put sidecars into pods as Kubernetes makes them.
    Webhook(crate::webhook::Args),
    /// Say why a pod gets a sidecar, or why not.
    Why(why::Args),
}

/// All commands with their flags, to be parsed or described.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses the process's arguments, runs the command, and gives the exit code: 0 done, 1 failed, 2 wrong usage.
pub fn run() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Check(args) => check::run(args),
        Command::Completion(args) => completion::run(&args, command()),
        Command::Demo(args) => crate::demo::run(args),
        Command::Init(args) => crate::init::run(args),
        Command::Inject(args) => inject::inject(&args),
        Command::Node(args) => crate::node::run(args),
        Command::Peak(args) => crate::peak::run(args),
        Command::Record(args) => record::run(args),
        Command::Schema(args) => schema::run(args),
        Command::Sidecar(args) => crate::sidecar::run(args),
        Command::Slices(args) => slices::run(args),
        Command::Ssa(args) => ssa::run(args),
        Command::Uninject(args) => inject::uninject(&args),
        Command::Webhook(args) => crate::webhook::run(args),
        Command::Why(args) => why::run(&args),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("funicular: {error:#}");
            ExitCode::FAILURE
        }
    }
}
