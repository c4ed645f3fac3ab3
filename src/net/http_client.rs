//! Asking an HTTP server, over TLS or in the clear: requests one after another, over one connection while it lasts.
//!
//! What may be asked again is for the caller to know: [`ClientError::is_unanswered`] says whether the server may have
//! done what it did not answer.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};

use super::connect;
use super::tls::{ClientTls, ConnectError};
use crate::model::Name;

/// The application protocol (RFC 7301).
const HTTP: &str = "http/1.1";
/// The longest answer that is read unless less is asked for: a backup of a large registry.
const LONGEST: usize = 4 << 30;

/// Where a server is: `https://peak.example:7443`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Server {
    /// Whether it proves itself.
    pub secure: bool,
    /// Its name or address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// A text that names no server.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected http://HOST:PORT or https://HOST:PORT")]
pub struct BadServer;

impl std::str::FromStr for Server {
    type Err = BadServer;

    fn from_str(text: &str) -> Result<Self, BadServer> {
        let (secure, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(BadServer),
        };
        let (host, port) = rest.strip_suffix('/').unwrap_or(rest).rsplit_once(':').ok_or(BadServer)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_bracketed = bare.is_some();
        let host = bare.unwrap_or(host);
        if host.is_empty() || host.contains(['/', '@', '[', ']']) || (host.contains(':') != is_bracketed) {
            return Err(BadServer);
        }
        Ok(Self { secure, host: host.to_owned(), port: port.parse().map_err(|_| BadServer)? })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl Server {
    /// Host and port as a Host field has them (RFC 9110 §7.2).
    fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

/// What the client has to show, and whom it believes.
#[derive(Clone, Default)]
pub struct Credentials {
    /// For `https`.
    pub tls: Option<ClientTls>,
    /// A bearer token. Never printed.
    pub token: Option<String>,
}

/// A request. The path begins with `/` and is encoded already.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    /// `GET`, `POST`, ...
    pub method: &'static str,
    /// Path and query.
    pub path: &'a str,
    /// Media type and body.
    pub body: Option<(&'static str, Bytes)>,
    /// Further fields, by lower-case names.
    pub fields: &'a [(&'static str, &'a str)],
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Told {
    /// The status (RFC 9110 §15).
    pub status: u16,
    /// The body, whole.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The name has no address.
    #[error("{host}: {cause}")]
    Unresolved {
        /// The name.
        host: String,
        /// What the resolver said.
        cause: io::Error,
    },
    /// Nobody takes the connection.
    #[error("cannot connect to {server}: {cause}")]
    Connect {
        /// The server.
        server: Server,
        /// What the system said.
        cause: io::Error,
    },
    /// The server does not prove itself, or refuses us.
    #[error("{server}: {cause}")]
    Tls {
        /// The server.
        server: Server,
        /// Why.
        cause: ConnectError,
    },
    /// `https` and nothing to believe.
    #[error("{server}: which authorities vouch for it is not said")]
    NoAuthorities {
        /// The server.
        server: Server,
    },
    /// The host cannot stand in a certificate.
    #[error("{host:?} is no name that a certificate proves")]
    Host {
        /// The host.
        host: String,
    },
    /// A field or the path is no HTTP.
    #[error("the request cannot be written: {0}")]
    Request(#[from] hyper::http::Error),
    /// The connection broke after the request may have arrived.
    #[error("the connection to {server} ended before the answer: {cause}")]
    Ended {
        /// The server.
        server: Server,
        /// Why.
        cause: hyper::Error,
    },
    /// The answer is no answer, or too long.
    #[error("the answer of {server} broke off")]
    Answer {
        /// The server.
        server: Server,
    },
    /// Not in time.
    #[error("no answer of {server} within the time")]
    TimedOut {
        /// The server.
        server: Server,
    },
}

impl ClientError {
    /// Whether the request may have been done without an answer.
    #[must_use]
    pub const fn is_unanswered(&self) -> bool {
        match self {
            Self::Ended { .. } | Self::Answer { .. } | Self::TimedOut { .. } => true,
            Self::Unresolved { .. }
            | Self::Connect { .. }
            | Self::Tls { .. }
            | Self::NoAuthorities { .. }
            | Self::Host { .. }
            | Self::Request(_) => false,
        }
    }
}

/// A client of one server.
pub struct Client {
    server: Server,
    credentials: Credentials,
    /// The most octets of an answer's body.
    longest: usize,
    /// SO_MARK of its connections.
    mark: Option<u32>,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// A client that has not connected yet.
    #[must_use]
    pub fn new(server: Server, credentials: Credentials) -> Self {
        Self { server, credentials, longest: LONGEST, mark: None, connection: None }
    }

    /// The same, for answers of so many octets at most.
    #[must_use]
    pub fn bounded(self, longest: usize) -> Self {
        Self { longest, ..self }
    }

    /// The same, with this mark on its connections.
    #[must_use]
    pub fn marked(self, mark: Option<u32>) -> Self {
        Self { mark, ..self }
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Asks, and waits for the whole answer. A connection that was kept and has ended meanwhile is made anew.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn ask(&mut self, ask: &Ask<'_>, patience: Duration) -> Result<Told, ClientError> {
        let deadline = Instant::now() + patience;
        let answered = timeout_at(deadline, self.asked(ask, deadline)).await;
        let answered = answered.unwrap_or_else(|_| Err(ClientError::TimedOut { server: self.server.clone() }));
        if answered.is_err() {
            self.connection = None;
        }
        answered
    }

    async fn asked(&mut self, ask: &Ask<'_>, deadline: Instant) -> Result<Told, ClientError> {
        let mut connection = match self.connection.take().filter(|kept| !kept.is_closed()) {
            Some(kept) => kept,
            None => self.connect(deadline).await?,
        };
        let ended = |cause| ClientError::Ended { server: self.server.clone(), cause };
        connection.ready().await.map_err(ended)?;
        let (head, body) = connection.send_request(self.request(ask)?).await.map_err(ended)?.into_parts();
        let body = Limited::new(body, self.longest).collect().await;
        let body = body.map_err(|_| ClientError::Answer { server: self.server.clone() })?;
        self.connection = Some(connection);
        Ok(Told { status: head.status.as_u16(), body: body.to_bytes() })
    }

    fn request(&self, ask: &Ask<'_>) -> Result<Request<Full<Bytes>>, ClientError> {
        let method = Method::from_bytes(ask.method.as_bytes()).map_err(hyper::http::Error::from)?;
        let mut request = Request::builder().method(method).uri(ask.path).header(HOST, self.server.authority());
        if let Some(token) = &self.credentials.token {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(hyper::http::Error::from)?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        for (name, value) in ask.fields {
            request = request.header(*name, *value);
        }
        if let Some((media_type, _)) = &ask.body {
            request = request.header(CONTENT_TYPE, *media_type);
        }
        Ok(request.body(Full::new(ask.body.as_ref().map_or_else(Bytes::new, |(_, body)| body.clone())))?)
    }

    async fn connect(&self, deadline: Instant) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        let Server { secure, host, port } = &self.server;
        let unresolved = |cause| ClientError::Unresolved { host: host.clone(), cause };
        let addresses: Vec<SocketAddr> =
            tokio::net::lookup_host((host.as_str(), *port)).await.map_err(unresolved)?.collect();
        let mut refused = io::ErrorKind::NotFound.into();
        for address in addresses {
            match connect::tcp(address, self.mark, deadline).await {
                Ok(tcp) if *secure => {
                    let server = || self.server.clone();
                    let tls = self.credentials.tls.as_ref();
                    let tls = tls.ok_or_else(|| ClientError::NoAuthorities { server: server() })?;
                    let name: Name = host.parse().map_err(|_| ClientError::Host { host: host.clone() })?;
                    let stream = tls.connect(tcp, &name, HTTP).await;
                    return self.speak(stream.map_err(|cause| ClientError::Tls { server: server(), cause })?).await;
                }
                Ok(tcp) => return self.speak(tcp).await,
                Err(cause) => refused = cause,
            }
        }
        Err(ClientError::Connect { server: self.server.clone(), cause: refused })
    }

    async fn speak(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        let (requests, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|cause| ClientError::Ended { server: self.server.clone(), cause })?;
        // It ends when the requests' end is dropped; what breaks it is told to the request under way.
        tokio::spawn(connection);
        Ok(requests)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("server", &self.server).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[test]
    fn a_server_is_named_by_scheme_host_and_port() {
        for (text, secure, host, port) in [
            ("http://127.0.0.1:7443", false, "127.0.0.1", 7443),
            ("https://peak.example:443/", true, "peak.example", 443),
            ("https://[::1]:1", true, "::1", 1),
        ] {
            let server: Server = text.parse().unwrap();
            assert_eq!((server.secure, server.host.as_str(), server.port), (secure, host, port));
            assert_eq!(format!("{server}"), text.trim_end_matches('/'));
        }
        for text in
            ["peak:7443", "http://peak", "http://:1", "http://peak:1/v1", "http://::1:1", "ftp://a:1", "http://a@b:1"]
        {
            assert_eq!(text.parse::<Server>(), Err(BadServer), "{text}");
        }
    }

    async fn server() -> (TcpListener, Client) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        (listener, Client::new(server, Credentials { tls: None, token: Some("secret".to_owned()) }))
    }

    const ASK: Ask<'_> =
        Ask { method: "POST", path: "/a?b", body: Some(("text/dns", Bytes::from_static(b"x"))), fields: &[("k", "v")] };
    const PATIENCE: Duration = Duration::from_secs(20);

    async fn answered(tcp: &mut tokio::net::TcpStream) -> String {
        let mut request = vec![0; 4096];
        let mut length = 0;
        while !request[..length].ends_with(b"\r\n\r\nx") {
            length += tcp.read(&mut request[length..]).await.unwrap();
        }
        tcp.write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        String::from_utf8(request[..length].to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_connection_serves_one_request_after_another_and_is_made_anew_when_it_has_ended() {
        let (listener, mut client) = server().await;
        let serving = tokio::spawn(async move {
            let mut first = listener.accept().await.unwrap().0;
            let request = answered(&mut first).await;
            answered(&mut first).await;
            drop(first);
            answered(&mut listener.accept().await.unwrap().0).await;
            request
        });
        for _ in 0..2 {
            let told = client.ask(&ASK, PATIENCE).await.unwrap();
            assert_eq!((told.status, &told.body[..]), (201, &b"ok"[..]));
        }
        // The end may not have been seen yet: then the request on the dead connection fails, and says so.
        while let Err(error) = client.ask(&ASK, PATIENCE).await {
            assert!(error.is_unanswered(), "{error}");
        }
        let request = serving.await.unwrap().to_lowercase();
        assert!(request.starts_with("post /a?b http/1.1\r\nhost: 127.0.0.1:"), "{request}");
        for field in ["authorization: bearer secret", "k: v", "content-type: text/dns"] {
            assert!(request.contains(field), "{request}");
        }
    }

    #[tokio::test]
    async fn who_is_not_there_has_done_nothing_and_who_does_not_answer_may_have() {
        let (listener, mut client) = server().await;
        let silent = client.ask(&ASK, Duration::from_millis(50)).await.unwrap_err();
        assert!(silent.is_unanswered(), "{silent}");
        drop(listener);
        let absent = client.ask(&ASK, PATIENCE).await.unwrap_err();
        assert!(!absent.is_unanswered() && absent.to_string().starts_with("cannot connect"), "{absent}");
        assert!(!format!("{client:?}").contains("secret"));
    }
}
