//! The control plane: authoritative DNS.
//!
//! Owns the role's start, its answer to signals and its end. What a zone answers is `model::zone`'s, how it is written
//! `wire::dns`'s, and what carries it [`dns`]'s.

mod api;
mod cluster;
mod cookies;
mod desk;
mod dns;
mod exchange;
mod keys;
mod ledger;
mod notify;
mod peers;
mod people;
mod rules;
mod secondary;
mod slices;
pub mod store;
mod transfer;
pub mod tree;
mod update;
mod zones;

pub use dns::fuzz;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::runtime::Runtime;

use crate::config::common::Trust;
use crate::config::peak::{Peak, Zone};
use crate::config::{self, Loaded, Sources};
use crate::model::Name;
use crate::model::zone::{Seed, Zones};
use crate::net::listen;
use crate::ops::admin::{self, Audience, Reply, Shown};
use crate::ops::drain::Drain;
use crate::ops::logging::{self, Format, Logging};
use crate::ops::metrics::{Counters, Registry};
use crate::ops::ready::Ready;
use crate::ops::signals::{Signals, Wish};
use crate::ops::{entropy, process};
use crate::trust::Issuers;
use cluster::{Around, Counter};
use cookies::Cookies;
use dns::{Common, Gate, Limits, QueryLog, RateLimits, Served, Server, Tallies, TcpLimits};
use ledger::Ledger;
use peers::Peers;
use store::Store;
use zones::{Outcome, ZoneSource};

/// How long the registry's threads may take to end.
const REGISTRY_STOP: Duration = Duration::from_secs(1);

/// Flags of `funicular peak`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    people: Option<People>,
    /// A zone to answer for, and its zone file (RFC 1035 §5); may be given several times.
    #[arg(long = "zone", value_name = "NAME=FILE", value_parser = zone_flag)]
    zones: Vec<ZoneSource>,
    /// Where questions arrive, over UDP and TCP [default: `[::]:53`].
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// A configuration file; flags win over it. With neither this nor --zone, Peak is one node that keeps what it is
    /// told in ./funicular-state and takes records at http://127.0.0.1:7443.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What people ask of a Peak that serves.
#[derive(Debug, clap::Subcommand)]
enum People {
    /// Draw the hierarchy of zones below a server, and flag lame delegations, serial drift and missing glue.
    Tree(tree::Args),
    /// How the nodes of the registry are: who leads, who is behind, how old answers may be.
    Status(people::StatusArgs),
    /// Let a running node that belongs to no cluster join one.
    Join(people::JoinArgs),
    /// Take a node out of its cluster: the one that is asked, or one that is dead.
    Leave(people::LeaveArgs),
    /// Write the registry of a running node to a file.
    Backup(people::BackupArgs),
    /// Begin a cluster of one node from a backup, in an empty folder.
    Restore(people::RestoreArgs),
    /// Begin a cluster of one node from what one node of a lost cluster has on disk. The last resort.
    Recover(people::RecoverArgs),
}

fn zone_flag(text: &str) -> Result<ZoneSource, String> {
    let (name, file) = text.split_once('=').ok_or("expected NAME=FILE, such as shop.peak=shop.zone")?;
    let apex: Name = name.parse().map_err(|error| format!("{name:?} is no domain name: {error}"))?;
    if file.is_empty() {
        return Err(format!("the file of {name} is missing"));
    }
    Ok(ZoneSource { apex, file: file.into() })
}

/// Runs `funicular peak`: serves until it is told to stop. Exit code 1 when configuration or zone files are faulty; all
/// faults are on standard error, one a line.
///
/// # Errors
/// Whatever kept it from starting.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match &args.people {
        Some(People::Tree(args)) => return tree::run(args),
        Some(People::Status(args)) => return people::status(args),
        Some(People::Join(args)) => return people::join(args),
        Some(People::Leave(args)) => return people::leave(args),
        Some(People::Backup(args)) => return people::backup(args),
        Some(People::Restore(args)) => return people::restore(args),
        Some(People::Recover(args)) => return people::recover(args),
        None => {}
    }
    let loaded = match configuration(&args) {
        Ok(loaded) => loaded,
        Err(faults) => {
            eprintln!("{faults}");
            return Ok(ExitCode::FAILURE);
        }
    };
    let logging = start_logging(&loaded.value)?;
    for remark in loaded.remarks() {
        tracing::warn!("{remark}");
    }
    let sources = sources(&loaded.value, args.zones)?;
    let Some(served) = first_zones(&sources) else { return Ok(ExitCode::FAILURE) };
    process::raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let registry = cluster::runtime()?;
    let served = runtime.block_on(serve(&loaded, &sources, served, logging, &registry));
    registry.shutdown_timeout(REGISTRY_STOP);
    served.map(|()| ExitCode::SUCCESS)
}

fn configuration(args: &Args) -> Result<Loaded<Peak>, config::Faults> {
    let mut sources = Sources::of_process();
    match &args.config {
        Some(path) => sources = sources.file(path),
        None if args.zones.is_empty() => sources = sources.presets(alone()),
        None => {}
    }
    if let Some(listen) = args.listen {
        sources = sources.flag("--listen", "listen", listen.to_string());
    }
    config::read(&sources)
}

/// What a Peak is that is told nothing: one node that takes zones and records on this machine, keeps them in the folder
/// where it was started, and can be given others.
fn alone() -> [(&'static str, String); 4] {
    let folder = std::path::absolute("funicular-state").unwrap_or_default();
    [
        ("state", folder.display().to_string()),
        ("api.listen", "127.0.0.1:7443".to_owned()),
        ("cluster.listen", "[::1]:7444".to_owned()),
        ("admin.listen", "127.0.0.1:15000".to_owned()),
    ]
}

fn start_logging(peak: &Peak) -> anyhow::Result<Logging> {
    let format = match peak.log.format {
        config::common::Format::Text => Format::Text,
        config::common::Format::Json => Format::Json,
    };
    Ok(logging::start(peak.log.level.word(), format)?)
}

/// The zones of the configuration and of the flags; each once.
fn sources(peak: &Peak, flags: Vec<ZoneSource>) -> anyhow::Result<Vec<ZoneSource>> {
    let file_alone = |zone: &&Zone| !zone.replicated;
    let source = |zone: &Zone| Some(ZoneSource { apex: zone.name.clone(), file: zone.file.clone()? });
    let sources: Vec<ZoneSource> = peak.zones.iter().filter(file_alone).filter_map(source).chain(flags).collect();
    let elsewhere = |zone: &&Zone| zone.file.is_none() || zone.replicated;
    let transferred: Vec<&Name> = peak.zones.iter().filter(elsewhere).map(|zone| &zone.name).collect();
    // Where the registry is kept or shared, zones may come while the program runs.
    let may_come = peak.state.is_some() || peak.cluster.listen.is_some();
    anyhow::ensure!(
        !sources.is_empty() || !transferred.is_empty() || may_come,
        "no zone to serve: give --zone NAME=FILE, list zones in the configuration, or name a folder for those to come"
    );
    let mut seen = HashSet::new();
    for source in &sources {
        let twice = transferred.contains(&&source.apex) || !seen.insert(&source.apex);
        anyhow::ensure!(!twice, "the zone {} is given twice", source.apex);
    }
    Ok(sources)
}

/// Loads all zones; none when one is faulty, after all faults of all of them are on standard error.
fn first_zones(sources: &[ZoneSource]) -> Option<Served> {
    let mut zones = Zones::new(Seed(entropy::draw() as u64));
    let mut faulty = false;
    for source in sources {
        match zones::load(source, zones.seed()) {
            Ok(zone) => {
                tracing::info!(zone = %source.apex, serial = zone.serial(), names = zone.len(), "zone loaded");
                zones.insert(zone);
            }
            Err(faults) => {
                eprintln!("{faults}");
                faulty = true;
            }
        }
    }
    (!faulty).then(|| Arc::new(ArcSwap::from_pointee(zones)))
}

async fn serve(
    loaded: &Loaded<Peak>,
    sources: &[ZoneSource],
    served: Served,
    logging: Logging,
    registry: &Runtime,
) -> anyhow::Result<()> {
    let peak = &loaded.value;
    let mut signals = Signals::catch().context("cannot catch signals")?;
    let (ready, drain, metrics, tallies) = (Ready::new(), Arc::new(Drain::new()), Registry::new(), Tallies::default());
    let listening = ready.task("dns-listening");
    let reloads = zones::register(&metrics, &served);
    let (log, gate) = (QueryLog::default(), Gate::new());
    let secrets_read = keys::reloads(&metrics);
    let (peers, queue) = Peers::open(peak, &served, &metrics, &secrets_read)?;
    let cookies = Cookies::open(peak.cookie_secrets.as_deref(), &secrets_read)?;
    let around = Around {
        served: &served,
        ledger: Arc::clone(&peers.ledger),
        desk: &peers.desk,
        gate: &gate,
        metrics: &metrics,
    };
    let (store, security) = cluster::open(peak, around, registry).await?;
    let carriers = (peers.desk.clone(), queue);
    let common = Common { log: &log, gate: &gate, cookies: &cookies.secrets };
    let server = Server::start(peak.listen, &served, limits(peak), &tallies, common, carriers)?;
    let (ledger, keyring) = peers.start();
    tallies.register(&metrics, &format!("dns://:{}", server.local_addr().port()));
    server.register(&metrics);
    process::register(&metrics);
    let (trust_pods, load) = start_slices(peak, &store, &served, &metrics)?;
    let trust = start_api(peak.api.as_ref(), &store, (&served, &load), &metrics)?;
    let shown = Shown {
        ready: ready.clone(),
        metrics,
        logging,
        config: {
            let effective = loaded.effective();
            move || effective.clone()
        },
        drain: {
            let drain = Arc::clone(&drain);
            move || drain.begin()
        },
    };
    start_admin(peak.admin.as_ref(), shown, (&served, &store, load), log, Counter::new(&store))?;
    listening.done();
    tracing::info!(address = %server.local_addr(), "listening");
    let mut stopping = drain.watch();
    loop {
        let wish = tokio::select! {
            wish = signals.next() => wish,
            () = stopping.graceful() => Wish::Stop,
        };
        match wish {
            Wish::Reload => {
                keyring.reload();
                cookies.reload();
                cluster::reload(security.as_ref());
                trust();
                trust_pods();
                reload(sources, &ledger, served.load().seed(), &reloads).await;
            }
            Wish::Stop => break,
        }
    }
    ready.stop();
    tracing::info!("stopping");
    // The others choose a new leader while this node still answers questions.
    gate.open_for(None);
    store.stop().await;
    server.stop();
    Ok(())
}

/// Serves the admin port and the port for metrics and health, where they are configured.
fn start_admin<C, D>(
    admin: Option<&config::common::Admin>,
    shown: Shown<C, D>,
    (served, store, load): (&Served, &Store, slices::Load),
    log: QueryLog,
    counter: Counter,
) -> anyhow::Result<()>
where
    C: Fn() -> serde_json::Value + Send + Sync + 'static,
    D: Fn() + Send + Sync + 'static,
{
    let Some(admin) = admin else { return Ok(()) };
    let listen = |addr: SocketAddr| listen::tcp(addr).with_context(|| format!("cannot listen on {addr}"));
    let health = admin::health(&shown.ready, &shown.metrics);
    let metrics = listen(admin.metrics)?;
    let everything = listen(admin.listen)?;
    tracing::info!(admin = %everything.local_addr()?, metrics = %metrics.local_addr()?, "admin ports are open");
    let (served, store) = (Arc::clone(served), store.clone());
    let routes = admin::routes(shown)
        .get("/slices", move |_| {
            let leases = store.read(|registry| registry.leases().clone());
            Reply::json(&slices::shown(&leases, &load, None))
        })
        .get("/zones", move |_| Reply::json(&zones::list(&served.load())))
        .get("/registry", {
            let counter = counter.clone();
            move |_| counter.show()
        })
        .post("/registry/join", {
            let counter = counter.clone();
            move |query| counter.join(query)
        })
        .post("/registry/leave", {
            let counter = counter.clone();
            move |query| counter.leave(query)
        })
        .post("/registry/backup", move |query| counter.backup(query))
        .post("/query-log", move |query| set_query_log(&log, query.value("every").as_deref()));
    let audience = if admin.listen.ip().is_loopback() { Audience::Loopback } else { Audience::Network };
    tokio::spawn(admin::serve(everything, routes, audience));
    tokio::spawn(admin::serve(metrics, health, Audience::Network));
    Ok(())
}

/// Gives slices out where that is configured; gives what reads its key sets again.
fn start_slices(
    peak: &Peak,
    store: &Store,
    served: &Served,
    metrics: &Registry,
) -> anyhow::Result<(impl Fn() + use<>, slices::Load)> {
    let (config, load) = (peak.slices.as_ref(), slices::Load::default());
    // Whoever is to join a registry and has not yet must not begin another.
    let begins = peak.cluster.join.is_empty();
    let open = |config| slices::open(config, store, (served, &load), begins, metrics);
    let opened = config.map(open).transpose()?;
    let trusted = opened.as_ref().zip(config);
    let trusted = trusted.map(|(opened, config)| (Arc::clone(opened.issuers()), config.trust.clone()));
    if let Some(opened) = opened {
        tracing::info!(address = %opened.local_addr()?, "leases of slices are given out");
        tokio::spawn(opened.serve());
    }
    Ok((move || read_again(trusted.as_ref(), "slices.trust"), load))
}

/// Reads key sets again that are in files.
fn read_again(trusted: Option<&(Arc<Issuers>, Vec<Trust>)>, key: &'static str) {
    let errors = trusted.and_then(|(issuers, trust)| issuers.read_again(trust).err());
    for error in errors.into_iter().flatten() {
        tracing::error!(key, %error, "a key set could not be read again, the old one holds");
    }
}

/// Serves the API where it is configured; gives what reads its key sets again.
fn start_api(
    api: Option<&config::api::Api>,
    store: &Store,
    (served, load): (&Served, &slices::Load),
    metrics: &Registry,
) -> anyhow::Result<impl Fn() + use<>> {
    let mut trusted = None;
    if let Some(api) = api {
        let routes = api::routes(store, served).and(slices::routes(store, load));
        let opened = api::open(api, routes, metrics)?;
        tracing::info!(address = %opened.local_addr()?, tls = api.tls.is_some(), "the API listens");
        trusted = Some((Arc::clone(opened.issuers()), api.trust.clone()));
        tokio::spawn(opened.serve());
    }
    Ok(move || read_again(trusted.as_ref(), "api.trust"))
}

fn set_query_log(log: &QueryLog, every: Option<&str>) -> Reply {
    let Some(nth) = every.and_then(|text| text.parse().ok()) else {
        return Reply::text("say how many: POST /query-log?every=100 logs one question of 100, every=0 none\n")
            .status(400);
    };
    log.every(nth);
    Reply::text(format!("every={nth}\n"))
}

fn limits(peak: &Peak) -> Limits {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    Limits {
        udp_size: peak.udp_size,
        workers: peak.workers.map_or_else(cores, usize::from),
        tcp: TcpLimits {
            connections: peak.tcp.connections as usize,
            connections_per_peer: peak.tcp.connections_per_peer as usize,
            idle: peak.tcp.idle,
        },
        rate: (peak.rate_limit.per_second > 0)
            .then_some(RateLimits { per_second: peak.rate_limit.per_second, slip: peak.rate_limit.slip }),
    }
}

/// Reads all zone files again and serves what they hold now; of a faulty one the zone stays as it was.
async fn reload(sources: &[ZoneSource], ledger: &Arc<Ledger>, seed: Seed, reloads: &Counters<Outcome>) {
    for source in sources {
        let (job, ledger) = (source.clone(), Arc::clone(ledger));
        // A large file takes its time, and the admin port should answer meanwhile.
        let outcome = tokio::task::spawn_blocking(move || {
            let zone = zones::load(&job, seed)?;
            Ok::<_, zones::ZoneFaults>((ledger.reload(Arc::clone(&zone)), zone))
        });
        match outcome.await {
            Ok(Ok((true, zone))) => {
                tracing::info!(zone = %source.apex, serial = zone.serial(), names = zone.len(), "zone loaded again");
                reloads.increment(&Outcome::Loaded);
            }
            Ok(Ok((false, zone))) => {
                reloads.increment(&Outcome::Older);
                tracing::info!(
                    zone = %source.apex, serial = zone.serial(),
                    "the zone file is not newer than what updates made of it, the zone stays as it was"
                );
            }
            Ok(Err(faults)) => {
                reloads.increment(&Outcome::Faulty);
                tracing::error!(
                    zone = %source.apex,
                    faults = faults.count(),
                    "zone file is faulty, the zone stays as it was:\n{faults}"
                );
            }
            Err(error) => tracing::error!(zone = %source.apex, %error, "reading the zone file failed"),
        }
    }
}
