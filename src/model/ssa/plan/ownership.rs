//! Who owns which slice.
//!
//! Slices are numbered from 0: those of the first prefix of the space in order of address, then those of the second,
//! and so on. Held as runs of equal owners, so a service of 2^17 slices costs what its runs cost.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::Move;

/// A pod, by the number its lease has in the registry. Of pods that are otherwise equal, the smaller number is served
/// first.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct PodId(pub u64);

impl fmt::Display for PodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// 2^`order` slices that are one prefix: the first is a multiple of their number.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Block {
    /// The first slice.
    pub first: u32,
    /// How often one slice was doubled.
    pub order: u8,
}

impl Block {
    /// How many slices it has.
    #[must_use]
    pub fn slices(self) -> u32 {
        1 << self.order
    }

    /// Its slices.
    #[must_use]
    pub fn range(self) -> Range<u32> {
        self.first..self.first + self.slices()
    }

    /// The other half of the block twice as large.
    pub(super) fn buddy(self) -> Self {
        Self { first: self.first ^ self.slices(), order: self.order }
    }

    /// The block twice as large around this one.
    pub(super) fn parent(self) -> Self {
        Self { first: self.first & !self.slices(), order: self.order + 1 }
    }
}

/// The fewest blocks of at most 2^`largest` slices that make up `range`, in order.
pub fn blocks_of(range: Range<u32>, largest: u8) -> impl Iterator<Item = Block> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        let room = range.end.checked_sub(at).filter(|&room| room > 0)?;
        let aligned = at.trailing_zeros().min(largest.into());
        let block = Block { first: at, order: aligned.min(room.ilog2()) as u8 };
        at += block.slices();
        Some(block)
    })
}

/// The most slices a service may have.
pub const MOST_SLICES: u32 = 1 << 24;

/// A service with more slices than can be planned.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{prefixes} prefixes of 2^{slice_bits} slices: expected 1 to {MOST_SLICES} slices in all")]
pub struct BadSize {
    /// How many prefixes the space has.
    pub prefixes: u32,
    /// The rule's `slices=`.
    pub slice_bits: u8,
}

/// The owner of every slice of a service.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Ownership {
    slices: u32,
    slice_bits: u8,
    /// First slice of each run. Slice 0 begins one, and neighbouring runs have different owners.
    runs: BTreeMap<u32, Option<PodId>>,
}

impl Ownership {
    /// A service of which nobody owns anything yet: `prefixes` of 2^`slice_bits` slices each. (A space whose prefixes
    /// are divided unequally is planned once for each size.)
    ///
    /// # Errors
    /// With no slice, or with more than [`MOST_SLICES`].
    pub fn vacant(prefixes: u32, slice_bits: u8) -> Result<Self, BadSize> {
        let slices = 1_u32.checked_shl(slice_bits.into()).and_then(|each| each.checked_mul(prefixes));
        let slices = slices.filter(|slices| (1..=MOST_SLICES).contains(slices));
        let slices = slices.ok_or(BadSize { prefixes, slice_bits })?;
        Ok(Self { slices, slice_bits, runs: BTreeMap::from([(0, None)]) })
    }

    /// How many slices the service has, at least 1.
    #[must_use]
    pub fn slices(&self) -> u32 {
        self.slices
    }

    /// A prefix of the space has two to the power of this many slices, which is the largest block.
    #[must_use]
    pub fn slice_bits(&self) -> u8 {
        self.slice_bits
    }

    /// The owner of a slice; nobody owns slices that do not exist.
    #[must_use]
    pub fn owner(&self, slice: u32) -> Option<PodId> {
        let run = self.runs.range(..=slice).next_back().filter(|_| slice < self.slices);
        run.and_then(|(_, &owner)| owner)
    }

    /// Gives slices to a pod, or to nobody. Slices that do not exist are left out.
    pub fn assign(&mut self, slices: Range<u32>, owner: Option<PodId>) {
        let (start, end) = (slices.start, slices.end.min(self.slices));
        if start >= end {
            return;
        }
        let after = self.owner(end);
        let inside: Vec<u32> = self.runs.range(start..end).map(|(&first, _)| first).collect();
        for first in inside {
            self.runs.remove(&first);
        }
        let before = start.checked_sub(1).map(|last| self.owner(last));
        if before != Some(owner) {
            self.runs.insert(start, owner);
        }
        if end < self.slices {
            if after == owner {
                self.runs.remove(&end);
            } else {
                self.runs.insert(end, after);
            }
        }
    }

    /// Whether one owner has all of some slices, or nobody has any of them.
    #[must_use]
    pub fn owned_by(&self, slices: Range<u32>, owner: Option<PodId>) -> bool {
        slices.end <= self.slices
            && self.owner(slices.start) == owner
            && self.runs.range(slices.start + 1..slices.end.max(slices.start + 1)).next().is_none()
    }

    /// Takes away all that a pod has.
    pub fn clear(&mut self, pod: PodId) {
        let had: Vec<_> = self.runs().filter(|(_, owner)| *owner == Some(pod)).map(|(range, _)| range).collect();
        for range in had {
            self.assign(range, None);
        }
    }

    /// The same service after some moves.
    pub fn apply(&mut self, moves: &[Move]) {
        for one in moves {
            self.assign(one.block.range(), Some(one.to));
        }
    }

    /// Runs of slices with one owner, in order, as long as can be.
    pub fn runs(&self) -> impl Iterator<Item = (Range<u32>, Option<PodId>)> {
        let ends = self.runs.keys().skip(1).copied().chain([self.slices]);
        self.runs.iter().zip(ends).map(|((&first, &owner), end)| (first..end, owner))
    }

    /// The same as prefixes, in order: each pod's slices as the fewest blocks, and so those that nobody owns.
    pub fn blocks(&self) -> impl Iterator<Item = (Block, Option<PodId>)> {
        self.runs().flat_map(|(range, owner)| blocks_of(range, self.slice_bits).map(move |block| (block, owner)))
    }

    /// The blocks of one owner each that make up some slices, in order.
    pub fn blocks_in(&self, slices: Range<u32>) -> impl Iterator<Item = (Block, Option<PodId>)> {
        let parts = self.runs().map(move |(run, owner)| (run.start.max(slices.start)..run.end.min(slices.end), owner));
        let parts = parts.filter(|(part, _)| part.start < part.end);
        parts.flat_map(|(part, owner)| blocks_of(part, self.slice_bits).map(move |block| (block, owner)))
    }

    /// What each pod has.
    #[must_use]
    pub fn holdings(&self) -> BTreeMap<PodId, Holding> {
        let mut holdings = BTreeMap::<_, Holding>::new();
        for (block, owner) in self.blocks() {
            if let Some(owner) = owner {
                let holding = holdings.entry(owner).or_default();
                holding.slices += block.slices();
                holding.prefixes += 1;
            }
        }
        holdings
    }
}

/// What one pod has.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Holding {
    /// Its slices.
    pub slices: u32,
    /// The prefixes they are written as, each of them a route.
    pub prefixes: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Option<PodId> = Some(PodId(1));
    const B: Option<PodId> = Some(PodId(2));

    fn runs(ownership: &Ownership) -> Vec<(Range<u32>, Option<PodId>)> {
        ownership.runs().collect()
    }

    #[test]
    fn runs_of_one_owner_are_one_however_they_were_given() {
        let mut ownership = Ownership::vacant(1, 4).unwrap();
        ownership.assign(4..8, A);
        ownership.assign(0..4, A);
        ownership.assign(10..12, B);
        ownership.assign(8..10, A);
        assert_eq!(runs(&ownership), [(0..10, A), (10..12, B), (12..16, None)]);
        ownership.assign(2..14, None);
        assert_eq!(runs(&ownership), [(0..2, A), (2..16, None)]);
        ownership.assign(0..16, B);
        assert_eq!(runs(&ownership), [(0..16, B)]);
    }

    #[test]
    fn slices_past_the_last_are_nobodys() {
        let mut ownership = Ownership::vacant(3, 1).unwrap();
        ownership.assign(4..99, A);
        ownership.assign(6..7, B);
        assert_eq!(runs(&ownership), [(0..4, None), (4..6, A)]);
        assert_eq!((ownership.owner(5), ownership.owner(6)), (A, None));
    }

    #[test]
    fn no_prefix_reaches_from_one_prefix_of_the_space_into_the_next() {
        let mut ownership = Ownership::vacant(2, 2).unwrap();
        ownership.assign(0..8, A);
        assert_eq!(ownership.blocks().count(), 2);
        assert_eq!(ownership.holdings()[&PodId(1)], Holding { slices: 8, prefixes: 2 });
    }

    #[test]
    fn a_service_has_at_least_one_slice_and_not_too_many() {
        assert!(Ownership::vacant(0, 4).is_err());
        assert_eq!(Ownership::vacant(1, 0).unwrap().slices(), 1);
        assert_eq!(Ownership::vacant(1, 24).unwrap().slices(), MOST_SLICES);
        for (prefixes, slice_bits) in [(1, 25), (2, 24), (1, 200), (u32::MAX, 24)] {
            assert_eq!(Ownership::vacant(prefixes, slice_bits), Err(BadSize { prefixes, slice_bits }));
        }
    }
}
