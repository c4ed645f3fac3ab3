//! One question to one name server, and its answer.
//!
//! Owns the exchange alone: a fresh socket and a fresh id for each question (RFC 5452 §9), the match of answer to
//! question, TCP where UDP was cut short, the time allowed. Which server to ask, and whether to ask again, is the
//! caller's: nothing here retries.
//!
//! The exchange is ours and not hickory's for three reasons. The stub passes questions and answers on octet for octet,
//! and hickory's client sends and gives decoded messages. One record that hickory cannot decode makes it refuse the
//! whole answer, while a malformed rule among good ones must be left out alone (SSA.md §1). And a pod's redirect may
//! exempt the sidecar by socket mark, which has to be on every socket before it connects. What hickory-resolver does
//! serve is reading `/etc/resolv.conf`: [`system_servers`].

mod system;

pub use system::{NoSystemServers, servers_of, system_servers};

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type as SocketType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::connect;
use crate::wire::dns::{Message, Question, WireError};

/// The longest DNS message (RFC 1035 §4.2.2: the length has two octets).
const LONGEST_MESSAGE: usize = 65_535;
const HEADER_OCTETS: usize = 12;
/// TC, in the third octet.
const TRUNCATED: u8 = 0x02;

/// What carries a question.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Transport {
    /// One datagram each way.
    Udp,
    /// A connection for this one question (RFC 7766).
    Tcp,
}

/// Why a name server gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Silence.
    #[error("{server} did not answer within {} ms", .within.as_millis())]
    Timeout {
        /// Who was asked.
        server: SocketAddr,
        /// How long it had.
        within: Duration,
    },
    /// There is no socket to ask by: no descriptor left, or no right to set the mark. Says nothing about the server.
    #[error("no socket to ask {server} by: {cause}; raise the descriptor limit, or grant CAP_NET_ADMIN for the mark")]
    NoSocket {
        /// Who would have been asked.
        server: SocketAddr,
        /// What the kernel says.
        #[source]
        cause: io::Error,
    },
    /// The network or the server refused: nothing listens there, no route, the connection broke.
    #[error("cannot ask {server}: {cause}")]
    Io {
        /// Who was asked.
        server: SocketAddr,
        /// What the kernel says.
        #[source]
        cause: io::Error,
    },
    /// It answered, with what is no DNS message.
    #[error("{server} answered with no DNS message: {cause}")]
    Malformed {
        /// Who was asked.
        server: SocketAddr,
        /// The first fault.
        #[source]
        cause: WireError,
    },
    /// What was to be sent is no DNS message with one question.
    #[error("what was to be asked of {server} holds no question")]
    NoQuestion {
        /// Who would have been asked.
        server: SocketAddr,
    },
}

impl AskError {
    /// The stable word for metrics and logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Timeout { .. } => "timeout",
            Self::NoSocket { .. } => "no-socket",
            Self::Io { .. } => "io",
            Self::Malformed { .. } => "malformed",
            Self::NoQuestion { .. } => "no-question",
        }
    }
}

/// Asks name servers. Holds no socket between questions, so it costs nothing to copy.
#[derive(Clone, Copy, Debug)]
pub struct DnsClient {
    mark: Option<u32>,
    draw: fn() -> u128,
}

impl DnsClient {
    /// A client whose sockets carry `mark` (`SO_MARK`, needs CAP_NET_ADMIN), with ids from `draw`, which gives 128
    /// unpredictable bits a call.
    #[must_use]
    pub fn new(mark: Option<u32>, draw: fn() -> u128) -> Self {
        Self { mark, draw }
    }

    /// Asks one question, recursion not desired; over TCP when the answer does not fit a datagram of 1,232 octets.
    ///
    /// # Errors
    /// See [`AskError`]; `within` bounds the whole call.
    pub async fn ask(&self, server: SocketAddr, question: &Question, within: Duration) -> Result<Message, AskError> {
        let deadline = Instant::now() + within;
        let mut query = Message::query(0, question.name.clone(), question.rtype);
        query.questions[0].class = question.class;
        let query = query.encode(LONGEST_MESSAGE);
        let mut answer = self.exchange(Transport::Udp, server, &query, within).await?;
        let is_cut_short = answer.get(2).is_some_and(|flags| flags & TRUNCATED != 0);
        if is_cut_short {
            let left = deadline.saturating_duration_since(Instant::now());
            answer = self.exchange(Transport::Tcp, server, &query, left).await?;
        }
        Message::parse(&answer).map_err(|cause| AskError::Malformed { server, cause })
    }

    /// Sends the message `query` under an id of its own and gives the answer under the id that `query` has; every other
    /// octet of both stands as it came.
    ///
    /// An answer is what comes from `server` with the id sent, the response bit set and the same question (RFC 5452
    /// §9.1); anything else that arrives is ignored. A cancelled call closes its socket.
    ///
    /// # Errors
    /// See [`AskError`]; `within` bounds the whole call.
    pub async fn exchange(
        &self,
        transport: Transport,
        server: SocketAddr,
        query: &[u8],
        within: Duration,
    ) -> Result<Vec<u8>, AskError> {
        let asked = Asked::new(query, (self.draw)() as u16).ok_or(AskError::NoQuestion { server })?;
        let deadline = Instant::now() + within;
        let exchange = async {
            match transport {
                Transport::Udp => {
                    let socket = self.udp_socket(server).map_err(|cause| AskError::NoSocket { server, cause })?;
                    over_udp(socket, server, &asked).await
                }
                Transport::Tcp => self.over_tcp(server, &asked, deadline).await,
            }
            .map_err(|cause| AskError::Io { server, cause })
        };
        let mut answer = timeout_at(deadline, exchange).await.map_err(|_| AskError::Timeout { server, within })??;
        answer[..2].copy_from_slice(&query[..2]);
        Ok(answer)
    }

    async fn over_tcp(&self, server: SocketAddr, asked: &Asked, deadline: Instant) -> io::Result<Vec<u8>> {
        let mut stream = connect::tcp(server, self.mark, deadline).await?;
        let mut framed = Vec::with_capacity(asked.message.len() + 2);
        // A query came in with a length of two octets, or was made by us and is short.
        let length = u16::try_from(asked.message.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        framed.extend_from_slice(&length.to_be_bytes());
        framed.extend_from_slice(&asked.message);
        stream.write_all(&framed).await?;
        loop {
            let length = stream.read_u16().await?;
            let mut answer = vec![0; usize::from(length)];
            stream.read_exact(&mut answer).await?;
            if asked.is_answered_by(&answer) {
                return Ok(answer);
            }
        }
    }

    /// An unbound socket; connecting it picks the source port at random (RFC 5452 §9.2).
    fn udp_socket(&self, server: SocketAddr) -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::for_address(server), SocketType::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        if let Some(mark) = self.mark {
            socket.set_mark(mark)?;
        }
        UdpSocket::from_std(socket.into())
    }
}

/// Connects first, so that the kernel drops what comes from elsewhere and reports an unreachable port at once.
async fn over_udp(socket: UdpSocket, server: SocketAddr, asked: &Asked) -> io::Result<Vec<u8>> {
    socket.connect(server).await?;
    socket.send(&asked.message).await?;
    loop {
        let mut answer = Vec::with_capacity(LONGEST_MESSAGE);
        socket.recv_buf(&mut answer).await?;
        if asked.is_answered_by(&answer) {
            answer.shrink_to_fit();
            return Ok(answer);
        }
    }
}

/// A question as it was sent, to know its answer by.
struct Asked {
    message: Vec<u8>,
    /// Where the one question ends.
    question_end: usize,
}

impl Asked {
    fn new(query: &[u8], id: u16) -> Option<Self> {
        let question_end = end_of_question(query)?;
        let mut message = query.to_vec();
        message[..2].copy_from_slice(&id.to_be_bytes());
        Some(Self { message, question_end })
    }

    fn is_answered_by(&self, answer: &[u8]) -> bool {
        let Some(header) = answer.get(..HEADER_OCTETS) else {
            return false;
        };
        let is_response = header[2] & 0x80 != 0;
        let same_opcode = header[2] & 0x78 == self.message[2] & 0x78;
        if header[..2] != self.message[..2] || !is_response || !same_opcode {
            return false;
        }
        // A server that could not read the question may leave it out (RFC 8906 §3); it cannot answer it, then.
        let without_question = header[4..6] == [0, 0] && answer.len() == HEADER_OCTETS && header[3] & 0x0f != 0;
        let question = &self.message[HEADER_OCTETS..self.question_end];
        without_question
            || header[4..6] == [0, 1]
                // Length octets are below 64 and type and class are compared exactly below, so folding ASCII is safe.
                && answer.get(HEADER_OCTETS..self.question_end).is_some_and(|echoed| same_question(echoed, question))
    }
}

/// Names compare without case (RFC 4343), type and class as they are.
fn same_question(a: &[u8], b: &[u8]) -> bool {
    let (name_a, kind_a) = a.split_at(a.len() - 4);
    let (name_b, kind_b) = b.split_at(b.len() - 4);
    name_a.eq_ignore_ascii_case(name_b) && kind_a == kind_b
}

/// Where the question section ends, when it holds exactly one question, uncompressed as RFC 1035 §4.1.2 has it.
fn end_of_question(message: &[u8]) -> Option<usize> {
    if message.get(4..6)? != [0, 1] {
        return None;
    }
    let mut at = HEADER_OCTETS;
    loop {
        let length = usize::from(*message.get(at)?);
        at += length + 1;
        match length {
            0 => break,
            1..=63 => {}
            _ => return None,
        }
    }
    let end = at + 4;
    (end <= message.len()).then_some(end)
}

#[cfg(test)]
mod tests;
