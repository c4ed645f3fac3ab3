//! `funicular record`: the records of Peak's registry, for people and scripts, through Peak's API.
//!
//! Every command is one request with a name of its own, so that asking the next server after a lost answer does not do
//! it twice. Exit codes: 0 done, or so already; 1 refused, or nobody answered; 2 wrong usage.

mod batch;
pub(super) mod connection;
mod report;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::{Value, json};

use crate::ops::output::{Format, Output, print};
use crate::wire::api::{Batch, Change, Changes, Outcome, Records, Require};
use connection::{Peak, Server};

/// Flags of `funicular record`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Add records to a set; what is there already stays.
    Add(SetArgs),
    /// Take away records: these, or all of a type, or all of a name.
    Remove(RemoveArgs),
    /// Give a name these records of a type, and no others.
    Replace(SetArgs),
    /// Make the changes in a file, all of them or none: JSON, or a line for each.
    Batch(BatchArgs),
    /// Print records.
    List(ListArgs),
    /// Give a zone the records of a zone file in the place of all it has, or take in a new one.
    Import(ImportArgs),
    /// Print a zone as a zone file.
    Export(ExportArgs),
}

/// What commands that change something have in common.
#[derive(Debug, clap::Args)]
struct Changing {
    #[command(flatten)]
    server: Server,
    /// Only say what would come of it.
    #[arg(long)]
    dry_run: bool,
    /// Name the request: the same name again, soon after, does not do it again.
    #[arg(long, value_name = "NAME")]
    key: Option<String>,
    #[command(flatten)]
    output: Output,
}

/// What must hold before one set is changed.
#[derive(Debug, clap::Args)]
struct Conditions {
    /// Only if the set has exactly these data now; may be given several times.
    #[arg(long = "if", value_name = "DATA", conflicts_with_all = ["if_absent", "if_present"])]
    if_exactly: Vec<String>,
    /// Only if there is no such set now.
    #[arg(long, conflicts_with = "if_present")]
    if_absent: bool,
    /// Only if there is such a set now.
    #[arg(long)]
    if_present: bool,
}

#[derive(Debug, clap::Args)]
struct SetArgs {
    /// The zone.
    zone: String,
    /// The name: relative to the zone, or absolute with a final dot; @ for the zone itself.
    name: String,
    /// The type: A, AAAA, TXT, ... or TYPEn.
    #[arg(value_name = "TYPE")]
    rtype: String,
    /// The data of each record, as in a zone file; behind -- where it begins with a hyphen.
    #[arg(required = true)]
    data: Vec<String>,
    /// Seconds that answers may be kept. Without, a set keeps its own, and a new one has 300.
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<u32>,
    #[command(flatten)]
    conditions: Conditions,
    #[command(flatten)]
    changing: Changing,
}

#[derive(Debug, clap::Args)]
struct RemoveArgs {
    /// The zone.
    zone: String,
    /// The name: relative to the zone, or absolute with a final dot; @ for the zone itself.
    name: String,
    /// The type; without it, all types.
    #[arg(value_name = "TYPE", required_unless_present = "all")]
    rtype: Option<String>,
    /// The data; without any, all records of the type.
    data: Vec<String>,
    /// All records of the name, whatever their type.
    #[arg(long, conflicts_with_all = ["rtype", "data", "if_exactly"])]
    all: bool,
    #[command(flatten)]
    conditions: Conditions,
    #[command(flatten)]
    changing: Changing,
}

#[derive(Debug, clap::Args)]
struct BatchArgs {
    /// The file, - for standard input. JSON as the API takes it, or lines: `zone ZONE`, then `require …`, `add NAME TTL
    /// TYPE DATA`, `replace NAME TTL TYPE DATA`, `remove NAME [TYPE [DATA]]`.
    file: PathBuf,
    #[command(flatten)]
    changing: Changing,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// The zone; without it, the zones.
    zone: Option<String>,
    /// Only this name's records.
    name: Option<String>,
    /// Only records of this type.
    #[arg(value_name = "TYPE")]
    rtype: Option<String>,
    /// Wait until the server has everything that was acknowledged anywhere before.
    #[arg(long, requires = "zone")]
    strict: bool,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct ImportArgs {
    /// The zone.
    zone: String,
    /// The zone file (RFC 1035 §5), - for standard input.
    file: PathBuf,
    /// When a new zone's questions are answered: available (always) or strict (never from a state that is behind).
    #[arg(long, value_parser = ["available", "strict"])]
    reads: Option<String>,
    #[command(flatten)]
    changing: Changing,
}

#[derive(Debug, clap::Args)]
struct ExportArgs {
    /// The zone.
    zone: String,
    /// Wait until the server has everything that was acknowledged anywhere before.
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

/// Runs the command.
///
/// # Errors
/// What was refused, or that nobody answered.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match args.command {
            Command::Add(set) => change(set.batch(true), set.changing).await,
            Command::Replace(set) => change(set.batch(false), set.changing).await,
            Command::Remove(remove) => change(remove.batch(), remove.changing).await,
            Command::Batch(batch) => {
                let text = text(&batch.file)?;
                let read = batch::read(&text).with_context(|| batch.file.display().to_string())?;
                change(read, batch.changing).await
            }
            Command::List(list) => self::list(list).await,
            Command::Import(import) => self::import(import).await,
            Command::Export(export) => self::export(export).await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

impl Conditions {
    fn of(&self, name: &str, rtype: Option<&str>) -> Vec<Require> {
        let (name, rtype) = (name.to_owned(), rtype.map(str::to_owned));
        if self.if_absent {
            vec![Require::Absent { name, rtype }]
        } else if self.if_present {
            vec![Require::Present { name, rtype }]
        } else if let (false, Some(rtype)) = (self.if_exactly.is_empty(), rtype) {
            vec![Require::Exactly { name, rtype, data: self.if_exactly.clone() }]
        } else {
            Vec::new()
        }
    }
}

fn one(zone: &str, require: Vec<Require>, change: Change) -> Batch {
    let changes = Changes { zone: zone.to_owned(), require, changes: vec![change] };
    Batch { zones: vec![changes], dry_run: false }
}

impl SetArgs {
    fn batch(&self, beside: bool) -> Batch {
        let Self { zone, name, rtype, data, ttl, conditions, .. } = self;
        let (name, ttl, data) = (name.clone(), *ttl, data.clone());
        let require = conditions.of(&name, Some(rtype));
        let rtype = rtype.clone();
        let change =
            if beside { Change::Add { name, rtype, ttl, data } } else { Change::Replace { name, rtype, ttl, data } };
        one(zone, require, change)
    }
}

impl RemoveArgs {
    fn batch(&self) -> Batch {
        let Self { zone, name, rtype, data, conditions, .. } = self;
        let require = conditions.of(name, rtype.as_deref());
        one(zone, require, Change::Remove { name: name.clone(), rtype: rtype.clone(), data: data.clone() })
    }
}

async fn change(mut batch: Batch, changing: Changing) -> anyhow::Result<()> {
    batch.dry_run = changing.dry_run;
    let body = serde_json::to_vec(&batch)?;
    let mut peak = Peak::new(&changing.server)?;
    let told = peak.change("POST", "/v1/changes", ("application/json", body), changing.key).await?;
    show(&told, changing.output.format)
}

fn show(outcome: &Outcome, format: Format) -> anyhow::Result<()> {
    Ok(print(&match format {
        Format::Text => report::outcome(outcome),
        Format::Json => pretty(&json!(outcome)),
    })?)
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let mut peak = Peak::new(&args.server)?;
    let Some(zone) = args.zone else {
        let zones = peak.look("/v1/zones").await?;
        return Ok(print(&match args.output.format {
            Format::Text => report::zones(&serde_json::from_slice(&zones)?),
            Format::Json => pretty(&serde_json::from_slice(&zones)?),
        })?);
    };
    let query = [("name", args.name), ("type", args.rtype), ("strict", args.strict.then(|| "true".to_owned()))];
    let records: Records = serde_json::from_slice(&peak.look(&path(&zone, "/records", query)).await?)?;
    Ok(print(&match args.output.format {
        Format::Text => report::records(&records),
        Format::Json => pretty(&json!(records)),
    })?)
}

async fn import(args: ImportArgs) -> anyhow::Result<()> {
    let Changing { server, dry_run, key, output } = args.changing;
    let body = text(&args.file)?.into_bytes();
    let query = [("reads", args.reads), ("dry_run", dry_run.then(|| "true".to_owned()))];
    let path = path(&args.zone, "", query);
    let told = Peak::new(&server)?.change("PUT", &path, ("text/dns", body), key).await;
    show(&told.with_context(|| args.file.display().to_string())?, output.format)
}

async fn export(args: ExportArgs) -> anyhow::Result<()> {
    let query = [("strict", args.strict.then(|| "true".to_owned()))];
    let mut peak = Peak::new(&args.server)?;
    match args.output.format {
        Format::Text => {
            let file = peak.look(&path(&args.zone, "/file", query)).await?;
            Ok(print(&String::from_utf8(file)?)?)
        }
        Format::Json => {
            let records: Value = serde_json::from_slice(&peak.look(&path(&args.zone, "/records", query)).await?)?;
            Ok(print(&pretty(&records))?)
        }
    }
}

fn text(file: &Path) -> anyhow::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| file.display().to_string())
}

/// The path of a zone, with what is given of the query.
fn path<const N: usize>(zone: &str, below: &str, query: [(&str, Option<String>); N]) -> String {
    let given: Vec<String> =
        query.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", encoded(&value?)))).collect();
    let mark = if given.is_empty() { "" } else { "?" };
    format!("/v1/zones/{}{below}{mark}{}", encoded(zone), given.join("&"))
}

/// Percent-encoded (RFC 3986 §2.1): everything but unreserved characters.
pub(super) fn encoded(text: &str) -> String {
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-._~".contains(&octet);
    text.bytes().map(|it| if plain(it) { char::from(it).to_string() } else { format!("%{it:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_encoded_and_has_what_is_given_of_its_query() {
        let query = [("name", Some("*.a b".to_owned())), ("type", None), ("strict", Some("true".to_owned()))];
        assert_eq!(path("shop.peak", "/records", query), "/v1/zones/shop.peak/records?name=%2A.a%20b&strict=true");
        assert_eq!(path("a/b", "", [("x", None)]), "/v1/zones/a%2Fb");
    }

    #[test]
    fn flags_may_follow_the_data() {
        use clap::Parser as _;
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }
        let line =
            ["record", "add", "shop.peak", "www", "A", "192.0.2.1", "--ttl", "60", "--if", "192.0.2.2", "--dry-run"];
        let Command::Add(add) = Line::try_parse_from(line).unwrap().args.command else { panic!("not add") };
        assert_eq!((add.data, add.ttl), (vec!["192.0.2.1".to_owned()], Some(60)));
        assert!(add.changing.dry_run && add.conditions.if_exactly == ["192.0.2.2"]);
    }

    #[test]
    fn conditions_become_requirements_of_the_set() {
        let conditions = |if_exactly: &[&str], if_absent, if_present| Conditions {
            if_exactly: if_exactly.iter().map(|data| (*data).to_owned()).collect(),
            if_absent,
            if_present,
        };
        let (name, rtype) = (|| "www".to_owned(), || Some("A".to_owned()));
        assert_eq!(conditions(&[], false, false).of("www", Some("A")), []);
        let absent = Require::Absent { name: name(), rtype: rtype() };
        assert_eq!(conditions(&[], true, false).of("www", Some("A")), [absent]);
        let present = Require::Present { name: name(), rtype: None };
        assert_eq!(conditions(&[], false, true).of("www", None), [present]);
        let exactly = Require::Exactly { name: name(), rtype: "A".to_owned(), data: vec!["192.0.2.1".to_owned()] };
        assert_eq!(conditions(&["192.0.2.1"], false, false).of("www", Some("A")), [exactly]);
    }
}
