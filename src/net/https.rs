//! Fetching one small document over HTTPS: a key set, say.
//!
//! One request on one connection of TLS 1.3, bounded in time and in size; no redirect is followed, for whoever answers
//! must be the one who was asked.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};

use super::connect;
use super::tls::{ClientTls, ConnectError, NoHostName, host_name};
use crate::model::Name;

/// How long the whole of it may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// The most octets of a document.
const LONGEST: usize = 1 << 20;

/// What is fetched.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a> {
    /// The server.
    pub host: &'a Name,
    /// Its port.
    pub port: u16,
    /// Path and query.
    pub path: &'a str,
    /// SO_MARK of the connection.
    pub mark: Option<u32>,
}

/// Why there is no document. Holds nothing that was sent or received.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The name leads nowhere.
    #[error("the server's name has no address: {0}")]
    NoAddress(io::Error),
    /// No address answers.
    #[error("no address of the server can be connected to: {0}")]
    Unreached(io::Error),
    /// The server does not prove its name.
    #[error(transparent)]
    Tls(#[from] ConnectError),
    /// The name cannot stand in a request.
    #[error(transparent)]
    Name(#[from] NoHostName),
    /// The path or the bearer token cannot stand in a request.
    #[error("the path or the bearer token holds what no request can carry")]
    Request,
    /// The server speaks no HTTP, or stopped in the middle.
    #[error("no whole answer came: {0}")]
    Broken(#[from] hyper::Error),
    /// The server answers, but not with the document.
    #[error("the server answers {0}")]
    Status(StatusCode),
    /// More than a megabyte.
    #[error("the document is longer than {LONGEST} octets")]
    TooLong,
    /// It took too long.
    #[error("it took longer than {} s", DEADLINE.as_secs())]
    Deadline,
}

/// Fetches a document from a server that proves its name to `tls`.
///
/// # Errors
/// [`FetchError`].
pub async fn get(document: Document<'_>, tls: &ClientTls, bearer: Option<&str>) -> Result<Bytes, FetchError> {
    let deadline = Instant::now() + DEADLINE;
    timeout_at(deadline, fetch(document, tls, bearer, deadline)).await.unwrap_or(Err(FetchError::Deadline))
}

async fn fetch(
    document: Document<'_>,
    tls: &ClientTls,
    bearer: Option<&str>,
    deadline: Instant,
) -> Result<Bytes, FetchError> {
    let host = host_name(document.host)?;
    let addresses = tokio::net::lookup_host((host.as_str(), document.port)).await.map_err(FetchError::NoAddress)?;
    let tcp = first_reached(addresses, document.mark, deadline).await?;
    let stream = tls.connect(tcp, document.host, "http/1.1").await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(document.path)
        .header(HOST, if document.port == 443 { host } else { format!("{host}:{}", document.port) })
        .header(ACCEPT, HeaderValue::from_static("application/jwk-set+json, application/json"));
    let request = match bearer {
        Some(token) => request.header(AUTHORIZATION, format!("Bearer {token}")),
        None => request,
    };
    let request = request.body(Empty::<Bytes>::new()).map_err(|_| FetchError::Request)?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Status(answer.status()));
        }
        match Limited::new(answer.into_body(), LONGEST).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(FetchError::TooLong),
            Err(error) => Err(error.downcast::<hyper::Error>().map_or(FetchError::TooLong, |e| FetchError::Broken(*e))),
        }
    };
    tokio::pin!(exchange);
    tokio::select! {
        outcome = &mut exchange => outcome,
        // The connection's end is the exchange's: it says what became of it.
        _ = connection => exchange.await,
    }
}

async fn first_reached(
    addresses: impl Iterator<Item = SocketAddr>,
    mark: Option<u32>,
    deadline: Instant,
) -> Result<tokio::net::TcpStream, FetchError> {
    let mut last = io::ErrorKind::NotFound.into();
    for address in addresses {
        match connect::tcp(address, mark, deadline).await {
            Ok(tcp) => return Ok(tcp),
            Err(error) => last = error,
        }
    }
    Err(FetchError::Unreached(last))
}
