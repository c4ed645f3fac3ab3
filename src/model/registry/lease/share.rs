//! What one pod is told: the slices that it has, and its part in every handover.
//!
//! A share is a whole, never a difference: who has the latest knows everything, and whatever was lost before it does
//! not matter.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddrV6};

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};

use super::{HandoverId, Leases, Service, Step};
use crate::model::ssa::plan::{Block, PodId, blocks_of};

/// The other pod of a handover.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Peer {
    /// Where its sidecar is reached without any slice.
    pub address: SocketAddrV6,
    /// Where its node's agent takes strays; none where there is no agent.
    pub node: Option<Ipv6Addr>,
}

/// Slices on their way to this pod.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Arriving {
    /// The handover.
    pub id: HandoverId,
    /// How far it has come.
    pub step: Step,
    /// The slices.
    pub prefixes: Vec<Ipv6Net>,
    /// Who has, or had, them; none where nobody alive does.
    pub from: Option<Peer>,
}

/// Slices on their way to another pod.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Leaving {
    /// The handover.
    pub id: HandoverId,
    /// How far it has come.
    pub step: Step,
    /// The slices.
    pub prefixes: Vec<Ipv6Net>,
    /// Who gets them.
    pub to: Peer,
}

/// What one pod has of one service.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Share {
    /// Slices that it owns and that stay, as the fewest prefixes, in order.
    pub held: Vec<Ipv6Net>,
    /// Slices that come.
    pub arriving: Vec<Arriving>,
    /// Slices that go.
    pub leaving: Vec<Leaving>,
}

impl Share {
    /// Whether there is nothing that the pod has, gets or gives.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && self.arriving.is_empty() && self.leaving.is_empty()
    }
}

impl Leases {
    /// The shares of all pods of a service. A pod that is not among them has none.
    #[must_use]
    pub fn shares(&self, service: &Service) -> BTreeMap<PodId, Share> {
        let mut shares: BTreeMap<PodId, Share> = BTreeMap::new();
        let prefixes = |blocks: &[Block]| blocks.iter().filter_map(|&block| service.prefix_of(block)).collect();
        let peer = |pod: PodId| self.lease(pod).map(|lease| Peer { address: lease.address, node: lease.node });
        let mut staying = service.ownership().clone();
        for (id, handover) in service.handovers() {
            let step = handover.step;
            let arriving =
                Arriving { id, step, prefixes: prefixes(&handover.blocks), from: handover.from.and_then(peer) };
            shares.entry(handover.to).or_default().arriving.push(arriving);
            if let (Some(from), Some(to)) = (handover.from, peer(handover.to)) {
                let leaving = Leaving { id, step, prefixes: prefixes(&handover.blocks), to };
                shares.entry(from).or_default().leaving.push(leaving);
            }
            for block in &handover.blocks {
                staying.assign(block.range(), None);
            }
        }
        for (range, owner) in staying.runs() {
            if let Some(owner) = owner {
                let blocks = blocks_of(range, service.slice_bits());
                shares.entry(owner).or_default().held.extend(blocks.filter_map(|block| service.prefix_of(block)));
            }
        }
        shares
    }
}
