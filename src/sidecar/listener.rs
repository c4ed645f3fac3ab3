//! Accepting connections, one task each, until told to stop.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::report::Report;
use crate::ops::metrics::Direction;

/// How long accepting pauses when the process is out of descriptors or memory: trying at once would only spin.
const PAUSE: Duration = Duration::from_millis(50);

/// Gives each connection to `begin`, which must not wait, until `stop` completes; then the listener is closed.
pub(super) async fn accept(
    listener: TcpListener,
    direction: Direction,
    report: &Report,
    stop: impl Future<Output = ()>,
    begin: impl Fn(TcpStream, SocketAddr),
) {
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, client)) => {
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

/// The peer gave up between its handshake and our accept(2): nothing of ours is wrong.
fn is_of_the_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// `::ffff:a.b.c.d` as `a.b.c.d`, without scope.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
