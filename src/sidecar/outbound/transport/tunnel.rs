//! `token=tunnel`: TLS once, then one stream after another.
//!
//! A fresh tunnel sends the token in the header of its first stream, a used one refers to it, so that opening a further
//! stream costs a hundred octets and no handshake. A stream that outlives half of its token's life renews it in the
//! tunnel.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::super::authenticate::{Credential, Tokens};
use super::super::pick::{Candidates, Picked};
use super::AttemptError;
use super::pool::{Bundle, LONGEST_IDLE, LONGEST_LIFE, MOST_STREAMS, Pool, Spare};
use crate::model::Name;
use crate::net::tls::{ClientStream, ClientTls};
use crate::net::tunnel::{Party, Tunnel};
use crate::ops::clock;
use crate::wire::proxy_header::{HeaderTooLong, ProxyHeader, TokenOctets};

pub use crate::wire::tunnel::ALPN;

/// How long to wait before a token is asked for again that could not be signed.
const SIGN_AGAIN: Duration = Duration::from_secs(5);

/// The caller's end of a tunnel.
pub(super) type Carrier = Tunnel<ClientStream, Caller>;

/// Renews the token of a stream under way.
#[derive(Default)]
pub(super) struct Caller {
    renewal: Arc<Renewal>,
    /// The renewed tokens that were sent since somebody asked: how many, and the last.
    sent: u32,
    last: Option<Credential>,
}

#[derive(Default)]
struct Renewal {
    due: AtomicBool,
    token: Mutex<Option<Credential>>,
}

impl Renewal {
    fn with(&self, credential: Credential) {
        *self.token.lock() = Some(credential);
        self.due.store(true, Ordering::Release);
    }
}

impl Party for Caller {
    fn renewed(&mut self) -> Option<Vec<u8>> {
        if !self.renewal.due.load(Ordering::Acquire) {
            return None;
        }
        self.renewal.due.store(false, Ordering::Relaxed);
        let credential = self.renewal.token.lock().take()?;
        let octets = credential.octets().to_vec();
        self.sent += 1;
        self.last = Some(credential);
        Some(octets)
    }

    fn renew(&mut self, _token: &[u8]) -> Result<(), &'static str> {
        // Only the one who was let in by a token has one to renew.
        Err("token-unexpected")
    }

    /// The server's application has said its last: it waits for nothing but to let go of the connection.
    fn end_may_wait(&self) -> bool {
        true
    }
}

/// A tunnel with a stream open, ready for the application's bytes.
pub struct Lent {
    carrier: Box<Carrier>,
    renewal: Arc<Renewal>,
    facts: Facts,
    how: How,
}

/// How a stream came by its tunnel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum How {
    /// It was made for it.
    Fresh,
    /// It carried another stream before.
    Reused,
}

/// What is known of a tunnel.
pub(super) struct Facts {
    pub(super) bundle: Bundle,
    pub(super) destination: SocketAddrV6,
    /// The rule by which its destination was computed.
    pub(super) rule: Box<str>,
    generation: u32,
    /// The token that was sent last.
    pub(super) credential: Credential,
    /// How many tokens were sent.
    tokens: u32,
    /// How many streams it has carried.
    pub(super) streams: u32,
    pub(super) made: Instant,
}

/// A tunnel between two streams.
pub struct Idle {
    carrier: Box<Carrier>,
    renewal: Arc<Renewal>,
    facts: Facts,
    since: Instant,
}

/// The tunnels that are free.
pub type Tunnels = Pool<Idle>;

impl Spare for Idle {
    fn bundle(&self) -> &Bundle {
        &self.facts.bundle
    }

    fn destination(&self) -> Ipv6Addr {
        *self.facts.destination.ip()
    }

    fn is_good(&mut self, now: Instant) -> bool {
        self.facts.streams < MOST_STREAMS
            && now.saturating_duration_since(self.facts.made) < LONGEST_LIFE
            && now.saturating_duration_since(self.since) < LONGEST_IDLE
            && self.carrier.is_quiet()
    }

    fn has_last_words(&self) -> bool {
        self.carrier.end_waits()
    }

    fn say_last_words(&mut self) {
        self.carrier.say_end();
    }

    fn close(self) {
        self.carrier.close();
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent").field("destination", &self.facts.destination).field("how", &self.how).finish()
    }
}

/// What a stream's header says.
struct Opening<'a> {
    service: &'a Name,
    source: SocketAddrV6,
    destination: SocketAddrV6,
    generation: u32,
}

impl Opening<'_> {
    fn header(&self, token: Option<&Credential>, reference: Option<u32>) -> Result<Vec<u8>, HeaderTooLong> {
        let mut octets = Vec::with_capacity(if token.is_some() { 768 } else { 128 });
        let header = ProxyHeader {
            source: self.source,
            destination: self.destination,
            authority: Some(self.service.clone()),
            token: token.map(|credential| TokenOctets(credential.octets())),
            token_reference: reference,
            generation: Some(self.generation),
        };
        header.encode(&mut octets)?;
        Ok(octets)
    }
}

/// Makes a tunnel to the picked address, and opens a stream in it.
pub(super) async fn open(
    tcp: TcpStream,
    tls: &ClientTls,
    bundle: Bundle,
    rule: &str,
    picked: &Picked,
    client_port: u16,
    credential: &Credential,
) -> Result<Lent, AttemptError> {
    let dst = picked.destination();
    let opening = Opening {
        service: &bundle.service,
        source: SocketAddrV6::new(picked.source(), client_port, 0, 0),
        destination: picked.destination_v6(),
        generation: picked.generation(),
    };
    let header = opening.header(Some(credential), None)?;
    let stream = tls.connect(tcp, &bundle.service, ALPN).await;
    let stream = stream.map_err(|cause| AttemptError::Tls { dst, cause })?;
    let caller = Caller::default();
    let renewal = Arc::clone(&caller.renewal);
    let mut carrier = Box::new(Tunnel::new(stream, caller));
    carrier.open(header, false);
    let facts = Facts {
        bundle,
        destination: picked.destination_v6(),
        rule: rule.into(),
        generation: picked.generation(),
        credential: credential.clone(),
        tokens: 1,
        streams: 1,
        made: Instant::now(),
    };
    Ok(Lent { carrier, renewal, facts, how: How::Fresh })
}

impl Idle {
    /// Whether what allowed it still holds.
    pub(super) fn was_allowed_by(&self, candidates: &Candidates, credential: &Credential) -> bool {
        self.facts.credential.is(credential) && *self.facts.rule == *candidates.rule_text()
    }

    /// Opens the next stream.
    pub(super) fn lend(self, client_port: u16) -> Result<Lent, AttemptError> {
        let Self { mut carrier, renewal, mut facts, .. } = self;
        let opening = Opening {
            service: &facts.bundle.service,
            source: SocketAddrV6::new(facts.bundle.source, client_port, 0, 0),
            destination: facts.destination,
            generation: facts.generation,
        };
        let header = opening.header(None, Some(facts.tokens - 1))?;
        facts.streams += 1;
        carrier.open(header, true);
        Ok(Lent { carrier, renewal, facts, how: How::Reused })
    }
}

impl Lent {
    /// The tunnel, as a connection.
    pub fn carrier(&mut self) -> &mut (impl crate::net::copy::OverTcp + use<>) {
        &mut *self.carrier
    }

    /// How the stream came by its tunnel.
    #[must_use]
    pub fn how(&self) -> How {
        self.how
    }

    /// Where the tunnel leads.
    #[must_use]
    pub fn destination(&self) -> SocketAddrV6 {
        self.facts.destination
    }

    /// Renews the token whenever half of its life is over, for as long as it is polled. Never completes.
    pub fn renewing<'a>(&self, tokens: &'a Tokens) -> impl Future<Output = ()> + use<'a> {
        let service = self.facts.bundle.service.clone();
        let renewal = Arc::clone(&self.renewal);
        let mut known = self.facts.credential.clone();
        async move {
            let mut wait = until(known.stale());
            loop {
                tokio::time::sleep(wait).await;
                match tokens.authenticate(&service, clock::now()) {
                    Ok(credential) if !credential.is(&known) => {
                        wait = until(credential.stale());
                        renewal.with(credential.clone());
                        known = credential;
                    }
                    Ok(credential) => wait = until(credential.stale()),
                    Err(error) => {
                        tracing::warn!(%service, "a token in use cannot be renewed: {error}");
                        wait = SIGN_AGAIN;
                    }
                }
            }
        }
    }

    /// The stream has finished, or broken off: keeps the tunnel for the next one if it is good for that. Otherwise gives
    /// back what the stream's content began with, if the server certainly never took the stream.
    pub(crate) fn give_back(mut self, pool: &Tunnels) -> Option<Vec<u8>> {
        if !self.carrier.is_free() {
            return self.carrier.untaken();
        }
        let Self { mut carrier, renewal, mut facts, .. } = self;
        let caller = carrier.party();
        facts.tokens += std::mem::take(&mut caller.sent);
        facts.credential = caller.last.take().unwrap_or(facts.credential);
        pool.keep(Idle { carrier, renewal, facts, since: Instant::now() });
        None
    }
}

/// At least a second, so that a clock that stands still does not make us spin.
fn until(stale: crate::model::UnixSeconds) -> Duration {
    Duration::from_secs(stale.0.saturating_sub(clock::now().0).max(1))
}
