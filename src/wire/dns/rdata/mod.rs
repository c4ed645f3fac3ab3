//! Record data: octets to text and back, for every type that zones here hold, and where the names in it are.
//!
//! A record holds its data as uncompressed octets whatever its type; what they mean is read where it is needed, with
//! [`apl`], [`svcb`], [`Soa`] and [`txt`]. Types without a text form here, and data that breaks its type's rules, have
//! the generic form of RFC 3597 §5.

pub mod apl;
mod shape;
mod soa;
pub mod svcb;
mod svcb_text;
#[cfg(test)]
mod tests;
pub mod txt;

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

pub(super) use shape::{Part, decompress, may_be_compressed, split};
pub use soa::Soa;

use self::svcb::Svcb;
use super::Type;
use super::text::{Entry, Scanner, TextError, TextFault, Words};
use crate::model::Name;

/// What announces the generic form.
const GENERIC: &str = "\\#";

/// Reads the text of one record's data; relative names are completed with `origin`. Line breaks count as spaces.
///
/// # Errors
/// The first fault, its place counted in `text`.
pub fn from_text(rtype: Type, text: &str, origin: &Name) -> Result<Box<[u8]>, TextError> {
    let mut scanner = Scanner::new(text);
    let (mut all, mut entry) = (Entry::default(), Entry::default());
    while let Some(scanned) = scanner.next_into(&mut entry) {
        scanned?;
        all.append(&mut entry);
    }
    read(rtype, &mut Words::new(&all), origin)
}

/// Reads one record's data up to the end of the entry.
pub(super) fn read(rtype: Type, words: &mut Words<'_, '_>, origin: &Name) -> Result<Box<[u8]>, TextError> {
    let start = words.place();
    let rdata = if words.peek().is_some_and(|word| word.bare("").is_ok_and(|text| text == GENERIC)) {
        read_generic(rtype, words)?
    } else {
        read_typed(rtype, words, origin)?
    };
    if let Some(surplus) = words.next_if_any() {
        return Err(surplus.error(TextFault::Surplus { found: surplus.excerpt(), rtype }));
    }
    if rdata.len() > usize::from(u16::MAX) {
        return Err(TextError { place: start, fault: TextFault::DataTooLong { octets: rdata.len() } });
    }
    Ok(rdata.into())
}

fn read_typed(rtype: Type, words: &mut Words<'_, '_>, origin: &Name) -> Result<Vec<u8>, TextError> {
    match rtype {
        Type::A => words.parse("an IPv4 address such as 192.0.2.1").map(|address: Ipv4Addr| address.octets().to_vec()),
        Type::AAAA => words.parse("an IPv6 address such as 2001:db8::1").map(|it: Ipv6Addr| it.octets().to_vec()),
        Type::NS | Type::CNAME | Type::PTR => Ok(words.name(origin, "a domain name")?.wire().to_vec()),
        Type::MX => {
            let preference = words.number("a preference, 0 to 65535")?;
            let exchange = words.name(origin, "the name of the mail exchange")?;
            Ok(numbers_and_name([preference], &exchange))
        }
        Type::SRV => {
            let priority = words.number("a priority, 0 to 65535")?;
            let weight = words.number("a weight, 0 to 65535")?;
            let port = words.number("a port, 0 to 65535")?;
            let target = words.name(origin, "the name of the target, or . for none")?;
            Ok(numbers_and_name([priority, weight, port], &target))
        }
        Type::SOA => soa::read(words, origin),
        Type::TXT => txt::read(words),
        Type::APL => apl::read(words),
        Type::SVCB | Type::HTTPS => svcb_text::read(words, origin),
        _ => Err(TextError { place: words.place(), fault: TextFault::GenericOnly { rtype } }),
    }
}

fn numbers_and_name<const N: usize>(numbers: [u16; N], name: &Name) -> Vec<u8> {
    let mut rdata: Vec<u8> = numbers.into_iter().flat_map(u16::to_be_bytes).collect();
    rdata.extend_from_slice(name.wire());
    rdata
}

/// `\# LENGTH HEX…`, whatever the type; data of a known type must be its (RFC 3597 §5).
fn read_generic(rtype: Type, words: &mut Words<'_, '_>) -> Result<Vec<u8>, TextError> {
    const EXPECTED: &str = "an even number of hexadecimal digits";
    let place = words.place();
    words.next(GENERIC)?;
    let announced: u16 = words.number("the number of octets, 0 to 65535")?;
    let mut rdata = Vec::new();
    while let Some(word) = words.next_if_any() {
        let (pairs, odd) = word.bare(EXPECTED)?.as_bytes().as_chunks();
        let octets = pairs.iter().map(|[high, low]| Some(hex(*high)? << 4 | hex(*low)?)).collect::<Option<Vec<u8>>>();
        rdata.extend(octets.filter(|_| odd.is_empty()).ok_or_else(|| word.unexpected(EXPECTED))?);
    }
    let fault = if rdata.len() != usize::from(announced) {
        TextFault::GenericLength { announced, octets: rdata.len() }
    } else if !is_well_formed(rtype, &rdata) {
        TextFault::GenericData { rtype }
    } else {
        return Ok(rdata);
    };
    Err(TextError { place, fault })
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

/// The text of a record's data: its type's own form where it has one and the data is well formed, else the generic form.
/// What it gives for well-formed data, [`from_text`] reads back.
#[must_use]
pub fn to_text(rtype: Type, rdata: &[u8]) -> String {
    let mut text = String::new();
    if write_typed(rtype, rdata, &mut text).is_some() {
        return text;
    }
    let octets: String = rdata.iter().map(|octet| format!("{octet:02X}")).collect();
    let space = if octets.is_empty() { "" } else { " " };
    format!("{GENERIC} {}{space}{octets}", rdata.len())
}

/// Writes the form of the type itself; none where it has none, or the data is not of the type.
fn write_typed(rtype: Type, rdata: &[u8], out: &mut String) -> Option<()> {
    match rtype {
        Type::A => write!(out, "{}", Ipv4Addr::from(<[u8; 4]>::try_from(rdata).ok()?)).ok(),
        Type::AAAA => write!(out, "{}", Ipv6Addr::from(<[u8; 16]>::try_from(rdata).ok()?)).ok(),
        Type::NS | Type::CNAME | Type::PTR => write!(out, "{}", Name::from_wire(rdata).ok()?).ok(),
        Type::MX | Type::SRV => write_numbers_and_name(rtype, rdata, out),
        Type::SOA => write!(out, "{}", Soa::decode(rdata).ok()?).ok(),
        Type::TXT => txt::write(rdata, out),
        Type::APL => apl::write(rdata, out),
        Type::SVCB | Type::HTTPS => svcb_text::write(rdata, out),
        _ => None,
    }
}

fn write_numbers_and_name(rtype: Type, rdata: &[u8], out: &mut String) -> Option<()> {
    for part in split(rtype, rdata)? {
        match part {
            Part::Octets(octets) => {
                for pair in octets.as_chunks().0 {
                    write!(out, "{} ", u16::from_be_bytes(*pair)).ok()?;
                }
            }
            Part::Name(name) => write!(out, "{name}").ok()?,
        }
    }
    Some(())
}

/// Whether uncompressed data keeps the rules of its type; data of types whose rules are not known here does.
#[must_use]
pub fn is_well_formed(rtype: Type, rdata: &[u8]) -> bool {
    match rtype {
        Type::A => rdata.len() == 4,
        Type::AAAA => rdata.len() == 16,
        Type::TXT => txt::strings(rdata).is_some(),
        Type::APL => apl::is_well_formed(rdata),
        Type::SVCB | Type::HTTPS => Svcb::decode(rdata).is_ok(),
        _ => !shape::is_known(rtype) || split(rtype, rdata).is_some(),
    }
}

/// The host in the data of a record whose addresses help who asked for the record: of NS, MX, SRV, SVCB and HTTPS (RFC 1035
/// §3.3, RFC 2782, RFC 9460 §4.1), as it stands there.
#[must_use]
pub fn target(rtype: Type, rdata: &[u8]) -> Option<Name> {
    match rtype {
        Type::NS | Type::MX | Type::SRV => split(rtype, rdata)?.into_iter().find_map(|part| match part {
            Part::Name(name) => Some(name),
            Part::Octets(_) => None,
        }),
        Type::SVCB | Type::HTTPS => Svcb::decode(rdata).ok().map(|svcb| svcb.target().clone()),
        _ => None,
    }
}
