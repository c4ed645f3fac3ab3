//! What becomes of a connection, or of a stream of HTTP/2, that stops being HTTP: WebSocket and its like (RFC 9110 §7.8),
//! CONNECT (§9.3.6, RFC 8441). From then on octets are carried both ways.

use std::future::Future;

use hyper::body::Bytes;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

use super::prefixed::Prefixed;
use crate::net::copy::{self, OverTcp, Stop, Transferred};

/// Carries octets between a client's connection over `C` and a server's over `S` until both directions have ended. Says
/// nothing when one of them did not come to be.
pub(in crate::sidecar) async fn carry<C, S>(
    client: OnUpgrade,
    server: OnUpgrade,
    stop: impl Future<Output = Stop>,
) -> Option<Transferred>
where
    C: OverTcp + Send + 'static,
    S: OverTcp + Send + 'static,
{
    let (client, server) = (client.await.ok()?, server.await.ok()?);
    match (over::<C>(client), over::<S>(server)) {
        (Ok(client), Ok(server)) => {
            copy::reset_on_drop(client.tcp());
            copy::reset_on_drop(server.tcp());
            Some(copy::both_ways(client, server, Vec::new(), stop).await)
        }
        (client, server) => Some(streams(whole(client), whole(server), stop).await),
    }
}

/// The connection beneath, when it is a whole one.
fn over<T: OverTcp + Send + 'static>(upgraded: Upgraded) -> Result<Prefixed<Prefixed<T>>, Upgraded> {
    let parts = upgraded.downcast::<TokioIo<Prefixed<T>>>()?;
    Ok(Prefixed::new(parts.read_buf, parts.io.into_inner()))
}

/// One that is a stream among others, or as good as one.
fn whole<T: OverTcp + Send + 'static>(one: Result<Prefixed<Prefixed<T>>, Upgraded>) -> Box<dyn Octets> {
    match one {
        Ok(connection) => Box::new(connection),
        Err(upgraded) => Box::new(Prefixed::new(Bytes::new(), TokioIo::new(upgraded))),
    }
}

trait Octets: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Octets for T {}

async fn streams(
    mut client: Box<dyn Octets>,
    mut server: Box<dyn Octets>,
    stop: impl Future<Output = Stop>,
) -> Transferred {
    let copying = tokio::io::copy_bidirectional(&mut client, &mut server);
    tokio::select! {
        copied = copying => match copied {
            Ok((sent_bytes, received_bytes)) => Transferred { sent_bytes, received_bytes, end: Ok(()) },
            Err(error) => Transferred { sent_bytes: 0, received_bytes: 0, end: Err(copy::BrokenOff::Server(error)) },
        },
        stop = stop => Transferred { sent_bytes: 0, received_bytes: 0, end: Err(stop.into()) },
    }
}
