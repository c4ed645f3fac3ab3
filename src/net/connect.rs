//! Outgoing TCP: marked where the redirect rules know us by mark, and never later than the deadline.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::vanished;

/// Connects to `dst`, with Nagle's algorithm off; a peer on another host that vanishes will be noticed.
///
/// `mark` is set as SO_MARK before the first packet, so that `funicular init --mark` lets the connection pass.
/// Dropping the future closes the socket.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`] at `deadline`, [`io::ErrorKind::PermissionDenied`] for a mark without CAP_NET_ADMIN or
/// CAP_NET_RAW, else whatever connect(2) says.
pub async fn tcp(dst: SocketAddr, mark: Option<u32>, deadline: Instant) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(dst), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    socket.set_tcp_nodelay(true)?;
    if !dst.ip().is_loopback() {
        vanished::notice(&socket)?;
    }
    let is_there = begin(&socket, dst)?;
    let tcp = TcpStream::from_std(socket.into())?;
    if !is_there {
        timeout_at(deadline, tcp.writable()).await.map_err(|_| io::ErrorKind::TimedOut)??;
        if let Some(error) = tcp.take_error()? {
            return Err(error);
        }
    }
    Ok(tcp)
}

/// Sends the first packet; says whether the connection is there.
///
/// On this host both kernels have usually finished before connect(2) returns, which says "in progress" all the same.
/// Asking a second time tells, and spares a timer, a turn of the event loop and what that wakes.
fn begin(socket: &Socket, dst: SocketAddr) -> io::Result<bool> {
    let attempts = if dst.ip().is_loopback() { 2 } else { 1 };
    for _ in 0..attempts {
        match socket.connect(&dst.into()) {
            Ok(()) => return Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EALREADY)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// The addresses that the system's resolver gives for a host, in its order; at least one.
///
/// # Errors
/// What the resolver says, [`io::ErrorKind::TimedOut`] at `deadline`.
pub async fn look_up(host: &str, port: u16, deadline: Instant) -> io::Result<Vec<SocketAddr>> {
    let asking = tokio::net::lookup_host((host, port));
    let found = timeout_at(deadline, asking).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    let addresses: Vec<_> = found.collect();
    if addresses.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(addresses) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    #[tokio::test]
    async fn a_connection_is_made_without_delay_of_small_writes() {
        let listener = crate::net::listen::tcp((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let dst = listener.local_addr().unwrap();
        let stream = tcp(dst, None, Instant::now() + Duration::from_secs(5)).await.unwrap();
        assert!(stream.nodelay().unwrap());
        assert_eq!(stream.peer_addr().unwrap(), dst);
    }

    #[tokio::test]
    async fn a_port_at_which_nobody_listens_refuses() {
        let listener = crate::net::listen::tcp((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let dst = listener.local_addr().unwrap();
        drop(listener);
        let refused = tcp(dst, None, Instant::now() + Duration::from_secs(60)).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_in_the_past_times_out() {
        // A listener whose queue is never served would still complete the handshake, so nothing listens here.
        let dst = (Ipv4Addr::new(240, 0, 0, 1), 9).into();
        let error = tcp(dst, None, Instant::now()).await.unwrap_err();
        // A host without a default route refuses at once, which is as good.
        assert!(matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::NetworkUnreachable), "{error}");
    }
}
