//! The little of X.509 that we read ourselves: from when and until when a certificate is good. rustls judges all else.
//!
//! Source: RFC 5280 §4.1 (structure), §4.1.2.5 (times); RFC 7468 (PEM); X.690 §8.1 (DER's lengths).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::model::UnixSeconds;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0] EXPLICIT Version`.
const VERSION: u8 = 0xa0;

/// When a certificate is good, both ends included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Validity {
    /// From when.
    pub not_before: UnixSeconds,
    /// Until when.
    pub not_after: UnixSeconds,
}

/// The validity of every certificate in a PEM text, in their order; `None` when one of them is none, or there is none.
#[must_use]
pub fn validities(pem: &str) -> Option<Vec<Validity>> {
    let bodies = pem.split("-----BEGIN CERTIFICATE-----").skip(1);
    let validities: Option<Vec<_>> = bodies
        .map(|body| {
            let (encoded, _) = body.split_once("-----END CERTIFICATE-----")?;
            let encoded: String = encoded.split_whitespace().collect();
            validity(&STANDARD.decode(encoded).ok()?)
        })
        .collect();
    validities.filter(|validities| !validities.is_empty())
}

/// The validity of one certificate in DER.
#[must_use]
pub fn validity(der: &[u8]) -> Option<Validity> {
    let (certificate, _) = expect(der, SEQUENCE)?;
    let (mut fields, _) = expect(certificate, SEQUENCE)?;
    if let Some((_, rest)) = expect(fields, VERSION) {
        fields = rest;
    }
    // Serial number, signature's algorithm, issuer.
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        (_, fields) = expect(fields, tag)?;
    }
    let (times, _) = expect(fields, SEQUENCE)?;
    let (not_before, rest) = time(times)?;
    let (not_after, _) = time(rest)?;
    Some(Validity { not_before, not_after })
}

/// The contents of the element with this tag at the start of `der`, and what follows it.
fn expect(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, contents, rest) = element(der)?;
    (found == tag).then_some((contents, rest))
}

fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (octets, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet)), rest)
        }
        0x80 | 0x85..=0xff => return None,
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((tag, contents, rest))
}

/// `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ`, in UTC, as RFC 5280 wants them.
fn time(der: &[u8]) -> Option<(UnixSeconds, &[u8])> {
    let (tag, contents, rest) = element(der)?;
    let text = std::str::from_utf8(contents).ok()?.strip_suffix('Z')?;
    let year_digits = match tag {
        UTC_TIME => 2,
        GENERALIZED_TIME => 4,
        _ => return None,
    };
    if text.len() != year_digits + 10 || !text.bytes().all(|octet| octet.is_ascii_digit()) {
        return None;
    }
    let (year, others) = text.split_at(year_digits);
    let number = |text: &str| text.parse::<i64>().ok();
    let year = match (number(year)?, tag) {
        (year @ 0..=49, UTC_TIME) => 2000 + year,
        (year, UTC_TIME) => 1900 + year,
        (year, _) => year,
    };
    let part = |at: usize| number(&others[at..at + 2]);
    let days = crate::model::days_from_civil(year, part(0)?, part(2)?);
    let seconds = days * 86_400 + part(4)? * 3_600 + part(6)? * 60 + part(8)?;
    Some((UnixSeconds(u64::try_from(seconds).ok()?), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate's beginning: version, serial, algorithm, issuer, then these times.
    fn certificate(times: &[(u8, &str)]) -> Vec<u8> {
        let element = |tag: u8, contents: &[u8]| [&[tag, contents.len() as u8][..], contents].concat();
        let times: Vec<u8> = times.iter().flat_map(|(tag, text)| element(*tag, text.as_bytes())).collect();
        let fields = [
            element(VERSION, &element(INTEGER, &[2])),
            element(INTEGER, &[1]),
            element(SEQUENCE, &[]),
            element(SEQUENCE, &[]),
            element(SEQUENCE, &times),
        ];
        element(SEQUENCE, &element(SEQUENCE, &fields.concat()))
    }

    #[test]
    fn both_kinds_of_time_are_read() {
        let der = certificate(&[(UTC_TIME, "260102030405Z"), (GENERALIZED_TIME, "20500101000000Z")]);
        let expected = Validity { not_before: UnixSeconds(1_767_323_045), not_after: UnixSeconds(2_524_608_000) };
        assert_eq!(validity(&der), Some(expected));
        let pem = format!("x\n-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(&der));
        assert_eq!(validities(&format!("{pem}{pem}")), Some(vec![expected, expected]));
    }

    #[test]
    fn a_two_digit_year_turns_at_50() {
        let not_before = |text| validity(&certificate(&[(UTC_TIME, text), (UTC_TIME, "700101000000Z")]));
        assert_eq!(not_before("491231235959Z").unwrap().not_before, UnixSeconds(2_524_607_999));
        assert_eq!(not_before("500101000000Z"), None, "before 1970");
    }

    #[test]
    fn what_is_no_certificate_is_none() {
        assert_eq!(validities("no certificate"), None);
        assert_eq!(validities("-----BEGIN CERTIFICATE-----\n%%\n-----END CERTIFICATE-----"), None);
        let whole = certificate(&[(UTC_TIME, "260102030405Z"), (UTC_TIME, "270102030405Z")]);
        for cut in 0..whole.len() {
            assert_eq!(validity(&whole[..cut]), None, "cut at {cut}");
        }
        for text in ["26010203040Z", "260102030405", "26010203040aZ", "+60102030405Z"] {
            assert_eq!(validity(&certificate(&[(UTC_TIME, text), (UTC_TIME, "270102030405Z")])), None, "{text}");
        }
    }
}
