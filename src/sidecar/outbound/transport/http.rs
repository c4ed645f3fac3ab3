//! `token=header`: connections of HTTP to servers, whose every request carries the token.

use std::net::{Ipv6Addr, SocketAddrV6};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::super::health::Place;
use super::super::pick::{Candidates, Picked};
use super::AttemptError;
use super::pool::{Bundle, LONGEST_IDLE, LONGEST_LIFE, Pool, Spare};
use crate::net::tls::{ClientStream, ClientTls};
use crate::sidecar::http::client::Sender;
use crate::sidecar::http::prefixed::Prefixed;
use crate::sidecar::http::{HTTP_1, Version};

/// How many requests a connection carries. More than a tunnel carries streams: a stream is a whole connection of an
/// application, in which any number of requests may come.
const MOST_REQUESTS: u32 = 100_000;

/// What HTTP to servers runs over.
pub(in crate::sidecar) type ServerIo = ClientStream;

/// A connection of HTTP to a server.
pub struct Peer {
    sender: Sender,
    facts: Arc<Facts>,
    place: Option<Place>,
    since: Instant,
}

/// What is known of a connection; those who share it share this.
struct Facts {
    bundle: Bundle,
    destination: SocketAddrV6,
    rule: Box<str>,
    /// The version that was wanted; the server may have chosen the other.
    preferred: Version,
    made: Instant,
    requests: AtomicU32,
}

/// The connections that may be asked.
pub type Peers = Pool<Peer>;

/// What is asked for of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Wanted {
    /// The version the application speaks: preferred, not demanded.
    pub(in crate::sidecar) version: Version,
    /// Only HTTP/1.1 will do: it is to become something else.
    pub(in crate::sidecar) to_upgrade: bool,
}

impl Wanted {
    fn offer(self) -> &'static [&'static str] {
        if self.to_upgrade && self.version == Version::One { &[HTTP_1] } else { self.version.offer() }
    }

    /// Whether a connection that is there will do. One that was made for the other version never does, so that each
    /// application's version arrives as it is, wherever the server speaks it.
    pub(in crate::sidecar::outbound) fn accepts(self, peer: &Peer) -> bool {
        peer.facts.preferred == self.version && (!self.to_upgrade || peer.sender.version() == self.version)
    }
}

impl Spare for Peer {
    fn bundle(&self) -> &Bundle {
        &self.facts.bundle
    }

    fn destination(&self) -> Ipv6Addr {
        *self.facts.destination.ip()
    }

    fn is_good(&mut self, now: Instant) -> bool {
        self.serves_on(now) && now.saturating_duration_since(self.since) < LONGEST_IDLE
    }

    fn close(self) {
        // Nobody asks any more, so it closes itself when the last answer has come.
        drop(self);
    }
}

impl Peer {
    /// Has the server prove its name, and agrees on a version.
    pub(super) async fn open(
        tcp: TcpStream,
        tls: &ClientTls,
        bundle: Bundle,
        rule: Box<str>,
        picked: &Picked,
        wanted: Wanted,
    ) -> Result<Self, AttemptError> {
        let dst = picked.destination();
        let connected = tls.connect_by_one_of(tcp, &bundle.service, wanted.offer()).await;
        let (stream, protocol) = connected.map_err(|cause| AttemptError::Tls { dst, cause })?;
        let version = Version::of_alpn(protocol).unwrap_or(Version::One);
        let io = Prefixed::<ServerIo>::new(hyper::body::Bytes::new(), stream);
        let sender = Sender::over(io, version).await.map_err(|cause| AttemptError::Http { dst, cause })?;
        let facts = Facts {
            bundle,
            destination: picked.destination_v6(),
            rule,
            preferred: wanted.version,
            made: Instant::now(),
            requests: AtomicU32::new(0),
        };
        Ok(Self { sender, facts: Arc::new(facts), place: None, since: Instant::now() })
    }

    /// The connection in a pool that does as well as a fresh one; where many may ask at once, it stays there too.
    pub(super) fn idle(
        pool: &Peers,
        bundle: &Bundle,
        candidates: &Candidates,
        picked: &Picked,
        wanted: Wanted,
    ) -> Option<Self> {
        let peer = pool.take(bundle, candidates, picked, |peer: &Self| {
            wanted.accepts(peer) && *peer.facts.rule == *candidates.rule_text()
        })?;
        if let Some(shared) = peer.shared() {
            pool.keep(shared);
        }
        Some(peer)
    }

    /// Whether it may carry one more request of a conversation that has it already.
    pub(in crate::sidecar::outbound) fn serves_on(&self, now: Instant) -> bool {
        self.sender.is_open()
            && now.saturating_duration_since(self.facts.made) < LONGEST_LIFE
            && self.facts.requests.load(Ordering::Relaxed) < MOST_REQUESTS
    }

    /// Whether it was made by this rule.
    pub(in crate::sidecar::outbound) fn is_by(&self, rule: &str) -> bool {
        *self.facts.rule == *rule
    }

    /// The address that it was computed from.
    pub(in crate::sidecar::outbound) fn source(&self) -> Ipv6Addr {
        self.facts.bundle.source
    }

    /// How long it has had nothing to do.
    pub(in crate::sidecar::outbound) fn idle_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// By which place it is remembered how it fared.
    pub(in crate::sidecar::outbound) fn place(&self) -> Option<Place> {
        self.place
    }

    /// It leads to this place.
    pub(in crate::sidecar::outbound) fn leads_to(&mut self, place: Place) {
        self.place = Some(place);
    }

    /// Whether no request has been sent on it before the present one.
    pub(in crate::sidecar::outbound) fn is_asked_first(&self) -> bool {
        self.facts.requests.load(Ordering::Relaxed) <= 1
    }

    /// Where it leads.
    pub(in crate::sidecar::outbound) fn destination_v6(&self) -> SocketAddrV6 {
        self.facts.destination
    }

    /// The asking end, for one request.
    pub(in crate::sidecar::outbound) fn sender(&mut self) -> &mut Sender {
        self.facts.requests.fetch_add(1, Ordering::Relaxed);
        &mut self.sender
    }

    /// The version it speaks.
    pub(in crate::sidecar::outbound) fn version(&self) -> Version {
        self.sender.version()
    }

    /// Another end of the same connection, where many may ask at once.
    pub(in crate::sidecar::outbound) fn shared(&self) -> Option<Self> {
        let sender = self.sender.shared()?;
        Some(Self { sender, facts: Arc::clone(&self.facts), place: self.place, since: Instant::now() })
    }

    /// It has answered; whoever is next may ask.
    pub(in crate::sidecar::outbound) fn rested(self) -> Self {
        Self { since: Instant::now(), ..self }
    }

    /// Whether the answer before has been read to its end.
    pub(in crate::sidecar::outbound) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }
}
