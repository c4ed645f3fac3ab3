//! Commands, and what they make of the state.
//!
//! Every command can come twice, or late: what it says of a step that was passed, or of a pod that is gone, changes
//! nothing and is answered with what holds.

use std::collections::BTreeSet;
use std::net::{Ipv6Addr, SocketAddrV6};

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};

use super::{BadService, Handover, HandoverId, Holder, Lease, Leases, Pin, Service, Step};
use crate::model::ssa::plan::{Block, PodId, Why};
use crate::model::{Name, UnixSeconds};

/// What a sidecar says of itself when it comes.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Registration {
    /// Whose run it is.
    pub holder: Holder,
    /// The identity that its token proved.
    pub workload: Box<str>,
    /// The pod's name.
    pub instance: Box<str>,
    /// Where its node's agent takes strays; none where there is no agent.
    pub node: Option<Ipv6Addr>,
    /// Where its sidecar is reached.
    pub address: SocketAddrV6,
    /// Its share.
    pub weight: u32,
    /// What it serves.
    pub services: BTreeSet<Name>,
}

/// One handover to begin.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Planned {
    /// The slices.
    pub blocks: Vec<Block>,
    /// Who has them; none where nobody alive does.
    pub from: Option<PodId>,
    /// Who gets them.
    pub to: PodId,
    /// What for.
    pub why: Why,
}

/// What a pod says of a handover that it takes part in.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Reported {
    /// The new owner: prepared.
    Ready,
    /// The new owner: routed.
    Routed,
    /// The old owner: routed no longer.
    Withdrawn,
    /// The old owner: no connection is left.
    Freed,
}

/// Why a lease ends.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Ended {
    /// It was not renewed.
    Expired,
    /// Its holder gave it back.
    Returned,
}

/// A change of leases and slices.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Command {
    /// The service has this space from now on. Another one than before makes all its slices nobody's.
    Define {
        /// The service.
        service: Name,
        /// The prefixes of its space, in order.
        prefixes: Vec<Ipv6Net>,
        /// The rule's `slices=`.
        slice_bits: u8,
    },
    /// A sidecar comes, or comes back.
    Register(Registration),
    /// The pod is to have no slices, or to have its share again.
    Drain {
        /// The pod.
        pod: PodId,
        /// Whether it is to have none.
        draining: bool,
    },
    /// Leases end.
    End {
        /// Whose.
        pods: Vec<PodId>,
        /// Why.
        why: Ended,
    },
    /// Handovers begin; those that no longer fit are left out.
    Begin {
        /// The service.
        service: Name,
        /// What moves.
        moves: Vec<Planned>,
        /// When, by the leader's clock.
        at: UnixSeconds,
    },
    /// Handovers go on.
    Advance {
        /// The service.
        service: Name,
        /// Who says what of which.
        reports: Vec<(PodId, HandoverId, Reported)>,
    },
    /// A handover does not go on, or does again.
    Wait {
        /// The service.
        service: Name,
        /// Which.
        handover: HandoverId,
        /// Who says so, one of its two pods.
        pod: PodId,
        /// Why, for people.
        waits: Option<Box<str>>,
    },
    /// Slices stay with a pod while it serves, or no longer.
    Pin {
        /// The service.
        service: Name,
        /// The slices.
        block: Block,
        /// The pod; none takes the pin away.
        pod: Option<PodId>,
    },
}

/// What became of a command.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Outcome {
    /// It is so now, or was before.
    Done,
    /// The sidecar's lease.
    Registered(PodId),
    /// Of this many handovers some changed nothing.
    Counted(u32),
    /// There is no such service, pod or block.
    Unknown,
    /// The service cannot be divided so.
    Undividable,
}

impl Leases {
    /// Applies one command.
    pub fn apply(&mut self, command: &Command) -> Outcome {
        self.commands += 1;
        match command {
            Command::Define { service, prefixes, slice_bits } => self.define(service, prefixes, *slice_bits),
            Command::Register(registration) => Outcome::Registered(self.register(registration)),
            Command::Drain { pod, draining } => self.drain(*pod, *draining),
            Command::End { pods, why: _ } => {
                pods.iter().for_each(|&pod| self.end(pod));
                Outcome::Done
            }
            Command::Begin { service, moves, at } => self.begin(service, moves, *at),
            Command::Advance { service, reports } => {
                let Some(service) = self.services.get_mut(service) else { return Outcome::Unknown };
                let went_on = reports.iter().filter(|&&(pod, id, reported)| service.advance(pod, id, reported));
                Outcome::Counted(went_on.count() as u32)
            }
            Command::Wait { service, handover, pod, waits } => {
                let service = self.services.get_mut(service);
                match service.and_then(|service| service.handovers.get_mut(handover)) {
                    Some(found) if found.to == *pod || found.from == Some(*pod) => {
                        found.waits.clone_from(waits);
                        Outcome::Done
                    }
                    Some(_) | None => Outcome::Unknown,
                }
            }
            Command::Pin { service, block, pod } => self.pin(service, *block, *pod),
        }
    }

    fn define(&mut self, name: &Name, prefixes: &[Ipv6Net], slice_bits: u8) -> Outcome {
        if self.services.get(name).is_some_and(|known| known.prefixes == prefixes && known.slice_bits == slice_bits) {
            return Outcome::Done;
        }
        match Service::vacant(prefixes, slice_bits) {
            Ok(service) => {
                self.services.insert(name.clone(), service);
                Outcome::Done
            }
            Err(BadService::Size(_) | BadService::TooLong { .. }) => Outcome::Undividable,
        }
    }

    /// The same run has its lease again. A new run in the same pod takes the old one's place: the old one has ended,
    /// or it would hold the pod's ports.
    fn register(&mut self, came: &Registration) -> PodId {
        let same_pod = |lease: &Lease| {
            lease.holder == came.holder
                || (&lease.workload, &lease.instance, lease.address) == (&came.workload, &came.instance, came.address)
        };
        let known = self.leases.iter().find(|(_, lease)| same_pod(lease)).map(|(&pod, lease)| (pod, lease));
        let (pod, draining) = match known {
            Some((pod, lease)) => (pod, lease.draining && lease.holder == came.holder),
            None => {
                self.next_pod += 1;
                (PodId(self.next_pod), false)
            }
        };
        let lease = Lease {
            holder: came.holder,
            workload: came.workload.clone(),
            instance: came.instance.clone(),
            node: came.node,
            address: came.address,
            weight: came.weight,
            draining,
            services: came.services.clone(),
        };
        // What it serves no longer is as good as lost.
        if let Some(before) = self.leases.insert(pod, lease) {
            for name in before.services.difference(&came.services) {
                self.services.get_mut(name).into_iter().for_each(|service| service.lose(pod));
            }
        }
        pod
    }

    fn drain(&mut self, pod: PodId, draining: bool) -> Outcome {
        let Some(lease) = self.leases.get_mut(&pod) else { return Outcome::Unknown };
        lease.draining = draining;
        if draining {
            for service in self.services.values_mut() {
                service.handovers.retain(|_, handover| handover.to != pod || handover.step > Step::Planned);
            }
        }
        Outcome::Done
    }

    fn end(&mut self, pod: PodId) {
        if self.leases.remove(&pod).is_some() {
            self.services.values_mut().for_each(|service| service.lose(pod));
        }
    }

    fn begin(&mut self, name: &Name, moves: &[Planned], at: UnixSeconds) -> Outcome {
        let serves = |pod: PodId| self.leases.get(&pod).is_some_and(|lease| lease.services.contains(name));
        let Some(service) = self.services.get_mut(name) else { return Outcome::Unknown };
        let mut moving = service.moving();
        let mut begun = 0;
        for planned in moves {
            let fits = planned.from != Some(planned.to)
                && serves(planned.to)
                && planned.blocks.iter().all(|&block| {
                    service.has(block) && !moving.touches(block) && service.has_all_of(block, planned.from)
                });
            if !fits || planned.blocks.is_empty() {
                continue;
            }
            for &block in &planned.blocks {
                moving.add(block);
                if planned.from.is_none() {
                    service.ownership.assign(block.range(), Some(planned.to));
                }
            }
            self.next_handover += 1;
            let handover = Handover {
                blocks: planned.blocks.clone(),
                from: planned.from,
                to: planned.to,
                why: planned.why,
                // With nobody to carry strays to, nothing is to be prepared.
                step: if planned.from.is_none() { Step::Ready } else { Step::Planned },
                since: at,
                waits: None,
            };
            service.handovers.insert(HandoverId(self.next_handover), handover);
            begun += 1;
        }
        Outcome::Counted(begun)
    }

    fn pin(&mut self, name: &Name, block: Block, pod: Option<PodId>) -> Outcome {
        let known = pod.is_none_or(|pod| self.leases.get(&pod).is_some_and(|lease| lease.services.contains(name)));
        match self.services.get_mut(name) {
            Some(service) if known && service.has(block) => {
                let apart = |pin: &Pin| block.range().end <= pin.block.first || pin.block.range().end <= block.first;
                service.pins.retain(apart);
                service.pins.extend(pod.map(|pod| Pin { block, pod }));
                Outcome::Done
            }
            Some(_) | None => Outcome::Unknown,
        }
    }
}

impl Service {
    /// Whether one owner has all of a block.
    fn has_all_of(&self, block: Block, owner: Option<PodId>) -> bool {
        self.ownership.owned_by(block.range(), owner)
    }

    /// Takes a report on; says whether anything went on by it.
    fn advance(&mut self, pod: PodId, id: HandoverId, reported: Reported) -> bool {
        let Some(handover) = self.handovers.get_mut(&id) else { return false };
        let (of_new, of_old) = (handover.to == pod, handover.from == Some(pod));
        let fits = match reported {
            Reported::Ready => of_new && handover.step == Step::Planned,
            Reported::Routed => of_new && handover.step == Step::Ready,
            Reported::Withdrawn => of_old && handover.step == Step::Routed,
            Reported::Freed => of_old && handover.step == Step::Withdrawn,
        };
        if !fits {
            return false;
        }
        handover.waits = None;
        match reported {
            Reported::Ready => handover.step = Step::Ready,
            Reported::Routed => {
                handover.step = Step::Routed;
                for block in &handover.blocks {
                    self.ownership.assign(block.range(), Some(handover.to));
                }
                if handover.from.is_none() {
                    self.handovers.remove(&id);
                }
            }
            Reported::Withdrawn => handover.step = Step::Withdrawn,
            Reported::Freed => {
                self.handovers.remove(&id);
            }
        }
        true
    }

    /// A pod serves no longer, without having handed anything over.
    fn lose(&mut self, pod: PodId) {
        let touched: Vec<HandoverId> = self
            .handovers
            .iter()
            .filter(|(_, handover)| handover.to == pod || handover.from == Some(pod))
            .map(|(&id, _)| id)
            .collect();
        for id in touched {
            let Some(handover) = self.handovers.get_mut(&id) else { continue };
            if handover.to == pod {
                // Back to where it came from, who still has what it needs to serve it.
                for block in handover.is_through().then_some(&handover.blocks).into_iter().flatten() {
                    self.ownership.assign(block.range(), handover.from);
                }
                self.handovers.remove(&id);
            } else if handover.step >= Step::Routed {
                self.handovers.remove(&id);
            } else {
                // On to where it goes, at once: there are no strays to carry any more.
                handover.from = None;
                handover.step = Step::Ready;
                handover.waits = None;
                for block in &handover.blocks {
                    self.ownership.assign(block.range(), Some(handover.to));
                }
            }
        }
        self.ownership.clear(pod);
        self.pins.retain(|pin| pin.pod != pod);
    }
}
