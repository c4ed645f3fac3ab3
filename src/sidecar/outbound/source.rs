//! Which of the pod's addresses a connection to a service will come from.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::time::Instant;

/// There is no way to the service's space from here.
#[derive(Debug, thiserror::Error)]
#[error("no route leads to {toward}: {cause}")]
pub struct NoRoute {
    /// An address in the space.
    pub toward: Ipv6Addr,
    /// What the system said.
    pub cause: io::Error,
}

/// How long an answer is believed. Were it wrong, the first connection made by it would show that, and the address be
/// computed again.
const BELIEVED: Duration = Duration::from_secs(1);
/// How many answers are remembered.
const MOST_REMEMBERED: usize = 1_024;

/// The source addresses toward the spaces that were called lately.
#[derive(Default)]
pub struct Sources(Mutex<HashMap<Ipv6Addr, (Ipv6Addr, Instant)>>);

impl Sources {
    /// The source address that the kernel would choose toward an address.
    ///
    /// # Errors
    /// [`NoRoute`].
    pub(in crate::sidecar) fn toward(&self, address: Ipv6Addr, mark: Option<u32>) -> Result<Ipv6Addr, NoRoute> {
        let now = Instant::now();
        let fresh = |since: Instant| now.saturating_duration_since(since) < BELIEVED;
        if let Some(&(source, since)) = self.0.lock().get(&address)
            && fresh(since)
        {
            return Ok(source);
        }
        let source = toward(address, mark)?;
        let mut remembered = self.0.lock();
        if remembered.len() >= MOST_REMEMBERED {
            remembered.retain(|_, (_, since)| fresh(*since));
        }
        if remembered.len() < MOST_REMEMBERED {
            remembered.insert(address, (source, now));
        }
        Ok(source)
    }
}

/// Asks the kernel. Sends nothing: connecting a UDP socket only looks the route up, in some four microseconds.
fn toward(address: Ipv6Addr, mark: Option<u32>) -> Result<Ipv6Addr, NoRoute> {
    look_up(address, mark).map_err(|cause| NoRoute { toward: address, cause })
}

fn look_up(address: Ipv6Addr, mark: Option<u32>) -> io::Result<Ipv6Addr> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    // Any port serves, except that some systems refuse port 0.
    socket.connect(&SocketAddr::V6(SocketAddrV6::new(address, 9, 0, 0)).into())?;
    match socket.local_addr()?.as_socket().map(|local| local.ip()) {
        Some(IpAddr::V6(source)) => Ok(source),
        Some(IpAddr::V4(_)) | None => Err(io::ErrorKind::AddrNotAvailable.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_reached_from_loopback() {
        assert_eq!(toward(Ipv6Addr::LOCALHOST, None).unwrap(), Ipv6Addr::LOCALHOST);
    }
}
