//! A DNS zone and the answers it gives.
//!
//! Owns what a zone holds and what follows from it: exact names, empty non-terminals, wildcards, zone cuts, aliases
//! and negative answers (RFC 1034 §4.3.2, RFC 2308, RFC 4592). It gives answers as its own [`Answer`], never as a
//! wire code or a message; `wire::dns::answer` writes them down.
//!
//! A zone is a value: cloning it costs a few pointers, changing the clone costs what the change costs, not what the
//! zone costs ([`trie::Trie`]), and readers of the old value notice nothing. Every RRset is kept in the octets in
//! which an answer carries it ([`rrset::Rrset`]), so that answering is looking up and copying.
//!
//! Invariants: every node has records or children; the ancestors of a node, up to the apex, are nodes; the counts of
//! cuts and wildcards by depth agree with the nodes.

mod ahead;
mod change;
mod check;
mod depths;
mod entry;
mod journal;
mod key;
mod load;
mod lookup;
mod node;
pub mod rrset;
pub mod serial;
mod trie;
pub mod types;
mod update;
mod zones;

#[cfg(test)]
mod tests;

pub use ahead::{ABREAST, Found};
pub use change::ChangeError;
pub use check::{Fault, ZoneFault};
pub use entry::Entry;
pub use journal::Journal;
pub use key::{Key, Seed};
pub use load::{Loaded, ZoneWarning};
pub use lookup::{Aliases, Answer, End, MAX_ALIASES};
pub use node::Node;
pub use rrset::{Rrset, RrsetError};
pub use update::{Change, Delta, DeltaError, Prerequisite, Update, UpdateError, Updated};
pub use zones::Zones;

use std::sync::Arc;

use crate::model::Name;
use depths::Depths;
use trie::{Named, Trie};

/// A zone: its names, their records, and what answering needs to know about all of them.
#[derive(Clone, Debug)]
pub struct Zone {
    apex: Name,
    seed: Seed,
    apex_labels: usize,
    apex_hash: u64,
    nodes: Trie<Node>,
    /// The SOA record with the TTL of negative answers (RFC 2308 §5); absent only while a zone is being built.
    negative: Option<Arc<Rrset>>,
    /// Zone cuts by the number of labels of their names.
    cuts: Depths,
    /// Nodes by the number of labels of their names: no search goes deeper.
    names: Depths,
    wildcards: usize,
    strict: bool,
}

impl Zone {
    /// A zone without any record, not even the apex's SOA: the start of loading one.
    #[must_use]
    fn empty(apex: Name, seed: Seed) -> Self {
        let mut key = Key::default();
        key.set(seed, apex.wire());
        let (apex_labels, apex_hash) = (key.labels(), key.hash());
        Self {
            apex,
            seed,
            apex_labels,
            apex_hash,
            nodes: Trie::default(),
            negative: None,
            cuts: Depths::default(),
            names: Depths::default(),
            wildcards: 0,
            strict: false,
        }
    }

    /// A zone of which only the name is known: what a secondary serves before the first transfer and after the zone
    /// has expired.
    #[must_use]
    pub fn unknown(apex: Name, seed: Seed) -> Self {
        Self::empty(apex, seed)
    }

    /// Whether the zone has contents. Without, nothing can be said about any of its names, not even that there is none.
    #[must_use]
    #[inline]
    pub fn is_known(&self) -> bool {
        self.negative.is_some()
    }

    /// Whether its questions are answered only by who is known not to be behind.
    #[must_use]
    #[inline]
    pub fn is_strict(&self) -> bool {
        self.strict
    }

    /// Says whether its questions are answered only by who is known not to be behind; every later version says the same.
    pub fn set_strict(&mut self, strict: bool) {
        self.strict = strict;
    }

    /// The name at which the zone begins.
    #[must_use]
    pub fn apex(&self) -> &Name {
        &self.apex
    }

    /// The SOA record as negative answers carry it: its TTL is the lesser of its own and the MINIMUM field
    /// (RFC 2308 §5).
    #[must_use]
    pub fn negative(&self) -> Option<&Rrset> {
        self.negative.as_deref()
    }

    /// The serial number in the SOA record; 0 while there is none.
    #[must_use]
    pub fn serial(&self) -> u32 {
        self.negative().and_then(Rrset::soa_serial).unwrap_or(0)
    }

    /// A number that tells this zone from the others of one [`Zones`], whatever version of it.
    #[must_use]
    #[inline]
    pub fn id(&self) -> u64 {
        self.apex_hash
    }

    /// How many names have records or lie above one that has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether the zone has no name at all, which no loaded zone is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.len() == 0
    }

    /// The node at exactly `name`, occluded ones and empty non-terminals included.
    #[must_use]
    pub fn node(&self, name: &Name) -> Option<&Node> {
        let mut key = Key::default();
        key.set(self.seed, name.wire());
        self.nodes.get(key.hash(), key.octets()).map(AsRef::as_ref)
    }

    /// All nodes, in no meaningful order.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter()
    }
}

impl Named for Zone {
    fn hash(&self) -> u64 {
        self.apex_hash
    }

    fn wire(&self) -> &[u8] {
        self.apex.wire()
    }
}
