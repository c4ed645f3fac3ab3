//! The one answer function: a request's octets in, its reply's octets in the same place, whatever it came by.
//!
//! Owns what is refused (other classes, types that are no data, names outside the zones), what OPT and cookies say,
//! and how large a reply may be. Allocates nothing.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arc_swap::{ArcSwap, Cache};

use super::gate::Gate;
use super::rate::{Kind, RateLimiter, Ruling};
use super::tally::{Counted, Proto, Tally};
use crate::model::Name;
use crate::model::UnixSeconds;
use crate::model::zone::{ABREAST, Aliases, Answer, End, Found, Key, Seed, Zones};
use crate::net::udp_batch::Batch;
use crate::wire::dns::answer::{Reply, ReplyEdns, refuse};
use crate::wire::dns::cookie::{COOKIE, CookieSecrets};
use crate::wire::dns::query::{HEADER, LEAST_SIZE, Query, QueryEdns, QueryError};
use crate::wire::dns::{Class, Opcode, Rcode, Type};

/// The largest message over TCP (RFC 1035 §4.2.2).
const TCP_LIMIT: usize = 65_535;

/// Answers for one worker.
#[derive(Debug)]
pub(super) struct Responder {
    seen: Scratch,
    /// Where answers begin in their sets: the state of a generator that need only be even.
    turns: u64,
    cookies: Cache<Arc<ArcSwap<CookieSecrets>>, Arc<CookieSecrets>>,
    /// The largest reply over UDP, in octets, whatever is asked for.
    udp_limit: u16,
    /// None over TCP, and where nothing is limited.
    rate: Option<RateLimiter>,
    log: QueryLog,
    proto: Proto,
    gate: Gate,
    /// The request at hand came back with the certainty that this node is not behind.
    pub(super) confirmed: bool,
    pub(super) tally: Tally,
}

/// What all responders of a server have in common.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) cookies: Arc<ArcSwap<CookieSecrets>>,
    /// The largest reply over UDP, in octets, whatever is asked for.
    pub(super) udp_limit: u16,
    pub(super) log: QueryLog,
    pub(super) gate: Gate,
}

/// Which questions are logged: every N-th of a worker, none while N is 0. Clones change the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueryLog(Arc<AtomicU32>);

impl QueryLog {
    /// Logs every so manieth question from now on; 0: none.
    pub(crate) fn every(&self, nth: u32) {
        self.0.store(nth, Ordering::Relaxed);
    }

    /// Whether the question that falls on this number, any of a sequence of even ones, is logged.
    #[inline]
    fn takes(&self, turn: u32) -> bool {
        match self.0.load(Ordering::Relaxed) {
            0 => false,
            nth => turn.is_multiple_of(nth),
        }
    }
}

/// A request that was read, and the key of the name it asks for.
struct Seen {
    query: Result<Query, QueryError>,
    key: Key,
}

impl Seen {
    fn new() -> Self {
        Self { query: Err(QueryError::NotARequest), key: Key::default() }
    }

    #[inline]
    fn see(&mut self, seed: Seed, request: &[u8]) {
        self.query = Query::parse_with(request, |octets| self.key.read(seed, octets));
    }
}

/// Room for the requests of one batch, which is no news in a log.
struct Scratch(Vec<Seen>);

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scratch")
    }
}

/// Who asks, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub(super) peer: IpAddr,
    pub(super) now: UnixSeconds,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// The reply stands in the place of the request, so many octets of it.
    Reply(usize),
    /// There must be no reply.
    Silence,
    /// It is no plain question: an update, a notice, a transfer, or signed. Or it is one that must not be answered
    /// before this node knows that it is not behind.
    Apart,
}

impl Responder {
    pub(super) fn new(shared: &Shared, proto: Proto, rate: Option<RateLimiter>, turns: u64, tally: Tally) -> Self {
        Self {
            seen: Scratch((0..ABREAST).map(|_| Seen::new()).collect()),
            turns,
            cookies: Cache::new(Arc::clone(&shared.cookies)),
            udp_limit: shared.udp_limit,
            rate,
            log: shared.log.clone(),
            proto,
            gate: shared.gate.clone(),
            confirmed: false,
            tally,
        }
    }

    /// Answers the first `count` requests of `batch`, each in its slot. So many at a time are looked up before the first
    /// of them is answered: what their answers are made of is at hand by then.
    /// Of those that are no plain questions `apart` is told the slot and the sender.
    pub(super) fn respond_to_all(
        &mut self,
        zones: &Zones,
        batch: &mut Batch,
        count: usize,
        now: UnixSeconds,
        mut apart: impl FnMut(&mut Batch, usize, SocketAddr),
    ) {
        let mut seen = std::mem::take(&mut self.seen.0);
        for first in (0..count).step_by(ABREAST) {
            let seen = &mut seen[..ABREAST.min(count - first)];
            for (slot, seen) in (first..).zip(seen.iter_mut()) {
                seen.see(zones.seed(), batch.request(slot));
            }
            let found = zones.look_up(seen.iter().map(|seen| &seen.key));
            for (slot, (seen, found)) in (first..).zip(seen.iter().zip(&found)) {
                let Some(peer) = batch.peer(slot).filter(|peer| may_be_asker(peer.port())) else { continue };
                let (message, length) = batch.datagram(slot);
                match self.reply(seen, found, message, length, Asker { peer: peer.ip(), now }) {
                    Outcome::Reply(octets) => batch.reply(slot, octets),
                    Outcome::Silence => {}
                    Outcome::Apart => apart(batch, slot, peer),
                }
            }
        }
        self.seen.0 = seen;
    }

    /// Answers the request that is the first `length` octets of `message`, over it. A request that is no plain question
    /// is left as it is.
    #[inline]
    pub(super) fn respond(&mut self, zones: &Zones, message: &mut [u8], length: usize, asker: Asker) -> Outcome {
        let mut all = std::mem::take(&mut self.seen.0);
        let outcome = match (all.first_mut(), message.get(..length)) {
            (Some(seen), Some(request)) => {
                seen.see(zones.seed(), request);
                let found = zones.look_up_one(&seen.key);
                self.reply(seen, &found, message, length, asker)
            }
            _ => Outcome::Silence,
        };
        self.seen.0 = all;
        outcome
    }

    /// Answers a request that was seen and looked up.
    #[inline]
    fn reply(&mut self, seen: &Seen, found: &Found<'_>, message: &mut [u8], length: usize, asker: Asker) -> Outcome {
        let ipv6 = matches!(asker.peer, IpAddr::V6(addr) if addr.to_ipv4_mapped().is_none());
        let query = match &seen.query {
            Ok(query) => query,
            Err(QueryError::Opcode(Opcode::NOTIFY | Opcode::UPDATE) | QueryError::Signed) => return Outcome::Apart,
            Err(error) => {
                let Some(rcode) = error.rcode() else {
                    self.tally.silent();
                    return Outcome::Silence;
                };
                let octets = refuse(message, rcode);
                self.tally.answered(&Counted { zone: None, ipv6, qtype: 0, rcode, octets: (length, octets) });
                return Outcome::Reply(octets);
            }
        };
        // One comparison: the two types are neighbours. Over UDP there is no AXFR (RFC 5936 §4.2).
        if matches!(Type(query.qtype), Type::IXFR | Type::AXFR)
            && (query.qtype == Type::IXFR.0 || self.proto == Proto::Tcp)
        {
            return Outcome::Apart;
        }
        let (edns, genuine) = match query.edns {
            Some(asked) => {
                let (edns, genuine) = self.edns(&asked, asker);
                (Some(edns), genuine)
            }
            None => (None, false),
        };
        let limit = self.limit(query);
        let mut aliases = Aliases::default();
        let (answer, rcode) = judge(seen, found, query, &mut aliases);
        if answer.as_ref().is_some_and(|answer| answer.zone.is_strict()) && !self.confirmed && !self.gate.is_open() {
            return Outcome::Apart;
        }
        // Who has shown a cookie of ours is where it says it is.
        let ruling = if genuine { Ruling::Send } else { self.limited(answer.as_ref(), &seen.key, asker) };
        if ruling == Ruling::Drop {
            self.tally.limited();
            return Outcome::Silence;
        }
        let turn = self.turn();
        let mut reply = Reply::new(message, query, limit, edns);
        match &answer {
            _ if ruling == Ruling::Truncate => reply.slip(),
            Some(answer) => reply.answer(answer, &aliases, turn),
            None => {}
        }
        let octets = reply.finish(rcode);
        let zone = answer.as_ref().map(|answer| answer.zone);
        self.tally.answered(&Counted { zone, ipv6, qtype: query.qtype, rcode, octets: (length, octets) });
        if self.log.takes(turn) {
            log_query(&message[..octets], query, asker, rcode);
        }
        Outcome::Reply(octets)
    }

    /// What is to be done with the answer, where answers are limited.
    #[inline]
    fn limited(&mut self, answer: Option<&Answer<'_>>, key: &Key, asker: Asker) -> Ruling {
        let Some(rate) = &mut self.rate else { return Ruling::Send };
        let kind = match answer {
            None => Kind::Refusal,
            Some(answer) => match answer.end {
                _ if answer.synthesized => Kind::Wildcard(answer.zone.id()),
                End::Data(_) | End::Elsewhere => Kind::Positive(key.hash()),
                End::NoData | End::NoName => Kind::Negative(answer.zone.id()),
                End::Referral { .. } => Kind::Referral(answer.zone.id()),
            },
        };
        rate.judge(asker.peer, kind, asker.now)
    }

    /// What the reply's OPT says: there is one exactly when the question has one (RFC 6891 §6.1.1).
    /// Also whether the asker has shown a cookie of this server.
    fn edns(&mut self, asked: &QueryEdns, asker: Asker) -> (ReplyEdns, bool) {
        let mut edns = ReplyEdns { size: self.udp_limit, dnssec_ok: asked.dnssec_ok, cookie: None };
        let Some(shown) = asked.cookie else { return (edns, false) };
        let (server, genuine) = self.cookies.load().answer(&shown, asker.peer, asker.now);
        let mut cookie = [0; COOKIE];
        cookie[..8].copy_from_slice(&shown.client);
        cookie[8..].copy_from_slice(&server);
        edns.cookie = Some(cookie);
        (edns, genuine)
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

/// What a question is answered with whatever the zones hold, if so.
#[inline]
fn refused(query: &Query) -> Option<Rcode> {
    if query.edns.is_some_and(|edns| edns.version > 0) {
        return Some(Rcode::BADVERS);
    }
    if query.name_octets == 0 {
        // A question for nothing but a cookie (RFC 7873 §5.4).
        return Some(Rcode::NOERROR);
    }
    if query.qclass != Class::IN.0 {
        return Some(Rcode::REFUSED);
    }
    let qtype = Type(query.qtype);
    (qtype.is_meta() && qtype != Type::ANY).then(|| refusal(qtype))
}

/// Whether somebody may be waiting at this port for a reply: nobody at 0, and at the ports of echo, daytime, quote of the
/// day, character generator and time somebody who answers anything, in whose name a loop could be started.
#[inline]
const fn may_be_asker(port: u16) -> bool {
    !matches!(port, 0 | 7 | 13 | 17 | 19 | 37)
}

/// The code of the reply, and the zone's answer if one has an answer.
#[inline]
fn judge<'z>(seen: &Seen, found: &Found<'z>, query: &Query, aliases: &mut Aliases<'z>) -> (Option<Answer<'z>>, Rcode) {
    if let Some(rcode) = refused(query) {
        return (None, rcode);
    }
    match found.zone(&seen.key, query.qtype) {
        Some(zone) if zone.is_known() => {
            let answer = found.answer(zone, &seen.key, query.qtype, aliases);
            let rcode = match answer.end {
                End::NoName => Rcode::NXDOMAIN,
                End::Data(_) | End::NoData | End::Referral { .. } | End::Elsewhere => Rcode::NOERROR,
            };
            (Some(answer), rcode)
        }
        // A secondary's before the first transfer, or expired.
        Some(_) => (None, Rcode::SERVFAIL),
        None => (None, Rcode::REFUSED),
    }
}

#[cold]
fn log_query(reply: &[u8], query: &Query, asker: Asker, rcode: Rcode) {
    let name = reply.get(HEADER..HEADER + query.name_octets).and_then(|name| Name::from_wire(name).ok());
    let name = name.map_or_else(String::new, |name| name.to_string());
    let qtype = Type(query.qtype);
    tracing::info!(target: "query", peer = %asker.peer, %name, %qtype, %rcode, bytes = reply.len(), "answered");
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

#[cfg(test)]
mod tests;
