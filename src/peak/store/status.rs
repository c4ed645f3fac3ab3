//! How a node is, for people and for metrics.

use serde::{Deserialize, Serialize};

use super::types::NodeId;

/// What a node does in its cluster.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// It leads.
    Leader,
    /// It votes.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It is given the log, and does not vote.
    Learner,
    /// It belongs to no cluster yet.
    Waiting,
    /// Its disk or its program has failed.
    Failed,
}

/// How a node is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct NodeStatus {
    /// Its number.
    pub node: NodeId,
    /// The cluster's number, in hexadecimal; 0 for none yet.
    pub cluster: String,
    /// What it does.
    pub part: Part,
    /// The election that counts.
    pub term: u64,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// The last entry of its log.
    pub last_index: u64,
    /// The last entry that it has applied.
    pub applied_index: u64,
    /// The last entry in its snapshot.
    pub snapshot_index: u64,
    /// How old what it knows may be at most, in milliseconds; 0 for a leader that still leads.
    pub stale_ms: u64,
    /// Octets of its log on disk.
    pub log_octets: u64,
    /// Octets of its snapshot on disk.
    pub snapshot_octets: u64,
    /// Zones in its registry.
    pub zones: u64,
    /// The schema of commands that it knows.
    pub schema: u8,
    /// The members of its cluster.
    pub members: Vec<Member>,
}

/// A member of the cluster, as the node that is asked sees it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Member {
    /// Its number.
    pub node: NodeId,
    /// Where it is reached.
    pub address: String,
    /// Whether it votes.
    pub voter: bool,
    /// The newest schema of commands that its program knows; the cluster makes use of what all know.
    pub schema: u8,
    /// As the leader has it: how many entries it is known to lack.
    pub lag: Option<u64>,
}
