//! The server's answer function: whatever comes in, what goes out keeps the rules.
//!
//! A reply answers the request it answers (id, operation, question), fits where it must fit, can be read, and is no
//! request to anybody: fed back, it is met with silence. Everything with a header that is no reply itself is answered,
//! unless answers are limited.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use funicular::model::zone::{Entry, Seed, Zone, Zones};
use funicular::model::{Name, UnixSeconds};
use funicular::peak::fuzz::{Desk, Handled, Transport, UDP_LIMIT};
use funicular::wire::dns::{Message, Rcode, zonefile};

use super::mutate::{self, Numbers};
use super::{campaign, corpus};

const TARGET: &str = "answer";
pub(crate) const APEX: &str = "every.peak.";
/// A second of the zone's time has so many requests.
const REQUESTS_A_SECOND: u64 = 1_000;
const START: u64 = 1_800_000_000;
/// Header octets.
const HEADER: usize = 12;
const LEAST_SIZE: usize = 512;

/// Types that questions ask for: those with data, those without, and those that are no data.
const TYPES: [u16; 24] =
    [1, 2, 5, 6, 12, 15, 16, 28, 33, 35, 39, 41, 42, 43, 46, 64, 65, 249, 250, 251, 252, 253, 255, 257];

/// The zone that the judges judge.
pub(crate) fn zones() -> (Zones, Vec<Name>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/judges/every-type.zone");
    let apex: Name = APEX.parse().unwrap();
    let records = zonefile::parse(&std::fs::read_to_string(path).unwrap(), &apex).unwrap();
    let mut names: Vec<Name> = records.iter().map(|record| record.name.clone()).collect();
    names.dedup();
    let entry = |record: funicular::wire::dns::Record| Entry {
        name: record.name,
        rtype: record.rtype.0,
        ttl: record.ttl,
        rdata: record.rdata,
    };
    let entries: Vec<Entry> = records.into_iter().map(entry).collect();
    let mut zones = Zones::new(Seed(7));
    zones.insert(Arc::new(Zone::load(&apex, zones.seed(), &entries).unwrap().zone));
    (zones, names)
}

/// A request: two of three are questions that a resolver might ask, some of those changed in a few places; the others
/// are mutations of what is kept.
fn request(numbers: &mut Numbers, kept: &[Vec<u8>], names: &[Name]) -> Vec<u8> {
    if numbers.one_in(3) {
        return mutate::input(numbers, kept);
    }
    let mut octets = question(numbers, names);
    if numbers.one_in(3) {
        for _ in 0..1 + numbers.below(3) {
            mutate::change(numbers, &mut octets, kept);
        }
    }
    octets
}

fn question(numbers: &mut Numbers, names: &[Name]) -> Vec<u8> {
    let edns = !numbers.one_in(4);
    let flags = if numbers.one_in(8) { numbers.next() as u16 & 0x7fff } else { 0x0100 };
    let words = [numbers.next() as u16, flags, 1, 0, 0, u16::from(edns)];
    let mut octets: Vec<u8> = words.into_iter().flat_map(u16::to_be_bytes).collect();
    octets.extend_from_slice(name(numbers, names).wire());
    let qtype = if numbers.one_in(8) { numbers.next() as u16 } else { *numbers.pick(&TYPES) };
    octets.extend_from_slice(&qtype.to_be_bytes());
    octets.extend_from_slice(&if numbers.one_in(16) { numbers.next() as u16 } else { 1 }.to_be_bytes());
    if edns {
        opt(numbers, &mut octets);
    }
    octets
}

/// A name of the zone, or one below it, in any case.
fn name(numbers: &mut Numbers, names: &[Name]) -> Name {
    let mut name = numbers.pick(names).clone();
    while numbers.one_in(3) {
        let label: Vec<u8> = (0..1 + numbers.below(20)).map(|_| b'a' + numbers.below(26) as u8).collect();
        name = name.prefixed(&label).unwrap_or(name);
    }
    let turned = numbers.next();
    let case = |(at, octet): (usize, &u8)| {
        if octet.is_ascii_alphabetic() && turned >> (at % 64) & 1 == 1 { octet ^ 0x20 } else { *octet }
    };
    let octets: Vec<u8> = name.wire().iter().enumerate().map(case).collect();
    // A label's length may be a letter's code, and the turned one no length.
    Name::from_wire(&octets).unwrap_or(name)
}

fn opt(numbers: &mut Numbers, octets: &mut Vec<u8>) {
    let size = *numbers.pick(&[0_u16, 512, 513, 1231, 1232, 1233, 4096, 65_535]);
    let version = u8::from(numbers.one_in(16));
    octets.extend_from_slice(&[0, 0, 41]);
    octets.extend_from_slice(&size.to_be_bytes());
    octets.extend_from_slice(&[0, version, if numbers.one_in(2) { 0x80 } else { 0 }, 0]);
    let (code, length) =
        *numbers.pick(&[(0_u16, 0_usize), (10, 8), (10, 24), (10, 7), (3, 0), (8, 7), (12, 100), (65_001, 4)]);
    if code == 0 {
        octets.extend_from_slice(&[0, 0]);
        return;
    }
    octets.extend_from_slice(&(length as u16 + 4).to_be_bytes());
    octets.extend_from_slice(&code.to_be_bytes());
    octets.extend_from_slice(&(length as u16).to_be_bytes());
    octets.extend((0..length).map(|_| numbers.octet()));
}

/// What a run saw, to know that it has been everywhere.
#[derive(Debug, Default)]
struct Seen {
    silent: u64,
    limited: u64,
    apart: u64,
    truncated: u64,
    rcodes: [u64; 24],
    slowest: Duration,
}

/// Fuzzes the server.
///
/// # Panics
/// When it breaks a rule.
pub(crate) fn hold_the_server() {
    let kept = corpus::kept(TARGET);
    let (zones, names) = zones();
    let transports = [Transport::Udp, Transport::Tcp, Transport::LimitedUdp];
    let mut desks = transports.map(|transport| (transport, Desk::new(zones.clone(), transport)));
    let peers: [IpAddr; 3] = ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"].map(|peer| peer.parse().unwrap());
    let (mut seen, mut count) = (Seen::default(), 0);
    let ran = campaign::run(
        TARGET,
        &kept,
        |numbers| request(numbers, &kept, &names),
        |octets| {
            count += 1;
            let now = UnixSeconds(START + count / REQUESTS_A_SECOND);
            let peer = peers[(count / 3 % 3) as usize];
            let (transport, desk) = &mut desks[(count % 3) as usize];
            let started = Instant::now();
            let handled = desk.handle(octets, peer, now);
            seen.slowest = seen.slowest.max(started.elapsed());
            judge(octets, handled, *transport, &mut seen);
            if let Handled::Reply(reply) = handled {
                let reply = reply.to_vec();
                assert_eq!(desk.handle(&reply, peer, now), Handled::Silence, "a reply is replied to");
            }
        },
    );
    tell(&ran, &seen);
}

fn judge(request: &[u8], handled: Handled<'_>, transport: Transport, seen: &mut Seen) {
    let is_request = request.len() >= HEADER && request[2] & 0x80 == 0;
    let reply = match handled {
        Handled::Reply(reply) => reply,
        Handled::Silence => {
            let limited = transport == Transport::LimitedUdp;
            assert!(!is_request || limited, "a request without a reply");
            *if is_request { &mut seen.limited } else { &mut seen.silent } += 1;
            return;
        }
        Handled::Apart => {
            assert!(is_request, "a reply is taken for a request");
            seen.apart += 1;
            return;
        }
    };
    assert!(is_request, "a reply to no request");
    assert_eq!(reply[..2], request[..2], "another id");
    assert_eq!(reply[2] & 0xf8, request[2] & 0x78 | 0x80, "QR or the operation");
    assert_eq!(reply[2] & 1, request[2] & 1, "RD is repeated");
    assert_eq!(reply[3] & 0xe0, 0, "RA, Z and AD are never set");
    let asked = Message::parse(request);
    let room = match (transport, &asked) {
        (Transport::Tcp, _) => 65_535,
        (_, Ok(asked)) => asked
            .edns
            .as_ref()
            .map_or(LEAST_SIZE, |edns| usize::from(edns.udp_size).clamp(LEAST_SIZE, usize::from(UDP_LIMIT))),
        // What cannot be read as a message may still begin with a question and OPT.
        (_, Err(_)) => usize::from(UDP_LIMIT),
    };
    assert!(reply.len() <= room, "{} octets where {room} fit", reply.len());
    let read = Message::parse(reply).expect("a reply can be read");
    if read.header.truncated {
        assert!(transport != Transport::Tcp, "what is truncated over TCP is lost");
        seen.truncated += 1;
    }
    if let Ok(asked) = asked {
        // RFC 6891 §6.1.1; what is refused by its form or its operation alone may be refused without.
        let refused = [Rcode::FORMERR, Rcode::NOTIMP].contains(&read.header.rcode);
        let with_opt = (asked.edns.is_some(), read.edns.is_some());
        assert!(matches!(with_opt, (true, true) | (false, false)) || (refused && !with_opt.1), "OPT answers OPT");
        if let ([question], [echoed]) = (&asked.questions[..], &read.questions[..]) {
            assert_eq!(echoed, question, "another question");
            assert_eq!(echoed.name.wire(), question.name.wire(), "the case is kept");
        }
    }
    let of_each = &mut seen.rcodes;
    of_each[usize::from(read.header.rcode.0).min(of_each.len() - 1)] += 1;
}

fn tell(ran: &campaign::Ran, seen: &Seen) {
    let seconds = ran.took.as_secs_f64();
    let rate = ran.inputs as f64 / seconds;
    println!("{TARGET}: {} requests in {seconds:.1} s, {rate:.0} a second with all checks", ran.inputs);
    println!("  not answered: {} no requests, {} beyond the rate", seen.silent, seen.limited);
    for (code, count) in seen.rcodes.iter().enumerate().filter(|(_, count)| **count > 0) {
        println!("  {}: {count}", Rcode(code as u16));
    }
    println!("  left to who takes time: {}", seen.apart);
    println!("  truncated: {}; slowest: {} us", seen.truncated, seen.slowest.as_micros());
    if ran.inputs > 10_000 {
        let met = |rcode: Rcode| seen.rcodes[usize::from(rcode.0)] > 0;
        for rcode in [Rcode::NOERROR, Rcode::FORMERR, Rcode::NXDOMAIN, Rcode::NOTIMP, Rcode::REFUSED, Rcode::BADVERS] {
            assert!(met(rcode), "no request was answered {rcode}: the inputs are no good");
        }
        assert!(seen.silent > 0 && seen.limited > 0 && seen.truncated > 0);
    }
}
