//! Record types: an open number with the registry's mnemonic where this crate meets it.

use std::fmt;
use std::str::FromStr;

use super::code::{UnknownMnemonic, generic_number};

/// A record type or question type (RFC 1035 §3.2.2, §3.2.3).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Type(pub u16);

/// Declares the constants and the table of mnemonics from one list, so that neither can lack what the other has.
macro_rules! types {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
        #[allow(missing_docs, reason = "most of these say no more than the registry's mnemonic")]
        impl Type {
            $($(#[$doc])* pub const $name: Self = Self($number);)*
        }

        /// Every type with a mnemonic, in order of number.
        const MNEMONICS: &[(Type, &str)] = &[$((Type::$name, stringify!($name)),)*];
    };
}

types! {
    A = 1;
    NS = 2;
    MD = 3;
    MF = 4;
    CNAME = 5;
    SOA = 6;
    MB = 7;
    MG = 8;
    MR = 9;
    NULL = 10;
    WKS = 11;
    PTR = 12;
    HINFO = 13;
    MINFO = 14;
    MX = 15;
    TXT = 16;
    RP = 17;
    AFSDB = 18;
    RT = 21;
    SIG = 24;
    KEY = 25;
    PX = 26;
    AAAA = 28;
    LOC = 29;
    SRV = 33;
    NAPTR = 35;
    KX = 36;
    CERT = 37;
    DNAME = 39;
    /// EDNS (RFC 6891); never a zone's record.
    OPT = 41;
    /// Address prefix lists (RFC 3123): the space of a service.
    APL = 42;
    DS = 43;
    SSHFP = 44;
    RRSIG = 46;
    NSEC = 47;
    DNSKEY = 48;
    NSEC3 = 50;
    NSEC3PARAM = 51;
    TLSA = 52;
    CDS = 59;
    CDNSKEY = 60;
    OPENPGPKEY = 61;
    CSYNC = 62;
    ZONEMD = 63;
    /// Service binding (RFC 9460): the rule of a service.
    SVCB = 64;
    HTTPS = 65;
    SPF = 99;
    TKEY = 249;
    /// A message's signature (RFC 8945); never a zone's record.
    TSIG = 250;
    IXFR = 251;
    AXFR = 252;
    MAILB = 253;
    MAILA = 254;
    /// Any type (RFC 8482).
    ANY = 255;
    URI = 256;
    CAA = 257;
}

impl Type {
    /// Whether no zone can hold such a record: it is a question type or belongs to one message (RFC 6895 §3.1).
    #[must_use]
    pub const fn is_meta(self) -> bool {
        self.0 == 0 || self.0 == Self::OPT.0 || (128 <= self.0 && self.0 <= 255)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match MNEMONICS.binary_search_by_key(self, |(rtype, _)| *rtype) {
            Ok(at) => f.pad(MNEMONICS[at].1),
            Err(_) => f.pad(&format!("TYPE{}", self.0)),
        }
    }
}

impl FromStr for Type {
    type Err = UnknownMnemonic;

    /// Reads a mnemonic of either case, or `TYPEn`.
    fn from_str(text: &str) -> Result<Self, UnknownMnemonic> {
        // Compared by the first letter first, which nearly always settles it.
        let first = text.as_bytes().first().map(u8::to_ascii_uppercase);
        MNEMONICS
            .iter()
            .find(|(_, mnemonic)| mnemonic.bytes().next() == first && mnemonic.eq_ignore_ascii_case(text))
            .map(|(rtype, _)| *rtype)
            .or_else(|| generic_number(text, "TYPE").map(Self))
            .ok_or(UnknownMnemonic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mnemonic_reads_back_and_the_table_is_in_order() {
        assert!(MNEMONICS.is_sorted_by(|one, next| one.0 < next.0));
        for (rtype, mnemonic) in MNEMONICS {
            assert_eq!(mnemonic.parse(), Ok(*rtype));
            assert_eq!(rtype.to_string(), *mnemonic);
        }
    }

    #[test]
    fn a_type_is_read_in_either_case_and_in_the_generic_form() {
        assert_eq!("apl".parse(), Ok(Type::APL));
        assert_eq!("TYPE42".parse(), Ok(Type::APL));
        assert_eq!("type65280".parse(), Ok(Type(65280)));
        assert_eq!(Type(65280).to_string(), "TYPE65280");
        for text in ["TYPE", "TYPE65536", "TYPE-1", "AAAAA", ""] {
            assert_eq!(text.parse::<Type>(), Err(UnknownMnemonic), "{text}");
        }
    }

    #[test]
    fn question_types_and_message_records_are_meta_and_their_neighbours_are_not() {
        for number in [0, 41, 128, 250, 255] {
            assert!(Type(number).is_meta(), "{number}");
        }
        for number in [1, 40, 42, 127, 256] {
            assert!(!Type(number).is_meta(), "{number}");
        }
    }
}
