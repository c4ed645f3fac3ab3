//! Where a redirected connection was going.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::listener::canonical;
use crate::net::original_dst::{self, OriginalDstError};

/// How the original destination of a redirected connection is found out: the kernel's answer in a running sidecar,
/// something fixed in tests, which cannot redirect.
#[derive(Clone)]
pub struct OriginalDst(Arc<Lookup>);

type Lookup = dyn Fn(&TcpStream) -> Result<SocketAddr, OriginalDstError> + Send + Sync;

impl OriginalDst {
    /// Asks the kernel.
    #[must_use]
    pub fn of_the_kernel() -> Self {
        Self::by(original_dst::original_destination)
    }

    /// Asks `lookup`.
    #[must_use]
    pub fn by(lookup: impl Fn(&TcpStream) -> Result<SocketAddr, OriginalDstError> + Send + Sync + 'static) -> Self {
        Self(Arc::new(lookup))
    }

    /// Where the connection was going, IPv4 as IPv4.
    pub(super) fn of(&self, tcp: &TcpStream) -> Result<SocketAddr, NotRedirected> {
        Ok(canonical((self.0)(tcp)?))
    }
}

/// A connection cannot be carried on because nobody knows where it was going.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct NotRedirected(#[from] OriginalDstError);

impl NotRedirected {
    /// The stable label of metrics and logs. A connection straight to our port is a `loop`: carried on, it would come
    /// back to us without end.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match &self.0 {
            OriginalDstError::NotRedirected { .. } => "loop",
            error @ OriginalDstError::Socket(_) => error.reason(),
        }
    }
}
