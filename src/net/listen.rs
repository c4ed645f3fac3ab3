//! Sockets that wait for peers: one listener serves every address of every slice (DESIGN.md §3, Network).

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};

/// Connections that may wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A TCP listener at `addr`. `[::]` takes IPv4 as well (as IPv4-mapped addresses); port 0 takes a free port.
///
/// Where the kernel has no IPv6 at all, `[::]` becomes `0.0.0.0`.
///
/// # Errors
/// Whatever socket(2), bind(2) or listen(2) refuses: the address in use, a privileged port, an address not ours.
///
/// # Panics
/// Outside a tokio runtime with I/O.
pub fn tcp(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = bound(addr, Type::STREAM, Protocol::TCP)?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A UDP socket at `addr`, dual-stack and with the same fallback as [`tcp()`].
///
/// Bound to a wildcard, it answers from whatever address the route picks. Whoever must answer from the address that
/// was asked needs the address with each datagram.
///
/// # Errors
/// Whatever socket(2) or bind(2) refuses.
///
/// # Panics
/// Outside a tokio runtime with I/O.
pub fn udp(addr: SocketAddr) -> io::Result<UdpSocket> {
    UdpSocket::from_std(bound(addr, Type::DGRAM, Protocol::UDP)?.into())
}

/// A non-blocking socket bound to `addr`.
pub(super) fn bound(addr: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let (socket, addr) = match Socket::new(Domain::for_address(addr), kind, Some(protocol)) {
        Err(error) if addr.ip().is_unspecified() && no_such_family(&error) => {
            let addr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), addr.port());
            (Socket::new(Domain::IPV4, kind, Some(protocol))?, addr)
        }
        made => (made?, addr),
    };
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    // On UDP this would let a second process share the port and steal datagrams.
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

fn no_such_family(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    const ANY: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

    #[tokio::test]
    async fn a_wildcard_listener_takes_both_families() {
        let listener = tcp(ANY).unwrap();
        let port = listener.local_addr().unwrap().port();
        for to in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            tokio::net::TcpStream::connect((to, port)).await.unwrap();
            let (_, peer) = listener.accept().await.unwrap();
            assert_eq!(peer.ip().to_canonical(), to);
        }
    }

    #[tokio::test]
    async fn a_listener_at_one_ipv6_address_leaves_the_port_free_on_ipv4() {
        let six = tcp(SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0)).unwrap();
        let port = six.local_addr().unwrap().port();
        assert!(tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)).is_ok());
    }

    #[tokio::test]
    async fn a_udp_port_is_not_shared() {
        let first = udp(ANY).unwrap();
        let again = udp(first.local_addr().unwrap()).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
    }
}
