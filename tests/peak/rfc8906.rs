//! Every question of RFC 8906 §8: what servers have been seen to answer wrongly, or not at all.

use std::net::UdpSocket;

use funicular::wire::dns::{Class, Edns, Message, Opcode, Rcode, Type};

use crate::bed::{PATIENCE, Peak, SHOP, has_soa, option, query, with_edns};

/// A question of RFC 8906 §8, as octets, and what the reply must be like; no judge: silence.
type Probe = (&'static str, Vec<u8>, Option<fn(&Message) -> bool>);

fn negative(reply: &Message) -> bool {
    reply.answers.is_empty() && reply.authorities.iter().any(|record| record.rtype == Type::SOA)
}

fn is_bare(reply: &Message, rcode: Rcode) -> bool {
    reply.header.rcode == rcode && reply.answers.is_empty() && reply.authorities.is_empty()
}

fn bits(name: &str, second: u8, third: u8) -> Vec<u8> {
    let mut octets = query(name, Type::SOA).encode(512);
    octets[2] = second;
    octets[3] = third;
    octets
}

fn plain_probes() -> Vec<Probe> {
    let soa = || query("shop.peak.", Type::SOA).encode(512);
    let mut two_questions = query("shop.peak.", Type::SOA);
    two_questions.questions.push(two_questions.questions[0].clone());
    let mut chaos = query("shop.peak.", Type::SOA);
    chaos.questions[0].class = Class::CH;
    vec![
        ("a plain SOA", soa(), Some(|reply| has_soa(reply) && reply.edns.is_none())),
        ("a type nobody knows", query("shop.peak.", Type(1000)).encode(512), Some(negative)),
        (
            "a name that is not there",
            query("no.shop.peak.", Type::A).encode(512),
            Some(|reply| negative(reply) && reply.header.rcode == Rcode::NXDOMAIN && reply.authorities[0].ttl == 30),
        ),
        (
            "a name with only names below",
            query("_tcp.shop.peak.", Type::A).encode(512),
            Some(|reply| negative(reply) && reply.header.rcode == Rcode::NOERROR),
        ),
        ("CD", bits("shop.peak.", 0, 0x10), Some(has_soa)),
        ("AD", bits("shop.peak.", 0, 0x20), Some(|reply| has_soa(reply) && !reply.header.authentic_data)),
        ("the reserved bit", bits("shop.peak.", 0, 0x40), Some(has_soa)),
        (
            "RD",
            bits("shop.peak.", 1, 0),
            Some(|reply| has_soa(reply) && reply.header.recursion_desired && !reply.header.recursion_available),
        ),
        ("TC in a question", bits("shop.peak.", 2, 0), Some(|reply| has_soa(reply) && !reply.header.truncated)),
        (
            "operation 15",
            bits("shop.peak.", 15 << 3, 0),
            Some(|reply| is_bare(reply, Rcode::NOTIMP) && reply.header.opcode == Opcode::from_bits(15)),
        ),
        ("NOTIFY", bits("shop.peak.", 4 << 3, 0), Some(|reply| is_bare(reply, Rcode::NOTIMP))),
        ("UPDATE", bits("shop.peak.", 5 << 3, 0), Some(|reply| is_bare(reply, Rcode::NOTIMP))),
        ("a reply", bits("shop.peak.", 0x80, 0), None),
        ("a reply to another operation", bits("shop.peak.", 0x80 | 5 << 3, 0), None),
        ("eleven octets", soa()[..11].to_vec(), None),
        ("a header alone", soa()[..12].to_vec(), Some(|reply| is_bare(reply, Rcode::FORMERR))),
        ("half a question", soa()[..20].to_vec(), Some(|reply| is_bare(reply, Rcode::FORMERR))),
        ("octets after the end", [soa(), vec![0]].concat(), Some(|reply| is_bare(reply, Rcode::FORMERR))),
        ("two questions", two_questions.encode(512), Some(|reply| is_bare(reply, Rcode::FORMERR))),
        (
            "a pointer to itself",
            [&soa()[..12], &[0xC0, 12, 0, 6, 0, 1]].concat(),
            Some(|reply| is_bare(reply, Rcode::FORMERR)),
        ),
        ("class CH", chaos.encode(512), Some(|reply| is_bare(reply, Rcode::REFUSED))),
        ("another zone", query("example.net.", Type::A).encode(512), Some(|reply| is_bare(reply, Rcode::REFUSED))),
        ("the root", query(".", Type::NS).encode(512), Some(|reply| is_bare(reply, Rcode::REFUSED))),
        (
            "ANY",
            query("orders.shop.peak.", Type::ANY).encode(512),
            Some(|reply| {
                reply.header.rcode == Rcode::NOERROR
                    && !reply.answers.is_empty()
                    && reply.answers.iter().all(|record| record.rtype == reply.answers[0].rtype)
            }),
        ),
        ("a transfer", query("shop.peak.", Type::AXFR).encode(512), Some(|reply| is_bare(reply, Rcode::REFUSED))),
        ("MAILB", query("shop.peak.", Type::MAILB).encode(512), Some(|reply| is_bare(reply, Rcode::NOTIMP))),
    ]
}

fn edns_probes() -> Vec<Probe> {
    let ask = |edns| with_edns("shop.peak.", edns).encode(512);
    let basic = || ask(Edns::default());
    let version_1 = Edns { version: 1, ..Edns::default() };
    let mut flag = basic();
    let flags_at = flag.len() - 4;
    flag[flags_at] |= 0x40;
    let mut two = basic();
    two.extend_from_slice(&basic()[two.len() - 11..]);
    two[11] = 2;
    let unknown = || vec![option(100, b"")];
    vec![
        (
            "OPT",
            basic(),
            Some(|reply| {
                has_soa(reply) && reply.edns.as_ref().is_some_and(|edns| edns.version == 0 && edns.udp_size == 1232)
            }),
        ),
        (
            "version 1",
            ask(version_1.clone()),
            Some(|reply| is_bare(reply, Rcode::BADVERS) && reply.edns.as_ref().is_some_and(|edns| edns.version == 0)),
        ),
        (
            "an unknown option",
            ask(Edns { options: unknown(), ..Edns::default() }),
            Some(|reply| has_soa(reply) && reply.edns.as_ref().is_some_and(|edns| edns.options.is_empty())),
        ),
        (
            "version 1 and an unknown option",
            ask(Edns { options: unknown(), ..version_1 }),
            Some(|reply| {
                is_bare(reply, Rcode::BADVERS) && reply.edns.as_ref().is_some_and(|edns| edns.options.is_empty())
            }),
        ),
        (
            "an unknown flag",
            flag,
            Some(|reply| has_soa(reply) && reply.edns.as_ref().is_some_and(|edns| !edns.dnssec_ok)),
        ),
        (
            "DO",
            ask(Edns { dnssec_ok: true, ..Edns::default() }),
            Some(|reply| has_soa(reply) && reply.edns.as_ref().is_some_and(|edns| edns.dnssec_ok)),
        ),
        ("two OPT", two, Some(|reply| is_bare(reply, Rcode::FORMERR))),
        (
            "a cookie",
            ask(Edns { options: vec![option(10, b"12345678")], ..Edns::default() }),
            Some(|reply| {
                let options = &reply.edns.as_ref().unwrap().options;
                has_soa(reply)
                    && options.len() == 1
                    && options[0].data.len() == 24
                    && options[0].data.starts_with(b"12345678")
            }),
        ),
        (
            "a cookie of nine octets",
            ask(Edns { options: vec![option(10, &[0; 9])], ..Edns::default() }),
            Some(|reply| is_bare(reply, Rcode::FORMERR)),
        ),
        ("a size of 100", ask(Edns { udp_size: 100, ..Edns::default() }), Some(has_soa)),
    ]
}

#[test]
fn every_question_of_rfc_8906_is_answered_right_over_udp_and_tcp() {
    let peak = Peak::serving(SHOP);
    let mut wrong = Vec::new();
    for (what, request, judge) in plain_probes().into_iter().chain(edns_probes()) {
        // Silence over UDP is told by the next answer coming first: both go through the same socket's queue.
        let over_udp = match judge {
            Some(_) => peak.udp(&request),
            None => first_reply(&peak, &request),
        };
        for (transport, reply) in [("UDP", over_udp), ("TCP", peak.over_tcp(&request))] {
            let parsed = reply.as_ref().map(|octets| Message::parse(octets).unwrap());
            let right = match (&parsed, judge) {
                (Some(reply), Some(judge)) => reply.header.response && reply.header.id == 0x1234 && judge(reply),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            if !right {
                wrong.push(format!("{what} over {transport}: {parsed:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The reply to `request`, or none when a question sent right behind it is answered first.
fn first_reply(peak: &Peak, request: &[u8]) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(peak.addr).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send(request).unwrap();
    socket.send(&Message::query(0xFFFF, "shop.peak.".parse().unwrap(), Type::SOA).encode(512)).unwrap();
    let mut reply = [0; 512];
    let length = socket.recv(&mut reply).unwrap();
    (reply[..2] != [0xFF, 0xFF]).then(|| reply[..length].to_vec())
}
