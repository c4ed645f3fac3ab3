//! The log on disk: everything that was promised, in one sequence of frames, synced before anybody is told.
//!
//! ```text
//!  log-0000000000000001                        log-00000000000001f3
//!  head │ vote │ entries │ entries, committed │ …              head, vote, purged, committed │ entries │ 0000…
//!  └─ a frame: length u32, CRC-32C u32, number u64, records ─┘
//! ```
//!
//! Votes, entries, cuts and what may be forgotten are records of the same sequence, so that there is one thing to sync
//! and one to read. A frame is written at once and synced before the next one begins: what was being written when the
//! machine stopped is the last, was never acknowledged, and is cut off. A bad frame before a good one is damage, and
//! refused with its place. Files are filled with zeros a piece ahead, because a sync that changes a file's length costs
//! the file system half as much again. Entries that are not purged are held in memory as well.
//!
//! A disk that is full makes the log wait for room; any other failure is final until the next start.

mod frame;
mod known;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use openraft::storage::{LogFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{OptionalSend, StorageIOError};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::disk::{Disk, aside};
use super::machine::Kept;
use super::types::{Entry, LogId, NodeId, StorageError, TypeConfig, Vote};
use frame::Record;
use known::Known;
use writer::{SEGMENT, Writer};

pub(super) use writer::begin_at;

/// Octets of entries given out together.
const TOGETHER: usize = 2 << 20;
/// How long is waited for room on a full disk before the next attempt.
pub(super) const ROOM: Duration = Duration::from_millis(200);

/// Why the log cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogFault {
    /// The system refuses.
    #[error("{}: {cause}", .place.display())]
    Disk {
        /// The file.
        place: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The file was changed, or the disk has a fault. Other nodes have what it held: let this one join anew.
    #[error("{}: the frame at octet {at} is damaged, and others follow it; with other nodes alive, move the folder away \
        and join again; alone, restore a backup", .place.display())]
    Damaged {
        /// The file.
        place: PathBuf,
        /// Where the frame begins.
        at: u64,
    },
    /// A file between others is missing, or is not what its name says.
    #[error("{}: it does not follow the file before it; a file of the log is missing", .place.display())]
    Gap {
        /// The file after the gap.
        place: PathBuf,
    },
    /// Written by a newer program.
    #[error("{}: of form {format}, and this program knows {}", .place.display(), frame::FORMAT)]
    TooNew {
        /// The file.
        place: PathBuf,
        /// Its form.
        format: u8,
    },
}

impl LogFault {
    /// A stable label for metrics and logs.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Disk { .. } => "log-disk",
            Self::Damaged { .. } => "log-damaged",
            Self::Gap { .. } => "log-gap",
            Self::TooNew { .. } => "log-too-new",
        }
    }
}

/// The log. Clones share everything.
#[derive(Clone, Debug)]
pub(super) struct Log(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    known: Mutex<Known>,
    queue: Mutex<Queue>,
    writer: tokio::sync::Mutex<Writer>,
    progress: watch::Sender<Progress>,
    /// What may be purged, where that is not up to who asks for it.
    kept: OnceLock<watch::Receiver<Kept>>,
}

/// What is on its way to the disk.
#[derive(Debug, Default)]
struct Queue {
    records: Vec<Record>,
    /// How often something was put into the queue.
    pushes: u64,
}

/// How far the disk is.
#[derive(Clone, Debug, Default)]
struct Progress {
    /// Pushes that are on disk.
    pushes: u64,
    /// What the system said when it could not go on.
    failed: Option<(io::ErrorKind, Arc<str>)>,
}

impl Progress {
    fn failure(&self) -> io::Result<()> {
        match &self.failed {
            None => Ok(()),
            Some((kind, cause)) => Err(io::Error::new(*kind, &**cause)),
        }
    }
}

impl Log {
    /// Reads the log in `disk`, and begins one where there is none.
    ///
    /// # Errors
    /// [`LogFault`].
    pub(super) fn open(disk: Arc<dyn Disk>) -> Result<Self, LogFault> {
        let (writer, known) = Writer::open(disk)?;
        Ok(Self(Arc::new(Shared {
            known: Mutex::new(known),
            queue: Mutex::default(),
            writer: tokio::sync::Mutex::new(writer),
            progress: watch::Sender::default(),
            kept: OnceLock::new(),
        })))
    }

    /// From now on nothing is purged that the snapshot on disk has not. A snapshot that comes from the leader is put on disk
    /// beside what the log is told, and a log without what came before it could not be read again.
    pub(super) fn purge_only(&self, kept: watch::Receiver<Kept>) {
        // Said once.
        drop(self.0.kept.set(kept));
    }

    /// Octets on disk of what is not purged, about.
    pub(super) fn octets(&self) -> u64 {
        self.0.known.lock().octets
    }

    /// Octets of the entries after this one, about.
    pub(super) fn octets_after(&self, index: u64) -> u64 {
        self.0.known.lock().octets_after(index)
    }

    /// The first entry that is not purged.
    pub(super) fn first_index(&self) -> u64 {
        self.0.known.lock().first_index()
    }

    /// Up to which entry all may go where so many stay, and of those no more than so many octets.
    pub(super) fn spare(&self, entries: u64, octets: u64) -> Option<u64> {
        self.0.known.lock().spare(entries, octets)
    }

    /// The last entry.
    pub(super) fn last(&self) -> Option<LogId> {
        self.0.known.lock().last()
    }

    /// The highest vote.
    pub(super) fn vote(&self) -> Option<Vote> {
        self.0.known.lock().vote
    }

    /// A node that has led until it stopped leads no more in that term: what it acknowledged then is in its log and perhaps
    /// not applied again yet, and an entry of a new term comes after all that. To be called before anybody else sees the log.
    pub(super) fn resign(&self, node: NodeId) {
        let mut known = self.0.known.lock();
        if let Some(vote) = known.vote.as_mut().filter(|vote| vote.leader_id.node_id == node) {
            vote.committed = false;
        }
        // What is agreed on may have come in a snapshot that was not there yet when the node stopped.
        known.committed = known.committed.min(known.last());
    }

    /// All entries that are not purged.
    pub(super) fn entries(&self) -> Vec<Entry> {
        self.0.known.lock().entries.iter().cloned().collect()
    }

    /// Ends when the disk cannot take any more.
    pub(super) async fn failed(&self) {
        // The sender lives as long as the log.
        drop(self.0.progress.subscribe().wait_for(|progress| progress.failed.is_some()).await);
    }

    async fn has_written(&self, push: u64) -> io::Result<()> {
        let mut progress = self.0.progress.subscribe();
        let there = progress.wait_for(|progress| progress.pushes >= push || progress.failed.is_some()).await;
        let there = there.map_err(io::Error::other)?;
        if there.pushes >= push { Ok(()) } else { there.failure() }
    }

    /// Queues the records, which count from now on; gives which push it was.
    fn push(&self, records: Vec<Record>) -> u64 {
        let (mut known, mut queue) = (self.0.known.lock(), self.0.queue.lock());
        queue.pushes += 1;
        let push = queue.pushes;
        queue.records.extend(records.iter().cloned());
        records.into_iter().for_each(|record| known.take(record));
        push
    }

    /// Writes what is queued, unless somebody else does so first.
    async fn flush(&self) {
        let mut writer = self.0.writer.lock().await;
        let (mut records, pushes, committed) = {
            let (known, mut queue) = (self.0.known.lock(), self.0.queue.lock());
            (std::mem::take(&mut queue.records), queue.pushes, known.committed)
        };
        if records.is_empty() || self.0.progress.borrow().failed.is_some() {
            return;
        }
        // Not synced for its own sake. All that it speaks of was queued before.
        records.extend(committed.map(|committed| Record::Committed(Some(committed))));
        loop {
            match aside(|| writer.put(&records)) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    tracing::error!(file = %writer.place().display(), "the disk is full: the registry's log waits for room");
                    tokio::time::sleep(ROOM).await;
                }
                Err(error) => {
                    tracing::error!(
                        file = %writer.place().display(), %error,
                        "the registry's log cannot be written: this node takes no part until it is started anew"
                    );
                    let failed = Some((error.kind(), error.to_string().into()));
                    return self.0.progress.send_modify(|progress| progress.failed = failed);
                }
            }
        }
        self.0.known.lock().octets = writer.octets();
        self.0.progress.send_modify(|progress| progress.pushes = pushes);
    }

    /// Writes the records and waits until the disk has them.
    async fn put(&self, records: Vec<Record>) -> Result<(), StorageError> {
        let push = self.push(records);
        self.flush().await;
        self.has_written(push).await.map_err(|error| unwritten(&error))
    }
}

fn unwritten(error: &io::Error) -> StorageError {
    StorageIOError::write_logs(error).into()
}

impl RaftLogReader<TypeConfig> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError> {
        Ok(self.0.known.lock().range(&range, usize::MAX))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        Ok(self.0.known.lock().range(&(start..end), TOGETHER))
    }
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let known = self.0.known.lock();
        Ok(LogState { last_purged_log_id: known.purged, last_log_id: known.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        self.put(vec![Record::Vote(*vote)]).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.0.known.lock().vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.0.known.lock().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.0.known.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let records: Vec<Record> = entries.into_iter().map(Record::Entry).collect();
        self.put(records).await?;
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.put(vec![Record::Cut { from: log_id.index }]).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        if let Some(mut kept) = self.0.kept.get().cloned() {
            let there = kept.wait_for(|kept| kept.last >= Some(log_id) || kept.failed).await;
            if there.map_or(true, |kept| kept.failed) {
                return Err(unwritten(&io::Error::other("there is no snapshot of what is to be purged")));
            }
        }
        self.put(vec![Record::Purged(Some(log_id))]).await?;
        let mut writer = self.0.writer.lock().await;
        if let Err(error) = aside(|| writer.remove_up_to(log_id.index)) {
            tracing::warn!(%error, "a file of the registry's log could not be removed");
        }
        self.0.known.lock().octets = writer.octets();
        Ok(())
    }
}
