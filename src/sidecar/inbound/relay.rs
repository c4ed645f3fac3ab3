//! Connections that reach the wrong pod of the service while its slices move: carried to the right one.
//!
//! ```text
//! caller ──▶ this pod, whose slice it was ══ TLS, ALPN funicular-relay/1 ══▶ the pod whose slice it is
//!                                             PROXY header: who, where, our own token
//!                                             then the caller's octets, untouched
//! ```
//!
//! What is carried is the caller's own TLS, or whatever else it speaks: this pod reads nothing of it, and the other pod
//! judges it as if it had come straight. It believes the header's source and destination because the token behind it
//! is of the same workload as its own: a pod of the service could answer in its place anyway. What was relayed once is
//! served where it arrives, so nothing goes in circles.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout_at};

use super::accept::{self, Allowance, Arrived, Introduced};
use super::admit::OwnService;
use super::{Inbound, InboundError};
use crate::model::Name;
use crate::model::token::WorkloadId;
use crate::net::tls::{self, ClientStream, First, Hello, ServerStream};
use crate::net::{connect, copy};
use crate::ops::clock;
use crate::sidecar::lease::Slices;
use crate::sidecar::outbound::Identity;
use crate::wire::proxy_header::{ProxyHeader, TokenOctets};

/// The protocol's name in TLS (ALPN).
pub const RELAY: &str = "funicular-relay/1";
/// How long the other pod has to answer; then the connection is served here.
const PATIENCE: Duration = Duration::from_secs(1);

/// A pod whose slices move.
#[derive(Clone)]
pub struct Leased {
    /// Which slices are here.
    pub slices: Arc<Slices>,
    /// Who this pod is to the others.
    pub identity: Arc<Identity>,
    /// The same, as a name: relays of no other workload are believed.
    pub id: WorkloadId,
    /// Socket mark of our own connections.
    pub mark: Option<u32>,
}

/// Why another pod was not reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum RelayError {
    #[error("{to} does not answer: {cause}")]
    Unreached { to: SocketAddrV6, cause: io::Error },
    #[error(transparent)]
    Tls(#[from] tls::ConnectError),
    #[error(transparent)]
    Token(#[from] crate::sidecar::outbound::authenticate::NoCredential),
    #[error(transparent)]
    Header(#[from] crate::wire::proxy_header::HeaderTooLong),
}

impl RelayError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Unreached { .. } => "relay-unreachable",
            Self::Tls(error) => error.reason(),
            Self::Token(error) => error.reason(),
            Self::Header(_) => "relay-header-too-long",
        }
    }
}

impl Leased {
    /// A connection to the pod at `to` on which the caller's octets may follow.
    async fn reach(&self, to: SocketAddrV6, arrived: &Arrived, service: &Name) -> Result<ClientStream, RelayError> {
        let deadline = Instant::now() + PATIENCE;
        let unreached = |cause| RelayError::Unreached { to, cause };
        let tcp = connect::tcp(to.into(), self.mark, deadline).await.map_err(unreached)?;
        let credential = self.identity.tokens.authenticate(service, clock::now())?;
        let (source, destination) = (v6(arrived.client), v6(arrived.destination));
        let header = ProxyHeader {
            source,
            destination,
            authority: Some(service.clone()),
            token: Some(TokenOctets(credential.octets())),
            token_reference: None,
            generation: None,
        };
        let mut octets = Vec::with_capacity(1024);
        header.encode(&mut octets)?;
        let late = |_| unreached(io::ErrorKind::TimedOut.into());
        let mut stream = timeout_at(deadline, self.identity.tls.connect(tcp, service, RELAY)).await.map_err(late)??;
        let said = async {
            stream.write_all(&octets).await?;
            stream.flush().await
        };
        timeout_at(deadline, said).await.map_err(late)?.map_err(unreached)?;
        Ok(stream)
    }
}

/// Both are IPv6 by now; an IPv4 one as mapped.
fn v6(address: SocketAddr) -> SocketAddrV6 {
    let ip = match address.ip() {
        IpAddr::V6(ip) => ip,
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
    };
    SocketAddrV6::new(ip, address.port(), 0, 0)
}

impl Inbound {
    /// The way to the pod whose the connection is; none where it is to be served here, whatever the reason.
    pub(super) async fn relay(&self, leased: &Leased, to: SocketAddrV6, arrived: &Arrived) -> Option<ClientStream> {
        let service = &self.own_at(arrived)?.name;
        match leased.reach(to, arrived, service).await {
            Ok(stream) => Some(stream),
            Err(error) => {
                tracing::warn!(%service, reason = error.reason(), "a stray is served here: {error}");
                None
            }
        }
    }

    /// Takes a connection straight to our port: one that another pod of the service relays, or nobody's.
    pub(super) async fn relayed(&self, leased: &Leased, tcp: TcpStream) -> Result<(TcpStream, Arrived), InboundError> {
        let allowance = Allowance::of(self.handshake_timeout);
        let hello = match timeout_at(allowance.until(), tls::first_octets(tcp)).await {
            Ok(Ok(First::Tls(hello))) if hello.offers(RELAY) => hello,
            Ok(Ok(First::Tls(_) | First::Other(..))) => return Err(InboundError::NotRelayed),
            Ok(Err(error)) => return Err(InboundError::Accept(error.into())),
            Err(_) => return Err(allowance.too_slow("ClientHello").into()),
        };
        let own = self.asked_for(&hello)?;
        let (stream, arrived, early) = self.introduced_relay(leased, own, hello, allowance).await?;
        let (near, far) = pair().await.map_err(|_| InboundError::NotRelayed)?;
        // It ends as either end does; nothing of ours ends it.
        tokio::spawn(async move { copy::both_ways(stream, near, early, std::future::pending()).await });
        Ok((far, arrived))
    }

    async fn introduced_relay(
        &self,
        leased: &Leased,
        own: &OwnService,
        hello: Hello,
        allowance: Allowance,
    ) -> Result<(ServerStream, Arrived, Vec<u8>), InboundError> {
        let tls = self.tls.as_ref().ok_or(InboundError::NoCertificate)?;
        let stream = accept::shaken(hello, tls, RELAY, allowance).await?;
        let Introduced { stream, introduction, early } = accept::introduced(stream, allowance).await?;
        let relayer = self.verifier.verify(introduction.token.as_deref(), &own.name, clock::now())?;
        if *relayer.id() != leased.id {
            return Err(InboundError::Relayer { relayer: relayer.id().clone() });
        }
        let arrived = Arrived { client: introduction.client.into(), destination: introduction.destination.into() };
        Ok((stream, arrived, early))
    }
}

/// Two ends of a connection within this machine: what comes out of the relay's TLS is a connection like any other.
async fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await?;
    let near = TcpStream::connect(listener.local_addr()?).await?;
    let own = near.local_addr()?;
    loop {
        let (far, peer) = listener.accept().await?;
        // Somebody else on this machine may have been faster.
        if peer == own {
            near.set_nodelay(true)?;
            far.set_nodelay(true)?;
            return Ok((near, far));
        }
    }
}
