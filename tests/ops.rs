//! A role's life as its operator sees it: signals, readiness, drain and the admin port together.
//!
//! One test, because a signal reaches the whole process.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use funicular::ops::admin::{self, Audience, Shown};
use funicular::ops::drain::{Drain, Drained};
use funicular::ops::logging::{self, Format};
use funicular::ops::metrics::Registry;
use funicular::ops::ready::Ready;
use funicular::ops::signals::{Signals, Wish};
use rustix::process::{Signal, getpid, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Longer than anything here takes, so that only what hangs meets it.
const HANGS: Duration = Duration::from_secs(30);

async fn ask(address: std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{request} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    reply
}

fn send(signal: Signal) {
    kill_process(getpid(), signal).unwrap();
}

#[tokio::test]
async fn a_role_stops_gracefully_when_asked_once_and_at_once_when_asked_again() {
    let mut signals = Signals::catch().unwrap();
    let (ready, drain, asked) = (Ready::new(), Arc::new(Drain::new()), Arc::new(Notify::new()));
    let on_drain = Arc::clone(&asked);
    let routes = admin::routes(Shown {
        ready: ready.clone(),
        metrics: Registry::new(),
        logging: logging::start("off", Format::Text).unwrap(),
        config: || serde_json::json!({}),
        drain: move || on_drain.notify_one(),
    });
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(admin::serve(listener, routes, Audience::Loopback));

    // Reading the files again is another wish than stopping, whoever waits.
    send(Signal::HUP);
    assert_eq!(signals.next().await, Wish::Reload);

    let connection = drain.watch().guard();
    assert!(ask(address, "GET /ready").await.starts_with("HTTP/1.1 200 "));

    // The first wish to stop, by signal: not ready, and waiting for the connection.
    send(Signal::HUP);
    send(Signal::TERM);
    signals.stop().await;
    ready.stop();
    let draining = tokio::spawn({
        let drain = Arc::clone(&drain);
        async move { drain.drain(HANGS).await }
    });
    drain.watch().graceful().await;
    assert!(ask(address, "GET /ready").await.starts_with("HTTP/1.1 503 "));
    assert!(!draining.is_finished());

    // The second, while the first is still being obeyed.
    send(Signal::INT);
    signals.stop().await;
    drain.force();
    drain.watch().forced().await;
    drop(connection);
    assert_eq!(draining.await.unwrap(), Drained::Finished);

    // The admin port asks for the same.
    assert!(ask(address, "POST /drain").await.starts_with("HTTP/1.1 202 "));
    asked.notified().await;
    serving.abort();
}
