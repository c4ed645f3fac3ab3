//! Fourth phase: to the application on localhost.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::net::connect;
use crate::wire::proxy_header::ProxyHeader;

/// How long the application's kernel may take to answer; on localhost it is microseconds, or the backlog is full.
const PATIENCE: Duration = Duration::from_secs(5);

/// The way to the application.
#[derive(Clone, Debug)]
pub struct Forward {
    /// Socket mark of our own connections.
    pub mark: Option<u32>,
    /// The sidecar's own ports. Nothing from outside is handed to them: the admin port listens on localhost because it
    /// trusts whoever reaches it.
    pub reserved: BTreeSet<u16>,
}

/// Why the application was not reached.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The port is one of the sidecar's own.
    #[error("port {port} is the sidecar's own, not the application's")]
    Reserved {
        /// The local port.
        port: u16,
    },
    /// Nobody listens there, or not fast enough.
    #[error("the application does not answer on port {port} of ::1 ({six}) or 127.0.0.1 ({four})")]
    Unreached {
        /// The local port.
        port: u16,
        /// What came of IPv6.
        six: io::Error,
        /// What came of IPv4.
        four: io::Error,
    },
    /// It answers, and speaks no HTTP/2.
    #[error("the application on port {port} cannot be spoken HTTP with: {cause}")]
    Unspoken {
        /// The local port.
        port: u16,
        /// Why.
        cause: hyper::Error,
    },
    /// It hung up before it could be told who calls.
    #[error("the application on port {port} hung up before it was told who calls: {cause}")]
    Header {
        /// The local port.
        port: u16,
        /// What the system said.
        cause: io::Error,
    },
}

impl ForwardError {
    /// The stable label of metrics and logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Reserved { .. } => "port-reserved",
            Self::Unreached { .. } | Self::Header { .. } => "application-unreachable",
            Self::Unspoken { .. } => "application-http-failed",
        }
    }
}

impl Forward {
    /// Connects to the application, over IPv6 first: a program that listens on one family alone is reached as well.
    ///
    /// # Errors
    /// [`ForwardError`].
    pub async fn connect(&self, port: u16) -> Result<TcpStream, ForwardError> {
        if self.reserved.contains(&port) {
            return Err(ForwardError::Reserved { port });
        }
        let six = match self.to(Ipv6Addr::LOCALHOST.into(), port).await {
            Ok(tcp) => return Ok(tcp),
            Err(error) => error,
        };
        match self.to(Ipv4Addr::LOCALHOST.into(), port).await {
            Ok(tcp) => Ok(tcp),
            Err(four) => Err(ForwardError::Unreached { port, six, four }),
        }
    }

    /// Connects to the application, and says who calls before anything else is said.
    ///
    /// # Errors
    /// [`ForwardError`].
    pub(super) async fn connect_saying(&self, port: u16, header: &ProxyHeader<'_>) -> Result<TcpStream, ForwardError> {
        let mut application = self.connect(port).await?;
        let mut octets = Vec::with_capacity(128);
        // Without a token it is a few hundred octets long at most.
        let _ = header.encode(&mut octets);
        application.write_all(&octets).await.map_err(|cause| ForwardError::Header { port, cause })?;
        Ok(application)
    }

    async fn to(&self, address: IpAddr, port: u16) -> io::Result<TcpStream> {
        connect::tcp(SocketAddr::new(address, port), self.mark, Instant::now() + PATIENCE).await
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn an_application_on_either_family_is_reached_and_one_on_none_is_named() {
        let forward = Forward { mark: None, reserved: BTreeSet::new() };
        for address in ["[::1]:0", "127.0.0.1:0"] {
            let listener = TcpListener::bind(address).await.unwrap();
            let dst = listener.local_addr().unwrap();
            assert_eq!(forward.connect(dst.port()).await.unwrap().peer_addr().unwrap(), dst);
            drop(listener);
            assert_eq!(forward.connect(dst.port()).await.unwrap_err().reason(), "application-unreachable");
        }
    }

    #[tokio::test]
    async fn the_sidecars_own_ports_are_never_connected_to() {
        let admin = TcpListener::bind("[::1]:0").await.unwrap();
        let port = admin.local_addr().unwrap().port();
        let forward = Forward { mark: None, reserved: BTreeSet::from([port]) };
        assert_eq!(forward.connect(port).await.unwrap_err().reason(), "port-reserved");
    }
}
