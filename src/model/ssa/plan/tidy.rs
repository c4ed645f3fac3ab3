//! Fewer prefixes by exchanges: two pods swap blocks of equal size where at least one of the two merges, or one block
//! for several smaller ones where the larger one merges.
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
            if let Some(cost) = exchange_for_pieces(board, before, block, budget) {
                budget = (i64::from(budget) - cost).clamp(0, u32::MAX.into()) as u32;
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

/// Exchanges `block` for as many slices in smaller blocks of who has its buddy, where that saves a prefix; gives what it
/// has cost.
fn exchange_for_pieces(board: &mut Board, before: &Board, block: Block, budget: u32) -> Option<i64> {
    let holder = board.holder_of_maximal(block).filter(|&holder| holder != FREE)?;
    let joins = board.holder_of_buddy(block).filter(|&joins| joins != FREE && joins != holder)?;
    // Mostly there are not enough of them, which is quickly told.
    if board.blocks_below(joins, block.order).map(|piece| piece.slices()).sum::<u32>() < block.slices() {
        return None;
    }
    let stays = |of: Block, pod: usize| i64::from(before.slices_in(of.range(), pod));
    let cost_of = |of: Block, from: usize, to: usize| stays(of, from) - stays(of, to);
    let budget = i64::from(budget);
    let mut cost = cost_of(block, holder, joins);
    if cost > budget {
        return None;
    }
    // Powers of two, the largest first, fill another exactly where they are enough.
    let (mut left, mut pieces) = (block.slices(), Vec::new());
    for piece in board.blocks_below(joins, block.order) {
        let its = cost_of(piece, joins, holder);
        if piece.slices() <= left && cost + its <= budget {
            cost += its;
            left -= piece.slices();
            pieces.push(piece);
        }
        if left == 0 {
            break;
        }
    }
    if left > 0 {
        return None;
    }
    let prefixes = board.prefixes();
    board.give(block, joins);
    pieces.iter().for_each(|&piece| board.give(piece, holder));
    if board.prefixes() < prefixes {
        return Some(cost);
    }
    pieces.iter().for_each(|&piece| board.give(piece, joins));
    board.give(block, holder);
    None
}
