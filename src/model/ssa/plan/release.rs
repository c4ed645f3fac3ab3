//! Which slices a pod gives away when it has too many.
//!
//! It keeps as few prefixes as its share can be written with, and of equal blocks it gives those that make the largest
//! free block together with what is free already. Where it is open which pods give one slice more, those give whose
//! single slices lie together.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::Block;
use super::board::{Board, FREE};
use super::quota::Quotas;

/// Frees exactly what must be freed, so that no pod has more than its quota, and as many as may have their `high`.
pub(super) fn release(board: &mut Board, quotas: &Quotas) {
    let pods = 0..quotas.each.len();
    let mut givers: Vec<usize> = pods.filter(|&pod| board.slices_of(pod) > quotas.each[pod].high).collect();
    // Whoever gives most decides least: what it frees guides the others.
    givers.sort_by_key(|&pod| (Reverse(board.slices_of(pod) - quotas.each[pod].high), pod));
    for pod in givers {
        for block in surplus(board, pod, quotas.each[pod].high) {
            board.give(block, FREE);
        }
    }
    let open =
        |&pod: &usize| quotas.each[pod].low < quotas.each[pod].high && board.slices_of(pod) == quotas.each[pod].high;
    let open: Vec<usize> = (0..quotas.each.len()).filter(open).collect();
    for slice in last_slices(board, &open, open.len().saturating_sub(quotas.rounded_up)) {
        board.give(slice, FREE);
    }
}

/// The blocks that a pod gives away to have `keep` slices left: it keeps as few prefixes as it can, each cut from the
/// smallest block that has it, so that no crumbs stay and large blocks come free whole.
fn surplus(board: &Board, pod: usize, keep: u32) -> Vec<Block> {
    let mut has: BTreeSet<(u8, u8, u32)> =
        board.blocks_of(pod).map(|block| (block.order, freed(board, block), block.first)).collect();
    // A space of several prefixes has more than its largest block.
    let mut pieces = keep >> (board.largest() + 1);
    for order in (0..=board.largest()).rev() {
        // What no block has whole is two of half its size.
        pieces = pieces * 2 + (keep >> order & 1);
        while pieces > 0
            && let Some(&(whole, freed, first)) = has.range((order, 0, 0)..).next()
        {
            has.remove(&(whole, freed, first));
            // The first part stays; the others are halves of what they were.
            has.extend((order..whole).map(|half| (half, half, first + (1 << half))));
            pieces -= 1;
        }
    }
    has.into_iter().map(|(order, _, first)| Block { first, order }).collect()
}

/// The order of the free block that there is once a maximal block is free.
fn freed(board: &Board, block: Block) -> u8 {
    block.order + board.merges(block, FREE) as u8
}

/// One slice each of `count` of the pods `open`: those that save a prefix by it first, and among equals those that fill
/// the largest blocks.
fn last_slices(board: &Board, open: &[usize], count: usize) -> Vec<Block> {
    if count == 0 {
        return Vec::new();
    }
    let mut classes = BTreeMap::<u8, Vec<Block>>::new();
    for &pod in open {
        let singles = board.blocks_of_order(pod, 0);
        let single = singles.max_by_key(|&block| (freed(board, block), Reverse(block.first)));
        // Without a single slice, half of a block goes on being halved: each halving is one prefix more.
        let slice = single.or_else(|| board.blocks_of(pod).next());
        if let Some(block) = slice {
            let last = Block { first: block.range().end - 1, order: 0 };
            classes.entry(block.order).or_default().push(last);
        }
    }
    let mut chosen = Vec::new();
    for (_, mut class) in classes {
        class.sort_unstable();
        let left = count - chosen.len();
        if class.len() <= left {
            chosen.extend(class);
        } else {
            chosen.extend(together(board, &class, left));
            break;
        }
    }
    chosen
}

/// `count` of the slices `from`, which are sorted: those that fill large blocks together with what is free.
fn together(board: &Board, from: &[Block], count: usize) -> Vec<Block> {
    let mut chosen = Vec::new();
    let mut rest = from.to_vec();
    for order in (0..=board.largest()).rev() {
        let mut passed = Vec::new();
        for group in rest.chunk_by(|one, other| one.first >> order == other.first >> order) {
            let around = Block { first: group[0].first >> order << order, order };
            let fills = group.len() <= count - chosen.len()
                && group.len() + board.slices_in(around.range(), FREE) as usize == around.slices() as usize;
            if fills { &mut chosen } else { &mut passed }.extend_from_slice(group);
        }
        rest = passed;
    }
    chosen
}
