//! Load: hot slices change places with cold ones.
//!
//! Shares stay as they are, slice for slice, so load moves nothing that a later plan for equal shares would move back.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::board::{Board, FREE};
use super::{Block, Demand, Hysteresis};

/// With less load than this for each pod, on average, that one bears half as much again may well be chance: of counts
/// that are as likely anywhere, one in 30,000 is so far off.
const TELLING: u64 = 64;

/// Exchanges slices until no pod bears too much, nothing helps any more, or `left` slices have moved.
///
/// Each exchange takes the hottest slice of the pod that bears most against its weight that makes the pod which bears
/// least not as hot as that one was. No slice moves twice.
pub(super) fn spread(board: &mut Board, demand: &Demand, weights: &[u32], hysteresis: Hysteresis, mut left: u32) {
    let mut loads = vec![0_u64; weights.len()];
    for (&slice, &load) in &demand.load {
        if let Some(of_pod) = loads.get_mut(board.around(slice).1) {
            *of_pod += u64::from(load);
        }
    }
    let burden = Burden { total: loads.iter().sum(), weights, weight: weights.iter().map(|&w| u64::from(w)).sum() };
    if burden.total < TELLING * weights.len() as u64 {
        return;
    }
    if !(0..weights.len()).any(|pod| burden.exceeds(loads[pod], pod, hysteresis.begin)) {
        return;
    }
    let end = hysteresis.end.min(hysteresis.begin);
    let mut moved = BTreeSet::new();
    while left >= 2 {
        let hottest = (0..loads.len()).max_by_key(|&pod| (burden.against_weight(loads[pod], pod), Reverse(pod)));
        let coldest = (0..loads.len()).min_by_key(|&pod| (burden.against_weight(loads[pod], pod), pod));
        let (Some(hot), Some(cold)) = (hottest, coldest) else { return };
        if !burden.exceeds(loads[hot], hot, end) {
            return;
        }
        let Some((coolest, its_load)) = coolest(board, demand, cold, &moved) else { return };
        let hottest = hottest_first(board, demand, hot).into_iter().find(|&(slice, load)| {
            let more = u64::from(load.saturating_sub(its_load));
            let then = burden.against_weight(loads[cold] + more, cold);
            more > 0 && !moved.contains(&slice) && then < burden.against_weight(loads[hot], hot)
        });
        let Some((slice, load)) = hottest else { return };
        board.give(Block { first: slice, order: 0 }, cold);
        board.give(Block { first: coolest, order: 0 }, hot);
        moved.extend([slice, coolest]);
        loads[hot] -= u64::from(load - its_load);
        loads[cold] += u64::from(load - its_load);
        left -= 2;
    }
}

/// What each pod should bear.
struct Burden<'w> {
    total: u64,
    weights: &'w [u32],
    weight: u64,
}

impl Burden<'_> {
    /// Whether a load is more than `percent` above the pod's share.
    fn exceeds(&self, load: u64, pod: usize, percent: u32) -> bool {
        let share = u128::from(self.total) * u128::from(self.weights[pod]);
        u128::from(load) * u128::from(self.weight) * 100 > share * (100 + u128::from(percent))
    }

    /// Orders pods by load for each unit of weight.
    fn against_weight(&self, load: u64, pod: usize) -> u128 {
        (u128::from(load) << 32) / u128::from(self.weights[pod].max(1))
    }
}

/// A pod's slices that have a load, the hottest first.
fn hottest_first(board: &Board, demand: &Demand, pod: usize) -> Vec<(u32, u32)> {
    let of_block = |block: Block| demand.load.range(block.range()).map(|(&slice, &load)| (slice, load));
    let mut slices: Vec<_> = board.blocks_of(pod).flat_map(of_block).collect();
    slices.sort_unstable_by_key(|&(slice, load)| (Reverse(load), slice));
    slices
}

/// The slice with the least load that a pod holds and that has not moved; of equal ones the one in the smallest block.
fn coolest(board: &Board, demand: &Demand, pod: usize, moved: &BTreeSet<u32>) -> Option<(u32, u32)> {
    debug_assert!(pod != FREE, "what is free bears no load");
    let slices = board.blocks_of(pod).flat_map(Block::range).filter(|slice| !moved.contains(slice));
    slices.map(|slice| (slice, demand.load.get(&slice).copied().unwrap_or(0))).min_by_key(|&(_, load)| load)
}
