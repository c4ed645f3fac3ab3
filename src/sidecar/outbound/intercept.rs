//! First phase: where the application wanted to go.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use crate::sidecar::original::{NotRedirected, OriginalDst};

/// Where a redirected connection was going. Only [`intercept`] makes one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Intercepted {
    destination: SocketAddr,
}

impl Intercepted {
    /// The address and port, IPv4 as IPv4.
    #[must_use]
    pub fn destination(self) -> SocketAddr {
        self.destination
    }
}

/// Asks where a connection was going.
///
/// # Errors
/// [`NotRedirected`] when it came straight to our port, or has gone.
pub fn intercept(app: &TcpStream, original: &OriginalDst) -> Result<Intercepted, NotRedirected> {
    Ok(Intercepted { destination: original.of(app)? })
}
