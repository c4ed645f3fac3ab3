//! A zone's state in a file: all its records at one time, and every change since.
//!
//! ```text
//! FUNIZONE 1 apex │ records │ records │ … │ base │ delta │ delta │ confirmed │ delta │ …
//!                 └─ each: length u32, CRC-32C u32, kind u8, contents ─┘      appended ─►
//! ```
//!
//! What was being appended when the machine stopped is incomplete, and was never acknowledged: it is cut off. Anything
//! else that does not hold is a fault with its place. Numbers are big-endian; names are in uncompressed wire form.

use std::ops::Range;

use super::WireError;
use super::cursor::Reader;
use crate::model::zone::{Delta, Entry};
use crate::model::{Name, UnixSeconds};
use crate::wire::proxy_header::crc32c;

const MAGIC: &[u8] = b"FUNIZONE\x01";

/// Octets before a piece's contents: length, checksum, kind.
const FRAME: usize = 9;

/// Octets of records in one piece, about.
const RECORDS: usize = 1 << 20;

/// One piece of the file behind its head.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Records,
    Base,
    Delta,
    Confirmed,
}

impl Kind {
    const ALL: [(Self, u8); 4] = [(Self::Records, 1), (Self::Base, 2), (Self::Delta, 3), (Self::Confirmed, 4)];

    fn number(self) -> u8 {
        Self::ALL.into_iter().find(|(kind, _)| *kind == self).map_or(0, |(_, number)| number)
    }

    fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, other)| *other == number).map(|(kind, _)| kind)
    }
}

/// Why octets are no state of a zone.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StateError {
    /// Another kind of file, or one of a later version.
    #[error("it is no zone's state, or of a later version")]
    Foreign,
    /// Another zone's.
    #[error("it is the state of the zone {0}")]
    OtherZone(Name),
    /// The file was changed, or the disk has a fault.
    #[error("the piece at octet {at} is damaged, and others follow it")]
    Damaged {
        /// Where the piece begins.
        at: usize,
    },
    /// A checksum holds over what makes no sense.
    #[error("the piece at octet {at} has contents that none of ours has: {cause}")]
    Contents {
        /// Where the piece begins.
        at: usize,
        /// What is wrong with it.
        cause: WireError,
    },
    /// The file ends before the zone is complete.
    #[error("the records of the zone are not complete")]
    NoBase,
}

/// What a file holds.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct State {
    /// The records at one time, the SOA among them.
    pub base: Vec<Entry>,
    /// The changes since, in order.
    pub deltas: Vec<Delta>,
    /// When the zone was last known to be what its primary has.
    pub confirmed: Option<UnixSeconds>,
    /// How many octets hold; what follows is a piece that was never finished.
    pub whole: usize,
}

/// The file of a zone with these records.
#[must_use]
pub fn base(apex: &Name, entries: impl Iterator<Item = Entry>) -> Vec<u8> {
    let mut out = [MAGIC, apex.to_lowercase().wire()].concat();
    let mut contents = Vec::new();
    let mut count = 0u64;
    for entry in entries {
        write_entry(&entry, &mut contents);
        count += 1;
        if contents.len() >= RECORDS {
            frame(Kind::Records, &contents, &mut out);
            contents.clear();
        }
    }
    frame(Kind::Records, &contents, &mut out);
    frame(Kind::Base, &count.to_be_bytes(), &mut out);
    out
}

/// Adds the piece that says what changed.
pub fn append_delta(delta: &Delta, out: &mut Vec<u8>) {
    let mut contents = Vec::new();
    for count in [delta.removed.len(), delta.added.len()] {
        contents.extend_from_slice(&(count as u32).to_be_bytes());
    }
    delta.entries().for_each(|entry| write_entry(entry, &mut contents));
    frame(Kind::Delta, &contents, out);
}

/// Adds the piece that says that the zone was what its primary had.
pub fn append_confirmed(at: UnixSeconds, out: &mut Vec<u8>) {
    frame(Kind::Confirmed, &at.0.to_be_bytes(), out);
}

fn frame(kind: Kind, contents: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&(contents.len() as u32).to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.push(kind.number());
    out.extend_from_slice(contents);
    let checksum = checksum(&out[start..]);
    out[start + 4..start + 8].copy_from_slice(&checksum.to_be_bytes());
}

/// Over the whole piece but the checksum itself.
fn checksum(piece: &[u8]) -> u32 {
    const HOLE: Range<usize> = 4..8;
    crc32c::with_zeros(piece, HOLE)
}

fn write_entry(entry: &Entry, out: &mut Vec<u8>) {
    out.extend_from_slice(entry.name.wire());
    out.extend_from_slice(&entry.rtype.to_be_bytes());
    out.extend_from_slice(&entry.ttl.to_be_bytes());
    out.extend_from_slice(&(entry.rdata.len() as u16).to_be_bytes());
    out.extend_from_slice(&entry.rdata);
}

fn read_entry(reader: &mut Reader<'_>) -> Result<Entry, WireError> {
    let name = reader.uncompressed_name()?;
    let (rtype, ttl) = (reader.u16()?, reader.u32()?);
    let length = reader.u16()?;
    Ok(Entry { name, rtype, ttl, rdata: reader.take(usize::from(length))?.into() })
}

/// Reads the state of the zone at `apex`.
///
/// # Errors
/// The first fault; an unfinished last piece is none.
pub fn read(octets: &[u8], apex: &Name) -> Result<State, StateError> {
    let head = octets.strip_prefix(MAGIC).ok_or(StateError::Foreign)?;
    let mut reader = Reader::new(head);
    let name = reader.uncompressed_name().map_err(|_| StateError::Foreign)?;
    if name != *apex {
        return Err(StateError::OtherZone(name));
    }
    let mut state = State { whole: MAGIC.len() + reader.at(), ..State::default() };
    let mut complete = false;
    while let Some(Piece { kind, contents, end }) = piece(octets, state.whole)? {
        complete |= kind == Kind::Base;
        state.take(kind, contents).map_err(|cause| StateError::Contents { at: state.whole, cause })?;
        state.whole = end;
    }
    if complete { Ok(state) } else { Err(StateError::NoBase) }
}

/// A piece, and where it ends.
struct Piece<'o> {
    kind: Kind,
    contents: &'o [u8],
    end: usize,
}

/// The piece at `at`; none at the end, or where an unfinished one begins.
fn piece(octets: &[u8], at: usize) -> Result<Option<Piece<'_>>, StateError> {
    let rest = &octets[at..];
    let Some((length, _)) = rest.split_first_chunk() else { return Ok(None) };
    let Some(end) = (u32::from_be_bytes(*length) as usize).checked_add(FRAME) else { return Ok(None) };
    let Some(piece) = rest.get(..end) else { return Ok(None) };
    let written = piece[4..8].first_chunk().copied().map(u32::from_be_bytes);
    let holds = written == Some(checksum(piece));
    match Kind::of(piece[8]).filter(|_| holds) {
        Some(kind) => Ok(Some(Piece { kind, contents: &piece[FRAME..], end: at + end })),
        // Octets reach the disk in any order, so an unfinished piece may have its full length already.
        None if at + end == octets.len() => Ok(None),
        None => Err(StateError::Damaged { at }),
    }
}

impl State {
    fn take(&mut self, kind: Kind, contents: &[u8]) -> Result<(), WireError> {
        let mut reader = Reader::new(contents);
        match kind {
            Kind::Records => {
                while !reader.is_empty() {
                    self.base.push(read_entry(&mut reader)?);
                }
            }
            Kind::Base => {
                let (high, low) = (reader.u32()?, reader.u32()?);
                if u64::from(high) << 32 | u64::from(low) != self.base.len() as u64 {
                    return Err(WireError::Short { at: reader.at() });
                }
            }
            Kind::Delta => self.deltas.push(read_delta(&mut reader)?),
            Kind::Confirmed => {
                let (high, low) = (reader.u32()?, reader.u32()?);
                self.confirmed = Some(UnixSeconds(u64::from(high) << 32 | u64::from(low)));
            }
        }
        if reader.is_empty() { Ok(()) } else { Err(WireError::Trailing { at: reader.at() }) }
    }
}

fn read_delta(reader: &mut Reader<'_>) -> Result<Delta, WireError> {
    let (removed, added) = (reader.u32()?, reader.u32()?);
    // Grown as records come, so that a wrong count costs nothing.
    let mut entries = |count: u32| (0..count).map(|_| read_entry(reader)).collect::<Result<Vec<_>, _>>();
    let (mut old, mut new) = (entries(removed.saturating_add(1))?, entries(added.saturating_add(1))?);
    let (old_soa, new_soa) = (old.remove(0), new.remove(0));
    Ok(Delta { old_soa, removed: old, new_soa, added: new })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apex() -> Name {
        "shop.peak.".parse().unwrap()
    }

    fn entry(name: &str, octets: usize) -> Entry {
        Entry { name: name.parse().unwrap(), rtype: 16, ttl: 60, rdata: vec![7; octets].into() }
    }

    fn delta(number: u8) -> Delta {
        let soa =
            |serial: u8| Entry { rdata: [vec![0; 5], vec![serial; 17]].concat().into(), ..entry("shop.peak.", 0) };
        let (removed, added) = (vec![entry("a.shop.peak.", 3)], vec![entry("b.shop.peak.", 3); usize::from(number)]);
        Delta { old_soa: soa(number), removed, new_soa: soa(number + 1), added }
    }

    fn file() -> (Vec<u8>, State) {
        let entries = vec![entry("Shop.peak.", 22), entry("x.shop.peak.", 60), entry("y.shop.peak.", 0)];
        let mut octets = base(&apex(), entries.clone().into_iter());
        append_delta(&delta(1), &mut octets);
        append_confirmed(UnixSeconds(1_700_000_000), &mut octets);
        append_delta(&delta(2), &mut octets);
        let state = State {
            base: entries,
            deltas: vec![delta(1), delta(2)],
            confirmed: Some(UnixSeconds(1_700_000_000)),
            whole: octets.len(),
        };
        (octets, state)
    }

    #[test]
    fn what_is_written_is_read() {
        let (octets, state) = file();
        assert_eq!(read(&octets, &"SHOP.peak.".parse().unwrap()), Ok(state));
    }

    #[test]
    fn a_large_zone_is_written_in_several_pieces_and_read_whole() {
        let entries = vec![entry("x.shop.peak.", 60_000); 40];
        let octets = base(&apex(), entries.clone().into_iter());
        assert_eq!(read(&octets, &apex()).unwrap().base, entries);
    }

    #[test]
    fn a_piece_that_was_never_finished_is_cut_off_wherever_it_ends() {
        let (octets, state) = file();
        let mut before = octets.clone();
        append_delta(&delta(3), &mut before);
        for end in octets.len()..before.len() {
            assert_eq!(read(&before[..end], &apex()).as_ref(), Ok(&state), "cut at {end}");
        }
        // All octets there, but one of them never written.
        let last = before.len() - 1;
        before[last] ^= 0xff;
        assert_eq!(read(&before, &apex()), Ok(state));
    }

    #[test]
    fn damage_before_the_last_piece_is_a_fault_with_its_place() {
        let (octets, state) = file();
        let mut last = Vec::new();
        append_delta(&delta(2), &mut last);
        for at in MAGIC.len() + apex().wire().len()..octets.len() - last.len() {
            let mut damaged = octets.clone();
            damaged[at] ^= 0x10;
            let read = read(&damaged, &apex());
            // A damaged length that leads behind the end cannot be told from an unfinished piece.
            let cut = read.as_ref().is_ok_and(|read| read.deltas.len() < state.deltas.len());
            assert!(
                cut || matches!(read, Err(StateError::Damaged { .. } | StateError::NoBase)),
                "octet {at}: {read:?}"
            );
        }
    }

    #[test]
    fn another_zone_s_file_and_any_other_file_are_refused() {
        let (octets, _) = file();
        let other = "other.peak.".parse().unwrap();
        assert_eq!(read(&octets, &other), Err(StateError::OtherZone(apex())));
        assert_eq!(read(b"$ORIGIN shop.peak.\n", &apex()), Err(StateError::Foreign));
        assert_eq!(read(&octets[..60], &apex()), Err(StateError::NoBase));
    }
}
