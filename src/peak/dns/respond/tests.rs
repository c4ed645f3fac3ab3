//! The answer function, request by request.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::zone::{Entry, Zone};
use crate::peak::dns::rate::RateLimits;
use crate::peak::dns::tally::Tallies;
use crate::wire::dns::cookie::CookieSecret;
use crate::wire::dns::{Edns, EdnsOption, Message, zonefile};

const ZONE: &str = "$TTL 60\n@ SOA ns1 a 1 2 3 4 5\n@ NS ns1\nns1 A 192.0.2.1\n*.w TXT w\nc CNAME x.w\ncut NS ns1.cut\n\
    ns1.cut A 192.0.2.2\nbig TXT (\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"\n\
    \"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\")\n";
const ROOM: usize = 2048;
const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 99));

fn zones() -> Zones {
    let apex: Name = "shop.peak.".parse().unwrap();
    let entries: Vec<Entry> = zonefile::parse(ZONE, &apex)
        .unwrap()
        .into_iter()
        .map(|record| Entry { name: record.name, rtype: record.rtype.0, ttl: record.ttl, rdata: record.rdata })
        .collect();
    let mut zones = Zones::new(Seed(3));
    zones.insert(Arc::new(Zone::load(&apex, Seed(3), &entries).unwrap().zone));
    zones
}

fn responder(proto: Proto, rate: Option<RateLimiter>) -> Responder {
    let shared = Shared {
        cookies: Arc::new(ArcSwap::from_pointee(CookieSecrets::new(CookieSecret::new([5; 16]), []))),
        udp_limit: 1232,
        log: QueryLog::default(),
        gate: Gate::new(),
    };
    Responder::new(&shared, proto, rate, 1, Tallies::default().worker(proto))
}

/// The reply, empty when there is none; none when the request is no plain question.
fn handled(responder: &mut Responder, zones: &Zones, request: &[u8]) -> Option<Vec<u8>> {
    let mut message = request.to_vec();
    message.resize(ROOM.max(request.len()), 0xEE);
    match responder.respond(zones, &mut message, request.len(), Asker { peer: PEER, now: UnixSeconds(9) }) {
        Outcome::Reply(octets) => {
            message.truncate(octets);
            Some(message)
        }
        Outcome::Silence => Some(Vec::new()),
        Outcome::Apart => {
            assert_eq!(message[..request.len()], *request, "whoever handles it needs it as it came");
            None
        }
    }
}

/// The reply to a plain question; empty when there is none.
fn answered(responder: &mut Responder, zones: &Zones, request: &[u8]) -> Vec<u8> {
    handled(responder, zones, request).unwrap()
}

fn request(name: &str, rtype: Type, options: Vec<EdnsOption>) -> Vec<u8> {
    let mut message = Message::query(77, name.parse().unwrap(), rtype);
    message.edns = Some(Edns { options, ..Edns::default() });
    message.encode(512)
}

#[test]
fn a_question_for_a_cookie_alone_gets_one() {
    let cookie = EdnsOption { code: 10, data: [7; 8].into() };
    let whole = request(".", Type::A, vec![cookie]);
    // The header without its question, and the OPT record.
    let mut alone = [&whole[..12], &whole[17..]].concat();
    alone[5] = 0;
    let reply = Message::parse(&answered(&mut responder(Proto::Udp, None), &zones(), &alone)).unwrap();
    assert_eq!((reply.header.rcode, reply.questions.len()), (Rcode::NOERROR, 0));
    assert_eq!(reply.edns.unwrap().options[0].data.len(), 24);
}

#[test]
fn wildcards_share_a_bucket_whatever_name_is_asked() {
    let rate = RateLimiter::new(RateLimits { per_second: 10, slip: 0 }, 1);
    let (mut responder, zones) = (responder(Proto::Udp, Some(rate)), zones());
    let mut sent = 0;
    for number in 0..30 {
        let request = request(&format!("n{number}.w.shop.peak."), Type::TXT, vec![]);
        sent += usize::from(!answered(&mut responder, &zones, &request).is_empty());
    }
    assert_eq!(sent, 10);
}

#[test]
fn the_log_takes_about_one_question_of_n_and_none_when_it_is_off() {
    let log = QueryLog::default();
    let mut responder = responder(Proto::Udp, None);
    let mut taken = |nth| {
        log.every(nth);
        (0..10_000).filter(|_| log.takes(responder.turn())).count()
    };
    assert_eq!((taken(0), taken(1)), (0, 10_000));
    assert!((800..1_200).contains(&taken(10)));
}

#[test]
fn what_is_no_plain_question_is_left_to_others() {
    let (mut udp, mut tcp) = (responder(Proto::Udp, None), responder(Proto::Tcp, None));
    let mut signed = request("shop.peak.", Type::SOA, vec![]);
    let key = crate::wire::dns::tsig::Key::new(&"k.".parse().unwrap(), "hmac-sha256".parse().unwrap(), &[1; 32]);
    let _ = crate::wire::dns::tsig::Asking::sign(&Arc::new(key.unwrap()), &mut signed, UnixSeconds(9));
    let operation = |opcode: u8| {
        let mut octets = request("shop.peak.", Type::SOA, vec![]);
        octets[2] |= opcode << 3;
        octets
    };
    let ixfr = request("shop.peak.", Type::IXFR, vec![]);
    for request in [&signed, &operation(4), &operation(5), &ixfr] {
        assert_eq!(handled(&mut udp, &zones(), request), None);
        assert_eq!(handled(&mut tcp, &zones(), request), None);
    }
    let axfr = request("shop.peak.", Type::AXFR, vec![]);
    assert_eq!(handled(&mut tcp, &zones(), &axfr), None);
    let refused = Message::parse(&answered(&mut udp, &zones(), &axfr)).unwrap();
    assert_eq!(refused.header.rcode, Rcode::REFUSED, "there is no AXFR over UDP (RFC 5936 §4.2)");
}

#[test]
fn a_zone_whose_contents_are_unknown_is_a_failure_of_ours_and_no_answer() {
    let mut zones = zones();
    zones.insert(Arc::new(Zone::unknown("gone.peak.".parse().unwrap(), Seed(3))));
    for name in ["gone.peak.", "www.gone.peak."] {
        let reply = answered(&mut responder(Proto::Udp, None), &zones, &request(name, Type::A, vec![]));
        let reply = Message::parse(&reply).unwrap();
        assert_eq!((reply.header.rcode, reply.header.authoritative), (Rcode::SERVFAIL, false));
    }
}

fn any_request() -> impl Strategy<Value = Vec<u8>> {
    const NAMES: [&str; 7] =
        ["shop.peak.", "x.w.shop.peak.", "c.shop.peak.", "a.cut.shop.peak.", "no.shop.peak.", "big.shop.peak.", "."];
    const TYPES: [Type; 8] = [Type::A, Type::TXT, Type::ANY, Type::SOA, Type::AXFR, Type::IXFR, Type::OPT, Type(0)];
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let cut = prop::option::of(any::<prop::sample::Index>());
    let parts = (prop::sample::select(&NAMES[..]), prop::sample::select(&TYPES[..]), any::<bool>(), damage, cut);
    parts.prop_map(|(name, rtype, cookie, damage, cut)| {
        let options = if cookie { vec![EdnsOption { code: 10, data: [7; 24].into() }] } else { vec![] };
        let mut octets = request(name, rtype, options);
        for (at, value) in damage {
            let at = at.index(octets.len());
            octets[at] = value;
        }
        if let Some(cut) = cut {
            octets.truncate(cut.index(octets.len()));
        }
        octets
    })
}

proptest! {
    /// Whatever comes: no reply to a reply, every reply whole, within its size, with the request's ID, and never a
    /// reply to our own reply.
    #[test]
    fn every_reply_is_a_reply(octets in any_request(), over_tcp: bool) {
        let proto = if over_tcp { Proto::Tcp } else { Proto::Udp };
        let (mut responder, zones) = (responder(proto, None), zones());
        let Some(reply) = handled(&mut responder, &zones, &octets) else { return Ok(()) };
        if octets.len() < HEADER || octets[2] & 0x80 != 0 {
            prop_assert!(reply.is_empty());
            return Ok(());
        }
        prop_assert!(reply.len() >= HEADER && reply.len() <= 1232);
        prop_assert_eq!(&reply[..2], &octets[..2]);
        prop_assert!(reply[2] & 0x80 != 0);
        prop_assert!(Message::parse(&reply).is_ok(), "{:?}", reply);
        prop_assert_eq!(handled(&mut responder, &zones, &reply), Some(Vec::new()));
    }
}
