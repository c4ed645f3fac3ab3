//! One node: what it answers the others, and how it gets to the leader.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::ServerState;
use openraft::error::RaftError;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::batch::Batcher;
use super::disk::aside;
use super::lease::Lease;
use super::log::Log;
use super::machine::Machine;
use super::message::{Ask, Lane, Network, No, Tell, Unreached};
use super::pulse::{STUCK, Watch};
use super::snapshot::SnapshotFile;
use super::status::{Member, NodeStatus, Part};
use super::types::{
    AppendRequest, AppendResponse, LogId, Metrics, NodeId, Peer, Raft, Snapshot, SnapshotMeta, SnapshotResponse, Vote,
};
use crate::model::registry::{Command, FIRST_SCHEMA, Registry};

/// How long a write may wait at the leader before its sender is told to ask again.
pub(super) const WRITE: Duration = Duration::from_secs(3);
/// How long the core may take to end.
const STOP: Duration = Duration::from_secs(2);
/// Within which time those who ask until when this node leads ask again.
pub(in crate::peak) const LOOKED_AGAIN: Duration = Duration::from_millis(25);
/// How long after its lease a leader says to who would vote that it leads. A busy machine has others wait for longer.
const FOLLOWED: Duration = Duration::from_millis(500);

/// A node of the cluster.
pub struct Node {
    id: NodeId,
    me: Peer,
    cluster: Arc<Mutex<u128>>,
    raft: Raft,
    metrics: watch::Receiver<Metrics>,
    machine: Machine,
    log: Log,
    network: Arc<dyn Network>,
    lease: Arc<Lease>,
    watch: Watch,
    batcher: Batcher,
    /// The snapshot that is being received.
    receiving: tokio::sync::Mutex<Option<Receiving>>,
    stopping: AtomicBool,
    stop: watch::Sender<bool>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("id", &self.id).finish_non_exhaustive()
    }
}

struct Receiving {
    meta: SnapshotMeta,
    file: SnapshotFile,
}

/// What a node is made of.
pub(super) struct Parts {
    pub(super) id: NodeId,
    pub(super) me: Peer,
    pub(super) cluster: Arc<Mutex<u128>>,
    pub(super) raft: Raft,
    pub(super) machine: Machine,
    pub(super) log: Log,
    pub(super) network: Arc<dyn Network>,
    pub(super) lease: Arc<Lease>,
    pub(super) batcher: Batcher,
}

impl Node {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { id, me, cluster, raft, machine, log, network, lease, batcher } = parts;
        Self {
            metrics: raft.metrics(),
            id,
            me,
            cluster,
            raft,
            machine,
            log,
            network,
            lease,
            watch: Watch::default(),
            batcher,
            receiving: tokio::sync::Mutex::default(),
            stopping: AtomicBool::new(false),
            stop: watch::Sender::new(false),
        }
    }

    pub(super) fn id(&self) -> NodeId {
        self.id
    }

    /// Where the others reach this node.
    pub(super) fn me(&self) -> &Peer {
        &self.me
    }

    /// The cluster's number; 0 while the node belongs to none.
    pub fn cluster(&self) -> u128 {
        *self.cluster.lock()
    }

    pub(super) fn metrics(&self) -> Metrics {
        self.metrics.borrow().clone()
    }

    /// Who leads, as far as this node knows.
    pub(super) fn leader(&self) -> Option<NodeId> {
        self.metrics.borrow().current_leader
    }

    pub(super) fn watch_metrics(&self) -> watch::Receiver<Metrics> {
        self.metrics.clone()
    }

    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }

    pub(super) fn read<T>(&self, look: impl FnOnce(&Registry) -> T) -> T {
        self.machine.read(look)
    }

    pub(super) fn machine(&self) -> &Machine {
        &self.machine
    }

    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    pub(super) fn raft(&self) -> &Raft {
        &self.raft
    }

    pub(super) fn applied(&self) -> Option<LogId> {
        self.machine.applied()
    }

    pub(super) fn last(&self) -> Option<LogId> {
        self.log.last()
    }

    pub(super) fn leader_is_gone(&self) -> bool {
        self.watch.is_gone()
    }

    /// Ends when the node is to stop.
    pub(super) async fn stopped(&self) {
        let mut stop = self.stop.subscribe();
        // The sender lives as long as the node.
        drop(stop.wait_for(|stop| *stop).await);
    }

    /// The other members and where they are.
    pub(super) fn others(&self) -> Vec<(NodeId, String)> {
        let metrics = self.metrics.borrow();
        let nodes = metrics.membership_config.membership().nodes();
        nodes.filter(|(node, _)| **node != self.id).map(|(node, peer)| (*node, peer.address.clone())).collect()
    }

    pub(super) async fn ask(&self, address: &str, lane: Lane, ask: Ask, within: Duration) -> Result<Tell, Unreached> {
        let late = || Unreached::Late { address: address.into(), waited: within };
        tokio::time::timeout(within, self.network.ask(address, lane, ask, within)).await.unwrap_or_else(|_| Err(late()))
    }

    /// Asks this member, and nobody else who may be at its address.
    pub(super) async fn ask_member(
        &self,
        member: NodeId,
        address: &str,
        lane: Lane,
        ask: Ask,
        within: Duration,
    ) -> Result<Tell, Unreached> {
        self.ask(address, lane, Ask::To { node: member, ask: Box::new(ask) }, within).await
    }

    /// Asks all others for their votes. False when it may not, or cannot.
    pub(super) async fn stand(&self) -> bool {
        let (vote, alone) = {
            let metrics = self.metrics.borrow();
            let voters = metrics.membership_config.membership().voter_ids().count();
            (Vote::new(metrics.current_term + 1, self.id), voters == 1)
        };
        (alone || self.lease.promise(vote)) && self.elect().await
    }

    async fn elect(&self) -> bool {
        self.raft.trigger().elect().await.is_ok()
    }

    /// A connection that the node had made has broken. Where that was the leader, it may be gone.
    pub async fn lost(&self, node: NodeId) {
        let address = {
            let metrics = self.metrics.borrow();
            if metrics.current_leader != Some(node) || node == self.id {
                return;
            }
            metrics.membership_config.membership().get_node(&node).map(|peer| peer.address.clone())
        };
        if let Some(address) = address {
            self.watch.look(self, &address).await;
        }
    }

    /// Answers another node.
    pub async fn answer(&self, ask: Ask) -> Tell {
        match ask {
            Ask::To { node, ask } if node == self.id => Box::pin(self.answer(*ask)).await,
            Ask::To { .. } => Tell::No(No::NotMe),
            Ask::Append(request) => self.append(request).await,
            Ask::Vote(request) if !self.lease.promise(request.vote) => Tell::No(No::NoVote),
            Ask::Vote(request) => match self.raft.vote(request).await {
                Ok(response) => Tell::Vote(response),
                Err(error) => failed(&error),
            },
            Ask::Snapshot { vote, meta, at, octets, last } => self.receive(vote, meta, at, &octets, last).await,
            Ask::Beat { vote, applied } => {
                if self.metrics.borrow().vote > vote || !self.lease.hear(vote) {
                    return Tell::No(No::NotLeader);
                }
                self.watch.heard();
                self.lease.compare(applied, self.applied());
                Tell::Heard
            }
            Ask::Farewell(vote) => {
                self.lease.forget(vote);
                Tell::Heard
            }
            Ask::WouldVote { .. } if self.is_followed() => Tell::Leads,
            Ask::WouldVote { last } => Tell::WouldVote(self.lease.may_vote() && last >= self.last()),
            Ask::Propose(command) => self.lead(command).await,
            Ask::ReadIndex => match self.read_index_here().await {
                Ok(index) => Tell::ReadIndex(index),
                Err(no) => Tell::No(no),
            },
            Ask::Join { node, peer } => self.join(node, peer).await,
            Ask::Leave(node) => self.leave(node).await,
            Ask::Status => Tell::Status(Box::new(self.status())),
        }
    }

    /// Whether this node leads, and means to go on.
    pub(super) fn is_leading(&self) -> bool {
        self.metrics.borrow().state == ServerState::Leader
            && self.lease.is_active(STUCK)
            && !self.stopping.load(Ordering::Relaxed)
    }

    /// Whether this node leads and was followed a moment ago: one that others hear and that hears nobody must not keep them
    /// from choosing another.
    fn is_followed(&self) -> bool {
        let (vote, voters) = {
            let metrics = self.metrics.borrow();
            let voters: Vec<NodeId> = metrics.membership_config.membership().voter_ids().collect();
            (metrics.vote, voters)
        };
        let until = self.lease.leads_until(vote, &voters);
        self.is_leading() && until.is_some_and(|until| until + FOLLOWED > Instant::now())
    }

    /// Takes entries, and answers once the disk has them.
    async fn append(&self, request: AppendRequest) -> Tell {
        let vote = request.vote;
        if self.lease.hear(vote) {
            self.watch.heard();
        }
        let response = match self.raft.append_entries(request).await {
            Ok(response) => response,
            Err(error) => return failed(&error),
        };
        if !matches!(response, AppendResponse::HigherVote(_)) {
            self.lease.follow(vote);
        }
        Tell::Append(response)
    }

    async fn lead(&self, command: Box<[u8]>) -> Tell {
        if self.stopping.load(Ordering::Relaxed) || self.leader() != Some(self.id) {
            return Tell::No(No::NotLeader);
        }
        let (needs, knows) = (Command::schema_of(&command).unwrap_or(FIRST_SCHEMA), self.all_know());
        if needs > knows {
            return Tell::No(No::Schema { needs, knows });
        }
        match self.batcher.propose(command, WRITE).await {
            Ok((reply, entry)) => Tell::Proposed(reply, entry),
            Err(no) => Tell::No(no),
        }
    }

    /// The newest schema that every member's program knows.
    fn all_know(&self) -> u8 {
        let metrics = self.metrics.borrow();
        let members = metrics.membership_config.membership().nodes();
        members.map(|(_, peer)| peer.schema).min().unwrap_or(FIRST_SCHEMA)
    }

    /// Until when this node leads for certain, having applied all that those before it have agreed on.
    pub(super) fn leads_until(&self) -> Option<Instant> {
        let metrics = self.metrics.borrow();
        if metrics.state != ServerState::Leader || self.stopping.load(Ordering::Relaxed) {
            return None;
        }
        if metrics.membership_config.membership().get_joint_config().len() != 1 {
            // While the members change, a majority is one of the old and one of the new: the core is asked.
            return None;
        }
        let voters: Vec<NodeId> = metrics.membership_config.membership().voter_ids().collect();
        let until = self.lease.leads_until(metrics.vote, &voters)?;
        (Self::knows_all(self.applied(), metrics.vote) && until > Instant::now()).then_some(until)
    }

    /// Whether a leader with this vote that has applied the log so far has applied all that was agreed on before it led:
    /// an entry of its own comes after all that, and nobody leads in one term before a stop and after it.
    pub(super) fn knows_all(applied: Option<LogId>, vote: Vote) -> bool {
        applied.is_some_and(|applied| applied.leader_id == vote.leader_id)
    }

    /// As leader: up to where the log must be applied to know all that was acknowledged.
    pub(super) async fn read_index_here(&self) -> Result<Option<LogId>, No> {
        if self.leads_until().is_some() {
            // What was acknowledged was applied here before.
            return Ok(self.applied());
        }
        match self.raft.ensure_linearizable().await {
            Ok(index) => Ok(index),
            Err(RaftError::Fatal(_)) => Err(No::Failed),
            Err(RaftError::APIError(_)) => Err(No::NotLeader),
        }
    }

    async fn receive(&self, vote: Vote, meta: SnapshotMeta, at: u64, octets: &[u8], last: bool) -> Tell {
        if self.lease.hear(vote) {
            self.watch.heard();
        }
        let mut receiving = self.receiving.lock().await;
        if at == 0 || receiving.as_ref().is_none_or(|receiving| receiving.meta != meta) {
            if at > 0 {
                // The beginning went to this node before it was started anew.
                return Tell::No(No::Failed);
            }
            match self.raft.begin_receiving_snapshot().await {
                Ok(file) => *receiving = Some(Receiving { meta: meta.clone(), file: *file }),
                Err(error) => return failed(&error),
            }
        }
        let Some(Receiving { file, .. }) = receiving.as_ref() else { return Tell::No(No::Failed) };
        if let Err(error) = aside(|| file.file.write(at, octets)) {
            tracing::error!(%error, "a snapshot cannot be written");
            return Tell::No(No::Failed);
        }
        if !last {
            return Tell::Snapshot(None);
        }
        let snapshot = Snapshot { meta, snapshot: Box::new(file.clone()) };
        *receiving = None;
        match self.raft.install_full_snapshot(vote, snapshot).await {
            Ok(SnapshotResponse { vote }) => {
                tracing::info!(node = self.id, "the registry was received as a snapshot");
                Tell::Snapshot(Some(SnapshotResponse { vote }))
            }
            Err(error) => failed(&error),
        }
    }

    /// How the node is.
    pub(super) fn status(&self) -> NodeStatus {
        let metrics = self.metrics();
        let membership = metrics.membership_config.membership();
        let voters: Vec<NodeId> = membership.voter_ids().collect();
        let index = |id: Option<LogId>| id.map_or(0, |id| id.index);
        let last_index = metrics.last_log_index.unwrap_or(0);
        let part = match metrics.state {
            _ if metrics.running_state.is_err() => Part::Failed,
            _ if voters.is_empty() => Part::Waiting,
            ServerState::Leader => Part::Leader,
            ServerState::Follower => Part::Follower,
            ServerState::Candidate => Part::Candidate,
            ServerState::Learner | ServerState::Shutdown => Part::Learner,
        };
        let lag = |node: &NodeId| {
            let matched = metrics.replication.as_ref()?.get(node)?;
            Some(last_index.saturating_sub(index(*matched)))
        };
        let member = |(node, peer): (&NodeId, &Peer)| Member {
            node: *node,
            address: peer.address.clone(),
            voter: voters.contains(node),
            schema: peer.schema,
            lag: lag(node),
        };
        NodeStatus {
            node: self.id,
            cluster: format!("{:x}", self.cluster()),
            part,
            term: metrics.current_term,
            leader: metrics.current_leader,
            last_index,
            applied_index: index(self.applied()),
            snapshot_index: index(metrics.snapshot),
            stale_ms: self.staleness().as_millis() as u64,
            log_octets: self.log.octets(),
            snapshot_octets: self.machine.snapshot_octets(),
            zones: self.read(|registry| registry.zones().count()) as u64,
            schema: self.me.schema,
            members: membership.nodes().map(member).collect(),
        }
    }

    /// How old what the node knows may be at most.
    pub(super) fn staleness(&self) -> Duration {
        if self.leads_until().is_some() { Duration::ZERO } else { self.lease.staleness() }
    }

    /// Takes no more writes; as leader, tells the others that they need not wait.
    pub(super) async fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        let metrics = self.metrics();
        // Whoever answers strictly because this node led has looked again by then.
        tokio::time::sleep(LOOKED_AGAIN).await;
        self.stop.send_replace(true);
        match tokio::time::timeout(STOP, self.raft.shutdown()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the registry did not stop in order"),
            Err(_) => tracing::warn!("the registry did not stop in time: its disk does not answer"),
        }
        if metrics.state == ServerState::Leader {
            let farewells = self.others().into_iter().map(|(member, address)| async move {
                let within = Duration::from_millis(100);
                self.ask_member(member, &address, Lane::Pulse, Ask::Farewell(metrics.vote), within).await
            });
            futures_util::future::join_all(farewells).await;
        }
    }
}

fn failed(error: &impl fmt::Display) -> Tell {
    tracing::debug!(%error, "a message was not answered");
    Tell::No(No::Failed)
}
