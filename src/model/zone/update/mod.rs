//! Changing a zone by one command: prerequisites and changes, all of which hold and happen, or none (RFC 2136 §3).
//!
//! An [`Update`] is a value that says everything: applied to the same zone, it gives the same new zone, the same
//! serial and the same [`Delta`], wherever and whenever. Whether the command may be given is decided elsewhere.
//!
//! ```text
//!  Update ──► prerequisites ──► changes, in order, to a draft ──► serial ──► Zone and Delta
//!                  │ one fails            │ one cannot be                        │ nothing differs
//!                  ▼                      ▼                                      ▼
//!             the zone is as it was, and the error says which                no delta
//! ```

mod delta;
mod draft;
#[cfg(test)]
mod tests;

pub use delta::{Delta, DeltaError};

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use draft::Draft;

use super::entry::Entry;
use super::node::Node;
use super::rrset::{self, RrsetError};
use super::{ChangeError, Zone, serial, types};
use crate::model::Name;

/// A command to a zone.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Update {
    /// What must hold before anything changes, checked in order.
    pub prerequisites: Vec<Prerequisite>,
    /// What changes, in order.
    pub changes: Vec<Change>,
}

/// Something that must hold before a zone is changed (RFC 2136 §2.4).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Prerequisite {
    /// The name has a record; an empty non-terminal has none (RFC 2136 §2.4.4).
    NameInUse(Name),
    /// The name has no record.
    NameFree(Name),
    /// The name has a record of this type.
    SetExists(Name, u16),
    /// The name has no record of this type.
    SetAbsent(Name, u16),
    /// The name's records of this type have exactly these data; their order and their TTL do not matter.
    SetIs {
        /// The owner.
        name: Name,
        /// The type.
        rtype: u16,
        /// The data in uncompressed wire form, at least one.
        rdatas: Vec<Box<[u8]>>,
    },
}

/// One change (RFC 2136 §2.5). What asks for the impossible at the apex (no SOA, no NS) is passed over.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Change {
    /// The record is there afterwards, and its whole set has its TTL. An alias replaces an alias, and nothing else; an
    /// SOA record counts only with a newer serial (RFC 2136 §3.4.2.2).
    Add(Entry),
    /// The record is not there afterwards.
    RemoveRecord {
        /// The owner.
        name: Name,
        /// The type.
        rtype: u16,
        /// The data in uncompressed wire form.
        #[serde(with = "crate::model::octets")]
        rdata: Box<[u8]>,
    },
    /// The name has no records of this type afterwards.
    RemoveSet(Name, u16),
    /// The name has no records afterwards; the apex keeps SOA and NS.
    RemoveName(Name),
}

impl Change {
    /// The name whose records change.
    #[must_use]
    pub fn name(&self) -> &Name {
        match self {
            Self::Add(entry) => &entry.name,
            Self::RemoveRecord { name, .. } | Self::RemoveSet(name, _) | Self::RemoveName(name) => name,
        }
    }
}

/// Why a zone refuses an update. The zone is as it was.
#[derive(Clone, Debug, Deserialize, Eq, thiserror::Error, PartialEq, Serialize)]
pub enum UpdateError {
    /// [`Prerequisite::NameInUse`].
    #[error("{0} has no record, and the update requires one")]
    NameFree(Name),
    /// [`Prerequisite::NameFree`].
    #[error("{0} has records, and the update requires that it has none")]
    NameInUse(Name),
    /// [`Prerequisite::SetExists`].
    #[error("{0} has no record of type {1}, and the update requires one")]
    SetAbsent(Name, u16),
    /// [`Prerequisite::SetAbsent`].
    #[error("{0} has records of type {1}, and the update requires that it has none")]
    SetExists(Name, u16),
    /// [`Prerequisite::SetIs`].
    #[error("the records of {0} of type {1} are not those that the update requires")]
    SetDiffers(Name, u16),
    /// A record that has no place in the zone.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// RFC 4592 §4.2: nobody agrees what it means.
    #[error("{0} is a wildcard: a wildcard cannot be delegated")]
    WildcardNs(Name),
    /// A secondary that has nothing yet, or no longer.
    #[error("the zone {0} has no contents")]
    Unknown(Name),
}

impl UpdateError {
    /// A stable label for metrics and logs.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NameFree(_) => "name-free",
            Self::NameInUse(_) => "name-in-use",
            Self::SetAbsent(..) => "set-absent",
            Self::SetExists(..) => "set-exists",
            Self::SetDiffers(..) => "set-differs",
            Self::Change(ChangeError::OutOfZone { .. }) => "out-of-zone",
            Self::Change(ChangeError::BesideAlias(_)) => "beside-alias",
            Self::Change(ChangeError::SoaBelowApex(_)) => "soa-below-apex",
            Self::Change(ChangeError::ApexNeeds) => "apex-needs",
            Self::Change(ChangeError::Dname(_)) => "dname",
            Self::Change(ChangeError::NotData(..)) => "not-data",
            Self::Change(ChangeError::Rrset { cause, .. }) => match cause {
                RrsetError::Empty => "set-empty",
                RrsetError::Malformed => "malformed",
                RrsetError::Several => "several",
                RrsetError::TooLarge => "set-too-large",
            },
            Self::WildcardNs(_) => "wildcard-ns",
            Self::Unknown(_) => "zone-unknown",
        }
    }
}

/// What an update made of a zone.
#[derive(Clone, Debug)]
pub struct Updated {
    /// The zone afterwards.
    pub zone: Zone,
    /// What differs; none when nothing does, and then the serial is the same as well (RFC 2136 §3.6).
    pub delta: Option<Delta>,
}

impl Zone {
    /// The zone after `update`, which does not change this one.
    ///
    /// The serial becomes the next one, unless an SOA record of the update has set a newer one (RFC 2136 §3.6).
    ///
    /// # Errors
    /// The first prerequisite that does not hold, or the first change that cannot be made.
    pub fn update(&self, update: &Update) -> Result<Updated, UpdateError> {
        let mut zone = self.clone();
        let delta = zone.make(update)?;
        Ok(Updated { zone, delta })
    }

    /// Makes `update` of this zone, as [`Zone::update`] does of a clone: what nobody else shares changes in place, so that
    /// many updates of a zone that is shown once after them copy what they touch once. Gives what differs.
    ///
    /// # Errors
    /// As [`Zone::update`]; the zone is as it was.
    pub fn make(&mut self, update: &Update) -> Result<Option<Delta>, UpdateError> {
        if !self.is_known() {
            return Err(UpdateError::Unknown(self.apex.clone()));
        }
        update.prerequisites.iter().try_for_each(|prerequisite| self.require(prerequisite))?;
        let mut draft = Draft::new(self);
        let mut serial_given = false;
        for change in &update.changes {
            self.check_name(change.name())?;
            match change {
                Change::Add(entry) => serial_given |= self.add(&mut draft, entry)?,
                Change::RemoveRecord { name, rtype, rdata } => draft.remove_record(name, *rtype, rdata),
                Change::RemoveSet(name, rtype) => draft.remove_set(name, *rtype),
                Change::RemoveName(name) => draft.remove_name(name),
            }
        }
        if draft.is_unchanged() {
            return Ok(None);
        }
        let serial = (!serial_given).then(|| serial::next(self.serial()));
        Ok(Some(draft.finish().make(self, serial)?))
    }

    fn check_name(&self, name: &Name) -> Result<(), ChangeError> {
        if name.is_at_or_below(&self.apex) {
            Ok(())
        } else {
            Err(ChangeError::OutOfZone { name: name.clone(), apex: self.apex.clone() })
        }
    }

    fn require(&self, prerequisite: &Prerequisite) -> Result<(), UpdateError> {
        let in_use = |name| self.node(name).is_some_and(Node::has_records);
        let set = |name, rtype| self.node(name).and_then(|node| node.set(rtype));
        match prerequisite {
            Prerequisite::NameInUse(name) if !in_use(name) => Err(UpdateError::NameFree(name.clone())),
            Prerequisite::NameFree(name) if in_use(name) => Err(UpdateError::NameInUse(name.clone())),
            Prerequisite::SetExists(name, rtype) if set(name, *rtype).is_none() => {
                Err(UpdateError::SetAbsent(name.clone(), *rtype))
            }
            Prerequisite::SetAbsent(name, rtype) if set(name, *rtype).is_some() => {
                Err(UpdateError::SetExists(name.clone(), *rtype))
            }
            Prerequisite::SetIs { name, rtype, rdatas } if !self.set_is(name, *rtype, rdatas) => {
                Err(UpdateError::SetDiffers(name.clone(), *rtype))
            }
            Prerequisite::NameInUse(_)
            | Prerequisite::NameFree(_)
            | Prerequisite::SetExists(..)
            | Prerequisite::SetAbsent(..)
            | Prerequisite::SetIs { .. } => Ok(()),
        }
    }

    fn set_is(&self, name: &Name, rtype: u16, rdatas: &[Box<[u8]>]) -> bool {
        let Some(set) = self.node(name).and_then(|node| node.set(rtype)) else { return false };
        let canonical = |rdata: &[u8]| rrset::canonical(rtype, rdata).ok().map(Cow::into_owned);
        let mut held: Vec<_> = set.rdatas(&self.apex).map(|rdata| canonical(&rdata)).collect();
        let mut wanted: Vec<_> = rdatas.iter().map(|rdata| canonical(rdata)).collect();
        for records in [&mut held, &mut wanted] {
            records.sort_unstable();
            records.dedup();
        }
        held == wanted
    }

    /// Adds a record to the draft; whether it has set the zone's serial.
    fn add(&self, draft: &mut Draft<'_>, entry: &Entry) -> Result<bool, UpdateError> {
        let Entry { name, rtype, rdata, .. } = entry;
        if *rtype == types::SOA {
            let newer = soa_serial(rdata).is_some_and(|serial| serial::is_newer(serial, draft.serial()));
            let counts = *name == self.apex && newer;
            if counts {
                self.check_data(entry)?;
                draft.add(entry);
            }
            return Ok(counts);
        }
        self.check_data(entry)?;
        if *rtype == types::NS && *name != self.apex && name.labels().next() == Some(b"*") {
            return Err(UpdateError::WildcardNs(name.clone()));
        }
        // RFC 2136 §3.4.2.2: an alias and anything else do not come together; who was there first stays.
        if !draft.clashes(name, *rtype) {
            draft.add(entry);
        }
        Ok(false)
    }

    /// Whether a record can be one of this zone's, whatever else it holds.
    fn check_data(&self, Entry { name, rtype, rdata, .. }: &Entry) -> Result<(), ChangeError> {
        self.check_place(name, *rtype)?;
        rrset::canonical(*rtype, rdata).map_err(|cause| ChangeError::Rrset { name: name.clone(), cause })?;
        Ok(())
    }

    /// The SOA record; none while the zone has no contents.
    #[must_use]
    pub fn soa(&self) -> Option<Entry> {
        let set = self.node(&self.apex)?.set(types::SOA)?;
        let rdata = set.rdatas(&self.apex).next()?;
        Some(Entry { name: self.apex.clone(), rtype: types::SOA, ttl: set.ttl(), rdata: rdata.into() })
    }

    /// All records but the SOA, those of a name together, names in no meaningful order.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        self.nodes().flat_map(|node| self.entries_of(node))
    }

    /// A name's records but the SOA.
    fn entries_of<'z>(&'z self, node: &'z Node) -> impl Iterator<Item = Entry> + 'z {
        let sets = node.sets().filter(|set| set.rtype() != types::SOA);
        sets.flat_map(move |set| {
            set.rdatas(&self.apex).map(move |rdata| Entry {
                name: node.name(),
                rtype: set.rtype(),
                ttl: set.ttl(),
                rdata: rdata.into(),
            })
        })
    }
}

/// The SERIAL field of an SOA record's data.
fn soa_serial(rdata: &[u8]) -> Option<u32> {
    let at = rdata.len().checked_sub(20)?;
    rdata[at..].first_chunk().map(|octets| u32::from_be_bytes(*octets))
}
