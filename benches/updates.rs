//! How long after an update was sent does the same server answer with it? In milliseconds, one update at a time, each
//! signed (hmac-sha256), over UDP, the zone's state on a disk and not in memory; Knot with the same zone and the same
//! client beside it, where it is installed.
//!
//! `acknowledged` is from sending the update to its reply, `visible` from sending it to the first answer that has it,
//! asked for again and again from the moment the update was sent. An operator who waits for `visible` before telling
//! somebody a name waits for nothing else.

#![allow(clippy::unwrap_used, reason = "a measurement that meets an error ends there")]
#![allow(missing_docs, reason = "a program, not a library")]

#[allow(dead_code, reason = "shared with the tests, which use more of it")]
#[path = "../tests/transfer/programs.rs"]
mod programs;
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
mod updater;

use std::time::{Duration, Instant};

use programs::{KEY, Server, address, is_installed, knotd, peak};

const ROUNDS: usize = 500;

fn main() {
    // Run by `cargo test --benches` as well, which only wants to know that it works.
    let rounds = if std::env::args().any(|argument| argument == "--bench") { ROUNDS } else { 3 };
    println!("update to answer at the same server, {rounds} updates, ms: median / p99");
    let zone = format!("  - name: shop.peak\n    file: shop.zone\n    allow_update: [{{ key: {KEY} }}]\n");
    report("funicular", &peak(address(), &zone), rounds);
    if is_installed("knotd") {
        let acl = format!("acl:\n  - id: all\n    key: {KEY}\n    action: [update]\n");
        let zone = "    file: primary.zone\n    acl: all\n    zonefile-sync: -1\n    journal-content: changes\n";
        let knot = knotd(address(), &acl, zone);
        knot.until_serial(7);
        report("knot", &knot, rounds);
    }
}

fn report(who: &str, server: &Server, rounds: usize) {
    let (mut acknowledged, mut visible) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let (one, other) = updater::round(server, round);
        acknowledged.push(one);
        visible.push(other);
    }
    println!("{who:10} acknowledged {}  visible {}", spread(acknowledged), spread(visible));
}

fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    format!("{:.3} / {:.3}", at(0.5), at(0.99))
}

/// Asks until `seen`, for no longer than a second.
fn poll(mut seen: impl FnMut() -> bool) -> Instant {
    let started = Instant::now();
    while !seen() {
        assert!(started.elapsed() < Duration::from_secs(1), "the update never shows");
    }
    Instant::now()
}
