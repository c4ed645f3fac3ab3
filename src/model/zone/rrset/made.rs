//! Sets of records made from their data: what an RRset is checked for, and where its names and pointers come to stand.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Extras, FIXED, Head, QUESTION_NAME, Rrset, Target, placed};
use crate::model::Name;
use crate::model::zone::key::{Key, Seed};
use crate::model::zone::types::{self, Piece};

/// An RRset larger than this fits in no message beside a question and an OPT record.
pub const MAX_OCTETS: usize = 65_535 - 512;

const CLASS_IN: [u8; 2] = [0, 1];

/// Why records make no RRset.
#[derive(Clone, Copy, Debug, Deserialize, Eq, thiserror::Error, PartialEq, Serialize)]
pub enum RrsetError {
    /// A set has records.
    #[error("there is no record")]
    Empty,
    /// The octets are not what the type says (RFC 1035 §3.3, RFC 2782, RFC 9460 §2.2).
    #[error("the data of a record is not what its type requires")]
    Malformed,
    /// An alias, or the start of a zone, is one record (RFC 2181 §6.1, §10.1).
    #[error("a name has only one record of this type")]
    Several,
    /// It could never be sent.
    #[error("the records take more than {MAX_OCTETS} octets, and fit in no message")]
    TooLarge,
}

/// A set that has been made, and has no place yet.
pub(in crate::model::zone) struct Made {
    head: Head,
    block: Vec<u8>,
}

/// What a set is built for: its owner, in its zone.
#[derive(Clone, Copy)]
pub(in crate::model::zone) struct Place<'a> {
    pub(in crate::model::zone) owner: &'a Name,
    pub(in crate::model::zone) apex: &'a Name,
    pub(in crate::model::zone) seed: Seed,
}

impl Made {
    /// A set of the records with these data, in uncompressed wire form; equal ones count once.
    ///
    /// # Errors
    /// When the data are none, too many, or not of the type.
    pub(in crate::model::zone) fn new<'r>(
        place: Place<'_>,
        rtype: u16,
        ttl: u32,
        rdatas: impl IntoIterator<Item = &'r [u8]>,
    ) -> Result<Self, RrsetError> {
        let mut builder = Builder { place, rtype, ttl, block: Vec::new(), extras: Extras::default(), key: None };
        let rdatas = rdatas.into_iter();
        let records = rdatas.size_hint().0;
        let mut seen: Vec<Cow<'_, [u8]>> = Vec::with_capacity(records);
        builder.extras.starts.reserve_exact(records);
        for rdata in rdatas {
            if seen.is_empty() {
                builder.block.reserve_exact((FIXED + rdata.len()).saturating_mul(records).min(MAX_OCTETS));
            }
            let canonical = canonical(rtype, rdata)?;
            // Sorted, so that a set of thousands costs no square.
            if let Err(index) = seen.binary_search(&canonical) {
                seen.insert(index, canonical);
                builder.record(rdata)?;
            }
        }
        builder.finish()
    }

    pub(in crate::model::zone) fn rtype(&self) -> u16 {
        self.head.rtype
    }

    pub(in crate::model::zone) fn count(&self) -> u16 {
        self.head.count
    }

    /// What is known, and the octets.
    pub(in crate::model::zone) fn into_parts(self) -> (Head, Vec<u8>) {
        (self.head, self.block)
    }

    /// The set in memory of its own.
    pub(in crate::model::zone) fn alone(self) -> Arc<Rrset> {
        placed(self.head, &self.block)
    }
}

struct Builder<'a> {
    place: Place<'a>,
    rtype: u16,
    ttl: u32,
    block: Vec<u8>,
    extras: Extras,
    /// Made when the first target wants hashing.
    key: Option<Box<Key>>,
}

impl Builder<'_> {
    fn record(&mut self, rdata: &[u8]) -> Result<(), RrsetError> {
        let start = self.block.len();
        if start + FIXED + rdata.len() > MAX_OCTETS {
            return Err(RrsetError::TooLarge);
        }
        self.extras.starts.push(start as u16);
        self.block.extend_from_slice(&(0xC000 | QUESTION_NAME).to_be_bytes());
        self.block.extend_from_slice(&self.rtype.to_be_bytes());
        self.block.extend_from_slice(&CLASS_IN);
        self.block.extend_from_slice(&self.ttl.to_be_bytes());
        self.block.extend_from_slice(&[0, 0]);
        let mut left = rdata;
        for &piece in types::layout(self.rtype) {
            let taken = piece_octets(piece, left)?;
            let (octets, after) = left.split_at(taken);
            match piece {
                Piece::Octets(_) => self.block.extend_from_slice(octets),
                Piece::Name => self.name(octets, true)?,
                Piece::PlainName => self.name(octets, false)?,
            }
            left = after;
        }
        self.block.extend_from_slice(left);
        let length = (self.block.len() - start - FIXED) as u16;
        self.block[start + FIXED - 2..start + FIXED].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    fn name(&mut self, octets: &[u8], compressed: bool) -> Result<(), RrsetError> {
        let name = Name::from_wire(octets).map_err(|_| RrsetError::Malformed)?;
        let at = self.block.len();
        let apex = self.place.apex;
        if compressed && !apex.is_root() && name.is_at_or_below(apex) {
            self.block.extend_from_slice(&octets[..octets.len() - apex.wire().len()]);
            self.extras.pointers.push(self.block.len() as u16);
            let place = usize::from(QUESTION_NAME) + self.place.owner.wire().len() - apex.wire().len();
            self.block.extend_from_slice(&(0xC000 | place as u16).to_be_bytes());
        } else {
            self.block.extend_from_slice(octets);
        }
        if types::has_target(self.rtype) {
            self.target(name, at);
        }
        Ok(())
    }

    fn target(&mut self, name: Name, at: usize) {
        // RFC 9460 §2.5.2: in the service mode "." stands for the owner.
        let (name, at) = if name.is_root() && matches!(self.rtype, types::SVCB | types::HTTPS) {
            (self.place.owner.clone(), None)
        } else {
            (name, Some(at as u16))
        };
        if !name.is_at_or_below(self.place.apex) || self.extras.targets.iter().any(|target| target.name == name) {
            return;
        }
        self.push_target(name, at);
    }

    fn push_target(&mut self, name: Name, at: Option<u16>) {
        let key = self.key.get_or_insert_default();
        key.set(self.place.seed, name.wire());
        self.extras.targets.push(Target { hash: key.hash(), name, at });
    }

    fn finish(mut self) -> Result<Made, RrsetError> {
        let count = self.extras.starts.len();
        match (count, self.rtype) {
            (0, _) => return Err(RrsetError::Empty),
            (2.., types::CNAME | types::SOA) => return Err(RrsetError::Several),
            _ => {}
        }
        if self.rtype == types::APL
            && let Ok(rules) = self.place.owner.prefixed(b"_ssa")
        {
            // SSA.md §1: where the rules of a name that has an address space stand.
            self.push_target(rules, None);
        }
        let stride = self.block.len() / count;
        let even = self.block.len().is_multiple_of(count)
            && self.extras.starts.iter().enumerate().all(|(record, &start)| usize::from(start) == record * stride);
        let plain = even && self.extras.pointers.is_empty() && self.extras.targets.is_empty();
        self.extras.starts.shrink_to_fit();
        let head = Head {
            extras: (!plain).then(|| Box::new(self.extras)),
            rtype: self.rtype,
            count: count as u16,
            octets: self.block.len() as u16,
            stride: stride as u16,
            owner_octets: self.place.owner.wire().len() as u8,
        };
        Ok(Made { head, block: self.block })
    }
}

/// How many of the octets the piece takes.
fn piece_octets(piece: Piece, octets: &[u8]) -> Result<usize, RrsetError> {
    let taken = match piece {
        Piece::Octets(count) => count,
        Piece::Name | Piece::PlainName => {
            let mut at = 0;
            while let Some(&length) = octets.get(at)
                && length != 0
            {
                at += usize::from(length) + 1;
            }
            at + 1
        }
    };
    if taken > octets.len() { Err(RrsetError::Malformed) } else { Ok(taken) }
}

/// The data with names in lower case, the form in which records compare (RFC 4034 §6.2).
pub(in crate::model::zone) fn canonical(rtype: u16, rdata: &[u8]) -> Result<Cow<'_, [u8]>, RrsetError> {
    let fixed = match rtype {
        types::A => Some(4),
        types::AAAA => Some(16),
        _ => None,
    };
    if rdata.len() > usize::from(u16::MAX) || fixed.is_some_and(|octets| octets != rdata.len()) {
        return Err(RrsetError::Malformed);
    }
    let mut canonical = Cow::Borrowed(rdata);
    let mut at = 0;
    for &piece in types::layout(rtype) {
        let taken = piece_octets(piece, &rdata[at..])?;
        if piece != Piece::Octets(taken) {
            canonical.to_mut()[at..at + taken].make_ascii_lowercase();
        }
        at += taken;
    }
    if types::is_closed(rtype) && at != rdata.len() {
        return Err(RrsetError::Malformed);
    }
    Ok(canonical)
}
