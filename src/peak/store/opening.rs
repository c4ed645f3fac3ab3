//! What a store is opened with, and why it does not open.

use std::fmt;
use std::sync::Arc;

use openraft::{Config, SnapshotPolicy};
use parking_lot::Mutex;

use super::disk::Disk;
use super::identity::IdentityFault;
use super::log::LogFault;
use super::machine::Show;
use super::message::Network;
use super::snapshot::SnapshotFault;
use crate::model::UnixMillis;
#[cfg(doc)]
use crate::model::registry::SCHEMA;
use crate::model::zone::Seed;

/// Octets of the log that are never too many.
const SHORT_LOG: u64 = 32 << 20;
/// Entries that stay in the log although a snapshot has them, for nodes that were away for a moment.
const KEPT_ENTRIES: u64 = 2_000;
/// openraft's heartbeat, which only keeps followers' logs and its own leases fresh: who is alive is [`super::pulse`]'s.
const HEARTBEAT_MS: u64 = 80;
/// openraft's own lease: below [`super::lease::LEASE`], which is the one that counts.
const ELECTION_MS: (u64, u64) = (100, 110);

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
    /// The nodes with which this one is to be when it belongs to no cluster, each as host and port. None: it begins a
    /// cluster of its own with the first command.
    pub peers: Vec<String>,
    /// The newest schema of commands that it knows: [`SCHEMA`], unless it stands in for an older program.
    pub schema: u8,
}

/// How much of the log stays when a snapshot has it all.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// Octets of entries since the last snapshot that are never too many; beyond, and beyond twice the snapshot's, a new
    /// one is made.
    pub octets: u64,
    /// Entries that stay although a snapshot has them, for nodes that were away for a moment; of half of `octets` at most.
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

/// Settings of openraft.
pub(super) fn settings() -> Config {
    Config {
        cluster_name: "funicular".to_owned(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MS.0,
        election_timeout_max: ELECTION_MS.1,
        enable_elect: false,
        snapshot_policy: SnapshotPolicy::Never,
        // What goes is decided by its octets as well, not here.
        max_in_snapshot_log_to_keep: u64::MAX,
        purge_batch_size: 256,
        ..Config::default()
    }
}
