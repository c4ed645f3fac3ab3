//! How long a reply of another server may be given again, and the same reply a while later.
//!
//! Owns what RFC 2308 and RFC 2181 say of times: a reply holds as long as the least TTL in it, and one that says that
//! there is nothing as long as its SOA record has it. Whether it is kept, and under what question, is the caller's.

use super::cursor::{HEADER_OCTETS, Reader, WireError};
use super::{Message, Opcode, Rcode, Type};

/// The longest that something is taken to hold, in seconds: a day.
const MOST: u32 = 86_400;
/// RFC 2308 §5: the longest for what says that there is nothing, in seconds: three hours.
const MOST_NEGATIVE: u32 = 10_800;

/// A reply that may be given again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reply {
    octets: Box<[u8]>,
    /// Where the TTLs stand.
    ttls: Box<[u16]>,
    seconds: u32,
}

impl Reply {
    /// The reply with these octets; none when it is not to be kept: a failure, one that was cut short, one that holds no
    /// time at all, or one that denies something without an SOA record to say for how long (RFC 2308 §5).
    #[must_use]
    pub fn read(octets: &[u8]) -> Option<Self> {
        let lifetime = lifetime(&Message::parse(octets).ok()?)?;
        let mut reply = Self { octets: octets.into(), ttls: ttls(octets).ok()?, seconds: lifetime.seconds() };
        if let Lifetime::Denied(seconds) = lifetime {
            // RFC 2308 §5: the SOA record says how long it is true, and that grows less like any other TTL.
            reply.each_ttl(|told| told.min(seconds));
        }
        Some(reply)
    }

    /// How long it holds, in seconds, at least one.
    #[must_use]
    pub fn seconds(&self) -> u32 {
        self.seconds
    }

    /// Octets that it takes.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.octets.len()
    }

    /// The reply so many seconds later, with the TTLs that are left, for the same question under another id and in another
    /// spelling: `query` begins with both. Past its time each TTL is `stale`, in seconds (RFC 8767 §4).
    #[must_use]
    pub fn given(&self, query: &[u8], after: u32, stale: u32) -> Vec<u8> {
        let mut given = self.clone();
        given.each_ttl(|told| if after < self.seconds { told - after.min(told) } else { told.min(stale) });
        respell(&mut given.octets, query);
        given.octets.into()
    }

    fn each_ttl(&mut self, left: impl Fn(u32) -> u32) {
        for place in &*self.ttls {
            if let Some(ttl) = self.octets.get_mut(usize::from(*place)..).and_then(<[u8]>::first_chunk_mut) {
                *ttl = left(u32::from_be_bytes(*ttl)).to_be_bytes();
            }
        }
    }
}

/// How long a reply holds, in seconds, at least one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Lifetime {
    Told(u32),
    /// The reply says that there is nothing.
    Denied(u32),
}

impl Lifetime {
    fn seconds(self) -> u32 {
        let (Self::Told(seconds) | Self::Denied(seconds)) = self;
        seconds
    }
}

/// Gives a reply the id and the spelling of the question `query`, which is the same question but for those.
pub fn respell(reply: &mut [u8], query: &[u8]) {
    if let (Some(into), Some(id)) = (reply.first_chunk_mut::<2>(), query.first_chunk::<2>()) {
        *into = *id;
    }
    let asked = query.get(HEADER_OCTETS..).and_then(|octets| Reader::new(octets).uncompressed_name().ok());
    let has_question = reply.get(4..6) == Some(&[0, 1]);
    if let Some(name) = asked.filter(|_| has_question)
        && let Some(into) = reply.get_mut(HEADER_OCTETS..HEADER_OCTETS + name.wire().len())
        && into.eq_ignore_ascii_case(name.wire())
    {
        into.copy_from_slice(name.wire());
    }
}

/// How long the reply holds, in seconds; none when it is not to be kept.
fn lifetime(message: &Message) -> Option<Lifetime> {
    let header = &message.header;
    let [question] = &message.questions[..] else { return None };
    let is_said = matches!(header.rcode, Rcode::NOERROR | Rcode::NXDOMAIN);
    if !header.response || header.truncated || header.opcode != Opcode::QUERY || !is_said || question.rtype.is_meta() {
        return None;
    }
    let records = message.answers.iter().chain(&message.authorities).chain(&message.additionals);
    // RFC 2181 §8: what has the topmost bit is nothing.
    let ttl = |ttl: u32| if ttl > u32::MAX >> 1 { 0 } else { ttl };
    let least = records.map(|record| ttl(record.ttl)).min().unwrap_or(0).min(MOST);
    let has_answer = message.answers.iter().any(|record| record.rtype == question.rtype);
    let lifetime = if has_answer && header.rcode == Rcode::NOERROR {
        Lifetime::Told(least)
    } else {
        let soa = message.authorities.iter().find(|record| record.rtype == Type::SOA)?;
        let minimum = soa.rdata.last_chunk().copied().map(u32::from_be_bytes)?;
        Lifetime::Denied(least.min(ttl(minimum)).min(MOST_NEGATIVE))
    };
    (lifetime.seconds() > 0).then_some(lifetime)
}

/// Where the TTLs of a whole message stand, the OPT record's flags left out.
fn ttls(octets: &[u8]) -> Result<Box<[u16]>, WireError> {
    let mut reader = Reader::new(octets);
    reader.take(4)?;
    let questions = reader.u16()?;
    let records = [reader.u16()?, reader.u16()?, reader.u16()?].map(usize::from).iter().sum();
    for _ in 0..questions {
        reader.name()?;
        reader.take(4)?;
    }
    let mut places = Vec::new();
    for _ in 0..records {
        reader.name()?;
        let rtype = Type(reader.u16()?);
        reader.take(2)?;
        if rtype != Type::OPT {
            places.extend(u16::try_from(reader.at()));
        }
        reader.take(4)?;
        let length = reader.u16()?;
        reader.take(usize::from(length))?;
    }
    Ok(places.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::dns::{Edns, Record};

    fn name(text: &str) -> crate::model::Name {
        text.parse().unwrap()
    }

    fn asked() -> Message {
        Message::query(1, name("www.example."), Type::A)
    }

    fn record(rtype: Type, ttl: u32, rdata: &[u8]) -> Record {
        Record::new(name("www.example."), rtype, ttl, rdata)
    }

    fn soa(ttl: u32, minimum: u32) -> Record {
        let rdata = [&[0, 0][..], &[0; 16], &minimum.to_be_bytes()].concat();
        record(Type::SOA, ttl, &rdata)
    }

    fn positive(ttls: &[u32]) -> Message {
        let mut reply = asked().response(Rcode::NOERROR);
        reply.answers = ttls.iter().map(|ttl| record(Type::A, *ttl, &[192, 0, 2, 1])).collect();
        reply.edns = Some(Edns { dnssec_ok: true, ..Edns::default() });
        reply
    }

    fn negative(rcode: Rcode, authorities: Vec<Record>) -> Message {
        Message { authorities, ..asked().response(rcode) }
    }

    fn seconds(message: &Message) -> Option<u32> {
        Reply::read(&message.encode(4096)).map(|reply| reply.seconds())
    }

    #[test]
    fn an_answer_holds_as_long_as_its_least_ttl_and_no_longer_than_a_day() {
        assert_eq!(seconds(&positive(&[60, 5, 300])), Some(5));
        assert_eq!(seconds(&positive(&[1_000_000])), Some(86_400));
        assert_eq!(seconds(&positive(&[60, 0])), None);
        assert_eq!(seconds(&positive(&[60, 1 << 31])), None);
    }

    #[test]
    fn what_is_denied_is_denied_as_long_as_the_soa_says_and_without_one_never() {
        for rcode in [Rcode::NXDOMAIN, Rcode::NOERROR] {
            assert_eq!(seconds(&negative(rcode, vec![soa(60, 30)])), Some(30), "{rcode}");
            assert_eq!(seconds(&negative(rcode, vec![soa(20, 30)])), Some(20), "{rcode}");
            assert_eq!(seconds(&negative(rcode, vec![soa(1_000_000, 1_000_000)])), Some(10_800), "{rcode}");
            assert_eq!(seconds(&negative(rcode, vec![])), None, "{rcode}");
            assert_eq!(seconds(&negative(rcode, vec![record(Type::NS, 60, &[0])])), None, "{rcode}");
        }
        // An alias that leads to nothing is no answer.
        let mut alias = negative(Rcode::NOERROR, vec![soa(60, 30)]);
        alias.answers.push(record(Type::CNAME, 300, name("x.example.").wire()));
        assert_eq!(seconds(&alias), Some(30));
        alias.authorities.clear();
        assert_eq!(seconds(&alias), None);
    }

    #[test]
    fn failures_pieces_and_questions_are_not_kept() {
        let truncated = |mut reply: Message| {
            reply.header.truncated = true;
            reply
        };
        let failed = |mut reply: Message, rcode| {
            reply.header.rcode = rcode;
            reply
        };
        let any =
            Message { questions: Message::query(1, name("www.example."), Type::ANY).questions, ..positive(&[60]) };
        let replies = [
            truncated(positive(&[60])),
            failed(positive(&[60]), Rcode::SERVFAIL),
            failed(positive(&[60]), Rcode::REFUSED),
            any,
        ];
        assert!(replies.iter().all(|reply| seconds(reply).is_none()));
        assert_eq!(Reply::read(&asked().encode(512)), None);
        assert_eq!(Reply::read(b"no message"), None);
    }

    #[test]
    fn later_less_is_left_and_past_its_time_a_little() {
        let reply = Reply::read(&positive(&[60, 5, 300]).encode(512)).unwrap();
        let mut query = asked();
        (query.header.id, query.questions[0].name) = (4711, name("wWw.Example."));
        let query = query.encode(512);
        let given = |after| Message::parse(&reply.given(&query, after, 30)).unwrap();
        let ttls = |after| given(after).answers.iter().map(|record| record.ttl).collect::<Vec<_>>();
        assert_eq!((ttls(0), ttls(4)), (vec![60, 5, 300], vec![56, 1, 296]));
        assert_eq!(ttls(5), [30, 5, 30]);
        let given = given(1);
        assert_eq!((given.header.id, given.questions[0].name.to_string()), (4711, "wWw.Example.".to_owned()));
        assert_eq!(given.edns, positive(&[]).edns, "the flags of OPT stand where others have a TTL");
    }

    #[test]
    fn what_is_denied_says_how_long_it_is_still_denied() {
        let reply = Reply::read(&negative(Rcode::NXDOMAIN, vec![soa(3600, 30)]).encode(512)).unwrap();
        let soa_ttl = |after| Message::parse(&reply.given(&asked().encode(512), after, 30)).unwrap().authorities[0].ttl;
        assert_eq!((soa_ttl(0), soa_ttl(29)), (30, 1));
    }

    #[test]
    fn a_reply_to_another_question_keeps_its_spelling() {
        let mut reply = positive(&[60]).encode(512);
        let query = Message::query(7, name("WWW.EXAMPLE.ORG."), Type::A).encode(512);
        respell(&mut reply, &query);
        assert_eq!(Message::parse(&reply).unwrap().questions[0].name.to_string(), "www.example.");
        respell(&mut [], &query);
    }
}
