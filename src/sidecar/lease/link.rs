//! One connection to Peak: frames both ways, behind TLS.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use crate::model::Name;
use crate::net::connect;
use crate::net::tls::{ClientStream, ClientTls, ConnectError};
use crate::wire::lease::{self, FrameError, FromPeak, FromSidecar, PROTOCOL};

/// How long one server has to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why there is no connection, or no longer.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// Nobody listens there, or not in time.
    #[error("{server} cannot be reached: {cause}")]
    Unreached {
        /// The server.
        server: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
    /// It cannot prove that it is Peak.
    #[error("{server}: {cause}")]
    Tls {
        /// The server.
        server: SocketAddr,
        /// What is wrong.
        cause: ConnectError,
    },
    /// It ended.
    #[error("the connection ended: {0}")]
    Ended(io::Error),
    /// A frame that makes no sense.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl LinkError {
    /// The stable label of metrics and logs.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Unreached { .. } => "peak-unreachable",
            Self::Tls { cause, .. } => cause.reason(),
            Self::Ended(_) => "peak-ended",
            Self::Frame(error) => error.reason(),
        }
    }
}

/// A connection to one of Peak's nodes, which has proved that it is one.
pub(super) struct Link {
    stream: ClientStream,
    octets: Vec<u8>,
}

impl Link {
    pub(super) async fn open(
        server: SocketAddr,
        name: &Name,
        tls: &ClientTls,
        mark: Option<u32>,
    ) -> Result<Self, LinkError> {
        let deadline = Instant::now() + PATIENCE;
        let tcp = connect::tcp(server, mark, deadline).await;
        let tcp = tcp.map_err(|cause| LinkError::Unreached { server, cause })?;
        let shaken = timeout(PATIENCE, tls.connect(tcp, name, PROTOCOL)).await;
        let too_slow = |_| LinkError::Unreached { server, cause: io::ErrorKind::TimedOut.into() };
        let stream = shaken.map_err(too_slow)?.map_err(|cause| LinkError::Tls { server, cause })?;
        Ok(Self { stream, octets: Vec::new() })
    }

    /// The next word. Cancel safe: what has been read stays.
    pub(super) async fn next(&mut self) -> Result<FromPeak, LinkError> {
        loop {
            if let Some((word, length)) = lease::decode(&self.octets)? {
                self.octets.drain(..length);
                return Ok(word);
            }
            match self.stream.read_buf(&mut self.octets).await {
                Ok(0) => return Err(LinkError::Ended(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) => return Err(LinkError::Ended(error)),
            }
        }
    }

    pub(super) async fn say(&mut self, word: &FromSidecar) -> Result<(), LinkError> {
        let frame = lease::encode(word);
        let said = async {
            self.stream.write_all(&frame).await?;
            self.stream.flush().await
        };
        let said = timeout(PATIENCE, said).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        said.map_err(LinkError::Ended)
    }
}
