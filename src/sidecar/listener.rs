//! Accepting connections, one task each, until told to stop.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};

use super::memory::Memory;
use super::report::Report;
use crate::net::{copy, vanished};
use crate::ops::metrics::Direction;

/// How long accepting pauses when the process is out of descriptors or memory: trying at once would only spin.
const PAUSE: Duration = Duration::from_millis(50);

/// Gives each connection to `begin`, which must not wait, until `stop` completes; then the listener is closed. While
/// memory is short, connections wait in the kernel.
pub(super) async fn accept(
    listener: TcpListener,
    direction: Direction,
    report: &Report,
    memory: &Memory,
    stop: impl Future<Output = ()>,
    begin: impl Fn(TcpStream, SocketAddr),
) {
    let mut stop = pin!(stop);
    // A listener that cannot pass these on still serves.
    let _ = vanished::notice(&listener);
    let _ = pass_on(&listener);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => return,
            accepted = accept_within(&listener, direction, report, memory) => accepted,
        };
        match accepted {
            Ok((tcp, client)) => {
                memory.accepted();
                // Whatever becomes of it before it is carried, the peer is to see a failure, at once.
                copy::reset_on_drop(&tcp);
                begin(tcp, canonical(client));
            }
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                report.accept_failed(direction, &error);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn accept_within(
    listener: &TcpListener,
    direction: Direction,
    report: &Report,
    memory: &Memory,
) -> std::io::Result<(TcpStream, SocketAddr)> {
    if memory.is_short() {
        report.accept_paused(direction);
        while memory.is_short() {
            tokio::time::sleep(PAUSE).await;
        }
    }
    listener.accept().await
}

/// Has each connection pass its bytes on as they come, without a system call of its own: waiting for more would add up
/// over two sidecars.
fn pass_on(listener: &TcpListener) -> std::io::Result<()> {
    SockRef::from(listener).set_tcp_nodelay(true)
}

/// The peer gave up between its handshake and our accept(2): nothing of ours is wrong.
fn is_of_the_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// `::ffff:a.b.c.d` as `a.b.c.d`, without scope.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_accepted_waits_for_no_more_bytes() {
        let listener = crate::net::listen::tcp("[::1]:0".parse().unwrap()).unwrap();
        pass_on(&listener).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        assert!(accepted.nodelay().unwrap());
    }
}
