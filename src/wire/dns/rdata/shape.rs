//! Where the names are in record data, so that they can be decompressed and compressed.

use crate::model::Name;
use crate::wire::dns::Type;
use crate::wire::dns::cursor::{Reader, WireError};

/// One part of record data.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Part<'a> {
    Name(Name),
    Octets(&'a [u8]),
}

/// What a part of the data is.
#[derive(Clone, Copy)]
enum Kind {
    Name,
    Octets(usize),
    CharacterString,
}

/// The shape of those types whose names may arrive compressed: the types of RFC 1035, and the older others that
/// RFC 3597 §4 lists. Data of any other type is taken as it stands.
const fn shape(rtype: Type) -> Option<&'static [Kind]> {
    use Kind::{CharacterString, Name, Octets};
    Some(match rtype {
        Type::NS | Type::CNAME | Type::PTR | Type::DNAME => &[Name],
        Type::MB | Type::MD | Type::MF | Type::MG | Type::MR => &[Name],
        Type::SOA => &[Name, Name, Octets(20)],
        Type::MINFO | Type::RP => &[Name, Name],
        Type::MX | Type::AFSDB | Type::RT | Type::KX => &[Octets(2), Name],
        Type::PX => &[Octets(2), Name, Name],
        Type::SRV => &[Octets(6), Name],
        Type::NAPTR => &[Octets(4), CharacterString, CharacterString, CharacterString, Name],
        _ => return None,
    })
}

/// Whether the shape of this type's data is known.
pub(super) const fn is_known(rtype: Type) -> bool {
    shape(rtype).is_some()
}

/// Whether names in data of this type may be sent compressed: the types of RFC 1035 alone (RFC 3597 §4).
pub(crate) const fn may_be_compressed(rtype: Type) -> bool {
    matches!(rtype, Type::NS | Type::CNAME | Type::PTR | Type::SOA | Type::MX | Type::MINFO)
        || matches!(rtype, Type::MB | Type::MD | Type::MF | Type::MG | Type::MR)
}

/// The data of a record of this type in uncompressed form, from a reader of exactly that data. No data at all is
/// left so: updates have such records (RFC 2136 §2.4).
pub(crate) fn decompress(rtype: Type, mut data: Reader<'_>) -> Result<Box<[u8]>, WireError> {
    let Some(shape) = shape(rtype).filter(|_| !data.is_empty()) else { return Ok(data.rest().into()) };
    let at = data.at();
    let mut octets = Vec::new();
    for part in parts(shape, &mut data, Reader::name)? {
        match part {
            Part::Name(name) => octets.extend_from_slice(name.wire()),
            Part::Octets(part) => octets.extend_from_slice(part),
        }
    }
    if data.is_empty() { Ok(octets.into()) } else { Err(WireError::Rdata { at, rtype }) }
}

/// Uncompressed data taken apart; none where it has not the shape of its type, or the type has none.
pub(crate) fn split(rtype: Type, data: &[u8]) -> Option<Vec<Part<'_>>> {
    let mut reader = Reader::new(data);
    let parts = parts(shape(rtype)?, &mut reader, Reader::uncompressed_name).ok()?;
    reader.is_empty().then_some(parts)
}

fn parts<'a>(
    shape: &[Kind],
    data: &mut Reader<'a>,
    name: fn(&mut Reader<'a>) -> Result<Name, WireError>,
) -> Result<Vec<Part<'a>>, WireError> {
    let part = |kind: &Kind| match kind {
        Kind::Name => name(data).map(Part::Name),
        Kind::Octets(count) => data.take(*count).map(Part::Octets),
        Kind::CharacterString => data.counted().map(Part::Octets),
    };
    shape.iter().map(part).collect()
}
