//! Replies as the general codec reads them: sections, compression, room.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::answer::{Reply, ReplyEdns, refuse};
use super::query::Query;
use super::{Header, Message, Opcode, Rcode, Record, Type, zonefile};
use crate::model::Name;
use crate::model::zone::{Aliases, Entry, Key, Seed, Zone};

const SEED: Seed = Seed(11);

const SHOP: &str = r#"
$TTL 300
@ SOA ns1 admin 7 3600 600 86400 30
@ NS ns1
@ NS ns2.example.net.
@ MX 10 mail
@ MX 20 @
@ A 192.0.2.80
ns1 A 192.0.2.53
mail A 192.0.2.25
mail AAAA 2001:db8::25
orders AAAA 2001:db8:5:1::1
orders APL 2:2001:db8:5:1::/64
_ssa.orders SVCB 1 orders.shop.peak. port=8080
_ssa.orders SVCB 2 orders.shop.peak. port=8081
self SVCB 1 . port=443
self AAAA 2001:db8::5
_http._tcp SRV 0 1 80 orders
_http._tcp SRV 0 1 80 mail
_http._tcp SRV 0 1 80 orders
_http._tcp SRV 0 2 80 www.example.net.
www CNAME orders
long CNAME a-rather-long-name-for-an-alias.of-some.depth
a-rather-long-name-for-an-alias.of-some.depth MX 10 mail
*.wild MX 10 mail
*.wild APL 2:2001:db8::/32
*.w2 SVCB 1 . port=1
*.w2 AAAA 2001:db8::9
cluster NS ns1.cluster
cluster NS ns2.cluster
cluster NS ns1.beside
cluster NS ns1.example.net.
ns1.cluster A 192.0.2.1
ns1.cluster AAAA 2001:db8::1
ns2.cluster AAAA 2001:db8::2
beside NS ns1.beside
ns1.beside A 192.0.2.3
into CNAME deep.in.cluster
wide A 192.0.2.1
wide A 192.0.2.2
wide A 192.0.2.3
wide A 192.0.2.4
"#;

fn name(text: &str) -> Name {
    Name::parse(text, &"shop.peak.".parse().unwrap()).unwrap()
}

static ZONE: LazyLock<Zone> = LazyLock::new(|| {
    let records = zonefile::parse(SHOP, &name("@")).unwrap();
    let entry =
        |record: Record| Entry { name: record.name, rtype: record.rtype.0, ttl: record.ttl, rdata: record.rdata };
    let entries: Vec<Entry> = records.into_iter().map(entry).collect();
    Zone::load(&name("@"), SEED, &entries).unwrap().zone
});

const EDNS: ReplyEdns = ReplyEdns { size: 1232, dnssec_ok: true, cookie: None };

/// The reply's octets.
fn octets(asked: &Name, rtype: Type, limit: usize, edns: Option<ReplyEdns>, turn: u32) -> Vec<u8> {
    let mut message = Message::query(9, asked.clone(), rtype).encode(512);
    let query = Query::parse(&message).unwrap();
    message.resize(65_535, 0xEE);
    let mut key = Key::default();
    key.set(SEED, asked.wire());
    let mut reply = Reply::new(&mut message, &query, limit, edns);
    let mut aliases = Aliases::default();
    let answer = ZONE.answer(&key, rtype.0, &mut aliases);
    reply.answer(&answer, &aliases, turn);
    let length = reply.finish(Rcode::NOERROR);
    message.truncate(length);
    message
}

fn ask(asked: &str, rtype: Type) -> Message {
    Message::parse(&octets(&name(asked), rtype, 65_535, None, 0)).unwrap()
}

/// Owner and type of each record.
fn told(records: &[Record]) -> Vec<String> {
    let apex = name("@").to_string();
    let told = |record: &Record| format!("{} {}", record.name.to_string().trim_end_matches(&apex), record.rtype);
    let mut told: Vec<String> = records.iter().map(told).collect();
    told.sort();
    told
}

#[test]
fn each_answer_brings_what_will_be_asked_for_next() {
    for (asked, rtype, answers, additionals) in [
        ("@", Type::MX, vec![" MX", " MX"], vec![" A", "mail. A", "mail. AAAA"]),
        ("@", Type::NS, vec![" NS", " NS"], vec!["ns1. A"]),
        ("_http._tcp", Type::SRV, vec!["_http._tcp. SRV"; 3], vec!["mail. A", "mail. AAAA", "orders. AAAA"]),
        ("orders", Type::APL, vec!["orders. APL"], vec!["_ssa.orders. SVCB"; 2]),
        ("_ssa.orders", Type::SVCB, vec!["_ssa.orders. SVCB"; 2], vec!["orders. AAAA"]),
        ("self", Type::SVCB, vec!["self. SVCB"], vec!["self. AAAA"]),
        ("www", Type::APL, vec!["orders. APL", "www. CNAME"], vec!["_ssa.orders. SVCB"; 2]),
        ("www", Type::CNAME, vec!["www. CNAME"], vec![]),
        ("x.wild", Type::MX, vec!["x.wild. MX"], vec!["mail. A", "mail. AAAA"]),
        ("x.wild", Type::APL, vec!["x.wild. APL"], vec![]),
        ("x.w2", Type::SVCB, vec!["x.w2. SVCB"], vec![]),
        (
            "long",
            Type::MX,
            vec!["a-rather-long-name-for-an-alias.of-some.depth. MX", "long. CNAME"],
            vec!["mail. A", "mail. AAAA"],
        ),
    ] {
        let reply = ask(asked, rtype);
        assert_eq!(told(&reply.answers), answers, "{asked} {rtype}");
        assert_eq!(told(&reply.additionals), additionals, "{asked} {rtype}");
        assert!(reply.header.authoritative && reply.authorities.is_empty(), "{asked} {rtype}");
    }
}

#[test]
fn every_record_arrives_as_the_zone_file_has_it() {
    for record in zonefile::parse(SHOP, &name("@")).unwrap() {
        if record.name.is_at_or_below(&name("cluster")) || record.name.is_at_or_below(&name("beside")) {
            continue;
        }
        let reply = ask(&record.name.to_string(), record.rtype);
        assert!(reply.answers.contains(&record), "{record:?} in {:?}", reply.answers);
    }
}

#[test]
fn a_negative_answer_has_the_soa_and_nothing_else() {
    for (asked, rtype) in [("nothing", Type::A), ("orders", Type::A), ("_tcp", Type::A)] {
        let reply = ask(asked, rtype);
        assert_eq!((told(&reply.authorities), reply.authorities[0].ttl), (vec![" SOA".to_owned()], 30));
        assert!(reply.header.authoritative && reply.answers.is_empty() && reply.additionals.is_empty());
    }
}

#[test]
fn a_referral_has_the_servers_and_the_addresses_this_zone_knows_and_no_authority() {
    let glue = ["ns1.beside. A", "ns1.cluster. A", "ns1.cluster. AAAA", "ns2.cluster. AAAA"];
    let reply = ask("x.y.cluster", Type::A);
    assert_eq!(
        (told(&reply.authorities), told(&reply.additionals)),
        (vec!["cluster. NS".to_owned(); 4], glue.map(String::from).to_vec())
    );
    assert!(!reply.header.authoritative && reply.answers.is_empty());

    let reply = ask("into", Type::A);
    assert_eq!(
        (told(&reply.answers), told(&reply.authorities)),
        (vec!["into. CNAME".to_owned()], vec!["cluster. NS".to_owned(); 4])
    );
    assert!(reply.header.authoritative);
}

#[test]
fn the_question_keeps_its_case_and_the_owner_is_the_question() {
    let asked = name("WwW");
    let reply = Message::parse(&octets(&asked, Type::AAAA, 512, None, 0)).unwrap();
    assert_eq!(reply.questions[0].name.wire(), asked.wire());
    assert_eq!(reply.answers[0].name.wire(), asked.wire());
}

#[test]
fn an_answer_that_fits_exactly_is_whole_and_one_octet_less_is_told_by_tc() {
    for edns in [None, Some(EDNS)] {
        let whole = octets(&name("wide"), Type::A, 65_535, edns, 0);
        let at = |limit| Message::parse(&octets(&name("wide"), Type::A, limit, edns, 0)).unwrap();
        let (fits, cut) = (at(whole.len()), at(whole.len() - 1));
        assert_eq!((fits.answers.len(), fits.header.truncated), (4, false));
        assert_eq!((cut.answers.len(), cut.header.truncated, cut.edns.is_some()), (0, true, edns.is_some()));
    }
}

#[test]
fn additional_records_are_left_out_whole_and_without_tc() {
    let whole = octets(&name("@"), Type::MX, 65_535, None, 0).len();
    let reply = Message::parse(&octets(&name("@"), Type::MX, whole - 1, None, 0)).unwrap();
    assert_eq!((reply.answers.len(), reply.header.truncated), (2, false));
    assert!(reply.additionals.len() < 3);
}

#[test]
fn a_referral_without_room_for_glue_below_the_cut_is_truncated_and_for_other_glue_is_not() {
    let asked = name("x.cluster");
    let whole = octets(&asked, Type::A, 65_535, None, 0).len();
    let at = |limit| Message::parse(&octets(&asked, Type::A, limit, None, 0)).unwrap();
    // The last record is that of the server beside, 16 octets.
    let (beside, below) = (at(whole - 1), at(whole - 17));
    assert_eq!((beside.additionals.len(), beside.header.truncated), (3, false));
    assert!(below.header.truncated && below.authorities.len() == 4);
}

#[test]
fn opt_says_size_do_the_upper_code_and_the_cookie() {
    let mut message = Message::query(9, name("x"), Type::A).encode(512);
    let query = Query::parse(&message).unwrap();
    message.resize(600, 0);
    let edns = ReplyEdns { cookie: Some([3; 24]), ..EDNS };
    let length = Reply::new(&mut message, &query, 512, Some(edns)).finish(Rcode::BADVERS);
    let reply = Message::parse(&message[..length]).unwrap();
    let said = reply.edns.unwrap();
    assert_eq!((reply.header.rcode, said.udp_size, said.version, said.dnssec_ok), (Rcode::BADVERS, 1232, 0, true));
    assert_eq!((said.options[0].code, said.options[0].data.as_ref()), (10, [3; 24].as_slice()));
}

#[test]
fn a_refusal_is_a_header_with_the_request_s_operation_and_rd() {
    let mut message = Message::query(0x1234, name("x"), Type::A).encode(512);
    message[2] = (5 << 3) | 0x87;
    message[3] = 0xFF;
    let length = refuse(&mut message, Rcode::NOTIMP);
    let header = Header::parse(&message[..length]).unwrap();
    assert_eq!((length, header.id, header.opcode, header.rcode), (12, 0x1234, Opcode::UPDATE, Rcode::NOTIMP));
    assert!(header.response && header.recursion_desired && !header.authoritative && !header.truncated);
    assert!(message[4..12].iter().all(|count| *count == 0));
}

fn any_asked() -> impl Strategy<Value = Name> {
    let label =
        prop::sample::select(&["a", "x", "cluster", "ns1", "wild", "w2", "www", "long", "_ssa", "orders", "*"][..]);
    prop::collection::vec(label, 0..8).prop_map(|labels| {
        let text = if labels.is_empty() { "@".to_owned() } else { labels.join(".") };
        name(&text)
    })
}

proptest! {
    /// Whatever is asked, within whatever room, by whatever turn: the reply is a whole message within the room, and
    /// no record is in it that the zone does not have.
    #[test]
    fn every_reply_is_whole_and_within_its_room(
        asked in any_asked(),
        rtype in prop::sample::select(&[Type::A, Type::AAAA, Type::NS, Type::MX, Type::SVCB, Type::APL, Type::ANY][..]),
        limit in 512usize..1500,
        edns: bool,
        turn: u32,
    ) {
        let octets = octets(&asked, rtype, limit, edns.then_some(EDNS), turn);
        prop_assert!(octets.len() <= limit);
        let reply = Message::parse(&octets).unwrap();
        prop_assert_eq!(reply.edns.is_some(), edns);
        let file = zonefile::parse(SHOP, &name("@")).unwrap();
        for record in reply.answers.iter().chain(&reply.authorities).chain(&reply.additionals) {
            let rdata = |other: &Record| other.rtype == record.rtype && other.rdata.eq_ignore_ascii_case(&record.rdata);
            prop_assert!(file.iter().any(rdata), "{:?}", record);
        }
    }
}
