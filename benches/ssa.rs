//! How long one address takes, as a sidecar pays it: once per connection to compute, once per connection to check.
//!
//! Unit: nanoseconds per address, one thread, inputs in cache. The random bits come from a generator of two
//! instructions, so that the figures are those of the rule; a real draw is `draw/kernel-seeded` on top.
//!
//! What it means: at 60 ns an address, 10,000 connections a second cost 0.06 % of one core. `work` grows with two to
//! the power of its zero bits, on the client alone.
//!
//! `cargo bench --profile dist --bench ssa`

#![allow(clippy::unwrap_used, reason = "the rules below are constants")]

use std::hint::black_box;
use std::net::Ipv6Addr;

use criterion::{Criterion, criterion_group, criterion_main};
use funicular::model::UnixSeconds;
use funicular::model::ssa::{AplItem, Inputs, Known, Rule, Secret, Space};

const ONE: &str = "2:2001:db8:5:1::/64";
const CUT: &str = "2:2001:db8:5:1::/64 !2:2001:db8:5:1:8000::/72";
const FOUR: &str = "2:2001:db8:5::/64 2:2001:db8:6::/64 2:2001:db8:7::/64 2:2001:db8:8::/64";

/// Name, space, rule.
const RULES: [(&str, &str, &str); 9] = [
    ("random", ONE, "v=ssa1"),
    ("source", ONE, "v=ssa1 layout=source:0-64"),
    ("source-hash", ONE, "v=ssa1 layout=source-hash:14/64,random:50"),
    ("source-hash/cut-out", CUT, "v=ssa1 layout=source-hash:14/64,random:50"),
    ("source-hash/4-prefixes", FOUR, "v=ssa1 layout=source-hash:14/64,random:50"),
    ("content-hash", ONE, "v=ssa1 layout=content-hash:64"),
    ("content-hash/3-replicas", ONE, "v=ssa1 layout=content-hash:64 replicas=3"),
    ("hop", ONE, "v=ssa1 layout=hop:64 secret=s"),
    ("work-8", ONE, "v=ssa1 layout=random:32,work:32/8"),
];

fn addresses(criterion: &mut Criterion) {
    let secret = Secret::new([7; 16]);
    let inputs = Inputs {
        source: Ipv6Addr::new(0x2001, 0xdb8, 0x77, 1, 2, 3, 4, 5),
        content: b"/objects/0123456789abcdef",
        secret: Some(&secret),
        now: UnixSeconds(1_700_000_000),
    };
    let known = Known {
        source: Some(inputs.source),
        content: Some(inputs.content),
        secret: inputs.secret,
        now: Some(inputs.now),
    };
    let mut state = 1_u128;
    let mut draw = move || {
        state = state.wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645).wrapping_add(1);
        state
    };
    for (name, items, text) in RULES {
        let space = AplItem::list(items).and_then(|items| Space::new(&items)).unwrap();
        let rule = Rule::parse(text, &space).unwrap();
        criterion.bench_function(&format!("compute/{name}"), |bencher| {
            bencher.iter(|| black_box(&rule).compute(&space, black_box(&inputs), 0, &mut draw));
        });
        let address = rule.compute(&space, &inputs, 0, &mut draw).unwrap();
        assert_eq!(rule.check(&space, address, &known), Ok(()));
        criterion.bench_function(&format!("check/{name}"), |bencher| {
            bencher.iter(|| black_box(&rule).check(&space, black_box(address), black_box(&known)));
        });
    }
    criterion.bench_function("draw/kernel-seeded", |bencher| bencher.iter(funicular::ops::entropy::draw));
}

criterion_group!(benches, addresses);
criterion_main!(benches);
