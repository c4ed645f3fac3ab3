//! Leases: which pods serve which services, who owns which slice, and which slices are changing hands.
//!
//! Pure replicated state. Every replica applies the same [`Command`]s in the same order and holds the same [`Leases`];
//! no clock is read, deadlines are the leader's business, and what it makes of them arrives as a command.
//!
//! ```text
//!              ┌── the new owner dies: back to the old one ──────────────────────┐
//! Planned ──▶ Ready ──▶ Routed ──▶ Withdrawn ──▶ (freed)                          │
//!  new owner   may be    new owner  old owner's   old owner's connections         │
//!  prepares    routed    owns       route is gone have ended: nothing is left ◀───┘
//! ```
//!
//! What holds after every command:
//! - A slice has one owner, or none; an owner is a pod that holds a lease for the service.
//! - A slice is in at most one [`Handover`]. Outside of one, its owner alone may route it; inside, the two pods of the
//!   handover alone.
//! - Whoever dies owns nothing from the command on that says so. What was moving to it goes back to where it came from,
//!   what was moving from it goes on to where it went.
//!
//! Source: SSA.md §4.

mod apply;
mod decide;
mod service;
mod share;
#[cfg(test)]
mod tests;

pub use apply::{Command, Ended, Outcome, Planned, Registration, Reported};
pub use decide::{Decision, decide};
pub use service::{BadService, Handover, HandoverId, Pin, Service, Step};
pub use share::{Arriving, Leaving, Peer, Share};

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv6Addr, SocketAddrV6};

use serde::{Deserialize, Serialize};

use crate::model::Name;
use crate::model::ssa::plan::{Pod, PodId, PodState};

/// What one run of a sidecar draws at its start and shows whenever it comes again: who knows it holds the lease.
#[derive(Clone, Copy, Deserialize, Eq, PartialEq, Serialize)]
pub struct Holder(pub u128);

impl fmt::Debug for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Holder(…)")
    }
}

/// A pod's place among those that serve.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Lease {
    /// Who may come back to it.
    pub holder: Holder,
    /// The workload's identity, as its token proved it.
    pub workload: Box<str>,
    /// The pod's own name, one of its kind among those of the workload.
    pub instance: Box<str>,
    /// Where its node's agent takes strays; none where there is no agent.
    pub node: Option<Ipv6Addr>,
    /// Where its sidecar is reached without any slice.
    pub address: SocketAddrV6,
    /// Its share, against the others'.
    pub weight: u32,
    /// Whether it is to have no slices.
    pub draining: bool,
    /// What it serves.
    pub services: BTreeSet<Name>,
}

impl Lease {
    /// What the planner sees of it.
    fn pod(&self) -> Pod {
        let state = if self.draining { PodState::Draining } else { PodState::Serving };
        Pod { weight: self.weight, state }
    }
}

/// All leases and slices of a registry.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Leases {
    next_pod: u64,
    next_handover: u64,
    commands: u64,
    leases: BTreeMap<PodId, Lease>,
    services: BTreeMap<Name, Service>,
}

impl Leases {
    /// How many commands have been applied: whoever has seen as many has seen all.
    #[must_use]
    pub fn commands(&self) -> u64 {
        self.commands
    }

    /// All leases, by number.
    pub fn leases(&self) -> impl Iterator<Item = (PodId, &Lease)> {
        self.leases.iter().map(|(&pod, lease)| (pod, lease))
    }

    /// One lease.
    #[must_use]
    pub fn lease(&self, pod: PodId) -> Option<&Lease> {
        self.leases.get(&pod)
    }

    /// All services with slices, by name.
    pub fn services(&self) -> impl Iterator<Item = (&Name, &Service)> {
        self.services.iter()
    }

    /// One service.
    #[must_use]
    pub fn service(&self, name: &Name) -> Option<&Service> {
        self.services.get(name)
    }

    /// The pods that serve a service, with what the planner sees of them.
    fn pods_of<'a>(&'a self, service: &'a Name) -> impl Iterator<Item = (PodId, Pod)> + 'a {
        let serving = self.leases.iter().filter(move |(_, lease)| lease.services.contains(service));
        serving.map(|(&pod, lease)| (pod, lease.pod()))
    }
}
