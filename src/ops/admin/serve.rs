//! Serves routes over HTTP/1.1 with bounds: connections, time for a header, requests at once, time for an answer.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, ORIGIN};
use hyper::server::conn::http1;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};

use super::routes::{Answered, Query, Reply, Routes};

/// More than any scraper, probe and person need together.
const MOST_CONNECTIONS: usize = 64;
/// A connection that takes longer for its next request's header is closed.
const HEADER_DEADLINE: Duration = Duration::from_secs(30);
/// Requests answered at once; what comes beyond is refused with 503.
const MOST_REQUESTS: usize = 16;
/// An answer that takes longer becomes a 504.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// How long to wait when the process has run out of file descriptors.
const PAUSE: Duration = Duration::from_millis(200);

/// Who can reach a listener.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Audience {
    /// Programs of this machine: a request must name a loopback host, and a change must not come from a web page.
    Loopback,
    /// Whoever can reach the pod.
    Network,
}

/// Serves `routes` until it is dropped; connections end with it.
pub async fn serve(listener: TcpListener, routes: Routes, audience: Audience) -> Infallible {
    let routes = Arc::new(routes);
    let answers = service_fn(move |request: Request<Incoming>| {
        let routes = Arc::clone(&routes);
        async move { Ok::<_, Infallible>(answer(&routes, audience, &request).await) }
    });
    let limited =
        ServiceBuilder::new().load_shed().concurrency_limit(MOST_REQUESTS).timeout(ANSWER_DEADLINE).service(answers);
    // A limit that was hit is an answer too: only a broken connection ends one.
    let service = TowerToHyperService::new(service_fn(move |request| {
        let limited = limited.clone();
        async move { Ok::<_, Infallible>(limited.oneshot(request).await.unwrap_or_else(|error| overdue(&error))) }
    }));

    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        // Those beyond wait in the listener's backlog. The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { continue };
        let stream = accept(&listener).await;
        while connections.try_join_next().is_some() {}
        let service = service.clone();
        connections.spawn(async move {
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_DEADLINE)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = serving.await {
                tracing::debug!(%error, "admin connection ended");
            }
            drop(place);
        });
    }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::debug!(%error, "admin connection not accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn answer(routes: &Routes, audience: Audience, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let reply = match audience {
        Audience::Loopback => suspicion(request.headers()).map(|why| Reply::text(format!("{why}\n")).status(403)),
        Audience::Network => None,
    };
    let query = Query::new(request.uri().query().unwrap_or(""));
    if let Some(reply) = reply {
        return written(reply);
    }
    match routes.answer(request.method().as_str(), request.uri().path(), &query) {
        Answered::Now(reply) => written(reply),
        Answered::Later(reply) => written(reply.await),
    }
}

/// What is wrong with a request that a web page could have sent: by a name that resolves to loopback, or across origins.
/// For every port on loopback that takes requests without credentials: a browser on the machine is not its operator.
#[must_use]
pub fn suspicion(headers: &HeaderMap) -> Option<&'static str> {
    if headers.contains_key(ORIGIN) {
        return Some("requests of web pages are refused");
    }
    let host = headers.get(HOST)?;
    let is_local = host.to_str().is_ok_and(names_loopback);
    (!is_local).then_some("name this port by a loopback address or localhost")
}

/// Whether a Host header field (RFC 9110 §7.2) names the machine itself.
fn names_loopback(host: &str) -> bool {
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    match bracketed {
        Some((address, _)) => address.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback()),
        None => {
            let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
            name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    }
}

/// The reply of a limit that was hit.
fn overdue(error: &BoxError) -> Response<Full<Bytes>> {
    let status = if error.is::<tower::timeout::error::Elapsed>() { 504 } else { 503 };
    written(Reply::text("busy: ask again later\n").status(status))
}

fn written(reply: Reply) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(reply.body)));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(reply.content_type));
    if let Some(allow) = reply.allow {
        headers.insert(ALLOW, HeaderValue::from_static(allow));
    }
    response
}

#[cfg(test)]
mod tests;
