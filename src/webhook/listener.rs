//! Where the API server asks: TLS, then HTTP/1.1 or HTTP/2, with bounds on everything that a peer could stretch.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::answer::Desk;
use super::certificate::{PROTOCOLS, Served};
use crate::net::tls::{First, first_octets};
use crate::ops::drain::Watch;

/// The one path that is asked.
const PATH: &str = "/inject";
/// An API server keeps one connection or a few; there are few API servers.
const MOST_CONNECTIONS: usize = 256;
/// The API server takes objects of up to 3 MiB, and a review holds two of them.
const MOST_OCTETS: usize = 8 << 20;
/// For a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// For a request's header.
const HEADER: Duration = Duration::from_secs(30);
/// When the process has run out of file descriptors.
const PAUSE: Duration = Duration::from_millis(200);

/// Answers until it is told to stop; connections end when they have answered what they were asked.
pub(super) async fn run(listener: TcpListener, served: Served, desk: Arc<Desk>, watch: Watch) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut stopping = watch.clone();
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { continue };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
            _ = stopping.graceful() => break,
        };
        while connections.try_join_next().is_some() {}
        let (served, desk, watch) = (Arc::clone(&served), Arc::clone(&desk), watch.clone());
        connections.spawn(async move {
            let _guard = watch.guard();
            serve(stream, &served, desk, watch).await;
            drop(place);
        });
    }
    while connections.join_next().await.is_some() {}
}

async fn serve(tcp: TcpStream, served: &Served, desk: Arc<Desk>, mut watch: Watch) {
    let Some(tls) = served.load_full() else { return };
    let _ = tcp.set_nodelay(true);
    let shaken = timeout(HANDSHAKE, async {
        match first_octets(tcp).await {
            Ok(First::Tls(hello)) => {
                // A client that offers none speaks HTTP/1.1.
                let spoken = PROTOCOLS.into_iter().find(|protocol| hello.offers(protocol)).unwrap_or_default();
                tls.accept(hello, spoken).await.map_err(|error| error.to_string())
            }
            Ok(First::Other(..)) => Err("no TLS".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    });
    let stream = match shaken.await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(error, "no connection"),
        Err(_) => return tracing::debug!("no handshake in time"),
    };
    let answers = service_fn(move |request| {
        let desk = Arc::clone(&desk);
        async move { Ok::<_, Infallible>(answer(&desk, request).await) }
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEADER);
    server.http2().timer(TokioTimer::new());
    let connection = server.serve_connection(TokioIo::new(stream), answers);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = watch.graceful() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

async fn answer(desk: &Desk, request: Request<Incoming>) -> Response<Full<Bytes>> {
    if request.uri().path() != PATH {
        return said(StatusCode::NOT_FOUND, "pods are asked about at /inject\n");
    }
    if request.method() != Method::POST {
        return said(StatusCode::METHOD_NOT_ALLOWED, "reviews are POSTed\n");
    }
    let question = match Limited::new(request.into_body(), MOST_OCTETS).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return said(StatusCode::BAD_REQUEST, &format!("{error}\n")),
    };
    match desk.answer(&question).await {
        Ok(answer) => {
            let mut response = Response::new(Full::new(Bytes::from(answer.to_string())));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(error) => said(error.status(), &format!("{error} ({})\n", error.reason())),
    }
}

fn said(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = status;
    response
}
