//! One request, once its signature was looked at: who may do what it asks for, and whether it is in order.

use std::net::SocketAddr;
use std::sync::Arc;

use super::counts::{Direction, Ended, Form};
use super::policy::Caller;
use super::{Answer, Carrier, Desk, Granted, Handled, LEAST, Pending};
use crate::model::UnixSeconds;
use crate::peak::transfer::out::{self, Outgoing};
use crate::peak::update;
use crate::peak::update::forward::Form as Passed;
use crate::wire::dns::tsig::Session;
use crate::wire::dns::{Class, Message, Rcode, Type};

/// The most that a message can have (RFC 1035 §4.2.2).
const MOST: usize = 65_535;

/// One request, its signature looked at.
pub(super) struct Case<'d> {
    pub(super) desk: &'d Desk,
    pub(super) session: Option<Session>,
    pub(super) peer: SocketAddr,
    pub(super) carrier: Carrier,
    pub(super) now: UnixSeconds,
}

impl Case<'_> {
    fn caller(&self) -> Caller<'_> {
        Caller { peer: self.peer, key: self.session.as_ref().map(|session| session.key().name()) }
    }

    pub(super) fn reply(self, reply: &Message) -> Handled {
        self.signed(reply.encode(LEAST))
    }

    fn signed(mut self, mut reply: Vec<u8>) -> Handled {
        if let Some(session) = &mut self.session {
            session.sign(&mut reply, self.now);
        }
        Handled::Reply(reply)
    }

    fn refuse(self, request: &Message, rcode: Rcode, reason: &'static str) -> Handled {
        self.desk.refuse(reason);
        self.reply(&request.response(rcode))
    }

    /// A signed question: the answer is the same, signed.
    pub(super) fn question(self, octets: &[u8], request: &Message, answer: Answer<'_>) -> Handled {
        let reply = answer(octets);
        if reply.is_empty() {
            return Handled::Silence;
        }
        let limit = match self.carrier {
            Carrier::Tcp => MOST,
            Carrier::Udp => request.edns.as_ref().map_or(LEAST, |edns| usize::from(edns.udp_size).max(LEAST)),
        };
        let signature = self.session.as_ref().map_or(0, |session| session.key().octets());
        if reply.len() + signature <= limit {
            return self.signed(reply);
        }
        // RFC 8945 §5.3: an answer that leaves no room for its signature is cut to the question.
        let mut cut = request.response(Rcode::NOERROR);
        (cut.header.truncated, cut.header.authoritative) = (true, true);
        self.reply(&cut)
    }

    /// RFC 2136 §3.1 to §3.3. Who may is asked before what holds, or prerequisites would tell what a zone holds.
    pub(super) fn update(self, request: Message) -> Handled {
        let (apex, class) = match update::zone(&request) {
            Ok(zone) => zone,
            Err(misformed) => return self.refuse(&request, misformed.rcode(), misformed.reason()),
        };
        let apex = apex.clone();
        let policies = &self.desk.0.policies;
        if policies.is_empty() {
            return self.reply(&request.response(Rcode::NOTIMP));
        }
        let Some(policy) = policies.get(&apex).filter(|_| class == Class::IN) else {
            return self.refuse(&request, Rcode::NOTAUTH, "update-not-auth");
        };
        if policy.may_forward(self.caller()) {
            let form = Passed::Ours { request: request.clone(), session: self.session.clone() };
            return match self.desk.pass_on(&apex, form) {
                Some(passing) => passing,
                None => self.reply(&request.response(Rcode::SERVFAIL)),
            };
        }
        if !policy.may_update(self.caller()) {
            tracing::info!(zone = %apex, peer = %self.peer, key = ?self.caller().key, "update refused");
            self.desk.0.counts.updates.increment(&Ended::Refused);
            return self.refuse(&request, Rcode::REFUSED, "update-not-allowed");
        }
        match update::read(&request, &apex) {
            Ok(update) => {
                let Case { session, peer, .. } = self;
                Handled::Update(Box::new(Pending { apex, update, request, session, peer }))
            }
            Err(misformed) => self.refuse(&request, misformed.rcode(), misformed.reason()),
        }
    }

    /// RFC 5936 §2.2, RFC 1995 §4.
    pub(super) fn transfer(self, request: Message) -> Handled {
        let [question] = &request.questions[..] else {
            return self.refuse(&request, Rcode::FORMERR, "transfer-form");
        };
        let form = if question.rtype == Type::AXFR { Form::Whole } else { Form::Differences };
        let policy = self.desk.0.policies.get(&question.name).filter(|_| question.class == Class::IN);
        let may = policy.is_some_and(|policy| policy.may_transfer(self.caller()));
        if !may || (form == Form::Whole && self.carrier == Carrier::Udp) {
            tracing::info!(zone = %question.name, peer = %self.peer, key = ?self.caller().key, "transfer refused");
            self.desk.0.counts.transfers.increment(&(Direction::Out, form, Ended::Refused));
            return self.refuse(&request, Rcode::REFUSED, "transfer-not-allowed");
        }
        let version = self.desk.0.ledger.version(&question.name, out::serial_had(&request));
        let Some(version) = version.filter(|version| version.zone.is_known()) else {
            return self.refuse(&request, Rcode::SERVFAIL, "transfer-unknown");
        };
        let limit = request.edns.as_ref().map_or(LEAST, |edns| usize::from(edns.udp_size).max(LEAST));
        let (signed, carrier) = (self.session.is_some(), self.carrier);
        let place = match carrier {
            Carrier::Tcp => Arc::clone(&self.desk.0.transfers).try_acquire_owned().ok(),
            Carrier::Udp => None,
        };
        if carrier == Carrier::Tcp && place.is_none() {
            tracing::info!(zone = %question.name, peer = %self.peer, "transfer refused, too many are under way");
            self.desk.0.counts.transfers.increment(&(Direction::Out, form, Ended::Refused));
            // Not REFUSED: whoever may have the zone is to come again.
            return self.refuse(&request, Rcode::SERVFAIL, "transfers-full");
        }
        let outgoing = Outgoing::new(request, self.session, version);
        match (carrier, place) {
            (Carrier::Tcp, Some(place)) => Handled::Transfer(Box::new(Granted { outgoing, _place: place })),
            // Without a signature anybody can ask in somebody else's name: no more than the SOA.
            _ => Handled::Reply(outgoing.datagram(if signed { limit } else { LEAST.min(limit) })),
        }
    }

    /// RFC 1996 §3.7 to §3.10.
    pub(super) fn notice(self, request: &Message) -> Handled {
        let policies = &self.desk.0.policies;
        if policies.is_empty() {
            return self.reply(&request.response(Rcode::NOTIMP));
        }
        let [question] = &request.questions[..] else {
            return self.refuse(request, Rcode::FORMERR, "notice-form");
        };
        let notices = &self.desk.0.counts.notices;
        let policy = policies.get(&question.name).filter(|policy| policy.secondary && question.class == Class::IN);
        let Some(policy) = policy else {
            notices.increment(&(Direction::In, Ended::Refused));
            return self.refuse(request, Rcode::NOTAUTH, "notice-not-auth");
        };
        if !policy.may_notify(self.caller()) {
            notices.increment(&(Direction::In, Ended::Refused));
            tracing::info!(zone = %question.name, peer = %self.peer, "notice refused");
            return self.refuse(request, Rcode::REFUSED, "notice-not-allowed");
        }
        notices.increment(&(Direction::In, Ended::Done));
        if let Some(waker) = self.desk.0.wakers.get(&question.name) {
            // Full: a look at the primary is due already.
            let _ = waker.try_send(());
        }
        let mut reply = request.response(Rcode::NOERROR);
        reply.header.authoritative = true;
        self.reply(&reply)
    }
}
