//! A bounded map whose entries end at a time.
//!
//! Pure: the time is an argument. Where it is full, the entry that would end first makes room, so the cost of an insert
//! stays logarithmic and a flood of names cannot grow it.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use tokio::time::Instant;

/// See the module.
#[derive(Debug)]
pub(in crate::sidecar) struct Cache<K, V> {
    most: usize,
    entries: HashMap<K, Entry<V>>,
    /// The keys in the order in which their entries end; the number tells apart those that end together.
    ends: BTreeMap<(Instant, u64), K>,
    next_number: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    end: (Instant, u64),
}

impl<K: Clone + Eq + Hash, V> Cache<K, V> {
    /// An empty cache of at most `most` entries, at least one.
    pub(in crate::sidecar) fn new(most: usize) -> Self {
        Self { most: most.max(1), entries: HashMap::new(), ends: BTreeMap::new(), next_number: 0 }
    }

    /// What is kept under `key`, unless its end has come. An entry is dead *at* its end (a TTL of 0 is never kept).
    pub(in crate::sidecar) fn get(&self, key: &K, now: Instant) -> Option<&V> {
        let entry = self.entries.get(key)?;
        (now < entry.end.0).then_some(&entry.value)
    }

    /// Keeps `value` until `end`, in place of what was there; not at all when `end` has come.
    pub(in crate::sidecar) fn insert(&mut self, key: K, value: V, end: Instant, now: Instant) {
        self.remove(&key);
        if end <= now {
            return;
        }
        while self.entries.len() >= self.most {
            let Some((_, soonest)) = self.ends.pop_first() else { break };
            self.entries.remove(&soonest);
        }
        let end = (end, self.next_number);
        self.next_number += 1;
        self.ends.insert(end, key.clone());
        self.entries.insert(key, Entry { value, end });
    }

    /// Forgets what is kept under `key`.
    pub(in crate::sidecar) fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.ends.remove(&entry.end);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_entry_lives_until_its_end_and_not_at_it() {
        let start = Instant::now();
        let mut cache = Cache::new(4);
        cache.insert("a", 1, start + SECOND, start);
        assert_eq!(cache.get(&"a", start + SECOND - Duration::from_nanos(1)), Some(&1));
        assert_eq!(cache.get(&"a", start + SECOND), None);
    }

    #[test]
    fn nothing_is_kept_for_no_time_and_what_was_there_goes() {
        let start = Instant::now();
        let mut cache = Cache::new(4);
        cache.insert("a", 1, start + SECOND, start);
        cache.insert("a", 2, start, start);
        assert_eq!(cache.get(&"a", start), None);
        assert!(cache.ends.is_empty());
    }

    #[test]
    fn a_full_cache_gives_up_what_would_end_first() {
        let start = Instant::now();
        let mut cache = Cache::new(2);
        cache.insert("long", 1, start + 9 * SECOND, start);
        cache.insert("short", 2, start + SECOND, start);
        cache.insert("new", 3, start + 5 * SECOND, start);
        assert_eq!(cache.get(&"short", start), None);
        assert_eq!(cache.get(&"long", start), Some(&1));
        assert_eq!(cache.get(&"new", start), Some(&3));
        assert_eq!(cache.ends.len(), cache.entries.len());
    }

    #[test]
    fn replacing_an_entry_takes_no_further_room() {
        let start = Instant::now();
        let mut cache = Cache::new(2);
        for n in 0..10 {
            cache.insert("a", n, start + SECOND, start);
            cache.insert("b", n, start + SECOND, start);
        }
        assert_eq!((cache.get(&"a", start), cache.get(&"b", start)), (Some(&9), Some(&9)));
        assert_eq!(cache.ends.len(), 2);
    }
}
