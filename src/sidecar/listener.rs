//! Accepting connections, one task each, until told to stop.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::memory::Memory;
use super::report::Report;
use crate::net::vanished;
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
    // A listener that cannot pass it on still serves.
    let _ = vanished::notice(&listener);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => return,
            accepted = accept_within(&listener, direction, report, memory) => accepted,
        };
        match accepted {
            Ok((tcp, client)) => {
                memory.accepted();
                // Bytes are passed on as they come; waiting for more would add up over two sidecars.
                let _ = tcp.set_nodelay(true);
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

/// The peer gave up between its handshake and our accept(2): nothing of ours is wrong.
fn is_of_the_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// `::ffff:a.b.c.d` as `a.b.c.d`, without scope.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
