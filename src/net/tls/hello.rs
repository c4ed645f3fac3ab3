//! The first bytes of a connection: a ClientHello or something else, decided before anything is answered.
//!
//! What was read is kept, so that a connection that turns out not to be ours can be handed on whole.

use std::fmt;
use std::io;

use rustls::server::{Accepted, Acceptor};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// The most octets that a ClientHello may take. With post-quantum key shares one takes some 2 KiB.
const LONGEST_HELLO: usize = 16 * 1024;
/// A record of a handshake (RFC 8446 §5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// What a connection begins with.
pub enum First {
    /// A ClientHello.
    Tls(Hello),
    /// Anything else: the octets read so far, at least one.
    Other(TcpStream, Vec<u8>),
}

/// A ClientHello and the connection it came on. Nothing has been answered yet.
pub struct Hello {
    accepted: Box<Accepted>,
    tcp: TcpStream,
    octets: Vec<u8>,
}

/// Why a connection's first bytes are of no use.
#[derive(Debug, thiserror::Error)]
pub enum HelloError {
    /// It ended, or was only opened to see whether it can be.
    #[error("the connection ended before a whole ClientHello had come: {0}")]
    Ended(io::Error),
    /// RFC 8446 §4.1.2 broken, or no TLS 1.3.
    #[error("the ClientHello is malformed: {0}")]
    Malformed(rustls::Error),
    /// Longer than any sensible one.
    #[error("the ClientHello is longer than {LONGEST_HELLO} octets")]
    TooLong,
}

impl HelloError {
    /// The stable label of metrics and logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Ended(_) => "hello-ended",
            Self::Malformed(_) => "hello-malformed",
            Self::TooLong => "hello-too-long",
        }
    }
}

/// Reads until it is clear what the connection begins with. Bound it in time: the peer decides how long it takes.
///
/// # Errors
/// [`HelloError`].
pub async fn first_octets(mut tcp: TcpStream) -> Result<First, HelloError> {
    let mut acceptor = Acceptor::default();
    let mut octets = Vec::with_capacity(1024);
    loop {
        let seen = octets.len();
        match tcp.read_buf(&mut octets).await {
            Ok(0) => return Err(HelloError::Ended(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {}
            Err(error) => return Err(HelloError::Ended(error)),
        }
        if octets[0] != HANDSHAKE_RECORD {
            return Ok(First::Other(tcp, octets));
        }
        feed(&mut acceptor, &octets[seen..])?;
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(First::Tls(Hello { accepted: Box::new(accepted), tcp, octets })),
            Ok(None) if octets.len() > LONGEST_HELLO => return Err(HelloError::TooLong),
            Ok(None) => {}
            Err((cause, _alert)) => return Err(HelloError::Malformed(cause)),
        }
    }
}

/// Gives all octets to the acceptor, which takes a limited number at a time.
fn feed(acceptor: &mut Acceptor, mut octets: &[u8]) -> Result<(), HelloError> {
    while !octets.is_empty() {
        match acceptor.read_tls(&mut octets) {
            Ok(0) => return Err(HelloError::TooLong),
            Ok(_) => {}
            Err(error) => return Err(HelloError::Ended(error)),
        }
    }
    Ok(())
}

impl Hello {
    /// The name the client asks for, as it spells it.
    #[must_use]
    pub fn server_name(&self) -> Option<String> {
        self.accepted.client_hello().server_name().map(str::to_owned)
    }

    /// Whether the client offers the protocol.
    #[must_use]
    pub fn offers(&self, protocol: &str) -> bool {
        self.first_offered(&[protocol]).is_some()
    }

    /// The one of `protocols` that the client likes best, if it offers any.
    #[must_use]
    pub fn first_offered<'p>(&self, protocols: &[&'p str]) -> Option<&'p str> {
        let mut offered = self.accepted.client_hello().alpn()?;
        offered.find_map(|one| protocols.iter().find(|protocol| one == protocol.as_bytes())).copied()
    }

    /// The connection and what was read of it, for somebody else to answer.
    #[must_use]
    pub fn unanswered(self) -> (TcpStream, Vec<u8>) {
        (self.tcp, self.octets)
    }
}

impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello").field("server_name", &self.server_name()).finish_non_exhaustive()
    }
}
