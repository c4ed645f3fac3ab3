//! Requests that are questions, and requests that are not.

use proptest::prelude::*;

use super::query::{Query, QueryCookie, QueryEdns, QueryError};
use super::{Edns, EdnsOption, Header, Message, Opcode, Question, Record, Type};
use crate::model::Name;

const NAME: &[u8] = b"\x04shop\x04peak\0";
const OPT: &[u8] = &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];

/// A header with these second, third and fourth counts and one question for A, then `rest`.
fn request(counts: [u16; 3], rest: &[u8]) -> Vec<u8> {
    let mut octets = vec![0x12, 0x34, 1, 0, 0, 1];
    counts.iter().for_each(|count| octets.extend(count.to_be_bytes()));
    [&octets, NAME, &[0, 1, 0, 1], rest].concat()
}

fn opt(options: &[u8]) -> Vec<u8> {
    [&OPT[..9], &(options.len() as u16).to_be_bytes(), options].concat()
}

fn cookie_option(octets: usize) -> Vec<u8> {
    [&[0, 10, 0, octets as u8][..], &vec![7; octets]].concat()
}

fn malformed(octets: &[u8]) -> bool {
    Query::parse(octets) == Err(QueryError::Malformed)
}

#[test]
fn a_question_is_read_with_its_opt() {
    let plain = Query::parse(&request([0; 3], &[])).unwrap();
    assert_eq!(plain, Query { name_octets: NAME.len(), qtype: 1, qclass: 1, edns: None });
    let edns = Query::parse(&request([0, 0, 1], OPT)).unwrap().edns;
    assert_eq!(edns, Some(QueryEdns { size: 1232, version: 0, dnssec_ok: false, cookie: None }));
}

#[test]
fn a_size_below_512_counts_as_512() {
    for (given, taken) in [(0u16, 512), (511, 512), (512, 512), (513, 513), (65_535, 65_535)] {
        let mut record = OPT.to_vec();
        record[3..5].copy_from_slice(&given.to_be_bytes());
        assert_eq!(Query::parse(&request([0, 0, 1], &record)).unwrap().edns.unwrap().size, taken);
    }
}

#[test]
fn a_reply_and_less_than_a_header_get_no_answer() {
    let mut reply = request([0; 3], &[]);
    reply[2] |= 0x80;
    assert_eq!(Query::parse(&reply), Err(QueryError::NotARequest));
    for length in 0..12 {
        let error = Query::parse(&request([0; 3], &[])[..length]).unwrap_err();
        assert_eq!((error, error.rcode()), (QueryError::NotARequest, None));
    }
}

#[test]
fn every_operation_but_query_is_not_provided_whatever_follows() {
    for opcode in 1..16 {
        let mut octets = vec![0; 12];
        octets[2] = opcode << 3;
        assert_eq!(Query::parse(&octets), Err(QueryError::Opcode(Opcode::from_bits(opcode))));
    }
}

#[test]
fn a_message_cut_anywhere_is_malformed_and_so_is_one_with_more() {
    let whole = request([0, 0, 1], &opt(&cookie_option(8)));
    assert!(Query::parse(&whole).is_ok());
    for length in 12..whole.len() {
        assert!(malformed(&whole[..length]), "cut to {length}");
    }
    assert!(malformed(&[&whole[..], &[0]].concat()));
}

#[test]
fn what_no_question_looks_like_is_malformed() {
    let mut two_questions = request([0; 3], &[NAME, &[0, 1, 0, 1]].concat());
    two_questions[5] = 2;
    let mut no_question = request([0; 3], &[])[..12].to_vec();
    no_question[5] = 0;
    let mut pointer = request([0; 3], &[])[..12].to_vec();
    pointer.extend([0xC0, 0x0C, 0, 1, 0, 1]);
    let mut long_label = request([0; 3], &[])[..12].to_vec();
    long_label.extend([&[64; 65][..], &[0, 0, 1, 0, 1]].concat());
    let record = [NAME, &[0, 1, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for (octets, what) in [
        (two_questions, "two questions"),
        (no_question, "nothing at all"),
        (pointer, "a pointer in the question"),
        (long_label, "a label of 64 octets"),
        (request([1, 0, 0], &record), "an answer"),
        (request([0, 1, 0], &record), "an authority"),
        (request([0, 0, 2], &[OPT, OPT].concat()), "two OPT"),
        (request([0, 0, 1], &[NAME, &OPT[1..]].concat()), "an OPT that is not the root's"),
        (request([0, 0, 1], &opt(&[0, 10, 0])), "half an option"),
        (request([0, 0, 1], &opt(&[0, 10, 0, 9, 1])), "an option that ends too early"),
    ] {
        assert!(malformed(&octets), "{what}");
    }
}

#[test]
fn a_name_of_255_octets_is_read_and_one_of_256_is_not() {
    let name = |last: usize| {
        let label = [&[63][..], &[b'a'; 63]].concat();
        [&label[..], &label, &label, &[last as u8], &vec![b'b'; last], &[0]].concat()
    };
    for (last, fits) in [(61, true), (62, false)] {
        let octets = [&request([0; 3], &[])[..12], &name(last), &[0, 1, 0, 1]].concat();
        assert_eq!(Query::parse(&octets).is_ok(), fits, "{last}");
    }
}

#[test]
fn a_cookie_has_8_octets_or_16_to_40() {
    for octets in 0..=48 {
        let read = Query::parse(&request([0, 0, 1], &opt(&cookie_option(octets))));
        assert_eq!(read.is_ok(), octets == 8 || (16..=40).contains(&octets), "{octets}");
        let cookie = read.ok().and_then(|query| query.edns).and_then(|edns| edns.cookie);
        // Another server's may be of another length; ours has 16 octets.
        let server = (octets == 24).then_some([7; 16]);
        assert!(cookie.is_none_or(|cookie| cookie == QueryCookie { client: [7; 8], server }), "{octets}");
    }
}

#[test]
fn a_cookie_may_be_asked_for_without_a_question() {
    let mut octets = request([0, 0, 1], &[])[..12].to_vec();
    octets[5] = 0;
    octets.extend(opt(&cookie_option(8)));
    let query = Query::parse(&octets).unwrap();
    assert_eq!((query.name_octets, query.end()), (0, 12));
    assert!(query.edns.unwrap().cookie.is_some());
}

#[test]
fn ixfr_alone_may_say_what_it_has() {
    let soa = [NAME, &[0, 6, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    let mut octets = request([0, 1, 0], &soa);
    let type_at = 12 + NAME.len() + 1;
    octets[type_at] = Type::IXFR.0 as u8;
    assert!(Query::parse(&octets).is_ok());
    octets[type_at] = Type::AXFR.0 as u8;
    assert!(malformed(&octets));
}

fn any_name() -> impl Strategy<Value = Name> {
    prop::collection::vec("[a-zA-Z0-9_-]{1,20}", 0..6).prop_map(|labels| (labels.join(".") + ".").parse().unwrap())
}

proptest! {
    #[test]
    fn no_octets_make_it_panic(octets in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Query::parse(&octets);
    }

    #[test]
    fn a_damaged_question_never_makes_it_panic(at in 0usize..70, value: u8) {
        let mut octets = request([0, 0, 1], &opt(&cookie_option(24)));
        let at = at % octets.len();
        octets[at] = value;
        let _ = Query::parse(&octets);
    }

    /// Whatever the general codec writes as a question is read as the same.
    #[test]
    fn it_reads_what_the_general_codec_writes(
        name in any_name(),
        qtype in 1u16..41,
        edns in prop::option::of((512u16.., any::<bool>(), prop::collection::vec(any::<u8>(), 0..40))),
        extra in prop::option::of(any_name()),
    ) {
        let mut message = Message::query(7, name.clone(), Type(qtype));
        message.header = Header { recursion_desired: true, ..message.header };
        message.additionals = extra.into_iter().map(|name| Record::new(name, Type::A, 1, [1, 2, 3, 4])).collect();
        message.edns = edns.clone().map(|(udp_size, dnssec_ok, data)| Edns {
            udp_size,
            dnssec_ok,
            options: vec![EdnsOption { code: 100, data: data.into() }],
            ..Edns::default()
        });
        let octets = message.encode(65_535);
        let query = Query::parse(&octets).unwrap();
        let question = Question { name, rtype: Type(query.qtype), class: super::Class(query.qclass) };
        prop_assert_eq!(&[question][..], &message.questions[..]);
        prop_assert_eq!(query.name_octets, message.questions[0].name.wire().len());
        prop_assert_eq!(query.edns.map(|edns| (edns.size, edns.dnssec_ok)), edns.map(|(size, ok, _)| (size, ok)));
    }
}
