//! Netlink attributes: type, length and value, padded to four octets, nesting.
//!
//! Source: linux/netlink.h. Numbers inside nf_tables attributes are big-endian, unlike the lengths around them.

/// The flag on the type of an attribute that holds attributes.
const NESTED: u16 = 0x8000;
/// Type bits that are flags: nested, and "value is in network order".
const FLAGS: u16 = 0xc000;
const HEADER: usize = 4;
const ALIGN: usize = 4;

/// Attributes being written.
#[derive(Clone, Debug, Default)]
pub(super) struct Attributes {
    bytes: Vec<u8>,
}

impl Attributes {
    /// Appends a value as it stands.
    ///
    /// Whoever appends keeps values under 64 KiB: names are short, and long sets are sent in pieces.
    pub(super) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let len = u16::try_from(HEADER + value.len()).unwrap_or(u16::MAX);
        debug_assert_eq!(usize::from(len), HEADER + value.len());
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
        self
    }

    /// Appends a number, big-endian.
    pub(super) fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Appends a text with its final zero.
    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// Appends attributes as the value of one.
    pub(super) fn nest(self, kind: u16, inner: Self) -> Self {
        self.bytes(kind | NESTED, &inner.bytes)
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// The attributes in `bytes`, type without flags. Ends at the first that is cut short.
pub(super) fn read(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (header, _) = bytes.split_first_chunk::<HEADER>()?;
        let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & !FLAGS;
        let value = bytes.get(HEADER..len)?;
        bytes = bytes.get(len.next_multiple_of(ALIGN)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of type `kind`.
pub(super) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    read(bytes).find_map(|(found, value)| (found == kind).then_some(value))
}

/// A big-endian number.
pub(super) fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*value.first_chunk()?))
}

/// A text, with or without its final zero.
pub(super) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|octet| *octet == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(values in proptest::collection::vec((1_u16..0x3fff, proptest::collection::vec(any::<u8>(), 0..40)), 0..8)) {
            let written = values.iter().fold(Attributes::default(), |all, (kind, value)| all.bytes(*kind, value)).into_bytes();
            let back: Vec<_> = read(&written).map(|(kind, value)| (kind, value.to_vec())).collect();
            prop_assert_eq!(back, values);
        }

        #[test]
        fn reading_any_octets_ends(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            let read: usize = read(&octets).map(|(_, value)| value.len() + HEADER).sum();
            prop_assert!(read <= octets.len());
        }
    }
}
