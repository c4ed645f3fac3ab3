//! Asking a primary: for its serial, and for the zone.

use std::time::Duration;

use tokio::time::timeout;

use crate::model::Name;
use crate::model::zone::{DeltaError, Entry};
use crate::peak::exchange::{Connection, ExchangeError, Peer, Request, over_udp};
use crate::peak::transfer::collect::{CollectError, Collected, Collector};
use crate::wire::dns::tsig::TsigError;
use crate::wire::dns::{Message, Rcode, Record, Type};

/// How long a primary has for a datagram's answer, and how often it is asked over UDP before TCP is tried.
const PATIENCE: Duration = Duration::from_secs(2);
const DATAGRAMS: usize = 2;

/// How long a connection may take, and a message of a transfer.
const CONNECT: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(30);

/// Why a primary is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// There is no reply.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
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
            Self::Exchange(error) => error.reason(),
            Self::NoSoa(_) => "no-soa",
            Self::Collect(error) => error.reason(),
            Self::Delta(error) => error.reason(),
            Self::Unservable { .. } => "unservable",
            Self::Interrupted => "interrupted",
        }
    }
}

/// The serial that the primary has.
pub(super) async fn serial(primary: &Peer, apex: &Name) -> Result<u32, AskError> {
    let question = || Message::query(0, apex.clone(), Type::SOA);
    for _ in 0..DATAGRAMS {
        match timeout(PATIENCE, over_udp(primary, question())).await {
            Ok(Ok(reply)) if !reply.header.truncated => return soa_serial(&reply, apex),
            // Refused signatures are refused over TCP as well.
            Ok(Err(error @ ExchangeError::Tsig(TsigError::Peer(_)))) => return Err(error.into()),
            Ok(Ok(_) | Err(_)) => break,
            Err(_) => {}
        }
    }
    let mut request = Request::to(primary, question());
    let mut connection = connected(primary).await?;
    connection.send(&request.octets).await?;
    let octets = connection.receive().await?;
    soa_serial(&request.read(&octets)?, apex)
}

fn soa_serial(reply: &Message, apex: &Name) -> Result<u32, AskError> {
    let soa = reply.answers.iter().find(|record| record.rtype == Type::SOA && record.name == *apex);
    let serial = soa.and_then(|soa| soa.rdata[soa.rdata.len().checked_sub(20)?..].first_chunk().copied());
    serial.map(u32::from_be_bytes).ok_or(AskError::NoSoa(reply.header.rcode))
}

/// Transfers the zone: what differs from the version with this SOA record, or all of it.
pub(super) async fn transfer(primary: &Peer, apex: &Name, held: Option<&Entry>) -> Result<Collected, AskError> {
    let rtype = if held.is_some() { Type::IXFR } else { Type::AXFR };
    let mut message = Message::query(0, apex.clone(), rtype);
    message.authorities =
        held.into_iter().map(|soa| Record::new(soa.name.clone(), Type::SOA, soa.ttl, soa.rdata.clone())).collect();
    let mut request = Request::to(primary, message);
    let had = held.and_then(|soa| soa.rdata[soa.rdata.len().checked_sub(20)?..].first_chunk().copied());
    let mut collector = Collector::new(apex.clone(), request.id, had.map(u32::from_be_bytes));
    let mut connection = connected(primary).await?;
    connection.send(&request.octets).await?;
    while !collector.take(request.read(&connection.receive().await?)?)? {}
    request.finish()?;
    Ok(collector.finish())
}

async fn connected(primary: &Peer) -> Result<Connection, ExchangeError> {
    Connection::open(primary.address, primary.source, CONNECT, IDLE).await
}
