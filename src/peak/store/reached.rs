//! Who waits until this node has applied the log so far.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::types::LogId;

/// Those who wait, by the entry that they wait for.
#[derive(Debug, Default)]
pub(super) struct Reached(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    applied: Option<LogId>,
    by_entry: BTreeMap<LogId, Vec<oneshot::Sender<()>>>,
}

impl Reached {
    /// The log is applied up to this entry.
    pub(super) fn advance(&self, applied: Option<LogId>) {
        let mut waiting = self.0.lock();
        waiting.applied = applied;
        while let Some(first) = waiting.by_entry.first_entry().filter(|first| Some(*first.key()) <= applied) {
            // Who has given up is not told.
            first.remove().into_iter().for_each(|one| {
                let _ = one.send(());
            });
        }
    }

    /// Ends once the entry is applied.
    pub(super) async fn at(&self, entry: Option<LogId>) {
        let there = {
            let mut waiting = self.0.lock();
            let Some(entry) = entry.filter(|entry| Some(*entry) > waiting.applied) else { return };
            let (done, there) = oneshot::channel();
            let others = waiting.by_entry.entry(entry).or_default();
            others.retain(|one| !one.is_closed());
            others.push(done);
            there
        };
        // The sender lives until it has told.
        drop(there.await);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use openraft::CommittedLeaderId;

    use super::*;

    fn entry(index: u64) -> Option<LogId> {
        Some(LogId::new(CommittedLeaderId::new(1, 1), index))
    }

    #[test]
    fn who_waits_is_told_once_the_log_is_applied_so_far_and_not_before() {
        let reached = Reached::default();
        assert!(reached.at(None).now_or_never().is_some());
        let mut sixth = Box::pin(reached.at(entry(6)));
        let mut seventh = Box::pin(reached.at(entry(7)));
        assert!(sixth.as_mut().now_or_never().is_none() && seventh.as_mut().now_or_never().is_none());
        reached.advance(entry(6));
        assert!(sixth.now_or_never().is_some() && seventh.as_mut().now_or_never().is_none());
        reached.advance(entry(9));
        assert!(seventh.now_or_never().is_some());
        assert!(reached.at(entry(9)).now_or_never().is_some() && reached.at(entry(10)).now_or_never().is_none());
    }
}
