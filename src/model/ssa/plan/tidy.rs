//! Fewer prefixes by exchanges: two pods swap blocks of equal size where at least one of the two merges.
//!
//! Shares never change. What an exchange costs is the number of slices that move because of it and would not move
//! otherwise, so exchanges among slices that are moving anyway are free.

use super::Block;
use super::board::{Board, FREE};

/// How many blocks of the other pod are compared, and how often all blocks are gone through: what bounds the time.
const CANDIDATES: usize = 12;
const PASSES: usize = 3;

/// Exchanges until nothing is saved any more, or `budget` slices more than before are away from where they were in `before`.
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
    let others = board.blocks_of_order(joins, block.order).filter(|&other| other != block.buddy());
    let mut others = others.take(CANDIDATES).peekable();
    others.peek()?;
    let of_block = [holder, joins].map(|pod| before.slices_in(block.range(), pod));
    let swaps = others.map(|other| {
        let was = of_block[0] + before.slices_in(other.range(), joins);
        let is = of_block[1] + before.slices_in(other.range(), holder);
        Swap {
            one: block,
            ones_holder: holder,
            other,
            others_holder: joins,
            saved: merges + board.merges(other, holder),
            cost: i64::from(was) - i64::from(is),
        }
    });
    let affordable = swaps.filter(|swap| swap.cost <= i64::from(budget));
    affordable.max_by_key(|swap| (swap.saved, std::cmp::Reverse(swap.cost), std::cmp::Reverse(swap.other.first)))
}
