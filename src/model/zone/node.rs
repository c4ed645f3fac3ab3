//! One name of a zone: its RRsets, and how many names lie right below it.

use super::rrset::Rrset;
use super::trie::Named;
use super::types;
use crate::model::Name;

/// A name of a zone. Without RRsets it is an empty non-terminal (RFC 8020).
#[derive(Clone, Debug)]
pub struct Node {
    name: Name,
    /// Names right below this one.
    pub(super) children: u32,
    /// At most one a type, sorted by type.
    sets: Box<[Rrset]>,
}

impl Node {
    pub(super) fn new(name: Name) -> Self {
        Self { name, children: 0, sets: Box::default() }
    }

    /// A node with these sets, at most one a type.
    pub(super) fn with_sets(name: Name, mut sets: Vec<Rrset>) -> Self {
        sets.sort_by_key(Rrset::rtype);
        Self { name, children: 0, sets: sets.into() }
    }

    /// The name, in the spelling it was first given in.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The RRsets, sorted by type.
    #[must_use]
    pub fn sets(&self) -> &[Rrset] {
        &self.sets
    }

    /// The RRset of that type.
    #[must_use]
    #[inline]
    pub fn set(&self, rtype: u16) -> Option<&Rrset> {
        self.sets.iter().find(|set| set.rtype() == rtype)
    }

    /// Whether the name holds an alias.
    #[must_use]
    pub fn is_alias(&self) -> bool {
        self.set(types::CNAME).is_some()
    }

    /// Puts `set` in the place of the set of its type; gives what was there.
    pub(super) fn replace(&mut self, set: Rrset) -> Option<Rrset> {
        let mut sets = std::mem::take(&mut self.sets).into_vec();
        let replaced = match sets.binary_search_by_key(&set.rtype(), Rrset::rtype) {
            Ok(index) => Some(std::mem::replace(&mut sets[index], set)),
            Err(index) => {
                sets.insert(index, set);
                None
            }
        };
        self.sets = sets.into();
        replaced
    }

    /// Takes away the set of that type.
    pub(super) fn remove(&mut self, rtype: u16) -> Option<Rrset> {
        let index = self.sets.binary_search_by_key(&rtype, Rrset::rtype).ok()?;
        let mut sets = std::mem::take(&mut self.sets).into_vec();
        let removed = sets.remove(index);
        self.sets = sets.into();
        Some(removed)
    }
}

impl Named for Node {
    fn name(&self) -> &Name {
        &self.name
    }
}
