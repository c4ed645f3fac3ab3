//! Services that an application names on its way to an address that is no service's.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bed::*;
use crate::http::{head, say};

/// The one IPv6 address of loopback is all of the service's space.
async fn legacy() -> Application {
    Application::at("127.0.0.1:0").await
}

/// An outbound half whose application calls a legacy address, beside a service that it could reach.
struct Beside {
    outbound: Running,
    legacy: Application,
    service: Application,
    _inbound: Running,
}

impl Beside {
    async fn start() -> Self {
        let legacy = legacy().await;
        Self::with(SocketAddr::from((Ipv4Addr::LOCALHOST, legacy.port)), legacy).await
    }

    async fn with(going: SocketAddr, legacy: Application) -> Self {
        const RULE: &str = "v=ssa1 token=tunnel";
        let application = Application::start().await;
        let authority = Authority::new();
        let mut bed = InboundBed::new(&authority, application.port);
        bed.inbound.original = going_to("[::1]:80".parse::<SocketAddr>().unwrap());
        bed.inbound.directory = Table::of([service(&["::1/128"], &[RULE], None)]);
        let inbound = bed.start().await;
        let port = Some(inbound.address.port());
        let mut bed = OutboundBed::new(&authority, Table::of([service(&["::1/128"], &[RULE], port)]));
        bed.outbound.original = going_to(going);
        Self { outbound: bed.start().await, legacy, service: application, _inbound: inbound }
    }
}

#[tokio::test]
async fn a_host_that_is_a_service_leads_there_and_another_to_where_it_was_going() {
    let mut beside = Beside::start().await;
    let mut client = beside.outbound.connect().await;
    say(&mut client, "GET / HTTP/1.1\r\nHost: Orders.shop.peak:8080\r\n\r\n").await;
    assert!(head(&mut beside.service.accept().await).await.contains("host: orders.shop.peak:8080"));

    for other in ["example.com", "[2001:db8::1]", "not a name"] {
        let mut client = beside.outbound.connect().await;
        say(&mut client, &format!("GET / HTTP/1.1\r\nHost: {other}\r\n\r\n")).await;
        assert!(head(&mut beside.legacy.accept().await).await.contains(other));
    }
    assert!(beside.service.is_untouched());
    beside.outbound.says("funicular_connections_total{direction=\"outbound\",mode=\"tunnel\"} 1").await;
    beside.outbound.says("funicular_connections_total{direction=\"outbound\",mode=\"legacy\"} 3").await;
}

#[tokio::test]
async fn a_host_that_comes_in_pieces_is_waited_for_and_one_that_does_not_come_is_not() {
    let mut beside = Beside::start().await;
    let mut client = beside.outbound.connect().await;
    for piece in ["GE", "T / HTTP/1.1\r\nHo", "st: orders.shop.", "peak\r\n\r\n"] {
        say(&mut client, piece).await;
        tokio::task::yield_now().await;
    }
    head(&mut beside.service.accept().await).await;
    // The way that was tried meanwhile was given up.
    assert_eq!(within(beside.legacy.accept().await.read(&mut [0])).await.unwrap_or(0), 0);
    let mut client = beside.outbound.connect().await;
    say(&mut client, "GET / HTTP/1.1\r\n").await;
    let mut server = beside.legacy.accept().await;
    let mut heard = [0; 16];
    within(server.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"GET / HTTP/1.1\r\n");
}

#[tokio::test]
async fn the_server_name_of_an_applications_own_tls_is_heard_as_well() {
    let mut beside = Beside::start().await;
    let tls = Authority::new().client();
    for (asked, at_service) in [(SERVICE, true), ("example.com", false)] {
        let (tcp, tls) = (beside.outbound.connect().await, tls.clone());
        tokio::spawn(async move { tls.connect(tcp, &name(asked), "h2").await.is_ok() });
        let mut server = if at_service { beside.service.accept().await } else { beside.legacy.accept().await };
        assert_eq!(within(server.read_u8()).await.unwrap(), 22, "the ClientHello goes on whole");
    }
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard_without_delay() {
    let mut beside = Beside::start().await;
    let mut client = beside.outbound.connect().await;
    let mut server = beside.legacy.accept().await;
    hears(&mut server, &mut client, "220 mail.example ESMTP").await;
    // Nobody listens any longer to what comes after that.
    say(&mut client, "GET / HTTP/1.1\r\nHost: orders.shop.peak\r\n\r\n").await;
    assert!(head(&mut server).await.contains("host: orders.shop.peak"));
    assert!(beside.service.is_untouched());
}

#[tokio::test]
async fn a_service_is_reached_by_its_name_at_an_address_where_nobody_is() {
    let mut beside = Beside::with("127.0.0.1:1".parse().unwrap(), legacy().await).await;
    let mut client = beside.outbound.connect().await;
    say(&mut client, "GET / HTTP/1.1\r\nHost: orders.shop.peak\r\n\r\n").await;
    head(&mut beside.service.accept().await).await;

    let mut other: TcpStream = beside.outbound.connect().await;
    let _ = other.write_all(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n").await;
    ends_by_reset(other).await;
    beside.outbound.refused("outbound", "legacy-unreachable", 1).await;
}

#[tokio::test]
async fn a_name_of_peaks_goes_no_old_way_while_peak_cannot_be_asked() {
    let beside = Beside::start().await;
    let mut client = beside.outbound.connect().await;
    let _ = client.write_all(b"GET / HTTP/1.1\r\nHost: unknown.shop.peak\r\n\r\n").await;
    ends_by_reset(client).await;
    beside.outbound.refused("outbound", "name-servers-unreachable", 1).await;
}
