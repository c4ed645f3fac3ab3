//! Whole messages: header, questions, three sections of records, EDNS (RFC 1035 §4.1).
//!
//! The same shape carries questions, answers, zone transfers, NOTIFY and updates (RFC 2136 names the sections
//! otherwise). A TSIG or SIG(0) is an ordinary record at the end of the additional section.

use crate::model::Name;

use super::cursor::{Reader, WireError};
use super::{Class, Edns, Opcode, Rcode, Type, rdata};

/// What stands in a message before its sections, without the counts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Header {
    /// Chosen by who asks, repeated by who answers.
    pub id: u16,
    /// QR: this is an answer.
    pub response: bool,
    /// What is asked for.
    pub opcode: Opcode,
    /// AA: the answer comes from who owns the zone.
    pub authoritative: bool,
    /// TC: something that belongs here did not fit.
    pub truncated: bool,
    /// RD: please ask on.
    pub recursion_desired: bool,
    /// RA: this server asks on for its clients.
    pub recursion_available: bool,
    /// AD (RFC 4035 §3.2.3).
    pub authentic_data: bool,
    /// CD (RFC 4035 §3.2.2).
    pub checking_disabled: bool,
    /// How it ended. [`Header::parse`] reads the lower four bits, [`Message::parse`] those in OPT as well.
    pub rcode: Rcode,
}

const QR: u16 = 1 << 15;
const AA: u16 = 1 << 10;
const TC: u16 = 1 << 9;
const RD: u16 = 1 << 8;
const RA: u16 = 1 << 7;
const AD: u16 = 1 << 5;
const CD: u16 = 1 << 4;

impl Header {
    /// Reads the id and the flags of a message whatever follows them: enough to refuse one that cannot be read.
    ///
    /// The reserved bit is ignored (RFC 8906 §3.1.4).
    ///
    /// # Errors
    /// [`WireError::Short`] below 4 octets.
    pub fn parse(octets: &[u8]) -> Result<Self, WireError> {
        Self::read(&mut Reader::new(octets))
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let id = reader.u16()?;
        let flags = reader.u16()?;
        Ok(Self {
            id,
            response: flags & QR != 0,
            opcode: Opcode::from_bits((flags >> 11) as u8),
            authoritative: flags & AA != 0,
            truncated: flags & TC != 0,
            recursion_desired: flags & RD != 0,
            recursion_available: flags & RA != 0,
            authentic_data: flags & AD != 0,
            checking_disabled: flags & CD != 0,
            rcode: Rcode(flags & 0x0f),
        })
    }

    /// The flags with the lower four bits of the response code.
    pub(super) fn flags(&self) -> u16 {
        let bit = |set: bool, bit: u16| if set { bit } else { 0 };
        bit(self.response, QR)
            | u16::from(self.opcode.bits()) << 11
            | bit(self.authoritative, AA)
            | bit(self.truncated, TC)
            | bit(self.recursion_desired, RD)
            | bit(self.recursion_available, RA)
            | bit(self.authentic_data, AD)
            | bit(self.checking_disabled, CD)
            | self.rcode.0 & 0x0f
    }
}

/// A question; in an update, the zone (RFC 2136 §2.3).
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Question {
    /// The name asked about.
    pub name: Name,
    /// The type asked for.
    pub rtype: Type,
    /// The class asked in.
    pub class: Class,
}

impl Question {
    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self { name: reader.name()?, rtype: Type(reader.u16()?), class: Class(reader.u16()?) })
    }
}

/// A resource record; in an update, a prerequisite or a change (RFC 2136 §2.4, §2.5).
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Record {
    /// The owner.
    pub name: Name,
    /// Its type.
    pub rtype: Type,
    /// Its class.
    pub class: Class,
    /// Seconds, as they stand: with the top bit set they mean 0 (RFC 2181 §8), which is for who caches to heed.
    pub ttl: u32,
    /// The data in uncompressed wire form, at most 65,535 octets.
    pub rdata: Box<[u8]>,
}

impl Record {
    /// A record of class IN.
    #[must_use]
    pub fn new(name: Name, rtype: Type, ttl: u32, rdata: impl Into<Box<[u8]>>) -> Self {
        Self { name, rtype, class: Class::IN, ttl, rdata: rdata.into() }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let name = reader.name()?;
        let rtype = Type(reader.u16()?);
        let class = Class(reader.u16()?);
        let ttl = reader.u32()?;
        let length = reader.u16()?;
        let rdata = rdata::decompress(rtype, reader.window(usize::from(length))?)?;
        Ok(Self { name, rtype, class, ttl, rdata })
    }

    /// Whether both belong to one RRset (RFC 2181 §5).
    #[must_use]
    pub fn same_rrset(&self, other: &Self) -> bool {
        self.rtype == other.rtype && self.class == other.class && self.name == other.name
    }
}

/// A message.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Message {
    /// Id, flags, codes.
    pub header: Header,
    /// Questions; in an update, the zone.
    pub questions: Vec<Question>,
    /// Answers; in an update, the prerequisites.
    pub answers: Vec<Record>,
    /// Authority; in an update, the changes.
    pub authorities: Vec<Record>,
    /// Additional records, without OPT.
    pub additionals: Vec<Record>,
    /// What OPT says, where there is one.
    pub edns: Option<Edns>,
}

impl Message {
    /// A plain question of class IN with EDNS, recursion not desired.
    #[must_use]
    pub fn query(id: u16, name: Name, rtype: Type) -> Self {
        Self {
            header: Header { id, ..Header::default() },
            questions: vec![Question { name, rtype, class: Class::IN }],
            edns: Some(Edns::default()),
            ..Self::default()
        }
    }

    /// The beginning of an answer to this message: its id, opcode, questions, RD and CD; EDNS exactly when it has some
    /// (RFC 6891 §6.1.1).
    #[must_use]
    pub fn response(&self, rcode: Rcode) -> Self {
        let header = Header {
            id: self.header.id,
            response: true,
            opcode: self.header.opcode,
            recursion_desired: self.header.recursion_desired,
            checking_disabled: self.header.checking_disabled,
            rcode,
            ..Header::default()
        };
        let edns = self.edns.as_ref().map(|edns| Edns { dnssec_ok: edns.dnssec_ok, ..Edns::default() });
        Self { header, questions: self.questions.clone(), edns, ..Self::default() }
    }

    /// Reads exactly one message. Names inside the data of well-known types are decompressed (RFC 3597 §4); other data
    /// is taken as it stands, and judged by who uses it ([`rdata::is_well_formed`]).
    ///
    /// # Errors
    /// The first fault, with its offset.
    pub fn parse(octets: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(octets);
        let header = Header::read(&mut reader)?;
        let counts = [reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?];
        let mut message = Self { header, ..Self::default() };
        for _ in 0..counts[0] {
            message.questions.push(Question::read(&mut reader)?);
        }
        for (count, section) in counts[1..].iter().zip([&mut message.answers, &mut message.authorities]) {
            for _ in 0..*count {
                section.push(Record::read(&mut reader)?);
            }
        }
        for _ in 0..counts[3] {
            let record = Record::read(&mut reader)?;
            message.add_additional(record, reader.at())?;
        }
        if message.answers.iter().chain(&message.authorities).any(|record| record.rtype == Type::OPT) {
            return Err(WireError::Opt { at: reader.at() });
        }
        if reader.is_empty() { Ok(message) } else { Err(WireError::Trailing { at: reader.at() }) }
    }

    /// Puts a record that ended at offset `at` where it belongs.
    fn add_additional(&mut self, record: Record, at: usize) -> Result<(), WireError> {
        if record.rtype != Type::OPT {
            self.additionals.push(record);
            return Ok(());
        }
        if self.edns.is_some() {
            return Err(WireError::Opt { at });
        }
        let (edns, rcode_high) = Edns::from_record(&record, at)?;
        self.header.rcode.0 |= u16::from(rcode_high) << 4;
        self.edns = Some(edns);
        Ok(())
    }
}
