//! A zone while it is being changed: the sets that were touched, each as it was and as it will be.
//!
//! Costs what the touched sets cost. Ordered maps alone, so that every replica makes the same delta of the same update.

use std::collections::{BTreeMap, BTreeSet};

use super::{Delta, DeltaError, soa_serial};
use crate::model::Name;
use crate::model::zone::entry::Entry;
use crate::model::zone::node::Node;
use crate::model::zone::{ChangeError, Zone, rrset, types};

/// Type WKS (RFC 1035 §3.4.2), which counts as the same record when address and protocol are.
const WKS: u16 = 11;

/// Records that are looked through sooner than sorted.
const FEW: usize = 8;

/// The records of one name and type.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Records {
    ttl: u32,
    rdatas: Vec<Box<[u8]>>,
}

#[derive(Debug)]
struct Touched {
    before: Records,
    after: Records,
}

#[derive(Debug)]
struct DraftName<'z> {
    name: Name,
    node: Option<&'z Node>,
    /// By type; few, so that a list costs less than a map.
    sets: Vec<(u16, Touched)>,
}

/// What a zone is on the way to.
#[derive(Debug)]
pub(super) struct Draft<'z> {
    zone: &'z Zone,
    /// By name in lower case. Boxed, because a map of large values begins with room for several.
    names: BTreeMap<Box<[u8]>, Box<DraftName<'z>>>,
}

impl Records {
    /// Whether these are other records than those; their order is none of it.
    fn differ(&self, other: &Self) -> bool {
        let emptied = self.rdatas.is_empty() && other.rdatas.is_empty();
        // Most are in the same order, and need no sorting.
        let same = || self.rdatas == other.rdatas || self.sorted() == other.sorted();
        !emptied && (self.ttl != other.ttl || !same())
    }

    fn sorted(&self) -> BTreeSet<&[u8]> {
        self.rdatas.iter().map(AsRef::as_ref).collect()
    }

    /// Those of these records that `other` has not, or with another TTL.
    fn lacking_in(&self, other: &Self, name: &Name, rtype: u16) -> Vec<Entry> {
        let same_ttl = self.ttl == other.ttl;
        // Most sets are small, and looked through sooner than sorted.
        let there = if same_ttl && other.rdatas.len() > FEW { other.sorted() } else { BTreeSet::new() };
        let is_there = |rdata: &[u8]| match other.rdatas.len() {
            0..=FEW => other.rdatas.iter().any(|held| **held == *rdata),
            _ => there.contains(rdata),
        };
        let lacking = self.rdatas.iter().filter(|rdata| !(same_ttl && is_there(rdata)));
        lacking.map(|rdata| Entry { name: name.clone(), rtype, ttl: self.ttl, rdata: rdata.clone() }).collect()
    }
}

impl DraftName<'_> {
    /// The types of which the name has records now.
    fn types(&self) -> Vec<u16> {
        let held = self.node.into_iter().flat_map(Node::sets).map(|set| set.rtype());
        let untouched = held.filter(|rtype| !self.sets.iter().any(|(touched, _)| touched == rtype));
        let touched = self.sets.iter().filter(|(_, set)| !set.after.rdatas.is_empty()).map(|(rtype, _)| *rtype);
        untouched.chain(touched).collect()
    }

    fn set(&mut self, apex: &Name, rtype: u16) -> &mut Records {
        let at = self.sets.binary_search_by_key(&rtype, |(touched, _)| *touched).unwrap_or_else(|at| {
            let before = self.node.and_then(|node| node.set(rtype)).map_or_else(Records::default, |set| Records {
                ttl: set.ttl(),
                rdatas: set.rdatas(apex).map(Vec::into_boxed_slice).collect(),
            });
            self.sets.insert(at, (rtype, Touched { after: before.clone(), before }));
            at
        });
        &mut self.sets[at].1.after
    }
}

impl<'z> Draft<'z> {
    pub(super) fn new(zone: &'z Zone) -> Self {
        Self { zone, names: BTreeMap::new() }
    }

    fn name(&mut self, name: &Name) -> &mut DraftName<'z> {
        let zone = self.zone;
        self.names
            .entry(name.to_lowercase().wire().into())
            .or_insert_with(|| Box::new(DraftName { name: name.clone(), node: zone.node(name), sets: Vec::new() }))
    }

    fn set(&mut self, name: &Name, rtype: u16) -> &mut Records {
        let zone = self.zone;
        self.name(name).set(&zone.apex, rtype)
    }

    /// Whether the name has what may not stand beside a record of this type: an alias beside anything, anything
    /// beside an alias.
    pub(super) fn clashes(&mut self, name: &Name, rtype: u16) -> bool {
        let types = self.name(name).types();
        types.into_iter().any(|held| (held == types::CNAME) != (rtype == types::CNAME))
    }

    /// Adds a record, in the place of the one it is the same as.
    pub(super) fn add(&mut self, entry: &Entry) {
        let Entry { name, rtype, ttl, rdata } = entry;
        let set = self.set(name, *rtype);
        // RFC 2181 §5.2: one TTL for a set. §8: with the top bit set it means 0.
        set.ttl = if *ttl > i32::MAX as u32 { 0 } else { *ttl };
        // What is there already, be it spelled differently, stays: adding it again changes nothing.
        if set.rdatas.iter().any(|held| same(*rtype, held, rdata)) {
            return;
        }
        match set.rdatas.iter_mut().find(|held| replaces(*rtype, held, rdata)) {
            Some(held) => held.clone_from(rdata),
            None => set.rdatas.push(rdata.clone()),
        }
    }

    /// Adds a record of a delta. False when it is there already.
    pub(super) fn add_exactly(&mut self, entry: &Entry) -> bool {
        let Entry { name, rtype, ttl, rdata } = entry;
        let set = self.set(name, *rtype);
        if set.rdatas.iter().any(|held| same(*rtype, held, rdata)) {
            return false;
        }
        set.ttl = if set.rdatas.is_empty() { *ttl } else { set.ttl.min(*ttl) };
        set.rdatas.push(rdata.clone());
        true
    }

    /// Takes a record of a delta away. False when it is not there.
    pub(super) fn remove_exactly(&mut self, entry: &Entry) -> bool {
        let set = self.set(&entry.name, entry.rtype);
        let held = set.rdatas.len();
        set.rdatas.retain(|rdata| !same(entry.rtype, rdata, &entry.rdata));
        set.rdatas.len() < held
    }

    /// RFC 2136 §3.4.2.4: the apex keeps its SOA and its last NS.
    pub(super) fn remove_record(&mut self, name: &Name, rtype: u16, rdata: &[u8]) {
        let is_apex = *name == self.zone.apex;
        if is_apex && rtype == types::SOA {
            return;
        }
        let set = self.set(name, rtype);
        if !(is_apex && rtype == types::NS && set.rdatas.len() == 1) {
            set.rdatas.retain(|held| !same(rtype, held, rdata));
        }
    }

    /// RFC 2136 §3.4.2.3: the apex keeps its SOA and its NS.
    pub(super) fn remove_set(&mut self, name: &Name, rtype: u16) {
        if *name != self.zone.apex || !matches!(rtype, types::SOA | types::NS) {
            self.set(name, rtype).rdatas.clear();
        }
    }

    /// RFC 2136 §3.4.2.3: all types but those.
    pub(super) fn remove_name(&mut self, name: &Name) {
        for rtype in self.name(name).types() {
            self.remove_set(name, rtype);
        }
    }

    /// Whether no set is other than it was.
    pub(super) fn is_unchanged(&self) -> bool {
        !self.sets().any(|(_, _, set)| set.before.differ(&set.after))
    }

    fn sets(&self) -> impl Iterator<Item = (&Name, u16, &Touched)> {
        self.names.values().flat_map(|name| name.sets.iter().map(|(rtype, set)| (&name.name, *rtype, set)))
    }

    /// The serial as it will be.
    pub(super) fn serial(&mut self) -> u32 {
        let apex = self.zone.apex.clone();
        self.set(&apex, types::SOA).rdatas.first().and_then(|rdata| soa_serial(rdata)).unwrap_or(0)
    }

    /// The sets that are other than they were.
    pub(super) fn finish(self) -> Changed {
        let sets = self.names.into_values().flat_map(|name| {
            let DraftName { name, sets, .. } = *name;
            let differ = sets.into_iter().filter(|(_, set)| set.before.differ(&set.after));
            differ.map(move |(rtype, set)| (name.clone(), rtype, set)).collect::<Vec<_>>()
        });
        Changed(sets.collect())
    }

    /// Makes the changes of `delta`, SOA included.
    pub(super) fn make(&mut self, delta: &Delta) -> Result<(), DeltaError> {
        for entry in &delta.removed {
            if !self.remove_exactly(entry) {
                return Err(DeltaError::Missing(entry.name.clone(), entry.rtype));
            }
        }
        for entry in &delta.added {
            self.zone.check_data(entry)?;
            if !self.add_exactly(entry) {
                return Err(DeltaError::Doubled(entry.name.clone(), entry.rtype));
            }
        }
        self.zone.check_data(&delta.new_soa)?;
        self.add(&delta.new_soa);
        Ok(())
    }
}

/// Sets of a zone that are to be others.
#[derive(Debug)]
pub(super) struct Changed(Vec<(Name, u16, Touched)>);

impl Changed {
    /// Makes the zone hold them, with this serial unless they have one, and gives what differs. A zone that refuses one of
    /// them is as it was.
    pub(super) fn make(self, zone: &mut Zone, serial: Option<u32>) -> Result<Delta, ChangeError> {
        let soa = |zone: &Zone| zone.soa().ok_or(ChangeError::ApexNeeds);
        let old_soa = soa(zone)?;
        if let Err(refused) = self.put(zone, |set| &set.after) {
            let undone = self.put(zone, |set| &set.before);
            debug_assert!(undone.is_ok(), "what was there has its place");
            return Err(refused);
        }
        if let Some(serial) = serial {
            zone.set_serial(serial);
        }
        let mut delta = Delta { old_soa, removed: Vec::new(), new_soa: soa(zone)?, added: Vec::new() };
        for (name, rtype, Touched { before, after }) in self.0.iter().filter(|(_, rtype, _)| *rtype != types::SOA) {
            delta.removed.extend(before.lacking_in(after, name, *rtype));
            delta.added.extend(after.lacking_in(before, name, *rtype));
        }
        Ok(delta)
    }

    /// Gives all sets these records.
    fn put(&self, zone: &mut Zone, records: impl Fn(&Touched) -> &Records) -> Result<(), ChangeError> {
        let all = || self.0.iter().map(|(name, rtype, set)| (name, *rtype, records(set)));
        // First what goes, so that an alias can take the place of what was there, and the other way round.
        for (name, rtype, _) in all().filter(|(_, _, records)| records.rdatas.is_empty()) {
            zone.remove(name, rtype)?;
        }
        for (name, rtype, records) in all().filter(|(_, _, records)| !records.rdatas.is_empty()) {
            zone.replace(name, rtype, records.ttl, records.rdatas.iter().map(AsRef::as_ref))?;
        }
        Ok(())
    }
}

/// Whether a record of an update takes the place of a different one (RFC 2136 §3.4.2.2).
fn replaces(rtype: u16, held: &[u8], new: &[u8]) -> bool {
    match rtype {
        types::CNAME | types::SOA => true,
        WKS => held.get(..5) == new.get(..5),
        _ => false,
    }
}

/// Whether two data of a type are the same record's, names compared without case.
fn same(rtype: u16, one: &[u8], other: &[u8]) -> bool {
    one == other
        || one.len() == other.len()
            && one.eq_ignore_ascii_case(other)
            && rrset::canonical(rtype, one).is_ok_and(|one| rrset::canonical(rtype, other) == Ok(one))
}
