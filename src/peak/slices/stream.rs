//! One sidecar's connection: TLS, who it is, then its words to the desk and the desk's words to it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::word::{StreamId, Word};
use crate::model::registry::lease::Registration;
use crate::model::token::{Caller, CallerPattern, Unacceptable};
use crate::model::{Name, UnixSeconds};
use crate::net::tls::{self, First, HandshakeError, HelloError, ServerStream, ServerTls};
use crate::ops::clock;
use crate::trust::{LEEWAY, Unverifiable, Verifier};
use crate::wire::lease::{self, FrameError, FromPeak, FromSidecar, PROTOCOL, Register};

/// How long a sidecar has for its handshake and its registration.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many words may wait for a sidecar that does not read; one more ends the connection.
pub(super) const WAITING: usize = 64;

/// Why a connection ends. One cause, one variant.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    /// It does not begin with TLS.
    #[error("it speaks no TLS")]
    Plaintext,
    /// It does not ask for leases.
    #[error("it does not offer the protocol {PROTOCOL}")]
    Protocol,
    /// Its first octets.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// The handshake.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// It took too long.
    #[error("no registration within {} s", PATIENCE.as_secs())]
    TooSlow,
    /// It ended.
    #[error("it ended: {0}")]
    Ended(std::io::Error),
    /// A frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A message where it makes no sense.
    #[error("a message out of its order")]
    Order,
    /// The token.
    #[error(transparent)]
    Token(#[from] Unverifiable),
    /// The service's slices are not leased, or not to this workload.
    #[error("{workload} may not serve {service}")]
    NotAllowed {
        /// Who asks.
        workload: Box<str>,
        /// For what.
        service: Name,
    },
    /// It comes over IPv4 and gives no address.
    #[error("it comes from {0}, and slices are IPv6: give lease.address")]
    NotIpv6(SocketAddr),
    /// The desk has ended it.
    #[error("the lease is another connection's, or this node leads no longer")]
    Dropped,
}

impl StreamError {
    /// The stable label of metrics and logs.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Plaintext => "lease-plaintext",
            Self::Protocol => "lease-protocol",
            Self::Hello(error) => error.reason(),
            Self::Handshake(error) => error.reason(),
            Self::TooSlow => "lease-too-slow",
            Self::Ended(_) => "lease-ended",
            Self::Frame(error) => error.reason(),
            Self::Order => "lease-out-of-order",
            Self::Token(error) => error.reason(),
            Self::NotAllowed { .. } => "lease-not-allowed",
            Self::NotIpv6(_) => "lease-not-ipv6",
            Self::Dropped => "lease-dropped",
        }
    }
}

/// What all connections are judged by.
pub(super) struct Gate {
    pub(super) tls: ServerTls,
    /// What Peak proves, and the audience of tokens.
    pub(super) name: Name,
    pub(super) verifier: Arc<Verifier>,
    /// Who may serve what.
    pub(super) services: Vec<(Name, Vec<CallerPattern>)>,
}

impl Gate {
    fn verify(&self, token: &[u8], now: UnixSeconds) -> Result<Caller, StreamError> {
        Ok(self.verifier.verify(Some(token), &self.name, now)?)
    }

    fn may_serve(&self, caller: &Caller, service: &Name) -> Result<(), StreamError> {
        let listed = self.services.iter().find(|(name, _)| name == service);
        if listed.is_some_and(|(_, pods)| pods.iter().any(|pattern| pattern.matches(caller.id()))) {
            return Ok(());
        }
        Err(StreamError::NotAllowed { workload: caller.id().as_str().into(), service: service.clone() })
    }
}

/// Carries one connection to its end.
pub(super) async fn carry(
    gate: Arc<Gate>,
    tcp: TcpStream,
    peer: SocketAddr,
    stream: StreamId,
    desk: mpsc::Sender<Word>,
) -> StreamError {
    match timeout(PATIENCE, introduced(&gate, tcp)).await {
        Err(_) => StreamError::TooSlow,
        Ok(Err(error)) => error,
        Ok(Ok((mut frames, register))) => {
            let error = talk(&gate, &mut frames, *register, peer, stream, &desk).await;
            // Whoever is refused is told why; whoever has gone hears nothing.
            let reason = error.reason().into();
            let _ = timeout(PATIENCE, frames.say(&FromPeak::Refused { reason })).await;
            let _ = desk.send(Word::Gone { stream }).await;
            error
        }
    }
}

async fn introduced(gate: &Gate, tcp: TcpStream) -> Result<(Frames, Box<Register>), StreamError> {
    let hello = match tls::first_octets(tcp).await? {
        First::Tls(hello) if hello.offers(PROTOCOL) => hello,
        First::Tls(_) => return Err(StreamError::Protocol),
        First::Other(..) => return Err(StreamError::Plaintext),
    };
    let mut frames = Frames { stream: gate.tls.accept(hello, PROTOCOL).await?, octets: Vec::new() };
    match frames.next().await? {
        FromSidecar::Register(register) => Ok((frames, register)),
        FromSidecar::Renew { .. }
        | FromSidecar::Report { .. }
        | FromSidecar::Wait { .. }
        | FromSidecar::Drain
        | FromSidecar::Return => Err(StreamError::Order),
    }
}

async fn talk(
    gate: &Gate,
    frames: &mut Frames,
    register: Register,
    peer: SocketAddr,
    stream: StreamId,
    desk: &mpsc::Sender<Word>,
) -> StreamError {
    let (registration, mut until) = match registration(gate, &register, peer) {
        Ok(judged) => judged,
        Err(error) => return error,
    };
    let subject = registration.workload.clone();
    let (out, mut words) = mpsc::channel(WAITING);
    let came = Word::Came { stream, registration, services: register.services, out };
    if desk.send(came).await.is_err() {
        return StreamError::Dropped;
    }
    loop {
        let heard = tokio::select! {
            heard = frames.next() => heard,
            word = words.recv() => {
                let Some(word) = word else { return StreamError::Dropped };
                match frames.say(&word).await {
                    Ok(()) => continue,
                    Err(error) => return error,
                }
            }
        };
        let word = match heard {
            Ok(FromSidecar::Register(_)) => return StreamError::Order,
            Ok(FromSidecar::Renew { number, token, load }) => {
                let now = clock::now();
                if let Some(token) = token {
                    match gate.verify(&token.0, now) {
                        Ok(caller) if caller.id().as_str() == &*subject => until = caller.until(),
                        Ok(_) => return StreamError::Order,
                        Err(error) => return error,
                    }
                }
                if now.0 >= until.0.saturating_add(LEEWAY.as_secs()) {
                    let ago = Duration::from_secs(now.0.saturating_sub(until.0));
                    return Unverifiable::Claims(Unacceptable::Expired { ago }).into();
                }
                Word::Renewed { stream, number, at: Instant::now(), load }
            }
            Ok(FromSidecar::Report { service, handover, reported }) => {
                Word::Reported { stream, service, handover, reported }
            }
            Ok(FromSidecar::Wait { service, handover, waits }) => Word::Waits { stream, service, handover, waits },
            Ok(FromSidecar::Drain) => Word::Drains { stream },
            Ok(FromSidecar::Return) => Word::Returns { stream },
            Err(error) => return error,
        };
        if desk.send(word).await.is_err() {
            return StreamError::Dropped;
        }
    }
}

/// What the sidecar is registered as, and until when its token is good.
fn registration(
    gate: &Gate,
    register: &Register,
    peer: SocketAddr,
) -> Result<(Registration, UnixSeconds), StreamError> {
    let caller = gate.verify(&register.token.0, clock::now())?;
    for service in &register.services {
        gate.may_serve(&caller, service)?;
    }
    let (address, port) = register.inbound;
    let address = match (address, peer.ip().to_canonical()) {
        (Ipv6Addr::UNSPECIFIED, IpAddr::V6(seen)) => seen,
        (Ipv6Addr::UNSPECIFIED, IpAddr::V4(_)) => return Err(StreamError::NotIpv6(peer)),
        (given, _) => given,
    };
    let registration = Registration {
        holder: register.holder,
        workload: caller.id().as_str().into(),
        instance: register.instance.clone(),
        node: register.node,
        address: SocketAddrV6::new(address, port, 0, 0),
        weight: register.weight,
        services: register.services.iter().cloned().collect(),
    };
    Ok((registration, caller.until()))
}

/// The frames of one connection.
struct Frames {
    stream: ServerStream,
    octets: Vec<u8>,
}

impl Frames {
    /// The next message. Cancel safe: what has been read stays.
    async fn next(&mut self) -> Result<FromSidecar, StreamError> {
        loop {
            if let Some((message, length)) = lease::decode(&self.octets)? {
                self.octets.drain(..length);
                if self.octets.is_empty() {
                    // A sidecar that only renews keeps no buffer here.
                    self.octets = Vec::new();
                }
                return Ok(message);
            }
            match self.stream.read_buf(&mut self.octets).await {
                Ok(0) => return Err(StreamError::Ended(std::io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) => return Err(StreamError::Ended(error)),
            }
        }
    }

    async fn say(&mut self, word: &FromPeak) -> Result<(), StreamError> {
        let frame = lease::encode(word);
        self.stream.write_all(&frame).await.map_err(StreamError::Ended)?;
        self.stream.flush().await.map_err(StreamError::Ended)
    }
}
