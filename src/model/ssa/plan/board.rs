//! The slices while a plan is made: every maximal block of one holder, by place and by holder.
//!
//! Holders are pods by their index, and [`FREE`]. Invariant: no two buddies (the halves of one larger block) have the
//! same holder, so each holder's slices are always the fewest blocks. Every change splits and merges along one path of
//! the buddy tree and costs the depth of that path, whatever the number of slices.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::ownership::blocks_of;
use super::{Block, Ownership, PodId};

/// Holds what has no pod that could keep it.
pub(super) const FREE: usize = usize::MAX;

#[derive(Clone, Debug)]
pub(super) struct Board {
    /// Order and holder, by first slice.
    blocks: BTreeMap<u32, (u8, usize)>,
    /// Order and first slice of what each pod holds; the last entry is what is free.
    held: Vec<BTreeSet<(u8, u32)>>,
    /// How many slices each pod holds; the last entry is what is free.
    slices: Vec<u32>,
    largest: u8,
}

impl Board {
    /// What `ownership` says of the pods `pods`, which are sorted; what others own is free.
    pub(super) fn new(ownership: &Ownership, pods: &[PodId]) -> Self {
        let holder = |owner: Option<PodId>| owner.and_then(|owner| pods.binary_search(&owner).ok()).unwrap_or(FREE);
        let largest = ownership.slice_bits();
        let mut board = Self {
            blocks: BTreeMap::new(),
            held: vec![BTreeSet::new(); pods.len() + 1],
            slices: vec![0; pods.len() + 1],
            largest,
        };
        let mut run: Option<(Range<u32>, usize)> = None;
        let mut runs = Vec::new();
        for (range, owner) in ownership.runs() {
            let holder = holder(owner);
            match &mut run {
                Some((joined, same)) if *same == holder => joined.end = range.end,
                _ => runs.extend(run.replace((range, holder))),
            }
        }
        runs.extend(run);
        let blocks = runs.into_iter().flat_map(|(range, holder)| blocks_of(range, largest).map(move |b| (b, holder)));
        let blocks: Vec<_> = blocks.collect();
        for &(block, holder) in &blocks {
            let at = board.at(holder);
            board.held[at].insert((block.order, block.first));
            board.slices[at] += block.slices();
        }
        board.blocks = blocks.into_iter().map(|(block, holder)| (block.first, (block.order, holder))).collect();
        board
    }

    fn at(&self, holder: usize) -> usize {
        holder.min(self.held.len() - 1)
    }

    /// How many slices a pod holds, or are free.
    pub(super) fn slices_of(&self, holder: usize) -> u32 {
        self.slices[self.at(holder)]
    }

    /// A holder's blocks, the smallest first.
    pub(super) fn blocks_of(&self, holder: usize) -> impl DoubleEndedIterator<Item = Block> {
        self.held[self.at(holder)].iter().map(|&(order, first)| Block { first, order })
    }

    /// A holder's blocks of one order, in order of place.
    pub(super) fn blocks_of_order(&self, holder: usize, order: u8) -> impl DoubleEndedIterator<Item = Block> {
        self.held[self.at(holder)].range((order, 0)..=(order, u32::MAX)).map(|&(order, first)| Block { first, order })
    }

    /// A holder's blocks of orders below one, the largest first.
    pub(super) fn blocks_below(&self, holder: usize, order: u8) -> impl Iterator<Item = Block> {
        let below = self.held[self.at(holder)].range(..(order, 0)).rev();
        below.map(|&(order, first)| Block { first, order })
    }

    /// A holder's first block among the smallest that have at least 2^`order` slices.
    pub(super) fn smallest_from(&self, holder: usize, order: u8) -> Option<Block> {
        self.held[self.at(holder)].range((order, 0)..).next().map(|&(order, first)| Block { first, order })
    }

    /// The order of the largest block there can be.
    pub(super) fn largest(&self) -> u8 {
        self.largest
    }

    /// How many prefixes all holders' slices are.
    pub(super) fn prefixes(&self) -> usize {
        self.blocks.len()
    }

    /// All blocks, in order of place.
    pub(super) fn all(&self) -> impl Iterator<Item = (Block, usize)> {
        self.blocks.iter().map(|(&first, &(order, holder))| (Block { first, order }, holder))
    }

    /// The maximal block that holds a slice, and its holder.
    pub(super) fn around(&self, slice: u32) -> (Block, usize) {
        let found = self.blocks.range(..=slice).next_back();
        found
            .map_or((Block { first: 0, order: 0 }, FREE), |(&first, &(order, holder))| (Block { first, order }, holder))
    }

    /// Who holds a whole block that is maximal as it stands; none where it is part of a larger one, or divided.
    pub(super) fn holder_of_maximal(&self, block: Block) -> Option<usize> {
        let &(order, holder) = self.blocks.get(&block.first)?;
        (order == block.order).then_some(holder)
    }

    /// The holder of the buddy of a maximal block, where one holder has all of it.
    pub(super) fn holder_of_buddy(&self, block: Block) -> Option<usize> {
        if block.order >= self.largest { None } else { self.holder_of_maximal(block.buddy()) }
    }

    /// How many slices of `range` a holder has.
    pub(super) fn slices_in(&self, range: Range<u32>, holder: usize) -> u32 {
        let (around, its) = self.around(range.start);
        let first = std::iter::once((around, its));
        let others = self.blocks.range(range.start + 1..range.end.max(range.start + 1));
        let others = others.map(|(&first, &(order, holder))| (Block { first, order }, holder));
        let theirs = first.chain(others).filter(|&(_, its)| its == holder);
        theirs.map(|(block, _)| block.range().end.min(range.end).saturating_sub(block.first.max(range.start))).sum()
    }

    /// How many prefixes fewer there are on the side of `holder` once it holds `block` too, which is maximal now: 0
    /// where the buddy is another's.
    pub(super) fn merges(&self, block: Block, holder: usize) -> u32 {
        let mut grown = block;
        let mut merges = 0;
        while self.holder_of_buddy(grown) == Some(holder) {
            grown = grown.parent();
            merges += 1;
        }
        merges
    }

    /// Gives `block`, all of which one holder has, to another holder.
    pub(super) fn give(&mut self, block: Block, to: usize) {
        let (mut around, from) = self.around(block.first);
        debug_assert!(around.order >= block.order, "one holder has all of the block");
        if from == to {
            return;
        }
        self.remove(around, from);
        while around.order > block.order {
            let half = Block { first: around.first, order: around.order - 1 };
            let (inside, outside) =
                if block.first & half.slices() == 0 { (half, half.buddy()) } else { (half.buddy(), half) };
            self.insert(outside, from);
            around = inside;
        }
        let mut merged = block;
        while self.holder_of_buddy(merged) == Some(to) {
            self.remove(merged.buddy(), to);
            merged = merged.parent();
        }
        self.insert(merged, to);
    }

    fn insert(&mut self, block: Block, holder: usize) {
        let at = self.at(holder);
        self.blocks.insert(block.first, (block.order, holder));
        self.held[at].insert((block.order, block.first));
        self.slices[at] += block.slices();
    }

    fn remove(&mut self, block: Block, holder: usize) {
        let at = self.at(holder);
        self.blocks.remove(&block.first);
        self.held[at].remove(&(block.order, block.first));
        self.slices[at] -= block.slices();
    }
}
