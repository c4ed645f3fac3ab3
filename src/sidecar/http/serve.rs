//! A connection on which we are asked: the application's, or a caller's.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};

use futures_util::FutureExt as _;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use super::Version;
use super::body::Body;
use super::client::{CONNECTION_WINDOW, MOST_READ_OF_A_HEAD, STREAM_WINDOW};
use super::prefixed::Prefixed;
use crate::net::copy::OverTcp;

/// The most requests under way at once on one connection of HTTP/2.
const MOST_STREAMS: u32 = 256;

/// Why a connection did not end in good order.
#[derive(Debug, thiserror::Error)]
pub(in crate::sidecar) enum ServeError {
    /// It broke off, or what came was no HTTP.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
    /// It was to end at once.
    #[error("the connection was told to end")]
    Stopped,
}

/// Answers every request of a connection until it ends. From `orderly` on, what is under way is finished and nothing more
/// is taken; at `at_once` it ends whatever is under way.
///
/// # Errors
/// [`ServeError`].
pub(in crate::sidecar) async fn serve<T, F>(
    io: Prefixed<T>,
    version: Version,
    answer: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    orderly: impl Future<Output = ()>,
    at_once: impl Future<Output = ()>,
) -> Result<(), ServeError>
where
    T: OverTcp + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    // An async block around it would be twice as long, and long futures are moved for every request.
    let service = service_fn(move |request| answer(request).map(Ok::<_, Infallible>));
    let io = TokioIo::new(io);
    match version {
        Version::One => {
            let mut builder = http1::Builder::new();
            builder.auto_date_header(false).max_buf_size(MOST_READ_OF_A_HEAD);
            let mut connection = pin!(builder.serve_connection(io, service).with_upgrades());
            let ending = |connection: Pin<&mut _>| http1::UpgradeableConnection::graceful_shutdown(connection);
            until_ended(&mut connection, ending, orderly, at_once).await
        }
        Version::Two => {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .auto_date_header(false)
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_concurrent_streams(MOST_STREAMS)
                .max_header_list_size(MOST_READ_OF_A_HEAD as u32)
                .enable_connect_protocol();
            let mut connection = pin!(builder.serve_connection(io, service));
            let ending = |connection: Pin<&mut _>| http2::Connection::graceful_shutdown(connection);
            until_ended(&mut connection, ending, orderly, at_once).await
        }
    }
}

async fn until_ended<C: Future<Output = Result<(), hyper::Error>>>(
    connection: &mut Pin<&mut C>,
    end: impl FnOnce(Pin<&mut C>),
    orderly: impl Future<Output = ()>,
    at_once: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let mut at_once = pin!(at_once);
    tokio::select! {
        biased;
        ended = connection.as_mut() => return Ok(ended?),
        () = &mut at_once => return Err(ServeError::Stopped),
        () = orderly => {}
    }
    end(connection.as_mut());
    tokio::select! {
        ended = connection.as_mut() => Ok(ended?),
        () = at_once => Err(ServeError::Stopped),
    }
}
