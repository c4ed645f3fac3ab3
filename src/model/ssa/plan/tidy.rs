//! Fewer prefixes by exchanges: two pods swap blocks of equal size where at least one of the two merges.
//!
//! Shares never change. What an exchange costs is the number of slices that move because of it and would not move
//! otherwise, so exchanges among slices that are moving anyway are free.

use super::Block;
use super::board::{Board, FREE};

/// How many blocks of the other pod are compared, and how often all blocks are gone through: what bounds the time.
const CANDIDATES: usize = 12;
const PASSES: usize = 3;

/// Exchanges until nothing is saved any more, or until `budget` slices more than now are away from where they were in
/// `before`.
///
/// Returns what is left of the budget.
pub(super) fn tidy(board: &mut Board, before: &Board, mut budget: u32) -> u32 {
    for _ in 0..PASSES {
        let mut changed = false;
        let mut blocks: Vec<Block> = board.all().map(|(block, _)| block).collect();
        blocks.sort_unstable_by_key(|block| (block.order, block.first));
        for block in blocks {
            while let Some(swap) = best(board, before, block, budget) {
                board.give(swap.one, swap.others_holder);
                board.give(swap.other, swap.ones_holder);
                budget = (i64::from(budget) - swap.cost).clamp(0, u32::MAX.into()) as u32;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    budget
}

#[derive(Clone, Copy, Debug)]
struct Swap {
    one: Block,
    ones_holder: usize,
    other: Block,
    others_holder: usize,
    saved: u32,
    /// Slices more (or fewer) that move.
    cost: i64,
}

/// The best exchange by which `block` joins its buddy.
fn best(board: &Board, before: &Board, block: Block, budget: u32) -> Option<Swap> {
    let holder = board.holder_of_maximal(block).filter(|&holder| holder != FREE)?;
    let joins = board.holder_of_buddy(block).filter(|&joins| joins != FREE && joins != holder)?;
    let merges = board.merges(block, joins);
    let others = board.blocks_of_order(joins, block.order).filter(|&other| other != block.buddy()).take(CANDIDATES);
    let mut best: Option<Swap> = None;
    for other in others {
        let saved = merges + board.merges(other, holder);
        // What an exchange costs takes longer to tell than what it saves.
        if best.is_some_and(|best| saved < best.saved) {
            continue;
        }
        let stays = |of: Block, pod: usize| i64::from(before.slices_in(of.range(), pod));
        let cost = stays(block, holder) + stays(other, joins) - stays(block, joins) - stays(other, holder);
        let better = best.is_none_or(|best| saved > best.saved || cost < best.cost);
        if better && cost <= i64::from(budget) {
            best = Some(Swap { one: block, ones_holder: holder, other, others_holder: joins, saved, cost });
        }
    }
    best
}
