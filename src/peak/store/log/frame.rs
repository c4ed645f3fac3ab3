//! Frames of the log's files: written whole, read until the first that is not.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::known::Known;
use super::{LogFault, SEGMENT};
use crate::peak::store::disk::DiskFile;
use crate::peak::store::types::{Entry, LogId, Vote};
use crate::wire::crc32c;

/// The form of the files; what commands say has a schema of its own.
pub(super) const FORMAT: u8 = 1;
/// Octets of a frame before its records.
pub(super) const HEAD: usize = 16;
/// The most octets of a frame that is believed when a file is read.
const LONGEST: usize = 1 << 30;

/// What a frame says.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) enum Record {
    /// The first of each file: the form of all that follows.
    Head {
        format: u8,
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

/// The frame of these records.
pub(super) fn sealed(records: &[Record], number: u64) -> io::Result<Vec<u8>> {
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
pub(super) struct Read {
    pub(super) octets: u64,
    pub(super) zeroed: u64,
    pub(super) highest: Option<u64>,
}

/// Reads a file into `known`. Of the last one, what follows the last whole frame is cut off.
pub(super) fn read(
    file: &dyn DiskFile,
    place: &Path,
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
            if let Record::Head { format } = record
                && format > FORMAT
            {
                return Err(LogFault::TooNew { place: place.to_owned(), format });
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
