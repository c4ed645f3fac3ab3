//! What is agreed on, applied: the registry of this node, its snapshots, and whoever shows it.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, StorageIOError};
use parking_lot::{Mutex, RwLock, RwLockWriteGuard};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;

use super::disk::{Disk, aside};
use super::log::ROOM;
use super::reached::Reached;
use super::snapshot::{self, SnapshotFault, SnapshotFile, SnapshotHead};
use super::types::{Batch, Entry, LogId, Snapshot, SnapshotMeta, StorageError, StoredMembership, TypeConfig};
use crate::model::registry::{Effect, Registry, Reply, SchemaError};
use crate::model::zone::Seed;

/// Told of every change, in order, before its sender is, with the registry that all of them have made.
pub type Show = Box<dyn Fn(&Registry, Vec<Effect>) + Send + Sync>;

/// The state machine. Clones share everything.
#[derive(Clone)]
pub(super) struct Machine(Arc<Shared>);

struct Shared {
    cluster: Arc<Mutex<u128>>,
    seed: Seed,
    /// The newest schema that this program knows.
    knows: u8,
    disk: Arc<dyn Disk>,
    registry: RwLock<Registry>,
    applied: Mutex<Applied>,
    snapshot: Mutex<Option<SnapshotMeta>>,
    kept: watch::Sender<Kept>,
    /// Octets of the current snapshot's file.
    octets: AtomicU64,
    reached: Reached,
    show: Show,
}

/// What the disk has as a snapshot.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kept {
    /// Up to which entry.
    pub(super) last: Option<LogId>,
    /// One could not be kept, and no other will be.
    pub(super) failed: bool,
}

/// Up to where the log is applied.
#[derive(Clone, Debug, Default)]
struct Applied {
    last: Option<LogId>,
    membership: StoredMembership,
}

impl Machine {
    /// The registry of the snapshot in `disk`, or an empty one, shown to `show`, for a program that knows schemas up to
    /// `knows`.
    ///
    /// # Errors
    /// [`SnapshotFault`].
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        (seed, knows): (Seed, u8),
        cluster: Arc<Mutex<u128>>,
        show: Show,
    ) -> Result<Self, SnapshotFault> {
        let machine = Self(Arc::new(Shared {
            cluster,
            seed,
            knows,
            registry: RwLock::new(Registry::new(seed)),
            applied: Mutex::default(),
            snapshot: Mutex::default(),
            kept: watch::Sender::default(),
            octets: AtomicU64::new(0),
            reached: Reached::default(),
            show,
            disk,
        }));
        if let Some(file) = snapshot::open(&*machine.0.disk, snapshot::CURRENT, false)? {
            let (head, registry) = snapshot::read(&*machine.0.disk, &file, (seed, knows))?;
            machine.0.octets.store(file.file.len().unwrap_or(0), Ordering::Relaxed);
            machine.take(head.meta, registry);
        }
        Ok(machine)
    }

    /// Goes on from a snapshot's registry.
    fn take(&self, meta: SnapshotMeta, registry: Registry) {
        let mut effects: Vec<Effect> = Vec::new();
        let registry = {
            let mut held = self.0.registry.write();
            let gone = held.zones().map(|zone| zone.zone().apex()).filter(|apex| registry.zone(apex).is_none());
            effects.extend(gone.cloned().map(Effect::Gone));
            effects.extend(registry.zones().cloned().map(Effect::Held));
            *held = registry;
            *self.0.applied.lock() = Applied { last: meta.last_log_id, membership: meta.last_membership.clone() };
            RwLockWriteGuard::downgrade(held)
        };
        let last = meta.last_log_id;
        *self.0.snapshot.lock() = Some(meta);
        self.0.kept.send_modify(|kept| kept.last = last);
        (self.0.show)(&registry, effects);
        drop(registry);
        self.0.reached.advance(last);
    }

    /// Looks at the registry, which stands still meanwhile.
    pub(super) fn read<T>(&self, look: impl FnOnce(&Registry) -> T) -> T {
        look(&self.0.registry.read())
    }

    /// The last entry that is applied.
    pub(super) fn applied(&self) -> Option<LogId> {
        self.0.applied.lock().last
    }

    /// Ends once this entry is applied.
    pub(super) async fn reached(&self, entry: Option<LogId>) {
        self.0.reached.at(entry).await;
    }

    /// What the disk has as a snapshot, now and whenever it changes.
    pub(super) fn kept(&self) -> watch::Receiver<Kept> {
        self.0.kept.subscribe()
    }

    /// Octets of the current snapshot's file.
    pub(super) fn snapshot_octets(&self) -> u64 {
        self.0.octets.load(Ordering::Relaxed)
    }

    /// The registry at one moment, and what a snapshot of it begins with.
    pub(super) fn frozen(&self) -> (SnapshotHead, Registry) {
        let registry = self.0.registry.read();
        let Applied { last, membership } = self.0.applied.lock().clone();
        let snapshot_id = last.map_or_else(String::new, |last| format!("{}-{}", last.leader_id, last.index));
        let meta = SnapshotMeta { last_log_id: last, last_membership: membership, snapshot_id };
        (SnapshotHead { cluster: *self.0.cluster.lock(), meta }, registry.clone())
    }

    fn apply_batch(
        &self,
        registry: &mut Registry,
        batch: &Batch,
        effects: &mut Vec<Effect>,
    ) -> Result<Vec<Reply>, SchemaError> {
        let at = batch.at();
        let mut replies = Vec::new();
        for command in batch.commands(self.0.knows) {
            let outcome = registry.apply(at, &command?);
            effects.extend(outcome.effects);
            replies.push(outcome.reply);
        }
        Ok(replies)
    }
}

fn unread(error: &SnapshotFault) -> StorageError {
    tracing::error!(%error, "a snapshot of the registry failed");
    StorageIOError::read_snapshot(None, error).into()
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let Applied { last, membership } = self.0.applied.lock().clone();
        Ok((last, membership))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Vec<Reply>>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let (mut effects, mut all) = (Vec::new(), Vec::new());
        let (last, registry) = {
            let mut registry = self.0.registry.write();
            let mut applied = self.0.applied.lock();
            for entry in entries {
                all.push(match &entry.payload {
                    EntryPayload::Blank => Vec::new(),
                    EntryPayload::Normal(batch) => {
                        self.apply_batch(&mut registry, batch, &mut effects).map_err(|error| {
                            // Going on would make this node another than the others.
                            tracing::error!(%error, entry = %entry.log_id, "a command cannot be applied: this node stops");
                            StorageIOError::apply(entry.log_id, &error)
                        })?
                    }
                    EntryPayload::Membership(membership) => {
                        applied.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                        Vec::new()
                    }
                });
                applied.last = Some(entry.log_id);
            }
            (applied.last, RwLockWriteGuard::downgrade(registry))
        };
        if !effects.is_empty() {
            (self.0.show)(&registry, effects);
        }
        drop(registry);
        self.0.reached.advance(last);
        Ok(all)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotFile>, StorageError> {
        let disk = Arc::clone(&self.0.disk);
        let file = once_there_is_room(move || snapshot::create(&*disk, snapshot::RECEIVED)).await;
        file.map(Box::new).map_err(|error| unread(&error))
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, file: Box<SnapshotFile>) -> Result<(), StorageError> {
        let (shared, installing, file) = (Arc::clone(&self.0), meta.clone(), *file);
        let installed = move || {
            let (head, registry) = snapshot::read(&*shared.disk, &file, (shared.seed, shared.knows))?;
            let mut current = shared.snapshot.lock();
            let failed = |cause| SnapshotFault::Disk { place: shared.disk.place(snapshot::CURRENT), cause };
            let from = if *file.name == *snapshot::RECEIVED {
                file.file.sync().map_err(failed)?;
                snapshot::RECEIVED
            } else {
                // A file of somewhere else.
                snapshot::write(&*shared.disk, snapshot::MADE, &head, &registry)?;
                snapshot::MADE
            };
            shared.disk.rename(from, snapshot::CURRENT).map_err(failed)?;
            *current = Some(installing.clone());
            shared.octets.store(file.file.len().unwrap_or(0), Ordering::Relaxed);
            Ok(registry)
        };
        let registry = once_there_is_room(installed).await.map_err(|error| {
            self.0.kept.send_modify(|kept| kept.failed = true);
            unread(&error)
        })?;
        self.take(meta.clone(), registry);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        let opened = aside(|| {
            // Held until the file is open, so that the file is the one that is meant.
            let current = self.0.snapshot.lock();
            let file = current.is_some().then(|| snapshot::open(&*self.0.disk, snapshot::CURRENT, false)).transpose();
            file.map(|file| current.clone().zip(file.flatten()))
        });
        let opened = opened.map_err(|error| unread(&error))?;
        Ok(opened.map(|(meta, file)| Snapshot { meta, snapshot: Box::new(file) }))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        let (head, registry) = self.frozen();
        let (shared, written, registry) = (Arc::clone(&self.0), head.clone(), Arc::new(registry));
        let build = move || {
            let octets = snapshot::write(&*shared.disk, snapshot::MADE, &written, &registry)?;
            let failed = |cause| SnapshotFault::Disk { place: shared.disk.place(snapshot::MADE), cause };
            // A snapshot that came from the leader meanwhile is the newer one.
            let mut current = shared.snapshot.lock();
            if current.as_ref().is_none_or(|current| current.last_log_id <= written.meta.last_log_id) {
                shared.disk.rename(snapshot::MADE, snapshot::CURRENT).map_err(failed)?;
                *current = Some(written.meta.clone());
                shared.kept.send_modify(|kept| kept.last = written.meta.last_log_id);
                shared.octets.store(octets, Ordering::Relaxed);
            }
            snapshot::open(&*shared.disk, snapshot::CURRENT, true)
        };
        match once_there_is_room(build).await {
            Ok(Some(file)) => Ok(Snapshot { meta: head.meta, snapshot: Box::new(file) }),
            Ok(None) => Err(StorageIOError::write_snapshot(None, &std::fmt::Error).into()),
            Err(error) => Err(unread(&error)),
        }
    }
}

/// Does what takes its time on a thread where nobody waits; on a full disk again and again.
async fn once_there_is_room<T: Send + 'static>(
    job: impl Fn() -> Result<T, SnapshotFault> + Clone + Send + 'static,
) -> Result<T, SnapshotFault> {
    loop {
        // Where there is one thread, as in a simulated life, that does it, so that it is the same each time.
        let done = if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
            Ok(job())
        } else {
            tokio::task::spawn_blocking(job.clone()).await
        };
        match done {
            Ok(Err(SnapshotFault::Disk { place, cause })) if cause.kind() == ErrorKind::StorageFull => {
                tracing::error!(file = %place.display(), "the disk is full: the registry's snapshot waits for room");
                tokio::time::sleep(ROOM).await;
            }
            Ok(done) => return done,
            Err(error) => {
                let cause = std::io::Error::other(error);
                return Err(SnapshotFault::Disk { place: std::path::PathBuf::new(), cause });
            }
        }
    }
}
