//! The plan as moves, the most urgent first.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

use super::board::Board;
use super::ownership::blocks_of;
use super::{Block, Budget, Demand, Ownership, PodId, PodState};

/// One prefix's slices go from one pod to another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Move {
    /// The slices.
    pub block: Block,
    /// Who owns them now; none where nobody does. With [`Why::Orphaned`] it is not alive and hands over nothing.
    pub from: Option<PodId>,
    /// Who is to own them.
    pub to: PodId,
    /// What for.
    pub why: Why,
}

/// Why slices move. In the order in which they do.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Why {
    /// Nobody alive owns them.
    Orphaned,
    /// Their owner is to have none.
    Drained,
    /// Their owner has more than its share.
    Balance,
    /// Pods have fewer prefixes so.
    Defragment,
    /// Their owner bears too much load, or takes these in exchange for such.
    Load,
}

impl Why {
    /// A stable word for metrics and logs.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Orphaned => "orphaned",
            Self::Drained => "drained",
            Self::Balance => "balance",
            Self::Defragment => "defragment",
            Self::Load => "load",
        }
    }
}

/// What is to be moved, in this order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// The moves. No two of them share a slice.
    pub moves: Vec<Move>,
    /// How many slices would move as well if the budget allowed: another plan is needed.
    pub postponed: u32,
}

impl Plan {
    /// How many slices move.
    #[must_use]
    pub fn slices(&self) -> u32 {
        self.moves.iter().map(|one| one.block.slices()).sum()
    }

    /// How many slices move for one reason.
    #[must_use]
    pub fn slices_for(&self, why: Why) -> u32 {
        self.moves.iter().filter(|one| one.why == why).map(|one| one.block.slices()).sum()
    }
}

/// Lists what differs between `ownership` and the last of the `stages`, which are: what is due, fewer prefixes, load.
pub(super) fn list(
    ownership: &Ownership,
    demand: &Demand,
    pods: &[PodId],
    stages: [&Board; 3],
    budget: &Budget,
) -> Plan {
    let mut moves = Vec::new();
    for (range, from) in ownership.runs() {
        let mut at = range.start;
        while at < range.end {
            let around = stages.map(|stage| stage.around(at));
            // As far as each stage has one holder.
            let end = around.iter().map(|(block, _)| block.range().end).min().unwrap_or(at + 1).min(range.end);
            let to = around.map(|(_, holder)| pods.get(holder).copied());
            if let Some(last) = to[2].filter(|&last| from != Some(last)) {
                let why = why(demand, from, to);
                let blocks = blocks_of(at..end, ownership.slice_bits());
                moves.extend(blocks.map(|block| Move { block, from, to: last, why }));
            }
            at = end;
        }
    }
    joined(&mut moves);
    let mut moves: Vec<_> = moves.into_iter().map(|one| (one, heat(demand, one.block))).collect();
    moves.sort_by_key(|(one, heat)| (one.why, Reverse(*heat), one.block.first));
    within(moves.into_iter().map(|(one, _)| one), budget)
}

/// What a move is for: the first stage that makes it.
fn why(demand: &Demand, from: Option<PodId>, to: [Option<PodId>; 3]) -> Why {
    let owner = from.and_then(|from| demand.pods.get(&from));
    match owner.map(|pod| pod.state) {
        None | Some(PodState::Failed) => Why::Orphaned,
        Some(PodState::Draining) => Why::Drained,
        Some(PodState::Serving) if to[0] != from => Why::Balance,
        Some(PodState::Serving) if to[1] != from => Why::Defragment,
        Some(PodState::Serving) => Why::Load,
    }
}

/// Joins buddies that move alike, so that each move is as large a prefix as can be. `moves` is in order of place.
fn joined(moves: &mut Vec<Move>) {
    let mut done: Vec<Move> = Vec::with_capacity(moves.len());
    for mut one in moves.drain(..) {
        while let Some(last) = done.pop_if(|last| {
            last.block == one.block.buddy()
                && last.block < one.block
                && (last.from, last.to, last.why) == (one.from, one.to, one.why)
        }) {
            one.block = last.block.parent();
        }
        done.push(one);
    }
    *moves = done;
}

/// The load of the hottest slice of a block.
fn heat(demand: &Demand, block: Block) -> u32 {
    demand.load.range(block.range()).map(|(_, &load)| load).max().unwrap_or(0)
}

/// The moves that the budget allows; those of orphans always.
fn within(moves: impl Iterator<Item = Move>, budget: &Budget) -> Plan {
    let mut plan = Plan::default();
    let mut left = budget.slices;
    for one in moves {
        let slices = one.block.slices();
        if one.why == Why::Orphaned {
            plan.moves.push(one);
            left = left.saturating_sub(slices);
        } else {
            let some = slices.min(left);
            left -= some;
            plan.postponed += slices - some;
            let parts = blocks_of(one.block.first..one.block.first + some, one.block.order);
            plan.moves.extend(parts.map(|block| Move { block, ..one }));
        }
    }
    plan
}
