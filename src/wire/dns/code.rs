//! Classes, operation codes and response codes: open numbers with names where the registry gives one.
//!
//! They are numbers, not closed enums, because a peer may send any value and an answer has to carry it back.

use std::fmt;
use std::str::FromStr;

/// Why a mnemonic of a type or a class was not understood.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("neither a known mnemonic nor the generic form of RFC 3597 §5 with a number up to 65535")]
pub struct UnknownMnemonic;

/// The number in a generic form such as `TYPE123`, whose letters may be of either case (RFC 3597 §5).
pub(super) fn generic_number(text: &str, letters: &str) -> Option<u16> {
    let (head, digits) = text.split_at_checked(letters.len())?;
    let decimal = !digits.is_empty() && digits.bytes().all(|octet| octet.is_ascii_digit());
    (decimal && head.eq_ignore_ascii_case(letters)).then(|| digits.parse().ok())?
}

/// A class (RFC 1035 §3.2.4), or one of the question classes that RFC 2136 gives a meaning in updates.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Class(pub u16);

impl Class {
    /// The Internet.
    pub const IN: Self = Self(1);
    /// Chaosnet; `version.bind` and the like.
    pub const CH: Self = Self(3);
    /// Hesiod.
    pub const HS: Self = Self(4);
    /// In updates: the record is to go, or must not be there (RFC 2136 §2.4, §2.5).
    pub const NONE: Self = Self(254);
    /// Any class; in updates: the whole RRset (RFC 2136 §2.4, §2.5).
    pub const ANY: Self = Self(255);
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::IN => f.pad("IN"),
            Self::CH => f.pad("CH"),
            Self::HS => f.pad("HS"),
            Self::NONE => f.pad("NONE"),
            Self::ANY => f.pad("ANY"),
            Self(number) => f.pad(&format!("CLASS{number}")),
        }
    }
}

impl FromStr for Class {
    type Err = UnknownMnemonic;

    /// Reads a mnemonic of either case, or `CLASSn`.
    fn from_str(text: &str) -> Result<Self, UnknownMnemonic> {
        const MNEMONICS: [(Class, &str); 5] =
            [(Class::IN, "IN"), (Class::CH, "CH"), (Class::HS, "HS"), (Class::NONE, "NONE"), (Class::ANY, "ANY")];
        MNEMONICS
            .into_iter()
            .find(|(_, mnemonic)| mnemonic.eq_ignore_ascii_case(text))
            .map(|(class, _)| class)
            .or_else(|| generic_number(text, "CLASS").map(Self))
            .ok_or(UnknownMnemonic)
    }
}

/// What a message asks for: 4 bits (RFC 1035 §4.1.1).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Opcode(u8);

impl Opcode {
    /// A question.
    pub const QUERY: Self = Self(0);
    /// Server status, never specified.
    pub const STATUS: Self = Self(2);
    /// A zone has changed (RFC 1996).
    pub const NOTIFY: Self = Self(4);
    /// Change a zone (RFC 2136).
    pub const UPDATE: Self = Self(5);

    /// The code in the low four bits of `number`; the others are dropped, as the header has no room for them.
    #[must_use]
    pub const fn from_bits(number: u8) -> Self {
        Self(number & 0x0f)
    }

    /// The number, at most 15.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Opcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::QUERY => f.pad("QUERY"),
            Self::STATUS => f.pad("STATUS"),
            Self::NOTIFY => f.pad("NOTIFY"),
            Self::UPDATE => f.pad("UPDATE"),
            Self(number) => f.pad(&format!("OPCODE{number}")),
        }
    }
}

/// How a request ended: 12 bits, of which the upper 8 travel in OPT (RFC 6891 §6.1.3).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Rcode(pub u16);

impl Rcode {
    /// Done; without an answer this is NODATA.
    pub const NOERROR: Self = Self(0);
    /// The request could not be read.
    pub const FORMERR: Self = Self(1);
    /// The server could not do it.
    pub const SERVFAIL: Self = Self(2);
    /// The name does not exist.
    pub const NXDOMAIN: Self = Self(3);
    /// The server does not do this kind of request.
    pub const NOTIMP: Self = Self(4);
    /// The server will not do it for this client.
    pub const REFUSED: Self = Self(5);
    /// A name exists that should not (RFC 2136 §2.2).
    pub const YXDOMAIN: Self = Self(6);
    /// An RRset exists that should not (RFC 2136 §2.2).
    pub const YXRRSET: Self = Self(7);
    /// An RRset that should exist does not (RFC 2136 §2.2).
    pub const NXRRSET: Self = Self(8);
    /// Not authoritative for the zone, or not authorised (RFC 2136 §2.2, RFC 8945 §5).
    pub const NOTAUTH: Self = Self(9);
    /// A name is not in the zone (RFC 2136 §2.2).
    pub const NOTZONE: Self = Self(10);
    /// The EDNS version is not spoken (RFC 6891 §6.1.3). In a TSIG the same number is BADSIG (RFC 8945 §3).
    pub const BADVERS: Self = Self(16);
    /// The key of a TSIG is not known (RFC 8945 §3).
    pub const BADKEY: Self = Self(17);
    /// The time of a TSIG is too far off (RFC 8945 §3).
    pub const BADTIME: Self = Self(18);
    /// The MAC of a TSIG is too short (RFC 8945 §3).
    pub const BADTRUNC: Self = Self(22);
    /// The cookie is missing or wrong (RFC 7873 §8).
    pub const BADCOOKIE: Self = Self(23);
}

/// Every named response code, in order of number.
const RCODES: [(Rcode, &str); 16] = [
    (Rcode::NOERROR, "NOERROR"),
    (Rcode::FORMERR, "FORMERR"),
    (Rcode::SERVFAIL, "SERVFAIL"),
    (Rcode::NXDOMAIN, "NXDOMAIN"),
    (Rcode::NOTIMP, "NOTIMP"),
    (Rcode::REFUSED, "REFUSED"),
    (Rcode::YXDOMAIN, "YXDOMAIN"),
    (Rcode::YXRRSET, "YXRRSET"),
    (Rcode::NXRRSET, "NXRRSET"),
    (Rcode::NOTAUTH, "NOTAUTH"),
    (Rcode::NOTZONE, "NOTZONE"),
    (Rcode::BADVERS, "BADVERS"),
    (Rcode::BADKEY, "BADKEY"),
    (Rcode::BADTIME, "BADTIME"),
    (Rcode::BADTRUNC, "BADTRUNC"),
    (Rcode::BADCOOKIE, "BADCOOKIE"),
];

impl fmt::Display for Rcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match RCODES.iter().find(|(rcode, _)| rcode == self) {
            Some((_, name)) => f.pad(name),
            None => f.pad(&format!("RCODE{}", self.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_read_by_mnemonic_and_by_number_and_written_by_mnemonic() {
        for text in ["IN", "in", "CLASS1", "class1"] {
            assert_eq!(text.parse(), Ok(Class::IN));
        }
        assert_eq!(Class::NONE.to_string(), "NONE");
        assert_eq!(Class(77).to_string(), "CLASS77");
        assert_eq!("CLASS65535".parse(), Ok(Class(65535)));
        for text in ["CLASS", "CLASS65536", "CLASS+1", "INN", "", "é"] {
            assert_eq!(text.parse::<Class>(), Err(UnknownMnemonic), "{text}");
        }
    }

    #[test]
    fn codes_without_a_name_print_their_number() {
        assert_eq!(Rcode::NXDOMAIN.to_string(), "NXDOMAIN");
        assert_eq!(Rcode(4000).to_string(), "RCODE4000");
        assert_eq!(Opcode::from_bits(0xf5), Opcode::UPDATE);
        assert_eq!(Opcode::from_bits(3).to_string(), "OPCODE3");
    }
}
