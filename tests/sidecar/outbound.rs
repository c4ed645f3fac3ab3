//! Where an outbound half carries connections, and what it never does with them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use funicular::net::tls::{First, first_octets};
use funicular::wire::proxy_header;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::bed::*;

/// A listener that stands for a server, and its port.
async fn server() -> (TcpListener, u16) {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn on_loopback(rule: &str, port: u16) -> Arc<Table> {
    Table::of([service(&["::1/128"], &[rule], Some(port))])
}

const PP2: &str = "v=ssa1 token=pp2 gen=9";

#[tokio::test]
async fn a_server_that_proves_the_name_gets_one_header_and_then_the_bytes() {
    let authority = Authority::new();
    let (listener, port) = server().await;
    let outbound = OutboundBed::new(&authority, on_loopback(PP2, port)).start().await;
    let mut client = outbound.connect().await;
    client.write_all(b"question").await.unwrap();
    let client_port = client.local_addr().unwrap().port();

    let First::Tls(hello) = first_octets(listener.accept().await.unwrap().0).await.unwrap() else {
        panic!("no ClientHello");
    };
    let mut stream = authority.server(SERVICE).accept(hello, "pp2").await.unwrap();
    let mut octets = Vec::new();
    while octets.len() < 8 || !octets.ends_with(b"question") {
        assert_ne!(within(stream.read_buf(&mut octets)).await.unwrap(), 0);
    }
    let (header, length) = proxy_header::parse(&octets).unwrap().unwrap();
    assert_eq!(&octets[length..], b"question");
    assert_eq!((header.source.ip().to_string().as_str(), header.source.port()), ("::1", client_port));
    assert_eq!((header.destination.ip().to_string().as_str(), header.destination.port()), ("::1", port));
    assert_eq!((header.authority, header.generation), (Some(name(SERVICE)), Some(9)));
    assert_eq!(header.token.unwrap().0.split(|&octet| octet == b'.').count(), 3);
}

#[tokio::test]
async fn a_server_that_cannot_prove_the_name_gets_no_token_and_no_byte() {
    let (ours, other) = (Authority::new(), Authority::new());
    for tls in [
        other.server(SERVICE),
        ours.server("users.shop.peak"),
        ours.server_during(SERVICE, 2000..2001),
        ours.server_during(SERVICE, 4000..4096),
    ] {
        let (listener, port) = server().await;
        let outbound = OutboundBed::new(&ours, on_loopback(PP2, port)).start().await;
        let mut app = outbound.connect().await;
        app.write_all(b"question").await.unwrap();
        let First::Tls(hello) = first_octets(listener.accept().await.unwrap().0).await.unwrap() else {
            panic!("no ClientHello");
        };
        assert!(within(tls.accept(hello, "pp2")).await.is_err());
        ends_by_reset(app).await;
        outbound.refused("outbound", "server-unproven", 1).await;
    }
}

#[tokio::test]
async fn a_server_without_tls_sees_a_client_hello_and_nothing_more() {
    let authority = Authority::new();
    let (listener, port) = server().await;
    let outbound = OutboundBed::new(&authority, on_loopback(PP2, port)).start().await;
    let mut app = outbound.connect().await;
    app.write_all(b"question").await.unwrap();
    let (mut tcp, _) = listener.accept().await.unwrap();
    tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let mut seen = Vec::new();
    let _ = within(tcp.read_to_end(&mut seen)).await;
    assert_eq!(seen[0], 0x16);
    for secret in [&b"question"[..], b"eyJ", WEB.as_bytes()] {
        assert!(!seen.windows(secret.len()).any(|window| window == secret));
    }
    ends_by_reset(app).await;
}

#[tokio::test]
async fn when_a_candidate_does_not_answer_the_next_one_is_tried() {
    let authority = Authority::new();
    let mut application = Application::start().await;
    let (_inbound, bed) = one_living_one_dead(&authority, &application).await;
    let outbound = bed.start().await;
    // Which of the two comes first is a matter of chance. All of them find the living candidate first once in a million runs.
    for _ in 0..20 {
        let mut client = outbound.connect().await;
        hears(&mut client, &mut application.accept().await, "hello").await;
    }
    assert!(outbound.registry.text().contains("funicular_attempts_failed_total{"));
}

#[tokio::test]
async fn when_nobody_answers_the_application_hears_so_before_the_deadline() {
    let authority = Authority::new();
    let (listener, port) = server().await;
    drop(listener);
    let outbound = OutboundBed::new(&authority, on_loopback(PP2, port)).start().await;
    ends_by_reset(outbound.connect().await).await;
    outbound.refused("outbound", "server-refused", 1).await;
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_is_given_up_at_the_attempts_end() {
    let authority = Authority::new();
    let (listener, port) = server().await;
    let mut bed = OutboundBed::new(&authority, on_loopback(PP2, port));
    bed.outbound.limits.attempt_timeout = Duration::from_millis(100);
    let outbound = bed.start().await;
    let client = outbound.connect().await;
    let _silent = listener.accept().await.unwrap();
    ends_by_reset(client).await;
    outbound.refused("outbound", "server-timed-out", 1).await;
}

#[tokio::test]
async fn without_an_identity_a_service_that_wants_a_token_is_not_connected_to() {
    let authority = Authority::new();
    let mut server = Application::start().await;
    let mut bed = OutboundBed::new(&authority, on_loopback(PP2, server.port));
    bed.outbound.identity = None;
    let outbound = bed.start().await;
    ends_by_reset(outbound.connect().await).await;
    outbound.refused("outbound", "identity-missing", 1).await;
    assert!(server.is_untouched());
}

#[tokio::test]
async fn a_destination_that_is_no_service_passes_untouched() {
    let authority = Authority::new();
    let mut legacy = Application::start().await;
    let mut bed = OutboundBed::new(&authority, Table::of([]));
    bed.outbound.original = going_to(format!("[::1]:{}", legacy.port).parse::<SocketAddr>().unwrap());
    let outbound = bed.start().await;
    let mut client = outbound.connect().await;
    let mut server = legacy.accept().await;
    hears(&mut client, &mut server, "hello").await;
    hears(&mut server, &mut client, "hello yourself").await;
    drop((client, server));
    outbound.says("funicular_connections_total{direction=\"outbound\",mode=\"legacy\"} 1").await;
}

#[tokio::test]
async fn a_service_that_cannot_be_looked_up_never_goes_the_old_way() {
    let authority = Authority::new();
    let outbound = OutboundBed::new(&authority, Table::of([])).start().await;
    ends_by_reset(outbound.connect().await).await;
    outbound.refused("outbound", "name-servers-unreachable", 1).await;
}

#[tokio::test]
async fn a_stand_in_that_was_given_to_no_name_is_refused() {
    let authority = Authority::new();
    let mut bed = OutboundBed::new(&authority, Table::of([]));
    bed.outbound.original = going_to("240.9.9.9:80".parse::<SocketAddr>().unwrap());
    let outbound = bed.start().await;
    ends_by_reset(outbound.connect().await).await;
    outbound.refused("outbound", "stand-in-unknown", 1).await;
}

#[tokio::test]
async fn an_address_inside_a_known_space_is_recognised_without_a_stand_in() {
    let authority = Authority::new();
    let mut application = Application::start().await;
    let mut bed = InboundBed::new(&authority, application.port);
    bed.inbound.original = going_to("[::1]:80".parse::<SocketAddr>().unwrap());
    bed.inbound.directory = Table::of([service(&["::1/128"], &[PP2], None)]);
    let inbound = bed.start().await;
    let mut bed = OutboundBed::new(&authority, on_loopback(PP2, inbound.address.port()));
    bed.outbound.original = going_to("[::1]:80".parse::<SocketAddr>().unwrap());
    let outbound = bed.start().await;
    let mut client = outbound.connect().await;
    hears(&mut client, &mut application.accept().await, "hello").await;
    drop(client);
    outbound.says("funicular_connections_total{direction=\"outbound\",mode=\"pp2\"} 1").await;
}

#[tokio::test]
async fn a_connection_straight_to_our_port_is_a_loop() {
    let authority = Authority::new();
    let mut bed = OutboundBed::new(&authority, Table::of([]));
    bed.outbound.original = straight_to_us();
    let outbound = bed.start().await;
    ends_by_reset(outbound.connect().await).await;
    outbound.refused("outbound", "loop", 1).await;
}

/// Accepts connections, and says nothing on them.
fn silent(listener: TcpListener) {
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((tcp, _)) = listener.accept().await {
            held.push(tcp);
        }
    });
}

/// A living inbound half, and an outbound half to whom the service has two slices: that one, and one where nobody is
/// (100::1, RFC 6666).
async fn one_living_one_dead(authority: &Authority, application: &Application) -> (Running, OutboundBed) {
    let mut bed = InboundBed::new(authority, application.port);
    bed.inbound.original = going_to("[::1]:80".parse::<SocketAddr>().unwrap());
    let prefixes = ["::1/128", "100::1/128"];
    bed.inbound.directory = Table::of([service(&prefixes, &[PP2], None)]);
    let inbound = bed.start().await;
    let directory = Table::of([service(&prefixes, &[PP2], Some(inbound.address.port()))]);
    (inbound, OutboundBed::new(authority, directory))
}

#[tokio::test]
async fn a_slice_that_failed_is_not_tried_first_again() {
    let authority = Authority::new();
    let mut application = Application::start().await;
    let (_inbound, bed) = one_living_one_dead(&authority, &application).await;
    let outbound = bed.start().await;
    for _ in 0..40 {
        let mut client = outbound.connect().await;
        hears(&mut client, &mut application.accept().await, "hello").await;
    }
    let failed: u32 = outbound
        .registry
        .text()
        .lines()
        .filter(|line| line.starts_with("funicular_attempts_failed_total{"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u32>().ok())
        .sum();
    assert!(failed <= 2, "{failed} of 40 calls tried the dead slice");
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn a_candidate_that_is_silent_is_overtaken_after_the_delay_and_shunned_from_then_on() {
    on_a_host_with("2001:db8:5:1::/64", async {
        let authority = Authority::new();
        // The first connection is taken by one who says nothing, all further ones by the service.
        let listener = TcpListener::bind("[::]:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let tls = authority.server(SERVICE);
        let serving = tokio::spawn(async move {
            let _silent = listener.accept().await.unwrap();
            loop {
                let First::Tls(hello) = first_octets(listener.accept().await.unwrap().0).await.unwrap() else {
                    panic!("no ClientHello");
                };
                tls.accept(hello, "pp2").await.unwrap().write_all(b"served").await.unwrap();
            }
        });
        let rule = "v=ssa1 token=pp2 layout=random:64 slices=1";
        let directory = Table::of([service(&["2001:db8:5:1::/64"], &[rule], Some(port))]);
        let mut bed = OutboundBed::new(&authority, directory);
        bed.outbound.limits.attempt_delay = Duration::from_millis(50);
        bed.outbound.limits.attempt_timeout = Duration::from_secs(10);
        let outbound = bed.start().await;
        for _ in 0..10 {
            let mut heard = [0; 6];
            within(outbound.connect().await.read_exact(&mut heard)).await.unwrap();
            assert_eq!(&heard, b"served");
        }
        outbound.says("funicular_connections_total{direction=\"outbound\",mode=\"pp2\"} 10").await;
        serving.abort();
    });
}

#[tokio::test]
async fn a_service_has_as_many_connections_as_it_may_and_no_more() {
    let authority = Authority::new();
    let (listener, port) = server().await;
    silent(listener);
    let mut bed = OutboundBed::new(&authority, on_loopback("v=ssa1 token=none", port));
    bed.outbound.circuits = Quota::new(Bounds { open: 2, pending: 2 });
    let outbound = bed.start().await;
    let (first, _second) = (outbound.connect().await, outbound.connect().await);
    outbound.says("funicular_connections_total{direction=\"outbound\",mode=\"none\"} 2").await;
    ends_by_reset(outbound.connect().await).await;
    outbound.refused("outbound", "service-connections-limit", 1).await;
    first.set_zero_linger().unwrap();
    drop(first);
    outbound.says("funicular_connections_open{direction=\"outbound\"} 1").await;
    let _third = outbound.connect().await;
    outbound.says("funicular_connections_total{direction=\"outbound\",mode=\"none\"} 3").await;
}

#[tokio::test]
async fn connections_that_do_not_come_about_have_a_limit_of_their_own() {
    let authority = Authority::new();
    let (listener, port) = server().await;
    silent(listener);
    let mut bed = OutboundBed::new(&authority, on_loopback(PP2, port));
    bed.outbound.circuits = Quota::new(Bounds { open: 100, pending: 1 });
    bed.outbound.limits.attempt_timeout = Duration::from_secs(10);
    let outbound = bed.start().await;
    let _waiting = outbound.connect().await;
    outbound.says("funicular_connections_open{direction=\"outbound\"} 1").await;
    ends_by_reset(outbound.connect().await).await;
    outbound.refused("outbound", "service-pending-limit", 1).await;
}

#[tokio::test]
async fn when_all_of_a_service_is_down_calls_do_not_multiply() {
    let authority = Authority::new();
    let (listener, port) = server().await;
    drop(listener);
    // Nobody is there (RFC 6666). A call would try sixteen candidates, if nothing held it back.
    let nowhere = Table::of([service(&["100::/64"], &["v=ssa1 token=none"], Some(port))]);
    let mut bed = OutboundBed::new(&authority, nowhere);
    bed.outbound.limits.attempt_timeout = Duration::from_millis(20);
    bed.outbound.limits.attempt_delay = Duration::from_millis(5);
    let outbound = bed.start().await;
    for _ in 0..40 {
        ends_by_reset(outbound.connect().await).await;
    }
    let text = outbound.registry.text();
    assert!(text.contains("reason=\"retry-budget-empty\""), "{text}");
}
