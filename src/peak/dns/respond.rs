//! The one answer function: a request's octets in, its reply's octets in the same place, whatever it came by.
//!
//! Owns what is refused (other classes, types that are no data, names outside the zones), what OPT and cookies say,
//! and how large a reply may be. Allocates nothing.

use std::net::IpAddr;

use super::tally::{Counted, Proto, Tally};
use crate::model::UnixSeconds;
use crate::model::zone::{End, Key, Zone, Zones};
use crate::wire::dns::answer::{Reply, ReplyEdns, refuse};
use crate::wire::dns::cookie::{COOKIE, CookieSecret};
use crate::wire::dns::query::{HEADER, LEAST_SIZE, Query, QueryEdns};
use crate::wire::dns::{Class, Rcode, Type};

/// The largest message over TCP (RFC 1035 §4.2.2).
const TCP_LIMIT: usize = 65_535;

/// Answers for one worker.
#[derive(Debug)]
pub(super) struct Responder {
    key: Scratch,
    /// Where answers begin in their sets: the state of a generator that need only be even.
    turns: u64,
    cookies: CookieSecret,
    /// The largest reply over UDP, in octets, whatever is asked for.
    udp_limit: u16,
    proto: Proto,
    pub(super) tally: Tally,
}

/// A key that is no news in a log.
struct Scratch(Box<Key>);

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

/// Who asks, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub(super) peer: IpAddr,
    pub(super) now: UnixSeconds,
}

/// How a question is answered.
enum Verdict<'z> {
    Code(Rcode),
    Zone(&'z Zone),
}

impl Responder {
    pub(super) fn new(cookies: CookieSecret, udp_limit: u16, turns: u64, proto: Proto, tally: Tally) -> Self {
        Self { key: Scratch(Box::default()), turns, cookies, udp_limit, proto, tally }
    }

    /// Answers the request that is the first `length` octets of `message`, over it; gives the reply's octets, 0 when
    /// there must be no reply.
    #[inline]
    pub(super) fn respond(&mut self, zones: &Zones, message: &mut [u8], length: usize, asker: Asker) -> usize {
        let ipv6 = matches!(asker.peer, IpAddr::V6(addr) if addr.to_ipv4_mapped().is_none());
        let query = match message.get(..length).map(Query::parse) {
            Some(Ok(query)) => query,
            Some(Err(error)) => {
                let Some(rcode) = error.rcode() else {
                    self.tally.silent();
                    return 0;
                };
                let octets = refuse(message, rcode);
                self.tally.answered(&Counted { zone: None, ipv6, qtype: 0, rcode, octets: (length, octets) });
                return octets;
            }
            None => return 0,
        };
        let edns = query.edns.map(|edns| self.edns(&edns, asker));
        let limit = self.limit(&query);
        let (zone, rcode, octets) = match self.judge(zones, message, &query) {
            Verdict::Code(rcode) => (None, rcode, Reply::new(message, &query, limit, edns).finish(rcode)),
            Verdict::Zone(zone) => {
                let answer = zone.answer(&self.key.0, query.qtype);
                let rcode = match answer.end {
                    End::NoName => Rcode::NXDOMAIN,
                    End::Data(_) | End::NoData | End::Referral { .. } | End::Elsewhere => Rcode::NOERROR,
                };
                let turn = self.turn();
                let mut reply = Reply::new(message, &query, limit, edns);
                reply.answer(&answer, turn);
                (Some(zone), rcode, reply.finish(rcode))
            }
        };
        self.tally.answered(&Counted { zone, ipv6, qtype: query.qtype, rcode, octets: (length, octets) });
        octets
    }

    #[inline]
    fn judge<'z>(&mut self, zones: &'z Zones, message: &[u8], query: &Query) -> Verdict<'z> {
        if query.edns.is_some_and(|edns| edns.version > 0) {
            return Verdict::Code(Rcode::BADVERS);
        }
        if query.name_octets == 0 {
            // A question for nothing but a cookie (RFC 7873 §5.4).
            return Verdict::Code(Rcode::NOERROR);
        }
        if query.qclass != Class::IN.0 {
            return Verdict::Code(Rcode::REFUSED);
        }
        let qtype = Type(query.qtype);
        if qtype.is_meta() && qtype != Type::ANY {
            return Verdict::Code(refusal(qtype));
        }
        let Some(name) = message.get(HEADER..HEADER + query.name_octets) else {
            return Verdict::Code(Rcode::FORMERR);
        };
        self.key.0.set(zones.seed(), name);
        match zones.find(&self.key.0, query.qtype) {
            Some(zone) => Verdict::Zone(zone),
            None => Verdict::Code(Rcode::REFUSED),
        }
    }

    /// What the reply's OPT says: there is one exactly when the question has one (RFC 6891 §6.1.1).
    fn edns(&self, asked: &QueryEdns, asker: Asker) -> ReplyEdns {
        // The options of a version nobody knows mean nothing.
        let cookie = asked.cookie.filter(|_| asked.version == 0).map(|shown| {
            let (server, _) = self.cookies.answer(&shown, asker.peer, asker.now);
            let mut cookie = [0; COOKIE];
            cookie[..8].copy_from_slice(&shown.client);
            cookie[8..].copy_from_slice(&server);
            cookie
        });
        ReplyEdns { size: self.udp_limit, dnssec_ok: asked.dnssec_ok, cookie }
    }

    #[inline]
    fn limit(&self, query: &Query) -> usize {
        match self.proto {
            Proto::Tcp => TCP_LIMIT,
            Proto::Udp => query.edns.map_or(LEAST_SIZE, |edns| edns.size.min(self.udp_limit)).into(),
        }
    }

    /// The next of a sequence of numbers that fall evenly: with a plain count, two askers in turn would each see
    /// every second answer only.
    #[inline]
    fn turn(&mut self) -> u32 {
        self.turns = self.turns.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let product = u128::from(self.turns) * u128::from(self.turns ^ 0xd6e8_feb8_6659_fd93);
        ((product >> 64) as u64 ^ product as u64) as u32
    }
}

/// What is said to a question for a type that no zone holds.
fn refusal(qtype: Type) -> Rcode {
    match qtype {
        // Transfers are for those who may have them.
        Type::AXFR | Type::IXFR => Rcode::REFUSED,
        // They belong to a message, not to a question.
        Type::OPT => Rcode::FORMERR,
        _ => Rcode::NOTIMP,
    }
}
