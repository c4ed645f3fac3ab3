//! The per-pod proxy: carries the calls of the pod's programs to services with structured addresses, and the calls of
//! others to the pod's own services.
//!
//! ```text
//!   application ──DNS──▶ stub ──▶ resolve ──▶ Peak
//!        │                 │ stand-ins
//!        └────TCP───▶ outbound ════ TLS, token ════▶ inbound ────▶ application
//!                     (this pod)                    (that pod)
//! ```
//!
//! | module | owns |
//! |---|---|
//! | [`stub`] | the pod's DNS, stand-ins |
//! | [`resolve`] | what Peak says |
//! | [`outbound`] | intercept, recognise, pick, authenticate, transport |
//! | [`inbound`] | accept, verify, admit, forward |
//! | `http` | what both say and do in HTTP |
//! | [`memory`] | how much memory may be in use before peers have to wait |
//! | [`quota`] | how many connections may be under way for one service, or from one host |
//! | [`lease`] | which slices are this pod's |
//! | [`report`] | metrics, access log and warnings of both |
//! | `assemble`, `serve` | from a configuration to a running sidecar, and its end |
//! | `reload` | what changes while it runs |
//! | `succession` | how a new program takes its place |
//! | `look`, `ask`, `wait`, `leave`, `tap` | what is seen of one that runs, and the commands that ask it |

mod ask;
mod assemble;
pub mod directory;
mod http;
pub mod inbound;
pub mod lease;
mod leave;
mod listener;
mod look;
mod material;
pub mod memory;
pub mod original;
pub mod outbound;
mod probe;
pub mod quota;
mod reload;
pub mod report;
pub mod resolve;
pub mod secrets;
mod serve;
pub mod stub;
mod succession;
mod tap;
mod wait;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use crate::config;
use crate::config::common::{Format, Log};
use crate::config::sidecar::Sidecar;
use crate::ops::{logging, process};
use succession::Program;

/// Flags of `funicular sidecar`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    /// The configuration, YAML; `funicular check` looks it over
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    /// Threads that carry connections; one is enough for most pods and cheapest for all
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    threads: u8,
    /// Take the place of the sidecar at standard input, which has started this one so
    #[arg(long, hide = true)]
    take_over: bool,
    #[command(subcommand)]
    act: Option<Act>,
}

/// The flag of [`Args::take_over`].
const TAKE_OVER: &str = "--take-over";

/// What can be done to a sidecar that runs.
#[derive(Debug, clap::Subcommand)]
enum Act {
    /// Wait until the pod's sidecar is ready: the start gate of programs that need the network at once
    Wait(wait::Args),
    /// Give the pod's slices to others before its application ends: for a pod's `preStop`
    Leave(leave::Args),
    /// Print the connections of the pod's sidecar as they end, one JSON object a line
    Tap(tap::Args),
}

/// Runs `funicular sidecar` until it is told to stop.
///
/// # Errors
/// Whatever kept it from starting.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match &args.act {
        Some(Act::Wait(args)) => return wait::run(args),
        Some(Act::Leave(args)) => return Ok(leave::run(args)),
        Some(Act::Tap(args)) => return tap::run(args),
        None => {}
    }
    let file = args.config.context("say which configuration: --config FILE")?;
    let read = {
        let file = file.clone();
        move || config::load::<Sidecar>(&file)
    };
    let loaded = read()?;
    let logging = logging::start(loaded.value.log.level.word(), format(&loaded.value.log))?;
    process::raise_descriptor_limit();
    let program = Program::running(TAKE_OVER).context("cannot tell which program runs")?;
    let start = serve::Start { loaded, read: Box::new(read), file, logging, program, takes_over: args.take_over };
    let runtime = runtime(args.threads)?;
    let code = runtime.block_on(serve::serve(start))?;
    // Blocking work that nobody waits for any longer must not hold the end up.
    runtime.shutdown_background();
    Ok(code)
}

/// One thread needs no other to wake it: everything runs on the one that was there anyway.
fn runtime(threads: u8) -> std::io::Result<tokio::runtime::Runtime> {
    use tokio::runtime::Builder;
    if threads == 1 {
        return Builder::new_current_thread().enable_all().build();
    }
    Builder::new_multi_thread().worker_threads(usize::from(threads)).thread_name("sidecar").enable_all().build()
}

fn format(log: &Log) -> logging::Format {
    match log.format {
        Format::Text => logging::Format::Text,
        Format::Json => logging::Format::Json,
    }
}
