//! The log on disk: everything that was promised, in one sequence of frames, synced before anybody is told.
//!
//! ```text
//!  log-0000000000000001                        log-00000000000001f3
//!  head │ vote │ entries │ entries │ committed, entries │ …    head, vote, purged, committed │ entries │ 0000…
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

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use openraft::storage::{LogFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{OptionalSend, StorageIOError};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::disk::{Disk, DiskFile};
use super::types::{Entry, LogId, StorageError, TypeConfig, Vote};
use crate::model::registry::SCHEMA;
use crate::wire::crc32c;

/// Octets of a frame before its records.
const HEAD: usize = 16;
/// Octets after which a new file begins.
const SEGMENT: u64 = 16 << 20;
/// Octets that are filled with zeros at once.
const AHEAD: u64 = 1 << 20;
/// The most octets of a frame that is believed when a file is read.
const LONGEST: usize = 1 << 30;
/// Octets of entries given out together.
const TOGETHER: usize = 2 << 20;
/// How long a log waits for room on a full disk before it tries again.
const ROOM: Duration = Duration::from_millis(200);

/// What a frame says.
#[derive(Debug, Deserialize, Serialize)]
enum Record {
    /// The first of each file: the schema of all that follows.
    Head {
        schema: u8,
    },
    Vote(Vote),
    Entry(Entry),
    /// Entries from this index on are no more.
    Cut {
        from: u64,
    },
    /// Entries up to this one are in a snapshot.
    Purged(Option<LogId>),
    /// Entries up to this one are agreed on. Not synced for its own sake.
    Committed(Option<LogId>),
}

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
    #[error("{}: of schema {schema}, and this program knows {SCHEMA}", .place.display())]
    TooNew {
        /// The file.
        place: PathBuf,
        /// Its schema.
        schema: u8,
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

/// What the log says, in memory.
#[derive(Debug, Default)]
struct Known {
    vote: Option<Vote>,
    purged: Option<LogId>,
    committed: Option<LogId>,
    /// From the one after `purged` on, without a gap.
    entries: VecDeque<Entry>,
    /// Octets on disk that are not purged, about.
    octets: u64,
}

impl Known {
    fn first_index(&self) -> u64 {
        self.purged.map_or(0, |purged| purged.index + 1)
    }

    fn last(&self) -> Option<LogId> {
        self.entries.back().map(|entry| entry.log_id).or(self.purged)
    }

    fn take(&mut self, record: Record) {
        match record {
            Record::Head { .. } => {}
            Record::Vote(vote) => self.vote = Some(vote),
            Record::Entry(entry) => {
                if entry.log_id.index >= self.first_index() {
                    self.entries.push_back(entry);
                }
            }
            Record::Cut { from } => {
                while self.entries.back().is_some_and(|entry| entry.log_id.index >= from) {
                    self.entries.pop_back();
                }
            }
            Record::Purged(purged) => {
                if purged > self.purged {
                    self.purged = purged;
                    let first = self.first_index();
                    while self.entries.front().is_some_and(|entry| entry.log_id.index < first) {
                        self.entries.pop_front();
                    }
                }
            }
            Record::Committed(committed) => self.committed = committed,
        }
    }
}

/// A file of the log.
#[derive(Debug)]
struct Segment {
    /// The number of its first frame.
    first: u64,
    octets: u64,
    /// The highest index of any entry in it.
    highest: Option<u64>,
}

fn file_name(first: u64) -> String {
    format!("log-{first:016x}")
}

/// The file that is written to.
#[derive(Debug)]
struct Writer {
    disk: Arc<dyn Disk>,
    file: Box<dyn DiskFile>,
    /// Where the next frame begins.
    end: u64,
    /// Up to where there are zeros.
    zeroed: u64,
    /// The next frame's number.
    number: u64,
    /// All files, the one written to last.
    segments: Vec<Segment>,
    /// Committed, but not written yet.
    committed: Option<LogId>,
}

/// The log. Clones share everything.
#[derive(Clone, Debug)]
pub(super) struct Log {
    known: Arc<Mutex<Known>>,
    writer: Arc<tokio::sync::Mutex<Writer>>,
}

impl Log {
    /// Reads the log in `disk`, and begins one where there is none.
    ///
    /// # Errors
    /// [`LogFault`].
    pub(super) fn open(disk: Arc<dyn Disk>) -> Result<Self, LogFault> {
        let mut known = Known::default();
        let (mut segments, mut number) = (Vec::new(), 1);
        let mut last = None;
        let firsts = firsts(&*disk)?;
        for (at, &first) in firsts.iter().enumerate() {
            let place = disk.place(&file_name(first));
            if at > 0 && first != number {
                return Err(LogFault::Gap { place });
            }
            number = first;
            let file =
                disk.open(&file_name(first), false).transpose().unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()));
            let file = file.map_err(|cause| LogFault::Disk { place: place.clone(), cause })?;
            let read = read(&*file, &place, &mut number, &mut known, at + 1 == firsts.len())?;
            known.octets += read.octets;
            segments.push(Segment { first, octets: read.octets, highest: read.highest });
            last = Some((file, read));
        }
        let (file, end, zeroed) = match last {
            Some((file, read)) => (file, read.octets, read.zeroed),
            None => (begin(&*disk, number)?, 0, 0),
        };
        if segments.is_empty() {
            segments.push(Segment { first: number, octets: 0, highest: None });
        }
        let mut writer = Writer { disk, file, end, zeroed, number, segments, committed: None };
        if writer.end == 0 {
            writer.write(&[Record::Head { schema: SCHEMA }]).map_err(|cause| writer.fault(cause))?;
        }
        Ok(Self { known: Arc::new(Mutex::new(known)), writer: Arc::new(tokio::sync::Mutex::new(writer)) })
    }

    /// Octets on disk of what is not purged, about.
    pub(super) fn octets(&self) -> u64 {
        self.known.lock().octets
    }

    /// The last entry.
    pub(super) fn last(&self) -> Option<LogId> {
        self.known.lock().last()
    }

    /// The highest vote.
    pub(super) fn vote(&self) -> Option<Vote> {
        self.known.lock().vote
    }

    /// All entries that are not purged.
    pub(super) fn entries(&self) -> Vec<Entry> {
        self.known.lock().entries.iter().cloned().collect()
    }

    /// Writes the records and waits until the disk has them.
    async fn put(&self, records: Vec<Record>) -> Result<(), io::Error> {
        let mut writer = self.writer.lock().await;
        let mut records = records;
        if let Some(committed) = writer.committed.take() {
            records.push(Record::Committed(Some(committed)));
        }
        loop {
            let vote = self.known.lock().vote;
            match writer.put(&records, vote, &self.known) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    tracing::error!(file = %writer.place().display(), "the disk is full: the registry's log waits for room");
                    tokio::time::sleep(ROOM).await;
                }
                Err(error) => return Err(error),
            }
        }
        let mut known = self.known.lock();
        records.into_iter().for_each(|record| known.take(record));
        known.octets = writer.segments.iter().map(|segment| segment.octets).sum();
        Ok(())
    }
}

/// The numbers of the first frames of all files, in order.
fn firsts(disk: &dyn Disk) -> Result<Vec<u64>, LogFault> {
    let names = disk.names().map_err(|cause| LogFault::Disk { place: disk.place(""), cause })?;
    let first = |name: &String| u64::from_str_radix(name.strip_prefix("log-")?, 16).ok();
    let mut firsts: Vec<u64> = names.iter().filter_map(first).collect();
    firsts.sort_unstable();
    Ok(firsts)
}

fn begin(disk: &dyn Disk, first: u64) -> Result<Box<dyn DiskFile>, LogFault> {
    let opened = || -> io::Result<Box<dyn DiskFile>> {
        let file = disk.open(&file_name(first), true)?.ok_or(io::ErrorKind::NotFound)?;
        disk.sync_names()?;
        Ok(file)
    };
    opened().map_err(|cause| LogFault::Disk { place: disk.place(&file_name(first)), cause })
}

/// Begins a log in which everything up to `purged` is in a snapshot.
pub(super) fn begin_at(disk: &dyn Disk, vote: Vote, purged: LogId) -> Result<(), LogFault> {
    let file = begin(disk, 1)?;
    let records = [Record::Head { schema: SCHEMA }, Record::Vote(vote), Record::Purged(Some(purged))];
    let written = sealed(&records, 1).and_then(|octets| {
        file.write(0, &octets)?;
        file.sync()
    });
    written.map_err(|cause| LogFault::Disk { place: disk.place(&file_name(1)), cause })
}

/// The frame of these records.
fn sealed(records: &[Record], number: u64) -> io::Result<Vec<u8>> {
    let mut octets = vec![0; HEAD];
    for record in records {
        octets = postcard::to_extend(record, octets).map_err(io::Error::other)?;
    }
    let length = u32::try_from(octets.len() - HEAD).map_err(io::Error::other)?;
    octets[8..HEAD].copy_from_slice(&number.to_be_bytes());
    let sum = crc32c(&octets[8..]);
    octets[..4].copy_from_slice(&length.to_be_bytes());
    octets[4..8].copy_from_slice(&sum.to_be_bytes());
    Ok(octets)
}

/// What a file held.
struct Read {
    octets: u64,
    zeroed: u64,
    highest: Option<u64>,
}

/// Reads a file into `known`. Of the last one, what follows the last whole frame is cut off.
fn read(
    file: &dyn DiskFile,
    place: &std::path::Path,
    number: &mut u64,
    known: &mut Known,
    last: bool,
) -> Result<Read, LogFault> {
    let failed = |cause| LogFault::Disk { place: place.to_owned(), cause };
    let length = file.len().map_err(failed)?;
    let mut octets = vec![0; length as usize];
    file.read(0, &mut octets).map_err(failed)?;
    let (mut at, mut highest) = (0, None);
    while let Some(records) = frame(&octets[at..], *number) {
        let mut rest = records;
        while !rest.is_empty() {
            let damaged = |_| LogFault::Damaged { place: place.to_owned(), at: at as u64 };
            // The head is looked at before anything that a newer program may have written otherwise.
            let (record, after) = postcard::take_from_bytes::<Record>(rest).map_err(damaged)?;
            if let Record::Head { schema } = record
                && schema > SCHEMA
            {
                return Err(LogFault::TooNew { place: place.to_owned(), schema });
            }
            if let Record::Entry(entry) = &record {
                highest = highest.max(Some(entry.log_id.index));
            }
            known.take(record);
            rest = after;
        }
        at += HEAD + records.len();
        *number += 1;
    }
    let rest = &octets[at..];
    if rest.iter().any(|&octet| octet != 0) {
        // Frames are synced one by one, so a later one that is whole proves that this one was.
        let later = (1..rest.len().saturating_sub(HEAD)).any(|from| is_later_frame(&rest[from..], *number));
        if later || !last {
            return Err(LogFault::Damaged { place: place.to_owned(), at: at as u64 });
        }
        tracing::warn!(file = %place.display(), at, "an unfinished frame is cut off");
        file.write(at as u64, &vec![0; rest.len()]).and_then(|()| file.sync()).map_err(failed)?;
    }
    Ok(Read { octets: at as u64, zeroed: length, highest })
}

/// The records of the frame with this number that the octets begin with.
fn frame(octets: &[u8], number: u64) -> Option<&[u8]> {
    let head = octets.get(..HEAD)?;
    let length = u32::from_be_bytes(*head.first_chunk()?) as usize;
    if length == 0 || length > LONGEST || head[8..] != number.to_be_bytes() {
        return None;
    }
    let sealed = octets.get(8..HEAD + length)?;
    (crc32c(sealed).to_be_bytes() == head[4..8]).then_some(&sealed[8..])
}

fn is_later_frame(octets: &[u8], number: u64) -> bool {
    let claimed = octets[8..].first_chunk().map_or(0, |octets| u64::from_be_bytes(*octets));
    // No file has so many frames that the number would not be near.
    claimed > number && claimed - number < SEGMENT && frame(octets, claimed).is_some()
}

impl Writer {
    fn place(&self) -> PathBuf {
        self.disk.place(&self.segments.last().map_or_else(String::new, |segment| file_name(segment.first)))
    }

    fn fault(&self, cause: io::Error) -> LogFault {
        LogFault::Disk { place: self.place(), cause }
    }

    /// Writes the records as one frame, in a new file where this one is long.
    fn put(&mut self, records: &[Record], vote: Option<Vote>, known: &Mutex<Known>) -> io::Result<()> {
        if self.end > SEGMENT {
            let next = self.number;
            let file = self.disk.open(&file_name(next), true)?.ok_or(io::ErrorKind::NotFound)?;
            self.disk.sync_names()?;
            let (purged, committed) = {
                let known = known.lock();
                (known.purged, known.committed)
            };
            let old = (std::mem::replace(&mut self.file, file), self.end, self.zeroed);
            (self.end, self.zeroed) = (0, 0);
            self.segments.push(Segment { first: next, octets: 0, highest: None });
            // A file alone says all that matters of those before it, which will be removed.
            let mut head = vec![Record::Head { schema: SCHEMA }];
            head.extend(vote.map(Record::Vote));
            head.extend([Record::Purged(purged), Record::Committed(committed)]);
            if let Err(error) = self.write(&head) {
                (self.file, self.end, self.zeroed) = old;
                self.segments.pop();
                return Err(error);
            }
        }
        self.write(records)
    }

    fn write(&mut self, records: &[Record]) -> io::Result<()> {
        let octets = sealed(records, self.number)?;
        let end = self.end + octets.len() as u64;
        if end > self.zeroed {
            self.file.write(self.zeroed, &vec![0; (end - self.zeroed + AHEAD) as usize])?;
            self.zeroed = end + AHEAD;
        }
        self.file.write(self.end, &octets)?;
        if let Err(error) = self.file.sync() {
            // Nobody knows what the disk has of it, zeros included.
            self.zeroed = self.end;
            return Err(error);
        }
        self.end = end;
        self.number += 1;
        if let Some(segment) = self.segments.last_mut() {
            segment.octets = end;
            for record in records {
                if let Record::Entry(entry) = record {
                    segment.highest = segment.highest.max(Some(entry.log_id.index));
                }
            }
        }
        Ok(())
    }

    /// Removes files that hold nothing beyond this index.
    fn remove_up_to(&mut self, index: u64) -> io::Result<()> {
        while self.segments.len() > 1 && self.segments[0].highest.is_none_or(|highest| highest <= index) {
            self.disk.remove(&file_name(self.segments[0].first))?;
            self.segments.remove(0);
        }
        Ok(())
    }
}

fn written(error: io::Error) -> StorageError {
    tracing::error!(%error, "the registry's log cannot be written: this node takes no part until it is started anew");
    StorageIOError::write_logs(&error).into()
}

impl RaftLogReader<TypeConfig> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError> {
        Ok(self.range(&range, usize::MAX))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        Ok(self.range(&(start..end), TOGETHER))
    }
}

impl Log {
    /// Entries of the range, until they take so many octets.
    fn range(&self, range: &impl RangeBounds<u64>, octets: usize) -> Vec<Entry> {
        let known = self.known.lock();
        let first = known.entries.front().map_or(0, |entry| entry.log_id.index);
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&start) => start + 1,
            Bound::Unbounded => first,
        };
        let end = match range.end_bound() {
            Bound::Included(&end) => end + 1,
            Bound::Excluded(&end) => end,
            Bound::Unbounded => u64::MAX,
        };
        let skipped = start.saturating_sub(first) as usize;
        let mut left = octets;
        let in_time = known.entries.iter().skip(skipped).take_while(|entry| entry.log_id.index < end);
        in_time
            .take_while(|entry| {
                let goes_on = left > 0;
                left = left.saturating_sub(super::types::octets(entry));
                goes_on
            })
            .cloned()
            .collect()
    }
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let known = self.known.lock();
        Ok(LogState { last_purged_log_id: known.purged, last_log_id: known.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        self.put(vec![Record::Vote(*vote)]).await.map_err(written)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.known.lock().vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.known.lock().committed = committed;
        self.writer.lock().await.committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.known.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let records: Vec<Record> = entries.into_iter().map(Record::Entry).collect();
        self.put(records).await.map_err(written)?;
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.put(vec![Record::Cut { from: log_id.index }]).await.map_err(written)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.put(vec![Record::Purged(Some(log_id))]).await.map_err(written)?;
        let mut writer = self.writer.lock().await;
        if let Err(error) = writer.remove_up_to(log_id.index) {
            tracing::warn!(%error, "a file of the registry's log could not be removed");
        }
        self.known.lock().octets = writer.segments.iter().map(|segment| segment.octets).sum();
        Ok(())
    }
}
