//! Connections made by hand from inside a pod, around its sidecar: what an attacker or a broken caller would send.
//!
//! The sockets carry the mark that the pod's redirect rules let pass, so they reach the server pod's own sidecar as
//! they are. Everything is real: TLS 1.3, PROXY protocol v2, signed tokens; each part may be left out or forged.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::bed::{BedError, Pod};
use super::plan::{MARK, Service};
use crate::model::ssa::{AplItem, Inputs, Rule, Space};
use crate::model::token::{BadWorkloadId, Claims};
use crate::model::{Name, UnixSeconds};
use crate::net::connect;
use crate::net::tls::ClientTls;
use crate::ops::{clock, entropy};
use crate::wire::proxy_header::{ProxyHeader, TokenOctets};

/// How long an answer is waited for. Refusals come at once; this bounds a server that says nothing.
const PATIENCE: Duration = Duration::from_secs(8);
/// The ALPN protocol of `token=pp2`.
const PROTOCOL: &str = "pp2";
/// The most that is read of an answer.
const LONGEST_ANSWER: u64 = 64 * 1024;

/// A connection to try. Start from [`Attempt::honest`] and spoil what is to be spoilt.
#[derive(Clone)]
pub struct Attempt {
    /// The service's name: TLS server name and authority.
    pub service: &'static str,
    /// Where to connect.
    pub destination: SocketAddrV6,
    /// Whether to speak TLS; without it the request goes out as it is.
    pub tls: bool,
    /// The authority that must have signed the server's certificate.
    pub ca: PathBuf,
    /// Whether to send a PROXY header.
    pub header: bool,
    /// The source that the header claims; the connection's own where `None`.
    pub source: Option<Ipv6Addr>,
    /// The token in the header.
    pub token: Option<String>,
    /// What the application would send.
    pub request: Vec<u8>,
}

impl Attempt {
    /// What the client's own sidecar would do: nothing in it is wrong.
    #[must_use]
    pub fn honest(service: &Service, destination: Ipv6Addr, ca: &Path, token: String) -> Self {
        let port = service.port.unwrap_or(80);
        let request = format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", service.name);
        Self {
            service: service.name,
            destination: SocketAddrV6::new(destination, port, 0, 0),
            tls: true,
            ca: ca.to_owned(),
            header: true,
            source: None,
            token: Some(token),
            request: request.into_bytes(),
        }
    }

    /// Makes the connection from `pod` and says what came of it.
    ///
    /// # Errors
    /// When the pod cannot be entered. What the network does is an [`Outcome`].
    pub fn make(self, pod: &Pod) -> Result<Outcome, BedError> {
        pod.within(move |runtime| runtime.block_on(self.run()))
    }

    async fn run(self) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        let stream = match connect::tcp(self.destination.into(), Some(MARK), deadline).await {
            Ok(stream) => stream,
            Err(error) => return Outcome::Unreachable(error.kind()),
        };
        let own = match stream.local_addr() {
            Ok(SocketAddr::V6(own)) => own,
            Ok(SocketAddr::V4(_)) | Err(_) => return Outcome::Unreachable(io::ErrorKind::AddrNotAvailable),
        };
        let mut flight = Vec::new();
        if self.header && self.encode_header(own, &mut flight).is_err() {
            return Outcome::Unreachable(io::ErrorKind::InvalidInput);
        }
        flight.extend_from_slice(&self.request);
        if !self.tls {
            return exchange(stream, &flight).await;
        }
        let (Ok(client), Ok(name)) = (ClientTls::from_file(&self.ca), self.service.parse::<Name>()) else {
            return Outcome::Unreachable(io::ErrorKind::InvalidInput);
        };
        match timeout(PATIENCE, client.connect(stream, &name, PROTOCOL)).await {
            Ok(Ok(stream)) => exchange(stream, &flight).await,
            Ok(Err(error)) => Outcome::Handshake(error.reason()),
            Err(_) => Outcome::Silent,
        }
    }

    fn encode_header(&self, own: SocketAddrV6, flight: &mut Vec<u8>) -> Result<(), &'static str> {
        let source = SocketAddrV6::new(self.source.unwrap_or(*own.ip()), own.port(), 0, 0);
        let authority: Name = self.service.parse().map_err(|_| "no name")?;
        let header = ProxyHeader {
            source,
            destination: self.destination,
            authority: Some(authority),
            token: self.token.as_deref().map(|token| TokenOctets(token.as_bytes())),
            token_reference: None,
            generation: Some(0),
        };
        header.encode(flight).map_err(|_| "too long")
    }
}

/// What came of an attempt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The application answered.
    Answered(String),
    /// The server closed or reset the connection and sent no byte of the application's.
    Closed(io::ErrorKind),
    /// There was no handshake to speak on.
    Handshake(&'static str),
    /// Nothing came, and the connection stayed open.
    Silent,
    /// There was no connection.
    Unreachable(io::ErrorKind),
}

impl Outcome {
    /// In a few words.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Answered(answer) => {
                let first = answer.lines().next().unwrap_or_default();
                let last = answer.lines().last().unwrap_or_default();
                format!("answered: {first} ... {last}")
            }
            Self::Closed(io::ErrorKind::UnexpectedEof) => String::from("closed without a byte"),
            Self::Closed(kind) => format!("closed without a byte ({kind})"),
            Self::Handshake(reason) => format!("no TLS: {reason}"),
            Self::Silent => String::from("no answer, connection left open"),
            Self::Unreachable(kind) => format!("no connection ({kind})"),
        }
    }

    /// Whether the application answered with this status and a body that is a pod's name.
    #[must_use]
    pub fn is_served(&self) -> bool {
        matches!(self, Self::Answered(answer) if answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.0 200"))
    }

    /// Whether the server refused: it ended the connection before any byte of the application.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Closed(_))
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, flight: &[u8]) -> Outcome {
    let mut answer = Vec::new();
    let conversation = async {
        stream.write_all(flight).await?;
        stream.flush().await?;
        (&mut stream).take(LONGEST_ANSWER).read_to_end(&mut answer).await
    };
    let ended = timeout(PATIENCE, conversation).await;
    if !answer.is_empty() {
        return Outcome::Answered(String::from_utf8_lossy(&answer).into_owned());
    }
    match ended {
        Ok(Ok(_)) => Outcome::Closed(io::ErrorKind::UnexpectedEof),
        Ok(Err(error)) => Outcome::Closed(error.kind()),
        Err(_) => Outcome::Silent,
    }
}

/// The claims of a token for `service` that lives from `from` to `until`.
///
/// # Errors
/// When `caller` is no workload identity.
pub fn claims(
    issuer: &str,
    caller: &str,
    service: &str,
    from: UnixSeconds,
    until: UnixSeconds,
) -> Result<Claims, BadWorkloadId> {
    Ok(Claims {
        issuer: issuer.into(),
        subject: caller.parse()?,
        audience: vec![service.into()],
        issued_at: from,
        not_before: from,
        expires: until,
    })
}

/// An address that the service's rule gives to `source` and that the router sends to the pod `owner`.
#[must_use]
pub fn address_at(service: &Service, source: Ipv6Addr, owner: usize) -> Option<Ipv6Addr> {
    let space = Space::new(&[AplItem { negated: false, prefix: service.prefix() }]).ok()?;
    let rule = Rule::parse(service.rule, &space).ok()?;
    let inputs = Inputs { source, content: b"", secret: None, now: clock::now() };
    // Each draw hits the pod by its share, so two hundred all miss a third with odds of one in 10^35.
    (0..200)
        .filter_map(|_| rule.compute(&space, &inputs, 0, &mut entropy::draw).ok())
        .find(|&address| service.owner(address) == Some(owner))
}
