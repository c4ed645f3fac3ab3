//! An RRset, kept in the octets in which an answer carries it.
//!
//! The records stand one behind the other, each with `C0 0C` for its owner: in an answer whose owner is the name
//! asked, that is a pointer to the question (RFC 1035 §4.1.4), and nothing needs to be touched. A name in the data
//! that ends in the zone's apex is compressed against the apex: every name this zone is asked for ends in it, so the
//! pointer's value follows from the question's length alone. It is stored as it must read when the question is the
//! owner itself, and [`Rrset::write`] corrects it where it is not (wildcards, aliases, additional records). Records
//! never point at one another, so that a set may begin with any of them.

mod made;

use std::fmt;
use std::sync::Arc;

pub use made::{MAX_OCTETS, RrsetError};
pub(super) use made::{Made, Place, canonical};

use super::types;
use crate::model::Name;

/// Where the question's name begins in every message.
pub const QUESTION_NAME: u16 = 12;

/// Octets of a record before its data: owner pointer, type, class, TTL, length.
const FIXED: usize = 12;
/// Where among those the TTL stands.
const TTL: usize = 6;

/// All records of one name and one type (RFC 2181 §5).
///
/// What is known of the records and the records themselves are one piece of memory: `B` is an array while a set is being
/// made, whose length its owner forgets.
pub struct Rrset<B: ?Sized = [u8]> {
    head: Head,
    /// The records; behind them whatever the owner of the set keeps there.
    room: B,
}

/// What is known of a set's records. They are none in the place of a set that is not there.
#[derive(Clone, Default)]
pub(super) struct Head {
    /// None when all records are of one length, point nowhere and name nothing, as addresses do.
    extras: Option<Box<Extras>>,
    rtype: u16,
    count: u16,
    /// Octets of all records.
    octets: u16,
    /// Octets of each record where there are no extras.
    stride: u16,
    /// The question name's length for which the pointers among the octets hold.
    owner_octets: u8,
}

/// Calls `$make::<N>($arguments)` with an array's length N of at least `$octets`, of few different ones: what a small block
/// of the allocator has room for, so that nothing is wasted, and powers of two from there on.
macro_rules! roomy {
    ($octets:expr, $make:ident($($argument:expr),*)) => {
        roomy!(@ $octets, $make($($argument),*),
            8 24 40 56 72 88 104 120 136 152 168 184 200 216 232 248 264 328 392 520 776 1032 1544 2056 3080 4104
            8200 16392 32776 65544)
    };
    (@ $octets:expr, $make:ident $arguments:tt, $($room:literal)*) => {
        match $octets {
            $(0..=$room => $make::<$room> $arguments,)*
            octets => unreachable!("no name and no set have {octets} octets"),
        }
    };
}
pub(super) use roomy;

/// What an RRset needs beyond its octets when it holds names or records of different lengths.
#[derive(Clone, Default)]
struct Extras {
    /// Where each record begins.
    starts: Vec<u16>,
    /// Where pointers to the apex stand.
    pointers: Vec<u16>,
    targets: Vec<Target>,
}

/// A name that an answer with this set brings records for.
#[derive(Clone, Debug)]
pub struct Target {
    name: Name,
    hash: u64,
    /// Where the name stands in the block; none when it is not written there.
    at: Option<u16>,
}

impl Target {
    /// The name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    #[must_use]
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }
}

fn placed(head: Head, block: &[u8]) -> Arc<Rrset> {
    fn place<const N: usize>(head: Head, block: &[u8]) -> Arc<Rrset> {
        Arc::new(Rrset::with_room::<N>(head, [block, &[]]))
    }
    roomy!(block.len(), place(head, block))
}

impl Head {
    /// For a name without records.
    pub(super) fn empty(owner: &[u8]) -> Self {
        Self { owner_octets: owner.len() as u8, ..Self::default() }
    }
}

impl Rrset {
    /// The records and what is to stand behind them, which together have no more than `N` octets.
    pub(super) fn with_room<const N: usize>(head: Head, parts: [&[u8]; 2]) -> Rrset<[u8; N]> {
        let mut room = [0; N];
        room[..parts[0].len()].copy_from_slice(parts[0]);
        room[parts[0].len()..][..parts[1].len()].copy_from_slice(parts[1]);
        Rrset { head, room }
    }

    /// What is known of the records.
    pub(super) fn head(&self) -> &Head {
        &self.head
    }

    /// The records as they stand in an answer.
    #[inline]
    pub(super) fn block(&self) -> &[u8] {
        &self.room[..usize::from(self.head.octets)]
    }

    /// As many octets behind the records as the owner's name has.
    #[inline]
    pub(super) fn owner_behind(&self) -> &[u8] {
        let start = usize::from(self.head.octets);
        &self.room[start..start + usize::from(self.head.owner_octets)]
    }

    /// The set in memory of its own.
    pub(super) fn alone(&self) -> Arc<Self> {
        placed(self.head.clone(), self.block())
    }

    /// The records' type.
    #[must_use]
    #[inline]
    pub fn rtype(&self) -> u16 {
        self.head.rtype
    }

    /// The records' time to live in seconds.
    #[must_use]
    pub fn ttl(&self) -> u32 {
        self.block().get(TTL..).and_then(<[u8]>::first_chunk).copied().map_or(0, u32::from_be_bytes)
    }

    /// How many records there are, at least one.
    #[must_use]
    #[inline]
    pub fn count(&self) -> u16 {
        self.head.count
    }

    /// How many octets the records take in an answer.
    #[must_use]
    #[inline]
    pub fn octets(&self) -> usize {
        usize::from(self.head.octets)
    }

    /// Reads an octet of each line of the cache that the set takes, to have it at hand.
    #[inline]
    pub(super) fn touch(&self) -> usize {
        const LINE: usize = 64;
        // However long the set is, the rest comes while these are being copied.
        let octet = |at: usize| usize::from(self.room.get(at).copied().unwrap_or_default());
        octet(0) ^ octet(LINE) ^ octet(2 * LINE) ^ octet(self.room.len().wrapping_sub(1))
    }

    /// Whether all records are of one length, point nowhere and name nothing.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.head.extras.is_none()
    }

    /// The names an answer with this set brings records for.
    #[must_use]
    #[inline]
    pub fn targets(&self) -> &[Target] {
        self.head.extras.as_ref().map_or(&[], |extras| &extras.targets)
    }

    /// Writes the records into `out`, which has exactly [`Rrset::octets`], beginning with the record `turn` falls on.
    /// `owner` is the pointer to the owner's name, `asked` the number of octets of the name in the question, which is at
    /// or below the apex.
    #[inline]
    pub fn write(&self, out: &mut [u8], owner: u16, asked: usize, turn: u32) {
        let split = self.split(turn);
        let (head, tail) = self.block().split_at(split);
        let Some((first, rest)) = out.split_at_mut_checked(tail.len()) else { return };
        if rest.len() != head.len() {
            return;
        }
        first.copy_from_slice(tail);
        rest.copy_from_slice(head);
        if owner != (0xC000 | QUESTION_NAME) {
            self.point_owners(out, split, owner);
        }
        if asked != usize::from(self.head.owner_octets) {
            self.point_apexes(out, split, asked);
        }
    }

    /// Where `target`'s name stands once the set was written with the same `turn`, counted from the set's first
    /// octet; none when it was not written.
    #[must_use]
    pub fn place_of(&self, target: &Target, turn: u32) -> Option<usize> {
        Some(self.turned(usize::from(target.at?), self.split(turn)))
    }

    /// The octet at which the record that `turn` falls on begins.
    #[inline]
    fn split(&self, turn: u32) -> usize {
        // The high half of a product: even over the records, and no division.
        let record = ((u64::from(turn) * u64::from(self.head.count)) >> 32) as usize;
        self.start(record)
    }

    #[inline]
    fn start(&self, record: usize) -> usize {
        match &self.head.extras {
            Some(extras) => extras.starts.get(record).copied().map_or(0, usize::from),
            None => usize::from(self.head.stride) * record,
        }
    }

    fn turned(&self, at: usize, split: usize) -> usize {
        if at >= split { at - split } else { at + self.octets() - split }
    }

    fn point_owners(&self, out: &mut [u8], split: usize, owner: u16) {
        for record in 0..usize::from(self.head.count) {
            let at = self.turned(self.start(record), split);
            out[at..at + 2].copy_from_slice(&owner.to_be_bytes());
        }
    }

    fn point_apexes(&self, out: &mut [u8], split: usize, asked: usize) {
        let Some(extras) = &self.head.extras else { return };
        let block = self.block();
        for &pointer in &extras.pointers {
            let from = usize::from(pointer);
            let stored = u16::from_be_bytes([block[from], block[from + 1]]);
            let value = stored.wrapping_add(asked as u16).wrapping_sub(u16::from(self.head.owner_octets));
            let at = self.turned(from, split);
            out[at..at + 2].copy_from_slice(&value.to_be_bytes());
        }
    }

    /// The data of the records in uncompressed wire form; `apex` is that of the zone the set is in.
    pub fn rdatas<'s>(&'s self, apex: &'s Name) -> impl Iterator<Item = Vec<u8>> + 's {
        let count = usize::from(self.head.count);
        (0..count).map(move |record| {
            let start = self.start(record) + FIXED;
            let end = if record + 1 == count { self.octets() } else { self.start(record + 1) };
            self.expand(start, end, apex)
        })
    }

    fn expand(&self, start: usize, end: usize, apex: &Name) -> Vec<u8> {
        let mut rdata = Vec::with_capacity(end - start + apex.wire().len());
        let mut at = start;
        let block = self.block();
        let pointers = self.head.extras.as_ref().map_or(&[][..], |extras| &extras.pointers);
        for pointer in pointers.iter().map(|&pointer| usize::from(pointer)).filter(|at| (start..end).contains(at)) {
            rdata.extend_from_slice(&block[at..pointer]);
            rdata.extend_from_slice(apex.wire());
            at = pointer + 2;
        }
        rdata.extend_from_slice(&block[at..end]);
        rdata
    }

    /// The SERIAL field, where this is an SOA record.
    #[must_use]
    pub fn soa_serial(&self) -> Option<u32> {
        self.soa_field(20)
    }

    /// The MINIMUM field, where this is an SOA record.
    #[must_use]
    pub fn soa_minimum(&self) -> Option<u32> {
        self.soa_field(4)
    }

    /// The field that begins so many octets before the end.
    fn soa_field(&self, from_end: usize) -> Option<u32> {
        if self.head.rtype != types::SOA {
            return None;
        }
        let block = self.block();
        block[block.len().checked_sub(from_end)?..].first_chunk().map(|octets| u32::from_be_bytes(*octets))
    }

    /// Gives an SOA record this serial; where others share it, to a copy in its place.
    pub(super) fn set_soa_serial(set: &mut Arc<Self>, serial: u32) {
        if Arc::get_mut(set).is_none() {
            *set = set.alone();
        }
        if let Some(own) = Arc::get_mut(set) {
            own.write_soa_serial(serial);
        }
    }

    /// Gives an SOA record this serial.
    pub(super) fn write_soa_serial(&mut self, serial: u32) {
        let end = usize::from(self.head.octets);
        if self.head.rtype == types::SOA
            && let Some(field) = end.checked_sub(20).and_then(|at| self.room.get_mut(at..at + 4))
        {
            field.copy_from_slice(&serial.to_be_bytes());
        }
    }

    /// The same records with another TTL, in seconds.
    #[must_use]
    pub(super) fn with_ttl(&self, ttl: u32) -> Arc<Self> {
        let mut block = self.block().to_vec();
        for record in 0..usize::from(self.head.count) {
            let at = self.start(record) + TTL;
            block[at..at + 4].copy_from_slice(&ttl.to_be_bytes());
        }
        placed(self.head.clone(), &block)
    }
}

impl fmt::Debug for Rrset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x TYPE{} ttl {}", self.count(), self.rtype(), self.ttl())
    }
}
