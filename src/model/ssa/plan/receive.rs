//! Which pod takes which of the free slices.
//!
//! First whatever completes a block that a pod has already. Then the rest in powers of two, all pods' largest pieces
//! first, each cut from the smallest free block that has it: so large free blocks stay whole as long as they can be of
//! use.

use std::cmp::Reverse;

use super::Block;
use super::board::{Board, FREE};
use super::quota::Quotas;

/// What comes first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Order {
    /// Pods' largest pieces; a block grows only where that saves a prefix.
    LargestFirst,
    /// Whatever grows a block that a pod has, from the smallest on: fragments disappear around those who stay.
    GrowingFirst,
}

/// Gives all that is free to pods, each up to its quota.
pub(super) fn receive(board: &mut Board, quotas: &Quotas, order: Order) {
    let mut wanted = wanted(board, quotas);
    match order {
        Order::LargestFirst => {}
        Order::GrowingFirst => grow(board, &mut wanted),
    }
    for (pod, wanted) in &mut wanted {
        complete(board, *pod, wanted);
    }
    hand_out(board, &wanted);
}

/// Gives each pod what it wants as powers of two.
fn hand_out(board: &mut Board, wanted: &[(usize, u32)]) {
    let mut pieces: Vec<(u8, usize)> = Vec::new();
    for &(pod, wanted) in wanted {
        pieces.extend((0..u32::BITS as u8).filter(|order| wanted >> order & 1 == 1).map(|order| (order, pod)));
    }
    pieces.sort_unstable_by_key(|&(order, pod)| (Reverse(order), pod));
    // Sorted by order, largest first. A piece that no free block has whole becomes two of half its size.
    let mut halves: Vec<usize> = Vec::new();
    let mut at = 0;
    let mut order = pieces.first().map_or(0, |&(order, _)| order);
    loop {
        let mut now = std::mem::take(&mut halves);
        while at < pieces.len() && pieces[at].0 == order {
            now.push(pieces[at].1);
            at += 1;
        }
        for pod in now {
            match board.smallest_from(FREE, order) {
                Some(free) => board.give(Block { first: free.first, order }, pod),
                None => halves.extend([pod, pod]),
            }
        }
        if order == 0 {
            return;
        }
        order -= 1;
    }
}

/// How many slices each pod takes.
fn wanted(board: &Board, quotas: &Quotas) -> Vec<(usize, u32)> {
    let lacks = |pod: usize, quota: u32| quota.saturating_sub(board.slices_of(pod));
    let open = quotas.each.iter().enumerate().filter(|(_, quota)| quota.low < quota.high).map(|(pod, _)| pod);
    let (holders, mut up): (Vec<_>, Vec<_>) = open.partition(|&pod| board.slices_of(pod) == quotas.each[pod].high);
    let cost = |pod: usize, wanted: u32| {
        let single = board.blocks_of_order(pod, 0).any(|block| board.holder_of_buddy(block) == Some(FREE));
        wanted.count_ones() as i32 - i32::from(single && wanted & 1 == 1)
    };
    up.sort_by_key(|&pod| {
        let low = lacks(pod, quotas.each[pod].low);
        (cost(pod, low + 1) - cost(pod, low), pod)
    });
    up.truncate(quotas.rounded_up.saturating_sub(holders.len()));
    up.sort_unstable();
    let mut wanted = Vec::new();
    for (pod, quota) in quotas.each.iter().enumerate() {
        let quota = if up.binary_search(&pod).is_ok() { quota.high } else { quota.low };
        if lacks(pod, quota) > 0 {
            wanted.push((pod, lacks(pod, quota)));
        }
    }
    wanted
}

/// Gives a pod the free buddies of its blocks, as long as what it wants then is not more pieces.
fn complete(board: &mut Board, pod: usize, wanted: &mut u32) {
    loop {
        let completes = |block: &Block| {
            let slices = block.slices();
            if slices > *wanted || board.holder_of_buddy(*block) != Some(FREE) {
                return false;
            }
            let merged = block.parent();
            let saved = 1 + board.merges(merged, pod);
            (*wanted - slices).count_ones() < wanted.count_ones() + saved
        };
        let Some(block) = board.blocks_of(pod).rev().find(completes) else { return };
        board.give(block.buddy(), pod);
        *wanted -= block.slices();
    }
}

/// Gives pods the free buddies of their blocks, the smallest first, as long as they want so many.
fn grow(board: &mut Board, wanted: &mut [(usize, u32)]) {
    for order in 0..=board.largest() {
        for (pod, wanted) in &mut *wanted {
            let blocks: Vec<_> = board.blocks_of_order(*pod, order).collect();
            for block in blocks {
                if block.slices() <= *wanted && board.holder_of_buddy(block) == Some(FREE) {
                    board.give(block.buddy(), *pod);
                    *wanted -= block.slices();
                }
            }
        }
    }
}
