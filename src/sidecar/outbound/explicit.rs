//! The other first phase: the application asks for its connection, by SOCKS5 or HTTP CONNECT.
//!
//! For machines where nothing may be redirected. One port serves both: the first octet tells them apart. A name is
//! looked up here, as the stub would have: a service by its rules, anything else by the system's resolver.
//!
//! ```text
//! 05        SOCKS5   greeting, request ─▶ carried like a redirected call ─▶ reply, then bytes
//! a letter  HTTP/1   CONNECT host:port ─▶ the same
//! ```

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::OutboundError;
use crate::net::copy;
use crate::sidecar::report::Refusal;
use crate::wire::explicit::Target;
use crate::wire::explicit::connect::{self, ConnectError};
use crate::wire::explicit::socks::{self, Code, SocksError};

/// How long a program has to say where it wants to go.
const ALLOWED: Duration = Duration::from_secs(10);

/// By which protocol it asked, and is to be answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Protocol {
    Socks,
    Http,
}

/// Where a program asked to go. Only [`asked`] makes one.
#[derive(Debug)]
pub(super) struct Asked {
    protocol: Protocol,
    pub(super) target: Target,
    /// What the program said behind its request.
    pub(super) early: Vec<u8>,
}

/// Why nobody knows where a program wants to go. One cause, one variant.
#[derive(Debug, thiserror::Error)]
pub enum NotAsked {
    /// It took too long.
    #[error("the program did not say within {} s where it wants to go", ALLOWED.as_secs())]
    TooSlow,
    /// It ended the connection, or the connection failed.
    #[error("the connection ended before the program had said where it wants to go: {0}")]
    Ended(io::Error),
    /// It speaks neither protocol.
    #[error("{first:#04x} begins neither SOCKS5 nor an HTTP request")]
    Protocol {
        /// The first octet.
        first: u8,
    },
    /// SOCKS5, but not so.
    #[error(transparent)]
    Socks(#[from] SocksError),
    /// HTTP, but not so.
    #[error(transparent)]
    Http(#[from] ConnectError),
}

impl NotAsked {
    /// The stable label of metrics and logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooSlow => "request-timeout",
            Self::Ended(_) => "request-ended",
            Self::Protocol { .. } => "request-protocol",
            Self::Socks(error) => error.reason(),
            Self::Http(error) => error.reason(),
        }
    }
}

impl From<io::Error> for NotAsked {
    fn from(error: io::Error) -> Self {
        Self::Ended(error)
    }
}

/// Hears where the program wants to go. Where that cannot be served, it has been told so.
///
/// # Errors
/// [`NotAsked`].
pub(super) async fn asked(app: &mut TcpStream) -> Result<Asked, NotAsked> {
    let heard = timeout(ALLOWED, hear(app)).await.unwrap_or(Err(NotAsked::TooSlow));
    if let Err(error) = &heard {
        let answer = match error {
            NotAsked::Socks(SocksError::Method) => socks::NO_METHOD.to_vec(),
            NotAsked::Socks(error) => error.code().map(|code| socks::reply(code).to_vec()).unwrap_or_default(),
            NotAsked::Http(error) => connect::refusal(error.status(), error.reason()),
            NotAsked::TooSlow | NotAsked::Ended(_) | NotAsked::Protocol { .. } => Vec::new(),
        };
        say_at_last(app, &answer).await;
    }
    heard
}

async fn hear(app: &mut TcpStream) -> Result<Asked, NotAsked> {
    let mut octets = Vec::with_capacity(512);
    more(app, &mut octets).await?;
    match octets[0] {
        socks::VERSION => hear_socks(app, octets).await,
        first if first.is_ascii_alphabetic() => hear_http(app, octets).await,
        first => Err(NotAsked::Protocol { first }),
    }
}

async fn hear_socks(app: &mut TcpStream, mut octets: Vec<u8>) -> Result<Asked, NotAsked> {
    let greeting = loop {
        match socks::greeting(&octets)? {
            Some(length) => break length,
            None => more(app, &mut octets).await?,
        }
    };
    octets.drain(..greeting);
    app.write_all(&socks::NO_AUTHENTICATION).await?;
    loop {
        match socks::request(&octets)? {
            Some((target, length)) => {
                return Ok(Asked { protocol: Protocol::Socks, target, early: octets.split_off(length) });
            }
            None => more(app, &mut octets).await?,
        }
    }
}

async fn hear_http(app: &mut TcpStream, mut octets: Vec<u8>) -> Result<Asked, NotAsked> {
    loop {
        match connect::request(&octets)? {
            Some((target, length)) => {
                return Ok(Asked { protocol: Protocol::Http, target, early: octets.split_off(length) });
            }
            None => more(app, &mut octets).await?,
        }
    }
}

async fn more(app: &mut TcpStream, octets: &mut Vec<u8>) -> Result<(), NotAsked> {
    match app.read_buf(octets).await? {
        0 => Err(NotAsked::Ended(io::ErrorKind::UnexpectedEof.into())),
        _ => Ok(()),
    }
}

impl Asked {
    /// Tells the program that its connection is there.
    pub(super) async fn grant(&self, app: &mut TcpStream) -> io::Result<()> {
        match self.protocol {
            Protocol::Socks => app.write_all(&socks::reply(Code::Succeeded)).await,
            Protocol::Http => app.write_all(connect::GRANTED).await,
        }
    }

    /// Tells the program that there is none, and why.
    pub(super) async fn refuse(&self, app: &mut TcpStream, error: &OutboundError) {
        let (code, status) = answer(error);
        let octets = match self.protocol {
            Protocol::Socks => socks::reply(code).to_vec(),
            Protocol::Http => connect::refusal(status, error.reason()),
        };
        say_at_last(app, &octets).await;
    }
}

/// What a program is told of an error, in either protocol.
fn answer(error: &OutboundError) -> (Code, &'static str) {
    const BAD_GATEWAY: &str = "502 Bad Gateway";
    match error {
        OutboundError::Loop { .. } => (Code::NotAllowed, "403 Forbidden"),
        OutboundError::Shed { .. } => (Code::Failed, "503 Service Unavailable"),
        OutboundError::Deadline => (Code::HostUnreachable, "504 Gateway Timeout"),
        OutboundError::Legacy { cause, .. } if cause.kind() == io::ErrorKind::ConnectionRefused => {
            (Code::Refused, BAD_GATEWAY)
        }
        OutboundError::Gone(_)
        | OutboundError::Recognise(_)
        | OutboundError::Route(_)
        | OutboundError::NoAddress { .. }
        | OutboundError::Unreached { .. }
        | OutboundError::Legacy { .. } => (Code::HostUnreachable, BAD_GATEWAY),
        OutboundError::Intercept(_)
        | OutboundError::Ask(_)
        | OutboundError::Pick(_)
        | OutboundError::Authenticate(_) => (Code::Failed, BAD_GATEWAY),
    }
}

/// Says something and ends in good order, so that it is heard.
async fn say_at_last(app: &mut TcpStream, octets: &[u8]) {
    if octets.is_empty() {
        return;
    }
    copy::finish_on_drop(app);
    // Whoever has gone need not hear it.
    let _ = app.write_all(octets).await;
    let _ = app.shutdown().await;
}
