//! This node's place in the cluster that holds the registry: opening the store, taking in the zones that begin in a
//! file, and telling how the node is.

use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use super::desk::Desk;
use super::dns::{Gate, Served};
use super::ledger::Ledger;
use super::store::{
    Disk, Folder, Keep, Links, Memory, Network, Nowhere, OpenError, Opening, Part, Security, SecurityError, Store,
    serve,
};
use super::zones::{self, ZoneSource};
use crate::config::peak::{Cluster as Settings, Peak, Reads as ReadsSetting};
use crate::model::registry::{Command, Op, Reads, SCHEMA};
use crate::net::listen;
use crate::ops::admin::{Query, Reply};
use crate::ops::files::WatchedFiles;
use crate::ops::metrics::{Kind, Registry};
use crate::ops::{clock, entropy};

/// The folder of the registry in that of the state.
const FOLDER: &str = "registry";
/// Threads of the store: one may wait for the disk while the other says that this node is alive.
const THREADS: usize = 2;
/// How often it is looked at how long this node leads for certain.
const LOOK: Duration = Duration::from_millis(20);
/// How long before a zone's file is offered to the registry again.
const AGAIN: Duration = Duration::from_secs(1);

/// Why the registry does not open.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClusterError {
    /// Its folder.
    #[error("the registry's folder {}: {cause}", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Where the other nodes should reach this one.
    #[error("cannot listen on {address} for the other nodes: {cause}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
    /// Certificates.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// What is on disk.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// No thread.
    #[error("the registry's threads could not be started")]
    Threads,
}

/// The threads on which the store works, apart from those that answer questions.
///
/// # Errors
/// No thread.
pub(super) fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(THREADS).thread_name("registry").enable_all().build()
}

/// A zone that begins in the registry, from its file.
#[derive(Clone, Debug)]
pub(super) struct Seedling {
    source: ZoneSource,
    reads: Reads,
}

/// The zones of the configuration that begin in the registry.
pub(super) fn seedlings(peak: &Peak) -> Vec<Seedling> {
    let seedling = |zone: &crate::config::peak::Zone| {
        let reads = match zone.reads {
            ReadsSetting::Available => Reads::Available,
            ReadsSetting::Strict => Reads::Strict,
        };
        let source = ZoneSource { apex: zone.name.clone(), file: zone.file.clone()? };
        Some(Seedling { source, reads })
    };
    peak.zones.iter().filter(|zone| zone.replicated).filter_map(seedling).collect()
}

/// What the registry is shown to.
pub(super) struct Around<'a> {
    pub(super) served: &'a Served,
    pub(super) ledger: Arc<Ledger>,
    pub(super) desk: &'a Desk,
    pub(super) gate: &'a Gate,
    pub(super) metrics: &'a Registry,
}

/// Opens the store on `runtime` and lets it take its place; gives how its nodes prove who they are as well.
///
/// # Errors
/// [`ClusterError`].
pub(super) async fn open(
    peak: &Peak,
    around: Around<'_>,
    runtime: &Runtime,
) -> Result<(Store, Option<Security>), ClusterError> {
    let settings = &peak.cluster;
    let disk: Arc<dyn Disk> = match &peak.state {
        Some(folder) => {
            let path = folder.0.join(FOLDER);
            Arc::new(Folder::open(path.clone()).map_err(|cause| ClusterError::Folder { path, cause })?)
        }
        None => Arc::new(Memory::default()),
    };
    let (security, followed) = security(settings)?;
    if security.is_some() {
        tokio::spawn(followed);
    }
    let cluster = Arc::new(Mutex::new(0));
    let links = Links::new(security.clone(), Arc::clone(&cluster));
    let listener = {
        // A listener belongs to the runtime on which it was made.
        let _entered = runtime.enter();
        let listen = |address| listen::tcp(address).map_err(|cause| ClusterError::Listen { address, cause });
        settings.listen.map(listen).transpose()?
    };
    let bound = listener.as_ref().and_then(|listener| listener.local_addr().ok());
    let network: Arc<dyn Network> = if bound.is_some() { Arc::new(links.clone()) } else { Arc::new(Nowhere) };
    let address = settings.address.clone().or_else(|| bound.map(|bound| bound.to_string())).unwrap_or_default();
    let opening = Opening {
        disk,
        seed: around.served.load().seed(),
        address: address.clone(),
        network,
        show: {
            let ledger = Arc::clone(&around.ledger);
            Box::new(move |registry, effects| ledger.follow(registry, effects))
        },
        clock: clock::millis,
        draw: entropy::draw,
        cluster,
        keep: Keep::default(),
        peers: settings.join.clone(),
        schema: SCHEMA,
    };
    let store = runtime.spawn(Store::open(opening)).await.map_err(|_| ClusterError::Threads)??;
    links.introduce(store.status().node);
    if let Some(listener) = listener {
        tracing::info!(address, node = store.status().node, "the other nodes reach this one");
        runtime.spawn(serve(listener, security.clone(), store.node()));
    }
    let (gate, watched) = (around.gate.clone(), store.clone());
    runtime.spawn(async move {
        loop {
            gate.open_for(watched.strict_until().map(|until| until - tokio::time::Instant::now()));
            tokio::time::sleep(LOOK).await;
        }
    });
    around.desk.attach(store.clone());
    register(around.metrics, &store);
    let (joining, seedlings) = (store.clone(), seedlings(peak));
    let kept = peak.state.is_some();
    runtime.spawn(async move {
        joining.settle().await;
        for seedling in seedlings {
            plant(&joining, &seedling, kept).await;
        }
    });
    Ok((store, security))
}

/// What the nodes prove to each other, and what reads it again when a file has changed, as a mounted Secret does with nobody
/// there to send a signal.
fn security(settings: &Settings) -> Result<(Option<Security>, impl Future<Output = ()> + use<>), SecurityError> {
    let files = settings.tls.as_ref().map(|tls| [&tls.authorities, &tls.certificate, &tls.key].map(Clone::clone));
    // Looked at before they are read, so that no change falls between.
    let watched = WatchedFiles::new(files.iter().flatten().cloned());
    let read = |[authorities, certificate, key]: [PathBuf; 3]| {
        Security::from_files(&authorities, &certificate, &key, settings.name.clone())
    };
    let security = files.map(read).transpose()?;
    let reread = security.clone();
    let followed = watched.follow(Arc::default(), move || {
        reload(reread.as_ref());
        ControlFlow::Continue(())
    });
    Ok((security, followed))
}

/// Reads the cluster's certificates again.
pub(super) fn reload(security: Option<&Security>) {
    if let Some(Err(error)) = security.map(Security::reload) {
        tracing::error!(%error, "the cluster's certificates could not be read again, the old ones hold");
    }
}

/// Offers the zone to the registry, until it is there.
async fn plant(store: &Store, Seedling { source, reads }: &Seedling, kept: bool) {
    let seed = store.read(|registry| registry.seed());
    let zone = match zones::load(source, seed) {
        Ok(zone) => zone,
        Err(faults) => {
            tracing::error!(zone = %source.apex, "the zone does not begin in the registry:\n{faults}");
            return;
        }
    };
    let entries = zone.soa().into_iter().chain(zone.entries()).collect();
    let create = Op::Create { apex: source.apex.clone(), reads: *reads, entries };
    loop {
        // The registry may have it, and this node not know yet.
        if store.has_begun() && store.read_index().await.is_ok() && store.read(|held| held.zone(&source.apex).is_some())
        {
            return;
        }
        match store.propose(Command { request: None, op: create.clone() }).await {
            Ok(Ok(_)) => {
                tracing::info!(zone = %source.apex, "the zone begins in the registry, from its file");
                if !kept {
                    tracing::warn!(
                        "the registry is in memory alone, and ends with this program: name a folder with state"
                    );
                }
                return;
            }
            // Another node was first.
            Ok(Err(refused)) => return tracing::info!(zone = %source.apex, %refused, "the zone begins elsewhere"),
            Err(error) => {
                tracing::warn!(zone = %source.apex, %error, "the zone cannot begin in the registry yet");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// How the node is, as it is when somebody asks.
fn register(registry: &Registry, store: &Store) {
    let gauge = |name: &'static str, help: &'static str, read: fn(&super::store::NodeStatus) -> f64| {
        let store = store.clone();
        registry.sampled(name, help, Kind::Gauge, &[], move |samples| samples.put(&[], read(&store.status())));
    };
    gauge("funicular_raft_term", "The election that counts.", |status| status.term as f64);
    gauge("funicular_raft_leader", "1 on the node that leads.", |status| f64::from(status.part == Part::Leader));
    gauge("funicular_raft_has_leader", "1 where a leader is known.", |status| f64::from(status.leader.is_some()));
    gauge("funicular_raft_failed", "1 where disk or program has failed.", |status| {
        f64::from(status.part == Part::Failed)
    });
    gauge("funicular_raft_members", "Nodes of the cluster.", |status| status.members.len() as f64);
    gauge("funicular_raft_last_index", "The last entry of the log.", |status| status.last_index as f64);
    gauge("funicular_raft_applied_index", "The last entry applied.", |status| status.applied_index as f64);
    gauge("funicular_raft_snapshot_index", "The last entry in the snapshot.", |status| status.snapshot_index as f64);
    gauge("funicular_raft_lag_entries", "On the leader: entries that the node furthest behind lacks.", |status| {
        status.members.iter().filter_map(|member| member.lag).max().unwrap_or(0) as f64
    });
    gauge("funicular_raft_staleness_seconds", "How old what this node answers may be at most.", |status| {
        status.stale_ms as f64 / 1_000.0
    });
    gauge("funicular_raft_log_bytes", "The log on disk.", |status| status.log_octets as f64);
    gauge("funicular_raft_snapshot_bytes", "The snapshot on disk.", |status| status.snapshot_octets as f64);
}

/// What people ask of the cluster through the admin port.
#[derive(Clone, Debug)]
pub(super) struct Counter {
    store: Store,
    /// What became of the last change, or that it goes on.
    change: Arc<Mutex<Change>>,
}

#[derive(Clone, Debug, Default)]
enum Change {
    #[default]
    None,
    Going,
    Done,
    Refused(String),
}

impl Counter {
    pub(super) fn new(store: &Store) -> Self {
        Self { store: store.clone(), change: Arc::default() }
    }

    /// How the node is.
    pub(super) fn show(&self) -> Reply {
        let change = match &*self.change.lock() {
            Change::None => Value::Null,
            Change::Going => json!("going"),
            Change::Done => json!("done"),
            Change::Refused(why) => json!({ "refused": why }),
        };
        let status = serde_json::to_value(self.store.status()).unwrap_or_default();
        Reply::json(&json!({ "status": status, "change": change }))
    }

    /// Starts a change that takes its time; what becomes of it is in [`Counter::show`].
    fn start<E: std::fmt::Display>(&self, work: impl Future<Output = Result<(), E>> + Send + 'static) -> Reply {
        {
            let mut change = self.change.lock();
            if matches!(*change, Change::Going) {
                return Reply::text("a change is going on: see /registry\n").status(409);
            }
            *change = Change::Going;
        }
        let change = Arc::clone(&self.change);
        self.store.spawn(async move {
            let outcome = work.await;
            *change.lock() = match outcome {
                Ok(()) => Change::Done,
                Err(error) => Change::Refused(error.to_string()),
            };
        });
        Reply::text("begun: see /registry\n").status(202)
    }

    /// Joins the cluster of the node at `member`.
    pub(super) fn join(&self, query: &Query<'_>) -> Reply {
        let Some(member) = query.value("member") else {
            return Reply::text("say whom: POST /registry/join?member=HOST:PORT\n").status(400);
        };
        let store = self.store.clone();
        self.start(async move { store.join(&member).await })
    }

    /// Takes a node out of the cluster.
    pub(super) fn leave(&self, query: &Query<'_>) -> Reply {
        let own = self.store.status().node;
        let Some(node) = query.value("node").map_or(Some(own), |node| node.parse().ok()) else {
            return Reply::text("say who by number: POST /registry/leave?node=NUMBER\n").status(400);
        };
        let store = self.store.clone();
        self.start(async move { store.leave(node).await })
    }

    /// Writes a backup to a file of this machine.
    pub(super) fn backup(&self, query: &Query<'_>) -> Reply {
        let file = query.value("file").map(PathBuf::from).filter(|file| file.is_absolute());
        let Some(file) = file else {
            return Reply::text("say where: POST /registry/backup?file=/absolute/name\n").status(400);
        };
        let store = self.store.clone();
        self.start(async move {
            // All that was acknowledged before somebody asked for it.
            if let Err(error) = store.read_index().await {
                return Err(error.to_string());
            }
            let written = tokio::task::spawn_blocking(move || write_backup(&file, &store.backup())).await;
            written.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
        })
    }
}

/// Writes the file beside its place, and then puts it there.
fn write_backup(file: &std::path::Path, octets: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    let new = file.with_extension("new");
    let mut written = std::fs::File::create(&new)?;
    written.write_all(octets)?;
    written.sync_all()?;
    std::fs::rename(&new, file)
}
