//! What nodes say to each other, and the door through which they say it.
//!
//! A question has one answer, and asking twice does no harm: any message may be lost, doubled, late or overtaken. The
//! network is a trait, so that a test can do all of that.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::status::NodeStatus;
use super::types::{
    AppendRequest, AppendResponse, LogId, NodeId, Peer, SnapshotMeta, SnapshotResponse, Vote, VoteRequest, VoteResponse,
};
use crate::model::registry::Reply;

/// What one node asks of another.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Ask {
    /// Entries of the log, or none: the leader's word that it is there.
    Append(AppendRequest),
    /// A vote.
    Vote(VoteRequest),
    /// A part of a snapshot's file.
    Snapshot {
        /// The leader's vote.
        vote: Vote,
        /// What the snapshot is.
        meta: SnapshotMeta,
        /// Where in the file the octets stand.
        at: u64,
        /// The octets.
        #[serde(with = "crate::model::octets")]
        octets: Box<[u8]>,
        /// Whether the file ends with them.
        last: bool,
    },
    /// The leader is alive; how far it has applied the log.
    Beat {
        /// Its vote.
        vote: Vote,
        /// The last entry it has applied.
        applied: Option<LogId>,
    },
    /// The leader stops: there is nothing to wait for.
    Farewell(Vote),
    /// Whether a vote would be given, were it asked for.
    WouldVote {
        /// The candidate's last entry.
        last: Option<LogId>,
    },
    /// A command's octets, for the leader.
    Propose(#[serde(with = "crate::model::octets")] Box<[u8]>),
    /// Up to which entry a node must have applied the log to know all that was acknowledged; for the leader.
    ReadIndex,
    /// A node wants to be a member; for the leader.
    Join {
        /// The node.
        node: NodeId,
        /// Where it is reached.
        peer: Peer,
    },
    /// A question to this node and to no other that may be at its address: one that has lost its disk has forgotten what
    /// it promised and took.
    To {
        /// The node.
        node: NodeId,
        /// What it is asked.
        ask: Box<Ask>,
    },
    /// A node is to be no member any more; for the leader.
    Leave(NodeId),
    /// How the node is.
    Status,
}

/// What it is told.
#[derive(Debug, Deserialize, Serialize)]
pub enum Tell {
    /// To [`Ask::Append`].
    Append(AppendResponse),
    /// To [`Ask::Vote`].
    Vote(VoteResponse),
    /// To [`Ask::Snapshot`]: the part is taken, or with the last the vote that counts.
    Snapshot(Option<SnapshotResponse>),
    /// To [`Ask::Beat`], [`Ask::Farewell`] and [`Ask::Leave`].
    Heard,
    /// To [`Ask::WouldVote`].
    WouldVote(bool),
    /// To [`Ask::Propose`]; with the entry that the command was in.
    Proposed(Reply, LogId),
    /// To [`Ask::ReadIndex`].
    ReadIndex(Option<LogId>),
    /// To [`Ask::Join`]: the cluster's number.
    Joined(u128),
    /// To [`Ask::Status`].
    Status(Box<NodeStatus>),
    /// To any: why not.
    No(No),
    /// To [`Ask::WouldVote`]: the node is the leader, and there is nothing to vote about.
    Leads,
}

/// Why a node does not do what it was asked.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, thiserror::Error)]
pub enum No {
    /// It does not lead.
    #[error("the node does not lead")]
    NotLeader,
    /// It has just started, or still hears the leader.
    #[error("the node gives no vote now")]
    NoVote,
    /// Membership is being changed by somebody else.
    #[error("the members are being changed already")]
    Changing,
    /// The last member cannot leave, and a stranger neither.
    #[error("the node is no member, or the last one")]
    NoMember,
    /// Its disk or its program fails.
    #[error("the node has failed: its log says why")]
    Failed,
    /// A member would not know the command.
    #[error("it needs schema {needs}, and a node of the cluster knows {knows}: renew that node's program first")]
    Schema {
        /// What it needs.
        needs: u8,
        /// What all members know.
        knows: u8,
    },
    /// Another node is at that address.
    #[error("another node is at that address: the one that was there has lost its disk, or has moved")]
    NotMe,
    /// The node's program does not know the question.
    #[error("the node's program does not know what it was asked: renew it")]
    Unknown,
    /// A member is at the address that a newcomer gives.
    #[error("a member answers at that address: give the new node one of its own")]
    Taken,
    /// Nobody can be asked at the address that a newcomer gives.
    #[error("the leader reaches nobody at that address")]
    Unreached,
}

impl No {
    /// A stable label for metrics and logs.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotLeader => "not-leader",
            Self::NoVote => "no-vote",
            Self::Changing => "members-changing",
            Self::NoMember => "no-member",
            Self::Failed => "node-failed",
            Self::Schema { .. } => "schema-not-everywhere",
            Self::NotMe => "another-node",
            Self::Unknown => "message-unknown",
            Self::Taken => "address-taken",
            Self::Unreached => "address-unreached",
        }
    }
}

/// Messages of one kind share a connection, so that none waits behind one of another kind.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Lane {
    /// Signs of life and what elections need.
    Pulse,
    /// The log.
    Log,
    /// Snapshots.
    Bulk,
    /// Writes and reads on their way to the leader, and what people ask.
    Forward,
}

/// The node could not be reached, or has not answered in time.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unreached {
    /// Nobody listens there, or it is no node of this cluster.
    #[error("{address}: {cause}")]
    Refused {
        /// Where.
        address: Box<str>,
        /// What the system or TLS said.
        cause: Box<str>,
    },
    /// No answer came in time; what was asked may have happened.
    #[error("{address}: no answer in {} ms", .waited.as_millis())]
    Late {
        /// Where.
        address: Box<str>,
        /// How long.
        waited: Duration,
    },
}

/// An answer on its way.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<Tell, Unreached>> + Send + 'a>>;

/// What carries messages.
pub trait Network: fmt::Debug + Send + Sync {
    /// Asks the node at `address`, and gives up after `within`.
    fn ask<'a>(&'a self, address: &'a str, lane: Lane, ask: Ask, within: Duration) -> Answer<'a>;
}

/// No other node.
#[derive(Debug)]
pub struct Nowhere;

impl Network for Nowhere {
    fn ask<'a>(&'a self, address: &'a str, _: Lane, _: Ask, _: Duration) -> Answer<'a> {
        Box::pin(
            async move { Err(Unreached::Refused { address: address.into(), cause: "there is no network".into() }) },
        )
    }
}
