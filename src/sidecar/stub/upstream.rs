//! The name servers that answer for every name that is not Peak's, and what they said a while ago.
//!
//! A message passes through octet for octet: only its id is ours on the way. A server that says SERVFAIL, REFUSED or
//! NOTIMP is taken at its word only when no other does better, as resolvers do with several servers in resolv.conf.
//!
//! What was said is given again while it holds, to whoever asks the very same: flags, EDNS and transport count, id and
//! spelling do not. So a program that tries each search domain for each name costs its servers one question for each of
//! them, and those who ask the same at once wait for one answer. While no server answers, what was said last goes on for
//! a stated time (RFC 8767).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::answer::question_for;
use super::metrics::UpstreamMetrics;
use crate::model::Name;
use crate::net::dns_client::{AskError, DnsClient, Transport};
use crate::sidecar::resolve::cache::Cache;
use crate::sidecar::resolve::flight::Flights;
use crate::sidecar::resolve::health::Health;
use crate::sidecar::resolve::race::{Pace, Reply, first_good};
use crate::sidecar::resolve::seldom::Seldom;
use crate::wire::dns::kept::{self, respell};
use crate::wire::dns::{Header, Message, Opcode, Rcode, Type};

/// A recursive server may need seconds for a name that nobody asked before; the usual resolver gives up after five. A
/// server that said nothing lately, about any name, is not waited for that long.
const PACE: Pace = Pace {
    attempt: Duration::from_millis(4000),
    deadline: Duration::from_millis(4500),
    deadline_when_all_fail: Duration::from_millis(1000),
};
const MOST_TCP: usize = 65_535;
const HEADER_OCTETS: usize = 12;

/// Answers kept at once, and octets of the longest: some ten megabytes at the very most.
const MOST_KEPT: usize = 4_096;
const LONGEST_KEPT: usize = 2_048;
/// Questions under way at once for which others wait; further ones are asked each by itself.
const MOST_SHARED: usize = 256;
/// What an answer past its time says that it holds, in seconds (RFC 8767 §4).
const STALE_TTL: u32 = 30;

/// Why upstream gave no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum UpstreamError {
    #[error("there is no upstream name server: give dns.upstream, or one in /etc/resolv.conf")]
    None,
    #[error("no upstream name server answers")]
    Silent,
    #[error("an upstream name server answers with what is no message")]
    Malformed,
}

impl UpstreamError {
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::None => "no-upstream",
            Self::Silent => "upstream-silent",
            Self::Malformed => "upstream-malformed",
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Upstream {
    servers: Servers,
    kept: Mutex<Cache<Key, Kept>>,
    under_way: Arc<Flights<Key, Said>>,
    /// How long past its time an answer is given while no server answers.
    stale: Duration,
    metrics: UpstreamMetrics,
}

/// A question as it was asked, its name in lower case and without its id.
type Key = (Transport, Arc<[u8]>);

/// An answer that is given again.
#[derive(Clone, Debug)]
struct Kept {
    reply: Arc<kept::Reply>,
    since: Instant,
}

impl Kept {
    /// Whole seconds since it was said.
    fn age(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.since).as_secs()).unwrap_or(u32::MAX)
    }

    fn holds(&self, now: Instant) -> bool {
        self.age(now) < self.reply.seconds()
    }
}

/// What the servers said to a question, under whatever id.
#[derive(Clone, Debug)]
enum Said {
    /// An answer.
    Good(Arc<[u8]>),
    /// That they do not know: no better than silence where something else is known.
    Unusable(Arc<[u8]>),
    /// Nothing.
    Nothing(UpstreamError),
}

impl Upstream {
    pub(super) fn new(servers: Vec<SocketAddr>, client: DnsClient, stale: Duration, metrics: UpstreamMetrics) -> Self {
        let servers = Servers {
            addrs: servers.into(),
            client,
            health: Arc::default(),
            no_socket: Arc::default(),
            metrics: metrics.clone(),
        };
        let (kept, under_way) = (Mutex::new(Cache::new(MOST_KEPT)), Arc::new(Flights::new(MOST_SHARED)));
        Self { servers, kept, under_way, stale, metrics }
    }

    /// What upstream says to the message `query`, by the transport it came by.
    pub(super) async fn forward(&self, transport: Transport, query: &[u8]) -> Result<Vec<u8>, UpstreamError> {
        let Some(key) = key(transport, query) else {
            return given(self.servers.clone().ask(transport, query.into()).await, query);
        };
        if let Some(kept) = self.known(&key, Kept::holds) {
            self.metrics.kept.increment();
            return Ok(kept.reply.given(query, kept.age(Instant::now()), STALE_TTL));
        }
        let ask = || self.servers.clone().ask(transport, query.into());
        let said = match self.under_way.join(key.clone(), ask).await {
            Some(said) => said,
            None => ask().await,
        };
        if let Said::Good(octets) = &said {
            self.keep(key, octets);
        } else if let Some(kept) = self.known(&key, |_, _| true) {
            self.metrics.stale.increment();
            return Ok(kept.reply.given(query, u32::MAX, STALE_TTL));
        }
        given(said, query)
    }

    fn known(&self, key: &Key, counts: impl Fn(&Kept, Instant) -> bool) -> Option<Kept> {
        let now = Instant::now();
        self.kept.lock().get(key, now).filter(|kept| counts(kept, now)).cloned()
    }

    /// Keeps the answer, where it is to be kept. What was kept goes in any case: this is newer.
    fn keep(&self, key: Key, octets: &[u8]) {
        let (now, mut kept) = (Instant::now(), self.kept.lock());
        match kept::Reply::read(octets).filter(|reply| reply.octets() <= LONGEST_KEPT) {
            Some(reply) => {
                let end = now + Duration::from_secs(reply.seconds().into()) + self.stale;
                kept.insert(key, Kept { reply: Arc::new(reply), since: now }, end, now);
            }
            None => kept.remove(&key),
        }
    }

    /// The whole answer about a name, over TCP where it does not fit a datagram.
    pub(super) async fn ask(&self, name: &Name, rtype: Type) -> Result<Message, UpstreamError> {
        let query = question_for(name, rtype).encode(MOST_TCP);
        let mut answer = self.forward(Transport::Udp, &query).await?;
        if Header::parse(&answer).is_ok_and(|header| header.truncated) {
            answer = self.forward(Transport::Tcp, &query).await?;
        }
        Message::parse(&answer).map_err(|_| UpstreamError::Malformed)
    }
}

/// The key of a question whose answer may be kept: a plain one, in one class, and about one type.
fn key(transport: Transport, query: &[u8]) -> Option<Key> {
    let message = Message::parse(query).ok()?;
    let [question] = &message.questions[..] else { return None };
    if message.header.opcode != Opcode::QUERY || question.rtype.is_meta() || query.len() > LONGEST_KEPT {
        return None;
    }
    let mut octets = query.to_vec();
    octets[..2].fill(0);
    octets.get_mut(HEADER_OCTETS..HEADER_OCTETS + question.name.wire().len())?.make_ascii_lowercase();
    Some((transport, octets.into()))
}

/// What was said, to whoever asked like this.
fn given(said: Said, query: &[u8]) -> Result<Vec<u8>, UpstreamError> {
    match said {
        Said::Good(octets) | Said::Unusable(octets) => {
            let mut octets = octets.to_vec();
            respell(&mut octets, query);
            Ok(octets)
        }
        Said::Nothing(error) => Err(error),
    }
}

/// The servers themselves.
#[derive(Clone, Debug)]
struct Servers {
    addrs: Arc<[SocketAddr]>,
    client: DnsClient,
    health: Arc<Health>,
    no_socket: Arc<Seldom>,
    metrics: UpstreamMetrics,
}

impl Servers {
    async fn ask(self, transport: Transport, query: Arc<[u8]>) -> Said {
        if self.addrs.is_empty() {
            return Said::Nothing(UpstreamError::None);
        }
        let ask = |server| {
            let (query, no_socket, client) = (query.clone(), self.no_socket.clone(), self.client);
            async move { exchange(client, &no_socket, transport, server, &query).await }
        };
        match first_good(&self.health, &self.addrs, PACE, ask, || self.metrics.failovers.increment()).await {
            Ok(answer) => Said::Good(answer.into()),
            Err(failure) => {
                failure.unusable.map_or(Said::Nothing(UpstreamError::Silent), |it| Said::Unusable(it.into()))
            }
        }
    }
}

async fn exchange(
    client: DnsClient,
    no_socket: &Seldom,
    transport: Transport,
    server: SocketAddr,
    query: &[u8],
) -> Reply<Vec<u8>, Vec<u8>> {
    match client.exchange(transport, server, query, PACE.attempt).await {
        Ok(answer) => match Header::parse(&answer).map(|header| header.rcode) {
            Ok(Rcode::SERVFAIL | Rcode::REFUSED | Rcode::NOTIMP) => Reply::Unusable(answer),
            Ok(_) | Err(_) => Reply::Good(answer),
        },
        Err(error @ AskError::NoSocket { .. }) => {
            if let Some(left_out) = no_socket.due(Instant::now()) {
                tracing::warn!(%error, left_out, "an upstream name server cannot be asked");
            }
            Reply::NotAsked
        }
        Err(error) => {
            tracing::debug!(%error, reason = error.reason(), "upstream name server did not answer");
            Reply::Silent
        }
    }
}
