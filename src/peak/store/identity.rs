//! Who a node is, in a file beside its log: a number that no other node has, and the cluster it belongs to.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::disk::Disk;
use super::types::NodeId;
use crate::wire::crc32c;

const NAME: &str = "node";
const NEW: &str = "node.new";
const MAGIC: &[u8] = b"FUNINODE\x01";

/// Who a node is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Identity {
    pub(super) node: NodeId,
    /// 0: none yet.
    pub(super) cluster: u128,
}

/// Why a node does not know who it is.
#[derive(Debug, thiserror::Error)]
pub enum IdentityFault {
    /// The system refuses.
    #[error("{}: {cause}", .place.display())]
    Disk {
        /// The file.
        place: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The file was changed, or the disk has a fault.
    #[error("{}: it is damaged, or of a newer program; move the folder away and join the cluster again", .place.display())]
    Damaged {
        /// The file.
        place: PathBuf,
    },
}

impl IdentityFault {
    /// A stable label for metrics and logs.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Disk { .. } => "identity-disk",
            Self::Damaged { .. } => "identity-damaged",
        }
    }
}

/// Who the node with this disk is; none when it never was.
pub(super) fn load(disk: &dyn Disk) -> Result<Option<Identity>, IdentityFault> {
    let failed = |cause| IdentityFault::Disk { place: disk.place(NAME), cause };
    let Some(file) = disk.open(NAME, false).map_err(failed)? else { return Ok(None) };
    let mut octets = vec![0; file.len().map_err(failed)? as usize];
    file.read(0, &mut octets).map_err(failed)?;
    let read = || -> Option<Identity> {
        let (sum, body) = octets.strip_prefix(MAGIC)?.split_first_chunk()?;
        if crc32c(body) != u32::from_be_bytes(*sum) {
            return None;
        }
        postcard::from_bytes(body).ok()
    };
    read().map(Some).ok_or_else(|| IdentityFault::Damaged { place: disk.place(NAME) })
}

/// Notes who the node is; durable when this returns.
pub(super) fn save(disk: &dyn Disk, identity: Identity) -> Result<(), IdentityFault> {
    let written = || -> io::Result<()> {
        let body = postcard::to_stdvec(&identity).map_err(io::Error::other)?;
        let octets = [MAGIC, &crc32c(&body).to_be_bytes(), &body].concat();
        match disk.remove(NEW) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let file = disk.open(NEW, true)?.ok_or(io::ErrorKind::NotFound)?;
        file.write(0, &octets)?;
        file.sync()?;
        disk.rename(NEW, NAME)
    };
    written().map_err(|cause| IdentityFault::Disk { place: disk.place(NAME), cause })
}
