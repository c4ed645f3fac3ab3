//! What is answered, over UDP and TCP, and what is put up with.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Instant;

use funicular::model::Name;
use funicular::wire::dns::{Edns, Message, Type, zonefile};

use crate::bed::{PATIENCE, Peak, SHOP, framed, has_soa, option, query, read_framed, udp, with_edns};

#[test]
fn every_record_of_the_file_is_answered_as_it_stands() {
    let peak = Peak::serving(SHOP);
    let apex: Name = "shop.peak.".parse().unwrap();
    for record in zonefile::parse(SHOP, &apex).unwrap() {
        let reply = peak.ask(&record.name.to_string(), record.rtype);
        if record.name.is_at_or_below(&"cluster.shop.peak.".parse().unwrap()) {
            assert!(!reply.header.authoritative && reply.answers.is_empty());
            assert_eq!((reply.authorities.len(), reply.additionals.len()), (1, 1));
        } else {
            assert!(reply.answers.contains(&record), "{record:?} is not in {reply:?}");
        }
    }
}

#[test]
fn an_address_space_brings_its_rules_along() {
    let reply = Peak::serving(SHOP).ask("orders.shop.peak.", Type::APL);
    let owners: Vec<_> = reply.additionals.iter().map(|record| (record.name.to_string(), record.rtype)).collect();
    assert_eq!(owners, [("_ssa.orders.shop.peak.".to_owned(), Type::SVCB)]);
}

fn large_zone() -> String {
    let addresses: String = (0..40).map(|last| format!("big AAAA 2001:db8::{last:x}\n")).collect();
    let huge: String = (0..2_000).map(|last| format!("huge AAAA 2001:db8::{last:x}\n")).collect();
    format!("{SHOP}{addresses}{huge}")
}

#[test]
fn what_does_not_fit_a_datagram_is_truncated_and_whole_over_tcp() {
    let peak = Peak::serving(&large_zone());
    let at = |size: Option<u16>| {
        let edns = size.map(|udp_size| Edns { udp_size, ..Edns::default() });
        let request = Message { edns, ..query("big.shop.peak.", Type::AAAA) }.encode(512);
        let octets = peak.udp(&request).unwrap();
        (octets.len(), Message::parse(&octets).unwrap())
    };
    for (size, limit) in [(None, 512), (Some(100), 512), (Some(1_000), 1_000)] {
        let (octets, reply) = at(size);
        assert!(octets <= limit && reply.header.truncated && reply.answers.is_empty(), "{size:?}");
    }
    // 40 records take 1,120 octets. What the client takes beyond the server's limit does not help it.
    for size in [1_232, 4_096] {
        let (octets, reply) = at(Some(size));
        assert!(octets <= 1_232 && !reply.header.truncated && reply.answers.len() == 40, "{size}");
    }
    let huge = query("huge.shop.peak.", Type::AAAA).encode(512);
    assert!(Message::parse(&peak.udp(&huge).unwrap()).unwrap().header.truncated);
    assert_eq!(Message::parse(&peak.over_tcp(&huge).unwrap()).unwrap().answers.len(), 2_000);
}

#[test]
fn questions_in_a_pipeline_are_all_answered_however_they_are_cut() {
    let peak = Peak::serving(&large_zone());
    let names = ["orders", "huge", "big", "no", "www"];
    let request = |id: u16| {
        let name = format!("{}.shop.peak.", names[usize::from(id) % names.len()]);
        framed(&Message::query(id, name.parse().unwrap(), Type::AAAA).encode(512))
    };
    // All at once, with replies of several megabytes; and octet by octet.
    for (count, piece) in [(200u16, usize::MAX), (20, 1)] {
        let mut stream = peak.tcp();
        let octets: Vec<u8> = (0..count).flat_map(request).collect();
        let mut writing = stream.try_clone().unwrap();
        let writer = std::thread::spawn(move || {
            octets.chunks(piece.min(octets.len())).for_each(|chunk| writing.write_all(chunk).unwrap());
        });
        let mut ids: Vec<u16> =
            (0..count).map(|_| Message::parse(&read_framed(&mut stream).unwrap()).unwrap().header.id).collect();
        writer.join().unwrap();
        ids.sort_unstable();
        assert!(ids.into_iter().eq(0..count));
    }
}

#[test]
fn an_idle_connection_is_closed_also_in_the_middle_of_a_question() {
    let peak = Peak::configured("listen: 127.0.0.1:0\ntcp: { idle: 100ms }\n");
    for begun in [&[][..], &[0], &[0, 30, 1, 2]] {
        let mut stream = peak.tcp();
        stream.write_all(begun).unwrap();
        assert_eq!(stream.read(&mut [0; 10]).unwrap(), 0);
    }
}

#[test]
fn a_connection_too_many_is_closed_and_a_place_given_back_is_taken() {
    let peak = Peak::configured("listen: 127.0.0.1:0\ntcp: { connections_per_peer: 2 }\n");
    let request = framed(&query("shop.peak.", Type::SOA).encode(512));
    let answered = |stream: &mut TcpStream| stream.write_all(&request).is_ok() && read_framed(stream).is_some();
    let (mut first, mut second) = (peak.tcp(), peak.tcp());
    assert!(answered(&mut first) && answered(&mut second));
    assert!(!answered(&mut peak.tcp()));
    first.shutdown(Shutdown::Both).unwrap();
    // The server learns of the end when it learns of it.
    while !answered(&mut peak.tcp()) {}
}

#[test]
fn connections_of_all_peers_together_are_limited() {
    let peak = Peak::configured("listen: \"[::]:0\"\ntcp: { connections: 2 }\n");
    let request = framed(&query("shop.peak.", Type::SOA).encode(512));
    let answered = |stream: &mut TcpStream| stream.write_all(&request).is_ok() && read_framed(stream).is_some();
    let [mut one, mut other, mut third] = ["127.0.0.1", "127.0.0.2", "::1"].map(|ip| {
        let stream = TcpStream::connect((ip, peak.addr.port())).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    });
    assert!(answered(&mut one) && answered(&mut other) && !answered(&mut third));
    assert!(answered(&mut one), "those that are there are answered on");
}

#[test]
fn who_takes_no_replies_is_let_go_of() {
    let peak = Peak::configured_with(&large_zone(), "listen: 127.0.0.1:0\ntcp: { idle: 200ms }\n");
    let mut stream = peak.tcp();
    stream.write_all(&framed(&query("huge.shop.peak.", Type::AAAA).encode(512)).repeat(1_000)).unwrap();
    // That the server has ended the connection shows in writing to it.
    stream.set_nonblocking(true).unwrap();
    let patient_until = Instant::now() + PATIENCE;
    let is_open =
        |written: io::Result<usize>| written.map_or_else(|error| error.kind() == io::ErrorKind::WouldBlock, |_| true);
    while is_open(stream.write(&[0])) {
        assert!(Instant::now() < patient_until, "a connection that takes nothing stays open");
        std::thread::yield_now();
    }
    assert!(has_soa(&peak.ask("shop.peak.", Type::SOA)));
}

#[test]
fn answers_to_questions_that_came_together_leave_together() {
    let peak = Peak::serving(SHOP);
    let mut stream = peak.tcp();
    let count = 20;
    stream.write_all(&framed(&query("orders.shop.peak.", Type::AAAA).encode(512)).repeat(count)).unwrap();
    (0..count).for_each(|_| assert!(read_framed(&mut stream).is_some()));
    // Without delay, each write of the server is a segment of its own.
    let local = format!("sport = :{}", stream.local_addr().unwrap().port());
    let Some(told) = decoded("ss", &["-tinH", &local, "and", &format!("dport = :{}", peak.addr.port())]) else {
        return;
    };
    assert!(told.split_whitespace().any(|word| word == "data_segs_in:1"), "{told}");
}

#[test]
fn a_server_at_all_addresses_replies_from_the_one_that_was_asked() {
    let peak = Peak::configured("listen: \"[::]:0\"\n");
    let request = query("shop.peak.", Type::SOA).encode(512);
    for asked in ["127.0.0.1", "127.7.7.7", "::1"] {
        // A connected socket takes nothing from another address.
        let to = SocketAddr::new(asked.parse().unwrap(), peak.addr.port());
        assert!(udp(to, &request, PATIENCE).is_some(), "{asked}");
    }
}

#[test]
fn garbage_harms_nobody() {
    let peak = Peak::serving(SHOP);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(peak.addr).unwrap();
    let template = with_edns("orders.shop.peak.", Edns { options: vec![option(10, &[7; 24])], ..Edns::default() });
    let template = template.encode(512);
    // A linear congruential generator: the same garbage every time.
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    for _ in 0..5_000 {
        let mut octets = template.clone();
        for _ in 0..1 + next() % 4 {
            let at = next() % octets.len();
            octets[at] = next() as u8;
        }
        octets.truncate(1 + next() % octets.len());
        socket.send(&octets).unwrap();
    }
    let mut stream = peak.tcp();
    let garbage: Vec<u8> = (0..10_000).map(|_| next() as u8).collect();
    // The server may close it at any time.
    let _ = stream.write_all(&garbage);
    assert!(has_soa(&peak.ask("shop.peak.", Type::SOA)));
}

/// What another program makes of our octets; none where it is not installed, which tests/run reports.
fn decoded(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn kdig_dig_and_drill_read_every_type_as_we_wrote_it() {
    let peak = Peak::serving(SHOP);
    let (port, at) = (peak.addr.port().to_string(), "@127.0.0.1");
    for (name, rtype, text) in [
        ("shop.peak", "SOA", "ns1.shop.peak. admin.shop.peak. 7 3600 600 86400 30"),
        ("shop.peak", "MX", "10 mail.shop.peak."),
        ("orders.shop.peak", "APL", "2:2001:db8:5:1::/64"),
        ("_http._tcp.shop.peak", "SRV", "0 1 80 orders.shop.peak."),
        ("www.shop.peak", "CNAME", "orders.shop.peak."),
        ("ptr.shop.peak", "PTR", "orders.shop.peak."),
        ("shop.peak", "TXT", "\"peak\""),
        ("orders.shop.peak", "AAAA", "2001:db8:5:1::2"),
        ("mail.shop.peak", "A", "192.0.2.25"),
        ("shop.peak", "NS", "ns1.shop.peak."),
        ("odd.shop.peak", "TYPE65280", "\\# 3 010203"),
    ] {
        let asked = [
            ("kdig", vec!["-p", &port, at, name, rtype]),
            ("dig", vec!["-p", &port, at, name, rtype, "+norec"]),
            ("drill", vec!["-p", &port, at, name, rtype]),
        ];
        for (program, arguments) in asked {
            let Some(output) = decoded(program, &arguments) else { continue };
            // drill writes every group of an address list in full.
            let full = text.replace("2:2001:db8:5:1::/64", "2:2001:0db8:0005:0001:0000:0000:0000:0000/64");
            let says = |line: &&str| !line.starts_with(';') && (line.contains(text) || line.contains(&full));
            let line = output.lines().find(says);
            assert!(line.is_some(), "{program} {name} {rtype}:\n{output}");
        }
    }
}
