//! Stopping in order: no new work, then time for what is under way, then an end.
//!
//! ```text
//! Open ──drain()──▶ Graceful ──deadline──▶ Forced
//!                      └── nothing left ──▶ done
//! ```
//!
//! One [`Drain`] per direction: a sidecar drains inbound first and outbound when the application has gone. Listeners
//! and connections hold a [`Watch`]; a connection also holds the [`Guard`] by which it is counted.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// How far the stop has come.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Phase {
    /// Work as usual.
    Open,
    /// Take nothing new, let what is under way finish.
    Graceful,
    /// End now.
    Forced,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Drained {
    /// Everything that was under way finished by itself.
    Finished,
    /// At the deadline this many connections were still open, and were told to end.
    Forced {
        /// Number of connections.
        open: usize,
    },
}

/// The one who decides when to stop.
#[derive(Debug)]
pub struct Drain {
    phase: watch::Sender<Phase>,
    open: Arc<watch::Sender<usize>>,
}

/// The view of those who must stop. Clones see the same.
#[derive(Clone, Debug)]
pub struct Watch {
    phase: watch::Receiver<Phase>,
    open: Arc<watch::Sender<usize>>,
}

/// One connection under way; dropping it says that it has ended.
#[derive(Debug)]
pub struct Guard(Arc<watch::Sender<usize>>);

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl Drain {
    /// Nothing stops yet.
    #[must_use]
    pub fn new() -> Self {
        Self { phase: watch::Sender::new(Phase::Open), open: Arc::new(watch::Sender::new(0)) }
    }

    /// A view for a listener or a connection.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch { phase: self.phase.subscribe(), open: Arc::clone(&self.open) }
    }

    /// Number of connections under way.
    #[must_use]
    pub fn open(&self) -> usize {
        *self.open.borrow()
    }

    /// Takes nothing new from now on, and returns at once.
    pub fn begin(&self) {
        self.advance(Phase::Graceful);
    }

    /// Ends everything now.
    pub fn force(&self) {
        self.advance(Phase::Forced);
    }

    /// Takes nothing new, and waits until nothing is under way or `deadline` has passed; then ends what is left.
    ///
    /// Cancel safe: dropped early, it leaves the phase that it had reached.
    pub async fn drain(&self, deadline: Duration) -> Drained {
        self.begin();
        let mut open = self.open.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail: an error would mean that nothing is counted.
        let emptied = tokio::time::timeout(deadline, open.wait_for(|open| *open == 0)).await.is_ok();
        if emptied {
            return Drained::Finished;
        }
        let open = self.open();
        self.force();
        Drained::Forced { open }
    }

    /// A phase never goes back.
    fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let later = to > *phase;
            *phase = to.max(*phase);
            later
        });
    }
}

impl Watch {
    /// How far the stop has come.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Counts one connection for as long as the guard lives.
    #[must_use]
    pub fn guard(&self) -> Guard {
        self.open.send_modify(|open| *open += 1);
        Guard(Arc::clone(&self.open))
    }

    /// Waits until nothing new is to be taken. Cancel safe.
    pub async fn graceful(&mut self) {
        self.reached(Phase::Graceful).await;
    }

    /// Waits until everything is to end now. Cancel safe.
    pub async fn forced(&mut self) {
        self.reached(Phase::Forced).await;
    }

    /// The one who decides being gone means that nobody waits any longer: that is the end too.
    async fn reached(&mut self, wanted: Phase) {
        let _ = self.phase.wait_for(|phase| *phase >= wanted).await;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_as_soon_as_the_last_connection_has() {
        let drain = Drain::new();
        let (first, second) = (drain.watch().guard(), drain.watch().guard());
        let begun = tokio::time::Instant::now();
        let connections = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(first);
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(second);
        };
        let (drained, ()) = tokio::join!(drain.drain(Duration::from_secs(30)), connections);
        assert_eq!(drained, Drained::Finished);
        assert_eq!(begun.elapsed(), Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_still_open_at_the_deadline_is_told_to_end() {
        let drain = Drain::new();
        let mut watch = drain.watch();
        let _guard = watch.guard();
        let begun = tokio::time::Instant::now();
        assert_eq!(drain.drain(Duration::from_secs(30)).await, Drained::Forced { open: 1 });
        assert_eq!(begun.elapsed(), Duration::from_secs(30));
        watch.forced().await;
    }

    #[tokio::test(start_paused = true)]
    async fn listeners_stop_before_connections_do() {
        let drain = Drain::new();
        let mut watch = drain.watch();
        drain.begin();
        watch.graceful().await;
        assert_eq!(watch.phase(), Phase::Graceful);
    }

    #[tokio::test(start_paused = true)]
    async fn a_forced_stop_is_not_undone_by_a_graceful_one() {
        let drain = Drain::new();
        drain.force();
        drain.begin();
        assert_eq!(drain.watch().phase(), Phase::Forced);
    }

    #[tokio::test(start_paused = true)]
    async fn the_two_directions_stop_apart() {
        let (inbound, outbound) = (Drain::new(), Drain::new());
        inbound.begin();
        assert_eq!(outbound.watch().phase(), Phase::Open);
    }
}
