//! What is done to a node's folder while no node runs in it: disaster recovery, and restoring a backup.
//!
//! Both make of a registry the beginning of a new cluster of one node. The new cluster has a number of its own, so that
//! nodes of the old one that come back are refused instead of mixing two histories.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openraft::{CommittedLeaderId, EntryPayload, Membership};

use super::disk::{Disk, Folder};
use super::identity::{self, Identity, IdentityFault};
use super::log::{self, Log, LogFault};
use super::snapshot::{self, SnapshotFault, SnapshotHead};
use super::types::{LogId, Peer, SnapshotMeta, StoredMembership, Vote};
use crate::model::registry::{Registry, SCHEMA, SchemaError};
use crate::model::zone::Seed;

/// Why a folder is as it was, or has to be rescued again.
#[derive(Debug, thiserror::Error)]
pub enum RescueFault {
    /// The folder or the backup cannot be read or written.
    #[error("{}: {cause}", .place.display())]
    Disk {
        /// Where.
        place: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A registry is there.
    #[error("{}: it holds a registry; name an empty folder", .0.display())]
    NotEmpty(PathBuf),
    /// None is there.
    #[error("{}: it holds no registry", .0.display())]
    Nothing(PathBuf),
    /// The node's number.
    #[error(transparent)]
    Identity(#[from] IdentityFault),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogFault),
    /// The snapshot or the backup.
    #[error(transparent)]
    Snapshot(#[from] SnapshotFault),
    /// A command in the log.
    #[error("entry {index} of the log: {cause}")]
    Command {
        /// Which entry.
        index: u64,
        /// Why.
        cause: SchemaError,
    },
}

impl RescueFault {
    /// A stable label for metrics and logs.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Disk { .. } => "rescue-disk",
            Self::NotEmpty(_) => "rescue-not-empty",
            Self::Nothing(_) => "rescue-nothing",
            Self::Identity(fault) => fault.reason(),
            Self::Log(fault) => fault.reason(),
            Self::Snapshot(fault) => fault.reason(),
            Self::Command { cause, .. } => cause.reason(),
        }
    }
}

/// What a rescue has left.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rescued {
    /// Zones in the registry.
    pub zones: usize,
    /// Names in them.
    pub names: usize,
    /// Up to which entry of the old log the registry goes.
    pub index: u64,
}

fn folder(path: &Path) -> Result<Arc<dyn Disk>, RescueFault> {
    match Folder::open(path.to_owned()) {
        Ok(folder) => Ok(Arc::new(folder)),
        Err(cause) => Err(RescueFault::Disk { place: path.to_owned(), cause }),
    }
}

fn names(disk: &dyn Disk) -> Result<Vec<String>, RescueFault> {
    disk.names().map_err(|cause| RescueFault::Disk { place: disk.place(""), cause })
}

/// Makes of one surviving node's folder a cluster of that node alone, reached at `address`. Everything in its log counts
/// as agreed on; what the lost majority had and this node had not is lost.
///
/// # Errors
/// [`RescueFault`]; it can be called again.
pub fn recover(path: &Path, address: &str, cluster: u128) -> Result<Rescued, RescueFault> {
    let disk = folder(path)?;
    let identity = identity::load(&*disk)?.ok_or_else(|| RescueFault::Nothing(path.to_owned()))?;
    let log = Log::open(Arc::clone(&disk))?;
    let (mut last, mut registry) = (None, Registry::new(Seed(0)));
    if let Some(file) = snapshot::open(&*disk, snapshot::CURRENT, false)? {
        let (head, read) = snapshot::read(&*disk, &file, (Seed(0), SCHEMA))?;
        (last, registry) = (head.meta.last_log_id, read);
    }
    let snapshot = last;
    for entry in log.entries().into_iter().filter(|entry| Some(entry.log_id) > snapshot) {
        if let EntryPayload::Normal(batch) = &entry.payload {
            for command in batch.commands(SCHEMA) {
                let command = command.map_err(|cause| RescueFault::Command { index: entry.log_id.index, cause })?;
                registry.apply(batch.at(), &command);
            }
        }
        last = Some(entry.log_id);
    }
    let term = log.vote().map_or(0, |vote| vote.leader_id().term).max(last.map_or(0, |last| last.leader_id.term));
    drop(log);
    begin(&*disk, Identity { cluster, ..identity }, address, (term, last), &registry)
}

/// Makes of a backup a cluster of one node, reached at `address`, in an empty folder.
///
/// # Errors
/// [`RescueFault`].
pub fn restore(backup: &Path, path: &Path, address: &str, draw: fn() -> u128) -> Result<Rescued, RescueFault> {
    let disk = folder(path)?;
    if names(&*disk)?.iter().any(|name| name == snapshot::CURRENT || name.starts_with("log-")) {
        return Err(RescueFault::NotEmpty(path.to_owned()));
    }
    let from = folder(backup.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
    let name = backup.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let file = snapshot::open(&*from, &name, false)?.ok_or_else(|| RescueFault::Nothing(backup.to_owned()))?;
    let (head, registry) = snapshot::read(&*from, &file, (Seed(0), SCHEMA))?;
    let identity = Identity { node: (draw() as u64).max(1), cluster: draw().max(1) };
    let last = head.meta.last_log_id;
    begin(&*disk, identity, address, (last.map_or(0, |last| last.leader_id.term), last), &registry)
}

/// Writes the registry as the beginning of a cluster of one. The snapshot comes first: with it alone the old log says
/// nothing that would still count.
fn begin(
    disk: &dyn Disk,
    identity: Identity,
    address: &str,
    (term, last): (u64, Option<LogId>),
    registry: &Registry,
) -> Result<Rescued, RescueFault> {
    let failed = |cause| RescueFault::Disk { place: disk.place(""), cause };
    let index = last.map_or(0, |last| last.index);
    // Newer than everything in the old log, so that nobody takes one for the other.
    let id = LogId::new(CommittedLeaderId::new(term + 1, identity.node), index + 1);
    let members = BTreeMap::from([(identity.node, Peer { address: address.to_owned(), schema: SCHEMA })]);
    let membership = Membership::new(vec![BTreeSet::from([identity.node])], members);
    let meta = SnapshotMeta {
        last_log_id: Some(id),
        last_membership: StoredMembership::new(Some(id), membership),
        snapshot_id: format!("{}-{}", id.leader_id, id.index),
    };
    snapshot::write(disk, snapshot::MADE, &SnapshotHead { cluster: identity.cluster, meta }, registry)?;
    disk.rename(snapshot::MADE, snapshot::CURRENT).map_err(failed)?;
    identity::save(disk, identity)?;
    let mut logs: Vec<String> = names(disk)?.into_iter().filter(|name| name.starts_with("log-")).collect();
    // The oldest first: what is left of a log has no gap.
    logs.sort();
    for name in &logs {
        disk.remove(name).map_err(failed)?;
    }
    log::begin_at(disk, Vote::new(term + 1, identity.node), id)?;
    disk.sync_names().map_err(failed)?;
    let names = registry.zones().map(|held| held.zone().len()).sum();
    Ok(Rescued { zones: registry.zones().count(), names, index })
}
