//! Where a redirected connection was going before the kernel turned it to us.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::SockRef;
use tokio::net::TcpStream;

/// Why a connection has no original destination.
#[derive(Debug, thiserror::Error)]
pub enum OriginalDstError {
    /// The peer dialled our own port: carrying it on would connect us to ourselves.
    #[error(
        "the connection to {local} was not redirected here: the peer dialled the proxy's own port, or `funicular init` has not run"
    )]
    NotRedirected {
        /// The address the peer dialled, ours.
        local: SocketAddr,
    },
    /// The socket no longer answers, usually because the peer has reset it.
    #[error("the socket does not say where it was going: {0}")]
    Socket(io::Error),
}

impl OriginalDstError {
    /// The label of this refusal in metrics and logs.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NotRedirected { .. } => "not-redirected",
            Self::Socket(_) => "original-destination-unknown",
        }
    }
}

/// The address and port the peer dialled, an IPv4 one as IPv4 whatever the listener.
///
/// Asks connection tracking (SO_ORIGINAL_DST, IP6T_SO_ORIGINAL_DST). With any nat table loaded the kernel answers with
/// the local address for a connection that nobody redirected, so the two are compared: equal means straight to us.
///
/// # Errors
/// [`OriginalDstError::NotRedirected`] for a connection to our own port, [`OriginalDstError::Socket`] otherwise.
pub fn original_destination(stream: &TcpStream) -> Result<SocketAddr, OriginalDstError> {
    let local = canonical(stream.local_addr().map_err(OriginalDstError::Socket)?);
    let socket = SockRef::from(stream);
    let asked = match local.ip() {
        IpAddr::V4(_) => socket.original_dst_v4(),
        IpAddr::V6(_) => socket.original_dst_v6(),
    };
    let original = match asked {
        Ok(address) => address.as_socket(),
        // ENOENT: connection tracking does not know the connection. ENOPROTOOPT: there is no connection tracking.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOPROTOOPT)) => None,
        Err(error) => return Err(OriginalDstError::Socket(error)),
    };
    match original {
        Some(original) if (original.ip(), original.port()) != (local.ip(), local.port()) => Ok(original),
        Some(_) | None => Err(OriginalDstError::NotRedirected { local }),
    }
}

/// `::ffff:a.b.c.d` as `a.b.c.d`.
fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        IpAddr::V4(four) => SocketAddr::new(IpAddr::V4(four), addr.port()),
        IpAddr::V6(_) => addr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[tokio::test]
    async fn a_connection_straight_to_our_port_has_no_original_destination() {
        let listener = crate::net::listen::tcp((Ipv6Addr::UNSPECIFIED, 0).into()).unwrap();
        let port = listener.local_addr().unwrap().port();
        for to in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            let _client = TcpStream::connect((to, port)).await.unwrap();
            let (accepted, _) = listener.accept().await.unwrap();
            let refused = original_destination(&accepted).unwrap_err();
            assert!(matches!(refused, OriginalDstError::NotRedirected { local } if local == (to, port).into()));
            assert_eq!(refused.reason(), "not-redirected");
        }
    }
}
