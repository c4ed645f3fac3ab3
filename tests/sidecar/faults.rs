//! What goes wrong around a running sidecar: too few descriptors, too many peers, peers that go.

use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::bed::*;
use crate::life::Process;

const EXPLICIT: &str = "inbound: { listen: \"127.0.0.1:0\" }\n";

/// Says back what it hears, for whoever connects.
async fn echo() -> SocketAddr {
    let listener = funicular::net::listen::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            // Out of descriptors itself, perhaps: connections wait.
            let Ok((mut tcp, _)) = listener.accept().await else {
                tokio::task::yield_now().await;
                continue;
            };
            tokio::spawn(async move {
                let (mut read, mut write) = tcp.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

/// Connects to `to` by way of the sidecar's port for programs that ask.
async fn asked(sidecar: &Process, to: SocketAddr) -> std::io::Result<TcpStream> {
    let mut tcp = TcpStream::connect(sidecar.explicit.unwrap()).await?;
    tcp.write_all(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes()).await?;
    let mut granted = [0; 39];
    tcp.read_exact(&mut granted).await?;
    assert!(granted.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&granted));
    Ok(tcp)
}

async fn answers(tcp: &mut TcpStream) -> std::io::Result<()> {
    tcp.write_all(b"still there?").await?;
    let mut heard = [0; 12];
    tcp.read_exact(&mut heard).await?;
    assert_eq!(&heard, b"still there?");
    Ok(())
}

/// The figure of a process's metric.
async fn figure(sidecar: &Process, metric: &str) -> f64 {
    let metrics = sidecar.get("/metrics").await;
    let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("{metric} ")));
    line.unwrap_or_else(|| panic!("no {metric}")).parse().unwrap()
}

#[tokio::test]
async fn without_descriptors_nothing_new_is_taken_what_is_open_goes_on_and_it_is_said() {
    let authority = Authority::new();
    let mut sidecar = Process::with_descriptors(60, &authority, "127.0.0.1:0", EXPLICIT).await;
    let to = echo().await;
    let mut first = within(asked(&sidecar, to)).await.unwrap();
    // Each takes two, so these are more than there are; what is not taken waits.
    let mut waiting = JoinSet::new();
    for _ in 0..60 {
        let explicit = sidecar.explicit.unwrap();
        waiting.spawn(async move { TcpStream::connect(explicit).await.unwrap() });
    }
    let held = within(waiting.join_all()).await;
    sidecar.says("cannot accept a connection").await;
    within(answers(&mut first)).await.unwrap();

    drop(held);
    let mut next = within(asked(&sidecar, to)).await.unwrap();
    within(answers(&mut next)).await.unwrap();
    let failures = "funicular_accept_failures_total{direction=\"outbound\"}";
    assert!(figure(&sidecar, failures).await >= 1.0);
}

#[tokio::test]
async fn a_server_that_is_killed_in_the_middle_of_what_it_says_is_seen_to_break_off() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut bed = OutboundBed::new(&authority, Table::of([]));
    bed.outbound.original = going_to(listener.local_addr().unwrap());
    let outbound = bed.start().await;
    let mut client = outbound.connect().await;
    let (mut server, _) = listener.accept().await.unwrap();
    hears(&mut server, &mut client, "half of a bo").await;
    server.set_zero_linger().unwrap();
    drop(server);
    ends_by_reset(client).await;
    outbound.says("funicular_connections_broken_total{direction=\"outbound\",reason=\"server-broke-off\"} 1").await;
}

#[tokio::test]
async fn what_is_no_service_is_half_closed_and_reset_as_it_was() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut bed = OutboundBed::new(&authority, Table::of([]));
    bed.outbound.original = going_to(listener.local_addr().unwrap());
    let outbound = bed.start().await;
    let mut client = outbound.connect().await;
    client.write_all(b"all of it").await.unwrap();
    client.shutdown().await.unwrap();
    let (mut server, _) = within(listener.accept()).await.unwrap();
    let mut heard = Vec::new();
    within(server.read_to_end(&mut heard)).await.unwrap();
    assert_eq!(heard, b"all of it");
    hears(&mut server, &mut client, "now mine").await;
    drop(server);
    assert_eq!(within(client.read(&mut [0; 8])).await.unwrap(), 0);

    let client = outbound.connect().await;
    let (server, _) = within(listener.accept()).await.unwrap();
    client.set_zero_linger().unwrap();
    drop(client);
    ends_by_reset(server).await;
}
