//! The admin port over real loopback sockets.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::ops::admin::{Shown, health, routes};
use crate::ops::logging;
use crate::ops::metrics::Registry;
use crate::ops::ready::Ready;

/// A server on a port of its own, ended with the test.
struct Server {
    address: std::net::SocketAddr,
    task: tokio::task::JoinHandle<Infallible>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn started(routes: Routes, audience: Audience) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Server { address: listener.local_addr().unwrap(), task: tokio::spawn(serve(listener, routes, audience)) }
}

impl Server {
    /// Sends one request's header and gives the whole answer.
    async fn ask(&self, request_line: &str, fields: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("{request_line} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        reply
    }

    async fn status(&self, request_line: &str, fields: &str) -> u16 {
        let reply = self.ask(request_line, fields).await;
        reply.strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap()
    }
}

const LOCAL: &str = "Host: localhost\r\n";

fn everything(ready: &Ready, metrics: &Registry) -> (Routes, Arc<Semaphore>) {
    let drained = Arc::new(Semaphore::new(0));
    let asked = Arc::clone(&drained);
    let shown = Shown {
        ready: ready.clone(),
        metrics: metrics.clone(),
        logging: logging::detached("info"),
        config: || serde_json::json!({ "drain": { "value": "30s", "from": "default" } }),
        drain: move || asked.add_permits(1),
    };
    (routes(shown), drained)
}

#[tokio::test]
async fn readiness_names_what_is_pending() {
    let (ready, metrics) = (Ready::new(), Registry::new());
    let task = ready.task("dns-stub");
    let server = started(health(&ready, &metrics), Audience::Network).await;
    let reply = server.ask("GET /ready", LOCAL).await;
    assert!(reply.starts_with("HTTP/1.1 503 ") && reply.ends_with("pending: dns-stub\n"), "{reply}");
    task.done();
    assert_eq!(server.status("GET /ready", LOCAL).await, 200);
    ready.stop();
    let reply = server.ask("GET /ready", LOCAL).await;
    assert!(reply.starts_with("HTTP/1.1 503 ") && reply.ends_with("stopping\n"), "{reply}");
}

#[tokio::test]
async fn metrics_are_served_as_prometheus_reads_them() {
    let (ready, metrics) = (Ready::new(), Registry::new());
    metrics.counter("funicular_refusals_total", "Refused connections.").add(3);
    let server = started(health(&ready, &metrics), Audience::Network).await;
    let reply = server.ask("GET /metrics", "Host: 192.0.2.1:15020\r\n").await;
    assert!(reply.contains("content-type: text/plain; version=0.0.4"), "{reply}");
    assert!(reply.ends_with("funicular_refusals_total 3\n"), "{reply}");
}

#[tokio::test]
async fn the_network_sees_health_and_nothing_else() {
    let server = started(health(&Ready::new(), &Registry::new()), Audience::Network).await;
    assert_eq!(server.status("GET /live", LOCAL).await, 200);
    for request in ["GET /config", "POST /drain", "POST /logging?level=off"] {
        assert_eq!(server.status(request, LOCAL).await, 404, "{request}");
    }
}

#[tokio::test]
async fn changes_are_made_by_post_alone() {
    let (routes, drained) = everything(&Ready::new(), &Registry::new());
    let server = started(routes, Audience::Loopback).await;
    let reply = server.ask("GET /drain", LOCAL).await;
    assert!(reply.starts_with("HTTP/1.1 405 ") && reply.contains("allow: POST\r\n"), "{reply}");
    assert_eq!(drained.available_permits(), 0);
    assert_eq!(server.status("POST /drain", LOCAL).await, 202);
    assert_eq!(drained.available_permits(), 1);
}

#[tokio::test]
async fn the_log_s_level_is_shown_and_changed() {
    let (routes, _) = everything(&Ready::new(), &Registry::new());
    let server = started(routes, Audience::Loopback).await;
    assert_eq!(server.status("POST /logging?level=debug", LOCAL).await, 200);
    assert!(server.ask("GET /logging", LOCAL).await.ends_with("\r\n\r\ndebug\n"));
    assert_eq!(server.status("POST /logging?level=loud", LOCAL).await, 400);
    assert_eq!(server.status("POST /logging", LOCAL).await, 400);
    assert!(server.ask("GET /logging", LOCAL).await.ends_with("\r\n\r\ndebug\n"));
}

#[tokio::test]
async fn a_web_page_can_neither_read_nor_change_anything_on_loopback() {
    let (routes, drained) = everything(&Ready::new(), &Registry::new());
    let server = started(routes, Audience::Loopback).await;
    assert_eq!(server.status("GET /config", LOCAL).await, 200);
    assert_eq!(server.status("GET /config", "Host: rebound.example:15000\r\n").await, 403);
    assert_eq!(server.status("POST /drain", "Host: localhost\r\nOrigin: https://evil.example\r\n").await, 403);
    assert_eq!(drained.available_permits(), 0);
}

#[tokio::test]
async fn a_malformed_request_ends_its_own_connection_alone() {
    let server = started(health(&Ready::new(), &Registry::new()), Audience::Network).await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    let mut broken = TcpStream::connect(server.address).await.unwrap();
    broken.write_all(b"\x16\x03\x01\x02\x00\x01\xff\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _ = broken.read_to_end(&mut rest).await;
    idle.write_all(b"GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut reply = String::new();
    idle.read_to_string(&mut reply).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 OK"), "{reply}");
}

#[tokio::test(start_paused = true)]
async fn a_header_that_never_ends_is_not_waited_for() {
    let server = started(health(&Ready::new(), &Registry::new()), Audience::Network).await;
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    slow.write_all(b"GET /live HTTP/1.1\r\nHost: ").await.unwrap();
    let begun = tokio::time::Instant::now();
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest).await;
    assert!(begun.elapsed() >= HEADER_DEADLINE && begun.elapsed() < 2 * HEADER_DEADLINE, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_until_one_ends() {
    let server = started(health(&Ready::new(), &Registry::new()), Audience::Network).await;
    let mut held = Vec::new();
    for _ in 0..MOST_CONNECTIONS {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut first = [0; 15];
        stream.read_exact(&mut first).await.unwrap();
        held.push(stream);
    }
    let mut waiting = Box::pin(server.status("GET /live", LOCAL));
    // The server's turn comes before the runtime is idle again: an answer would be here by then.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    held.pop();
    assert_eq!(waiting.await, 200);
}

#[test]
fn only_loopback_hosts_are_local() {
    for local in ["localhost", "LocalHost:15000", "127.0.0.1", "127.9.9.9:1", "[::1]", "[::1]:15000"] {
        assert!(names_loopback(local), "{local}");
    }
    for other in ["", "evil.example", "localhost.evil.example:15000", "192.0.2.1", "[2001:db8::1]:15000", "[", "::1]"] {
        assert!(!names_loopback(other), "{other}");
    }
}
