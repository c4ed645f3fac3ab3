//! What holds for every plan, over histories of any kind, and what a service's routes come to over its life.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// A service and its pods, for tests that let time pass.
struct Service {
    ownership: Ownership,
    demand: Demand,
    born: u64,
    random: u64,
}

impl Service {
    fn new(prefixes: u32, slice_bits: u8, pods: usize) -> Self {
        let ownership = Ownership::vacant(prefixes, slice_bits).unwrap();
        let mut service = Self { ownership, demand: Demand::default(), born: 0, random: 0x9e37_79b9_7f4a_7c15 };
        service.scale(pods);
        service.step(&Budget::DUE);
        service
    }

    /// A number below `bound`, from a generator of three shifts.
    fn below(&mut self, bound: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 16) as usize % bound
    }

    /// Pods are born with new numbers, and any of them may end.
    fn scale(&mut self, pods: usize) {
        while self.demand.pods.len() > pods {
            let at = self.below(self.demand.pods.len());
            let ended = self.demand.pods.keys().nth(at).copied();
            ended.map(|pod| self.demand.pods.remove(&pod));
        }
        while self.demand.pods.len() < pods {
            self.demand.pods.insert(PodId(self.born), Pod::EQUAL);
            self.born += 1;
        }
    }

    fn step(&mut self, budget: &Budget) -> Plan {
        let plan = plan(&self.ownership, &self.demand, budget);
        self.ownership.apply(&plan.moves);
        plan
    }

    /// Prefixes per pod, on average.
    fn prefixes(&self) -> f64 {
        let holdings = self.ownership.holdings();
        holdings.values().map(|holding| f64::from(holding.prefixes)).sum::<f64>() / holdings.len() as f64
    }
}

/// The least that any plan for these shares moves: by weights and largest remainders, ties to whoever has the slices.
fn least(ownership: &Ownership, demand: &Demand) -> u32 {
    let pods = Sharing::of(demand);
    let held = |pod| ownership.holdings().get(pod).map_or(0, |holding: &Holding| holding.slices);
    let total: u64 = pods.weights.iter().map(|&weight| u64::from(weight)).sum();
    let slices = u64::from(ownership.slices());
    let mut shares: Vec<_> = std::iter::zip(&pods.pods, &pods.weights)
        .map(|(pod, &weight)| {
            (slices * u64::from(weight) % total, (slices * u64::from(weight) / total) as u32, held(pod))
        })
        .collect();
    let rest = ownership.slices() - shares.iter().map(|(_, down, _)| down).sum::<u32>();
    shares.sort_by_key(|&(remainder, down, held)| std::cmp::Reverse((remainder, held > down)));
    let quota = |(at, &(_, down, held)): (usize, &(u64, u32, u32))| held.min(down + u32::from(at < rest as usize));
    ownership.slices() - shares.iter().enumerate().map(quota).sum::<u32>()
}

/// Whether each pod's share is exact, rounded down or up.
fn is_fair(ownership: &Ownership, demand: &Demand) -> bool {
    let pods = Sharing::of(demand);
    let total: u64 = pods.weights.iter().map(|&weight| u64::from(weight)).sum();
    let holdings = ownership.holdings();
    holdings.keys().all(|pod| pods.pods.contains(pod))
        && std::iter::zip(&pods.pods, &pods.weights).all(|(pod, &weight)| {
            let exact = u64::from(ownership.slices()) * u64::from(weight);
            let held = u64::from(holdings.get(pod).map_or(0, |holding| holding.slices));
            held == exact / total || held == exact.div_ceil(total)
        })
}

/// One event in the life of a service: the pod it is about, and what becomes of it.
fn events() -> impl Strategy<Value = Vec<(u64, Option<Pod>)>> {
    let state = prop_oneof![6 => Just(PodState::Serving), 1 => Just(PodState::Draining), 1 => Just(PodState::Failed)];
    let weight = prop_oneof![3 => Just(1_u32), 1 => 0_u32..5, 1 => any::<u32>()];
    let pod =
        prop_oneof![4 => (weight, state).prop_map(|(weight, state)| Some(Pod { weight, state })), 1 => Just(None)];
    prop::collection::vec((0_u64..24, pod), 1..12)
}

proptest! {
    #[test]
    fn after_any_history_every_slice_is_owned_shares_are_exact_and_the_fewest_slices_moved(
        prefixes in 1_u32..4, slice_bits in 0_u8..9, history in prop::collection::vec(events(), 1..8), spare in 0_u32..40,
    ) {
        let mut ownership = Ownership::vacant(prefixes, slice_bits).unwrap();
        let mut demand = Demand::default();
        for events in history {
            for (pod, state) in events {
                match state {
                    Some(state) => demand.pods.insert(PodId(pod), state),
                    None => demand.pods.remove(&PodId(pod)),
                };
            }
            let budget = Budget { defragment: spare, ..Budget::DUE };
            let plan = plan(&ownership, &demand, &budget);
            if Sharing::of(&demand).pods.is_empty() {
                prop_assert_eq!(plan, Plan::default());
                continue;
            }
            let least = least(&ownership, &demand);
            prop_assert!((least..=least + spare).contains(&plan.slices()), "{} moved, {least} due", plan.slices());
            for one in &plan.moves {
                prop_assert!(one.from != Some(one.to));
                prop_assert!(one.block.range().all(|slice| ownership.owner(slice) == one.from));
            }
            prop_assert!(plan.moves.is_sorted_by_key(|one| one.why));
            ownership.apply(&plan.moves);
            prop_assert!(ownership.runs().all(|(_, owner)| owner.is_some()));
            prop_assert!(is_fair(&ownership, &demand));
            prop_assert_eq!(least_again(&ownership, &demand), 0);
        }
    }

    #[test]
    fn a_budget_only_postpones(
        slice_bits in 4_u8..9, pods in 2_usize..20, later in 1_usize..20, slices in 1_u32..20, spare in 0_u32..20,
    ) {
        let mut service = Service::new(1, slice_bits, pods);
        service.scale(later);
        let due = least(&service.ownership, &service.demand);
        let budget = Budget { slices, defragment: spare, ..Budget::DUE };
        let (mut moved, mut spent) = (0, 0);
        loop {
            let plan = service.step(&budget);
            let orphans = plan.slices_for(Why::Orphaned);
            prop_assert!(service.ownership.runs().all(|(_, owner)| owner.is_some()));
            prop_assert!(plan.slices() <= slices.max(orphans));
            moved += plan.slices();
            spent += spare;
            if plan.postponed == 0 {
                break;
            }
        }
        prop_assert!(moved >= due && moved <= due + spent, "{moved} moved, {due} due");
        prop_assert!(is_fair(&service.ownership, &service.demand));
    }

    #[test]
    fn exchanging_for_load_changes_no_share_and_cools_the_hottest(
        loads in prop::collection::btree_map(0_u32..256, 0_u32..1_000, 1..80), pods in 2_usize..12, slices in 0_u32..60,
    ) {
        let mut service = Service::new(1, 8, pods);
        let shares: Vec<_> = service.ownership.holdings().values().map(|holding| holding.slices).collect();
        service.demand.load = loads;
        let before = hottest(&service);
        let plan = service.step(&Budget { slices, ..Budget::DUE });
        prop_assert!(plan.slices() <= slices && plan.slices_for(Why::Load) == plan.slices());
        let after: Vec<_> = service.ownership.holdings().values().map(|holding| holding.slices).collect();
        prop_assert_eq!(shares, after);
        prop_assert!(hottest(&service) <= before);
    }
}

fn least_again(ownership: &Ownership, demand: &Demand) -> u32 {
    plan(ownership, demand, &Budget::DUE).slices()
}

/// The load of the pod that bears most.
fn hottest(service: &Service) -> u32 {
    let mut loads = BTreeMap::new();
    for (&slice, load) in &service.demand.load {
        *loads.entry(service.ownership.owner(slice)).or_insert(0) += load;
    }
    loads.values().copied().max().unwrap_or(0)
}

#[test]
fn a_new_service_has_the_fewest_prefixes_that_its_shares_can_have() {
    for pods in [1, 3, 10, 100, 1_000] {
        let service = Service::new(1, 14, pods);
        let holdings = service.ownership.holdings();
        assert!(holdings.values().all(|holding| holding.prefixes == holding.slices.count_ones()), "{pods} pods");
    }
    assert!(Service::new(1, 14, 10).prefixes() <= 6.4);
    assert!(Service::new(1, 14, 1_000).prefixes() <= 1.4);
}

#[test]
fn after_two_hundred_steps_between_10_and_1000_pods_prefixes_stay_few_and_every_step_moved_the_least() {
    let mut service = Service::new(1, 14, 100);
    for step in 0..200 {
        let pods = 10 + service.below(991);
        service.scale(pods);
        let least = least_of_equal(&service);
        let plan = service.step(&Budget::DUE);
        assert_eq!(plan.slices(), least, "step {step} to {pods} pods");
        assert!(is_fair(&service.ownership, &service.demand));
    }
    for (pods, most) in [(1_000, 6.2 * 1.5), (10, 10.0 * 1.5)] {
        service.scale(pods);
        service.step(&Budget::DUE);
        assert!(service.prefixes() <= most, "{} prefixes a pod at {pods}", service.prefixes());
    }
}

/// As [`least`], for pods of equal weight, of which there may be many.
fn least_of_equal(service: &Service) -> u32 {
    let (slices, pods) = (service.ownership.slices(), service.demand.pods.len() as u32);
    let holdings = service.ownership.holdings();
    let mut larger = slices % pods;
    let mut stay = 0;
    for (pod, holding) in holdings {
        if service.demand.pods.contains_key(&pod) {
            let keeps_one_more = holding.slices > slices / pods && larger > 0;
            larger -= u32::from(keeps_one_more);
            stay += holding.slices.min(slices / pods + u32::from(keeps_one_more));
        }
    }
    slices - stay
}

#[test]
fn a_pod_more_and_a_pod_less_leave_no_fragment_behind() {
    let mut service = Service::new(1, 14, 1_000);
    for pods in [1_001, 1_000, 1_002, 999, 1_000] {
        service.scale(pods);
        service.step(&Budget::DUE);
    }
    assert!(service.prefixes() <= 1.4, "{}", service.prefixes());
}

#[test]
fn spare_moves_make_prefixes_fewer_and_never_exceed_their_budget() {
    let mut service = Service::new(1, 10, 40);
    for pods in [7, 31, 12, 40, 9] {
        service.scale(pods);
        service.step(&Budget::DUE);
    }
    let before = service.prefixes();
    let plan = service.step(&Budget { defragment: 64, ..Budget::DUE });
    assert!(plan.slices() <= 64 && plan.slices() == plan.slices_for(Why::Defragment));
    assert!(service.prefixes() < before, "{} were {before}", service.prefixes());
}

#[test]
fn orphans_come_first_then_drains_then_balance() {
    let mut service = Service::new(1, 8, 4);
    service.demand.pods.insert(PodId(0), Pod { weight: 1, state: PodState::Failed });
    service.demand.pods.insert(PodId(1), Pod { weight: 1, state: PodState::Draining });
    service.demand.pods.insert(PodId(2), Pod { weight: 9, state: PodState::Serving });
    for pod in 10..13 {
        service.demand.pods.insert(PodId(pod), Pod { weight: 3, state: PodState::Serving });
    }
    let plan = service.step(&Budget::DUE);
    let mut why: Vec<_> = plan.moves.iter().map(|one| one.why).collect();
    why.dedup();
    assert_eq!(why, [Why::Orphaned, Why::Drained, Why::Balance]);
    assert_eq!(plan.slices_for(Why::Drained), 64);
}

#[test]
fn the_hottest_slices_move_first() {
    let mut service = Service::new(1, 8, 4);
    service.demand.pods.insert(PodId(1), Pod { weight: 1, state: PodState::Draining });
    let of_one: Vec<_> = (0..256).filter(|&slice| service.ownership.owner(slice) == Some(PodId(1))).collect();
    service.demand.load = BTreeMap::from([(of_one[40], 7), (of_one[9], 3)]);
    let plan = service.step(&Budget { load: Hysteresis { begin: 1_000, end: 1_000 }, ..Budget::DUE });
    assert!(plan.moves[0].block.range().contains(&of_one[40]));
}

#[test]
fn load_moves_nothing_until_a_pod_bears_too_much_and_then_until_none_does() {
    let mut service = Service::new(1, 8, 4);
    let of_one: Vec<_> = (0..256).filter(|&slice| service.ownership.owner(slice) == Some(PodId(1))).collect();
    service.demand.load = (0..256).map(|slice| (slice, 10)).collect();
    service.demand.load.extend(of_one.iter().map(|&slice| (slice, 16)));
    // The pod bears 1,024 of 2,944, which is 39 % above its share of 736.
    assert_eq!(service.step(&Budget::DUE), Plan::default());
    let plan = service.step(&Budget { load: Hysteresis { begin: 39, end: 20 }, ..Budget::DUE });
    assert!(plan.slices_for(Why::Load) > 0 && plan.slices() == plan.slices_for(Why::Load));
    assert!(hottest(&service) * 100 <= 736 * 120);
}

#[test]
fn a_service_whose_pods_all_drain_goes_on_being_served() {
    let mut service = Service::new(1, 6, 2);
    for pod in service.demand.pods.values_mut() {
        pod.state = PodState::Draining;
    }
    assert_eq!(service.step(&Budget::DUE), Plan::default());
    service.demand.pods.remove(&PodId(0));
    service.step(&Budget::DUE);
    assert_eq!(service.ownership.runs().collect::<Vec<_>>(), [(0..64, Some(PodId(1)))]);
}

#[test]
fn pods_that_may_keep_one_slice_more_and_all_do_give_none() {
    let mut service = Service::new(1, 5, 5);
    service.scale(10);
    while service.step(&Budget { slices: 13, ..Budget::DUE }).postponed > 0 {}
    assert!(is_fair(&service.ownership, &service.demand));
    assert_eq!(service.step(&Budget::DUE), Plan::default());
}

#[test]
fn without_a_living_pod_nothing_moves() {
    let mut service = Service::new(1, 6, 2);
    service.demand.pods.clear();
    assert_eq!(service.step(&Budget::DUE), Plan::default());
}
