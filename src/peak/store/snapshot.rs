//! The registry in a file: what a node starts from, what a node that was long away is sent, what a backup is.
//!
//! ```text
//! snapshot:  head (who made it, up to which entry, who is a member) │ piece │ piece │ … │ end
//!            └─ a frame: length u32, CRC-32C u32, octets ─┘
//! ```
//!
//! Written beside the old one, synced, and then given its name: there is always a whole one. Read, written and sent
//! piece by piece, so that none of it has to fit into memory beside the registry.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::disk::{Disk, DiskFile};
use super::types::SnapshotMeta;
use crate::model::registry::{Decoder, Registry, SnapshotError};
use crate::model::zone::Seed;
use crate::wire::crc32c;

/// The snapshot that a node starts from.
pub(super) const CURRENT: &str = "snapshot";
/// One that is being made.
pub(super) const MADE: &str = "snapshot.new";
/// One that is being received.
pub(super) const RECEIVED: &str = "snapshot.in";

/// Octets of a frame before its contents.
const HEAD: usize = 8;
/// The most octets of one frame: a piece is some hundred records, the largest of them 64 KiB.
const LONGEST: usize = 256 << 20;
/// Octets that are written at once.
const TOGETHER: usize = 1 << 20;

/// The first frame of the file.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct SnapshotHead {
    /// The cluster's number.
    pub(super) cluster: u128,
    pub(super) meta: SnapshotMeta,
}

/// A snapshot's file, open.
#[derive(Clone)]
pub struct SnapshotFile {
    pub(super) name: Arc<str>,
    pub(super) file: Arc<dyn DiskFile>,
}

impl fmt::Debug for SnapshotFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Why a snapshot's file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotFault {
    /// The system refuses.
    #[error("{}: {cause}", .place.display())]
    Disk {
        /// The file.
        place: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The file was changed, cut, or the disk has a fault.
    #[error("{}: the piece at octet {at} is damaged or cut off; with other nodes alive, move the folder away and join \
        again; alone, restore a backup", .place.display())]
    Damaged {
        /// The file.
        place: PathBuf,
        /// Where the piece begins.
        at: u64,
    },
    /// Its pieces make no registry.
    #[error("{}: {cause}", .place.display())]
    Registry {
        /// The file.
        place: PathBuf,
        /// Why.
        cause: SnapshotError,
    },
}

impl SnapshotFault {
    /// A stable label for metrics and logs.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Disk { .. } => "snapshot-disk",
            Self::Damaged { .. } => "snapshot-damaged",
            Self::Registry { cause, .. } => cause.reason(),
        }
    }
}

/// Opens the file; none when it is not there and not to be made.
pub(super) fn open(disk: &dyn Disk, name: &str, create: bool) -> Result<Option<SnapshotFile>, SnapshotFault> {
    match disk.open(name, create) {
        Ok(file) => Ok(file.map(|file| SnapshotFile { name: name.into(), file: file.into() })),
        Err(cause) => Err(SnapshotFault::Disk { place: disk.place(name), cause }),
    }
}

/// Makes an empty file.
pub(super) fn create(disk: &dyn Disk, name: &str) -> Result<SnapshotFile, SnapshotFault> {
    let failed = |cause| SnapshotFault::Disk { place: disk.place(name), cause };
    match disk.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    open(disk, name, true)?.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
}

/// Gives the octets of a snapshot's file to `write`, some at a time.
pub(super) fn encode(
    head: &SnapshotHead,
    registry: &Registry,
    mut write: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut waiting = Vec::with_capacity(TOGETHER);
    let mut put = |octets: &[u8]| -> io::Result<()> {
        waiting.extend_from_slice(&(octets.len() as u32).to_be_bytes());
        waiting.extend_from_slice(&crc32c(octets).to_be_bytes());
        waiting.extend_from_slice(octets);
        if waiting.len() >= TOGETHER {
            write(&waiting)?;
            waiting.clear();
        }
        Ok(())
    };
    put(&postcard::to_stdvec(head).map_err(io::Error::other)?)?;
    registry.encode(&mut put)?;
    write(&waiting)
}

/// Writes the registry into the file named `name` and syncs it; gives its octets.
pub(super) fn write(
    disk: &dyn Disk,
    name: &str,
    head: &SnapshotHead,
    registry: &Registry,
) -> Result<u64, SnapshotFault> {
    let failed = |cause| SnapshotFault::Disk { place: disk.place(name), cause };
    let file = create(disk, name)?.file;
    let mut at = 0;
    let mut put = |octets: &[u8]| {
        file.write(at, octets)?;
        at += octets.len() as u64;
        Ok(())
    };
    encode(head, registry, &mut put).map_err(failed)?;
    file.sync().and_then(|()| disk.sync_names()).map_err(failed)?;
    Ok(at)
}

/// Reads the registry in the file, for a program that knows schemas up to `knows`.
pub(super) fn read(
    disk: &dyn Disk,
    SnapshotFile { name, file }: &SnapshotFile,
    (seed, knows): (Seed, u8),
) -> Result<(SnapshotHead, Registry), SnapshotFault> {
    let place = || disk.place(name);
    let length = file.len().map_err(|cause| SnapshotFault::Disk { place: place(), cause })?;
    let mut at = 0;
    let next = |at: &mut u64| -> Result<Vec<u8>, SnapshotFault> {
        let (begin, damaged) = (*at, || SnapshotFault::Damaged { place: place(), at: *at });
        let read = |from: u64, octets: usize| -> Result<Vec<u8>, SnapshotFault> {
            if octets > LONGEST || from + octets as u64 > length {
                return Err(damaged());
            }
            let mut into = vec![0; octets];
            file.read(from, &mut into).map_err(|cause| SnapshotFault::Disk { place: place(), cause })?;
            Ok(into)
        };
        let head = read(begin, HEAD)?;
        let octets = head.first_chunk().map_or(0, |length| u32::from_be_bytes(*length)) as usize;
        let contents = read(begin + HEAD as u64, octets)?;
        if crc32c(&contents).to_be_bytes() != head[4..] {
            return Err(damaged());
        }
        *at = begin + (HEAD + octets) as u64;
        Ok(contents)
    };
    let head = next(&mut at)?;
    let head = postcard::from_bytes(&head).map_err(|_| SnapshotFault::Damaged { place: place(), at: 0 })?;
    let mut decoder = Decoder::new(seed, knows);
    let registry = |cause| SnapshotFault::Registry { place: place(), cause };
    while at < length {
        decoder.piece(&next(&mut at)?).map_err(registry)?;
    }
    Ok((head, decoder.finish().map_err(registry)?))
}
