//! First phase: what has arrived, and who says so: TLS, then one PROXY header.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::model::Name;
use crate::net::tls::{self, First, HandshakeError, Hello, HelloError, ServerStream, ServerTls};
use crate::sidecar::http::{HTTP_1, HTTP_2, Version};
use crate::sidecar::outbound::transport::{PP2, TUNNEL};
use crate::wire::proxy_header::{self, ProxyHeader, ProxyHeaderError};

/// How long a client may say nothing before it is taken for one that lets the server speak first. Only where
/// connections without TLS are let through: a client of ours says its ClientHello at once.
const SILENCE: Duration = Duration::from_millis(300);

/// A connection and where it was going. The destination has been asked of the kernel, not of the peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrived {
    pub(super) client: SocketAddr,
    pub(super) destination: SocketAddr,
}

impl Arrived {
    /// Caller and destination, where both are IPv6: rules speak of nothing else.
    pub(super) fn addresses(&self) -> Option<(Ipv6Addr, Ipv6Addr)> {
        match (self.client.ip(), self.destination.ip()) {
            (IpAddr::V6(client), IpAddr::V6(destination)) => Some((client, destination)),
            (IpAddr::V4(_), _) | (_, IpAddr::V4(_)) => None,
        }
    }
}

/// A protocol behind TLS by which a caller introduces itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Protocol {
    /// Streams with a header each.
    Tunnel,
    /// One header.
    Pp2,
    /// A token with each request.
    Http(Version),
}

impl Protocol {
    /// The word for it in rules, metrics and logs.
    pub(super) fn mode(self) -> &'static str {
        match self {
            Self::Tunnel => "tunnel",
            Self::Pp2 => "pp2",
            Self::Http(_) => "header",
        }
    }

    /// Its name in TLS.
    pub(super) fn alpn(self) -> &'static str {
        match self {
            Self::Tunnel => TUNNEL,
            Self::Pp2 => PP2,
            Self::Http(Version::One) => HTTP_1,
            Self::Http(Version::Two) => HTTP_2,
        }
    }

    /// The one that we like best of those that the client offers.
    fn offered(hello: &Hello) -> Option<Self> {
        if hello.offers(TUNNEL) {
            Some(Self::Tunnel)
        } else if hello.offers(PP2) {
            Some(Self::Pp2)
        } else {
            // Which one is spoken is the client's choice: its application speaks it already.
            hello.first_offered(&[HTTP_1, HTTP_2]).and_then(Version::of_alpn).map(Self::Http)
        }
    }
}

/// What a connection begins with, as far as the modes go.
pub(super) enum Begun {
    /// A ClientHello that offers this protocol of ours.
    Ours(Protocol, Hello),
    /// A ClientHello that offers no protocol of ours: somebody's own TLS.
    ForeignTls(TcpStream, Vec<u8>),
    /// No TLS; what was read of it, perhaps nothing.
    Plaintext(TcpStream, Vec<u8>),
}

/// What a caller says of itself; it may yet be a lie.
pub(super) struct Introduction {
    /// The source in the header.
    pub(super) source: Ipv6Addr,
    /// The caller's port: the application's, which a connection for several streams has not.
    pub(super) source_port: u16,
    /// The authority in the header.
    pub(super) authority: Option<Name>,
    pub(super) token: Option<Box<[u8]>>,
    pub(super) token_reference: Option<u32>,
    pub(super) generation: Option<u32>,
    /// Source and destination in the header, with their ports.
    pub(super) client: SocketAddrV6,
    pub(super) destination: SocketAddrV6,
}

impl From<ProxyHeader<'_>> for Introduction {
    fn from(header: ProxyHeader<'_>) -> Self {
        Self {
            source: *header.source.ip(),
            source_port: header.source.port(),
            authority: header.authority,
            token: header.token.map(|token| token.0.into()),
            token_reference: header.token_reference,
            generation: header.generation,
            client: header.source,
            destination: header.destination,
        }
    }
}

/// A caller behind TLS that has introduced itself once, for the whole connection.
pub(super) struct Introduced {
    pub(super) stream: ServerStream,
    pub(super) introduction: Introduction,
    /// What came behind the header.
    pub(super) early: Vec<u8>,
}

/// Why nobody was introduced.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The deadline for everything up to the header.
    #[error("the caller took longer than {} ms for its {waiting_for}", .allowed.as_millis())]
    TooSlow {
        /// `ClientHello`, `TLS handshake` or `PROXY header`.
        waiting_for: &'static str,
        /// The time it had.
        allowed: Duration,
    },
    /// The ClientHello.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// The rest of the handshake.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The header.
    #[error(transparent)]
    Header(#[from] ProxyHeaderError),
    /// The connection ended before the header.
    #[error("the connection ended inside the PROXY header: {0}")]
    HeaderEnded(io::Error),
}

impl AcceptError {
    /// The stable label of metrics and logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooSlow { .. } => "handshake-timeout",
            Self::Hello(error) => error.reason(),
            Self::Handshake(error) => error.reason(),
            Self::Header(error) => error.reason(),
            Self::HeaderEnded(_) => "proxy-header-ended",
        }
    }
}

/// The time a caller has for everything up to its header.
#[derive(Clone, Copy)]
pub(super) struct Allowance {
    allowed: Duration,
    until: Instant,
}

impl Allowance {
    pub(super) fn of(allowed: Duration) -> Self {
        Self { allowed, until: Instant::now() + allowed }
    }

    pub(super) fn until(self) -> Instant {
        self.until
    }

    pub(super) fn too_slow(self, waiting_for: &'static str) -> AcceptError {
        AcceptError::TooSlow { waiting_for, allowed: self.allowed }
    }
}

/// Reads until it is clear what the connection begins with. `may_be_silent` where a client may wait for the server.
pub(super) async fn begun(tcp: TcpStream, allowance: Allowance, may_be_silent: bool) -> Result<Begun, AcceptError> {
    if may_be_silent && timeout(SILENCE, tcp.peek(&mut [0])).await.is_err() {
        return Ok(Begun::Plaintext(tcp, Vec::new()));
    }
    let first = timeout_at(allowance.until, tls::first_octets(tcp));
    match first.await.map_err(|_| allowance.too_slow("ClientHello"))?? {
        First::Tls(hello) => match Protocol::offered(&hello) {
            Some(protocol) => Ok(Begun::Ours(protocol, hello)),
            None => {
                let (tcp, octets) = hello.unanswered();
                Ok(Begun::ForeignTls(tcp, octets))
            }
        },
        First::Other(tcp, octets) => Ok(Begun::Plaintext(tcp, octets)),
    }
}

/// Finishes the handshake, for a protocol by its name in TLS.
pub(super) async fn shaken(
    hello: Hello,
    tls: &ServerTls,
    protocol: &str,
    allowance: Allowance,
) -> Result<ServerStream, AcceptError> {
    let handshake = timeout_at(allowance.until, tls.accept(hello, protocol));
    Ok(handshake.await.map_err(|_| allowance.too_slow("TLS handshake"))??)
}

/// Reads the one header of a connection.
pub(super) async fn introduced(mut stream: ServerStream, allowance: Allowance) -> Result<Introduced, AcceptError> {
    let mut octets = Vec::with_capacity(1024);
    loop {
        if let Some((header, length)) = proxy_header::parse(&octets)? {
            let introduction = Introduction::from(header);
            return Ok(Introduced { introduction, early: octets[length..].to_vec(), stream });
        }
        let read = timeout_at(allowance.until, stream.read_buf(&mut octets));
        match read.await.map_err(|_| allowance.too_slow("PROXY header"))? {
            Ok(0) => return Err(AcceptError::HeaderEnded(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {}
            Err(error) => return Err(AcceptError::HeaderEnded(error)),
        }
    }
}
