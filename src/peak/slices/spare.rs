//! What moves for fewer prefixes may cost, minute by minute.

use tokio::time::Instant;

use crate::model::registry::lease::Planned;
use crate::model::ssa::plan::Why;

/// How many slices may move for fewer prefixes: as many in a minute as are set, and never more than those at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spare {
    slices: f64,
    at: Instant,
}

impl Spare {
    pub(super) fn full(a_minute: u32, now: Instant) -> Self {
        Self { slices: f64::from(a_minute), at: now }
    }

    pub(super) fn left(&mut self, a_minute: u32, now: Instant) -> u32 {
        let most = f64::from(a_minute);
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.slices = (self.slices + most * since / 60.0).min(most);
        self.at = now;
        self.slices as u32
    }

    pub(super) fn spend(&mut self, moves: &[Planned]) {
        let spent = moves.iter().filter(|planned| planned.why == Why::Defragment);
        let slices: u32 = spent.flat_map(|planned| &planned.blocks).map(|block| block.slices()).sum();
        self.slices = (self.slices - f64::from(slices)).max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::ssa::plan::{Block, PodId};

    #[tokio::test(start_paused = true)]
    async fn no_more_moves_for_fewer_prefixes_than_a_minute_has_however_often_is_planned() {
        let now = Instant::now();
        let mut spare = Spare::full(60, now);
        assert_eq!(spare.left(60, now), 60);
        let blocks = vec![Block { first: 0, order: 5 }];
        let planned = |why| Planned { blocks: blocks.clone(), from: Some(PodId(1)), to: PodId(2), why };
        spare.spend(&[planned(Why::Defragment), planned(Why::Balance)]);
        assert_eq!(spare.left(60, now), 28, "what is due costs nothing");
        assert_eq!(spare.left(60, now + Duration::from_secs(2)), 30);
        assert_eq!(spare.left(60, now + Duration::from_secs(600)), 60);
    }
}
