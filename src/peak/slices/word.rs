//! What streams of sidecars say to the [desk](super::desk).

use std::net::Ipv6Addr;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::model::Name;
use crate::model::registry::lease::{HandoverId, Registration, Reported};
use crate::wire::lease::FromPeak;

/// One connection of a sidecar.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct StreamId(pub(super) u64);

/// What comes to the desk.
#[derive(Debug)]
pub(super) enum Word {
    /// A sidecar that has proved who it is; `services` is in its order.
    Came { stream: StreamId, registration: Registration, services: Vec<Name>, out: mpsc::Sender<FromPeak> },
    /// It lives; the renewal arrived at `at`.
    Renewed { stream: StreamId, number: u64, at: Instant, load: Vec<(u16, Ipv6Addr, u32)> },
    /// A handover has come further.
    Reported { stream: StreamId, service: u16, handover: HandoverId, reported: Reported },
    /// A handover does not go on.
    Waits { stream: StreamId, service: u16, handover: HandoverId, waits: Box<str> },
    /// It is about to stop.
    Drains { stream: StreamId },
    /// It has nothing left.
    Returns { stream: StreamId },
    /// It is gone; its lease runs out by itself.
    Gone { stream: StreamId },
}

impl Word {
    /// Sends whoever comes to the leader.
    pub(super) fn turn_away(self) {
        match self {
            Self::Came { out, .. } => {
                let _ = out.try_send(FromPeak::Elsewhere { leader: None });
            }
            Self::Renewed { .. }
            | Self::Reported { .. }
            | Self::Waits { .. }
            | Self::Drains { .. }
            | Self::Returns { .. }
            | Self::Gone { .. } => {}
        }
    }
}
