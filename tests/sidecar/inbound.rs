//! What an inbound half refuses, each for its own reason, without a byte for the application.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use funicular::model::UnixSeconds;
use funicular::model::token::Claims;
use funicular::ops::clock;
use funicular::sidecar::inbound::Policy;
use funicular::sidecar::outbound::transport::{PP2, TUNNEL};
use funicular::wire::proxy_header;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bed::*;

/// Claims with something changed.
fn but(change: impl FnOnce(&mut Claims)) -> Claims {
    let mut changed = claims();
    change(&mut changed);
    changed
}

/// Connects with a token and sees that nothing comes of it but this reason.
async fn token_is_refused(authority: &Authority, token: Option<&[u8]>, reason: &str) {
    let mut application = Application::start().await;
    let inbound = InboundBed::new(authority, application.port).start().await;
    let mut caller = Caller::with(authority, token.unwrap_or_default());
    if token.is_none() {
        caller.header.token = None;
    }
    ends_by_reset(caller.connect(&inbound).await.unwrap()).await;
    inbound.refused("inbound", reason, 1).await;
    ends_by_reset(caller.tunnel(&inbound).await.unwrap()).await;
    inbound.refused("inbound", reason, 2).await;
    assert!(application.is_untouched());
}

#[tokio::test]
async fn every_token_that_must_not_pass_is_refused_for_its_own_reason() {
    let authority = Authority::new();
    let (now, sign) = (clock::now().0, |claims: &Claims| authority.key.sign(claims).unwrap());
    let good = authority.token();
    let (_, rest) = good.split_once('.').unwrap();
    let with_header = |header: &str| format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header));
    let other_key = signing_key(&rcgen::PKCS_ED25519, "k1").sign(&claims()).unwrap();
    let other_kid = signing_key(&rcgen::PKCS_ED25519, "k2").sign(&claims()).unwrap();
    let other_algorithm = signing_key(&rcgen::PKCS_ECDSA_P256_SHA256, "k1").sign(&claims()).unwrap();
    let unsigned = with_header(r#"{"typ":"JWT","alg":"none","kid":"k1"}"#);
    let unsigned = format!("{}.", unsigned.rsplit_once('.').unwrap().0);
    for (token, reason) in [
        (other_key, "token-signature-wrong"),
        (other_kid, "token-key-unknown"),
        (other_algorithm, "token-algorithm-refused"),
        (unsigned, "token-unsigned"),
        (with_header(r#"{"typ":"JWT","alg":"HS256","kid":"k1"}"#), "token-algorithm-refused"),
        (with_header(r#"{"typ":"at+jwt","alg":"EdDSA","kid":"k1"}"#), "token-type-wrong"),
        (sign(&but(|claims| claims.expires = UnixSeconds(now - 11))), "token-expired"),
        (sign(&but(|claims| claims.not_before = UnixSeconds(now + 60))), "token-not-yet-valid"),
        (sign(&but(|claims| claims.audience = vec!["users.shop.peak".into()])), "token-audience-wrong"),
        (sign(&but(|claims| claims.issuer = "https://other.example".into())), "token-issuer-unknown"),
        ("a.b".to_owned(), "token-malformed"),
        (String::new(), "token-malformed"),
        ("x".repeat(7_000), "token-too-long"),
    ] {
        token_is_refused(&authority, Some(token.as_bytes()), reason).await;
    }
    token_is_refused(&authority, None, "token-missing").await;
}

#[tokio::test]
async fn a_good_token_passes_and_names_its_caller() {
    let authority = Authority::new();
    let mut application = Application::start().await;
    let inbound = InboundBed::new(&authority, application.port).start().await;
    let token = authority.token();
    let mut stream = Caller::with(&authority, token.as_bytes()).connect(&inbound).await.unwrap();
    hears(&mut stream, &mut application.accept().await, "hello").await;
}

#[tokio::test]
async fn a_header_that_lies_about_its_sender_or_its_service_is_refused() {
    let authority = Authority::new();
    let token = authority.token();
    let refused = async |change: fn(&mut Caller<'_>), reason: &str| {
        let mut application = Application::start().await;
        let inbound = InboundBed::new(&authority, application.port).start().await;
        let mut caller = Caller::with(&authority, token.as_bytes());
        change(&mut caller);
        ends_by_reset(caller.connect(&inbound).await.unwrap()).await;
        inbound.refused("inbound", reason, 1).await;
        ends_by_reset(caller.tunnel(&inbound).await.unwrap()).await;
        inbound.refused("inbound", reason, 2).await;
        assert!(application.is_untouched());
    };
    refused(|caller| caller.header.source = "[2001:db8:1::10]:40000".parse().unwrap(), "source-wrong").await;
    refused(|caller| caller.header.authority = Some(name("users.shop.peak")), "authority-wrong").await;
}

#[tokio::test]
async fn an_address_that_does_not_fit_the_rule_is_refused_and_one_that_does_is_not() {
    let authority = Authority::new();
    let token = authority.token();
    for (destination, fits) in [
        ("[2001:db8:5:1:0:7:ffff:ffff]:80", true),
        ("[2001:db8:5:1:0:8::1]:80", false),
        ("[2001:db8:5:2:0:7::1]:80", false),
        ("192.0.2.1:80", false),
    ] {
        let mut application = Application::start().await;
        let mut bed = InboundBed::new(&authority, application.port);
        bed.inbound.original = going_to(destination.parse::<std::net::SocketAddr>().unwrap());
        let inbound = bed.start().await;
        let mut stream = Caller::with(&authority, token.as_bytes()).connect(&inbound).await.unwrap();
        if fits {
            hears(&mut stream, &mut application.accept().await, "hello").await;
        } else {
            ends_by_reset(stream).await;
            let reason = if destination.starts_with('[') { "address-wrong" } else { "not-ipv6" };
            inbound.refused("inbound", reason, 1).await;
            assert!(application.is_untouched());
        }
    }
}

#[tokio::test]
async fn a_verified_caller_passes_only_where_it_is_listed() {
    let authority = Authority::new();
    let token = authority.token();
    for (pattern, listed) in [("spiffe://shop.example/ns/*/sa/web", true), ("spiffe://shop.example/ns/*/sa/api", false)]
    {
        let mut application = Application::start().await;
        let mut bed = InboundBed::new(&authority, application.port);
        bed.inbound.services[0].callers = Some(vec![pattern.parse().unwrap()]);
        let inbound = bed.start().await;
        let mut stream = Caller::with(&authority, token.as_bytes()).connect(&inbound).await.unwrap();
        if listed {
            hears(&mut stream, &mut application.accept().await, "hello").await;
        } else {
            ends_by_reset(stream).await;
            inbound.refused("inbound", "caller-not-allowed", 1).await;
            assert!(application.is_untouched());
        }
    }
}

#[tokio::test]
async fn a_service_whose_rules_are_not_known_lets_nobody_in() {
    let authority = Authority::new();
    let token = authority.token();
    let application = Application::start().await;
    let mut bed = InboundBed::new(&authority, application.port);
    bed.inbound.directory = Table::of([]);
    let inbound = bed.start().await;
    ends_by_reset(Caller::with(&authority, token.as_bytes()).connect(&inbound).await.unwrap()).await;
    inbound.refused("inbound", "rules-unknown", 1).await;
}

#[tokio::test]
async fn the_sidecars_own_ports_are_out_of_reach_for_verified_callers_too() {
    let authority = Authority::new();
    let token = authority.token();
    let mut admin = Application::start().await;
    let mut bed = InboundBed::new(&authority, admin.port);
    bed.inbound.forward.reserved.insert(admin.port);
    let inbound = bed.start().await;
    ends_by_reset(Caller::with(&authority, token.as_bytes()).connect(&inbound).await.unwrap()).await;
    inbound.refused("inbound", "port-reserved", 1).await;
    assert!(admin.is_untouched());
}

#[tokio::test]
async fn malformed_oversized_and_unfinished_headers_are_refused_by_name() {
    let authority = Authority::new();
    let token = authority.token();
    let application = Application::start().await;
    let inbound = InboundBed::new(&authority, application.port).start().await;
    let caller = Caller::with(&authority, token.as_bytes());
    let mut whole = Vec::new();
    caller.header.encode(&mut whole).unwrap();
    let changed = |at: usize, to: &[u8]| {
        let mut octets = whole.clone();
        octets[at..at + to.len()].copy_from_slice(to);
        octets
    };
    let mut seen = HashMap::new();
    for (octets, reason) in [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "proxy-header-missing"),
        (b"PROXY TCP6 ::1 ::1 1 2\r\n".to_vec(), "proxy-header-missing"),
        (changed(12, &[0x11]), "proxy-header-version"),
        (changed(12, &[0x20]), "proxy-header-local"),
        (changed(13, &[0x11]), "proxy-header-family"),
        (changed(14, &[0xFF, 0xFF]), "proxy-header-too-long"),
        (changed(14, &[0, 12]), "proxy-header-malformed"),
        (changed(53, &[0xFF, 0xFF]), "proxy-header-malformed"),
        (changed(20, &[0xAA]), "proxy-header-checksum"),
    ] {
        for protocol in [PP2, TUNNEL] {
            let stream = caller.speaking(protocol, &inbound, &octets).await.unwrap();
            ends_by_reset(stream).await;
            let times = seen.entry(reason).or_insert(0);
            *times += 1;
            inbound.refused("inbound", reason, *times).await;
        }
    }
    let mut cut = caller.connect_sending(&inbound, &whole[..40]).await.unwrap();
    cut.shutdown().await.unwrap();
    inbound.refused("inbound", "proxy-header-ended", 1).await;
}

#[tokio::test]
async fn a_reset_in_the_middle_of_a_header_is_refused_by_name_and_leaves_others_alone() {
    let authority = Authority::new();
    let token = authority.token();
    let mut application = Application::start().await;
    let inbound = InboundBed::new(&authority, application.port).start().await;
    let caller = Caller::with(&authority, token.as_bytes());
    let mut whole = Vec::new();
    caller.header.encode(&mut whole).unwrap();
    let mut other = caller.connect(&inbound).await.unwrap();
    let mut server = application.accept().await;
    for (times, protocol) in (1..).zip([PP2, TUNNEL]) {
        let cut = caller.speaking(protocol, &inbound, &whole[..40]).await.unwrap();
        cut.get_ref().0.set_zero_linger().unwrap();
        drop(cut);
        inbound.refused("inbound", "proxy-header-ended", times).await;
    }
    hears(&mut other, &mut server, "still here").await;
    assert!(application.is_untouched());
}

#[tokio::test]
async fn who_is_slow_with_its_hello_or_its_header_is_closed_at_the_deadline() {
    let authority = Authority::new();
    let token = authority.token();
    let application = Application::start().await;
    let mut bed = InboundBed::new(&authority, application.port);
    bed.inbound.handshake_timeout = Duration::from_millis(300);
    let inbound = bed.start().await;

    ends_by_reset(inbound.connect().await).await;
    let mut half_a_hello = inbound.connect().await;
    half_a_hello.write_all(b"\x16\x03\x01\x02\x00\x01\x00").await.unwrap();
    ends_by_reset(half_a_hello).await;
    let caller = Caller::with(&authority, token.as_bytes());
    let half_a_header = caller.connect_sending(&inbound, b"\r\n\r\n\0\r\nQUIT").await.unwrap();
    ends_by_reset(half_a_header).await;
    inbound.refused("inbound", "handshake-timeout", 3).await;
}

#[tokio::test]
async fn what_is_no_call_to_our_service_is_refused() {
    let authority = Authority::new();
    let mut application = Application::start().await;
    let inbound = InboundBed::new(&authority, application.port).start().await;

    let mut plain = inbound.connect().await;
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    ends_by_reset(plain).await;
    inbound.refused("inbound", "plaintext", 1).await;

    let foreign = authority.client().connect(inbound.connect().await, &name(SERVICE), "h2").await;
    assert!(foreign.is_err());
    inbound.refused("inbound", "foreign-tls", 1).await;

    let other = authority.client().connect(inbound.connect().await, &name("users.shop.peak"), "pp2").await;
    assert!(other.is_err());
    inbound.refused("inbound", "service-unknown", 1).await;

    let mut garbage = inbound.connect().await;
    garbage.write_all(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\xff").await.unwrap();
    ends_by_reset(garbage).await;
    inbound.refused("inbound", "hello-malformed", 1).await;
    assert!(application.is_untouched());
}

#[tokio::test]
async fn a_connection_straight_to_our_port_is_a_loop() {
    let authority = Authority::new();
    let mut bed = InboundBed::new(&authority, 1);
    bed.inbound.original = straight_to_us();
    let inbound = bed.start().await;
    ends_by_reset(inbound.connect().await).await;
    inbound.refused("inbound", "loop", 1).await;
}

#[tokio::test]
async fn one_bad_connection_after_another_leaves_a_good_one_untouched() {
    let authority = Authority::new();
    let token = authority.token();
    let mut application = Application::start().await;
    let inbound = InboundBed::new(&authority, application.port).start().await;
    let mut good = Caller::with(&authority, token.as_bytes()).connect(&inbound).await.unwrap();
    let mut server = application.accept().await;
    for octets in [&b"garbage"[..], b"\x16\x03\x01\xff\xff", b"\r\n\r\n\0\r\nQUIT\n"] {
        let mut bad = inbound.connect().await;
        let _ = bad.write_all(octets).await;
        bad.set_zero_linger().unwrap();
        drop(bad);
        let caller = Caller::with(&authority, b"a.b.c");
        ends_by_reset(caller.connect(&inbound).await.unwrap()).await;
        hears(&mut good, &mut server, "still here").await;
        hears(&mut server, &mut good, "so am I").await;
    }
}

#[tokio::test]
async fn a_permissive_half_lets_plain_text_pass_and_counts_it_but_no_bad_token() {
    let authority = Authority::new();
    let mut application = Application::start().await;
    let mut bed = InboundBed::new(&authority, application.port);
    bed.inbound.policy = Policy::Permissive;
    let inbound = bed.start().await;

    let mut plain = inbound.connect().await;
    plain.write_all(b"PI").await.unwrap();
    let mut server = application.accept().await;
    plain.write_all(b"NG").await.unwrap();
    let mut heard = [0; 4];
    within(server.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"PING");
    inbound.says("funicular_tolerated_total{reason=\"plaintext\"} 1").await;

    let mut silent = inbound.connect().await;
    let mut server = application.accept().await;
    hears(&mut server, &mut silent, "220 mail.example ESMTP").await;

    ends_by_reset(Caller::with(&authority, b"a.b.c").connect(&inbound).await.unwrap()).await;
    inbound.refused("inbound", "token-malformed", 1).await;
}

#[tokio::test]
async fn an_auditing_half_lets_everything_pass_that_can_and_counts_what_strict_would_refuse() {
    let authority = Authority::new();
    let mut application = Application::start().await;
    let mut bed = InboundBed::new(&authority, application.port);
    bed.inbound.policy = Policy::Audit;
    let inbound = bed.start().await;
    let mut stream = Caller::with(&authority, b"a.b.c").connect(&inbound).await.unwrap();
    hears(&mut stream, &mut application.accept().await, "hello").await;
    inbound.says("funicular_tolerated_total{reason=\"token-malformed\"} 1").await;
}

#[tokio::test]
async fn a_source_has_as_many_connections_as_it_may_and_no_more() {
    let authority = Authority::new();
    let token = authority.token();
    let mut application = Application::start().await;
    let mut bed = InboundBed::new(&authority, application.port);
    bed.inbound.sources = Quota::new(Bounds { open: 2, pending: 2 });
    let inbound = bed.start().await;
    let caller = Caller::with(&authority, token.as_bytes());
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = caller.connect(&inbound).await.unwrap();
        let mut server = application.accept().await;
        hears(&mut stream, &mut server, "hello").await;
        open.push((stream, server));
    }
    ends_by_reset(inbound.connect().await).await;
    inbound.refused("inbound", "source-connections-limit", 1).await;
    open.pop();
    inbound.says("funicular_connections_open{direction=\"inbound\"} 1").await;
    let mut stream = caller.connect(&inbound).await.unwrap();
    hears(&mut stream, &mut application.accept().await, "hello again").await;
}

#[tokio::test]
async fn slow_handshakes_have_a_limit_and_leave_room_for_those_that_are_done() {
    let authority = Authority::new();
    let token = authority.token();
    for (per_source, in_all, reason) in [(2, 100, "source-handshakes-limit"), (100, 2, "handshakes-limit")] {
        let mut application = Application::start().await;
        let mut bed = InboundBed::new(&authority, application.port);
        bed.inbound.sources = Quota::new(Bounds { open: 100, pending: per_source });
        bed.inbound.handshakes = Quota::new(Bounds { open: in_all, pending: in_all });
        let inbound = bed.start().await;
        let caller = Caller::with(&authority, token.as_bytes());
        let mut done = caller.connect(&inbound).await.unwrap();
        let mut server = application.accept().await;
        let _slow = (inbound.connect().await, inbound.connect().await);
        inbound.says("funicular_connections_open{direction=\"inbound\"} 3").await;
        ends_by_reset(inbound.connect().await).await;
        inbound.refused("inbound", reason, 1).await;
        hears(&mut done, &mut server, "untouched").await;
    }
}

#[tokio::test]
async fn a_connection_to_a_service_that_is_not_this_pods_is_refused_whatever_the_policy_tolerates() {
    let authority = Authority::new();
    let mut application = Application::start().await;
    let mut bed = InboundBed::new(&authority, application.port);
    let mut other = service(&["2001:db8:6::/64"], &["v=ssa1"], None);
    other.name = name("users.shop.peak");
    bed.inbound.directory = Table::of([service(&["2001:db8:5:1::/64"], &["v=ssa1"], None), other]);
    bed.inbound.original = going_to("[2001:db8:6::1]:80".parse::<std::net::SocketAddr>().unwrap());
    bed.inbound.policy = Policy::Permissive;
    let inbound = bed.start().await;
    ends_by_reset(inbound.connect().await).await;
    inbound.refused("inbound", "destination-not-ours", 1).await;
    assert!(application.is_untouched());
}

#[tokio::test]
async fn an_application_that_wants_to_know_is_told_who_calls_and_where_but_no_token() {
    let authority = Authority::new();
    let token = authority.token();
    let mut application = Application::start().await;
    let mut bed = InboundBed::new(&authority, application.port);
    bed.inbound.services[0].proxy_header.insert(application.port);
    let inbound = bed.start().await;
    let caller = Caller::with(&authority, token.as_bytes());
    let streams = (caller.connect(&inbound).await.unwrap(), caller.tunnel(&inbound).await.unwrap());
    for _ in 0..2 {
        let mut server = application.accept().await;
        let mut octets = Vec::new();
        let (length, header) = loop {
            assert_ne!(within(server.read_buf(&mut octets)).await.unwrap(), 0);
            if let Some((header, length)) = proxy_header::parse(&octets).unwrap() {
                break (length, header);
            }
        };
        assert_eq!(header.source, caller.header.source);
        assert_eq!(header.destination, DESTINATION.parse().unwrap());
        assert_eq!((header.authority, header.token, header.generation), (Some(name(SERVICE)), None, Some(3)));
        assert_eq!(octets.len(), length);
    }
    drop(streams);
}

#[tokio::test]
async fn a_pp2_connection_ends_when_its_token_is_dead() {
    let authority = Authority::new();
    let mut claims = claims();
    // Two seconds before the skew that is forgiven is over.
    claims.expires = UnixSeconds(clock::now().0 - 8);
    let old = authority.key.sign(&claims).unwrap();
    let mut application = Application::start().await;
    let inbound = InboundBed::new(&authority, application.port).start().await;
    let mut stream = Caller::with(&authority, old.as_bytes()).connect(&inbound).await.unwrap();
    let mut server = application.accept().await;
    hears(&mut stream, &mut server, "in time").await;
    ends_by_reset(stream).await;
    ends_by_reset(server).await;
    inbound.says("funicular_connections_broken_total{direction=\"inbound\",reason=\"token-expired\"} 1").await;
}
