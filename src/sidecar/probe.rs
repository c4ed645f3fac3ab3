//! The kubelet's probes, asked on the port of metrics and health and passed on to the application as they were declared.
//!
//! Nothing of the request but its path counts, and each path asks exactly one question: who reaches the port learns
//! whether the application is well, and no more. Source: Kubernetes' rules for `httpGet`, `tcpSocket` and `grpc`.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::Body;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, TE, USER_AGENT};
use hyper::rt::{Read, Write};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::inbound::forward::{Forward, ForwardError};
use crate::config::sidecar::{Probe, ProbeKind};
use crate::net::tls;
use crate::ops::admin::{Reply, Routes};

/// What programs that treat probes apart look for.
const AGENT: &str = "kube-probe/funicular";
/// A health check's answer has a handful of octets.
const MOST_OCTETS: usize = 4_096;
/// `ServingStatus.SERVING` of `grpc.health.v1`.
const SERVING: u64 = 1;

/// Why the application is not well.
#[derive(Debug, thiserror::Error)]
enum Unwell {
    #[error(transparent)]
    Unreached(#[from] ForwardError),
    #[error("the application gives no answer within {0} s")]
    Late(f32),
    #[error("TLS to the application failed: {0}")]
    Tls(io::Error),
    #[error("the probe cannot be asked: {0}")]
    Question(#[from] hyper::http::Error),
    #[error("the application answers no HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("the application answers {0}")]
    Status(StatusCode),
    #[error("the application's health service answers {0}")]
    Health(String),
}

/// Adds a path for each probe.
pub(super) fn routes(routes: Routes, probes: &BTreeMap<String, Probe>, forward: &Forward) -> Routes {
    probes.iter().fold(routes, |routes, (name, probe)| {
        let asked = Arc::new((probe.clone(), forward.clone()));
        routes.ask(format!("/probe/{name}"), move |_| {
            let asked = Arc::clone(&asked);
            async move {
                match judge(&asked.0, &asked.1).await {
                    Ok(()) => Reply::text("ok\n"),
                    Err(unwell) => Reply::text(format!("{unwell}\n")).status(503),
                }
            }
        })
    })
}

async fn judge(probe: &Probe, forward: &Forward) -> Result<(), Unwell> {
    let late = |_| Unwell::Late(probe.timeout.as_secs_f32());
    timeout(probe.timeout, ask(probe, forward)).await.map_err(late)?
}

async fn ask(probe: &Probe, forward: &Forward) -> Result<(), Unwell> {
    let tcp = forward.connect(probe.port).await?;
    match probe.kind {
        ProbeKind::Tcp => Ok(()),
        ProbeKind::Http => http(TokioIo::new(tcp), probe).await,
        ProbeKind::Https => http(TokioIo::new(tls::unproven(tcp).await.map_err(Unwell::Tls)?), probe).await,
        ProbeKind::Grpc => grpc(TokioIo::new(tcp), probe).await,
    }
}

/// A status of 2xx or 3xx is good; a redirection is not followed.
async fn http<S: Read + Write + Unpin + Send + 'static>(stream: S, probe: &Probe) -> Result<(), Unwell> {
    let mut request = Request::builder().uri(probe.path.as_str()).header(USER_AGENT, AGENT);
    for (name, value) in &probe.headers {
        request = request.header(name, value);
    }
    let names_host = request.headers_ref().is_some_and(|headers| headers.contains_key(HOST));
    let request = if names_host { request } else { request.header(HOST, format!("localhost:{}", probe.port)) };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    let _ended_with_us = driven(connection);
    let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    let status = response.status();
    if status.is_success() || status.is_redirection() { Ok(()) } else { Err(Unwell::Status(status)) }
}

/// The health protocol of gRPC: one call, one message, a status in the trailers.
async fn grpc<S: Read + Write + Unpin + Send + 'static>(stream: S, probe: &Probe) -> Result<(), Unwell> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://localhost:{}/grpc.health.v1.Health/Check", probe.port))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, AGENT)
        .body(Full::new(health_question(probe.service.as_deref().unwrap_or_default())))?;
    let (mut sender, connection) =
        hyper::client::conn::http2::Builder::new(TokioExecutor::new()).handshake(stream).await?;
    let _ended_with_us = driven(connection);
    let response = sender.send_request(request).await?;
    let early = grpc_status(response.headers());
    let answer = collected(response.into_body()).await?;
    let status = early.or_else(|| answer.trailers().and_then(grpc_status)).unwrap_or_else(|| "nothing".to_owned());
    if status != "0" {
        return Err(Unwell::Health(format!("status {status}")));
    }
    match serving_status(&answer.to_bytes()) {
        Some(SERVING) => Ok(()),
        Some(other) => Err(Unwell::Health(format!("that it is in state {other}, not SERVING (1)"))),
        None => Err(Unwell::Health("no HealthCheckResponse".to_owned())),
    }
}

async fn collected<B: Body<Data = Bytes, Error = hyper::Error>>(
    body: B,
) -> Result<http_body_util::Collected<Bytes>, Unwell> {
    Limited::new(body, MOST_OCTETS).collect().await.map_err(|error| Unwell::Health(format!("{error}")))
}

fn grpc_status(fields: &HeaderMap) -> Option<String> {
    fields.get("grpc-status")?.to_str().ok().map(ToOwned::to_owned)
}

/// `HealthCheckRequest { service }` in gRPC's frame: uncompressed, its length, one field.
fn health_question(service: &str) -> Bytes {
    let mut message = Vec::new();
    if let Ok(length @ 1..=127) = u8::try_from(service.len()) {
        message.extend([0x0a, length]);
        message.extend(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).unwrap_or(0).to_be_bytes());
    frame.extend(message);
    frame.into()
}

/// The `status` of a `HealthCheckResponse` in gRPC's frame; 0, the default, is not sent.
fn serving_status(frame: &[u8]) -> Option<u64> {
    match frame.get(5..)? {
        [] => Some(0),
        [0x08, status] => Some((*status).into()),
        _ => None,
    }
}

/// Lets a connection make progress for as long as what it gives is held.
fn driven<C: Future<Output = Result<(), hyper::Error>> + Send + 'static>(connection: C) -> JoinSet<()> {
    let mut task = JoinSet::new();
    task.spawn(async { drop(connection.await) });
    task
}

#[cfg(test)]
mod tests;
