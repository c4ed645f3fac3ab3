//! The record types that mean something to a zone beyond their octets, and where names stand in their data.
//!
//! A zone knows no other property of a type: everything else is carried as it is (RFC 3597).

/// An IPv4 address (RFC 1035 §3.4.1).
pub const A: u16 = 1;
/// A name server (RFC 1035 §3.3.11).
pub const NS: u16 = 2;
/// An alias (RFC 1035 §3.3.1).
pub const CNAME: u16 = 5;
/// The start of a zone (RFC 1035 §3.3.13).
pub const SOA: u16 = 6;
/// A pointer to a name (RFC 1035 §3.3.12).
pub const PTR: u16 = 12;
/// A mail exchanger (RFC 1035 §3.3.9).
pub const MX: u16 = 15;
/// Text (RFC 1035 §3.3.14).
pub const TXT: u16 = 16;
/// An IPv6 address (RFC 3596).
pub const AAAA: u16 = 28;
/// A service's place (RFC 2782).
pub const SRV: u16 = 33;
/// A whole subtree's alias (RFC 6672): not served.
pub const DNAME: u16 = 39;
/// A list of address prefixes (RFC 3123).
pub const APL: u16 = 42;
/// A delegation's signer, which is the parent's data at a cut (RFC 4035 §3.1.4.1).
pub const DS: u16 = 43;
/// A service binding (RFC 9460).
pub const SVCB: u16 = 64;
/// A service binding for HTTP (RFC 9460).
pub const HTTPS: u16 = 65;
/// The question for all types (RFC 8482).
pub const ANY: u16 = 255;

/// One piece of a record's data.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Piece {
    /// That many octets.
    Octets(usize),
    /// A name that may be compressed (RFC 3597 §4: only in the types of RFC 1035).
    Name,
    /// A name that may not.
    PlainName,
}

/// The pieces the data of `rtype` begins with; octets after them are of any number. Empty for data without names.
pub(super) const fn layout(rtype: u16) -> &'static [Piece] {
    match rtype {
        NS | CNAME | PTR => &[Piece::Name],
        SOA => &[Piece::Name, Piece::Name, Piece::Octets(20)],
        MX => &[Piece::Octets(2), Piece::Name],
        SRV => &[Piece::Octets(6), Piece::PlainName],
        SVCB | HTTPS => &[Piece::Octets(2), Piece::PlainName],
        _ => &[],
    }
}

/// Whether data of `rtype` ends with the last piece of its layout.
pub(super) const fn is_closed(rtype: u16) -> bool {
    matches!(rtype, NS | CNAME | PTR | SOA | MX | SRV)
}

/// Whether the name in data of `rtype` is one whose addresses an answer brings along (RFC 1035 §3.3, RFC 2782,
/// RFC 9460 §4.1), or, for an alias, one at which the answer goes on.
pub(super) const fn has_target(rtype: u16) -> bool {
    matches!(rtype, NS | CNAME | MX | SRV | SVCB | HTTPS)
}
