//! What is counted of leases and slices.

use crate::model::registry::lease::{Ended, Planned};
use crate::model::ssa::plan::Why;
use crate::ops::metrics::{Counter, Counters, Label, Reason, Registry, labels};

labels! {
    /// How a lease ended.
    pub(super) enum End: "end" {
        /// It was not renewed.
        Expired = "expired",
        /// Its pod gave it back.
        Returned = "returned",
    }
}

/// What slices moved for.
#[derive(Clone, Copy, Debug)]
pub(super) struct For(Why);

impl Label for For {
    const NAME: &'static str = "for";

    fn value(&self) -> &str {
        self.0.reason()
    }
}

/// The counters. Clones share them.
#[derive(Clone)]
pub(super) struct Counts {
    pub(super) renewals: Counter,
    pub(super) refusals: Counters<Reason>,
    ended: Counters<End>,
    moved: Counters<For>,
}

impl Counts {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            renewals: registry.counter("funicular_lease_renewals_total", "Leases renewed."),
            refusals: registry
                .counters("funicular_lease_refusals_total", "Connections of sidecars that ended, by reason."),
            ended: registry.counters("funicular_leases_ended_total", "Leases that ended, by how."),
            moved: registry.counters("funicular_slices_moved_total", "Slices planned to move, by what for."),
        }
    }

    pub(super) fn ended(&self, why: Ended, count: usize) {
        let end = match why {
            Ended::Expired => End::Expired,
            Ended::Returned => End::Returned,
        };
        self.ended.with(&end).add(count as u64);
    }

    pub(super) fn planned(&self, moves: &[Planned]) {
        for planned in moves {
            let slices = planned.blocks.iter().map(|block| u64::from(block.slices())).sum();
            self.moved.with(&For(planned.why)).add(slices);
        }
    }
}
