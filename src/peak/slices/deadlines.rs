//! When leases end: the leader's memory of who has renewed.
//!
//! Renewals are not in the log. What keeps two pods from having one slice is this:
//!
//! - A renewal counts from when it *arrived*, and is answered only after a majority has said that this node still led
//!   *after* it arrived. A sidecar counts from when it *sent* it, which was earlier, and stops a margin sooner.
//! - Who begins to lead gives every lease its whole life from then on. Whatever an earlier leader answered was sent
//!   before this one led, so it runs out sooner.
//!
//! Times are of this node's monotonic clock; clocks need not agree, only run equally fast within the margin.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::ssa::plan::PodId;

/// When each lease ends.
#[derive(Debug)]
pub(super) struct Deadlines {
    life: Duration,
    ends: BTreeMap<PodId, Instant>,
    in_order: BTreeSet<(Instant, PodId)>,
}

impl Deadlines {
    pub(super) fn new(life: Duration) -> Self {
        Self { life, ends: BTreeMap::new(), in_order: BTreeSet::new() }
    }

    /// This node leads from `now` on: of these leases nobody knows when they were renewed.
    pub(super) fn lead(&mut self, now: Instant, pods: impl IntoIterator<Item = PodId>) {
        self.ends.clear();
        self.in_order.clear();
        for pod in pods {
            self.renew(pod, now);
        }
    }

    /// The lease was renewed by what arrived at `at`. An earlier time than is known changes nothing.
    pub(super) fn renew(&mut self, pod: PodId, at: Instant) {
        let end = at + self.life;
        match self.ends.get(&pod) {
            Some(&known) if known >= end => return,
            Some(&known) => {
                self.in_order.remove(&(known, pod));
            }
            None => {}
        }
        self.ends.insert(pod, end);
        self.in_order.insert((end, pod));
    }

    /// The lease is no more.
    pub(super) fn forget(&mut self, pod: PodId) {
        if let Some(end) = self.ends.remove(&pod) {
            self.in_order.remove(&(end, pod));
        }
    }

    /// Leases that have ended at `now`.
    pub(super) fn ended(&self, now: Instant) -> Vec<PodId> {
        self.in_order.iter().take_while(|&&(end, _)| end <= now).map(|&(_, pod)| pod).collect()
    }

    /// All whose end is known.
    pub(super) fn pods(&self) -> impl Iterator<Item = PodId> {
        self.ends.keys().copied()
    }

    /// When the next one ends.
    pub(super) fn next(&self) -> Option<Instant> {
        self.in_order.first().map(|&(end, _)| end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn a_lease_ends_its_life_after_what_renewed_it_arrived_and_not_before() {
        let mut deadlines = Deadlines::new(LIFE);
        let start = Instant::now();
        deadlines.lead(start, [PodId(1), PodId(2)]);
        deadlines.renew(PodId(1), start + Duration::from_secs(2));
        deadlines.renew(PodId(1), start + Duration::from_secs(1));
        assert!(deadlines.ended(start + LIFE - Duration::from_millis(1)).is_empty());
        assert_eq!(deadlines.ended(start + LIFE), [PodId(2)]);
        deadlines.forget(PodId(2));
        assert_eq!(deadlines.next(), Some(start + Duration::from_secs(7)));
        assert_eq!(deadlines.ended(start + Duration::from_secs(7)), [PodId(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_begins_to_lead_gives_every_lease_its_whole_life() {
        let mut deadlines = Deadlines::new(LIFE);
        let start = Instant::now();
        deadlines.lead(start, [PodId(1)]);
        deadlines.lead(start + Duration::from_secs(4), [PodId(1), PodId(3)]);
        assert!(deadlines.ended(start + Duration::from_secs(8)).is_empty());
        assert_eq!(deadlines.ended(start + Duration::from_secs(9)), [PodId(1), PodId(3)]);
    }
}
