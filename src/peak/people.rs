//! What people ask of the registry's nodes: of a running one through its admin port, of a folder while none runs in it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::store::{self, NodeStatus, Part, Rescued};
use crate::ops::entropy;
use crate::ops::output::{Format, Output, print};

/// How long the admin port may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How often it is asked what became of a change.
const ASK: Duration = Duration::from_millis(200);

/// Which node is asked.
#[derive(Debug, clap::Args)]
struct Asked {
    /// The admin port of a node.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:15000")]
    admin: SocketAddr,
}

/// Flags of `funicular peak status`.
#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    asked: Asked,
    #[command(flatten)]
    output: Output,
}

/// Flags of `funicular peak join`.
#[derive(Debug, clap::Args)]
pub(super) struct JoinArgs {
    /// Where any node of the cluster listens for other nodes.
    #[arg(value_name = "HOST:PORT")]
    member: String,
    #[command(flatten)]
    asked: Asked,
}

/// Flags of `funicular peak leave`.
#[derive(Debug, clap::Args)]
pub(super) struct LeaveArgs {
    /// The number of the node that leaves, as `status` shows it [default: the node that is asked].
    #[arg(value_name = "NODE")]
    node: Option<u64>,
    #[command(flatten)]
    asked: Asked,
}

/// Flags of `funicular peak backup`.
#[derive(Debug, clap::Args)]
pub(super) struct BackupArgs {
    /// The file to write, on the node's machine.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    asked: Asked,
}

/// Where a cluster of one node begins.
#[derive(Debug, clap::Args)]
struct Beginning {
    /// The folder that the node's configuration names as `state`.
    #[arg(long, value_name = "FOLDER")]
    state: PathBuf,
    /// Host and port at which other nodes will reach this one.
    #[arg(long, value_name = "HOST:PORT", default_value = "")]
    address: String,
}

impl Beginning {
    fn folder(&self) -> PathBuf {
        self.state.join("registry")
    }
}

/// Flags of `funicular peak restore`.
#[derive(Debug, clap::Args)]
pub(super) struct RestoreArgs {
    /// The backup.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    beginning: Beginning,
}

/// Flags of `funicular peak recover`.
#[derive(Debug, clap::Args)]
pub(super) struct RecoverArgs {
    #[command(flatten)]
    beginning: Beginning,
    /// Say that all other nodes are lost for good, and that what only they had is lost as well.
    #[arg(long)]
    the_others_are_lost: bool,
}

/// Asks an admin port; gives the status code and the body.
async fn request(admin: SocketAddr, method: &str, path: &str) -> anyhow::Result<(u16, String)> {
    let asked = async {
        let stream = TcpStream::connect(admin).await.with_context(|| format!("no admin port answers at {admin}"))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = hyper::Request::builder().method(method).uri(path).header("host", admin.to_string());
        let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    timeout(ANSWER, asked).await.with_context(|| format!("the admin port at {admin} does not answer"))?
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

async fn shown(admin: SocketAddr) -> anyhow::Result<Value> {
    let (code, body) = request(admin, "GET", "/registry").await?;
    ensure!(code == 200, "{admin} has no registry: {}", body.trim());
    Ok(serde_json::from_str(&body)?)
}

/// Starts a change and waits for its end.
fn change(admin: SocketAddr, path: &str, done: &str) -> anyhow::Result<ExitCode> {
    block_on(async {
        let (code, body) = request(admin, "POST", path).await?;
        ensure!(code == 202, "{}", body.trim());
        loop {
            sleep(ASK).await;
            let shown = shown(admin).await?;
            match shown["change"].as_str() {
                Some("going") => {}
                Some(_) => break,
                None => bail!("{}", shown["change"]["refused"].as_str().unwrap_or("nobody knows what became of it")),
            }
        }
        println!("{done}");
        Ok(ExitCode::SUCCESS)
    })
}

/// Percent-encodes what stands in a query (RFC 3986 §2.1).
fn encoded(text: &str) -> String {
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-._~/".contains(&octet);
    text.bytes()
        .map(|octet| if plain(octet) { char::from(octet).to_string() } else { format!("%{octet:02X}") })
        .collect()
}

/// `funicular peak status`.
pub(super) fn status(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let shown = block_on(shown(args.asked.admin))?;
    let status: NodeStatus = serde_json::from_value(shown["status"].clone())?;
    match args.output.format {
        Format::Json => print(&format!("{:#}\n", shown["status"]))?,
        Format::Text => print(&drawn(&status))?,
    }
    let healthy = status.leader.is_some() || status.part == Part::Waiting;
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn octets(count: u64) -> String {
    match count {
        0..1_024 => format!("{count} B"),
        1_024..1_048_576 => format!("{:.1} KiB", count as f64 / 1_024.0),
        _ => format!("{:.1} MiB", count as f64 / 1_048_576.0),
    }
}

/// The status for people.
fn drawn(status: &NodeStatus) -> String {
    let part = serde_json::to_value(status.part).ok().and_then(|part| part.as_str().map(str::to_owned));
    let leader = status.leader.map_or("none".to_owned(), |leader| leader.to_string());
    let mut text = format!(
        "node       {}   {}\nleader     {leader}   term {}\nlog        {} entries, {} applied, {}\n\
         snapshot   up to {}, {}\nzones      {}\nanswers    at most {} ms old\n",
        status.node,
        part.unwrap_or_default(),
        status.term,
        status.last_index,
        status.applied_index,
        octets(status.log_octets),
        status.snapshot_index,
        octets(status.snapshot_octets),
        status.zones,
        status.stale_ms,
    );
    if status.leader.is_none() && status.part != Part::Waiting {
        text.push_str("\nNO LEADER: fewer than half of the voters reach each other. Answers go on, writes do not.\n");
    }
    text.push_str(&format!("\n{:<22}{:<26}{:<10}lag\n", "member", "address", "role"));
    for member in &status.members {
        let role = match (Some(member.node) == status.leader, member.voter) {
            (true, _) => "leader",
            (false, true) => "voter",
            (false, false) => "learner",
        };
        let lag = member.lag.map_or("-".to_owned(), |lag| lag.to_string());
        let here = if member.node == status.node { "*" } else { "" };
        let node = format!("{}{here}", member.node);
        text.push_str(&format!("{node:<22}{:<26}{role:<10}{lag}\n", member.address));
    }
    text
}

/// `funicular peak join`.
pub(super) fn join(args: &JoinArgs) -> anyhow::Result<ExitCode> {
    change(args.asked.admin, &format!("/registry/join?member={}", encoded(&args.member)), "joined")
}

/// `funicular peak leave`.
pub(super) fn leave(args: &LeaveArgs) -> anyhow::Result<ExitCode> {
    let node = args.node.map_or(String::new(), |node| format!("?node={node}"));
    change(args.asked.admin, &format!("/registry/leave{node}"), "left")
}

/// `funicular peak backup`.
pub(super) fn backup(args: &BackupArgs) -> anyhow::Result<ExitCode> {
    let file = std::path::absolute(&args.file)?;
    let path = format!("/registry/backup?file={}", encoded(&file.to_string_lossy()));
    change(args.asked.admin, &path, &format!("written to {}", file.display()))
}

/// `funicular peak restore`.
pub(super) fn restore(args: &RestoreArgs) -> anyhow::Result<ExitCode> {
    let Beginning { address, .. } = &args.beginning;
    let rescued = store::restore(&args.file, &args.beginning.folder(), address, entropy::draw)?;
    begun("The backup is restored", &rescued);
    Ok(ExitCode::SUCCESS)
}

/// `funicular peak recover`.
pub(super) fn recover(args: &RecoverArgs) -> anyhow::Result<ExitCode> {
    ensure!(
        args.the_others_are_lost,
        "this begins a new cluster from what this one node has. Writes that were acknowledged and that only the other \
         nodes had are lost, and the other nodes can never come back: they have to join anew, with empty folders. If a \
         majority can be had back, have it back instead. If all others are lost for good, say so: --the-others-are-lost"
    );
    let Beginning { address, .. } = &args.beginning;
    let rescued = store::recover(&args.beginning.folder(), address, entropy::draw().max(1))?;
    begun("A NEW CLUSTER was made of what this node had", &rescued);
    Ok(ExitCode::SUCCESS)
}

fn begun(what: &str, Rescued { zones, names, index }: &Rescued) {
    println!(
        "{what}: {zones} zones with {names} names, up to entry {index}.\nStart this node; let the others join it with \
         empty folders."
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peak::store::Member;

    #[test]
    fn what_stands_in_a_query_is_encoded() {
        assert_eq!(encoded("/var/a b"), "/var/a%20b");
        assert_eq!(encoded("[::1]:7444"), "%5B%3A%3A1%5D%3A7444");
    }

    #[test]
    fn a_status_shows_who_leads_who_lags_and_that_nobody_leads() {
        let member = |node, lag| Member { node, address: format!("peak-{node}:7444"), voter: true, schema: 1, lag };
        let mut status = NodeStatus {
            node: 1,
            cluster: "7".to_owned(),
            part: Part::Leader,
            term: 3,
            leader: Some(1),
            last_index: 12,
            applied_index: 12,
            snapshot_index: 0,
            stale_ms: 0,
            log_octets: 2_048,
            snapshot_octets: 0,
            zones: 1,
            schema: 1,
            members: vec![member(1, None), member(2, Some(4))],
        };
        let text = drawn(&status);
        assert!(text.contains("leader     1   term 3") && text.contains("2.0 KiB"), "{text}");
        assert!(text.contains("1*") && text.lines().last().unwrap().ends_with("voter     4"), "{text}");
        status.leader = None;
        assert!(drawn(&status).contains("NO LEADER"));
    }
}
