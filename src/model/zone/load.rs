//! Making a zone of the records of a zone file or a transfer, all of them at once.

use serde::{Deserialize, Serialize};

use super::change::negative;
use super::check::{Fault, ZoneFault, check};
use super::key::{Key, Seed};
use super::node::Node;
use super::rrset::{Place, Rrset, RrsetError};
use super::{ChangeError, Zone, types};
use crate::model::Name;

/// One record to load: class IN, data in uncompressed wire form.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Entry {
    /// The owner.
    pub name: Name,
    /// The type.
    pub rtype: u16,
    /// The time to live in seconds.
    pub ttl: u32,
    /// The data.
    #[serde(with = "crate::model::octets")]
    pub rdata: Box<[u8]>,
}

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

    fn finish_loading(&mut self) {
        let soa = self.nodes.get(self.apex_hash, self.apex.wire()).and_then(|apex| apex.set(types::SOA));
        self.negative = soa.map(negative);
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

struct Loader {
    zone: Zone,
    faults: Vec<Fault>,
    warnings: Vec<(usize, ZoneWarning)>,
}

impl Loader {
    /// The zone of all entries that can be in it, and what is wrong with the others.
    fn of(apex: &Name, seed: Seed, entries: &[Entry]) -> Self {
        let mut loader = Self { zone: Zone::empty(apex.clone(), seed), faults: Vec::new(), warnings: Vec::new() };
        let order = loader.order(entries);
        for group in order.chunk_by(|one, other| one.place == other.place) {
            loader.names(entries, group);
        }
        loader.zone.finish_loading();
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
        for (index, entry) in entries.iter().enumerate() {
            match self.zone.check_place(&entry.name, entry.rtype) {
                Ok(()) => {
                    key.set(self.zone.seed, entry.name.wire());
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
        let mut key = Key::default();
        key.set(self.zone.seed, name.wire());
        if key.labels() > self.zone.apex_labels && sets.iter().any(|set| set.rtype() == types::NS) {
            self.zone.cuts.add(key.labels());
        }
        self.zone.settle(&key, name, sets);
    }

    fn set(&mut self, entries: &[Entry], name: &Name, records: &[Order]) -> Result<Rrset, RrsetError> {
        let first = records[0].index;
        let records = || records.iter().map(|order| &entries[order.index]);
        let rtype = records().next().map_or(0, |entry| entry.rtype);
        let ttl = records().map(|entry| entry.ttl).min().unwrap_or(0);
        let place = Place { owner: name, apex: &self.zone.apex, seed: self.zone.seed };
        let set = Rrset::new(place, rtype, ttl, records().map(|entry| entry.rdata.as_ref()))?;
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

impl Zone {
    /// Gives the name these sets, whether it is there already, as an ancestor of another, or not.
    fn settle(&mut self, key: &Key, name: &Name, sets: Vec<Rrset>) {
        let Some(node) = self.nodes.get_mut(key.hash(), key.octets()) else {
            self.plant(key, Node::with_sets(name.clone(), sets));
            return;
        };
        for set in sets {
            node.replace(set);
        }
    }
}
