//! Carries requests and replies: connections, TLS, HTTP/1.1, and the bounds of each.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::access::{Access, Peer};
use super::refusal::Refusal;
use super::route::{Call, Reply, Route, Routes, query};
use super::{Counts, Method};
use crate::model::Name;
use crate::net::tls::{First, ServerStream, ServerTls, first_octets};
use crate::ops::admin;
use crate::ops::clock;
use crate::ops::metrics::Reason;

/// The application protocol (RFC 7301).
pub(super) const HTTP: &str = "http/1.1";
/// Connections at once; those beyond wait to be accepted.
const MOST_CONNECTIONS: usize = 1024;
/// A handshake that takes longer ends.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// A connection that takes longer for its next request's header is closed.
const HEADER: Duration = Duration::from_secs(60);
/// A body that takes longer is not waited for.
const BODY: Duration = Duration::from_secs(60);
/// The most octets of a body: a zone file of some 200,000 records.
pub(super) const LONGEST: usize = 32 << 20;
/// How long to wait when the process has run out of file descriptors.
const PAUSE: Duration = Duration::from_millis(200);

/// What answers requests.
pub(super) struct Desk {
    pub(super) access: Arc<Access>,
    pub(super) routes: Routes,
    pub(super) counts: Counts,
}

/// A peer of whom nothing is known but its requests.
struct Anybody;

impl Peer for Anybody {
    fn proves(&self, _: &Name) -> bool {
        false
    }
}

impl Peer for ServerStream {
    fn proves(&self, _: &Name) -> bool {
        false
    }
}

/// Serves until it is dropped; connections go on until their request is answered.
pub(super) async fn serve(listener: TcpListener, tls: Option<ServerTls>, desk: Arc<Desk>) -> Infallible {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { continue };
        let tcp = accept(&listener).await;
        let (desk, tls) = (Arc::clone(&desk), tls.clone());
        tokio::spawn(async move {
            match tls {
                None => carry(tcp, &Anybody, &desk).await,
                Some(tls) => {
                    if let Some(stream) = handshake(tcp, &tls, &desk).await {
                        carry_proven(stream, &desk).await;
                    }
                }
            }
            drop(place);
        });
    }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((tcp, _)) => {
                // A reply is one write; waiting for more would only delay it.
                let _ = tcp.set_nodelay(true);
                return tcp;
            }
            Err(error) => {
                tracing::debug!(%error, "connection to the API not accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn handshake(tcp: TcpStream, tls: &ServerTls, desk: &Desk) -> Option<ServerStream> {
    let shaking = async {
        match first_octets(tcp).await {
            Ok(First::Tls(hello)) => tls.accept(hello, HTTP).await.map_err(|error| error.reason()),
            Ok(First::Other(..)) => Err("plaintext"),
            Err(error) => Err(error.reason()),
        }
    };
    match timeout(HANDSHAKE, shaking).await.unwrap_or(Err("handshake-timeout")) {
        Ok(stream) => Some(stream),
        Err(reason) => {
            desk.counts.refusals.increment(&Reason(reason));
            tracing::debug!(reason, "connection to the API refused");
            None
        }
    }
}

/// What a TLS connection has proved stays with each of its requests.
async fn carry_proven(stream: ServerStream, desk: &Arc<Desk>) {
    carry(stream, &Anybody, desk).await;
}

async fn carry(stream: impl AsyncRead + AsyncWrite + Unpin, peer: &dyn Peer, desk: &Desk) {
    let service = service_fn(|request| async move { Ok::<_, Infallible>(answer(desk, peer, request).await) });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = serving.await {
        tracing::debug!(%error, "connection to the API ended");
    }
}

async fn answer(desk: &Desk, peer: &dyn Peer, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let method = Method::of(request.method().as_str());
    let outcome = match desk.routes.find(request.method().as_str(), request.uri().path()) {
        Ok((route, parts)) => done(desk, peer, route, parts, request).await,
        Err(refusal) => Err(refusal),
    };
    let (reply, refusal) = match outcome {
        Ok(reply) => (reply, None),
        Err(refusal) => (refusal.reply(), Some(refusal)),
    };
    desk.counts.requests.increment(&(method, super::Status(reply.status)));
    if let Some(refusal) = &refusal {
        desk.counts.refusals.increment(&Reason(refusal.reason()));
        tracing::debug!(reason = refusal.reason(), cause = %refusal, "request to the API refused");
    }
    written(reply, refusal.as_ref())
}

async fn done(
    desk: &Desk,
    peer: &dyn Peer,
    route: &Route,
    parts: Vec<String>,
    request: Request<Incoming>,
) -> Result<Reply, Refusal> {
    let headers = request.headers();
    if desk.access.is_open()
        && let Some(why) = admin::suspicion(headers)
    {
        return Err(Refusal::Page(why));
    }
    let authorization = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let permit = desk.access.permit(peer, authorization, route.need, clock::now())?;
    let key = headers.get("idempotency-key").map(|value| Bytes::copy_from_slice(value.as_bytes()));
    let query = query(request.uri().query().unwrap_or(""));
    let body = body(request.into_body()).await?;
    (route.handler)(Call { permit, parts, query, key, body }).await
}

async fn body(body: Incoming) -> Result<Bytes, Refusal> {
    match timeout(BODY, Limited::new(body, LONGEST).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(Refusal::TooLong { most: LONGEST }),
        Ok(Err(_)) | Err(_) => Err(Refusal::Unfinished),
    }
}

fn written(reply: Reply, refusal: Option<&Refusal>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(reply.body));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(reply.content_type));
    match refusal {
        Some(Refusal::Method { allowed }) => {
            if let Ok(allowed) = HeaderValue::from_str(allowed) {
                headers.insert(ALLOW, allowed);
            }
        }
        Some(refusal) if refusal.status() == 401 => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        Some(refusal) if refusal.status() == 503 => {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        Some(_) | None => {}
    }
    response
}
