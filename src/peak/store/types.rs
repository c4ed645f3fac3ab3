//! The types by which openraft knows this store: what an entry of the log says, who a node is.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::snapshot::SnapshotFile;
use crate::model::UnixMillis;
use crate::model::registry::{Command, Reply, SchemaError};

/// A node's number in its cluster; drawn when it first starts, and never used again.
pub type NodeId = u64;

/// Where the other nodes reach a node, and what it knows.
#[derive(Clone, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Peer {
    /// Host and port, as the node announced them.
    pub address: String,
    /// The newest schema of commands that its program knows.
    pub schema: u8,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

/// What one entry of the log says: commands that were agreed on together, and when that was.
///
/// The octets are made once, where the commands come in; log, network and disk only copy them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Batch(Bytes);

impl Batch {
    /// The commands with these octets, agreed on at `at` by the leader's clock.
    pub(super) fn new<'c>(at: UnixMillis, commands: impl ExactSizeIterator<Item = &'c [u8]>) -> Self {
        let mut octets = Vec::with_capacity(1024);
        octets.extend_from_slice(&at.0.to_be_bytes());
        octets.extend_from_slice(&(commands.len() as u32).to_be_bytes());
        for command in commands {
            octets.extend_from_slice(&(command.len() as u32).to_be_bytes());
            octets.extend_from_slice(command);
        }
        Self(octets.into())
    }

    /// When the commands were agreed on.
    pub(super) fn at(&self) -> UnixMillis {
        UnixMillis(self.0.first_chunk().map_or(0, |octets| u64::from_be_bytes(*octets)))
    }

    /// The commands, in order, for a program that knows schemas up to `knows`.
    pub(super) fn commands(&self, knows: u8) -> impl Iterator<Item = Result<Command, SchemaError>> + '_ {
        let mut rest = self.0.get(12..).unwrap_or_default();
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first_chunk()?;
            let Some((command, after)) = after.split_at_checked(u32::from_be_bytes(*length) as usize) else {
                rest = &[];
                return Some(Err(SchemaError::Malformed));
            };
            rest = after;
            Some(Command::decode(command, knows))
        })
    }
}

impl Serialize for Batch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Batch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Bytes::copy_from_slice(<&[u8]>::deserialize(deserializer)?)))
    }
}

openraft::declare_raft_types!(
    /// The store, as openraft sees it.
    pub TypeConfig:
        D = Batch,
        R = Vec<Reply>,
        NodeId = NodeId,
        Node = Peer,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = SnapshotFile,
        AsyncRuntime = openraft::TokioRuntime,
);

pub(super) type Raft = openraft::Raft<TypeConfig>;
pub(super) type Metrics = openraft::RaftMetrics<NodeId, Peer>;
pub(super) type Entry = openraft::Entry<TypeConfig>;
pub(super) type LogId = openraft::LogId<NodeId>;
pub(super) type Vote = openraft::Vote<NodeId>;
pub(super) type StorageError = openraft::StorageError<NodeId>;
pub(super) type StoredMembership = openraft::StoredMembership<NodeId, Peer>;
pub(super) type SnapshotMeta = openraft::SnapshotMeta<NodeId, Peer>;
pub(super) type Snapshot = openraft::Snapshot<TypeConfig>;
pub(super) type AppendRequest = openraft::raft::AppendEntriesRequest<TypeConfig>;
pub(super) type AppendResponse = openraft::raft::AppendEntriesResponse<NodeId>;
pub(super) type VoteRequest = openraft::raft::VoteRequest<NodeId>;
pub(super) type VoteResponse = openraft::raft::VoteResponse<NodeId>;
pub(super) type SnapshotResponse = openraft::raft::SnapshotResponse<NodeId>;

/// About how many octets the entry takes.
pub(super) fn octets(entry: &Entry) -> usize {
    let openraft::EntryPayload::Normal(batch) = &entry.payload else { return 64 };
    64 + batch.0.len()
}
