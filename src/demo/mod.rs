//! The whole system on one machine: `funicular demo`.
//!
//! Every role runs as a process of its own in network namespaces that vanish with the demo; the programs that call and
//! answer are real ones. `enclosure` makes the room and its certain end, `plan` says who is where, `site` builds
//! it on a `bed`, `story` shows and checks it, `render` prints what it found.

pub mod bed;
mod door;
mod enclosure;
pub mod material;
pub mod plan;
pub mod probe;
pub mod process;
pub mod programs;
mod render;
pub mod site;
mod story;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;

use self::site::{Options, Site};
use crate::net;

/// What is said before anything happens.
const PROLOGUE: &str = "Funicular on one machine: a client, three server pods and two name servers, each in a network \
    namespace of its own. Every step says what it does and checks what it claims. When it ends, nothing is left.";

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
    /// Set by the demo itself when it made a user namespace.
    #[arg(long, hide = true)]
    rootless: bool,
}

/// Runs `funicular demo`: exit code 0 when every claim holds, 1 otherwise.
///
/// # Errors
/// Whatever kept it from starting.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(program) = args.program {
        return programs::run(program);
    }
    let exe = std::env::current_exe().context("cannot find this program's own file")?;
    if args.inside {
        return perform(&args, &exe);
    }
    let mut flags = vec!["-o", args.output.word()];
    if args.keep {
        flags.push("--keep");
    }
    if !net::namespace::is_privileged() {
        flags.push("--rootless");
    }
    Ok(enclosure::run_inside(&exe, &flags)?)
}

/// Builds the site and tells the story, inside the enclosure.
fn perform(args: &Args, exe: &Path) -> anyhow::Result<ExitCode> {
    let lifeline = enclosure::Lifeline::watch().context("cannot watch the outer process")?;
    let begun = Instant::now();
    let mut stage = render::Stage::new(args.output);
    stage.prologue(PROLOGUE);
    let options = Options { exe: exe.to_owned(), folder: enclosure::folder(exe)?, second_peak: false };
    let mut site = Site::build(&options, &mut |what| stage.doing(what))?;
    story::tell(&mut site, &mut stage);
    let commands = if args.keep { story::commands(&site, args.rootless) } else { Vec::new() };
    let findings = stage.finish(begun.elapsed(), commands);
    let code = u8::from(!findings.held);
    if args.keep {
        lifeline.keep(code);
    }
    Ok(ExitCode::from(code))
}
