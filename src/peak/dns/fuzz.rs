//! Entry point for fuzzing: the server's answer function without its sockets.
//!
//! A [`Desk`] holds what a worker holds, with secrets that are always the same, so that a request gets the same reply
//! in every run. What must hold of a reply is stated by who fuzzes (`tests/fuzz`).

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::gate::Gate;
use super::rate::{RateLimiter, RateLimits};
use super::respond::{Asker, Outcome, QueryLog, Responder, Shared};
use super::tally::{Proto, Tallies};
use crate::model::UnixSeconds;
use crate::model::zone::{Zone, Zones};
use crate::peak::update;
use crate::wire::dns::Message;
use crate::wire::dns::cookie::{CookieSecret, CookieSecrets};

/// What a request came by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    /// Replies are at most [`UDP_LIMIT`] octets, and no more than the asker takes.
    Udp,
    /// As UDP, with one answer a second of a kind to a network, and every second one beyond sent empty with TC.
    LimitedUdp,
    /// Replies are as long as a message can be.
    Tcp,
}

/// The most that a reply over UDP has, in octets.
pub const UDP_LIMIT: u16 = 1232;

/// The longest message.
const LARGEST: usize = 65_535;

/// What became of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Handled<'d> {
    /// This is the reply.
    Reply(&'d [u8]),
    /// There is none.
    Silence,
    /// It is no plain question, and is left to who takes time: an update, a notice, a transfer, or signed.
    Apart,
}

/// A worker without sockets.
#[derive(Debug)]
pub struct Desk {
    responder: Responder,
    zones: Zones,
    message: Box<[u8]>,
}

impl Desk {
    /// A worker that answers from `zones`.
    #[must_use]
    pub fn new(zones: Zones, transport: Transport) -> Self {
        let shared = Shared {
            cookies: Arc::new(ArcSwap::from_pointee(CookieSecrets::new(CookieSecret::new([7; 16]), []))),
            udp_limit: UDP_LIMIT,
            log: QueryLog::default(),
            gate: Gate::new(),
        };
        let proto = if transport == Transport::Tcp { Proto::Tcp } else { Proto::Udp };
        let limits = RateLimits { per_second: 1, slip: 2 };
        let rate = (transport == Transport::LimitedUdp).then(|| RateLimiter::new(limits, 7));
        let responder = Responder::new(&shared, proto, rate, 7, Tallies::default().worker(proto));
        Self { responder, zones, message: vec![0; LARGEST].into_boxed_slice() }
    }

    /// What becomes of what `peer` sent. Of a request, the first 65,535 octets count.
    pub fn handle(&mut self, request: &[u8], peer: IpAddr, now: UnixSeconds) -> Handled<'_> {
        let length = request.len().min(LARGEST);
        self.message[..length].copy_from_slice(&request[..length]);
        match self.responder.respond(&self.zones, &mut self.message, length, Asker { peer, now }) {
            Outcome::Reply(octets) => Handled::Reply(&self.message[..octets]),
            Outcome::Silence => Handled::Silence,
            Outcome::Apart => Handled::Apart,
        }
    }
}

/// Updates (RFC 2136): what is read as one changes `zone` by what its delta says, or not at all. Gives whether it did.
///
/// # Panics
/// When zone and delta disagree.
#[must_use]
pub fn update(octets: &[u8], zone: &Zone) -> bool {
    let Ok(message) = Message::parse(octets) else { return false };
    if update::zone(&message).is_err() {
        return false;
    }
    let Ok(command) = update::read(&message, zone.apex()) else { return false };
    let Ok(updated) = zone.update(&command) else { return false };
    let Some(delta) = updated.delta else {
        assert!(same(zone, &updated.zone), "a change without a delta");
        return false;
    };
    assert_eq!((delta.from(), delta.to()), (zone.serial(), updated.zone.serial()));
    let replayed = zone.apply(&delta).unwrap_or_else(|error| panic!("a delta does not fit its zone: {error}"));
    assert!(same(&replayed, &updated.zone), "a delta is not the change");
    true
}

fn same(one: &Zone, other: &Zone) -> bool {
    let difference = one.difference(other);
    one.serial() == other.serial() && difference.is_some_and(|delta| delta.removed.is_empty() && delta.added.is_empty())
}
