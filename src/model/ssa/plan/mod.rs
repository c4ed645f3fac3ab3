//! The planner: from who owns which slice, and who should, to an ordered list of moves.
//!
//! ```text
//! owners ─┐            quota          release         receive         tidy              heat
//! pods   ─┼─ board ──  how many  ───  which go  ────  who takes  ───  fewer prefixes ──  hot against cold ── moves
//! budget ─┘            each           where it has    which           by exchange        by exchange         in order
//! ```
//!
//! What holds for every plan:
//! - After it every slice has an owner that lives, as long as one pod lives.
//! - Each pod has its exact share rounded down or up, by largest remainders.
//! - No other plan with such shares moves fewer slices; only what the budget allows for fewer prefixes, and for load,
//!   comes on top.
//! - The same question has the same answer, on every machine.
//!
//! It decides what moves, not when nor how; a plan that was carried out in part is followed by a new one, which goes on
//! where that one ended.

mod board;
mod demand;
mod heat;
mod moves;
mod ownership;
mod quota;
mod receive;
mod release;
#[cfg(test)]
mod tests;
mod tidy;

pub use demand::{Budget, Demand, Hysteresis, Pod, PodState};
pub use moves::{Move, Plan, Why};
pub use ownership::{BadSize, Block, Holding, MOST_SLICES, Ownership, PodId, blocks_of};

use board::Board;
use quota::Quotas;

/// Plans how `demand` is met from `ownership`.
///
/// With no pod alive there is nobody to move anything to, and the plan is empty.
#[must_use]
pub fn plan(ownership: &Ownership, demand: &Demand, budget: &Budget) -> Plan {
    let sharing = Sharing::of(demand);
    if sharing.pods.is_empty() {
        return Plan::default();
    }
    let before = Board::new(ownership, &sharing.pods);
    let mut board = before.clone();
    let held: Vec<u32> = (0..sharing.pods.len()).map(|pod| board.slices_of(pod)).collect();
    let quotas = quota::quotas(ownership.slices(), &sharing.weights, &held);
    release::release(&mut board, &quotas);
    let mut board = received(&board, &before, &quotas);
    let due = board.clone();
    let stays = |(pod, &held): (usize, &u32)| held.min(due.slices_of(pod));
    let moved = ownership.slices() - held.iter().enumerate().map(stays).sum::<u32>();
    // Exchanges are made whole or not at all, so they have what the moves that are due leave.
    let spare = budget.slices.saturating_sub(moved);
    let defragment = budget.defragment.min(spare);
    // Without a budget nothing is left to exchange.
    let left = if defragment > 0 { tidy::tidy(&mut board, &before, defragment) } else { 0 };
    let spent = defragment.saturating_sub(left);
    let tidied = board.clone();
    heat::spread(&mut board, demand, &sharing.weights, budget.load, spare - spent);
    moves::list(ownership, demand, &sharing.pods, [&due, &tidied, &board], budget)
}

/// The free slices given to pods, in whichever of two ways makes fewer prefixes: with care for large blocks, which suits
/// whole free blocks, or by growing what pods have, which suits many fragments.
fn received(released: &Board, before: &Board, quotas: &Quotas) -> Board {
    let in_order = |order| {
        let mut board = released.clone();
        receive::receive(&mut board, quotas, order);
        tidy::tidy(&mut board, before, 0);
        board
    };
    let [careful, growing] = [receive::Order::LargestFirst, receive::Order::GrowingFirst].map(in_order);
    if growing.prefixes() < careful.prefixes() { growing } else { careful }
}

/// The pods that share the slices.
struct Sharing {
    /// In order. Those that are not to have any are not among them.
    pods: Vec<PodId>,
    /// Of each, above 0.
    weights: Vec<u32>,
}

impl Sharing {
    /// Those that stay, by weight. Where none of them has a weight: equally; where none stays: the draining ones,
    /// equally, for someone must serve.
    fn of(demand: &Demand) -> Self {
        let in_state = |state: PodState| demand.pods.iter().filter(move |(_, pod)| pod.state == state);
        let weighted: Vec<_> =
            in_state(PodState::Serving).filter(|(_, pod)| pod.weight > 0).map(|(&id, pod)| (id, pod.weight)).collect();
        let equally = |state| in_state(state).map(|(&id, _)| (id, 1)).collect::<Vec<_>>();
        let sharing = [weighted, equally(PodState::Serving), equally(PodState::Draining)];
        let sharing = sharing.into_iter().find(|pods| !pods.is_empty()).unwrap_or_default();
        let (pods, weights) = sharing.into_iter().unzip();
        Self { pods, weights }
    }
}
