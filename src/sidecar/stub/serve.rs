//! How questions come in and answers go out: datagrams and connections (RFC 1035 §4.2, RFC 7766).
//!
//! Every question is answered by itself, so a slow one holds up no other; the number at work at once is bounded, and
//! beyond it the answer is SERVFAIL at once. Dropping the future of [`Stub::serve`] ends all of it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::answer::{Answerer, without_ourselves};
use super::metrics::Proto;
use super::upstream::Upstream;
use super::{Computed, StandIns, StubMetrics};
use crate::net::dns_client::{DnsClient, Transport};
use crate::net::listen;
use crate::ops::metrics::Reason;
use crate::sidecar::resolve::Resolver;
use crate::sidecar::resolve::seldom::Seldom;

/// Questions at work at once, of all transports. Each may hold a descriptor or two while it waits for upstream, and the
/// usual limit for all that a process does is 1,024; connections need the rest.
const MOST_QUESTIONS: usize = 256;
/// Connections at once.
const MOST_CONNECTIONS: usize = 256;
/// Questions of one connection at work at once; further ones wait in the socket.
const MOST_PIPELINED: usize = 64;
/// How long a connection may be idle, or take to send a question or to read an answer (RFC 7766 §6.2.3).
const IDLE: Duration = Duration::from_secs(10);
/// How long nothing is accepted when there is no room for a connection (no descriptor left, say).
const PAUSE: Duration = Duration::from_millis(100);
/// How often a free port is looked for that is free on all addresses and transports.
const PORT_ATTEMPTS: usize = 16;
/// How long to wait after a failed receive: long enough not to spin, short enough not to be noticed.
const AFTER_FAILED_RECEIVE: Duration = Duration::from_millis(1);
const LONGEST_MESSAGE: usize = 65_535;

/// What the stub serves from.
#[derive(Debug)]
pub struct Parts {
    /// Answers for names below Peak's zones.
    pub resolver: Resolver,
    /// What services get instead of their addresses.
    pub stand_ins: Arc<StandIns>,
    /// Name servers for all other names, best first.
    pub upstream: Vec<SocketAddr>,
    /// Asks them.
    pub client: DnsClient,
    /// How long past its TTL what they said is given while none of them answers.
    pub stale: Duration,
    /// Computes addresses for services, where programs are to see them. None: they get stand-ins.
    pub computed: Option<Computed>,
    /// What is counted.
    pub metrics: StubMetrics,
}

/// The application's DNS server, listening.
#[derive(Debug)]
pub struct Stub {
    answerer: Arc<Answerer>,
    sockets: Vec<(UdpSocket, TcpListener)>,
    addr: SocketAddr,
}

impl Stub {
    /// Binds both transports at `listen`; questions wait in the sockets until [`Stub::serve`].
    ///
    /// An unspecified address (`[::]`, `0.0.0.0`) stands for the loopback addresses, `::1` and `127.0.0.1`: the pod's
    /// redirect brings every question there, an answer leaves from the address that was asked, and nobody outside the
    /// pod has a resolver to abuse. Any other address is bound as it is given. Port 0 takes a free one.
    ///
    /// # Errors
    /// Whatever bind(2) refuses; for an unspecified address only when neither loopback address can be bound.
    pub fn bind(listen: SocketAddr, parts: Parts) -> io::Result<Self> {
        Self::over(bind_free(listen)?, parts)
    }

    /// The same over sockets that were bound before: what [`Stub::sockets`] gave.
    ///
    /// # Errors
    /// When there are none.
    pub(in crate::sidecar) fn over(sockets: Vec<(UdpSocket, TcpListener)>, parts: Parts) -> io::Result<Self> {
        let ours: Vec<_> = sockets.iter().filter_map(|(udp, _)| udp.local_addr().ok()).collect();
        let addr = *ours.first().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let upstream = Upstream::new(
            without_ourselves(parts.upstream, &ours),
            parts.client,
            parts.stale,
            parts.metrics.upstream(),
        );
        let answerer = Answerer {
            resolver: parts.resolver,
            stand_ins: parts.stand_ins,
            computed: parts.computed,
            upstream,
            metrics: parts.metrics,
            no_stand_in: Seldom::default(),
        };
        Ok(Self { answerer: Arc::new(answerer), sockets, addr })
    }

    /// An address where questions are taken, with the port in fact bound.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where questions arrive: over UDP and TCP, in turns.
    pub(in crate::sidecar) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().flat_map(|(udp, tcp)| [udp.as_fd(), tcp.as_fd()])
    }

    /// Answers until the future is dropped.
    pub async fn serve(self) {
        let limits = Limits {
            questions: Arc::new(Semaphore::new(MOST_QUESTIONS)),
            connections: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
        };
        let mut servers = JoinSet::new();
        for (udp, tcp) in self.sockets {
            servers.spawn(datagrams(self.answerer.clone(), Arc::new(udp), limits.clone()));
            servers.spawn(connections(self.answerer.clone(), tcp, limits.clone()));
        }
        while servers.join_next().await.is_some() {}
    }
}

#[derive(Clone)]
struct Limits {
    questions: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

fn bind_free(listen: SocketAddr) -> io::Result<Vec<(UdpSocket, TcpListener)>> {
    let attempts = if listen.port() == 0 { PORT_ATTEMPTS } else { 1 };
    let mut outcome = bind_all(listen);
    for _ in 1..attempts {
        match outcome {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => outcome = bind_all(listen),
            Ok(_) | Err(_) => break,
        }
    }
    outcome
}

/// Binds every address that `listen` stands for to one port, UDP and TCP.
fn bind_all(listen: SocketAddr) -> io::Result<Vec<(UdpSocket, TcpListener)>> {
    if !listen.ip().is_unspecified() {
        return Ok(vec![bind_pair(listen)?]);
    }
    let mut sockets = Vec::new();
    let mut port = listen.port();
    let mut refused = None;
    for ip in [IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::LOCALHOST)] {
        match bind_pair(SocketAddr::new(ip, port)) {
            Ok(pair) => {
                port = pair.0.local_addr()?.port();
                sockets.push(pair);
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            // A pod may lack one family.
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        Some(error) if sockets.is_empty() => Err(error),
        Some(_) | None => Ok(sockets),
    }
}

fn bind_pair(addr: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let tcp = listen::tcp(addr)?;
    let udp = listen::udp(tcp.local_addr()?)?;
    Ok((udp, tcp))
}

async fn datagrams(answerer: Arc<Answerer>, socket: Arc<UdpSocket>, limits: Limits) {
    let mut at_work = JoinSet::new();
    let mut datagram = vec![0; LONGEST_MESSAGE];
    loop {
        while at_work.try_join_next().is_some() {}
        let (length, from) = match socket.recv_from(&mut datagram).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "the stub could not receive a datagram");
                sleep(AFTER_FAILED_RECEIVE).await;
                continue;
            }
        };
        let query = &datagram[..length];
        match limits.questions.clone().try_acquire_owned() {
            Ok(room) => {
                at_work.spawn(answer_datagram(answerer.clone(), socket.clone(), query.to_vec(), from, room));
            }
            Err(_) => {
                if let Some(answer) = answerer.too_busy(query, Proto::Udp) {
                    let _lost_like_any_datagram = socket.try_send_to(&answer, from);
                }
            }
        }
    }
}

async fn answer_datagram(
    answerer: Arc<Answerer>,
    socket: Arc<UdpSocket>,
    query: Vec<u8>,
    from: SocketAddr,
    _room: OwnedSemaphorePermit,
) {
    if let Some(answer) = answerer.answer(&query, Transport::Udp).await
        && let Err(error) = socket.send_to(&answer, from).await
    {
        tracing::debug!(%error, "an answer could not be sent");
    }
}

async fn connections(answerer: Arc<Answerer>, listener: TcpListener, limits: Limits) {
    let mut open = JoinSet::new();
    let warning = Seldom::default();
    loop {
        while open.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                if let Some(left_out) = warning.due(Instant::now()) {
                    tracing::warn!(%error, left_out, "the stub cannot accept a connection now");
                }
                sleep(PAUSE).await;
                continue;
            }
        };
        match limits.connections.clone().try_acquire_owned() {
            Ok(room) => {
                open.spawn(connection(answerer.clone(), stream, limits.questions.clone(), room));
            }
            Err(_) => answerer.metrics.dropped.increment(&Reason("too-many-connections")),
        }
    }
}

/// One connection: questions are taken one after another, answers go out as they are ready.
async fn connection(
    answerer: Arc<Answerer>,
    stream: TcpStream,
    questions: Arc<Semaphore>,
    _room: OwnedSemaphorePermit,
) {
    let _a_delay_at_worst = stream.set_nodelay(true);
    let (mut incoming, outgoing) = stream.into_split();
    let outgoing = Arc::new(Mutex::new(outgoing));
    let mut at_work = JoinSet::new();
    while let Some(query) = next_question(&mut incoming).await {
        while at_work.len() >= MOST_PIPELINED || at_work.try_join_next().is_some() {
            if at_work.len() >= MOST_PIPELINED {
                at_work.join_next().await;
            }
        }
        // The socket holds back whoever asks faster than there is room.
        let Ok(room) = questions.clone().acquire_owned().await else { return };
        at_work.spawn(answer_on(answerer.clone(), outgoing.clone(), query, room));
    }
    // Who has closed its side may still read what it asked for.
    while at_work.join_next().await.is_some() {}
}

/// The next question; none when the peer has closed, is too slow, or breaks off.
async fn next_question(incoming: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    let read = async {
        let length = incoming.read_u16().await?;
        let mut query = vec![0; usize::from(length)];
        incoming.read_exact(&mut query).await?;
        io::Result::Ok(query)
    };
    timeout(IDLE, read).await.ok()?.ok()
}

async fn answer_on(
    answerer: Arc<Answerer>,
    outgoing: Arc<Mutex<OwnedWriteHalf>>,
    query: Vec<u8>,
    _room: OwnedSemaphorePermit,
) {
    let Some(answer) = answerer.answer(&query, Transport::Tcp).await else { return };
    let Ok(length) = u16::try_from(answer.len()) else { return };
    let mut framed = Vec::with_capacity(answer.len() + 2);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(&answer);
    let mut outgoing = outgoing.lock().await;
    let written = timeout(IDLE, outgoing.write_all(&framed)).await;
    if !matches!(written, Ok(Ok(()))) {
        // Half an answer would put every later one out of step.
        let _closed_either_way = outgoing.shutdown().await;
    }
}
