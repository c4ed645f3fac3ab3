//! Address prefix lists (RFC 3123), exact as SSA.md §1 wants them.
//!
//! An item is an address family, a prefix length, a flag for `!`, and the prefix's octets without the zero octets at
//! its end. One prefix has one form: trailing zero octets are always elided and bits behind the length are zero.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::ssa::AplItem;
use crate::wire::dns::cursor::Reader;
use crate::wire::dns::text::{TextError, TextFault, Word, Words, decimal};

/// The families whose items have a text form (RFC 3123 §4): IPv4 and IPv6.
const IPV4: u16 = 1;
const IPV6: u16 = 2;

/// The `!` bit, above the seven bits of length.
const NEGATED: u8 = 0x80;

/// Why octets are no address prefix list. One of these refuses the whole record set (SSA.md §1).
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AplError {
    /// The data ends inside item `item`.
    #[error("the data ends inside item {item}")]
    Short {
        /// Which, from 1.
        item: usize,
    },
    /// Longer than an address of the family.
    #[error("item {item} has a prefix length of {prefix_bits} bits, or more octets than an address")]
    TooLong {
        /// Which, from 1.
        item: usize,
        /// The length it claims.
        prefix_bits: u8,
    },
    /// A last octet of zero, which must be left out.
    #[error("item {item} ends in a zero octet, which must be left out")]
    TrailingZero {
        /// Which, from 1.
        item: usize,
    },
    /// A bit set behind the prefix length.
    #[error("item {item} has a bit set behind its {prefix_bits} bits")]
    HostBits {
        /// Which, from 1.
        item: usize,
        /// Its prefix length.
        prefix_bits: u8,
    },
}

impl AplError {
    /// A stable label for metrics and logs.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Short { .. } => "apl-short",
            Self::TooLong { .. } => "apl-too-long",
            Self::TrailingZero { .. } => "apl-trailing-zero",
            Self::HostBits { .. } => "apl-host-bits",
        }
    }
}

/// The IPv6 items of one record's data, in order. Items of other families are ignored, whatever they hold, as long as
/// it is clear where they end.
///
/// # Errors
/// The first fault of an IPv6 item, or of the list.
pub fn decode(rdata: &[u8]) -> Result<Vec<AplItem>, AplError> {
    let mut items = Vec::new();
    for (raw, item) in raw_items(rdata).zip(1..) {
        let raw = raw?;
        if raw.family == IPV6
            && let IpNet::V6(prefix) = raw.prefix(item)?
        {
            items.push(AplItem { negated: raw.negated, prefix });
        }
    }
    Ok(items)
}

/// The data of one record with these items, in this order.
#[must_use]
pub fn encode(items: &[AplItem]) -> Vec<u8> {
    let mut rdata = Vec::new();
    for item in items {
        push(&mut rdata, item.negated, IpNet::V6(item.prefix));
    }
    rdata
}

fn push(rdata: &mut Vec<u8>, negated: bool, prefix: IpNet) {
    let (family, address) = match prefix.network() {
        IpAddr::V4(address) => (IPV4, address.octets().to_vec()),
        IpAddr::V6(address) => (IPV6, address.octets().to_vec()),
    };
    let length = address.iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1);
    rdata.extend_from_slice(&family.to_be_bytes());
    rdata.push(prefix.prefix_len());
    rdata.push(if negated { NEGATED } else { 0 } | length as u8);
    rdata.extend_from_slice(&address[..length]);
}

/// An item of any family, its octets not judged.
struct RawItem<'a> {
    family: u16,
    prefix_bits: u8,
    negated: bool,
    octets: &'a [u8],
}

impl RawItem<'_> {
    /// The prefix of an IPv4 or IPv6 item; of any other family nothing can be said.
    fn prefix(&self, item: usize) -> Result<IpNet, AplError> {
        let most = if self.family == IPV4 { 4 } else { 16 };
        let prefix_bits = self.prefix_bits;
        if self.octets.len() > most || usize::from(prefix_bits) > 8 * most {
            return Err(AplError::TooLong { item, prefix_bits });
        }
        if self.octets.last() == Some(&0) {
            return Err(AplError::TrailingZero { item });
        }
        let mut address = [0; 16];
        address[..self.octets.len()].copy_from_slice(self.octets);
        let address = match self.family {
            IPV4 => IpAddr::from([address[0], address[1], address[2], address[3]]),
            _ => IpAddr::from(address),
        };
        let too_long = AplError::TooLong { item, prefix_bits };
        let prefix = IpNet::new(address, prefix_bits).map_err(|_| too_long)?;
        if prefix == prefix.trunc() { Ok(prefix) } else { Err(AplError::HostBits { item, prefix_bits }) }
    }
}

fn raw_items(rdata: &[u8]) -> impl Iterator<Item = Result<RawItem<'_>, AplError>> {
    let mut reader = Reader::new(rdata);
    (1..).map_while(move |item| {
        (!reader.is_empty()).then(|| {
            let raw = raw_item(&mut reader).ok_or(AplError::Short { item });
            // Nothing can be found behind an item without an end.
            if raw.is_err() {
                reader.rest();
            }
            raw
        })
    })
}

fn raw_item<'a>(reader: &mut Reader<'a>) -> Option<RawItem<'a>> {
    let family = reader.u16().ok()?;
    let &[prefix_bits, length] = reader.take(2).ok()? else { return None };
    let octets = reader.take(usize::from(length & !NEGATED)).ok()?;
    Some(RawItem { family, prefix_bits, negated: length & NEGATED != 0, octets })
}

/// Writes the data as text; none where it is malformed, or holds a family without a text form.
pub(super) fn write(rdata: &[u8], out: &mut impl fmt::Write) -> Option<()> {
    for (raw, item) in raw_items(rdata).zip(1..) {
        let raw = raw.ok()?;
        if raw.family != IPV4 && raw.family != IPV6 {
            return None;
        }
        let (space, negated) = (if item > 1 { " " } else { "" }, if raw.negated { "!" } else { "" });
        write!(out, "{space}{negated}{}:{}", raw.family, raw.prefix(item).ok()?).ok()?;
    }
    Some(())
}

/// Whether the data is well formed: like [`write`](fn@write), but families without a text form may be there.
pub(super) fn is_well_formed(rdata: &[u8]) -> bool {
    raw_items(rdata).zip(1..).all(|(raw, item)| match raw {
        Ok(raw) => (raw.family != IPV4 && raw.family != IPV6) || raw.prefix(item).is_ok(),
        Err(_) => false,
    })
}

/// Reads `[!]1:address/length` and `[!]2:address/length` items up to the end.
pub(super) fn read(words: &mut Words<'_, '_>) -> Result<Vec<u8>, TextError> {
    let mut rdata = Vec::new();
    while let Some(word) = words.next_if_any() {
        let (negated, prefix) = read_item(word)?;
        push(&mut rdata, negated, prefix);
    }
    Ok(rdata)
}

fn read_item(word: &Word<'_>) -> Result<(bool, IpNet), TextError> {
    const EXPECTED: &str = "an item [!]2:prefix/length, such as 2:2001:db8::/32, or [!]1:prefix/length";
    let text = word.bare(EXPECTED)?;
    let (negated, item) = text.strip_prefix('!').map_or((false, text), |item| (true, item));
    let prefix = parse_item(item).ok_or_else(|| word.unexpected(EXPECTED))?;
    let meant = prefix.trunc();
    if prefix == meant {
        Ok((negated, prefix))
    } else {
        Err(word.error(TextFault::AplHostBits { found: word.excerpt(), meant }))
    }
}

fn parse_item(item: &str) -> Option<IpNet> {
    let (family, prefix) = item.split_once(':')?;
    let (address, bits) = prefix.split_once('/')?;
    let address = match decimal::<u16>(family)? {
        IPV4 => IpAddr::V4(address.parse().ok()?),
        IPV6 => IpAddr::V6(address.parse().ok()?),
        _ => return None,
    };
    IpNet::new(address, decimal(bits)?).ok()
}
