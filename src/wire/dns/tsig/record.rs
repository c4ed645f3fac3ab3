//! The record that carries a signature: read, written, and put onto messages or taken off.

use super::TsigError;
use crate::model::{Name, UnixSeconds};
use crate::wire::dns::cursor::{HEADER_OCTETS, Reader};
use crate::wire::dns::{Class, Rcode, Type};

/// What a TSIG record says (RFC 8945 §4.2).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Tsig {
    pub(super) key: Name,
    pub(super) algorithm: Name,
    /// Seconds since 1970, 48 bits.
    pub(super) time: u64,
    pub(super) fudge: u16,
    pub(super) mac: Vec<u8>,
    pub(super) original_id: u16,
    pub(super) code: Rcode,
    pub(super) other: Vec<u8>,
}

impl Tsig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, TsigError> {
        let key = reader.name()?;
        let (_, class, ttl, length) = (reader.u16()?, reader.u16()?, reader.u32()?, reader.u16()?);
        let mut data = reader.window(usize::from(length))?;
        let algorithm = data.uncompressed_name()?;
        let time = u64::from(data.u16()?) << 32 | u64::from(data.u32()?);
        let fudge = data.u16()?;
        let mac_octets = usize::from(data.u16()?);
        let mac = data.take(mac_octets)?.to_vec();
        let (original_id, code) = (data.u16()?, Rcode(data.u16()?));
        let other_octets = usize::from(data.u16()?);
        let other = data.take(other_octets)?.to_vec();
        if class != Class::ANY.0 || ttl != 0 || !data.is_empty() {
            return Err(TsigError::Form);
        }
        Ok(Self { key, algorithm, time, fudge, mac, original_id, code, other })
    }

    /// Adds the record to a message that has none.
    pub(super) fn append(&self, message: &mut Vec<u8>) {
        let (time, mac_octets, other_octets) =
            (self.time.to_be_bytes(), self.mac.len() as u16, self.other.len() as u16);
        let rdata = [
            self.algorithm.wire(),
            &time[2..],
            &self.fudge.to_be_bytes(),
            &mac_octets.to_be_bytes(),
            &self.mac,
            &self.original_id.to_be_bytes(),
            &self.code.0.to_be_bytes(),
            &other_octets.to_be_bytes(),
            &self.other,
        ]
        .concat();
        message.extend_from_slice(self.key.wire());
        message.extend_from_slice(&Type::TSIG.0.to_be_bytes());
        message.extend_from_slice(&Class::ANY.0.to_be_bytes());
        message.extend_from_slice(&[0; 4]);
        message.extend_from_slice(&(rdata.len() as u16).to_be_bytes());
        message.extend_from_slice(&rdata);
        count_additional(message, u16::wrapping_add);
    }

    /// What is signed besides the message: all of it for a lone message, the times alone for a later one of several
    /// (RFC 8945 §4.3.3, §5.3.1).
    pub(super) fn variables(&self, later: bool) -> Vec<u8> {
        let time = self.time.to_be_bytes();
        let timers = [&time[2..], &self.fudge.to_be_bytes()].concat();
        if later {
            return timers;
        }
        let (key, algorithm) = (self.key.to_lowercase(), self.algorithm.to_lowercase());
        let mut variables = key.wire().to_vec();
        variables.extend_from_slice(&Class::ANY.0.to_be_bytes());
        variables.extend_from_slice(&[0; 4]);
        variables.extend_from_slice(algorithm.wire());
        variables.extend_from_slice(&timers);
        variables.extend_from_slice(&self.code.0.to_be_bytes());
        variables.extend_from_slice(&(self.other.len() as u16).to_be_bytes());
        variables.extend_from_slice(&self.other);
        variables
    }

    pub(super) fn check_time(&self, now: UnixSeconds) -> Result<(), TsigError> {
        let off = now.0.abs_diff(self.time);
        if off > u64::from(self.fudge) { Err(TsigError::Time { off, fudge: self.fudge }) } else { Ok(()) }
    }
}

/// Changes ARCOUNT by one.
fn count_additional(message: &mut [u8], change: fn(u16, u16) -> u16) {
    if let Some(count) = message.get_mut(10..HEADER_OCTETS) {
        let changed = change(u16::from_be_bytes([count[0], count[1]]), 1);
        count.copy_from_slice(&changed.to_be_bytes());
    }
}

/// A message taken apart: without its signature, as it was when it was signed; and the signature.
pub(super) fn split(message: &[u8]) -> Result<(Vec<u8>, Option<Tsig>), TsigError> {
    let mut reader = Reader::new(message);
    reader.take(4)?;
    let (questions, answers) = (reader.u16()?, reader.u16()?);
    let (authorities, additionals) = (reader.u16()?, reader.u16()?);
    for _ in 0..questions {
        reader.name()?;
        reader.take(4)?;
    }
    let before = u32::from(answers) + u32::from(authorities);
    let total = before + u32::from(additionals);
    for index in 0..total {
        let start = reader.clone();
        reader.name()?;
        let rtype = Type(reader.u16()?);
        reader.take(6)?;
        let length = usize::from(reader.u16()?);
        reader.take(length)?;
        if rtype != Type::TSIG {
            continue;
        }
        // RFC 8945 §5.2: the last record of the additional section, and the only one of its kind.
        if index + 1 < total || index < before || !reader.is_empty() {
            return Err(TsigError::Form);
        }
        let at = start.at();
        let tsig = Tsig::read(&mut start.clone())?;
        let mut unsigned = message[..at].to_vec();
        unsigned[..2].copy_from_slice(&tsig.original_id.to_be_bytes());
        count_additional(&mut unsigned, u16::wrapping_sub);
        return Ok((unsigned, Some(tsig)));
    }
    Ok((message.to_vec(), None))
}
