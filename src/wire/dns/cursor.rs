//! Reading octets in order, with names decompressed.
//!
//! Every read is checked against the end. A compression pointer must lead strictly backwards, behind the header, and
//! a name follows at most 127 of them: so no message makes reading loop, or cost more than its size is worth.

use crate::model::Name;

use super::Type;

/// Octets in the header, where no name can stand.
pub(super) const HEADER_OCTETS: usize = 12;

/// A name has at most 127 labels, so a longer chain of pointers says nothing that a shorter one could not.
const MAX_POINTERS: usize = 127;

/// Why octets are no DNS message, with the offset at which that showed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum WireError {
    /// The octets end inside something.
    #[error("the message ends at octet {at}, inside what it began")]
    Short {
        /// Where it ends.
        at: usize,
    },
    /// A length octet of 64 to 191: label types that no standard uses (RFC 6891 §5).
    #[error("octet {at} begins a label of an unknown type")]
    LabelType {
        /// Where it stands.
        at: usize,
    },
    /// A compression pointer that does not lead strictly backwards to where a name can be, or one too many.
    #[error("the compression pointer at octet {at} does not lead back to an earlier name")]
    Pointer {
        /// Where it stands.
        at: usize,
    },
    /// RFC 1035 §2.3.4.
    #[error("the name at octet {at} is longer than 255 octets")]
    NameTooLong {
        /// Where it begins.
        at: usize,
    },
    /// The names and numbers of a record's data do not fill its length.
    #[error("the data of the {rtype} record at octet {at} has more octets than its type allows")]
    Rdata {
        /// Where the data begins.
        at: usize,
        /// The record's type.
        rtype: Type,
    },
    /// A second OPT, one outside the additional section, or one whose name is not the root (RFC 6891 §6.1.1, §6.1.2).
    #[error("the OPT record before octet {at} is not the only one, in the additional section, at the root")]
    Opt {
        /// Where the record ends.
        at: usize,
    },
    /// An EDNS option is longer than the OPT record.
    #[error("an EDNS option is longer than the OPT record that ends at octet {at}")]
    OptOption {
        /// Where the record ends.
        at: usize,
    },
    /// Octets after the last record.
    #[error("octets follow the last record, from octet {at} on")]
    Trailing {
        /// Where they begin.
        at: usize,
    },
}

impl WireError {
    /// A stable label for metrics and logs.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Short { .. } => "message-short",
            Self::LabelType { .. } => "label-type",
            Self::Pointer { .. } => "compression-pointer",
            Self::NameTooLong { .. } => "name-too-long",
            Self::Rdata { .. } => "rdata",
            Self::Opt { .. } => "opt",
            Self::OptOption { .. } => "opt-option",
            Self::Trailing { .. } => "trailing-octets",
        }
    }
}

/// A place in a message, from which it is read on.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    octets: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(octets: &'a [u8]) -> Self {
        Self { octets, at: 0 }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at == self.octets.len()
    }

    /// All that is left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        let rest = &self.octets[self.at..];
        self.at = self.octets.len();
        rest
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let taken = self.octets[self.at..].get(..count).ok_or(WireError::Short { at: self.octets.len() })?;
        self.at += count;
        Ok(taken)
    }

    /// A reader of the next `count` octets, which this one skips. It sees what came before, for pointers to lead to.
    pub(super) fn window(&mut self, count: usize) -> Result<Self, WireError> {
        let at = self.at;
        self.take(count)?;
        Ok(Self { octets: &self.octets[..self.at], at })
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        let octets = self.take(2)?;
        Ok(u16::from_be_bytes([octets[0], octets[1]]))
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        let octets = self.take(4)?;
        Ok(u32::from_be_bytes([octets[0], octets[1], octets[2], octets[3]]))
    }

    /// A string with its length octet before it (RFC 1035 §3.3), both together.
    pub(super) fn counted(&mut self) -> Result<&'a [u8], WireError> {
        let length = self.octets.get(self.at).ok_or(WireError::Short { at: self.octets.len() })?;
        self.take(1 + usize::from(*length))
    }

    /// A name, decompressed.
    pub(super) fn name(&mut self) -> Result<Name, WireError> {
        self.walk_name(MAX_POINTERS)
    }

    /// A name that must stand there in full: in record data of types newer than RFC 1035 (RFC 3597 §4).
    pub(super) fn uncompressed_name(&mut self) -> Result<Name, WireError> {
        self.walk_name(0)
    }

    fn walk_name(&mut self, mut pointers: usize) -> Result<Name, WireError> {
        let start = self.at;
        let mut name = Unfolded::new(start);
        // Where the run of labels being read began: a pointer in it must lead before that.
        let mut run = start;
        let mut at = start;
        let mut resume = None;
        let short = WireError::Short { at: self.octets.len() };
        loop {
            let length = *self.octets.get(at).ok_or(short)?;
            match length {
                0 => break,
                1..=63 => {
                    let label = self.octets.get(at..=at + usize::from(length)).ok_or(short)?;
                    name.push(label)?;
                    at += label.len();
                }
                64..=191 => return Err(WireError::LabelType { at }),
                192..=255 => {
                    let low = *self.octets.get(at + 1).ok_or(short)?;
                    let target = usize::from(u16::from_be_bytes([length & 0x3f, low]));
                    pointers = pointers.checked_sub(1).ok_or(WireError::Pointer { at })?;
                    if target >= run || target < HEADER_OCTETS {
                        return Err(WireError::Pointer { at });
                    }
                    resume.get_or_insert(at + 2);
                    run = target;
                    at = target;
                }
            }
        }
        self.at = resume.unwrap_or(at + 1);
        name.finish()
    }
}

/// A name while it is put together from the runs of labels that pointers lead through.
struct Unfolded {
    octets: [u8; 255],
    length: usize,
    start: usize,
}

impl Unfolded {
    fn new(start: usize) -> Self {
        Self { octets: [0; 255], length: 0, start }
    }

    /// Adds a label with its length octet. The octet after the last stays free for the root.
    fn push(&mut self, label: &[u8]) -> Result<(), WireError> {
        let end = self.length + label.len();
        if end >= self.octets.len() {
            return Err(WireError::NameTooLong { at: self.start });
        }
        self.octets[self.length..end].copy_from_slice(label);
        self.length = end;
        Ok(())
    }

    fn finish(self) -> Result<Name, WireError> {
        Name::from_wire(&self.octets[..=self.length]).map_err(|_| WireError::NameTooLong { at: self.start })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads the name at `at` in twelve header octets followed by `tail`.
    fn name_at(tail: &[u8], at: usize) -> Result<(Name, usize), WireError> {
        let octets = [&[0; HEADER_OCTETS], tail].concat();
        let mut reader = Reader::new(&octets);
        reader.take(at)?;
        let name = reader.name()?;
        Ok((name, reader.at()))
    }

    #[test]
    fn a_pointer_continues_a_name_and_reading_goes_on_behind_it() {
        let tail = b"\x04peak\x00\x04shop\xc0\x0c\x06orders\xc0\x12rest";
        let (name, after) = name_at(tail, 12 + 13).unwrap();
        assert_eq!(name, "orders.shop.peak.".parse().unwrap());
        assert_eq!(&tail[after - 12..], b"rest");
    }

    #[test]
    fn a_pointer_to_itself_forwards_or_into_the_header_is_refused() {
        for pointer in [b"\xc0\x0c", b"\xc0\x0d", b"\xc0\x0e", b"\xff\xff", b"\xc0\x0b"] {
            assert_eq!(name_at(pointer, 12), Err(WireError::Pointer { at: 12 }), "{pointer:?}");
        }
        // A label, then a pointer to that label: the run began there, so it would repeat for ever.
        assert_eq!(name_at(b"\x01a\xc0\x0c", 12), Err(WireError::Pointer { at: 14 }));
    }

    #[test]
    fn a_name_follows_127_pointers_and_not_128() {
        let mut tail = vec![0];
        for pointer in 0..128_u16 {
            let target = if pointer == 0 { 12 } else { 11 + 2 * pointer };
            tail.extend_from_slice(&(0xc000 | target).to_be_bytes());
        }
        assert_eq!(name_at(&tail, 11 + 2 * 127).unwrap().0, Name::root());
        assert!(matches!(name_at(&tail, 11 + 2 * 128), Err(WireError::Pointer { .. })));
    }

    #[test]
    fn a_name_may_unfold_to_255_octets_and_not_256() {
        let label = [&[63][..], &[b'a'; 63]].concat();
        let longest = [&label[..], &label, &label, &[61], &[b'b'; 61], &[0]].concat();
        assert_eq!(name_at(&longest, 12).unwrap().0.wire().len(), 255);
        let longer = [&label[..], &label, &label, &[62], &[b'b'; 62], &[0]].concat();
        assert_eq!(name_at(&longer, 12), Err(WireError::NameTooLong { at: 12 }));
    }

    #[test]
    fn label_types_that_nobody_uses_and_ends_inside_a_name_are_refused() {
        assert_eq!(name_at(b"\x40", 12), Err(WireError::LabelType { at: 12 }));
        assert_eq!(name_at(b"\xbf", 12), Err(WireError::LabelType { at: 12 }));
        for tail in [&b""[..], b"\x01", b"\x01a", b"\xc0"] {
            assert_eq!(name_at(tail, 12), Err(WireError::Short { at: 12 + tail.len() }), "{tail:?}");
        }
    }
}
