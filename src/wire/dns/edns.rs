//! EDNS: what an OPT record says (RFC 6891).
//!
//! The record itself never stands among a message's records; its upper response code bits are merged into the header's.

use crate::model::Name;

use super::cursor::{Reader, WireError};
use super::{Class, Record, Type};

/// The flag bit of RFC 3225.
const DNSSEC_OK: u16 = 0x8000;

/// The contents of an OPT record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Edns {
    /// The largest UDP payload its sender can take, in octets; below 512 counts as 512 (RFC 6891 §6.2.3).
    pub udp_size: u16,
    /// The version; 0 is the only one there is.
    pub version: u8,
    /// DO: DNSSEC records are welcome (RFC 3225).
    pub dnssec_ok: bool,
    /// The options, in order; only those of version 0 are read, the only one whose form is known.
    pub options: Vec<EdnsOption>,
}

/// One option, its data as it stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EdnsOption {
    /// What it is, by the registry of RFC 6891 §9.
    pub code: u16,
    /// At most 65,535 octets.
    pub data: Box<[u8]>,
}

impl Default for Edns {
    /// Version 0, no options, and the size that crosses any IPv6 path unfragmented (1,232 octets).
    fn default() -> Self {
        Self { udp_size: 1232, version: 0, dnssec_ok: false, options: Vec::new() }
    }
}

impl Edns {
    /// Reads an OPT record that ends at offset `at`; also gives the upper eight bits of the response code.
    pub(super) fn from_record(record: &Record, at: usize) -> Result<(Self, u8), WireError> {
        if !record.name.is_root() {
            return Err(WireError::Opt { at });
        }
        let [rcode_high, version, flags_high, flags_low] = record.ttl.to_be_bytes();
        let options = if version == 0 { read_options(&record.rdata, at)? } else { Vec::new() };
        let dnssec_ok = u16::from_be_bytes([flags_high, flags_low]) & DNSSEC_OK != 0;
        Ok((Self { udp_size: record.class.0, version, dnssec_ok, options }, rcode_high))
    }

    /// The OPT record with the upper eight bits of the response code.
    pub(super) fn to_record(&self, rcode_high: u8) -> Record {
        let [flags_high, flags_low] = if self.dnssec_ok { DNSSEC_OK } else { 0 }.to_be_bytes();
        let mut rdata = Vec::new();
        for option in &self.options {
            let length = u16::try_from(option.data.len()).unwrap_or(u16::MAX);
            rdata.extend_from_slice(&option.code.to_be_bytes());
            rdata.extend_from_slice(&length.to_be_bytes());
            rdata.extend_from_slice(&option.data[..usize::from(length)]);
        }
        Record {
            name: Name::root(),
            rtype: Type::OPT,
            class: Class(self.udp_size),
            ttl: u32::from_be_bytes([rcode_high, self.version, flags_high, flags_low]),
            rdata: rdata.into(),
        }
    }
}

fn read_options(rdata: &[u8], at: usize) -> Result<Vec<EdnsOption>, WireError> {
    let mut reader = Reader::new(rdata);
    let mut options = Vec::new();
    while !reader.is_empty() {
        let mut option = || -> Result<EdnsOption, WireError> {
            let code = reader.u16()?;
            let length = reader.u16()?;
            Ok(EdnsOption { code, data: reader.take(usize::from(length))?.into() })
        };
        options.push(option().map_err(|_| WireError::OptOption { at })?);
    }
    Ok(options)
}
