//! One request to another name server and its replies: over UDP or TCP, signed where there is a key.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;

use super::keys::NamedKey;
use crate::net::listen;
use crate::ops::{clock, entropy};
use crate::wire::dns::tsig::{Asking, Key, TsigError};
use crate::wire::dns::{Message, WireError};

/// The most that a message can have (RFC 1035 §4.2.2).
const MOST: usize = 65_535;

/// Another server.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// Our own address that it knows us by; none: whatever the route says.
    pub(super) source: Option<IpAddr>,
    /// What signs all that goes to it and comes from it.
    pub(super) key: Option<NamedKey>,
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    /// The network's, or nobody there.
    #[error("it cannot be reached: {0}")]
    Network(#[from] io::Error),
    /// A reply that is none.
    #[error("its reply cannot be read: {0}")]
    Wire(#[from] WireError),
    /// A signature that does not hold.
    #[error(transparent)]
    Tsig(#[from] TsigError),
}

impl ExchangeError {
    /// A stable label for metrics and logs.
    pub(super) const fn reason(&self) -> &'static str {
        match self {
            Self::Network(_) => "network",
            Self::Wire(error) => error.reason(),
            Self::Tsig(error) => error.reason(),
        }
    }

    pub(super) fn timed_out() -> Self {
        io::Error::from(io::ErrorKind::TimedOut).into()
    }
}

impl Peer {
    /// What signs, as it is now.
    pub(super) fn key(&self) -> Option<Arc<Key>> {
        self.key.as_ref().and_then(NamedKey::now)
    }
}

/// A request with an id that nobody can guess, signed where there is a key.
pub(super) struct Request {
    pub(super) id: u16,
    pub(super) octets: Vec<u8>,
    asking: Option<Asking>,
}

impl Request {
    pub(super) fn new(key: Option<&Arc<Key>>, mut message: Message) -> Self {
        let id = entropy::draw() as u16;
        message.header.id = id;
        let mut octets = message.encode(MOST);
        let asking = key.map(|key| Asking::sign(key, &mut octets, clock::now()));
        Self { id, octets, asking }
    }

    /// The request to this server.
    pub(super) fn to(peer: &Peer, message: Message) -> Self {
        Self::new(peer.key().as_ref(), message)
    }

    /// The reply, its signature checked.
    ///
    /// # Errors
    /// What is no reply, and a signature that does not hold.
    pub(super) fn read(&mut self, octets: &[u8]) -> Result<Message, ExchangeError> {
        let message = match &mut self.asking {
            Some(asking) => Message::parse(&asking.verify(octets, clock::now())?)?,
            None => Message::parse(octets)?,
        };
        Ok(message)
    }

    /// Ends a transfer: its last message was signed.
    ///
    /// # Errors
    /// It was not.
    pub(super) fn finish(&self) -> Result<(), ExchangeError> {
        Ok(self.asking.as_ref().map_or(Ok(()), Asking::finish)?)
    }
}

/// Asks over UDP, and waits for ever.
///
/// # Errors
/// The network's, or the reply's.
pub(super) async fn over_udp(peer: &Peer, message: Message) -> Result<Message, ExchangeError> {
    let mut request = Request::to(peer, message);
    let socket = socket_to(peer.address, peer.source)?;
    socket.connect(peer.address).await?;
    socket.send(&request.octets).await?;
    let mut octets = vec![0; MOST];
    loop {
        let length = socket.recv(&mut octets).await?;
        // Anybody can send a datagram that is no reply to this.
        if octets[..length].first_chunk() == Some(&request.id.to_be_bytes()) {
            let reply = request.read(&octets[..length])?;
            if reply.header.response {
                return Ok(reply);
            }
        }
    }
}

/// A socket at a free port of `source`, where that is of the family of `peer`, else of any address.
///
/// # Errors
/// socket(2) and bind(2).
pub(super) fn socket_to(peer: SocketAddr, source: Option<IpAddr>) -> io::Result<UdpSocket> {
    let any = if peer.is_ipv6() { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    let source = source.filter(|source| source.is_ipv6() == peer.is_ipv6()).unwrap_or(any);
    listen::udp(SocketAddr::new(source, 0))
}

/// A connection that carries messages, each after its length (RFC 1035 §4.2.2).
pub(super) struct Connection {
    stream: TcpStream,
    /// How long one message may take.
    patience: Duration,
}

impl Connection {
    /// Connects within `connect`; then each message may take `patience`.
    ///
    /// # Errors
    /// Nobody there, or too slow.
    pub(super) async fn open(
        address: SocketAddr,
        source: Option<IpAddr>,
        connect: Duration,
        patience: Duration,
    ) -> Result<Self, ExchangeError> {
        let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
        if let Some(source) = source.filter(|source| source.is_ipv6() == address.is_ipv6()) {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        socket.set_nodelay(true)?;
        let stream = timeout(connect, socket.connect(address)).await.map_err(|_| ExchangeError::timed_out())??;
        Ok(Self { stream, patience })
    }

    /// Sends one message.
    ///
    /// # Errors
    /// The connection's, or it does not take it in time.
    pub(super) async fn send(&mut self, message: &[u8]) -> Result<(), ExchangeError> {
        let length = u16::try_from(message.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let framed = [&length.to_be_bytes(), message].concat();
        Ok(timeout(self.patience, self.stream.write_all(&framed)).await.map_err(|_| ExchangeError::timed_out())??)
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// The connection's, or it does not come in time.
    pub(super) async fn receive(&mut self) -> Result<Vec<u8>, ExchangeError> {
        let stream = &mut self.stream;
        let reading = async {
            let length = stream.read_u16().await?;
            let mut message = vec![0; usize::from(length)];
            stream.read_exact(&mut message).await?;
            Ok::<_, io::Error>(message)
        };
        Ok(timeout(self.patience, reading).await.map_err(|_| ExchangeError::timed_out())??)
    }
}
