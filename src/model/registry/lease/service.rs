//! One service's slices: their owners, and what is changing hands.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv6Addr;

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};

use crate::model::UnixSeconds;
use crate::model::ssa::plan::{BadSize, Block, Ownership, PodId, Why};
use crate::model::ssa::slice_prefixes;

/// A handover, by a number that is never used again.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct HandoverId(pub u64);

impl fmt::Display for HandoverId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How far a handover has come; after the last step it is gone.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Step {
    /// The new owner prepares: it accepts, and can carry strays to the old owner.
    Planned,
    /// The new owner may be routed. The old one still owns.
    Ready,
    /// The new owner is routed and owns.
    Routed,
    /// The old owner is routed no longer; it serves the connections that it has.
    Withdrawn,
}

impl Step {
    /// A stable word for metrics, logs and people.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Ready => "ready",
            Self::Routed => "routed",
            Self::Withdrawn => "draining",
        }
    }
}

/// Slices that change hands.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Handover {
    /// The slices. None of them is in another handover of the service.
    pub blocks: Vec<Block>,
    /// Who had them; nobody alive where there is none to hand over.
    pub from: Option<PodId>,
    /// Who gets them.
    pub to: PodId,
    /// What for.
    pub why: Why,
    /// How far it has come.
    pub step: Step,
    /// When it was planned.
    pub since: UnixSeconds,
    /// Why it does not go on, in the words of whoever waits.
    pub waits: Option<Box<str>>,
}

impl Handover {
    /// How many slices it moves.
    #[must_use]
    pub fn slices(&self) -> u32 {
        self.blocks.iter().map(|block| block.slices()).sum()
    }

    /// Whether the new owner owns already.
    pub(super) fn is_through(&self) -> bool {
        self.from.is_none() || self.step >= Step::Routed
    }
}

/// Slices that are changing hands: the end of each run, by its first slice.
pub(super) struct Moving(BTreeMap<u32, u32>);

impl Moving {
    /// Whether any slice of a block is among them.
    pub(super) fn touches(&self, block: Block) -> bool {
        self.0.range(..block.range().end).next_back().is_some_and(|(_, &end)| end > block.first)
    }

    pub(super) fn add(&mut self, block: Block) {
        self.0.insert(block.first, block.range().end);
    }
}

/// Slices that stay with a pod while it serves, whatever its share.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Pin {
    /// The slices.
    pub block: Block,
    /// The pod.
    pub pod: PodId,
}

/// A service that cannot be divided into slices.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadService {
    /// No prefix, or too many slices.
    #[error(transparent)]
    Size(#[from] BadSize),
    /// The planner divides all prefixes alike.
    #[error("{prefix} has fewer than 2^{slice_bits} addresses, so its slices cannot be as many as the others'")]
    TooLong {
        /// The prefix.
        prefix: Ipv6Net,
        /// The rule's `slices=`.
        slice_bits: u8,
    },
}

impl BadService {
    /// The stable label of metrics and logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Size(_) => "slices-too-many",
            Self::TooLong { .. } => "prefix-too-long",
        }
    }
}

/// The slices of one service.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Service {
    pub(super) prefixes: Vec<Ipv6Net>,
    pub(super) slice_bits: u8,
    pub(super) ownership: Ownership,
    pub(super) handovers: BTreeMap<HandoverId, Handover>,
    pub(super) pins: Vec<Pin>,
}

impl Service {
    /// A service of which nobody owns anything.
    ///
    /// # Errors
    /// [`BadService`].
    pub fn vacant(prefixes: &[Ipv6Net], slice_bits: u8) -> Result<Self, BadService> {
        if let Some(&prefix) = prefixes.iter().find(|prefix| slice_bits > 128 - prefix.prefix_len()) {
            return Err(BadService::TooLong { prefix, slice_bits });
        }
        let count = u32::try_from(prefixes.len()).unwrap_or(u32::MAX);
        let ownership = Ownership::vacant(count, slice_bits)?;
        Ok(Self { prefixes: prefixes.to_vec(), slice_bits, ownership, handovers: BTreeMap::new(), pins: Vec::new() })
    }

    /// The prefixes of its space, in order.
    #[must_use]
    pub fn prefixes(&self) -> &[Ipv6Net] {
        &self.prefixes
    }

    /// Each prefix has two to the power of this many slices.
    #[must_use]
    pub fn slice_bits(&self) -> u8 {
        self.slice_bits
    }

    /// The length of a slice's prefix, that of the first where the space's prefixes differ.
    #[must_use]
    pub fn slice_length(&self) -> u8 {
        self.prefixes.first().map_or(128, |prefix| prefix.prefix_len() + self.slice_bits)
    }

    /// The slice that an address lies in; none for one outside the space.
    #[must_use]
    pub fn slice_of(&self, address: Ipv6Addr) -> Option<u32> {
        let whole = self.prefixes.iter().find(|prefix| prefix.contains(&address))?;
        let slice = Ipv6Net::new(address, whole.prefix_len() + self.slice_bits).ok()?;
        self.block_of(slice.trunc()).map(|block| block.first)
    }

    /// Who owns which slice now.
    #[must_use]
    pub fn ownership(&self) -> &Ownership {
        &self.ownership
    }

    /// What is changing hands, in the order in which it was planned.
    pub fn handovers(&self) -> impl Iterator<Item = (HandoverId, &Handover)> {
        self.handovers.iter().map(|(&id, handover)| (id, handover))
    }

    /// One handover.
    #[must_use]
    pub fn handover(&self, id: HandoverId) -> Option<&Handover> {
        self.handovers.get(&id)
    }

    /// What stays where it is.
    #[must_use]
    pub fn pins(&self) -> &[Pin] {
        &self.pins
    }

    /// Who owns which slice once all that is under way has ended.
    #[must_use]
    pub fn aimed_at(&self) -> Ownership {
        let mut ownership = self.ownership.clone();
        for handover in self.handovers.values() {
            for block in &handover.blocks {
                ownership.assign(block.range(), Some(handover.to));
            }
        }
        ownership
    }

    /// Whether all of a block exists.
    pub(super) fn has(&self, block: Block) -> bool {
        block.order <= self.slice_bits
            && block.first.is_multiple_of(block.slices())
            && block.first < self.ownership.slices()
    }

    /// What is changing hands, to be asked about many blocks.
    pub(super) fn moving(&self) -> Moving {
        let blocks = self.handovers.values().flat_map(|handover| &handover.blocks);
        Moving(blocks.map(|block| (block.first, block.range().end)).collect())
    }

    /// A block as a prefix of the space; none for one that does not exist.
    #[must_use]
    pub fn prefix_of(&self, block: Block) -> Option<Ipv6Net> {
        let prefix = self.prefixes.get((block.first >> self.slice_bits) as usize)?;
        let first = block.first & ((1 << self.slice_bits) - 1);
        slice_prefixes(*prefix, self.slice_bits, first.into(), block.slices().into()).first().copied()
    }

    /// The slices whose addresses a prefix holds; none for one outside the space, or smaller than a slice.
    #[must_use]
    pub fn block_of(&self, prefix: Ipv6Net) -> Option<Block> {
        let at = self.prefixes.iter().position(|whole| whole.contains(&prefix))?;
        let whole = self.prefixes[at];
        let order = (whole.prefix_len() + self.slice_bits).checked_sub(prefix.prefix_len())?;
        let offset = prefix.network().to_bits() - whole.network().to_bits();
        let size = 128 - u32::from(whole.prefix_len() + self.slice_bits);
        let first = offset.checked_shr(size).unwrap_or(0) as u32;
        Some(Block { first: ((at as u32) << self.slice_bits) + first, order })
    }
}
