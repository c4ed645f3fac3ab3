//! The zones that a server answers for, and which of them a name belongs to.

use std::cmp::Reverse;
use std::sync::Arc;

use super::depths::Depths;
use super::key::{Key, Seed, same_name};
use super::trie::Trie;
use super::{Zone, types};
use crate::model::Name;

/// A set of zones. Cloning it costs a few pointers.
#[derive(Clone, Debug, Default)]
pub struct Zones {
    seed: Seed,
    zones: Trie<Zone>,
    depths: Depths,
    /// All of them, the deepest first, while they are few.
    few: Vec<Arc<Zone>>,
}

/// With more zones a hash finds one sooner than comparing with each.
const FEW: usize = 4;

impl Zones {
    /// No zones; those to come are loaded with the same seed.
    #[must_use]
    pub fn new(seed: Seed) -> Self {
        Self { seed, ..Self::default() }
    }

    /// What the zones' hashes begin with.
    #[must_use]
    #[inline]
    pub fn seed(&self) -> Seed {
        self.seed
    }

    /// Puts the zone in the place of the one with its apex; gives that.
    ///
    /// # Panics
    /// When the zone was loaded with another seed: none of its names could be found.
    pub fn insert(&mut self, zone: Arc<Zone>) -> Option<Arc<Zone>> {
        assert!(zone.seed == self.seed, "a zone is loaded with the seed of the set it joins");
        let labels = zone.apex_labels;
        let replaced = self.zones.insert(zone);
        if replaced.is_none() {
            self.depths.add(labels);
        }
        self.count_few();
        replaced
    }

    /// Takes the zone away.
    pub fn remove(&mut self, apex: &Name) -> Option<Arc<Zone>> {
        let mut key = Key::default();
        key.set(self.seed, apex.wire());
        let removed = self.zones.remove(key.hash(), key.octets())?;
        self.depths.remove(removed.apex_labels);
        self.count_few();
        Some(removed)
    }

    fn count_few(&mut self) {
        self.few.clear();
        if self.zones.len() <= FEW {
            self.few.extend(self.zones.shared().cloned());
            self.few.sort_by_key(|zone| Reverse(zone.apex_labels));
        }
    }

    /// The zone with exactly this apex.
    #[must_use]
    pub fn zone(&self, apex: &Name) -> Option<&Arc<Zone>> {
        let mut key = Key::default();
        key.set(self.seed, apex.wire());
        self.zones.get(key.hash(), key.octets())
    }

    /// The zone that answers a question for `key`'s name: the one with the longest matching apex, and for DS, which
    /// the parent holds, the one above (RFC 4035 §3.1.4.1).
    #[must_use]
    #[inline]
    pub fn find(&self, key: &Key, qtype: u16) -> Option<&Arc<Zone>> {
        let zone = self.longest(key, key.labels())?;
        if qtype == types::DS && zone.apex_labels == key.labels() && zone.apex_labels > 0 {
            return self.longest(key, zone.apex_labels - 1).or(Some(zone));
        }
        Some(zone)
    }

    #[inline]
    fn longest(&self, key: &Key, labels: usize) -> Option<&Arc<Zone>> {
        if self.few.is_empty() {
            return self.longest_of_many(key, labels);
        }
        self.few.iter().find(|zone| {
            zone.apex_labels <= labels && {
                let (hash, octets) = key.suffix(zone.apex_labels);
                hash == zone.apex_hash && same_name(octets, zone.apex.wire())
            }
        })
    }

    fn longest_of_many(&self, key: &Key, mut labels: usize) -> Option<&Arc<Zone>> {
        loop {
            let deepest = self.depths.deepest(labels)?;
            let (hash, octets) = key.suffix(deepest);
            if let Some(zone) = self.zones.get(hash, octets) {
                return Some(zone);
            }
            labels = deepest.checked_sub(1)?;
        }
    }

    /// All zones, in no meaningful order.
    pub fn iter(&self) -> impl Iterator<Item = &Zone> {
        self.zones.iter()
    }
}
