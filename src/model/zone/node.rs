//! One name of a zone: its RRsets, and how many names lie right below it.
//!
//! The name and the first of the sets stand in one piece of memory, one behind the other: for nearly every question that
//! is all that is read, and a large zone does not fit in a cache.

use std::fmt;
use std::sync::Arc;

use super::rrset::{Head, Made, Rrset, roomy};
use super::trie::Named;
use super::types;
use crate::model::Name;

/// A name of a zone. Without RRsets it is an empty non-terminal (RFC 8020).
///
/// Nodes do not change but for the number of names below them and the zone's serial: another one takes the place.
pub struct Node<B: ?Sized = [u8]> {
    hash: u64,
    /// The sets after the first, at most one a type, sorted by type.
    others: Option<Box<Others>>,
    /// Names right below this one.
    children: u32,
    /// The set of the lowest type, of no records where the name has none. Behind its records stands the name.
    first: Rrset<B>,
}

#[derive(Clone, Default)]
struct Others(Box<[Arc<Rrset>]>);

impl Node {
    /// A node with these sets, at most one a type.
    pub(super) fn new(hash: u64, name: &Name, sets: Vec<Made>) -> Arc<Self> {
        let mut sets = sets.into_iter();
        let (head, block) = sets.next().map_or_else(|| (Head::empty(name.wire()), Vec::new()), Made::into_parts);
        Self::placed(hash, 0, name.wire(), head, &block, Others(sets.map(Made::alone).collect()))
    }

    fn placed(hash: u64, children: u32, name: &[u8], head: Head, block: &[u8], others: Others) -> Arc<Self> {
        fn place<const N: usize>(
            (hash, children, others): (u64, u32, Option<Box<Others>>),
            head: Head,
            parts: [&[u8]; 2],
        ) -> Arc<Node> {
            Arc::new(Node { hash, others, children, first: Rrset::with_room::<N>(head, parts) })
        }
        let others = (!others.0.is_empty()).then(|| Box::new(others));
        roomy!(block.len() + name.len(), place((hash, children, others), head, [block, name]))
    }

    /// The same name and what lies below it with these sets, at most one a type.
    fn with_sets(&self, mut sets: Vec<Arc<Rrset>>) -> Arc<Self> {
        sets.sort_by_key(|set| set.rtype());
        let mut sets = sets.into_iter();
        let (first, others) = (sets.next(), Others(sets.collect()));
        let (head, block) = match first.as_deref() {
            Some(set) => (set.head().clone(), set.block()),
            None => (Head::empty(self.wire()), &[][..]),
        };
        Self::placed(self.hash, self.children, self.wire(), head, block, others)
    }

    /// The name, in the spelling it was first given in.
    #[must_use]
    pub fn name(&self) -> Name {
        Name::from_wire(self.wire()).unwrap_or_else(|_| Name::root())
    }

    /// The name's uncompressed wire form.
    #[must_use]
    #[inline]
    pub fn wire(&self) -> &[u8] {
        self.first.owner_behind()
    }

    /// Names right below this one.
    pub(super) fn children(&self) -> u32 {
        self.children
    }

    /// The RRsets, sorted by type.
    #[inline]
    pub fn sets(&self) -> impl Iterator<Item = &Rrset> {
        let first = self.has_records().then_some(&self.first);
        first.into_iter().chain(self.others().iter().map(AsRef::as_ref))
    }

    fn others(&self) -> &[Arc<Rrset>] {
        self.others.as_ref().map_or(&[], |others| &others.0)
    }

    /// Whether the name has any.
    #[must_use]
    #[inline]
    pub fn has_records(&self) -> bool {
        self.first.count() > 0
    }

    /// The first RRset, if it is of that type.
    #[inline]
    pub(super) fn first_of(&self, rtype: u16) -> Option<&Rrset> {
        (self.first.rtype() == rtype && self.has_records()).then_some(&self.first)
    }

    /// The RRset of that type.
    #[must_use]
    #[inline]
    pub fn set(&self, rtype: u16) -> Option<&Rrset> {
        if let Some(first) = self.first_of(rtype) {
            return Some(first);
        }
        self.others.as_ref()?.0.iter().find(|set| set.rtype() == rtype).map(AsRef::as_ref)
    }

    /// Whether the name holds an alias.
    #[must_use]
    pub fn is_alias(&self) -> bool {
        self.set(types::CNAME).is_some()
    }

    /// Whether an answer of the first set may bring records of other names along.
    #[inline]
    pub(super) fn names_others(&self) -> bool {
        !self.first.is_plain()
    }

    /// Reads all that an answer of the first set is made of, to have it at hand.
    #[inline]
    pub(super) fn touch(&self) -> usize {
        self.first.touch() ^ self.children as usize
    }

    /// This node with `set` in the place of the set of its type.
    pub(super) fn with(&self, set: Made) -> Arc<Self> {
        let mut sets = self.sets_but(set.rtype());
        sets.push(set.alone());
        self.with_sets(sets)
    }

    /// This node without the set of that type.
    pub(super) fn without(&self, rtype: u16) -> Arc<Self> {
        self.with_sets(self.sets_but(rtype))
    }

    fn sets_but(&self, rtype: u16) -> Vec<Arc<Rrset>> {
        let first = self.has_records().then(|| self.first.alone());
        first.into_iter().chain(self.others().iter().cloned()).filter(|set| set.rtype() != rtype).collect()
    }

    /// Makes the number of names right below the node another.
    pub(super) fn set_children(node: &mut Arc<Self>, children: u32) {
        if let Some(own) = Self::own(node) {
            own.children = children;
        }
    }

    /// Gives the SOA record, where there is one, this serial.
    pub(super) fn set_serial(node: &mut Arc<Self>, serial: u32) {
        let Some(own) = Self::own(node) else { return };
        own.first.write_soa_serial(serial);
        let others = own.others.iter_mut().flat_map(|others| &mut others.0);
        others.filter(|set| set.rtype() == types::SOA).for_each(|set| Rrset::set_soa_serial(set, serial));
    }

    /// The node, or where others share it a copy in its place, to change what does not change its length.
    fn own(node: &mut Arc<Self>) -> Option<&mut Self> {
        if Arc::get_mut(node).is_none() {
            let (head, others) = (node.first.head().clone(), node.others.as_deref().cloned().unwrap_or_default());
            *node = Self::placed(node.hash, node.children, node.wire(), head, node.first.block(), others);
        }
        Arc::get_mut(node)
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} below:", self.name(), self.children)?;
        f.debug_list().entries(self.sets()).finish()
    }
}

impl Named for Node {
    #[inline]
    fn hash(&self) -> u64 {
        self.hash
    }

    #[inline]
    fn wire(&self) -> &[u8] {
        self.wire()
    }
}
