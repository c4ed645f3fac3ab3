//! Which slices a pod gives away when it has too many.
//!
//! It keeps its largest blocks, so that few prefixes stay, and of equal blocks it gives those that make the largest
//! free block together with what is free already. Where it is open which pods give one slice more, those give whose
//! single slices lie together.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::Block;
use super::board::{Board, FREE};
use super::ownership::blocks_of;
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

/// The blocks that a pod gives away to have `keep` slices left.
fn surplus(board: &Board, pod: usize, keep: u32) -> Vec<Block> {
    let mut blocks: Vec<_> = board.blocks_of(pod).map(|block| (block, freed(board, block))).collect();
    blocks.sort_by_key(|&(block, freed)| (Reverse(block.order), freed, block.first));
    let (mut left, mut surplus) = (keep, Vec::new());
    for (block, _) in blocks {
        if block.slices() <= left {
            left -= block.slices();
        } else {
            surplus.push(block);
        }
    }
    if left > 0
        && let Some(block) = surplus.pop()
    {
        let given = block.first + left..block.range().end;
        surplus.extend(blocks_of(given, block.order));
    }
    surplus
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
