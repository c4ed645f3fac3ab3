//! Whole messages, there and back.

use super::*;
use crate::model::Name;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn aaaa(owner: &str, last: u8) -> Record {
    let mut address = [0; 16];
    address[15] = last;
    Record::new(name(owner), Type::AAAA, 60, address)
}

fn ns(owner: &str, target: &str) -> Record {
    Record::new(name(owner), Type::NS, 3600, name(target).wire())
}

fn answer(owner: &str, addresses: u8) -> Message {
    let mut message = Message::query(7, name(owner), Type::AAAA).response(Rcode::NOERROR);
    message.answers = (0..addresses).map(|last| aaaa(owner, last)).collect();
    message
}

/// The spelling of every name counts, which equality of names does not see.
fn exactly(message: &Message) -> String {
    format!("{message:?}")
}

#[test]
fn a_question_has_the_octets_of_the_standard() {
    let octets = Message { edns: None, ..Message::query(0x1234, name("a.peak"), Type::APL) }.encode(512);
    assert_eq!(octets, b"\x12\x34\0\0\0\x01\0\0\0\0\0\0\x01a\x04peak\0\0\x2a\0\x01");
}

#[test]
fn every_header_field_survives() {
    let rcodes = [Rcode::NOERROR, Rcode::NOTZONE, Rcode::BADVERS, Rcode::BADCOOKIE, Rcode(4095)];
    for (bit, rcode) in (0..7).zip(rcodes.into_iter().cycle()) {
        let header = Header {
            id: 0xbeef,
            response: bit == 0,
            opcode: Opcode::UPDATE,
            authoritative: bit == 1,
            truncated: bit == 2,
            recursion_desired: bit == 3,
            recursion_available: bit == 4,
            authentic_data: bit == 5,
            checking_disabled: bit == 6,
            rcode,
        };
        let message = Message { header, edns: Some(Edns::default()), ..Message::default() };
        assert_eq!(Message::parse(&message.encode(512)).unwrap(), message);
    }
}

#[test]
fn edns_survives_with_its_options_and_its_share_of_the_response_code() {
    let option = EdnsOption { code: 10, data: Box::from(*b"cookie!!") };
    let edns = Edns { udp_size: 4096, version: 0, dnssec_ok: true, options: vec![option.clone(), option] };
    let mut message = answer("a.peak", 1);
    message.header.rcode = Rcode::BADCOOKIE;
    message.edns = Some(edns);
    assert_eq!(Message::parse(&message.encode(512)).unwrap(), message);
}

#[test]
fn a_response_code_that_has_no_room_becomes_servfail_and_not_noerror() {
    let mut message = answer("a.peak", 0);
    message.edns = None;
    message.header.rcode = Rcode::BADVERS;
    assert_eq!(Message::parse(&message.encode(512)).unwrap().header.rcode, Rcode::SERVFAIL);
}

#[test]
fn opt_stands_once_in_the_additional_section_at_the_root() {
    let opt = Edns::default().to_record(0);
    let message = |answers: Vec<Record>, additionals: Vec<Record>| {
        Message { answers, additionals, ..Message::default() }.encode(512)
    };
    assert!(Message::parse(&message(vec![], vec![opt.clone()])).unwrap().edns.is_some());
    let named = Record { name: name("a."), ..opt.clone() };
    for octets in
        [message(vec![], vec![opt.clone(), opt.clone()]), message(vec![opt], vec![]), message(vec![], vec![named])]
    {
        assert!(matches!(Message::parse(&octets), Err(WireError::Opt { .. })));
    }
}

#[test]
fn an_option_longer_than_its_record_is_refused() {
    let opt = Record { rdata: Box::from([0, 10, 0, 2, 1]), ..Edns::default().to_record(0) };
    let octets = Message { additionals: vec![opt], ..Message::default() }.encode(512);
    assert_eq!(Message::parse(&octets), Err(WireError::OptOption { at: octets.len() }));
}

#[test]
fn options_of_a_version_to_come_are_left_unread() {
    let opt = Record { rdata: Box::from([0, 10, 0, 2, 1]), ttl: 0x0001_8000, ..Edns::default().to_record(0) };
    let octets = Message { additionals: vec![opt], ..Message::default() }.encode(512);
    let edns = Message::parse(&octets).unwrap().edns.unwrap();
    assert_eq!(edns, Edns { version: 1, dnssec_ok: true, ..Edns::default() });
}

#[test]
fn owner_names_are_compressed_without_changing_a_spelling() {
    let mut message = answer("Orders.shop.peak", 2);
    message.answers.push(aaaa("orders.SHOP.peak", 9));
    let octets = message.encode(512);
    // Question 22; two records with a pointer each; one with `orders`, `SHOP` and a pointer to `peak`; OPT 11.
    assert_eq!(octets.len(), 12 + 22 + 2 * (2 + 26) + (7 + 5 + 2 + 26) + 11);
    assert_eq!(exactly(&Message::parse(&octets).unwrap()), exactly(&message));
}

#[test]
fn names_in_old_types_are_compressed_and_in_new_ones_are_not() {
    let srv = [&[0, 1, 0, 2, 0, 80][..], name("ns1.peak").wire()].concat();
    let mx = [&[0, 10][..], name("ns1.peak").wire()].concat();
    let record = |rtype, rdata: &[u8]| Record::new(name("peak"), rtype, 1, rdata);
    let answers = vec![ns("peak", "ns1.peak"), record(Type::SRV, &srv), record(Type::MX, &mx)];
    let message = Message { answers, ..Message::default() };
    let octets = message.encode(512);
    assert_eq!(octets.len(), 12 + (6 + 10 + 6) + (2 + 10 + srv.len()) + (2 + 10 + 4));
    assert_eq!(Message::parse(&octets).unwrap(), message);
}

#[test]
fn a_compressed_name_in_srv_is_read_all_the_same() {
    let octets = b"\0\0\x80\0\0\0\0\x01\0\0\0\0\x04peak\0\0\x21\0\x01\0\0\0\0\0\x08\0\0\0\0\0\x50\xc0\x0c";
    let message = Message::parse(octets).unwrap();
    assert_eq!(&*message.answers[0].rdata, b"\0\0\0\0\0\x50\x04peak\0");
}

#[test]
fn data_that_its_names_do_not_fill_is_refused() {
    let octets = b"\0\0\x80\0\0\0\0\x01\0\0\0\0\x04peak\0\0\x02\0\x01\0\0\0\0\0\x03\xc0\x0c\xff";
    assert_eq!(Message::parse(octets), Err(WireError::Rdata { at: 28, rtype: Type::NS }));
}

#[test]
fn an_update_with_its_empty_records_survives() {
    let gone = |rtype, class| Record { rtype, class, ..Record::new(name("a.peak"), rtype, 0, []) };
    let message = Message {
        header: Header { opcode: Opcode::UPDATE, ..Header::default() },
        questions: vec![Question { name: name("peak"), rtype: Type::SOA, class: Class::IN }],
        answers: vec![gone(Type::NS, Class::NONE), gone(Type::SOA, Class::ANY)],
        authorities: vec![gone(Type::ANY, Class::ANY), Record { class: Class::NONE, ..ns("a.peak", "b.peak") }],
        ..Message::default()
    };
    assert_eq!(Message::parse(&message.encode(512)).unwrap(), message);
}

#[test]
fn octets_after_the_last_record_are_refused() {
    let mut octets = answer("a.peak", 1).encode(512);
    octets.push(0);
    assert_eq!(Message::parse(&octets), Err(WireError::Trailing { at: octets.len() - 1 }));
}

#[test]
fn every_message_cut_short_is_refused() {
    let octets = answer("a.peak", 2).encode(512);
    for end in 0..octets.len() {
        assert_eq!(Message::parse(&octets[..end]), Err(WireError::Short { at: end }), "{end}");
    }
}

#[test]
fn an_rrset_that_fits_to_the_octet_is_kept_and_one_octet_less_drops_it_whole_and_says_so() {
    let message = answer("a.peak", 20);
    let whole = message.encode(65_535);
    assert!(whole.len() > 512);
    assert_eq!(Message::parse(&message.encode(whole.len())).unwrap(), message);
    let cut = Message::parse(&message.encode(whole.len() - 1)).unwrap();
    assert!(cut.header.truncated);
    assert_eq!((cut.answers.len(), cut.questions.len()), (0, 1));
    assert!(cut.edns.is_some());
}

#[test]
fn what_follows_a_missing_rrset_is_missing_too() {
    let mut message = answer("a.peak", 20);
    message.authorities.push(ns("peak", "ns1.peak"));
    let cut = Message::parse(&message.encode(512)).unwrap();
    assert!(cut.header.truncated && cut.answers.is_empty() && cut.authorities.is_empty());
}

#[test]
fn missing_additional_records_do_not_truncate_an_answer_and_smaller_ones_are_still_added() {
    let mut message = answer("a.peak", 1);
    message.additionals = (0..20).map(|last| aaaa("big.peak", last)).collect();
    message.additionals.push(aaaa("small.peak", 1));
    let cut = Message::parse(&message.encode(512)).unwrap();
    assert!(!cut.header.truncated);
    assert_eq!(cut.additionals, [aaaa("small.peak", 1)]);
}

#[test]
fn missing_glue_truncates_a_referral_that_needs_it_and_no_other_answer() {
    let referral = |server: &str| {
        let mut message = answer("a.shop.peak", 0);
        message.authorities.push(ns("shop.peak", server));
        message.additionals = (0..20).map(|last| aaaa(server, last)).collect();
        message
    };
    let truncated = |message: &Message| Message::parse(&message.encode(512)).unwrap().header.truncated;
    let in_domain = referral("ns1.shop.peak");
    assert!(truncated(&in_domain));
    assert!(!truncated(&referral("ns1.other.peak")), "a sibling's address can be asked for");

    let mut from_the_zone = in_domain.clone();
    from_the_zone.header.authoritative = true;
    let mut with_answer = in_domain;
    with_answer.answers.push(aaaa("a.shop.peak", 1));
    assert!(!truncated(&from_the_zone) && !truncated(&with_answer));
}

#[test]
fn a_signature_stays_last_however_little_room_there_is() {
    let mut message = answer("a.peak", 20);
    let signature = Record { class: Class::ANY, ..Record::new(name("key.peak"), Type::TSIG, 0, [7; 60]) };
    message.additionals = vec![aaaa("b.peak", 1), signature.clone()];
    let octets = message.encode(512);
    let cut = Message::parse(&octets).unwrap();
    assert!(octets.len() <= 512 && cut.header.truncated);
    assert_eq!(cut.additionals, [signature]);
    assert!(octets.ends_with(&[7; 60]));
}

#[test]
fn a_limit_out_of_range_counts_as_the_nearest() {
    assert!(answer("a.peak", 5).encode(0).len() > 100);
    let many: Vec<Record> = (0..4_000).map(|n| aaaa(&format!("n{n}.peak"), 1)).collect();
    let octets = Message { answers: many, ..Message::default() }.encode(usize::MAX);
    assert!((65_000..=65_535).contains(&octets.len()));
    assert!(Message::parse(&octets).unwrap().header.truncated);
}

#[test]
fn names_beyond_the_reach_of_pointers_are_still_right() {
    let early = (0..600).map(|n| Record::new(name(&format!("n{n}.peak")), Type::TXT, 1, [b'x'; 40]));
    let late = (0..600).map(|n| aaaa(&format!("n{n}.late"), 1));
    let message = Message { answers: early.chain(late).collect(), ..Message::default() };
    assert_eq!(Message::parse(&message.encode(65_535)).unwrap(), message);
}

#[test]
fn rrsets_taken_back_leave_no_pointer_behind() {
    let mut message = answer("a.peak", 1);
    message.additionals = (0..20).map(|last| aaaa("gone.deep.example", last)).collect();
    message.additionals.push(aaaa("x.gone.deep.example", 1));
    message.additionals.push(aaaa("y.deep.example", 1));
    let cut = Message::parse(&message.encode(512)).unwrap();
    assert_eq!(exactly(&cut), exactly(&Message { additionals: message.additionals[20..].to_vec(), ..message }));
}

#[test]
fn an_answer_repeats_what_the_asker_chose() {
    let mut query = Message::query(9, name("a.peak"), Type::A);
    query.header.recursion_desired = true;
    query.header.checking_disabled = true;
    query.header.authentic_data = true;
    let answer = query.response(Rcode::REFUSED);
    assert_eq!((answer.header.id, answer.header.rcode, &answer.questions), (9, Rcode::REFUSED, &query.questions));
    assert!(answer.header.response && answer.header.recursion_desired && answer.header.checking_disabled);
    assert!(!answer.header.authentic_data && answer.edns.is_some());
    assert!(Message { edns: None, ..query }.response(Rcode::NOERROR).edns.is_none());
}
