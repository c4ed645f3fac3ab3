//! Reading a question on the server's fast path: in place, without copying or allocating.
//!
//! Owns which requests are answered at all, and which refusals a request has earned by its form alone (RFC 1035
//! §4.1, RFC 6891 §6, RFC 7873 §5.2, RFC 8906). What the answer is, others decide. Every octet of the request is
//! accounted for: whatever is read as a [`Query`] has exactly the sections that its header announces.

use std::fmt;

use super::{Opcode, Rcode, Type};

/// Octets of a header (RFC 1035 §4.1.1).
pub const HEADER: usize = 12;

/// The least size that everybody takes over UDP (RFC 1035 §4.2.1, RFC 6891 §6.2.3).
pub const LEAST_SIZE: u16 = 512;

/// The EDNS option that carries a cookie (RFC 7873 §4).
pub const COOKIE_OPTION: u16 = 10;

const OPT: u16 = Type::OPT.0;
const TSIG: u16 = Type::TSIG.0;
const IXFR: u16 = Type::IXFR.0;

/// A question, read where it lies: its name begins behind the header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Query {
    /// Octets of the name in the question; 0 when there is no question, only a cookie (RFC 7873 §5.4).
    pub name_octets: usize,
    /// The type asked for.
    pub qtype: u16,
    /// The class asked in.
    pub qclass: u16,
    /// What the OPT record says, if there is one.
    pub edns: Option<QueryEdns>,
}

/// What the OPT record of a question says (RFC 6891 §6.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct QueryEdns {
    /// The largest UDP payload the asker takes, at least [`LEAST_SIZE`] whatever was said (RFC 6891 §6.2.3).
    pub size: u16,
    /// The version asked for; only 0 exists.
    pub version: u8,
    /// DO: signatures are welcome. Answered in kind, though there are none.
    pub dnssec_ok: bool,
    /// The cookie option.
    pub cookie: Option<QueryCookie>,
}

/// A cookie as a question carries it (RFC 7873 §4).
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct QueryCookie {
    /// The asker's own.
    pub client: [u8; 8],
    /// What this server gave it before; other lengths than ours are none of ours.
    pub server: Option<[u8; 16]>,
}

impl fmt::Debug for QueryCookie {
    /// Cookies are secrets between two parties.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryCookie").field("server", &self.server.is_some()).finish_non_exhaustive()
    }
}

/// Why a request is not answered as a question.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum QueryError {
    /// Answering it could begin a loop, or there is no header to answer to: silence.
    #[error("the message is a reply, or shorter than a header")]
    NotARequest,
    /// RFC 8906 §3.1.4.
    #[error("the operation is not provided")]
    Opcode(Opcode),
    /// It ends in a signature (RFC 8945), which is to be looked at first.
    #[error("the message is signed")]
    Signed,
    /// Not what the header announces, or not what RFC 1035, 6891 or 7873 allows.
    #[error("the message is malformed")]
    Malformed,
}

impl QueryError {
    /// The code of the refusal; none when there must be no reply.
    #[must_use]
    pub const fn rcode(self) -> Option<Rcode> {
        match self {
            Self::NotARequest => None,
            Self::Opcode(_) => Some(Rcode::NOTIMP),
            Self::Signed => Some(Rcode::NOTAUTH),
            Self::Malformed => Some(Rcode::FORMERR),
        }
    }
}

impl Query {
    /// Where the question ends and the answer begins.
    #[must_use]
    #[inline]
    pub const fn end(&self) -> usize {
        if self.name_octets == 0 { HEADER } else { HEADER + self.name_octets + 4 }
    }

    /// Reads a request of operation QUERY.
    ///
    /// # Errors
    /// The refusal it has earned.
    pub fn parse(message: &[u8]) -> Result<Self, QueryError> {
        Self::parse_with(message, name_octets)
    }

    /// The same; the question's name is read by `read_name`, which gives how many of these octets are an uncompressed name's,
    /// or none when they begin with no such name.
    ///
    /// # Errors
    /// The refusal it has earned.
    #[inline]
    pub fn parse_with(message: &[u8], read_name: impl FnOnce(&[u8]) -> Option<usize>) -> Result<Self, QueryError> {
        let Some((header, _)) = message.split_first_chunk::<HEADER>() else { return Err(QueryError::NotARequest) };
        if header[2] & 0x80 != 0 {
            return Err(QueryError::NotARequest);
        }
        let opcode = Opcode::from_bits(header[2] >> 3);
        if opcode != Opcode::QUERY {
            return Err(QueryError::Opcode(opcode));
        }
        let counts = header.last_chunk().map_or(0, |counts| u64::from_be_bytes(*counts));
        let [questions, answers, authorities, additionals] = [48, 32, 16, 0].map(|shift| (counts >> shift) as u16);
        let mut query = match questions {
            0 => Self { name_octets: 0, qtype: 0, qclass: 0, edns: None },
            1 => {
                let (name_octets, qtype, qclass) = question(message, read_name).ok_or(QueryError::Malformed)?;
                Self { name_octets, qtype, qclass, edns: None }
            }
            _ => return Err(QueryError::Malformed),
        };
        // A question and nothing else.
        if counts == 1 << 48 {
            return if query.end() == message.len() { Ok(query) } else { Err(QueryError::Malformed) };
        }
        let mut at = query.end();
        // IXFR says in the authority section what the asker has (RFC 1995 §3).
        if answers != 0 || (authorities != 0 && query.qtype != IXFR) {
            return Err(QueryError::Malformed);
        }
        for _ in 0..authorities {
            let record = record(message, at)?;
            if record.rtype == OPT {
                return Err(QueryError::Malformed);
            }
            at = record.end;
        }
        for _ in 0..additionals {
            at = query.additional(message, at)?;
        }
        let only_a_cookie = query.edns.is_some_and(|edns| edns.cookie.is_some());
        if at != message.len() || (questions == 0 && !only_a_cookie) {
            return Err(QueryError::Malformed);
        }
        Ok(query)
    }

    /// Takes one record of the additional section; gives where the next begins. Records other than OPT are passed
    /// over.
    #[inline]
    fn additional(&mut self, message: &[u8], at: usize) -> Result<usize, QueryError> {
        let record = record(message, at)?;
        if record.rtype == TSIG {
            return Err(QueryError::Signed);
        }
        if record.rtype == OPT {
            // RFC 6891 §6.1.1: one at most, owned by the root.
            if self.edns.is_some() || record.name_octets != 1 {
                return Err(QueryError::Malformed);
            }
            let [version, flags] = [(record.ttl >> 16) as u8, (record.ttl >> 8) as u8];
            self.edns = Some(QueryEdns {
                size: record.class.max(LEAST_SIZE),
                version,
                dnssec_ok: flags & 0x80 != 0,
                // What an option looks like in another version nobody knows.
                cookie: if version == 0 { cookie(record.data)? } else { None },
            });
        }
        Ok(record.end)
    }
}

/// Octets of the name in the question, type and class.
#[inline]
fn question(message: &[u8], read_name: impl FnOnce(&[u8]) -> Option<usize>) -> Option<(usize, u16, u16)> {
    let name_octets = read_name(message.get(HEADER..)?)?;
    let [high, low, class_high, class_low] = *message.get(HEADER + name_octets..)?.first_chunk::<4>()?;
    Some((name_octets, u16::from_be_bytes([high, low]), u16::from_be_bytes([class_high, class_low])))
}

fn name_octets(octets: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let length = usize::from(*octets.get(at)?);
        // Nothing stands before the question, so there is nothing for a pointer to point at.
        if length > 63 {
            return None;
        }
        at += length + 1;
        if length == 0 {
            return (at <= 255).then_some(at);
        }
    }
}

/// A record, as far as a server looks at those of a question.
struct Record<'m> {
    name_octets: usize,
    rtype: u16,
    class: u16,
    ttl: u32,
    data: &'m [u8],
    end: usize,
}

fn record(message: &[u8], start: usize) -> Result<Record<'_>, QueryError> {
    let at = skip_name(message, start)?;
    let fixed = message.get(at..).and_then(<[u8]>::first_chunk::<10>).ok_or(QueryError::Malformed)?;
    let &[type_high, type_low, class_high, class_low, t0, t1, t2, t3, length_high, length_low] = fixed;
    let data_at = at + 10;
    let end = data_at + usize::from(u16::from_be_bytes([length_high, length_low]));
    Ok(Record {
        name_octets: at - start,
        rtype: u16::from_be_bytes([type_high, type_low]),
        class: u16::from_be_bytes([class_high, class_low]),
        ttl: u32::from_be_bytes([t0, t1, t2, t3]),
        data: message.get(data_at..end).ok_or(QueryError::Malformed)?,
        end,
    })
}

/// Where the name that begins at `at` ends. A pointer ends it: where it points does not matter here.
fn skip_name(message: &[u8], mut at: usize) -> Result<usize, QueryError> {
    let start = at;
    loop {
        let length = *message.get(at).ok_or(QueryError::Malformed)?;
        match length {
            0 => return Ok(at + 1),
            1..=63 => at += usize::from(length) + 1,
            0xC0.. => return message.get(at + 1).map(|_| at + 2).ok_or(QueryError::Malformed),
            64..=0xBF => return Err(QueryError::Malformed),
        }
        if at - start > 255 {
            return Err(QueryError::Malformed);
        }
    }
}

/// The cookie among the options; every option must be whole.
fn cookie(mut options: &[u8]) -> Result<Option<QueryCookie>, QueryError> {
    let mut cookie = None;
    while !options.is_empty() {
        let Some((&[high, low, length_high, length_low], rest)) = options.split_first_chunk::<4>() else {
            return Err(QueryError::Malformed);
        };
        let length = usize::from(u16::from_be_bytes([length_high, length_low]));
        let (data, rest) = rest.split_at_checked(length).ok_or(QueryError::Malformed)?;
        // RFC 7873 §5.2: of several cookies the first counts.
        if u16::from_be_bytes([high, low]) == COOKIE_OPTION && cookie.is_none() {
            cookie = Some(read_cookie(data)?);
        }
        options = rest;
    }
    Ok(cookie)
}

fn read_cookie(data: &[u8]) -> Result<QueryCookie, QueryError> {
    let Some((client, server)) = data.split_first_chunk::<8>() else { return Err(QueryError::Malformed) };
    // RFC 7873 §5.2.2: other lengths are malformed.
    match server.len() {
        0 | 8..=32 => Ok(QueryCookie { client: *client, server: server.try_into().ok() }),
        _ => Err(QueryError::Malformed),
    }
}
