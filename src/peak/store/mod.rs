//! The door to the replicated registry: whoever changes it or asks about it comes through here.
//!
//! ```text
//!  propose at any node ──► leader: batch ─► log, synced ─► others' logs, synced ─► agreed ─► applied ─► reply
//!                                                                                     └─► applied at the others
//! ```
//!
//! A write is a [`Command`](crate::model::registry::Command) given to [`Store::propose`] at any node; its reply comes when a
//! majority has it on disk and the leader has applied it. A read looks at the node's own registry ([`Store::read`]), after [`Store::read_index`]
//! where it must not be behind. openraft keeps the agreement; log, snapshots, network and elections are ours.
//!
//! Invariants: nothing is acknowledged before a majority has synced it; every node applies the same commands in the
//! same order; a command whose reply was lost is not applied twice, because every one has a name.

mod batch;
mod change;
mod disk;
mod identity;
mod leader;
mod lease;
mod link;
mod log;
mod machine;
mod members;
mod message;
mod network;
mod node;
mod opening;
mod pulse;
mod reached;
mod rescue;
mod serve;
mod snapshot;
mod status;
#[cfg(test)]
mod tests;
mod types;

pub use disk::{Disk, DiskFile, Folder, Memory};
pub use identity::IdentityFault;
pub use leader::ProposeError;
pub use link::{Links, Security, SecurityError};
pub use log::LogFault;
pub use machine::Show;
pub use members::MemberError;
pub use message::{Answer, Ask, Lane, Network, No, Nowhere, Tell, Unreached};
pub use node::Node;
pub use opening::{Keep, OpenError, Opening};
pub use rescue::{RescueFault, Rescued, recover, restore};
pub use serve::serve;
pub use snapshot::SnapshotFault;
pub use status::{Member, NodeStatus, Part};
pub use types::{NodeId, Peer};

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use crate::model::registry::{Registry, SCHEMA};
use crate::model::zone::Seed;
use crate::ops::{clock, entropy};
use batch::Batcher;
use identity::Identity;
use leader::Rounds;
use lease::Lease;
use log::Log;
use machine::Machine;
use network::Lines;
use types::Raft;

/// How often the log's length is looked at.
const COMPACT: Duration = Duration::from_millis(500);

/// The store of this node. Clones share everything.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    node: Arc<Node>,
    disk: Arc<dyn Disk>,
    draw: fn() -> u128,
    leadership: watch::Sender<Leadership>,
    /// Somebody else leads, or nobody.
    led: Notify,
    rounds: Rounds,
    /// The nodes with which this one is to be, when it belongs to no cluster.
    peers: Vec<String>,
    /// Where the store works, whoever calls.
    runtime: Handle,
    /// Held while the node begins a cluster or joins one.
    beginning: tokio::sync::Mutex<()>,
    cluster: Arc<Mutex<u128>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("node", &self.0.node.id()).finish_non_exhaustive()
    }
}

/// Who leads, as far as this node knows.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Leadership {
    /// The election that it is of. Of two leaders the later one has the greater term, or the same and the greater number.
    pub term: u64,
    /// The leader; none while there is none, or none is known.
    pub leader: Option<NodeId>,
    /// Whether this node is it, and has applied everything that was agreed on before it was.
    pub is_me: bool,
}

impl Store {
    /// A store of one node that nobody reaches and whose disk is memory.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn alone(seed: Seed) -> Result<Self, OpenError> {
        let opening = Opening {
            disk: Arc::new(Memory::default()),
            seed,
            address: String::new(),
            network: Arc::new(Nowhere),
            show: Box::new(|_, _| {}),
            clock: clock::millis,
            draw: entropy::draw,
            cluster: Arc::default(),
            keep: Keep::default(),
            peers: Vec::new(),
            schema: SCHEMA,
        };
        Self::open(opening).await
    }

    /// Opens the store and takes its place in the cluster that its disk tells of, if any. To be called on the runtime
    /// on which the store is to work.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(opening: Opening) -> Result<Self, OpenError> {
        let Opening { disk, seed, address, network, show, clock, draw, cluster, keep, peers, schema } = opening;
        let identity = match identity::load(&*disk)? {
            Some(identity) => identity,
            None => {
                let identity = Identity { node: (draw() as u64).max(1), cluster: 0 };
                identity::save(&*disk, identity)?;
                identity
            }
        };
        *cluster.lock() = identity.cluster;
        let log = Log::open(Arc::clone(&disk))?;
        log.resign(identity.node);
        let machine = Machine::open(Arc::clone(&disk), (seed, schema), Arc::clone(&cluster), show)?;
        log.purge_only(machine.kept());
        let lease = Arc::new(Lease::new(identity.node));
        let lines = Lines { network: Arc::clone(&network), lease: Arc::clone(&lease) };
        let raft = Raft::new(identity.node, Arc::new(opening::settings()), lines, log.clone(), machine.clone()).await;
        let raft = raft.map_err(|fatal| OpenError::Inconsistent(fatal.to_string().into()))?;
        let batcher = Batcher::start(raft.clone(), clock);
        let parts = node::Parts {
            id: identity.node,
            me: Peer { address, schema },
            cluster: Arc::clone(&cluster),
            raft,
            machine,
            log,
            network,
            lease,
            batcher,
        };
        let store = Self(Arc::new(Inner {
            node: Arc::new(Node::new(parts)),
            disk,
            draw,
            leadership: watch::Sender::default(),
            led: Notify::new(),
            rounds: Rounds::default(),
            peers,
            runtime: Handle::current(),
            beginning: tokio::sync::Mutex::default(),
            cluster,
        }));
        let begun = store.0.node.metrics().membership_config.membership().voter_ids().next().is_some();
        if begun && store.name_cluster().is_err() {
            return Err(OpenError::Inconsistent("the cluster has no number, and the disk does not keep one".into()));
        }
        tokio::spawn(pulse::run(store.node()));
        tokio::spawn(follow_leadership(store.clone()));
        tokio::spawn(change::finish_changes(store.node()));
        tokio::spawn(compact(store.node(), keep));
        tokio::spawn(end_with_the_disk(store.node()));
        Ok(store)
    }

    /// The node, which answers the others.
    #[must_use]
    pub fn node(&self) -> Arc<Node> {
        Arc::clone(&self.0.node)
    }

    /// Whether the node belongs to a cluster, if only of itself.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.0.node.metrics().membership_config.membership().voter_ids().next().is_some() || *self.0.cluster.lock() != 0
    }

    /// Begins a cluster of this node alone, unless it belongs to one, or is to be with others.
    async fn begin(&self) -> Result<(), ProposeError> {
        if self.has_begun() || !self.0.peers.is_empty() { Ok(()) } else { self.begin_alone().await }
    }

    async fn begin_alone(&self) -> Result<(), ProposeError> {
        let _beginning = self.0.beginning.lock().await;
        if self.has_begun() {
            return Ok(());
        }
        let node = &self.0.node;
        let members = std::collections::BTreeMap::from([(node.id(), node.me().clone())]);
        if let Err(error) = node.raft().initialize(members).await {
            tracing::error!(%error, "a registry could not be begun");
            return Err(ProposeError::Failed);
        }
        tracing::info!(node = node.id(), address = %node.me(), "a registry of one node begins");
        self.name_cluster().map_err(|_| ProposeError::Failed)
    }

    /// Gives the cluster that this node has begun its number, unless it has one.
    fn name_cluster(&self) -> Result<(), MemberError> {
        if *self.0.cluster.lock() == 0 { self.keep_cluster((self.0.draw)().max(1)) } else { Ok(()) }
    }

    fn keep_cluster(&self, cluster: u128) -> Result<(), MemberError> {
        let identity = Identity { node: self.0.node.id(), cluster };
        identity::save(&*self.0.disk, identity).map_err(|error| {
            tracing::error!(%error, "the cluster's number could not be kept");
            MemberError::Unkept
        })?;
        *self.0.cluster.lock() = cluster;
        Ok(())
    }

    /// Starts something on the store's own runtime.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        drop(self.0.runtime.spawn(work));
    }

    /// Does something on the store's own runtime, where its connections and clocks are.
    async fn there<T: Send + 'static, E: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, E>> + Send + 'static,
        failed: E,
    ) -> Result<T, E> {
        self.0.runtime.spawn(work).await.unwrap_or(Err(failed))
    }

    /// Looks at what this node has applied. Keeps the registry from changing meanwhile: look, do not stay.
    pub fn read<T>(&self, look: impl FnOnce(&Registry) -> T) -> T {
        self.0.node.read(look)
    }

    /// Until when this node answers strictly without asking anybody; none when it must ask. Ask again within 25 ms: a
    /// leader that is stopped leads no more by then.
    #[must_use]
    pub fn strict_until(&self) -> Option<Instant> {
        self.0.node.leads_until()
    }

    /// Who leads, now and whenever it changes.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.0.leadership.subscribe()
    }

    /// How the node is.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        self.0.node.status()
    }

    /// The registry as the octets of a file, as this node has it now.
    #[must_use]
    pub fn backup(&self) -> Vec<u8> {
        let (head, registry) = self.0.node.machine().frozen();
        let mut octets = Vec::new();
        let written = snapshot::encode(&head, &registry, |some| {
            octets.extend_from_slice(some);
            Ok(())
        });
        debug_assert!(written.is_ok(), "writing to memory does not fail");
        octets
    }

    /// Stops in order: takes no more writes, and lets the others choose another leader at once.
    pub async fn stop(&self) {
        let node = self.node();
        // It ends with the runtime at the latest.
        drop(self.0.runtime.spawn(async move { node.stop().await }).await);
    }
}

async fn follow_leadership(store: Store) {
    let mut metrics = store.0.node.watch_metrics();
    loop {
        let now = {
            let metrics = metrics.borrow_and_update();
            let leads = metrics.state == openraft::ServerState::Leader;
            let is_me = leads && Node::knows_all(metrics.last_applied, metrics.vote);
            Leadership { term: metrics.current_term, leader: metrics.current_leader, is_me }
        };
        if store.0.leadership.send_if_modified(|told| std::mem::replace(told, now) != now) {
            store.0.led.notify_waiters();
        }
        tokio::select! {
            biased;
            changed = metrics.changed() => if changed.is_err() { return },
            () = store.0.node.stopped() => return,
        }
    }
}

/// Has a snapshot made when much was added since the last, and the log cut.
async fn compact(node: Arc<Node>, keep: Keep) {
    loop {
        tokio::select! {
            biased;
            () = sleep(COMPACT) => {}
            () = node.stopped() => return,
        }
        let snapshot = node.metrics().snapshot.map_or(0, |last| last.index);
        let cut = node.log().spare(keep.entries, keep.octets / 2).map(|spare| spare.min(snapshot));
        if let Some(cut) = cut.filter(|cut| *cut >= node.log().first_index())
            && node.raft().trigger().purge_log(cut).await.is_err()
        {
            return;
        }
        if node.log().octets_after(snapshot) > keep.octets.max(2 * node.machine().snapshot_octets())
            && node.raft().trigger().snapshot().await.is_err()
        {
            return;
        }
    }
}

/// A node whose disk fails takes no part, and says so by its state.
async fn end_with_the_disk(node: Arc<Node>) {
    tokio::select! {
        biased;
        () = node.log().failed() => drop(node.raft().shutdown().await),
        () = node.stopped() => {}
    }
}
