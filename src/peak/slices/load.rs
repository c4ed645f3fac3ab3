//! Which slices are hot: what sidecars tell with their renewals, in the leader's memory alone.
//!
//! Between two renewals there may be a few connections, and who has how many of them is chance. So what was told fades:
//! each renewal takes an eighth of it away and adds what is new, and what stands there is about the last eight. Load is
//! a hint: it is not replicated, and whoever begins to lead learns it anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::model::Name;
use crate::model::ssa::plan::PodId;

/// Connections begun at a pod lately, by slice.
type OfPod = BTreeMap<Name, BTreeMap<u32, u32>>;

/// The load of all services. Clones share it.
#[derive(Clone, Debug, Default)]
pub(in crate::peak) struct Load(Arc<Mutex<BTreeMap<PodId, OfPod>>>);

impl Load {
    /// What one pod has borne since it was last heard of.
    pub(super) fn note(&self, pod: PodId, load: OfPod) {
        let mut all = self.0.lock();
        let known = all.entry(pod).or_default();
        for of_service in known.values_mut() {
            of_service.retain(|_, connections| {
                *connections = (u64::from(*connections) * 7 / 8) as u32;
                *connections > 0
            });
        }
        for (service, told) in load {
            let of_service = known.entry(service).or_default();
            for (slice, connections) in told {
                let of_one = of_service.entry(slice).or_insert(0);
                *of_one = of_one.saturating_add(connections);
            }
        }
    }

    /// The pod is not heard any more.
    pub(super) fn forget(&self, pod: PodId) {
        self.0.lock().remove(&pod);
    }

    /// This node leads no longer, or begins to.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }

    /// The load of one service's slices; a slice that is not there bears none that is worth telling.
    pub(super) fn of(&self, service: &Name) -> BTreeMap<u32, u32> {
        let mut all = BTreeMap::new();
        for of_pod in self.0.lock().values() {
            for (&slice, &connections) in of_pod.get(service).into_iter().flatten() {
                let of_one = all.entry(slice).or_insert(0_u32);
                *of_one = of_one.saturating_add(connections);
            }
        }
        all
    }

    /// The hottest slices of a service, the hottest first: those that bear more than a tenth of what each of `pods` pods
    /// would bear if all bore alike, and enough that it is no chance.
    pub(super) fn hot(&self, service: &Name, pods: usize) -> Vec<(u32, u32)> {
        let load = self.of(service);
        let total: u64 = load.values().map(|&connections| u64::from(connections)).sum();
        let is_hot = |connections: u32| connections >= LEAST && u64::from(connections) * 10 * pods as u64 > total;
        let mut hot: Vec<_> = load.into_iter().filter(|&(_, connections)| is_hot(connections)).collect();
        hot.sort_unstable_by_key(|&(slice, connections)| (std::cmp::Reverse(connections), slice));
        hot.truncate(MOST);
        hot
    }
}

/// Fewer connections than this say nothing.
const LEAST: u32 = 10;
/// So many are shown.
const MOST: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_hot_that_bears_a_tenth_of_an_equal_share_and_no_less() {
        let (load, service): (Load, Name) = (Load::default(), "orders.shop.peak".parse().unwrap());
        let of = |slices: &[(u32, u32)]| OfPod::from([(service.clone(), slices.iter().copied().collect())]);
        load.note(PodId(1), of(&[(3, 700), (4, 50)]));
        load.note(PodId(2), of(&[(9, 251), (10, 9)]));
        // 1,010 in all: of each of two pods' equal shares a tenth is 50.5.
        assert_eq!(load.hot(&service, 2), [(3, 700), (9, 251)]);
        load.forget(PodId(1));
        assert_eq!(load.hot(&service, 200), [(9, 251)], "nine connections may be chance");
        load.clear();
        assert!(load.of(&service).is_empty());
    }

    #[test]
    fn what_was_told_fades_and_what_is_told_again_and_again_does_not_grow_without_end() {
        let (load, service): (Load, Name) = (Load::default(), "orders.shop.peak".parse().unwrap());
        for _ in 0..100 {
            load.note(PodId(1), OfPod::from([(service.clone(), BTreeMap::from([(3, 80)]))]));
        }
        let lasting = load.of(&service)[&3];
        assert!((600..=640).contains(&lasting), "eight renewals' worth: {lasting}");
        for _ in 0..60 {
            load.note(PodId(1), OfPod::new());
        }
        assert!(load.of(&service).is_empty());
    }
}
