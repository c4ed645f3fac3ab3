//! Asking a primary: for its serial, and for the zone.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout, timeout_at};

use super::Primary;
use crate::model::Name;
use crate::model::zone::{DeltaError, Entry};
use crate::ops::{clock, entropy};
use crate::peak::notify::socket_to;
use crate::peak::transfer::collect::{CollectError, Collected, Collector};
use crate::wire::dns::tsig::{Asking, TsigError};
use crate::wire::dns::{Message, Rcode, Record, Type, WireError};

/// How long a primary has for a datagram's answer, and how often it is asked over UDP before TCP is tried.
const PATIENCE: Duration = Duration::from_secs(2);
const DATAGRAMS: usize = 2;

/// How long a connection may take, and a message of a transfer.
const CONNECT: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(30);

/// The most that a message can have (RFC 1035 §4.2.2).
const MOST: usize = 65_535;

/// Why a primary is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// The network's, or nobody there.
    #[error("it cannot be reached: {0}")]
    Network(#[from] io::Error),
    /// A reply that is none.
    #[error("its reply cannot be read: {0}")]
    Wire(#[from] WireError),
    /// A signature that does not hold.
    #[error(transparent)]
    Tsig(#[from] TsigError),
    /// It does not answer for the zone.
    #[error("it answers {0} and no SOA record")]
    NoSoa(Rcode),
    /// A transfer that is none.
    #[error(transparent)]
    Collect(#[from] CollectError),
    /// Differences that do not fit what is served.
    #[error(transparent)]
    Delta(#[from] DeltaError),
    /// Records that no zone here may hold; each was logged.
    #[error("{faults} of its records cannot be served")]
    Unservable {
        /// How many.
        faults: usize,
    },
    /// The process is about to end.
    #[error("the work was interrupted")]
    Interrupted,
}

impl AskError {
    /// A stable label for metrics and logs.
    pub(super) const fn reason(&self) -> &'static str {
        match self {
            Self::Network(_) => "network",
            Self::Wire(error) => error.reason(),
            Self::Tsig(error) => error.reason(),
            Self::NoSoa(_) => "no-soa",
            Self::Collect(error) => error.reason(),
            Self::Delta(error) => error.reason(),
            Self::Unservable { .. } => "unservable",
            Self::Interrupted => "interrupted",
        }
    }
}

fn timed_out() -> AskError {
    io::Error::from(io::ErrorKind::TimedOut).into()
}

/// A request to a primary, signed where it has a key.
struct Request {
    id: u16,
    octets: Vec<u8>,
    asking: Option<Asking>,
}

impl Request {
    fn new(primary: &Primary, mut message: Message) -> Self {
        let id = entropy::draw() as u16;
        message.header.id = id;
        let mut octets = message.encode(MOST);
        let asking = primary.key.as_ref().map(|key| Asking::sign(key, &mut octets, clock::now()));
        Self { id, octets, asking }
    }

    /// The reply, its signature checked.
    fn read(&mut self, octets: &[u8]) -> Result<Message, AskError> {
        let message = match &mut self.asking {
            Some(asking) => Message::parse(&asking.verify(octets, clock::now())?)?,
            None => Message::parse(octets)?,
        };
        Ok(message)
    }
}

/// The serial that the primary has.
pub(super) async fn serial(primary: &Primary, apex: &Name) -> Result<u32, AskError> {
    let question = || Message::query(0, apex.clone(), Type::SOA);
    for _ in 0..DATAGRAMS {
        match timeout(PATIENCE, over_udp(primary, question())).await {
            Ok(Ok(reply)) if !reply.header.truncated => return soa_serial(&reply, apex),
            // Refused signatures are refused over TCP as well.
            Ok(Err(error @ AskError::Tsig(TsigError::Peer(_)))) => return Err(error),
            Ok(Ok(_) | Err(_)) => break,
            Err(_) => {}
        }
    }
    let mut request = Request::new(primary, question());
    let mut stream = connected(primary).await?;
    send(&mut stream, &request.octets).await?;
    let octets = receive(&mut stream).await?;
    soa_serial(&request.read(&octets)?, apex)
}

fn soa_serial(reply: &Message, apex: &Name) -> Result<u32, AskError> {
    let soa = reply.answers.iter().find(|record| record.rtype == Type::SOA && record.name == *apex);
    let serial = soa.and_then(|soa| soa.rdata[soa.rdata.len().checked_sub(20)?..].first_chunk().copied());
    serial.map(u32::from_be_bytes).ok_or(AskError::NoSoa(reply.header.rcode))
}

async fn over_udp(primary: &Primary, message: Message) -> Result<Message, AskError> {
    let mut request = Request::new(primary, message);
    let socket = socket_to(primary.address, primary.source)?;
    socket.connect(primary.address).await?;
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

/// Transfers the zone: what differs from the version with this SOA record, or all of it.
pub(super) async fn transfer(primary: &Primary, apex: &Name, held: Option<&Entry>) -> Result<Collected, AskError> {
    let rtype = if held.is_some() { Type::IXFR } else { Type::AXFR };
    let mut message = Message::query(0, apex.clone(), rtype);
    message.authorities =
        held.into_iter().map(|soa| Record::new(soa.name.clone(), Type::SOA, soa.ttl, soa.rdata.clone())).collect();
    let mut request = Request::new(primary, message);
    let had = held.and_then(|soa| soa.rdata[soa.rdata.len().checked_sub(20)?..].first_chunk().copied());
    let mut collector = Collector::new(apex.clone(), request.id, had.map(u32::from_be_bytes));
    let mut stream = connected(primary).await?;
    send(&mut stream, &request.octets).await?;
    loop {
        let octets = receive(&mut stream).await?;
        if collector.take(request.read(&octets)?)? {
            break;
        }
    }
    if let Some(asking) = &request.asking {
        asking.finish()?;
    }
    Ok(collector.finish())
}

async fn connected(primary: &Primary) -> Result<TcpStream, AskError> {
    let Primary { address, source, .. } = primary;
    let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
    if let Some(source) = source.filter(|source| source.is_ipv6() == address.is_ipv6()) {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    socket.set_nodelay(true)?;
    Ok(timeout(CONNECT, socket.connect(*address)).await.map_err(|_| timed_out())??)
}

async fn send(stream: &mut TcpStream, message: &[u8]) -> Result<(), AskError> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes();
    let sending = stream.write_all(&[&length, message].concat()).await;
    Ok(sending?)
}

async fn receive(stream: &mut TcpStream) -> Result<Vec<u8>, AskError> {
    let deadline = Instant::now() + IDLE;
    let reading = async {
        let length = stream.read_u16().await?;
        let mut message = vec![0; usize::from(length)];
        stream.read_exact(&mut message).await?;
        Ok::<_, io::Error>(message)
    };
    Ok(timeout_at(deadline, reading).await.map_err(|_| timed_out())??)
}
