//! What differs between two versions of a zone, as journals keep it and incremental transfers carry it (RFC 1995).

use super::draft::Draft;
use crate::model::Name;
use crate::model::zone::entry::Entry;
use crate::model::zone::node::Node;
use crate::model::zone::{ChangeError, Rrset, Zone};

/// The step from one version of a zone to a later one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Delta {
    /// The SOA record before.
    pub old_soa: Entry,
    /// What goes, without the SOA.
    pub removed: Vec<Entry>,
    /// The SOA record after.
    pub new_soa: Entry,
    /// What comes, without the SOA.
    pub added: Vec<Entry>,
}

/// Why a delta does not fit a zone, which then has to be transferred as a whole.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DeltaError {
    /// It begins at another version.
    #[error("the difference begins at serial {begins}, and the zone is at {at}")]
    Elsewhere {
        /// Where it begins.
        begins: u32,
        /// Where the zone is.
        at: u32,
    },
    /// It takes away what is not there.
    #[error("the difference takes a record of {0} of type {1} away that is not there")]
    Missing(Name, u16),
    /// It adds what is there.
    #[error("the difference adds a record of {0} of type {1} that is there")]
    Doubled(Name, u16),
    /// It adds what has no place in the zone.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

impl DeltaError {
    /// A stable label for metrics and logs.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Elsewhere { .. } => "delta-elsewhere",
            Self::Missing(..) => "delta-missing",
            Self::Doubled(..) => "delta-doubled",
            Self::Change(_) => "delta-change",
        }
    }
}

impl Delta {
    /// The zone's apex.
    #[must_use]
    pub fn apex(&self) -> &Name {
        &self.old_soa.name
    }

    /// The serial before.
    #[must_use]
    pub fn from(&self) -> u32 {
        super::soa_serial(&self.old_soa.rdata).unwrap_or(0)
    }

    /// The serial after.
    #[must_use]
    pub fn to(&self) -> u32 {
        super::soa_serial(&self.new_soa.rdata).unwrap_or(0)
    }

    /// All records in the order in which a transfer carries them (RFC 1995 §4).
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        let old = std::iter::once(&self.old_soa).chain(&self.removed);
        old.chain(std::iter::once(&self.new_soa)).chain(&self.added)
    }

    /// About how many octets it takes, in memory and in a transfer.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.entries().map(|entry| entry.name.wire().len() + 10 + entry.rdata.len()).sum()
    }
}

impl Zone {
    /// The zone after `delta`, which does not change this one.
    ///
    /// # Errors
    /// When the delta begins at another version, or does not fit what the zone holds.
    pub fn apply(&self, delta: &Delta) -> Result<Self, DeltaError> {
        if delta.from() != self.serial() {
            return Err(DeltaError::Elsewhere { begins: delta.from(), at: self.serial() });
        }
        let mut draft = Draft::new(self);
        draft.make(delta)?;
        let mut zone = self.clone();
        draft.finish().make(&mut zone, None)?;
        Ok(zone)
    }

    /// What differs between this zone and a later version of it. Costs what the zones cost.
    #[must_use]
    pub fn difference(&self, later: &Self) -> Option<Delta> {
        let mut delta = Delta { old_soa: self.soa()?, removed: Vec::new(), new_soa: later.soa()?, added: Vec::new() };
        self.lacking_in(later, &mut delta.removed);
        later.lacking_in(self, &mut delta.added);
        Some(delta)
    }

    /// Adds those records to `into` that `other` has not, or with another TTL.
    fn lacking_in(&self, other: &Self, into: &mut Vec<Entry>) {
        for node in self.nodes() {
            let there = other.node(&node.name());
            let is_there = |entry: &Entry| {
                let set = there.and_then(|there| there.set(entry.rtype));
                set.is_some_and(|set| holds(set, entry, other.apex()))
            };
            if !there.is_some_and(|there| same_sets(node, there, self.apex(), other.apex())) {
                into.extend(self.entries_of(node).filter(|entry| !is_there(entry)));
            }
        }
    }
}

fn holds(set: &Rrset, entry: &Entry, apex: &Name) -> bool {
    set.ttl() == entry.ttl && set.rdatas(apex).any(|rdata| rdata == *entry.rdata)
}

/// Whether two nodes hold the same, quickly: most do, after a zone file was read again.
fn same_sets(one: &Node, other: &Node, one_apex: &Name, other_apex: &Name) -> bool {
    let same = |(one, other): (&Rrset, &Rrset)| {
        one.rtype() == other.rtype()
            && one.ttl() == other.ttl()
            && one.count() == other.count()
            && one.rdatas(one_apex).eq(other.rdatas(other_apex))
    };
    one.sets().count() == other.sets().count() && one.sets().zip(other.sets()).all(same)
}
