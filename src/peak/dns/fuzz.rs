//! Entry point for fuzzing: the server's answer function without its sockets.
//!
//! A [`Desk`] holds what a worker holds, with secrets that are always the same, so that a request gets the same reply
//! in every run. What must hold of a reply is stated by who fuzzes (`tests/fuzz`).

use std::net::IpAddr;

use super::rate::{RateLimiter, RateLimits};
use super::respond::{Asker, QueryLog, Responder, Shared};
use super::tally::{Proto, Tallies};
use crate::model::UnixSeconds;
use crate::model::zone::Zones;
use crate::wire::dns::cookie::CookieSecret;

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
        let shared = Shared { cookies: CookieSecret::new([7; 16]), udp_limit: UDP_LIMIT, log: QueryLog::default() };
        let proto = if transport == Transport::Tcp { Proto::Tcp } else { Proto::Udp };
        let limits = RateLimits { per_second: 1, slip: 2 };
        let rate = (transport == Transport::LimitedUdp).then(|| RateLimiter::new(limits, 7));
        let responder = Responder::new(&shared, proto, rate, 7, Tallies::default().worker(proto));
        Self { responder, zones, message: vec![0; LARGEST].into_boxed_slice() }
    }

    /// The reply to what `peer` sent; none when there must be none. Of a request, the first 65,535 octets count.
    pub fn reply(&mut self, request: &[u8], peer: IpAddr, now: UnixSeconds) -> Option<&[u8]> {
        let length = request.len().min(LARGEST);
        self.message[..length].copy_from_slice(&request[..length]);
        let octets = self.responder.respond(&self.zones, &mut self.message, length, Asker { peer, now });
        (octets > 0).then(|| &self.message[..octets])
    }
}
