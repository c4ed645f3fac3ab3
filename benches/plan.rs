//! How long the planner takes, which the leader pays at each change of a service's pods, and how many prefixes pods
//! have over the life of a service.
//!
//! Unit: microseconds per plan, one thread. `one-more/1000` is a service of 2^14 slices and 1,000 pods that gets
//! another; `one-more/10000` of 2^17 slices and 10,000 pods. The target for the first is 2 ms: a hundred such changes a
//! second cost 20 % of one core.
//!
//! `cargo bench --bench plan`; before the times it prints the table of the manual's chapter on slices, which is of
//! FUNICULAR_HISTORIES=40.

#![allow(clippy::unwrap_used, reason = "the sizes below are constants")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use funicular::model::ssa::plan::{Budget, Demand, Ownership, PodId, plan};

/// A service and the numbers of its pods.
struct Service {
    ownership: Ownership,
    pods: Vec<u64>,
    born: u64,
    random: u64,
}

impl Service {
    fn new(slice_bits: u8, pods: usize, seed: u64) -> Self {
        let ownership = Ownership::vacant(1, slice_bits).unwrap();
        let mut service = Self { ownership, pods: Vec::new(), born: 0, random: seed };
        service.scale(pods, &Budget::DUE);
        service
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 16) as usize % bound
    }

    fn demand(&self) -> Demand {
        Demand::equal(self.pods.iter().copied().map(PodId))
    }

    fn scale(&mut self, pods: usize, budget: &Budget) {
        while self.pods.len() > pods {
            let at = self.below(self.pods.len());
            self.pods.swap_remove(at);
        }
        while self.pods.len() < pods {
            self.pods.push(self.born);
            self.born += 1;
        }
        let plan = plan(&self.ownership, &self.demand(), budget);
        self.ownership.apply(&plan.moves);
    }

    fn prefixes(&self) -> f64 {
        let holdings = self.ownership.holdings();
        holdings.values().map(|holding| f64::from(holding.prefixes)).sum::<f64>() / holdings.len() as f64
    }
}

/// Prefixes per pod, fresh and after 200 random steps, as an average over seeds.
fn life(slice_bits: u8, [few, many]: [usize; 2], seeds: u64, defragment: u32) {
    let budget = Budget { defragment, ..Budget::DUE };
    for end in [few, many] {
        let fresh = Service::new(slice_bits, end, 1).prefixes();
        let aged = (1..=seeds).map(|seed| {
            let mut service = Service::new(slice_bits, many / 10, seed * 0x9e37_79b9);
            for _ in 0..200 {
                let pods = few + service.below(many - few + 1);
                service.scale(pods, &budget);
            }
            service.scale(end, &budget);
            service.prefixes()
        });
        let aged = aged.sum::<f64>() / seeds as f64;
        println!("2^{slice_bits} slices, {end} pods, {defragment} spare: fresh {fresh:.2}, after 200 steps {aged:.2}");
    }
}

/// Over how many histories the table's averages are.
fn histories() -> u64 {
    std::env::var("FUNICULAR_HISTORIES").ok().and_then(|text| text.parse().ok()).unwrap_or(8)
}

fn plans(criterion: &mut Criterion) {
    for defragment in [0, 256] {
        life(14, [10, 1_000], histories(), defragment);
        life(17, [100, 10_000], 1, defragment);
    }
    for (slice_bits, pods) in [(14, 1_000), (17, 10_000)] {
        let service = Service::new(slice_bits, pods, 1);
        let mut demand = service.demand();
        demand.pods.extend(Demand::equal([PodId(u64::MAX)]).pods);
        criterion.bench_function(&format!("plan/one-more/{pods}"), |bencher| {
            bencher.iter(|| plan(black_box(&service.ownership), black_box(&demand), &Budget::DUE));
        });
    }
}

criterion_group!(benches, plans);
criterion_main!(benches);
