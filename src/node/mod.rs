//! The node agent: routes slices to the pods of its node, and carries strays while slices move.
//!
//! ```text
//!  sidecars ──unix socket──▶ door ──claims──▶ keeper ──▶ wanted (pure) ──▶ kernel: routes, rules, packet rules
//!  other agents ◀──TLS──▶ mesh ──their slices──▶ │                           │
//!                                                └◀──what others change──────┘
//! ```
//!
//! A sidecar claims slices for its pod ([`wire::agent`](crate::wire::agent)); the agent gives each a route in a table
//! of its own, from which a routing daemon announces it, or tells the other agents itself. A stray is a packet of a
//! connection whose slice has moved: it is known by its connection's mark, or by belonging to no connection that this
//! node has seen begin, and is carried to the pod that has the connection.
//!
//! Invariants: everything the agent writes carries its protocol number, or stands in its table of packet rules, or is
//! its tunnel device, and nothing else is touched; what it has written stays when it ends, so that it may be replaced
//! while everything runs on; a slice is routed to its new pod only after its strays can be carried.

mod door;
mod heard;
mod keeper;
mod kernel;
mod mesh;
mod metrics;
mod place;
mod pods;
mod serve;
mod strays;
mod wanted;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use crate::config::common::{Format, Log};
use crate::config::node_agent::NodeAgent;
use crate::config::{self, Faults};
use crate::ops::{logging, process};

/// Who wrote our routes and rules (RTA_PROTOCOL, FRA_PROTOCOL): an `F`, as in pods.
const PROTOCOL: u8 = b'F';
/// The table of slices: the one to announce. Also the priority of its rule; those of strays stand before it.
const SLICES: u32 = 15_070;
/// The table of strays whose connection this node has not seen begin: by slice, to where it came from.
const STRAYS: u32 = 15_069;
/// The table of slices that have left this node's pods, each to the pod that it has left.
const LEFT: u32 = 15_071;

/// Flags of `funicular node`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration, YAML; `funicular check` looks it over
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Take everything that an agent has left on this node away, and end
    #[arg(long)]
    remove: bool,
}

/// Runs `funicular node` until it is told to stop. Routes stay.
///
/// # Errors
/// Whatever kept it from starting.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let loaded = match config::load::<NodeAgent>(&args.config) {
        Ok(loaded) => loaded,
        Err(faults) => return Ok(faulty(&faults)),
    };
    let logging = logging::start(loaded.value.log.level.word(), format(&loaded.value.log))?;
    // One thread: what the agent does is short, and whatever enters a namespace does so on a thread of its own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    if args.remove {
        runtime.block_on(kernel::remove(&serve::node(&loaded.value)))?;
        return Ok(ExitCode::SUCCESS);
    }
    process::raise_descriptor_limit();
    runtime.block_on(serve::serve(loaded, logging))?;
    Ok(ExitCode::SUCCESS)
}

fn faulty(faults: &Faults) -> ExitCode {
    eprintln!("{faults}");
    ExitCode::FAILURE
}

fn format(log: &Log) -> logging::Format {
    match log.format {
        Format::Text => logging::Format::Text,
        Format::Json => logging::Format::Json,
    }
}
