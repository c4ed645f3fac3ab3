//! Making a zone of the records of a zone file or a transfer, all of them at once.

use std::hint::black_box;
use std::sync::Arc;

use super::check::{Fault, ZoneFault, check};
use super::entry::Entry;
use super::key::{Key, Seed};
use super::node::Node;
use super::rrset::{Made, Place, RrsetError};
use super::trie::Trie;
use super::{ChangeError, Zone, types};
use crate::model::Name;

/// A zone that was loaded, and what its author should look at.
#[derive(Debug)]
pub struct Loaded {
    /// The zone.
    pub zone: Zone,
    /// What was put right on the way, each with the index of the first entry it is about.
    pub warnings: Vec<(usize, ZoneWarning)>,
}

/// Something in a zone's records that has one sensible reading, which was taken.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ZoneWarning {
    /// RFC 2181 §5.2.
    #[error("{name}: the records of type {rtype} have different TTLs; the lowest, {ttl}, holds for all")]
    DifferentTtls {
        /// The set's owner.
        name: Name,
        /// The set's type.
        rtype: u16,
        /// The TTL taken, in seconds.
        ttl: u32,
    },
    /// RFC 2181 §5: a set has no two equal records.
    #[error("{name}: {extra} of the records of type {rtype} are there twice; they count once")]
    Duplicates {
        /// The set's owner.
        name: Name,
        /// The set's type.
        rtype: u16,
        /// How many records were left out.
        extra: usize,
    },
}

impl Zone {
    /// Makes the zone at `apex` of `entries`.
    ///
    /// # Errors
    /// Every fault there is, in the order of the entries: records that make no set or do not belong where they stand,
    /// and what [`ZoneFault`] lists for the zone as a whole.
    pub fn load(apex: &Name, seed: Seed, entries: &[Entry]) -> Result<Loaded, Vec<Fault>> {
        let mut loader = Loader::of(apex, seed, entries);
        // A zone with faulty records may lack something only because they are missing from it.
        if loader.faults.is_empty() {
            loader.faults = check(&loader.zone, entries);
        }
        loader.finish()
    }

    /// Makes the zone at `apex` of `entries` that another server holds already: what only the zone's author could put
    /// right, such as a server without an address, is taken as it is.
    ///
    /// # Errors
    /// Records that make no set or do not belong where they stand, and the lack of an SOA record.
    pub fn received(apex: &Name, seed: Seed, entries: &[Entry]) -> Result<Loaded, Vec<Fault>> {
        let mut loader = Loader::of(apex, seed, entries);
        if loader.faults.is_empty() && !loader.zone.is_known() {
            loader.faults.push(Fault { entry: None, cause: ZoneFault::NoSoa(apex.clone()) });
        }
        loader.finish()
    }
}

/// Where an entry belongs: entries of one name come together, and those of one type within.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
struct Order {
    /// The hash of the name, its bits the other way round: names that are neighbours in the trie, which looks at the low
    /// bits first, are loaded one after another.
    place: u64,
    rtype: u16,
    index: usize,
}

/// Entries that are read together before the first of them is loaded.
const AT_HAND: usize = 64;

/// Reads entries, which in their order stand anywhere in memory, so that the processor waits for all of them at once.
fn read_ahead(entries: &[Entry], order: &[Order]) {
    let ends = |octets: &[u8]| octets.first().zip(octets.last()).map_or(0, |(first, last)| first ^ last);
    let read = |entry: &Entry| ends(entry.name.wire()) ^ ends(&entry.rdata);
    black_box(order.iter().fold(0, |sum, order| sum ^ read(&entries[order.index])));
}

struct Loader {
    zone: Zone,
    key: Key,
    /// The names that have records, in the order in which the trie has them.
    nodes: Vec<Arc<Node>>,
    /// The names above them, each with the number of those that came one after another.
    above: Vec<(Name, u32)>,
    faults: Vec<Fault>,
    warnings: Vec<(usize, ZoneWarning)>,
}

impl Loader {
    /// The zone of all entries that can be in it, and what is wrong with the others.
    fn of(apex: &Name, seed: Seed, entries: &[Entry]) -> Self {
        let (zone, key) = (Zone::empty(apex.clone(), seed), Key::default());
        let (nodes, above, faults, warnings) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut loader = Self { zone, key, nodes, above, faults, warnings };
        let order = loader.order(entries);
        let (mut taken, mut at_hand) = (0, 0);
        for group in order.chunk_by(|one, other| one.place == other.place) {
            if taken >= at_hand {
                at_hand = taken + AT_HAND;
                read_ahead(entries, &order[taken..at_hand.min(order.len())]);
            }
            loader.names(entries, group);
            taken += group.len();
        }
        drop(order);
        loader.zone.nodes = Trie::of(std::mem::take(&mut loader.nodes));
        for (name, children) in std::mem::take(&mut loader.above) {
            loader.key.set(seed, name.wire());
            loader.zone.count_children(&loader.key, loader.key.labels(), name, children);
        }
        loader.zone.follow_soa();
        loader
    }

    fn finish(mut self) -> Result<Loaded, Vec<Fault>> {
        if self.faults.is_empty() {
            self.warnings.sort_by_key(|(entry, _)| *entry);
            Ok(Loaded { zone: self.zone, warnings: self.warnings })
        } else {
            self.faults.sort_by_key(|fault| fault.entry);
            Err(self.faults)
        }
    }

    fn order(&mut self, entries: &[Entry]) -> Vec<Order> {
        let mut key = Key::default();
        let mut order = Vec::with_capacity(entries.len());
        let mut hashed: &[u8] = &[];
        for (index, entry) in entries.iter().enumerate() {
            match self.zone.check_place(&entry.name, entry.rtype) {
                Ok(()) => {
                    // The records of a name mostly stand together.
                    if hashed != entry.name.wire() {
                        hashed = entry.name.wire();
                        key.set(self.zone.seed, hashed);
                    }
                    order.push(Order { place: key.hash().reverse_bits(), rtype: entry.rtype, index });
                }
                Err(cause) => self.fault(index, cause),
            }
        }
        order.sort_unstable();
        order
    }

    /// Loads the entries of one hash: of one name, save by an accident.
    fn names(&mut self, entries: &[Entry], group: &[Order]) {
        let first = &entries[group[0].index].name;
        if group.iter().all(|order| entries[order.index].name == *first) {
            return self.name(entries, first, group);
        }
        let (same, other): (Vec<Order>, Vec<Order>) =
            group.iter().copied().partition(|order| entries[order.index].name == *first);
        self.name(entries, first, &same);
        self.names(entries, &other);
    }

    fn name(&mut self, entries: &[Entry], name: &Name, group: &[Order]) {
        let mut sets = Vec::new();
        for records in group.chunk_by(|one, other| one.rtype == other.rtype) {
            match self.set(entries, name, records) {
                Ok(set) => sets.push(set),
                Err(cause) => self.fault(records[0].index, ChangeError::Rrset { name: name.clone(), cause }),
            }
        }
        if sets.is_empty() {
            return;
        }
        let alias = group.iter().find(|order| order.rtype == types::CNAME);
        if let Some(alias) = alias.filter(|_| sets.len() > 1) {
            self.fault(alias.index, ChangeError::BesideAlias(name.clone()));
        }
        self.key.set(self.zone.seed, name.wire());
        let labels = self.key.labels();
        if labels > self.zone.apex_labels {
            if sets.iter().any(|set| set.rtype() == types::NS) {
                self.zone.cuts.add(labels);
            }
            self.count_below_parent(labels);
        }
        self.zone.count_node(labels, name.wire());
        self.nodes.push(Node::new(self.key.hash(), name, sets));
    }

    /// Counts the key's name among those right below its parent.
    fn count_below_parent(&mut self, labels: usize) {
        let parent = self.key.suffix(labels - 1).1;
        match self.above.last_mut() {
            Some((last, children)) if last.wire() == parent => *children += 1,
            _ => self.above.extend(Name::from_wire(parent).ok().map(|parent| (parent, 1))),
        }
    }

    fn set(&mut self, entries: &[Entry], name: &Name, records: &[Order]) -> Result<Made, RrsetError> {
        let first = records[0].index;
        let records = || records.iter().map(|order| &entries[order.index]);
        let rtype = records().next().map_or(0, |entry| entry.rtype);
        let ttl = records().map(|entry| entry.ttl).min().unwrap_or(0);
        let place = Place { owner: name, apex: &self.zone.apex, seed: self.zone.seed };
        let set = Made::new(place, rtype, ttl, records().map(|entry| entry.rdata.as_ref()))?;
        if records().any(|entry| entry.ttl != ttl) {
            self.warnings.push((first, ZoneWarning::DifferentTtls { name: name.clone(), rtype, ttl }));
        }
        let extra = records().count() - usize::from(set.count());
        if extra > 0 {
            self.warnings.push((first, ZoneWarning::Duplicates { name: name.clone(), rtype, extra }));
        }
        Ok(set)
    }

    fn fault(&mut self, entry: usize, cause: ChangeError) {
        self.faults.push(Fault { entry: Some(entry), cause: ZoneFault::Record(cause) });
    }
}
