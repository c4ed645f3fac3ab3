//! Readiness: a set of named tasks, and which of them are still pending.
//!
//! A role is ready when every task that it announced at its start is done and it has not begun to stop. A task that
//! fails never becomes done, so a half-started role does not attract calls.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The pending tasks of one process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Ready(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// A task was done.
    done: Notify,
}

#[derive(Debug, Default)]
struct State {
    pending: BTreeSet<&'static str>,
    stopping: bool,
}

/// What a readiness check answers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Readiness {
    /// Calls are welcome.
    Ready,
    /// These tasks are not done, in alphabetical order.
    Pending(Vec<&'static str>),
    /// The role has begun to stop.
    Stopping,
}

/// One announced task. Dropped without [`Task::done`], it stays pending.
#[derive(Debug)]
#[must_use = "the role becomes ready only when the task is done"]
pub struct Task {
    ready: Ready,
    name: &'static str,
}

impl Ready {
    /// Nothing pending yet: announce all tasks before the first check can be answered.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Announces a task; `name` says what is waited for, such as `dns-stub-listening`, and is used once.
    pub fn task(&self, name: &'static str) -> Task {
        self.0.state.lock().pending.insert(name);
        Task { ready: self.clone(), name }
    }

    /// The role has begun to stop; it does not become ready again.
    pub fn stop(&self) {
        self.0.state.lock().stopping = true;
    }

    /// Waits until every task but `last` is done. Cancel safe.
    pub async fn all_but(&self, last: &'static str) {
        loop {
            let mut done = pin!(self.0.done.notified());
            done.as_mut().enable();
            if self.0.state.lock().pending.iter().all(|name| *name == last) {
                return;
            }
            done.await;
        }
    }

    /// Whether calls are welcome now.
    #[must_use]
    pub fn check(&self) -> Readiness {
        let state = self.0.state.lock();
        if state.stopping {
            Readiness::Stopping
        } else if state.pending.is_empty() {
            Readiness::Ready
        } else {
            Readiness::Pending(state.pending.iter().copied().collect())
        }
    }
}

impl Task {
    /// The task is done.
    pub fn done(self) {
        self.ready.0.state.lock().pending.remove(self.name);
        self.ready.0.done.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn whoever_waits_for_all_but_one_task_goes_on_when_the_others_are_done() {
        let ready = Ready::new();
        let (rules, _listening) = (ready.task("rules"), ready.task("listening"));
        let waits = ready.clone();
        let mut waits = pin!(waits.all_but("listening"));
        assert!(waits.as_mut().now_or_never().is_none());
        rules.done();
        assert!(waits.now_or_never().is_some());
    }

    #[test]
    fn a_role_is_ready_only_when_every_task_is_done() {
        let ready = Ready::new();
        let (stub, outbound) = (ready.task("stub"), ready.task("outbound"));
        assert_eq!(ready.check(), Readiness::Pending(vec!["outbound", "stub"]));
        stub.done();
        assert_eq!(ready.check(), Readiness::Pending(vec!["outbound"]));
        outbound.done();
        assert_eq!(ready.check(), Readiness::Ready);
    }

    #[test]
    fn a_task_that_fails_stays_pending() {
        let ready = Ready::new();
        drop(ready.task("keys"));
        assert_eq!(ready.check(), Readiness::Pending(vec!["keys"]));
    }

    #[test]
    fn a_role_that_stops_is_not_ready_whatever_is_done_later() {
        let ready = Ready::new();
        let task = ready.task("stub");
        ready.stop();
        task.done();
        assert_eq!(ready.check(), Readiness::Stopping);
    }
}
