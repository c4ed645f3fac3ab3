//! How many connections may be under way at once for one key: a service that is called, a host that calls.
//!
//! A connection is *pending* until it is carried: its candidates are being tried, or its caller is introducing itself.
//! Pending ones cost the most and last the shortest, so they have a limit of their own. What is over a limit is refused
//! at once and counted: waiting in a queue would only make everybody slow.
//!
//! Keys without connections are forgotten, so that peers cannot make this grow beyond what is open.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

/// The most connections of one key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bounds {
    /// In all, pending ones included.
    pub open: u32,
    /// Not carried yet.
    pub pending: u32,
}

/// Which limit a connection would go over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Over {
    /// As many are open as may be.
    Open,
    /// As many are pending as may be.
    Pending,
}

impl Over {
    /// What the limit counts, for a message.
    #[must_use]
    pub fn what(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Pending => "pending",
        }
    }
}

impl Bounds {
    /// The limit that a connection would go over.
    #[must_use]
    pub fn most(self, over: Over) -> u32 {
        match over {
            Over::Open => self.open,
            Over::Pending => self.pending,
        }
    }
}

/// Counts connections by key. Clones share the counts.
pub struct Quota<K> {
    bounds: Bounds,
    counts: Arc<Mutex<HashMap<K, Counts>>>,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    open: u32,
    pending: u32,
}

/// One connection that is counted until this is dropped.
pub(super) struct Share<K: Eq + Hash> {
    counts: Arc<Mutex<HashMap<K, Counts>>>,
    key: K,
    pending: bool,
}

impl<K: Clone + Eq + Hash> Quota<K> {
    /// Nothing is counted yet.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, counts: Arc::default() }
    }

    /// The limits.
    pub(super) fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Counts a connection as open and pending, if there is room for it.
    pub(super) fn take(&self, key: &K) -> Result<Share<K>, Over> {
        let mut counts = self.counts.lock();
        let present = counts.get(key).copied().unwrap_or_default();
        if present.open >= self.bounds.open {
            return Err(Over::Open);
        }
        if present.pending >= self.bounds.pending {
            return Err(Over::Pending);
        }
        counts.insert(key.clone(), Counts { open: present.open + 1, pending: present.pending + 1 });
        Ok(Share { counts: Arc::clone(&self.counts), key: key.clone(), pending: true })
    }
}

impl<K: Eq + Hash> Share<K> {
    /// The connection is carried from now on.
    pub(super) fn settle(&mut self) {
        if std::mem::take(&mut self.pending)
            && let Some(counts) = self.counts.lock().get_mut(&self.key)
        {
            counts.pending -= 1;
        }
    }
}

impl<K: Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        self.settle();
        let mut all = self.counts.lock();
        if let Some(counts) = all.get_mut(&self.key) {
            counts.open -= 1;
            if counts.open == 0 {
                all.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(quota: &Quota<&'static str>, key: &'static str) -> Option<Over> {
        quota.take(&key).err()
    }

    #[test]
    fn each_limit_holds_up_to_its_edge_and_for_its_own_key_alone() {
        let quota = Quota::new(Bounds { open: 3, pending: 2 });
        let (mut first, second) = (quota.take(&"a").unwrap(), quota.take(&"a").unwrap());
        assert_eq!((over(&quota, "a"), over(&quota, "b")), (Some(Over::Pending), None));
        first.settle();
        let mut third = quota.take(&"a").unwrap();
        third.settle();
        assert_eq!(over(&quota, "a"), Some(Over::Open));
        drop(second);
        assert_eq!(over(&quota, "a"), None);
        drop((first, third));
    }

    #[test]
    fn what_has_no_connection_is_forgotten() {
        let quota = Quota::new(Bounds { open: 1, pending: 1 });
        for key in ["a", "b"] {
            drop(quota.take(&key).unwrap());
        }
        assert!(quota.counts.lock().is_empty());
    }
}
