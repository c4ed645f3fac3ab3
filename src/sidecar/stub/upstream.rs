//! The name servers that answer for every name that is not Peak's.
//!
//! A message passes through octet for octet: only its id is ours on the way. A server that says SERVFAIL, REFUSED or
//! NOTIMP is taken at its word only when no other does better, as resolvers do with several servers in resolv.conf.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::answer::question_for;
use crate::model::Name;
use crate::net::dns_client::{AskError, DnsClient, Transport};
use crate::ops::metrics::Counter;
use crate::sidecar::resolve::health::Health;
use crate::sidecar::resolve::race::{Pace, Reply, first_good};
use crate::sidecar::resolve::seldom::Seldom;
use crate::wire::dns::{Header, Message, Rcode, Type};

/// A recursive server may need seconds for a name that nobody asked before; the usual resolver gives up after five. A
/// server that said nothing lately, about any name, is not waited for that long.
const PACE: Pace = Pace {
    attempt: Duration::from_millis(4000),
    deadline: Duration::from_millis(4500),
    deadline_when_all_fail: Duration::from_millis(1000),
};
const MOST_TCP: usize = 65_535;

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
    servers: Vec<SocketAddr>,
    client: DnsClient,
    health: Arc<Health>,
    no_socket: Arc<Seldom>,
    failovers: Counter,
}

impl Upstream {
    pub(super) fn new(servers: Vec<SocketAddr>, client: DnsClient, failovers: Counter) -> Self {
        Self { servers, client, health: Arc::default(), no_socket: Arc::default(), failovers }
    }

    /// What upstream says to the message `query`, by the transport it came by.
    pub(super) async fn forward(&self, transport: Transport, query: &[u8]) -> Result<Vec<u8>, UpstreamError> {
        if self.servers.is_empty() {
            return Err(UpstreamError::None);
        }
        let query: Arc<[u8]> = query.into();
        let client = self.client;
        let ask = |server| {
            let (query, no_socket) = (query.clone(), self.no_socket.clone());
            async move { exchange(client, &no_socket, transport, server, &query).await }
        };
        match first_good(&self.health, &self.servers, PACE, ask, || self.failovers.increment()).await {
            Ok(answer) => Ok(answer),
            Err(failure) => failure.unusable.ok_or(UpstreamError::Silent),
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
