//! How slow a peer may be: a request's head must come in one go, and a connection that asks for nothing ends.
//!
//! ```text
//! Idle ──first octet──▶ Head ──head is whole──▶ Busy ──last answer has gone──▶ Idle
//!   └─ longest idle ─▶ over  └─ longest head ─▶ over
//! ```
//!
//! A body may take as long as it likes: whoever waits for it has been let in.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// The pace of one connection.
pub(in crate::sidecar) struct Pace {
    state: Mutex<State>,
    longest_head: Duration,
    longest_idle: Duration,
}

#[derive(Clone, Copy)]
struct State {
    since: Instant,
    /// Octets have come since the last request ended.
    begun: bool,
    /// Requests under way.
    busy: u32,
}

/// One request under way.
pub(in crate::sidecar) struct Busy(Arc<Pace>);

impl Pace {
    /// The first head has until `longest_head` from now, as if it had begun.
    pub(in crate::sidecar) fn new(longest_head: Duration, longest_idle: Duration) -> Arc<Self> {
        let state = State { since: Instant::now(), begun: true, busy: 0 };
        Arc::new(Self { state: Mutex::new(state), longest_head, longest_idle })
    }

    /// Something has been read.
    pub(in crate::sidecar) fn came(&self) {
        let mut state = self.state.lock();
        if state.busy == 0 && !state.begun {
            *state = State { since: Instant::now(), begun: true, busy: 0 };
        }
    }

    /// A head is whole; the request lasts until the value is dropped.
    pub(in crate::sidecar) fn asked(self: &Arc<Self>) -> Busy {
        let mut state = self.state.lock();
        state.busy += 1;
        state.begun = false;
        Busy(Arc::clone(self))
    }

    /// Completes when a head has taken too long to come.
    pub(in crate::sidecar) async fn slow(&self) {
        self.run_out(true, self.longest_head).await;
    }

    /// Completes when nothing has been asked for too long.
    pub(in crate::sidecar) async fn idle(&self) {
        self.run_out(false, self.longest_idle).await;
    }

    async fn run_out(&self, begun: bool, longest: Duration) {
        loop {
            let state = *self.state.lock();
            let (now, counts) = (Instant::now(), state.busy == 0 && state.begun == begun);
            // What does not count yet cannot have lasted too long before this much has passed again.
            let until = if counts { state.since + longest } else { now + longest };
            if until <= now {
                return;
            }
            sleep_until(until).await;
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.busy -= 1;
        if state.busy == 0 {
            *state = State { since: Instant::now(), begun: false, busy: 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    const HEAD: Duration = Duration::from_secs(5);
    const IDLE: Duration = Duration::from_secs(60);
    const MOMENT: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn the_first_head_has_as_long_as_any_other_and_no_longer() {
        let pace = Pace::new(HEAD, IDLE);
        assert!(timeout(HEAD - MOMENT, pace.slow()).await.is_err());
        assert!(timeout(2 * MOMENT, pace.slow()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_under_way_may_last_and_after_it_the_connection_may_be_idle() {
        let pace = Pace::new(HEAD, IDLE);
        let busy = pace.asked();
        let either = async || tokio::select! { () = pace.slow() => {}, () = pace.idle() => {} };
        assert!(timeout(2 * IDLE, either()).await.is_err());
        drop(busy);
        assert!(timeout(IDLE - MOMENT, either()).await.is_err());
        assert!(timeout(2 * MOMENT, pace.idle()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn octets_of_a_further_head_begin_its_time() {
        let pace = Pace::new(HEAD, IDLE);
        drop(pace.asked());
        advance(IDLE - MOMENT).await;
        pace.came();
        advance(MOMENT).await;
        // More of the same head does not give it more time.
        pace.came();
        assert!(timeout(HEAD - 2 * MOMENT, pace.slow()).await.is_err());
        assert!(timeout(2 * MOMENT, pace.slow()).await.is_ok());
    }
}
