//! Everything that is left to chance in one run, from its seed; and the wall clock, which jumps.
//!
//! A run has a thread of its own for as long as it lasts, so chance and clock are the thread's.

use std::cell::Cell;
use std::time::Duration;

use funicular::model::UnixMillis;
use tokio::time::Instant;

thread_local! {
    static STATE: Cell<u64> = const { Cell::new(0) };
    static START: Cell<Option<Instant>> = const { Cell::new(None) };
    static AHEAD: Cell<i64> = const { Cell::new(0) };
}

/// When every run begins, by the wall clock.
const EPOCH: i64 = 1_800_000_000_000;

/// Begins a run. To be called on its runtime.
pub(super) fn begin(seed: u64) {
    STATE.set(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    START.set(Some(Instant::now()));
    AHEAD.set(0);
}

/// The next of SplitMix64 (Steele, Lea and Flood, 2014).
pub(super) fn next() -> u64 {
    let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(state);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A number below `end`.
pub(super) fn below(end: u64) -> u64 {
    next() % end.max(1)
}

/// A number of `from..=to`.
pub(super) fn between(from: u64, to: u64) -> u64 {
    from + below(to - from + 1)
}

/// True so many times in a thousand.
pub(super) fn chance(per_mille: u64) -> bool {
    below(1_000) < per_mille
}

/// What the nodes draw.
pub(super) fn draw() -> u128 {
    u128::from(next()) << 64 | u128::from(next())
}

/// What the nodes' clocks say: the machines' clocks are all a little off.
pub(super) fn clock() -> UnixMillis {
    let since = START.get().map_or(0, |start| start.elapsed().as_millis() as i64);
    UnixMillis((EPOCH + since + AHEAD.get() + below(20) as i64).max(0) as u64)
}

/// How long the run has lasted.
pub(super) fn elapsed() -> Duration {
    START.get().map_or(Duration::ZERO, |start| start.elapsed())
}

/// Puts the clocks forward, or back.
pub(super) fn jump(milliseconds: i64) {
    AHEAD.set(AHEAD.get() + milliseconds);
}
