//! Fifth phase: a connection on which the service knows who calls.
//!
//! The room where the token modes live side by side: [`Way`] holds what the mode that a rule asks for needs, each mode
//! has its module, and [`Remote`] is what comes out. A mode never falls back to a weaker one.

pub mod http;
pub mod pool;
mod pp2;
pub mod tunnel;

pub use pp2::ALPN as PP2;
pub use tunnel::ALPN as TUNNEL;

use std::io;
use std::net::{Ipv6Addr, SocketAddr};

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use self::http::{Peer, Peers, Wanted};
use self::pool::Bundle;
use self::tunnel::{Lent, Tunnels};
use super::authenticate::Credential;
use super::pick::{Candidates, Picked};
use crate::model::Name;
use crate::net::connect;
use crate::net::tls::{ClientStream, ClientTls, ConnectError};
use crate::sidecar::listener::canonical;
use crate::wire::proxy_header::HeaderTooLong;

/// How to talk to one service: a mode with all that it needs, so that none can be opened without.
#[derive(Clone)]
pub enum Way<'a> {
    /// Whom to believe, the token, and tunnels that are free.
    Tunnel(&'a ClientTls, Credential, &'a Tunnels),
    /// Whom to believe, and the token.
    Pp2(&'a ClientTls, Credential),
    /// Whom to believe, connections that are there, and what HTTP is to be spoken; tokens go with each request.
    Header(&'a ClientTls, &'a Peers, Wanted),
    /// Nothing is needed.
    Plain,
}

/// A connection to a service, ready for the application's bytes.
pub enum Remote {
    /// A tunnel with a stream open; its header goes with the first bytes.
    Tunnel(Box<Lent>),
    /// Behind TLS, and the header that is to go first.
    Pp2(Box<ClientStream>, Vec<u8>),
    /// One that can be asked.
    Http(Box<Peer>),
    /// As it is.
    Plain(TcpStream),
}

impl Remote {
    /// Where it leads, if that may be another address than the one that was picked.
    #[must_use]
    pub fn destination(&self) -> Option<SocketAddr> {
        match self {
            Self::Tunnel(lent) => Some(SocketAddr::V6(lent.destination())),
            Self::Http(peer) => Some(SocketAddr::V6(peer.destination_v6())),
            Self::Pp2(..) | Self::Plain(_) => None,
        }
    }
}

/// Why one candidate gave no connection. The application's bytes have gone nowhere yet.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    /// It did not answer in time.
    #[error("{dst} did not answer in time")]
    TimedOut {
        /// Who.
        dst: SocketAddr,
    },
    /// It could not be connected to.
    #[error("{dst} cannot be connected to: {cause}")]
    Connect {
        /// Who.
        dst: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
    /// The connection comes from another address than the one that the destination was computed from.
    #[error("the connection to {dst} comes from {actual}, not from the address it was computed for")]
    Source {
        /// Who.
        dst: SocketAddr,
        /// Where from.
        actual: Ipv6Addr,
    },
    /// No TLS with it.
    #[error("{dst}: {cause}")]
    Tls {
        /// Who.
        dst: SocketAddr,
        /// Why.
        cause: ConnectError,
    },
    /// No HTTP with it.
    #[error("{dst} cannot be spoken HTTP with: {cause}")]
    Http {
        /// Who.
        dst: SocketAddr,
        /// Why.
        cause: hyper::Error,
    },
    /// The token does not fit into a header.
    #[error(transparent)]
    Header(#[from] HeaderTooLong),
}

impl AttemptError {
    /// The stable label of metrics and logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TimedOut { .. } => "server-timed-out",
            Self::Connect { cause, .. } if cause.kind() == io::ErrorKind::ConnectionRefused => "server-refused",
            Self::Connect { cause, .. } if cause.kind() == io::ErrorKind::PermissionDenied => "mark-not-permitted",
            Self::Connect { .. } => "server-unreachable",
            Self::Source { .. } => "source-changed",
            Self::Tls { cause, .. } => cause.reason(),
            Self::Http { .. } => "server-http-failed",
            Self::Header(_) => "token-too-long",
        }
    }

    /// Whether it says something of the server, rather than of this pod.
    pub(super) fn is_of_the_server(&self) -> bool {
        match self {
            Self::TimedOut { .. } | Self::Http { .. } => true,
            Self::Connect { cause, .. } => cause.kind() != io::ErrorKind::PermissionDenied,
            Self::Tls { cause, .. } => !matches!(cause, ConnectError::Name(_)),
            Self::Source { .. } | Self::Header(_) => false,
        }
    }
}

/// One application connection to be carried.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// The service it is for.
    pub service: &'a Name,
    /// The application's port.
    pub client_port: u16,
    /// Socket mark of our own connections.
    pub mark: Option<u32>,
    /// Whether a tunnel that is there already may carry it.
    pub may_reuse: bool,
}

/// A fresh connection that is to be made: with all that it needs, so that several may be under way beside each other.
pub struct Attempt {
    picked: Picked,
    bundle: Bundle,
    rule: Box<str>,
}

impl Attempt {
    /// An attempt at the picked address.
    #[must_use]
    pub fn at(picked: Picked, service: &Name, candidates: &Candidates) -> Self {
        Self { picked, bundle: Bundle::of(service, candidates, &picked), rule: candidates.rule_text().into() }
    }
}

/// A connection that is there already and serves as well as a fresh one to the picked address.
///
/// # Errors
/// [`AttemptError::Header`].
pub fn reuse(
    way: &Way<'_>,
    call: Call<'_>,
    candidates: &Candidates,
    picked: &Picked,
) -> Option<Result<Remote, AttemptError>> {
    if !call.may_reuse {
        return None;
    }
    let bundle = || Bundle::of(call.service, candidates, picked);
    match way {
        Way::Tunnel(_, credential, pool) => {
            let allowed = |idle: &tunnel::Idle| idle.was_allowed_by(candidates, credential);
            let idle = pool.take(&bundle(), candidates, picked, allowed)?;
            Some(idle.lend(call.client_port).map(|lent| Remote::Tunnel(Box::new(lent))))
        }
        Way::Header(_, pool, wanted) => {
            let peer = Peer::idle(pool, &bundle(), candidates, picked, *wanted)?;
            Some(Ok(Remote::Http(Box::new(peer))))
        }
        Way::Pp2(..) | Way::Plain => None,
    }
}

/// Tries one candidate until `deadline`.
///
/// # Errors
/// [`AttemptError`]; the connection is closed, and neither token nor application bytes were sent unless the server had
/// proved its name.
pub async fn open(way: &Way<'_>, call: Call<'_>, attempt: Attempt, deadline: Instant) -> Result<Remote, AttemptError> {
    let Attempt { picked, bundle, rule } = attempt;
    let dst = picked.destination();
    let opening = async {
        let tcp = connect::tcp(dst, call.mark, deadline).await.map_err(|cause| failed(dst, cause))?;
        comes_from(&tcp, &picked)?;
        match way {
            Way::Tunnel(tls, credential, _) => {
                let opening = tunnel::open(tcp, tls, bundle, &rule, &picked, call.client_port, credential);
                Ok(Remote::Tunnel(Box::new(opening.await?)))
            }
            Way::Pp2(tls, credential) => pp2::open(tcp, tls, call.service, &picked, call.client_port, credential).await,
            Way::Header(tls, _, wanted) => {
                Ok(Remote::Http(Box::new(Peer::open(tcp, tls, bundle, rule, &picked, *wanted).await?)))
            }
            Way::Plain => Ok(Remote::Plain(tcp)),
        }
    };
    timeout_at(deadline, opening).await.unwrap_or(Err(AttemptError::TimedOut { dst }))
}

fn failed(dst: SocketAddr, cause: io::Error) -> AttemptError {
    let timed_out = cause.kind() == io::ErrorKind::TimedOut;
    if timed_out { AttemptError::TimedOut { dst } } else { AttemptError::Connect { dst, cause } }
}

/// The server will hold the destination against the source it sees.
fn comes_from(tcp: &TcpStream, picked: &Picked) -> Result<(), AttemptError> {
    let dst = picked.destination();
    let local = tcp.local_addr().map_err(|cause| AttemptError::Connect { dst, cause })?;
    match canonical(local) {
        SocketAddr::V6(local) if *local.ip() != picked.source() => {
            Err(AttemptError::Source { dst, actual: *local.ip() })
        }
        SocketAddr::V6(_) | SocketAddr::V4(_) => Ok(()),
    }
}
