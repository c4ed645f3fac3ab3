//! The DNS codec on generated input: nothing panics, and what one form says, the other says back.

use std::io::Write;
use std::process::{Command, Stdio};

use funicular::model::Name;
use funicular::wire::dns::{
    Class, Edns, EdnsOption, Header, Message, Opcode, Question, Rcode, Record, Type, fuzz, rdata, zonefile,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// Names of few labels from few letters, so that they share ends, in spellings that differ.
fn names() -> impl Strategy<Value = Name> {
    let label = prop_oneof!["[aAbB]{1,2}", "[a-z0-9-]{1,63}", Just("x\\.\\007".to_owned())];
    vec(label, 0..4).prop_map(|labels| format!("{}.", labels.join(".")).parse().unwrap_or_else(|_| Name::root()))
}

/// Data as its type has it, or any octets for a type that is not known.
fn records() -> impl Strategy<Value = Record> {
    let name_after = |count: usize| {
        (vec(any::<u8>(), count), names()).prop_map(|(octets, name)| [&octets[..], name.wire()].concat())
    };
    let typed = prop_oneof![
        (prop::sample::select(vec![Type::NS, Type::CNAME, Type::PTR, Type::DNAME]), name_after(0)),
        (Just(Type::MX), name_after(2)),
        (Just(Type::SRV), name_after(6)),
        (
            Just(Type::SOA),
            (names(), name_after(0), vec(any::<u8>(), 20))
                .prop_map(|(mname, rname, numbers)| { [mname.wire(), &rname, &numbers].concat() })
        ),
        (prop::sample::select(vec![Type::A, Type::APL, Type::SVCB, Type::TXT, Type(65280)]), vec(any::<u8>(), 0..40)),
    ];
    let class = prop::sample::select(vec![Class::IN, Class::NONE, Class::ANY, Class(77)]);
    (names(), typed, class, any::<u32>())
        .prop_map(|(name, (rtype, data), class, ttl)| Record { class, ..Record::new(name, rtype, ttl, data) })
}

fn headers() -> impl Strategy<Value = Header> {
    (any::<u16>(), any::<[bool; 7]>(), 0..16_u8, 0..16_u16).prop_map(|(id, bits, opcode, rcode)| Header {
        id,
        response: bits[0],
        opcode: Opcode::from_bits(opcode),
        authoritative: bits[1],
        truncated: bits[2],
        recursion_desired: bits[3],
        recursion_available: bits[4],
        authentic_data: bits[5],
        checking_disabled: bits[6],
        rcode: Rcode(rcode),
    })
}

fn options() -> impl Strategy<Value = Edns> {
    let option =
        (any::<u16>(), vec(any::<u8>(), 0..20)).prop_map(|(code, data)| EdnsOption { code, data: data.into() });
    (any::<u16>(), any::<bool>(), vec(option, 0..3)).prop_map(|(udp_size, dnssec_ok, options)| Edns {
        udp_size,
        version: 0,
        dnssec_ok,
        options,
    })
}

fn messages() -> impl Strategy<Value = Message> {
    let question =
        (names(), 1..300_u16).prop_map(|(name, rtype)| Question { name, rtype: Type(rtype), class: Class::IN });
    let section = || vec(records(), 0..8);
    (headers(), vec(question, 0..3), section(), section(), section(), prop::option::of(options())).prop_map(
        |(header, questions, answers, authorities, additionals, edns)| Message {
            header,
            questions,
            answers,
            authorities,
            additionals,
            edns,
        },
    )
}

/// Texts made of what zone files are made of, mostly not zone files.
fn zone_texts() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "a",
        "b.peak.",
        "@",
        ".",
        " ",
        "\t",
        "\n",
        "\n",
        "\r\n",
        "(",
        ")",
        ";x",
        "\"",
        "\"q s\"",
        "\\",
        "\\.",
        "\\065",
        "\\#",
        "5",
        "1h30m",
        "4294967295",
        "IN",
        "CH",
        "$TTL 5\n",
        "$ORIGIN",
        "$INCLUDE",
        " A 192.0.2.1\n",
        " AAAA ::1\n",
        " NS ns\n",
        " MX 1 m\n",
        " SOA a b 1 2 3 4 5\n",
        " TXT \"t\"\n",
        " APL 2:::/0\n",
        " SVCB 1 .",
        " port=1",
        " alpn=\"a,b\"",
        " key65400=\"v=ssa1\"\n",
        " SRV 1 2 3 t\n",
        " TYPE65280 \\# 1 00\n",
        "é",
        "=",
        "!",
    ]);
    vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn what_is_encoded_is_read_as_the_same_to_the_letter(message in messages()) {
        let read = Message::parse(&message.encode(65_535)).unwrap();
        // Names are equal whatever their case; printed, they are not.
        prop_assert_eq!(format!("{read:?}"), format!("{message:?}"));
    }

    #[test]
    fn a_limit_is_kept_and_cuts_whole_rrsets_alone(message in messages(), limit in 512_usize..1500) {
        let octets = message.encode(limit);
        prop_assert!(octets.len() <= limit);
        let read = Message::parse(&octets).unwrap();
        for (whole, kept) in [(&message.answers, &read.answers), (&message.authorities, &read.authorities)] {
            prop_assert!(whole.starts_with(kept));
            if let (Some(last), Some(next)) = (kept.last(), whole.get(kept.len())) {
                prop_assert!(!last.same_rrset(next));
            }
            prop_assert!(read.header.truncated || kept == whole);
        }
    }

    #[test]
    fn no_octets_break_the_message_codec(octets in vec(any::<u8>(), 0..600)) {
        fuzz::message(&octets);
    }

    #[test]
    fn no_damage_breaks_the_message_codec(message in messages(), hits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut octets = message.encode(65_535);
        for (place, octet) in hits {
            let place = place.index(octets.len());
            octets[place] = octet;
        }
        fuzz::message(&octets);
    }

    #[test]
    fn no_pointers_break_the_message_codec(pointers in vec((0_u8..80, any::<bool>()), 0..200)) {
        let mut octets = b"\0\0\0\0\0\x05\0\x05\0\0\0\0".to_vec();
        for (low, pointer) in pointers {
            octets.extend_from_slice(if pointer { &[0xc0] } else { &[] });
            octets.push(low);
        }
        fuzz::message(&octets);
    }

    #[test]
    fn any_data_prints_as_what_reads_back(record in records(), octets in vec(any::<u8>(), 0..60)) {
        fuzz::rdata(&[&record.rtype.0.to_be_bytes()[..], &record.rdata].concat());
        fuzz::rdata(&octets);
    }

    #[test]
    fn any_binding_prints_as_what_reads_back(
        params in prop::collection::btree_map(prop_oneof![0_u16..9, Just(65400)], vec(prop_oneof![0_u8..5, any::<u8>()], 0..20), 0..5),
    ) {
        let mut octets = [&Type::SVCB.0.to_be_bytes()[..], b"\0\x01\0"].concat();
        for (key, value) in params {
            octets.extend_from_slice(&key.to_be_bytes());
            octets.extend_from_slice(&(value.len() as u16).to_be_bytes());
            octets.extend_from_slice(&value);
        }
        fuzz::rdata(&octets);
    }

    #[test]
    fn any_prefix_list_prints_as_what_reads_back(
        items in vec((0_u8..4, 0_u8..140, any::<bool>(), vec(prop_oneof![Just(0_u8), Just(0x80), any::<u8>()], 0..18)), 0..4),
    ) {
        let mut octets = Type::APL.0.to_be_bytes().to_vec();
        for (family, bits, negated, address) in items {
            octets.extend_from_slice(&[0, family, bits, address.len() as u8 | if negated { 0x80 } else { 0 }]);
            octets.extend_from_slice(&address);
        }
        fuzz::rdata(&octets);
    }

    #[test]
    fn no_text_breaks_record_data(rtype in any::<u16>(), text in zone_texts(), other in ".{0,80}") {
        for text in [text, other] {
            fuzz::rdata_text(&[&rtype.to_be_bytes()[..], text.as_bytes()].concat());
        }
    }

    #[test]
    fn no_text_breaks_the_zone_file_parser(text in zone_texts(), octets in vec(any::<u8>(), 0..200)) {
        fuzz::zone_file(text.as_bytes());
        fuzz::zone_file(&octets);
    }

    #[test]
    fn no_records_break_what_is_made_of_them(octets in vec(prop_oneof![Just(0xff), Just(0), any::<u8>()], 0..120)) {
        fuzz::service(&octets);
        fuzz::tsig(&octets);
        fuzz::zone_state(&octets);
    }
}

/// Every kind of record and of spelling in one zone.
const ZONE: &str = r#"$TTL 1h
@           IN SOA ns1 host\.master ( 2024010101 2h 15m 2w 60 )
            NS     ns1
            MX     10 mail.example.
ns1         A      192.0.2.53
            AAAA   2001:db8::53
www     300 CNAME  orders
orders      AAAA   2001:db8:5:1::1
            APL    2:2001:db8:5:1::/64 !2:2001:db8:5:1:8000::/66 1:192.0.2.0/24 2:::/0
none        APL
_ssa.orders 60 SVCB 1 orders port=8080 key65400="v=ssa1 layout=source-hash:14/64,random:50 slices=14"
            60 TXT "v=ssa1 layout=source-hash:14/64,random:50 slices=14" plain "\"\\\200\001;" ""
            60 SVCB 16 foo.example. mandatory=ipv4hint,alpn alpn="f\\\\oo\\,bar,h2" ipv4hint=192.0.2.1 ipv6hint=2001:db8::1
web         HTTPS  1 . alpn=h2,h3 no-default-alpn ech=AAEC
            HTTPS  0 other
_http._tcp  SRV    0 65535 80 orders
1.0         PTR    orders
*           TXT    "wild"
odd\032name TYPE65280 \# 4 0102 0304
            TYPE65281 \# 0
"#;

#[test]
#[ignore = "needs ldns-read-zone of Debian's ldnsutils"]
fn an_independent_program_reads_our_text_as_we_do() {
    let records = zonefile::parse(ZONE, &"shop.peak.".parse().unwrap()).unwrap();
    let ours: String = records.iter().map(|record| format!("{record}\n")).collect();

    let mut ldns = Command::new("ldns-read-zone")
        .arg("/dev/stdin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("ldns-read-zone, of Debian's ldnsutils, runs");
    ldns.stdin.take().unwrap().write_all(ours.as_bytes()).unwrap();
    let output = ldns.wait_with_output().unwrap();
    let theirs = zonefile::parse(std::str::from_utf8(&output.stdout).unwrap(), &Name::root()).unwrap();

    let lines = |records: &[Record]| {
        let mut lines: Vec<String> = records.iter().map(|it| it.to_string().to_lowercase()).collect();
        lines.sort();
        lines
    };
    assert_eq!(lines(&theirs), lines(&records));
    assert!(records.iter().all(|record| rdata::is_well_formed(record.rtype, &record.rdata)));
}
