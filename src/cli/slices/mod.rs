//! `funicular slices`: who owns what of a service's space, and moving it, through Peak's API.
//!
//! Exit codes: 0 done; 1 refused, or nobody answered; 2 wrong usage.

mod draw;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use ipnet::Ipv6Net;
use serde_json::Value;

use super::record::connection::{Peak, Server};
use crate::ops::output::{Format, Output, print};
use crate::wire::api::SlicesAsk;

/// Flags of `funicular slices`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Give slices to a pod, where they stay while it serves.
    Move(MoveArgs),
    /// Take all slices from a pod, or with --undo give it its share again.
    Drain(DrainArgs),
    /// Keep slices with a pod while it serves; without a pod, no longer.
    Pin(PinArgs),
    /// Exchange slices until pods have as few prefixes as that gives, whatever the budget.
    Rebalance(RebalanceArgs),
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// The service; without it, all that have slices.
    service: Option<String>,
    /// Look again every second.
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

/// What commands that change something have in common.
#[derive(Debug, clap::Args)]
struct Changing {
    /// Only say what would move.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct MoveArgs {
    /// The service.
    service: String,
    /// One slice, or several that make one prefix.
    prefix: Ipv6Net,
    /// Who gets them: the pod's name or number.
    pod: String,
    #[command(flatten)]
    changing: Changing,
}

#[derive(Debug, clap::Args)]
struct DrainArgs {
    /// The pod's name or number.
    pod: String,
    /// Give it its share again.
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    changing: Changing,
}

#[derive(Debug, clap::Args)]
struct PinArgs {
    /// The service.
    service: String,
    /// One slice, or several that make one prefix.
    prefix: Ipv6Net,
    /// The pod's name or number.
    pod: Option<String>,
    #[command(flatten)]
    changing: Changing,
}

#[derive(Debug, clap::Args)]
struct RebalanceArgs {
    /// The service.
    service: String,
    #[command(flatten)]
    changing: Changing,
}

/// Runs the command.
///
/// # Errors
/// What was refused, or that nobody answered.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match args.command {
            None => show(args.show).await,
            Some(Command::Move(it)) => {
                let MoveArgs { service, prefix, pod, changing } = it;
                change(&SlicesAsk::Move { service, prefix, pod }, changing).await
            }
            Some(Command::Drain(it)) => change(&SlicesAsk::Drain { pod: it.pod, undo: it.undo }, it.changing).await,
            Some(Command::Pin(it)) => {
                let PinArgs { service, prefix, pod, changing } = it;
                change(&SlicesAsk::Pin { service, prefix, pod }, changing).await
            }
            Some(Command::Rebalance(it)) => change(&SlicesAsk::Rebalance { service: it.service }, it.changing).await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn show(args: ShowArgs) -> anyhow::Result<()> {
    let mut peak = Peak::new(&args.server)?;
    let query = args.service.map(|service| format!("?service={}", super::record::encoded(&service)));
    let path = format!("/v1/slices{}", query.unwrap_or_default());
    let coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    loop {
        let told = peak.look(&path).await?;
        let text = match args.output.format {
            Format::Json => format!("{:#}\n", serde_json::from_slice::<Value>(&told)?),
            Format::Text => text(&serde_json::from_slice(&told)?, coloured),
        };
        if !args.watch {
            return Ok(print(&text)?);
        }
        // From the top, over what stood there.
        let clear = if args.output.format == Format::Text { "\x1b[H\x1b[J" } else { "" };
        print(&format!("{clear}{text}"))?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn text(shown: &draw::Shown, coloured: bool) -> String {
    if shown.services.is_empty() {
        return "no service has slices here: `slices.services` of Peak, and pods with `lease`\n".to_owned();
    }
    shown.services.iter().map(|service| draw::service(service, coloured)).collect::<Vec<_>>().join("\n")
}

async fn change(ask: &SlicesAsk, changing: Changing) -> anyhow::Result<()> {
    let path = if changing.dry_run { "/v1/slices?dry_run=true" } else { "/v1/slices" };
    let body = ("application/json", serde_json::to_vec(ask)?);
    let told: Value = Peak::new(&changing.server)?.change("POST", path, body, None).await?;
    Ok(print(&match changing.output.format {
        Format::Json => format!("{told:#}\n"),
        Format::Text => moves(&told, changing.dry_run),
    })?)
}

fn moves(told: &Value, dry_run: bool) -> String {
    let moves = told["moves"].as_array().map(Vec::as_slice).unwrap_or_default();
    if moves.is_empty() {
        return if dry_run { "nothing would move\n".to_owned() } else { "done, nothing moves\n".to_owned() };
    }
    let will = if dry_run { "would move" } else { "move" };
    let pod = |value: &Value| value.as_u64().map_or_else(|| "nobody".to_owned(), |pod| format!("pod {pod}"));
    let line = |one: &Value| {
        let (service, why) = (one["service"].as_str().unwrap_or(""), one["why"].as_str().unwrap_or(""));
        format!("{service} {} slices {will} from {} to {} ({why})\n", one["slices"], pod(&one["from"]), pod(&one["to"]))
    };
    moves.iter().map(line).collect()
}
