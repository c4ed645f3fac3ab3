//! The start of a zone of authority (RFC 1035 §3.3.13).

use std::fmt;

use crate::model::Name;
use crate::wire::dns::cursor::{Reader, WireError};
use crate::wire::dns::text::{TextError, TextFault, Words};

/// What an SOA record says. Times are in seconds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Soa {
    /// The zone's main name server.
    pub mname: Name,
    /// The mailbox of who is responsible, its first label the part before the `@`.
    pub rname: Name,
    /// The zone's version, compared as RFC 1982 says.
    pub serial: u32,
    /// How often a secondary asks for news.
    pub refresh: u32,
    /// How soon it asks again after a failure.
    pub retry: u32,
    /// How long it answers without having heard.
    pub expire: u32,
    /// How long at most a negative answer is kept (RFC 2308 §4).
    pub minimum: u32,
}

impl Soa {
    /// Reads a record's uncompressed data.
    ///
    /// # Errors
    /// Anything but exactly two names and five numbers.
    pub fn decode(rdata: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(rdata);
        let soa = Self {
            mname: reader.uncompressed_name()?,
            rname: reader.uncompressed_name()?,
            serial: reader.u32()?,
            refresh: reader.u32()?,
            retry: reader.u32()?,
            expire: reader.u32()?,
            minimum: reader.u32()?,
        };
        if reader.is_empty() { Ok(soa) } else { Err(WireError::Trailing { at: reader.at() }) }
    }

    /// The record's data.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut rdata = [self.mname.wire(), self.rname.wire()].concat();
        for number in [self.serial, self.refresh, self.retry, self.expire, self.minimum] {
            rdata.extend_from_slice(&number.to_be_bytes());
        }
        rdata
    }
}

/// `mname rname serial refresh retry expire minimum`.
impl fmt::Display for Soa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mname, rname, serial, refresh, retry, expire, minimum } = self;
        write!(f, "{mname} {rname} {serial} {refresh} {retry} {expire} {minimum}")
    }
}

pub(super) fn read(words: &mut Words<'_, '_>, origin: &Name) -> Result<Vec<u8>, TextError> {
    let mname = words.name(origin, "the name of the main name server")?;
    let mailbox = words.next("the mailbox of who is responsible, written as a name")?;
    let rname = mailbox.name(origin, "a mailbox written as a name")?;
    // `@` alone is the origin; any other bare one is almost certainly a mail address.
    if mailbox.has_bare_at() {
        return Err(mailbox.error(TextFault::Mailbox { found: mailbox.excerpt() }));
    }
    let soa = Soa {
        mname,
        rname,
        serial: words.number("the serial number, 0 to 4294967295")?,
        refresh: words.time("the refresh time, such as 7200 or 2h")?,
        retry: words.time("the retry time, such as 900 or 15m")?,
        expire: words.time("the expiry time, such as 1209600 or 2w")?,
        minimum: words.time("the time that negative answers are kept, such as 60")?,
    };
    Ok(soa.encode())
}
