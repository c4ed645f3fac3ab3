//! What one answer of one name server says about a question, and what of it may be believed.
//!
//! Pure. Owns the defence against poisoned answers: a server is believed only about names at or below the zone it was
//! asked as a server of (its bailiwick, RFC 2181 §5.4.1, RFC 5452 §6), only about the question asked, and only where it
//! claims authority; a referral must lead strictly downwards and towards the name; glue counts only inside the zone
//! that refers. Whatever else a message holds is not looked at.

use std::net::IpAddr;
use std::time::Duration;

use crate::model::Name;
use crate::wire::dns::{Class, Message, Rcode, Record, Type};

/// No answer is kept for longer, whatever its TTL says (RFC 8767 §4 advises days at most).
const LONGEST_TTL: Duration = Duration::from_secs(86_400);
/// No negative answer is kept for longer (RFC 2308 §5 advises one to three hours).
const LONGEST_NEGATIVE_TTL: Duration = Duration::from_secs(3 * 3600);
/// A referral names no more servers than this; further ones are not read.
const MOST_NAME_SERVERS: usize = 16;

/// What an answer says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// The records asked for.
    Records { records: Vec<Record>, ttl: Duration },
    /// The name is an alias.
    Alias { record: Record, target: Name, ttl: Duration },
    /// The name exists, without such records. No SOA: not to be kept (RFC 2308 §5).
    NoData { soa: Option<Record>, ttl: Duration },
    /// The name does not exist, nor anything below it.
    NoName { soa: Option<Record>, ttl: Duration },
    /// Others know.
    Referral(Delegation),
}

/// A zone and who serves it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Delegation {
    pub(super) zone: Name,
    pub(super) servers: Vec<NameServer>,
    pub(super) ttl: Duration,
    /// Addresses that came with the referral and were not believed.
    pub(super) glue_refused: u64,
}

/// A name server as a referral gives it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct NameServer {
    pub(super) name: Name,
    /// Believed addresses; none where its name has to be looked up.
    pub(super) glue: Vec<IpAddr>,
}

/// Why an answer cannot be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Unusable {
    #[error("it says {0}")]
    Rcode(Rcode),
    #[error("it is not authoritative and refers nowhere below")]
    Lame,
    #[error("it is no message, or contradicts itself")]
    Broken,
}

/// Judges what a server of `zone` says about `name` and `rtype`.
///
/// # Errors
/// Why another server should be asked instead.
pub(super) fn judge(message: &Message, zone: &Name, name: &Name, rtype: Type) -> Result<Verdict, Unusable> {
    let rcode = message.header.rcode;
    if rcode != Rcode::NOERROR && rcode != Rcode::NXDOMAIN {
        return Err(Unusable::Rcode(rcode));
    }
    let own = |wanted: fn(Type, Type) -> bool| {
        let fits = move |record: &&Record| record.class == Class::IN && record.name == *name;
        message.answers.iter().filter(fits).filter(move |record| wanted(record.rtype, rtype)).cloned()
    };
    let records: Vec<_> = own(|found, wanted| found == wanted || wanted == Type::ANY).collect();
    if !records.is_empty() {
        authoritative(message)?;
        let ttl = records.iter().map(|record| lifetime(record.ttl)).min().unwrap_or_default();
        return Ok(Verdict::Records { records, ttl });
    }
    let mut aliases = own(|found, _| found == Type::CNAME);
    if let Some(record) = aliases.next() {
        authoritative(message)?;
        let target = Name::from_wire(&record.rdata).map_err(|_| Unusable::Broken)?;
        // Two targets for one name are no alias at all (RFC 2181 §10.1).
        return match aliases.next() {
            None => Ok(Verdict::Alias { target, ttl: lifetime(record.ttl), record }),
            Some(_) => Err(Unusable::Broken),
        };
    }
    without_answer(message, zone, name)
}

fn without_answer(message: &Message, zone: &Name, name: &Name) -> Result<Verdict, Unusable> {
    let soa = message.authorities.iter().find(|record| {
        record.rtype == Type::SOA
            && record.class == Class::IN
            && record.name.is_at_or_below(zone)
            && name.is_at_or_below(&record.name)
    });
    let ttl = soa.map_or(Duration::ZERO, negative_ttl);
    let soa = soa.cloned();
    if message.header.rcode == Rcode::NXDOMAIN {
        authoritative(message)?;
        return Ok(Verdict::NoName { soa, ttl });
    }
    match delegation(message, zone, name) {
        Some(delegation) if soa.is_none() => Ok(Verdict::Referral(delegation)),
        Some(_) | None => authoritative(message).map(|()| Verdict::NoData { soa, ttl }),
    }
}

fn authoritative(message: &Message) -> Result<(), Unusable> {
    if message.header.authoritative { Ok(()) } else { Err(Unusable::Lame) }
}

/// The referral in the message: strictly below `zone`, at or above `name`.
fn delegation(message: &Message, zone: &Name, name: &Name) -> Option<Delegation> {
    let leads_down = |record: &&Record| {
        record.rtype == Type::NS
            && record.class == Class::IN
            && record.name != *zone
            && record.name.is_at_or_below(zone)
            && name.is_at_or_below(&record.name)
    };
    let first = message.authorities.iter().find(leads_down)?;
    let ns = message.authorities.iter().filter(leads_down).filter(|record| record.name == first.name);
    let mut delegation =
        Delegation { zone: first.name.clone(), servers: Vec::new(), ttl: lifetime(first.ttl), glue_refused: 0 };
    for record in ns.take(MOST_NAME_SERVERS) {
        let Ok(server) = Name::from_wire(&record.rdata) else { continue };
        delegation.ttl = delegation.ttl.min(lifetime(record.ttl));
        let addresses = message.additionals.iter().filter(|glue| glue.name == server).filter_map(address);
        let mut glue: Vec<IpAddr> = addresses.collect();
        if !server.is_at_or_below(zone) {
            delegation.glue_refused += glue.len() as u64;
            glue.clear();
        }
        delegation.servers.push(NameServer { name: server, glue });
    }
    Some(delegation)
}

/// The address in an A or AAAA record.
pub(super) fn address(record: &Record) -> Option<IpAddr> {
    if record.class != Class::IN {
        return None;
    }
    match record.rtype {
        Type::A => <[u8; 4]>::try_from(&*record.rdata).ok().map(IpAddr::from),
        Type::AAAA => <[u8; 16]>::try_from(&*record.rdata).ok().map(IpAddr::from),
        _ => None,
    }
}

/// A TTL as time; with the top bit set it is 0 (RFC 2181 §8).
fn lifetime(ttl: u32) -> Duration {
    let seconds = if ttl > i32::MAX as u32 { 0 } else { ttl };
    Duration::from_secs(seconds.into()).min(LONGEST_TTL)
}

/// The lesser of the SOA's own TTL and its MINIMUM, the last of its five numbers (RFC 2308 §5).
fn negative_ttl(soa: &Record) -> Duration {
    let minimum = soa.rdata.last_chunk::<4>().map_or(0, |octets| u32::from_be_bytes(*octets));
    lifetime(soa.ttl).min(lifetime(minimum)).min(LONGEST_NEGATIVE_TTL)
}

impl Unusable {
    /// The stable word for metrics.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Rcode(Rcode::SERVFAIL) => "servfail",
            Self::Rcode(Rcode::REFUSED) => "refused",
            Self::Rcode(_) => "other-rcode",
            Self::Lame => "lame",
            Self::Broken => "broken",
        }
    }
}

#[cfg(test)]
mod tests;
