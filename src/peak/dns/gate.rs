//! Whether zones that are answered strictly may be answered at once.
//!
//! A leader of the registry knows for a moment ahead that nobody else can lead, and that it has all that was
//! acknowledged: until then the gate is open. Anybody else asks the leader first, and that takes its time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Shared by all workers; clones are the same gate.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<State>);

#[derive(Debug)]
struct State {
    start: Instant,
    /// Nanoseconds after `start` until which the gate is open.
    until: AtomicU64,
}

impl Gate {
    /// A gate that is closed.
    pub(crate) fn new() -> Self {
        Self(Arc::new(State { start: Instant::now(), until: AtomicU64::new(0) }))
    }

    /// Opens it for so long from now on, or closes it.
    pub(crate) fn open_for(&self, time: Option<Duration>) {
        let until = time.map_or(0, |time| (self.0.start.elapsed() + time).as_nanos() as u64);
        self.0.until.store(until, Ordering::Release);
    }

    /// Whether it is open now.
    pub(super) fn is_open(&self) -> bool {
        (self.0.start.elapsed().as_nanos() as u64) < self.0.until.load(Ordering::Acquire)
    }
}
