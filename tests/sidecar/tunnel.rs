//! Tunnels: what makes them worth having, and what must never come of them.

use std::net::SocketAddr;
use std::time::Duration;

use funicular::model::UnixSeconds;
use funicular::net::tls::{First, ServerStream, first_octets};
use funicular::net::tunnel::Tunnel;
use funicular::ops::clock;
use funicular::sidecar::outbound::transport::TUNNEL;
use funicular::wire::proxy_header::{self, ProxyHeader, TokenOctets};
use funicular::wire::tunnel as frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::bed::*;

const RULE: &str = "v=ssa1 gen=2";

struct Pair {
    outbound: Running,
    inbound: Running,
    application: Application,
}

impl Pair {
    async fn start(authority: &Authority) -> Self {
        let application = Application::start().await;
        let mut bed = InboundBed::new(authority, application.port);
        bed.inbound.original = going_to("[::1]:80".parse::<SocketAddr>().unwrap());
        bed.inbound.directory = Table::of([service(&["::1/128"], &[RULE], None)]);
        let inbound = bed.start().await;
        let directory = Table::of([service(&["::1/128"], &[RULE], Some(inbound.address.port()))]);
        let outbound = OutboundBed::new(authority, directory).start().await;
        Self { outbound, inbound, application }
    }

    /// A whole exchange: both sides say something and end.
    async fn exchange(&mut self) {
        let mut client = self.outbound.connect().await;
        client.write_all(b"question").await.unwrap();
        let mut server = self.application.accept().await;
        hears(&mut server, &mut client, "answer").await;
        server.shutdown().await.unwrap();
        let mut rest = Vec::new();
        within(client.read_to_end(&mut rest)).await.unwrap();
        client.shutdown().await.unwrap();
        within(server.read_to_end(&mut rest)).await.unwrap();
        assert_eq!(rest, b"question");
    }
}

/// A server of the test's own, up to the end of its handshake.
struct HandServer {
    listener: TcpListener,
    tls: funicular::net::tls::ServerTls,
}

impl HandServer {
    async fn start(authority: &Authority) -> Self {
        Self { listener: TcpListener::bind("[::1]:0").await.unwrap(), tls: authority.server(SERVICE) }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    async fn accept(&self) -> Tunnel<ServerStream, ByHand> {
        let First::Tls(hello) = first_octets(self.listener.accept().await.unwrap().0).await.unwrap() else {
            panic!("no ClientHello");
        };
        assert!(hello.offers(TUNNEL));
        Tunnel::new(self.tls.accept(hello, TUNNEL).await.unwrap(), ByHand::default())
    }
}

/// Such a server, and an outbound half whose calls go to it.
async fn by_hand(authority: &Authority) -> (HandServer, Running) {
    let server = HandServer::start(authority).await;
    let directory = Table::of([service(&["::1/128"], &[RULE], Some(server.port()))]);
    (server, OutboundBed::new(authority, directory).start().await)
}

/// Waits for a stream's header; gives its token and its reference.
async fn begins(tunnel: &mut Tunnel<ServerStream, ByHand>) -> (Option<Vec<u8>>, Option<u32>) {
    loop {
        if let Some((ProxyHeader { token, token_reference, .. }, length)) = proxy_header::parse(tunnel.ahead()).unwrap()
        {
            let token = token.map(|token| token.0.to_vec());
            tunnel.accept(length);
            return (token, token_reference);
        }
        assert_ne!(within(tunnel.more_ahead()).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_finished_stream_gives_its_tunnel_to_the_next_which_costs_no_handshake_and_no_signature() {
    let authority = Authority::new();
    let mut pair = Pair::start(&authority).await;
    for before in 0..5 {
        pair.exchange().await;
        pair.outbound.says("funicular_tunnels_idle{direction=\"outbound\"} 1").await;
        pair.inbound.says("funicular_tunnels_idle{direction=\"inbound\"} 1").await;
        pair.inbound
            .says(&format!("funicular_connections_total{{direction=\"inbound\",mode=\"tunnel\"}} {}", before + 1))
            .await;
    }
    pair.outbound.says("funicular_tunnel_streams_total{how=\"fresh\"} 1").await;
    pair.outbound.says("funicular_tunnel_streams_total{how=\"reused\"} 4").await;
    pair.inbound.says("funicular_token_verdicts_total{how=\"checked\"} 1").await;
    pair.inbound.says("funicular_token_verdicts_total{how=\"cached\"} 4").await;
}

#[tokio::test]
async fn streams_at_the_same_time_have_tunnels_of_their_own() {
    let authority = Authority::new();
    let mut pair = Pair::start(&authority).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut client = pair.outbound.connect().await;
        let mut server = pair.application.accept().await;
        hears(&mut client, &mut server, "hello").await;
        open.push((client, server));
    }
    pair.outbound.says("funicular_tunnel_streams_total{how=\"fresh\"} 3").await;
    for (mut client, mut server) in open {
        hears(&mut server, &mut client, "still my own").await;
    }
}

#[tokio::test]
async fn a_stream_that_is_reset_takes_its_tunnel_with_it_and_no_other() {
    let authority = Authority::new();
    let mut pair = Pair::start(&authority).await;
    let mut other = pair.outbound.connect().await;
    let mut other_server = pair.application.accept().await;
    let client = pair.outbound.connect().await;
    let mut server = pair.application.accept().await;
    client.set_zero_linger().unwrap();
    drop(client);
    assert_eq!(within(server.read_u8()).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    hears(&mut other, &mut other_server, "untouched").await;
    pair.exchange().await;
    pair.outbound.says("funicular_tunnel_streams_total{how=\"fresh\"} 3").await;
}

#[tokio::test]
async fn the_second_stream_refers_to_the_token_of_the_first() {
    let authority = Authority::new();
    let (server, outbound) = by_hand(&authority).await;
    let mut client = outbound.connect().await;
    let mut tunnel = server.accept().await;
    let (token, reference) = begins(&mut tunnel).await;
    assert!(token.is_some() && reference.is_none());
    hears(&mut client, &mut tunnel, "one").await;
    client.shutdown().await.unwrap();
    assert_eq!(within(tunnel.read(&mut [0; 8])).await.unwrap(), 0);
    tunnel.shutdown().await.unwrap();
    assert_eq!(within(client.read(&mut [0; 8])).await.unwrap(), 0);
    outbound.says("funicular_tunnels_idle{direction=\"outbound\"} 1").await;

    let mut client = outbound.connect().await;
    assert_eq!(begins(&mut tunnel).await, (None, Some(0)));
    hears(&mut client, &mut tunnel, "two").await;
}

#[tokio::test]
async fn a_stream_that_the_server_closed_on_instead_of_taking_it_is_carried_by_a_fresh_tunnel() {
    let authority = Authority::new();
    let (server, outbound) = by_hand(&authority).await;
    let mut client = outbound.connect().await;
    let mut tunnel = server.accept().await;
    begins(&mut tunnel).await;
    tunnel.shutdown().await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(within(client.read(&mut [0; 8])).await.unwrap(), 0);
    assert_eq!(within(tunnel.read(&mut [0; 8])).await.unwrap(), 0);
    outbound.says("funicular_tunnels_idle{direction=\"outbound\"} 1").await;

    let mut client = outbound.connect().await;
    client.write_all(b"said once").await.unwrap();
    assert_ne!(within(tunnel.more_ahead()).await.unwrap(), 0);
    let closing = tokio::spawn(async move { tunnel.close_and_wait().await });
    let mut fresh = within(server.accept()).await;
    let (token, _) = begins(&mut fresh).await;
    assert!(token.is_some());
    let mut heard = [0; 9];
    within(fresh.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"said once");
    hears(&mut fresh, &mut client, "heard once").await;
    let _ = within(closing).await.unwrap();
}

#[tokio::test]
async fn a_stream_that_breaks_off_after_the_server_has_answered_is_never_said_again() {
    let authority = Authority::new();
    let (server, outbound) = by_hand(&authority).await;
    let mut client = outbound.connect().await;
    let mut tunnel = server.accept().await;
    begins(&mut tunnel).await;
    hears(&mut client, &mut tunnel, "question").await;
    hears(&mut tunnel, &mut client, "ans").await;
    let _ = within(tunnel.close_and_wait()).await;
    ends_by_reset(client).await;
    outbound.says("funicular_tunnel_streams_total{how=\"fresh\"} 1").await;
}

#[tokio::test]
async fn a_reference_to_a_token_that_did_not_come_is_refused() {
    let authority = Authority::new();
    let token = authority.token();
    for (token, reference) in [(None, 0), (Some(TokenOctets(token.as_bytes())), 0)] {
        let mut application = Application::start().await;
        let inbound = InboundBed::new(&authority, application.port).start().await;
        let mut caller = Caller::with(&authority, b"");
        (caller.header.token, caller.header.token_reference) = (token, Some(reference));
        ends_by_reset(caller.tunnel(&inbound).await.unwrap()).await;
        inbound.refused("inbound", "token-reference-unknown", 1).await;
        assert!(application.is_untouched());
    }
}

#[tokio::test]
async fn every_stream_of_a_tunnel_is_verified_anew() {
    let authority = Authority::new();
    let token = authority.token();
    let mut application = Application::start().await;
    let inbound = InboundBed::new(&authority, application.port).start().await;
    let mut caller = Caller::with(&authority, token.as_bytes());
    let mut tunnel = caller.tunnel(&inbound).await.unwrap();
    let mut server = application.accept().await;
    hears(&mut tunnel, &mut server, "first").await;
    tunnel.shutdown().await.unwrap();
    drop(server);
    assert_eq!(within(tunnel.read(&mut [0; 8])).await.unwrap(), 0);
    caller.header.source = "[2001:db8:1::10]:40000".parse().unwrap();
    caller.open(&mut tunnel).await.unwrap();
    ends_by_reset(tunnel).await;
    inbound.refused("inbound", "source-wrong", 1).await;
}

#[tokio::test]
async fn malformed_frames_end_their_own_tunnel_alone_each_for_its_own_reason() {
    let authority = Authority::new();
    let token = authority.token();
    let mut application = Application::start().await;
    let inbound = InboundBed::new(&authority, application.port).start().await;
    let caller = Caller::with(&authority, token.as_bytes());
    let mut good = caller.tunnel(&inbound).await.unwrap();
    let mut good_server = application.accept().await;
    let mut header = Vec::new();
    caller.header.encode(&mut header).unwrap();
    for (octets, reason) in [
        (&b"\x07\0\0\x01x"[..], "frame-kind-unknown"),
        (b"\0\0\0\0", "frame-length-wrong"),
        (b"\x01\0\0\x01", "frame-length-wrong"),
        (b"\x02\x01\0\0", "token-too-long"),
        (b"\x02\0\0\x05a.b.c", "token-malformed"),
        // The header once more, where a frame is due.
        (&header[..], "frame-kind-unknown"),
    ] {
        let stream = caller.speaking(TUNNEL, &inbound, &[&header, octets].concat()).await.unwrap();
        ends_by_reset(stream).await;
        assert_eq!(
            within(application.accept().await.read_u8()).await.unwrap_err().kind(),
            std::io::ErrorKind::ConnectionReset
        );
        let broken = format!("funicular_connections_broken_total{{direction=\"inbound\",reason=\"{reason}\"}}");
        within(async {
            while !inbound.registry.text().contains(&broken) {
                tokio::task::yield_now().await
            }
        })
        .await;
        hears(&mut good, &mut good_server, "still here").await;
    }
}

#[tokio::test]
async fn what_follows_the_end_of_a_stream_is_no_part_of_it_and_must_be_a_header() {
    let authority = Authority::new();
    let token = authority.token();
    let mut application = Application::start().await;
    let inbound = InboundBed::new(&authority, application.port).start().await;
    let caller = Caller::with(&authority, token.as_bytes());
    let mut octets = Vec::new();
    caller.header.encode(&mut octets).unwrap();
    octets.extend_from_slice(b"\0\0\0\x03all\x01\0\0\0\0\0\0\x04more");
    let _stream = caller.speaking(TUNNEL, &inbound, &octets).await.unwrap();

    let mut server = application.accept().await;
    let mut heard = Vec::new();
    within(server.read_to_end(&mut heard)).await.unwrap();
    assert_eq!(heard, b"all");
    drop(server);
    inbound.refused("inbound", "proxy-header-missing", 1).await;
    assert!(application.is_untouched());
}

#[tokio::test]
async fn a_stream_ends_when_its_token_is_dead_unless_the_caller_renews_it() {
    let authority = Authority::new();
    let mut claims = claims();
    // Two seconds before the skew that is forgiven is over.
    claims.expires = UnixSeconds(clock::now().0 - 8);
    let old = authority.key.sign(&claims).unwrap();
    let mut application = Application::start().await;
    let inbound = InboundBed::new(&authority, application.port).start().await;
    let caller = Caller::with(&authority, old.as_bytes());
    let mut renewing = caller.tunnel(&inbound).await.unwrap();
    let mut renewing_server = application.accept().await;
    let letting_go = caller.tunnel(&inbound).await.unwrap();
    let letting_go_server = application.accept().await;
    renewing.party().renewal = Some(authority.token().into_bytes());
    hears(&mut renewing, &mut renewing_server, "with a new token").await;
    ends_by_reset(letting_go).await;
    ends_by_reset(letting_go_server).await;
    inbound.says("funicular_connections_broken_total{direction=\"inbound\",reason=\"token-expired\"} 1").await;
    hears(&mut renewing, &mut renewing_server, "still talking").await;
}

#[tokio::test]
async fn a_token_renewed_for_somebody_else_ends_the_stream() {
    let authority = Authority::new();
    let token = authority.token();
    let mut other = claims();
    other.subject = "spiffe://shop.example/ns/default/sa/api".parse().unwrap();
    let mut application = Application::start().await;
    let inbound = InboundBed::new(&authority, application.port).start().await;
    let mut tunnel = Caller::with(&authority, token.as_bytes()).tunnel(&inbound).await.unwrap();
    let _server = application.accept().await;
    tunnel.party().renewal = Some(authority.key.sign(&other).unwrap().into_bytes());
    ends_by_reset(tunnel).await;
    let reason = "funicular_connections_broken_total{direction=\"inbound\",reason=\"token-subject-changed\"} 1";
    inbound.says(reason).await;
}

#[tokio::test]
async fn a_caller_renews_its_token_in_a_stream_that_lasts() {
    let authority = Authority::new();
    let server = HandServer::start(&authority).await;
    let directory = Table::of([service(&["::1/128"], &[RULE], Some(server.port()))]);
    let bed = OutboundBed::with_tokens_of(Duration::from_secs(2), &authority, directory);
    let outbound = bed.start().await;
    let mut client = outbound.connect().await;
    let mut tunnel = server.accept().await;
    let (first, _) = begins(&mut tunnel).await;
    hears(&mut client, &mut tunnel, "early").await;
    outbound.says("funicular_tokens_signed_total 2").await;
    hears(&mut client, &mut tunnel, "late").await;
    let renewed = &tunnel.party().renewed;
    assert_eq!(renewed.len(), 1);
    assert_ne!(first.as_ref(), renewed.first());
}

#[tokio::test]
async fn an_idle_tunnel_holds_no_drain_up_and_is_closed_in_good_order() {
    let authority = Authority::new();
    let token = authority.token();
    let mut application = Application::start().await;
    let inbound = InboundBed::new(&authority, application.port).start().await;
    let mut tunnel = Caller::with(&authority, token.as_bytes()).tunnel(&inbound).await.unwrap();
    drop(application.accept().await);
    tunnel.shutdown().await.unwrap();
    assert_eq!(within(tunnel.read(&mut [0; 8])).await.unwrap(), 0);
    inbound.says("funicular_tunnels_idle{direction=\"inbound\"} 1").await;
    inbound.says("funicular_connections_open{direction=\"inbound\"} 0").await;
    inbound.drain.begin();
    // An orderly end, not a reset.
    assert_eq!(within(tunnel.more_ahead()).await.unwrap(), 0);
}

#[tokio::test]
async fn the_first_flight_of_a_stream_holds_its_header_and_the_first_bytes() {
    let authority = Authority::new();
    let (server, outbound) = by_hand(&authority).await;
    let mut client: TcpStream = outbound.connect().await;
    client.write_all(b"question").await.unwrap();
    let mut tunnel = server.accept().await;
    assert_ne!(within(tunnel.more_ahead()).await.unwrap(), 0);
    let (_, length) = proxy_header::parse(tunnel.ahead()).unwrap().unwrap();
    let behind = [&frame::data(8)[..], b"question"].concat();
    assert_eq!(&tunnel.ahead()[length..], behind);
}
