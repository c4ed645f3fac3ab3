//! The memory budget: peers wait instead of the sidecar growing.
//!
//! ```text
//! within ──over the budget──▶ short: nothing is accepted, little is read ahead ──under it again──▶ within
//! ```
//!
//! What counts is the process's resident memory, as the kernel has it; that is what the pod's limit counts too. It is
//! looked at when a connection arrives, and now and then while there are any; an idle sidecar does nothing. Memory that
//! the allocator holds back is given up before anybody has to wait for it, and when many connections have gone.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::net::copy;
use crate::net::sys::heap;
use crate::ops::process;

/// How old a measurement may be.
const FRESH: Duration = Duration::from_millis(20);
/// How often memory is looked at while more than half of the budget is in use.
const ROUND: Duration = Duration::from_millis(250);
/// How often it is looked at otherwise, while connections are open.
const REST: Duration = Duration::from_secs(5);
/// How many connections must have gone, and half of all, for the allocator to give up what they had.
const MANY: i64 = 64;
/// For how long after that it does so each [`REST`]: connections to servers go later than those for which they were made.
const LINGER: Duration = Duration::from_secs(20);
/// How often the allocator is asked when memory is short; that takes milliseconds when there is much of it.
const TRIM: Duration = Duration::from_secs(1);

/// Watches over the budget.
#[derive(Debug)]
pub struct Memory {
    most_bytes: u64,
    measured: fn() -> Option<u64>,
    last: Mutex<Last>,
    arrived: Notify,
}

#[derive(Debug)]
struct Last {
    resident_bytes: u64,
    at: Option<Instant>,
    trimmed: Option<Instant>,
    short: bool,
}

impl Memory {
    /// A budget of so many bytes for this process.
    #[must_use]
    pub fn new(most_bytes: u64) -> Self {
        Self::measured_by(most_bytes, process::resident_bytes)
    }

    fn measured_by(most_bytes: u64, measured: fn() -> Option<u64>) -> Self {
        let last = Last { resident_bytes: 0, at: None, trimmed: None, short: false };
        Self { most_bytes, measured, last: Mutex::new(last), arrived: Notify::new() }
    }

    /// Whether more is in use than may be. Measures when the last measurement is old.
    pub(super) fn is_short(&self) -> bool {
        let mut last = self.last.lock();
        let now = Instant::now();
        if last.at.is_some_and(|at| now - at < FRESH) {
            return last.short;
        }
        last.at = Some(now);
        self.measure(&mut last);
        if last.resident_bytes > self.most_bytes && last.trimmed.is_none_or(|trimmed| now - trimmed >= TRIM) {
            last.trimmed = Some(now);
            heap::trim();
            self.measure(&mut last);
        }
        let short = last.resident_bytes > self.most_bytes;
        if short != last.short {
            last.short = short;
            copy::read_little(short);
            let (resident_mib, budget_mib) = (last.resident_bytes >> 20, self.most_bytes >> 20);
            if short {
                tracing::warn!(resident_mib, budget_mib, "memory is short: new connections have to wait");
            } else {
                tracing::info!(resident_mib, budget_mib, "memory is within its budget again");
            }
        }
        short
    }

    /// Without /proc there is nothing to go by, and so no budget.
    fn measure(&self, last: &mut Last) {
        last.resident_bytes = (self.measured)().unwrap_or(0);
    }

    /// A connection was accepted.
    pub(super) fn accepted(&self) {
        self.arrived.notify_one();
    }

    /// Keeps an eye on memory while there are connections, of which `open` gives the number, for as long as it is polled.
    pub(super) async fn look_after(&self, open: impl Fn() -> i64) {
        loop {
            self.arrived.notified().await;
            let (mut most, mut much, mut departed, mut trimmed) = (0, true, None, None);
            while much || most > 0 || departed.is_some() {
                tokio::time::sleep(if much { ROUND } else { REST }).await;
                much = self.is_short() || self.last.lock().resident_bytes >= self.most_bytes / 2;
                let (connections, now) = (open(), Instant::now());
                most = connections.max(most);
                if most - connections >= MANY.max(connections) {
                    (most, departed) = (connections, Some(now));
                } else if connections == 0 {
                    most = 0;
                }
                let Some(since) = departed else { continue };
                if trimmed.is_none_or(|at| now - at >= REST) {
                    heap::trim();
                    trimmed = Some(now);
                }
                departed = Some(since).filter(|&since| now - since < LINGER);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static RESIDENT: Cell<u64> = const { Cell::new(0) };
    }

    fn resident() -> Option<u64> {
        Some(RESIDENT.get())
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_short_over_the_budget_and_not_at_it_and_is_measured_anew_when_that_is_old() {
        let memory = Memory::measured_by(100, resident);
        RESIDENT.set(100);
        assert!(!memory.is_short());
        RESIDENT.set(101);
        assert!(!memory.is_short());
        tokio::time::advance(FRESH).await;
        assert!(memory.is_short());
        RESIDENT.set(100);
        tokio::time::advance(FRESH).await;
        assert!(!memory.is_short());
    }
}
