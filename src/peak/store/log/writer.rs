//! The files of the log, and the one that is written to.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::LogFault;
use super::frame::{self, FORMAT, Record, sealed};
use super::known::Known;
use crate::peak::store::disk::{Disk, DiskFile};
use crate::peak::store::types::{LogId, Vote};

/// Octets after which a new file begins.
pub(super) const SEGMENT: u64 = 16 << 20;
/// Octets that are filled with zeros at once: a sync that has them to write takes as much longer as they are many, and all
/// who wait for it wait that much.
const AHEAD: u64 = 128 << 10;

/// A file of the log.
#[derive(Debug)]
struct Segment {
    /// The number of its first frame.
    first: u64,
    octets: u64,
    /// The highest index of any entry in it.
    highest: Option<u64>,
}

pub(super) fn file_name(first: u64) -> String {
    format!("log-{first:016x}")
}

/// What a new file has to begin with, so that those before it can be removed: what is on disk so far.
#[derive(Debug, Default)]
struct Carried {
    vote: Option<Vote>,
    purged: Option<LogId>,
    committed: Option<LogId>,
}

impl Carried {
    fn take(&mut self, record: &Record) {
        match record {
            Record::Vote(vote) => self.vote = Some(*vote),
            Record::Purged(purged) => self.purged = self.purged.max(*purged),
            Record::Committed(committed) => self.committed = *committed,
            Record::Head { .. } | Record::Entry(_) | Record::Cut { .. } => {}
        }
    }

    fn records(&self) -> Vec<Record> {
        let mut records = vec![Record::Head { format: FORMAT }];
        records.extend(self.vote.map(Record::Vote));
        records.extend([Record::Purged(self.purged), Record::Committed(self.committed)]);
        records
    }
}

/// The file that is written to.
#[derive(Debug)]
pub(super) struct Writer {
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
    carried: Carried,
}

impl Writer {
    /// Reads the files in `disk`, and begins one where there is none; gives what they say.
    pub(super) fn open(disk: Arc<dyn Disk>) -> Result<(Self, Known), LogFault> {
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
            let read = frame::read(&*file, &place, &mut number, &mut known, at + 1 == firsts.len())?;
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
        let carried = Carried { vote: known.vote, purged: known.purged, committed: known.committed };
        let mut writer = Self { disk, file, end, zeroed, number, segments, carried };
        if writer.end == 0 {
            let place = writer.place();
            let written = writer.write(&[Record::Head { format: FORMAT }]);
            written.map_err(|cause| LogFault::Disk { place, cause })?;
        }
        known.octets = writer.octets();
        Ok((writer, known))
    }

    /// The file that is written to, for people.
    pub(super) fn place(&self) -> PathBuf {
        self.disk.place(&self.segments.last().map_or_else(String::new, |segment| file_name(segment.first)))
    }

    /// Octets of all files.
    pub(super) fn octets(&self) -> u64 {
        self.segments.iter().map(|segment| segment.octets).sum()
    }

    /// Writes the records as one frame, in a new file where this one is long; on disk when this returns.
    pub(super) fn put(&mut self, records: &[Record]) -> io::Result<()> {
        if self.end > SEGMENT {
            self.begin_next()?;
        }
        self.write(records)?;
        records.iter().for_each(|record| self.carried.take(record));
        Ok(())
    }

    fn begin_next(&mut self) -> io::Result<()> {
        let next = self.number;
        let file = self.disk.open(&file_name(next), true)?.ok_or(io::ErrorKind::NotFound)?;
        self.disk.sync_names()?;
        let old = (std::mem::replace(&mut self.file, file), self.end, self.zeroed);
        (self.end, self.zeroed) = (0, 0);
        self.segments.push(Segment { first: next, octets: 0, highest: None });
        self.write(&self.carried.records()).inspect_err(|_| {
            (self.file, self.end, self.zeroed) = old;
            self.segments.pop();
        })
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
    pub(super) fn remove_up_to(&mut self, index: u64) -> io::Result<()> {
        while self.segments.len() > 1 && self.segments[0].highest.is_none_or(|highest| highest <= index) {
            self.disk.remove(&file_name(self.segments[0].first))?;
            self.segments.remove(0);
        }
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
pub(in crate::peak::store) fn begin_at(disk: &dyn Disk, vote: Vote, purged: LogId) -> Result<(), LogFault> {
    let file = begin(disk, 1)?;
    let records = [Record::Head { format: FORMAT }, Record::Vote(vote), Record::Purged(Some(purged))];
    let written = sealed(&records, 1).and_then(|octets| {
        file.write(0, &octets)?;
        file.sync()
    });
    written.map_err(|cause| LogFault::Disk { place: disk.place(&file_name(1)), cause })
}
