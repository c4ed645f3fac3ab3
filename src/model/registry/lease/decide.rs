//! What the leader makes of leases and load: the handovers to begin now.
//!
//! The planner is asked from where everything under way will have ended, and what it says about slices that are still
//! under way waits until they have arrived.

use std::collections::BTreeMap;

use super::{Leases, Planned};
use crate::model::Name;
use crate::model::ssa::plan::{Block, Budget, Demand, Hysteresis, Move, PodId, Why, blocks_of, plan};

/// What is to be done for one service.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Decision {
    /// Handovers to begin, the most urgent first.
    pub moves: Vec<Planned>,
    /// Slices that are to move as well, once others have arrived or the budget allows.
    pub postponed: u32,
}

/// No load moves anything.
const NEVER: Hysteresis = Hysteresis { begin: u32::MAX, end: u32::MAX };

/// Decides for one service; `load` is by slice, `budget` bounds what is under way at once.
///
/// Exchanges for fewer prefixes or for load are whole or not at all, so there are none while anything is under way, or
/// where pins hold slices.
#[must_use]
pub fn decide(leases: &Leases, name: &Name, load: &BTreeMap<u32, u32>, budget: &Budget) -> Decision {
    let Some(service) = leases.service(name) else { return Decision::default() };
    let under_way: u32 = service.handovers().map(|(_, handover)| handover.slices()).sum();
    let calm = under_way == 0 && service.pins().is_empty();
    let budget = Budget {
        slices: budget.slices.saturating_sub(under_way),
        defragment: if calm { budget.defragment } else { 0 },
        load: if calm { budget.load } else { NEVER },
    };
    let demand = Demand { pods: leases.pods_of(name).collect(), load: load.clone() };
    let planned = plan(&service.aimed_at(), &demand, &budget);
    let mut decision = Decision { moves: Vec::new(), postponed: planned.postponed };
    let mut groups: BTreeMap<(Why, Option<PodId>, PodId), usize> = BTreeMap::new();
    let moving = service.moving();
    let stays = |block: Block| {
        let mine = |pin: &super::Pin| block.first < pin.block.range().end && pin.block.first < block.range().end;
        service.pins().iter().any(mine)
    };
    let mut add = |block: Block, from: Option<PodId>, one: &Move, decision: &mut Decision| {
        let at = *groups.entry((one.why, from, one.to)).or_insert_with(|| {
            decision.moves.push(Planned { blocks: Vec::new(), from, to: one.to, why: one.why });
            decision.moves.len() - 1
        });
        decision.moves[at].blocks.push(block);
    };
    for one in &planned.moves {
        // What is lost moves even from its pin.
        let free = |block: Block| !moving.touches(block) && (one.why == Why::Orphaned || !stays(block));
        if free(one.block) {
            add(one.block, one.from, one, &mut decision);
            continue;
        }
        for slice in one.block.range() {
            let block = Block { first: slice, order: 0 };
            if free(block) {
                add(block, one.from, one, &mut decision);
            } else {
                decision.postponed += 1;
            }
        }
    }
    for planned in &mut decision.moves {
        planned.blocks = joined(std::mem::take(&mut planned.blocks), service.slice_bits());
    }
    decision.moves.extend(pinned(leases, name));
    decision
}

/// Blocks as the fewest that hold the same slices.
fn joined(mut blocks: Vec<Block>, largest: u8) -> Vec<Block> {
    blocks.sort_unstable();
    let mut joined: Vec<Block> = Vec::with_capacity(blocks.len());
    let mut run: Option<std::ops::Range<u32>> = None;
    for block in blocks {
        match &mut run {
            Some(run) if run.end == block.first => run.end = block.range().end,
            _ => joined.extend(run.replace(block.range()).into_iter().flat_map(|run| blocks_of(run, largest))),
        }
    }
    joined.extend(run.into_iter().flat_map(|run| blocks_of(run, largest)));
    joined
}

/// Pinned slices that are not with their pod yet.
fn pinned(leases: &Leases, name: &Name) -> Vec<Planned> {
    let Some(service) = leases.service(name) else { return Vec::new() };
    let moving = service.moving();
    let mut moves = Vec::new();
    for pin in service.pins() {
        for (range, owner) in service.ownership().runs() {
            let part = range.start.max(pin.block.first)..range.end.min(pin.block.range().end);
            let Some(from) = owner.filter(|&owner| owner != pin.pod && part.start < part.end) else { continue };
            let blocks: Vec<Block> =
                blocks_of(part, service.slice_bits()).filter(|&block| !moving.touches(block)).collect();
            if !blocks.is_empty() {
                moves.push(Planned { blocks, from: Some(from), to: pin.pod, why: Why::Balance });
            }
        }
    }
    moves
}
