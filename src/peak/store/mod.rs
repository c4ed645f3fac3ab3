//! The door to the replicated registry: whoever changes it or asks about it comes through here.
//!
//! ```text
//!  propose at any node ──► leader: batch ─► log, synced ─► others' logs, synced ─► agreed ─► applied ─► reply
//!                                                                                     └─► applied at the others
//! ```
//!
//! A write is a [`Command`] given to [`Store::propose`] at any node; its reply comes when a majority has it on disk and
//! the leader has applied it. A read looks at the node's own registry ([`Store::read`]), after [`Store::read_index`]
//! where it must not be behind. openraft keeps the agreement; log, snapshots, network and elections are ours.
//!
//! Invariants: nothing is acknowledged before a majority has synced it; every node applies the same commands in the
//! same order; a command whose reply was lost is not applied twice, because every one has a name.

mod batch;
mod disk;
mod identity;
mod lease;
mod link;
mod log;
mod machine;
mod message;
mod network;
mod node;
mod pulse;
mod rescue;
mod serve;
mod snapshot;
mod status;
#[cfg(test)]
mod tests;
mod types;

pub use disk::{Disk, DiskFile, Folder, Memory};
pub use identity::IdentityFault;
pub use link::{Links, Security, SecurityError};
pub use log::LogFault;
pub use machine::Show;
pub use message::{Answer, Ask, Lane, Network, No, Nowhere, Tell, Unreached};
pub use node::Node;
pub use rescue::{RescueFault, Rescued, recover, restore};
pub use serve::serve;
pub use snapshot::SnapshotFault;
pub use status::{Member, NodeStatus, Part};
pub use types::{NodeId, Peer};

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use crate::model::UnixMillis;
use crate::model::registry::{Command, Registry, Reply, RequestId};
use crate::model::zone::Seed;
use crate::ops::{clock, entropy};
use batch::Batcher;
use identity::Identity;
use lease::Lease;
use log::Log;
use machine::Machine;
use network::Lines;
use types::Raft;

/// How long a write or a strict read may take before its sender is told that nobody leads.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait before the leader is asked again.
const AGAIN: Duration = Duration::from_millis(10);
/// How long between attempts to join.
const JOIN_AGAIN: Duration = Duration::from_millis(250);
/// How long joining may take once a leader does it: the new node is sent everything.
const JOINING: Duration = Duration::from_secs(600);
/// Octets of the log that are never too many.
const SHORT_LOG: u64 = 32 << 20;
/// How often the log's length is looked at.
const COMPACT: Duration = Duration::from_millis(500);
/// Entries that stay in the log although a snapshot has them, for nodes that were away for a moment.
const KEPT_ENTRIES: u64 = 2_000;
/// openraft's heartbeat, which only keeps followers' logs and its own leases fresh: who is alive is [`pulse`]'s.
const HEARTBEAT_MS: u64 = 80;
/// openraft's own lease: below [`lease::LEASE`], which is the one that counts.
const ELECTION_MS: (u64, u64) = (100, 110);

/// The store of this node. Clones share everything.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    node: Arc<Node>,
    disk: Arc<dyn Disk>,
    draw: fn() -> u128,
    leadership: watch::Sender<Leadership>,
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

/// What a store is opened with.
pub struct Opening {
    /// Where it keeps everything.
    pub disk: Arc<dyn Disk>,
    /// That of the zones beside which the registry's are served.
    pub seed: Seed,
    /// Where the other nodes reach this one, host and port.
    pub address: String,
    /// How it reaches them.
    pub network: Arc<dyn Network>,
    /// Told of every change.
    pub show: Show,
    /// The wall clock.
    pub clock: fn() -> UnixMillis,
    /// Randomness.
    pub draw: fn() -> u128,
    /// The cluster's number, shared with the network; overwritten with what the disk says.
    pub cluster: Arc<Mutex<u128>>,
    /// How much of the log stays.
    pub keep: Keep,
}

/// How much of the log stays when a snapshot has it all.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// Octets of the log that are never too many; beyond, and beyond twice the snapshot's, a new snapshot is made.
    pub octets: u64,
    /// Entries that stay although a snapshot has them, for nodes that were away for a moment.
    pub entries: u64,
}

impl Default for Keep {
    fn default() -> Self {
        Self { octets: SHORT_LOG, entries: KEPT_ENTRIES }
    }
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Why a store does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The node does not know who it is.
    #[error(transparent)]
    Identity(#[from] IdentityFault),
    /// Its log cannot be read.
    #[error(transparent)]
    Log(#[from] LogFault),
    /// Its snapshot cannot be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotFault),
    /// What the log and the snapshot say does not fit together.
    #[error("the registry's log and snapshot do not fit together: {0}")]
    Inconsistent(Box<str>),
}

impl OpenError {
    /// A stable label for metrics and logs.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Identity(fault) => fault.reason(),
            Self::Log(fault) => fault.reason(),
            Self::Snapshot(fault) => fault.reason(),
            Self::Inconsistent(_) => "store-inconsistent",
        }
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

/// Why there is no reply to a command.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ProposeError {
    /// The nodes agree on nobody: too few of them are there. The command may still be applied if it was sent before;
    /// asking again with the same request's name is safe.
    #[error("no leader within {} ms: fewer than half of the nodes reach each other", .0.as_millis())]
    NoLeader(Duration),
    /// The node has failed, and says why in its log.
    #[error("the registry of this node has failed: its log says why")]
    Failed,
}

impl ProposeError {
    /// A stable label for metrics and logs.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoLeader(_) => "no-leader",
            Self::Failed => "registry-failed",
        }
    }
}

/// Why the members of the cluster are as before.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MemberError {
    /// The node belongs to a cluster already.
    #[error("this node belongs to a cluster already: leave it first, with an empty folder")]
    Member,
    /// Somebody could not be reached.
    #[error(transparent)]
    Unreached(#[from] Unreached),
    /// The leader says no.
    #[error("{0}")]
    No(#[from] No),
    /// Nobody leads.
    #[error("no leader: the members cannot be changed without a majority of them")]
    NoLeader,
    /// The disk does not keep it.
    #[error("the disk does not keep the cluster's number")]
    Unkept,
}

impl MemberError {
    /// A stable label for metrics and logs.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Member => "already-member",
            Self::Unreached(_) => "member-unreached",
            Self::No(no) => no.reason(),
            Self::NoLeader => "no-leader",
            Self::Unkept => "cluster-unkept",
        }
    }
}

/// Settings of openraft.
fn settings(keep: Keep) -> Config {
    Config {
        cluster_name: "funicular".to_owned(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MS.0,
        election_timeout_max: ELECTION_MS.1,
        enable_elect: false,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: keep.entries,
        purge_batch_size: 256,
        ..Config::default()
    }
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
            show: Box::new(|_| {}),
            clock: clock::millis,
            draw: entropy::draw,
            cluster: Arc::default(),
            keep: Keep::default(),
        };
        Self::open(opening).await
    }

    /// Opens the store and takes its place in the cluster that its disk tells of, if any. To be called on the runtime
    /// on which the store is to work.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(opening: Opening) -> Result<Self, OpenError> {
        let Opening { disk, seed, address, network, show, clock, draw, cluster, keep } = opening;
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
        let machine = Machine::open(Arc::clone(&disk), seed, Arc::clone(&cluster), show)?;
        let lease = Arc::new(Lease::new(identity.node));
        let lines = Lines { network: Arc::clone(&network), lease: Arc::clone(&lease) };
        let found = log.last();
        let raft = Raft::new(identity.node, Arc::new(settings(keep)), lines, log.clone(), machine.clone()).await;
        let raft = raft.map_err(|fatal| OpenError::Inconsistent(fatal.to_string().into()))?;
        let batcher = Batcher::start(raft.clone(), clock);
        let parts = node::Parts {
            id: identity.node,
            me: Peer { address },
            cluster: Arc::clone(&cluster),
            raft,
            machine,
            log,
            found,
            network,
            lease,
            batcher,
        };
        let store = Self(Arc::new(Inner {
            node: Arc::new(Node::new(parts)),
            disk,
            draw,
            leadership: watch::Sender::default(),
            runtime: Handle::current(),
            beginning: tokio::sync::Mutex::default(),
            cluster,
        }));
        tokio::spawn(pulse::run(store.node()));
        tokio::spawn(follow_leadership(store.clone()));
        tokio::spawn(compact(store.node(), keep));
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

    /// Begins a cluster of this node alone, unless it belongs to one.
    async fn begin(&self) -> Result<(), ProposeError> {
        if self.has_begun() {
            return Ok(());
        }
        let _beginning = self.0.beginning.lock().await;
        if self.has_begun() {
            return Ok(());
        }
        self.keep_cluster((self.0.draw)().max(1)).map_err(|_| ProposeError::Failed)?;
        let node = &self.0.node;
        let members = std::collections::BTreeMap::from([(node.id(), node.me().clone())]);
        match node.raft().initialize(members).await {
            Ok(()) => {
                tracing::info!(node = node.id(), address = %node.me(), "a registry of one node begins");
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "a registry could not be begun");
                Err(ProposeError::Failed)
            }
        }
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

    /// Gives the command to the leader, wherever it is; its reply comes when it is applied for good. A command without
    /// a request's name is given one, so that it is applied once whatever happens on the way.
    ///
    /// # Errors
    /// [`ProposeError`]; what was asked for may have happened all the same.
    pub async fn propose(&self, command: Command) -> Result<Reply, ProposeError> {
        let store = self.clone();
        self.there(async move { store.propose_here(command).await }, ProposeError::Failed).await
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

    async fn propose_here(&self, mut command: Command) -> Result<Reply, ProposeError> {
        command.request.get_or_insert_with(|| RequestId((self.0.draw)()));
        self.begin().await?;
        let octets = command.encode().into_boxed_slice();
        let told = self.at_leader(|| Ask::Propose(octets.clone())).await?;
        let Tell::Proposed(reply) = told else { return Err(ProposeError::Failed) };
        Ok(reply)
    }

    /// Waits until the node has applied everything that was acknowledged, anywhere, before the call.
    ///
    /// # Errors
    /// [`ProposeError`].
    pub async fn read_index(&self) -> Result<(), ProposeError> {
        if self.strict_until().is_some() {
            return Ok(());
        }
        let store = self.clone();
        self.there(async move { store.read_index_here().await }, ProposeError::Failed).await
    }

    async fn read_index_here(&self) -> Result<(), ProposeError> {
        self.begin().await?;
        let start = Instant::now();
        let told = self.at_leader(|| Ask::ReadIndex).await?;
        let Tell::ReadIndex(index) = told else { return Err(ProposeError::Failed) };
        let mut metrics = self.0.node.watch_metrics();
        let applied = async {
            while self.0.node.applied() < index {
                metrics.changed().await.map_err(|_| ProposeError::Failed)?;
            }
            Ok(())
        };
        timeout_at(start + PATIENCE, applied).await.unwrap_or(Err(ProposeError::NoLeader(PATIENCE)))
    }

    /// Asks the leader, and again whoever leads next, until it answers or patience ends.
    async fn at_leader(&self, ask: impl Fn() -> Ask) -> Result<Tell, ProposeError> {
        let (start, node) = (Instant::now(), &self.0.node);
        loop {
            let (leader, address) = {
                let metrics = node.metrics();
                if metrics.running_state.is_err() {
                    return Err(ProposeError::Failed);
                }
                let leader = metrics.current_leader;
                let peer = leader.and_then(|leader| metrics.membership_config.membership().get_node(&leader).cloned());
                (leader, peer.map(|peer| peer.address))
            };
            let left = PATIENCE.saturating_sub(start.elapsed());
            let told = async {
                match (leader, address) {
                    (Some(leader), _) if leader == node.id() => Some(node.answer(ask()).await),
                    (Some(_), Some(address)) => node.ask(&address, Lane::Forward, ask(), left).await.ok(),
                    _ => None,
                }
            };
            let told = tokio::select! {
                told = told => told,
                // A leader that is gone without a word never answers.
                () = another_leader(node, leader), if leader.is_some() => None,
            };
            match told {
                Some(Tell::No(No::NotLeader | No::Failed)) | None => {}
                Some(tell) => return Ok(tell),
            }
            if left <= AGAIN {
                return Err(ProposeError::NoLeader(PATIENCE));
            }
            sleep(AGAIN).await;
        }
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

    /// Joins the cluster of the node at `member`, which a node can that belongs to none. Ends when this node has all
    /// that the others have, and votes.
    ///
    /// # Errors
    /// [`MemberError`].
    pub async fn join(&self, member: &str) -> Result<(), MemberError> {
        let (store, member) = (self.clone(), member.to_owned());
        self.there(async move { store.join_here(&member).await }, MemberError::NoLeader).await
    }

    async fn join_here(&self, member: &str) -> Result<(), MemberError> {
        let _beginning = self.0.beginning.lock().await;
        let node = &self.0.node;
        let told = node.ask(member, Lane::Forward, Ask::Status, PATIENCE).await?;
        let Tell::Status(status) = told else { return Err(refusal(&told)) };
        let cluster = u128::from_str_radix(&status.cluster, 16).ok().filter(|cluster| *cluster != 0);
        let cluster = cluster.ok_or(MemberError::NoLeader)?;
        if node.cluster() != cluster {
            if self.has_begun() {
                return Err(MemberError::Member);
            }
            self.keep_cluster(cluster)?;
        }
        let leader =
            status.members.iter().find(|other| Some(other.node) == status.leader).ok_or(MemberError::NoLeader)?;
        let ask = Ask::Join { node: node.id(), peer: node.me().clone() };
        let told = node.ask(&leader.address, Lane::Forward, ask, JOINING).await?;
        if matches!(told, Tell::Joined(_)) { Ok(()) } else { Err(refusal(&told)) }
    }

    /// Takes the node's place: joins the cluster of any of these nodes, however long it takes, or tells its own that it
    /// is reached at another address now. Ends at once for a member that is where it was.
    pub async fn settle(&self, members: &[String]) {
        let node = &self.0.node;
        loop {
            let known = {
                let metrics = node.metrics();
                let membership = metrics.membership_config.membership();
                let votes = membership.voter_ids().any(|voter| voter == node.id());
                membership.get_node(&node.id()).filter(|_| votes).cloned()
            };
            match known {
                Some(known) if known == *node.me() => return,
                Some(_) => {
                    let ask = || Ask::Join { node: node.id(), peer: node.me().clone() };
                    if matches!(self.at_leader(ask).await, Ok(Tell::Joined(_))) {
                        return;
                    }
                }
                None if members.is_empty() => return,
                None => {
                    for member in members {
                        match self.join(member).await {
                            Ok(()) => return tracing::info!(member, "joined the cluster"),
                            Err(error) => tracing::info!(member, %error, "not joined yet"),
                        }
                    }
                }
            }
            tokio::select! {
                () = sleep(JOIN_AGAIN) => {}
                () = node.stopped() => return,
            }
        }
    }

    /// Takes a node out of the cluster: this one, or one that is dead.
    ///
    /// # Errors
    /// [`MemberError`].
    pub async fn leave(&self, node: NodeId) -> Result<(), MemberError> {
        let store = self.clone();
        self.there(async move { store.leave_here(node).await }, MemberError::NoLeader).await
    }

    async fn leave_here(&self, node: NodeId) -> Result<(), MemberError> {
        let told = self.at_leader(|| Ask::Leave(node)).await.map_err(|_| MemberError::NoLeader)?;
        if matches!(told, Tell::Heard) { Ok(()) } else { Err(refusal(&told)) }
    }

    /// Stops in order: takes no more writes, and lets the others choose another leader at once.
    pub async fn stop(&self) {
        let node = self.node();
        // It ends with the runtime at the latest.
        drop(self.0.runtime.spawn(async move { node.stop().await }).await);
    }
}

/// Ends when somebody else leads than `leader`.
async fn another_leader(node: &Node, leader: Option<NodeId>) {
    let mut metrics = node.watch_metrics();
    let another = metrics.wait_for(|metrics| metrics.current_leader.is_some_and(|now| Some(now) != leader));
    if another.await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Why a node has not done what it was asked, by what it said instead.
fn refusal(told: &Tell) -> MemberError {
    if let Tell::No(no) = told { (*no).into() } else { No::Failed.into() }
}

async fn follow_leadership(store: Store) {
    let mut metrics = store.0.node.watch_metrics();
    loop {
        let now = {
            let metrics = metrics.borrow_and_update();
            let leads = metrics.state == openraft::ServerState::Leader;
            let is_me = leads && store.0.node.knows_all(metrics.last_applied, metrics.vote);
            Leadership { term: metrics.current_term, leader: metrics.current_leader, is_me }
        };
        store.0.leadership.send_if_modified(|told| std::mem::replace(told, now) != now);
        tokio::select! {
            changed = metrics.changed() => if changed.is_err() { return },
            () = store.0.node.stopped() => return,
        }
    }
}

/// Has a snapshot made when the log has become long, so that it can be cut.
async fn compact(node: Arc<Node>, keep: Keep) {
    loop {
        tokio::select! {
            () = sleep(COMPACT) => {}
            () = node.stopped() => return,
        }
        if node.log().octets() > keep.octets.max(2 * node.machine().snapshot_octets())
            && node.raft().trigger().snapshot().await.is_err()
        {
            return;
        }
    }
}
