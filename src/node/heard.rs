//! What the keeper hears: of sidecars on this node, and of other agents.

use std::net::Ipv6Addr;

use tokio::sync::{mpsc, oneshot};

use super::pods::PodId;
use crate::wire::agent::{Claim, Report, Routed};

/// What the keeper hears.
#[derive(Debug)]
pub(super) enum Heard {
    /// A sidecar has come.
    Joined(Joined),
    /// It has claimed something that may be claimed.
    Claimed { id: PodId, connection: u64, claim: Claim },
    /// It has gone.
    Left { id: PodId, connection: u64 },
    /// Another agent has said what it routes.
    Routed { peer: usize, routed: Routed },
    /// Another agent is gone.
    Parted { peer: usize },
}

/// A sidecar that has come.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) id: PodId,
    pub(super) address: Ipv6Addr,
    pub(super) device: String,
    /// Where to tell it what becomes of its claims.
    pub(super) reports: mpsc::UnboundedSender<Report>,
    /// Where to say the number of its connection.
    pub(super) connection: oneshot::Sender<u64>,
}
