//! Text records: one or more strings of up to 255 octets (RFC 1035 §3.3.14).

use crate::wire::dns::cursor::Reader;
use crate::wire::dns::text::{TextError, TextFault, Words, quote};

/// The strings in a record's data; none where there is no string, or the data ends inside one.
#[must_use]
pub fn strings(rdata: &[u8]) -> Option<Vec<&[u8]>> {
    let mut reader = Reader::new(rdata);
    let mut strings = Vec::new();
    while !reader.is_empty() {
        strings.push(&reader.counted().ok()?[1..]);
    }
    (!strings.is_empty()).then_some(strings)
}

/// The data of a record with this text, cut into strings of 255 octets where it is longer.
#[must_use]
pub fn encode(text: &[u8]) -> Vec<u8> {
    let mut rdata = Vec::with_capacity(text.len() + text.len() / 255 + 1);
    for string in text.chunks(255) {
        rdata.push(string.len() as u8);
        rdata.extend_from_slice(string);
    }
    if text.is_empty() {
        rdata.push(0);
    }
    rdata
}

pub(super) fn read(words: &mut Words<'_, '_>) -> Result<Vec<u8>, TextError> {
    let mut rdata = Vec::new();
    let mut word = words.next("a string")?;
    loop {
        let octets = word.octets()?;
        let length =
            u8::try_from(octets.len()).map_err(|_| word.error(TextFault::StringTooLong { octets: octets.len() }))?;
        rdata.push(length);
        rdata.extend_from_slice(&octets);
        match words.next_if_any() {
            Some(next) => word = next,
            None => return Ok(rdata),
        }
    }
}

/// Writes the data as quoted strings; none where it is malformed.
pub(super) fn write(rdata: &[u8], out: &mut String) -> Option<()> {
    for (string, at) in strings(rdata)?.into_iter().zip(0..) {
        if at > 0 {
            out.push(' ');
        }
        quote(string, out).ok()?;
    }
    Some(())
}
