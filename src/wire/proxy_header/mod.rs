//! The PROXY protocol, version 2, with the TLVs that carry a caller's token.
//!
//! ```text
//! 0D 0A 0D 0A 00 0D 0A 51 55 49 54 0A │ 21 │ 21 │ length │ source 16 │ destination 16 │ ports 2+2 │ TLVs …
//! signature                             v2   TCP6  of the rest
//! ```
//!
//! Owns the bytes alone. Whether the source is the peer's and whether the token holds is decided elsewhere; a parsed
//! header proves nothing. The header is hostile input: it is read before anything about the peer is known, so its
//! length is bounded before a byte of it is waited for ([`LONGEST`]), and every TLV stays inside the header.
//!
//! Source: "The PROXY protocol", Willy Tarreau, revision 2023-03-06, §2.2.

pub(crate) mod crc32c;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{Ipv6Addr, SocketAddrV6};

use crate::model::Name;

/// The most octets of a whole header that are read; a longer one is refused once its length field is seen.
pub const LONGEST: usize = 8 * 1024;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const VERSION_2_PROXY: u8 = 0x21;
const VERSION_2_LOCAL: u8 = 0x20;
const TCP_OVER_IPV6: u8 = 0x21;
/// Signature, version and command, family, length.
const PREFIX_OCTETS: usize = 16;
/// Two addresses and two ports.
const ADDRESS_OCTETS: usize = 36;

/// The types of the TLVs that this crate writes and reads; all others are skipped.
mod tlv {
    /// PP2_TYPE_AUTHORITY.
    pub(super) const AUTHORITY: u8 = 0x02;
    /// PP2_TYPE_CRC32C.
    pub(super) const CRC32C: u8 = 0x03;
    /// PP2_TYPE_MIN_CUSTOM: the caller's token.
    pub(super) const TOKEN: u8 = 0xE0;
    /// The generation of the rule by which the destination was computed.
    pub(super) const GENERATION: u8 = 0xE2;
    /// In place of a token: which of those that were sent before on the same connection.
    pub(super) const TOKEN_REFERENCE: u8 = 0xE3;
}

/// What a header says. Borrowed from the octets it was read from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProxyHeader<'a> {
    /// Who connects, as the sender puts it.
    pub source: SocketAddrV6,
    /// Where to, as the sender puts it.
    pub destination: SocketAddrV6,
    /// The service that is called.
    pub authority: Option<Name>,
    /// The caller's token.
    pub token: Option<TokenOctets<'a>>,
    /// In place of a token, the number of one that was sent before on the same connection; the first is 0. Means
    /// something in a tunnel alone.
    pub token_reference: Option<u32>,
    /// The generation of the rule by which the destination was computed.
    pub generation: Option<u32>,
}

/// A token as it travels. Never printed.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct TokenOctets<'a>(pub &'a [u8]);

impl fmt::Debug for TokenOctets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenOctets(… {} octets)", self.0.len())
    }
}

/// Why octets are no header that this crate accepts. One cause, one variant, one `reason`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ProxyHeaderError {
    /// The first octets are something else: no PROXY header was sent, or version 1.
    #[error("octet {at} is not that of the PROXY v2 signature: the caller sent no PROXY protocol v2 header")]
    Signature {
        /// The first octet that differs.
        at: usize,
    },
    /// Neither version 2 with PROXY nor with LOCAL.
    #[error("version and command are {found:#04x}, expected 0x21 (version 2, PROXY)")]
    Version {
        /// Octet 12.
        found: u8,
    },
    /// LOCAL: a health check of a proxy, on nobody's behalf.
    #[error("the command is LOCAL: it speaks for no caller, so there is nobody to admit")]
    Local,
    /// Only TCP over IPv6 carries structured addresses.
    #[error("family and transport are {found:#04x}, expected 0x21 (TCP over IPv6)")]
    Family {
        /// Octet 13.
        found: u8,
    },
    /// Longer than [`LONGEST`].
    #[error("the header says it has {octets} octets, at most {LONGEST} are read")]
    TooLong {
        /// Its whole length.
        octets: usize,
    },
    /// Too short for its addresses.
    #[error("the header has {octets} octets after its prefix, the two addresses alone take {ADDRESS_OCTETS}")]
    NoAddresses {
        /// The length field.
        octets: usize,
    },
    /// A TLV's length leads past the end.
    #[error("the TLV at octet {at} reaches past the end of the header")]
    TlvPastEnd {
        /// Where the TLV begins.
        at: usize,
    },
    /// A TLV of a type that is read here comes twice: which would count is a matter of taste, so neither does.
    #[error("the TLV at octet {at} repeats type {kind:#04x}")]
    Repeated {
        /// Where the second begins.
        at: usize,
        /// Its type.
        kind: u8,
    },
    /// A TLV of a fixed length has another.
    #[error("the TLV at octet {at} of type {kind:#04x} has {octets} octets, expected 4")]
    TlvLength {
        /// Where the TLV begins.
        at: usize,
        /// Its type.
        kind: u8,
        /// Its length.
        octets: usize,
    },
    /// The authority is no domain name.
    #[error("the authority at octet {at} is no domain name")]
    Authority {
        /// Where the TLV begins.
        at: usize,
    },
    /// §2.2.4: the header must be refused when the checksum does not match.
    #[error("the CRC32C is {found:#010x}, the header's own is {computed:#010x}: it was damaged on its way")]
    Checksum {
        /// What the header says.
        found: u32,
        /// What it is.
        computed: u32,
    },
}

impl ProxyHeaderError {
    /// The stable label of metrics and logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Signature { .. } => "proxy-header-missing",
            Self::Version { .. } => "proxy-header-version",
            Self::Local => "proxy-header-local",
            Self::Family { .. } => "proxy-header-family",
            Self::TooLong { .. } => "proxy-header-too-long",
            Self::NoAddresses { .. }
            | Self::TlvPastEnd { .. }
            | Self::Repeated { .. }
            | Self::TlvLength { .. }
            | Self::Authority { .. } => "proxy-header-malformed",
            Self::Checksum { .. } => "proxy-header-checksum",
        }
    }
}

/// How many octets the header that begins with `octets` has in all; `None` while too few have come to tell.
///
/// A wrong octet is refused as soon as it is there, so that a peer that speaks another protocol is not waited for.
///
/// # Errors
/// Whatever is wrong with the first 16 octets.
pub fn length(octets: &[u8]) -> Result<Option<usize>, ProxyHeaderError> {
    if let Some(at) = octets.iter().zip(SIGNATURE).position(|(&found, expected)| found != expected) {
        return Err(ProxyHeaderError::Signature { at });
    }
    match octets.get(12) {
        None | Some(&VERSION_2_PROXY) => {}
        Some(&VERSION_2_LOCAL) => return Err(ProxyHeaderError::Local),
        Some(&found) => return Err(ProxyHeaderError::Version { found }),
    }
    if let Some(&found) = octets.get(13)
        && found != TCP_OVER_IPV6
    {
        return Err(ProxyHeaderError::Family { found });
    }
    let Some(&[high, low]) = octets.get(14..16).and_then(|field| field.first_chunk::<2>()) else {
        return Ok(None);
    };
    let rest = usize::from(u16::from_be_bytes([high, low]));
    if PREFIX_OCTETS + rest > LONGEST {
        return Err(ProxyHeaderError::TooLong { octets: PREFIX_OCTETS + rest });
    }
    if rest < ADDRESS_OCTETS {
        return Err(ProxyHeaderError::NoAddresses { octets: rest });
    }
    Ok(Some(PREFIX_OCTETS + rest))
}

/// Reads the header at the start of `octets` and says how many octets it has; `None` while it is not whole.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn parse(octets: &[u8]) -> Result<Option<(ProxyHeader<'_>, usize)>, ProxyHeaderError> {
    let Some(length) = length(octets)? else { return Ok(None) };
    let Some(header) = octets.get(..length) else { return Ok(None) };
    let (addresses, _) = header[PREFIX_OCTETS..].split_at(ADDRESS_OCTETS);
    let mut parsed = ProxyHeader {
        source: socket_address(&addresses[..16], &addresses[32..34]),
        destination: socket_address(&addresses[16..32], &addresses[34..]),
        authority: None,
        token: None,
        token_reference: None,
        generation: None,
    };
    let mut checksum = None;
    let tlvs = Tlvs { header, at: PREFIX_OCTETS + ADDRESS_OCTETS };
    for found in tlvs {
        let Tlv { at, kind, value } = found?;
        match kind {
            tlv::AUTHORITY => once(&mut parsed.authority, authority(at, value)?, at, kind)?,
            tlv::TOKEN => once(&mut parsed.token, TokenOctets(value), at, kind)?,
            tlv::GENERATION => once(&mut parsed.generation, number(at, kind, value)?, at, kind)?,
            tlv::TOKEN_REFERENCE => once(&mut parsed.token_reference, number(at, kind, value)?, at, kind)?,
            tlv::CRC32C => once(&mut checksum, (at + 3, number(at, kind, value)?), at, kind)?,
            _ => {}
        }
    }
    if let Some((at, found)) = checksum {
        let computed = crc32c::with_zeros(header, at..at + 4);
        if computed != found {
            return Err(ProxyHeaderError::Checksum { found, computed });
        }
    }
    Ok(Some((parsed, length)))
}

/// A header cannot be written because its parts are too long together.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the header would have {octets} octets, at most {LONGEST} are read: the token is too long")]
pub struct HeaderTooLong {
    /// Its whole length.
    pub octets: usize,
}

impl ProxyHeader<'_> {
    /// Writes the header behind whatever `out` holds, with its checksum.
    ///
    /// # Errors
    /// [`HeaderTooLong`], and `out` is as it was, when no receiver would take it.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), HeaderTooLong> {
        let start = out.len();
        out.extend_from_slice(&SIGNATURE);
        out.extend_from_slice(&[VERSION_2_PROXY, TCP_OVER_IPV6, 0, 0]);
        out.extend_from_slice(&self.source.ip().octets());
        out.extend_from_slice(&self.destination.ip().octets());
        out.extend_from_slice(&self.source.port().to_be_bytes());
        out.extend_from_slice(&self.destination.port().to_be_bytes());
        if let Some(authority) = &self.authority {
            let text = authority.to_string();
            put(out, tlv::AUTHORITY, text.strip_suffix('.').unwrap_or(&text).as_bytes());
        }
        if let Some(token) = self.token {
            put(out, tlv::TOKEN, token.0);
        }
        if let Some(number) = self.token_reference {
            put(out, tlv::TOKEN_REFERENCE, &number.to_be_bytes());
        }
        if let Some(generation) = self.generation {
            put(out, tlv::GENERATION, &generation.to_be_bytes());
        }
        put(out, tlv::CRC32C, &[0; 4]);
        let octets = out.len() - start;
        if octets > LONGEST {
            out.truncate(start);
            return Err(HeaderTooLong { octets });
        }
        let header = &mut out[start..];
        header[14..16].copy_from_slice(&((octets - PREFIX_OCTETS) as u16).to_be_bytes());
        let checksum = crc32c::with_zeros(header, octets..octets);
        header[octets - 4..].copy_from_slice(&checksum.to_be_bytes());
        Ok(())
    }
}

/// Appends a TLV. A value past what the length can say makes the header too long anyway, so its length is not exact.
fn put(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    out.push(kind);
    out.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(value);
}

struct Tlv<'a> {
    /// Where in the header it begins.
    at: usize,
    kind: u8,
    value: &'a [u8],
}

/// The TLVs from `at` to the end of the header; ends after the first error.
struct Tlvs<'a> {
    header: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Tlvs<'a> {
    type Item = Result<Tlv<'a>, ProxyHeaderError>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at;
        let rest = self.header.get(at..).filter(|rest| !rest.is_empty())?;
        let value = match *rest {
            [_, high, low, ref tail @ ..] => tail.get(..usize::from(u16::from_be_bytes([high, low]))),
            _ => None,
        };
        let Some(value) = value else {
            self.at = self.header.len();
            return Some(Err(ProxyHeaderError::TlvPastEnd { at }));
        };
        self.at = at + 3 + value.len();
        Some(Ok(Tlv { at, kind: rest[0], value }))
    }
}

fn once<T>(slot: &mut Option<T>, value: T, at: usize, kind: u8) -> Result<(), ProxyHeaderError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(ProxyHeaderError::Repeated { at, kind }),
    }
}

fn authority(at: usize, value: &[u8]) -> Result<Name, ProxyHeaderError> {
    let name = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    name.ok_or(ProxyHeaderError::Authority { at })
}

fn number(at: usize, kind: u8, value: &[u8]) -> Result<u32, ProxyHeaderError> {
    let octets = value.try_into().map_err(|_| ProxyHeaderError::TlvLength { at, kind, octets: value.len() })?;
    Ok(u32::from_be_bytes(octets))
}

/// Of 16 and 2 octets, which the caller has cut out.
fn socket_address(address: &[u8], port: &[u8]) -> SocketAddrV6 {
    let fold = |octets: &[u8]| octets.iter().fold(0_u128, |sum, &octet| sum << 8 | u128::from(octet));
    SocketAddrV6::new(Ipv6Addr::from(fold(address)), fold(port) as u16, 0, 0)
}
