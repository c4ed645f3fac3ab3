//! The text form of service bindings (RFC 9460 §2.1, §7, Appendix A).
//!
//! Lists are escaped twice: `\,` and `\\` inside a list, and all of it once more as a string.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::svcb::{Key, Param, Svcb, SvcbFault, check_value, expected_value, keys, protocols};
use crate::model::Name;
use crate::wire::dns::text::{TextError, Word, Words, decimal, quote};

/// Reads `priority target parameter…` up to the end.
pub(super) fn read(words: &mut Words<'_, '_>, origin: &Name) -> Result<Vec<u8>, TextError> {
    let start = words.place();
    let priority = words.number("a priority, 0 to 65535")?;
    let target = words.name(origin, "the name of the target, or . for the owner")?;
    let mut params: Vec<Param> = Vec::new();
    while let Some(word) = words.next_if_any() {
        let param = read_param(word)?;
        if params.iter().any(|earlier| earlier.key == param.key) {
            return Err(word.error(SvcbFault::Order(param.key).into()));
        }
        params.push(param);
    }
    let fault = |fault: SvcbFault| TextError { place: start, fault: fault.into() };
    Svcb::new(priority, target, params).map(|svcb| svcb.encode()).map_err(fault)
}

fn read_param(word: &Word<'_>) -> Result<Param, TextError> {
    const EXPECTED: &str = "a parameter key=value with a known key in lower case, or one such as key65400";
    let (name, value) = word.key_and_value(EXPECTED)?;
    let key: Key = name.parse().map_err(|()| word.unexpected(EXPECTED))?;
    let by_number = name.starts_with("key");
    let value = match value {
        Some(value) if by_number => Some(value),
        Some(value) if key == Key::NO_DEFAULT_ALPN => value.is_empty().then_some(value),
        Some(value) => wire_value(key, &value),
        None => Some(Vec::new()),
    };
    let value = value.ok_or(SvcbFault::Value { key, expected: expected_value(key) });
    let checked = value.and_then(|value| check_value(key, &value).map(|()| value));
    Ok(Param { key, value: checked.map_err(|fault| word.error(fault.into()))?.into() })
}

/// The value on the wire that a known key's text stands for; none where it stands for nothing.
fn wire_value(key: Key, text: &[u8]) -> Option<Vec<u8>> {
    match key {
        Key::ALPN => wire_protocols(text),
        Key::ECH => STANDARD.decode(text).ok(),
        _ => {
            let text = std::str::from_utf8(text).ok()?;
            match key {
                Key::MANDATORY => wire_keys(text),
                Key::PORT => decimal::<u16>(text).map(|port| port.to_be_bytes().to_vec()),
                Key::IPV4HINT => wire_list(text, |address: Ipv4Addr| address.octets()),
                Key::IPV6HINT => wire_list(text, |address: Ipv6Addr| address.octets()),
                _ => Some(text.into()),
            }
        }
    }
}

fn wire_list<T: FromStr, const N: usize>(text: &str, octets: fn(T) -> [u8; N]) -> Option<Vec<u8>> {
    let items = text.split(',').map(|item| item.parse().ok().map(octets)).collect::<Option<Vec<_>>>()?;
    Some(items.concat())
}

fn wire_keys(text: &str) -> Option<Vec<u8>> {
    let mut keys = text.split(',').map(|name| name.parse().ok()).collect::<Option<Vec<Key>>>()?;
    keys.sort();
    Some(keys.into_iter().flat_map(|key| key.0.to_be_bytes()).collect())
}

fn wire_protocols(text: &[u8]) -> Option<Vec<u8>> {
    let mut value = Vec::new();
    for protocol in split_list(text)? {
        value.push(u8::try_from(protocol.len()).ok().filter(|length| *length > 0)?);
        value.extend_from_slice(&protocol);
    }
    Some(value)
}

/// The items of a comma-separated list in which `\,` and `\\` stand for themselves (Appendix A.1).
fn split_list(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut items = vec![Vec::new()];
    let mut rest = text.iter();
    while let Some(octet) = rest.next() {
        let item = items.last_mut()?;
        match octet {
            b',' => items.push(Vec::new()),
            b'\\' => item.push(*rest.next().filter(|next| matches!(next, b',' | b'\\'))?),
            _ => item.push(*octet),
        }
    }
    Some(items)
}

/// Writes the data as text; none where it is malformed.
pub(super) fn write(rdata: &[u8], out: &mut impl fmt::Write) -> Option<()> {
    let svcb = Svcb::decode(rdata).ok()?;
    write!(out, "{} {}", svcb.priority(), svcb.target()).ok()?;
    svcb.params().iter().try_for_each(|param| write_param(param, out)).ok()
}

fn write_param(Param { key, value }: &Param, out: &mut impl fmt::Write) -> fmt::Result {
    write!(out, " {key}")?;
    if value.is_empty() {
        return Ok(());
    }
    out.write_char('=')?;
    match *key {
        Key::MANDATORY => write_list(keys(value), out),
        Key::ALPN => quote(&joined_protocols(value), out),
        Key::PORT => write!(out, "{}", value.iter().fold(0, |port, octet| port << 8 | u16::from(*octet))),
        Key::IPV4HINT => write_list(value.as_chunks().0.iter().map(|octets: &[u8; 4]| Ipv4Addr::from(*octets)), out),
        Key::ECH => out.write_str(&STANDARD.encode(value)),
        Key::IPV6HINT => write_list(value.as_chunks().0.iter().map(|octets: &[u8; 16]| Ipv6Addr::from(*octets)), out),
        Key(_) => quote(value, out),
    }
}

fn write_list(items: impl Iterator<Item = impl fmt::Display>, out: &mut impl fmt::Write) -> fmt::Result {
    for (item, at) in items.zip(0..) {
        write!(out, "{}{item}", if at > 0 { "," } else { "" })?;
    }
    Ok(())
}

fn joined_protocols(value: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for protocol in protocols(value).unwrap_or_default() {
        if !text.is_empty() {
            text.push(b',');
        }
        for &octet in protocol {
            if matches!(octet, b',' | b'\\') {
                text.push(b'\\');
            }
            text.push(octet);
        }
    }
    text
}
