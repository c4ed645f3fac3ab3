//! Changing a zone: one RRset at a time, at a cost that depends on the name's depth and not on the zone's size.
//!
//! Owns the bookkeeping that answering relies on: ancestors exist, children, cuts and wildcards are counted, the
//! negative answer follows the SOA record.

use serde::{Deserialize, Serialize};

use super::key::Key;
use super::node::Node;
use super::rrset::{Made, Place, Rrset, RrsetError};
use super::{Zone, types};
use crate::model::Name;

/// Why a zone refuses a change. The zone is as it was.
#[derive(Clone, Debug, Deserialize, Eq, thiserror::Error, PartialEq, Serialize)]
pub enum ChangeError {
    /// The name is neither the apex nor below it.
    #[error("{name} is not in the zone {apex}")]
    OutOfZone {
        /// The name of the change.
        name: Name,
        /// The zone's.
        apex: Name,
    },
    /// RFC 1034 §3.6.2: an alias stands alone.
    #[error("{0} has a CNAME record, beside which no other may stand")]
    BesideAlias(Name),
    /// RFC 1035 §5.2, check 2: one SOA record, at the apex.
    #[error("{0} is not the apex, and only the apex has an SOA record")]
    SoaBelowApex(Name),
    /// The apex must keep its SOA and NS records.
    #[error("the apex must keep its SOA and NS records")]
    ApexNeeds,
    /// RFC 6672 is not served here.
    #[error("{0} has a DNAME record, which is not served: write the aliases out as CNAME records")]
    Dname(Name),
    /// Type 0 and the types 128 to 255 stand for questions and messages, not for data (RFC 6895 §3.1).
    #[error("{0} has a record of type {1}, which is no data type")]
    NotData(Name, u16),
    /// The records make no set.
    #[error("{name}: {cause}")]
    Rrset {
        /// The set's owner.
        name: Name,
        /// What is wrong with them.
        cause: RrsetError,
    },
}

impl Zone {
    /// Puts the records with these data (uncompressed wire form) in the place of all of the name's records of that
    /// type.
    ///
    /// # Errors
    /// When the records make no set, or the set does not belong there.
    pub fn replace<'r>(
        &mut self,
        name: &Name,
        rtype: u16,
        ttl: u32,
        rdatas: impl IntoIterator<Item = &'r [u8]>,
    ) -> Result<(), ChangeError> {
        self.check_place(name, rtype)?;
        let place = Place { owner: name, apex: &self.apex, seed: self.seed };
        let set =
            Made::new(place, rtype, ttl, rdatas).map_err(|cause| ChangeError::Rrset { name: name.clone(), cause })?;
        let mut key = Key::default();
        key.set(self.seed, name.wire());
        if let Some(node) = self.nodes.get(key.hash(), key.octets()) {
            let alone = |held: &Rrset| held.rtype() == rtype;
            let alias_involved = rtype == types::CNAME || node.is_alias();
            if alias_involved && !node.sets().all(alone) {
                return Err(ChangeError::BesideAlias(name.clone()));
            }
        }
        self.put(&key, name, set);
        Ok(())
    }

    /// Takes away all of the name's records of that type; whether there were any.
    ///
    /// # Errors
    /// [`ChangeError::ApexNeeds`] when it would leave the apex without SOA or NS records.
    pub fn remove(&mut self, name: &Name, rtype: u16) -> Result<bool, ChangeError> {
        if *name == self.apex && matches!(rtype, types::SOA | types::NS) {
            return Err(ChangeError::ApexNeeds);
        }
        let mut key = Key::default();
        key.set(self.seed, name.wire());
        let Some(node) = self.nodes.get(key.hash(), key.octets()) else { return Ok(false) };
        if node.set(rtype).is_none() {
            return Ok(false);
        }
        if let Some(node) = self.nodes.get_mut(key.hash(), key.octets()) {
            *node = node.without(rtype);
        }
        if rtype == types::NS {
            self.cuts.remove(key.labels());
        }
        self.prune(&key);
        Ok(true)
    }

    pub(super) fn check_place(&self, name: &Name, rtype: u16) -> Result<(), ChangeError> {
        if !name.is_at_or_below(&self.apex) {
            return Err(ChangeError::OutOfZone { name: name.clone(), apex: self.apex.clone() });
        }
        match rtype {
            types::SOA if *name != self.apex => Err(ChangeError::SoaBelowApex(name.clone())),
            types::DNAME => Err(ChangeError::Dname(name.clone())),
            0 | 41 | 128..=255 => Err(ChangeError::NotData(name.clone(), rtype)),
            _ => Ok(()),
        }
    }

    fn put(&mut self, key: &Key, name: &Name, set: Made) {
        let rtype = set.rtype();
        let mut replaced = false;
        match self.nodes.get_mut(key.hash(), key.octets()) {
            Some(node) => {
                replaced = node.set(rtype).is_some();
                *node = node.with(set);
            }
            None => self.plant(key, name, vec![set]),
        }
        if rtype == types::SOA {
            self.follow_soa();
        }
        if rtype == types::NS && !replaced && key.labels() > self.apex_labels {
            self.cuts.add(key.labels());
        }
    }

    /// Adds a node where there is none, and its ancestors as far as they are missing.
    fn plant(&mut self, key: &Key, name: &Name, sets: Vec<Made>) {
        let node = Node::new(key.hash(), name, sets);
        self.count_node(key.labels(), node.wire());
        self.nodes.insert(node);
        if key.labels() > self.apex_labels
            && let Some(parent) = name.parent()
        {
            self.count_children(key, key.labels() - 1, parent, 1);
        }
    }

    /// Counts so many more names right below the ancestor of `key`'s name with so many labels, which is `above`. It is
    /// added where it is missing, and so are its own ancestors.
    pub(super) fn count_children(&mut self, key: &Key, mut labels: usize, mut above: Name, mut more: u32) {
        loop {
            let (hash, octets) = key.suffix(labels);
            if let Some(node) = self.nodes.get_mut(hash, octets) {
                let children = node.children() + more;
                return Node::set_children(node, children);
            }
            let mut node = Node::new(hash, &above, Vec::new());
            Node::set_children(&mut node, more);
            self.count_node(labels, node.wire());
            self.nodes.insert(node);
            let Some(parent) = above.parent().filter(|_| labels > self.apex_labels) else { return };
            (labels, above, more) = (labels - 1, parent, 1);
        }
    }

    /// Counts a node that is new.
    pub(super) fn count_node(&mut self, labels: usize, octets: &[u8]) {
        self.names.add(labels);
        self.wildcards += usize::from(is_wildcard(octets));
    }

    /// Makes negative answers carry the SOA record as it is now (RFC 2308 §5).
    pub(super) fn follow_soa(&mut self) {
        let soa = self.nodes.get(self.apex_hash, self.apex.wire()).and_then(|apex| apex.set(types::SOA));
        self.negative = soa.map(|soa| soa.with_ttl(soa.ttl().min(soa.soa_minimum().unwrap_or(0))));
    }

    /// Gives the SOA record this serial, which is all that most updates change of it.
    pub(super) fn set_serial(&mut self, serial: u32) {
        if let Some(apex) = self.nodes.get_mut(self.apex_hash, self.apex.wire()) {
            Node::set_serial(apex, serial);
        }
        if let Some(negative) = &mut self.negative {
            Rrset::set_soa_serial(negative, serial);
        }
    }

    /// Removes the node if it holds nothing and has nothing below, and then its ancestors likewise.
    fn prune(&mut self, key: &Key) {
        let mut labels = key.labels();
        loop {
            let (hash, octets) = key.suffix(labels);
            let Some(node) = self.nodes.get(hash, octets) else { return };
            if node.has_records() || node.children() > 0 {
                return;
            }
            self.nodes.remove(hash, octets);
            self.names.remove(labels);
            self.wildcards -= usize::from(is_wildcard(octets));
            if labels == self.apex_labels {
                return;
            }
            labels -= 1;
            let (hash, octets) = key.suffix(labels);
            if let Some(above) = self.nodes.get_mut(hash, octets) {
                let children = above.children() - 1;
                Node::set_children(above, children);
            }
        }
    }
}

/// RFC 4592 §2.1.1: the first label is exactly an asterisk.
fn is_wildcard(octets: &[u8]) -> bool {
    octets.starts_with(b"\x01*")
}
