//! Signatures made, checked and refused.

use super::*;
use crate::wire::dns::{Edns, Message, Type};

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn key(algorithm: Algorithm, secret: u8) -> Arc<Key> {
    Arc::new(Key::new(&name("Transfer.shop.peak."), algorithm, &[secret; 32]).unwrap())
}

fn keys() -> Keys {
    Algorithm::ALL
        .into_iter()
        .map(|algorithm| Arc::new(Key::new(&name(&format!("{algorithm}.peak.")), algorithm, &[1; 32]).unwrap()))
        .chain([key(Algorithm::Sha256, 1)])
        .collect()
}

fn request() -> Vec<u8> {
    Message { edns: Some(Edns::default()), ..Message::query(7, name("shop.peak."), Type::SOA) }.encode(1232)
}

fn signed(key: &Arc<Key>, now: UnixSeconds) -> (Vec<u8>, Asking) {
    let mut message = request();
    let asking = Asking::sign(key, &mut message, now);
    (message, asking)
}

fn reply_to(received: &[u8]) -> Vec<u8> {
    Message::parse(received).unwrap().response(Rcode::NOERROR).encode(65_535)
}

#[test]
fn a_signed_request_and_its_signed_reply_are_accepted_with_every_algorithm() {
    for algorithm in Algorithm::ALL {
        let keys = keys();
        let key = keys.find(&name(&format!("{}.PEAK.", algorithm.text().to_uppercase()))).unwrap();
        let (message, mut asking) = signed(key, NOW);
        assert!(message.len() <= request().len() + key.octets());
        let Received { message, session } = keys.receive(&message, UnixSeconds(NOW.0 + 300)).unwrap();
        assert_eq!(message, request());
        let mut session = session.unwrap();
        assert_eq!(session.key().name(), key.name());
        let mut reply = reply_to(&message);
        let plain = reply.clone();
        session.sign(&mut reply, NOW);
        assert_eq!(asking.verify(&reply, NOW), Ok(plain));
        assert_eq!(asking.finish(), Ok(()));
        assert_eq!(algorithm.text().parse(), Ok(algorithm));
    }
}

/// A query for `example. SOA`, signed by Python's `hmac` over the octets that RFC 8945 §4.3.3 lists.
#[test]
fn the_octets_signed_are_those_of_rfc_8945() {
    let message = b"\x12\x34\0\0\0\x01\0\0\0\0\0\0\x07example\0\0\x06\0\x01".to_vec();
    let key = Arc::new(Key::new(&name("K."), Algorithm::Sha256, &[0x0b; 32]).unwrap());
    let mut signed = message.clone();
    let _ = Asking::sign(&key, &mut signed, UnixSeconds(0x0001_0203_0405));
    let expected = "1f1691815c06977bc61e57fc911363a4a644c1572d56a5da228f4569bec3cd31";
    let (unsigned, tsig) = split(&signed).unwrap();
    let mac: String = tsig.unwrap().mac.iter().map(|octet| format!("{octet:02x}")).collect();
    assert_eq!((unsigned, mac.as_str()), (message, expected));
    assert_eq!(signed[10..12], [0, 1]);
}

#[test]
fn any_changed_octet_that_is_signed_is_noticed() {
    let keys = keys();
    let (message, _) = signed(&key(Algorithm::Sha256, 1), NOW);
    // The id is replaced by the original one (RFC 8945 §5.2), so that proxies may change it.
    for at in 2..message.len() {
        let mut changed = message.clone();
        changed[at] ^= 0x01;
        let accepted = matches!(keys.receive(&changed, NOW), Ok(Received { session: Some(_), .. }));
        assert!(!accepted, "octet {at}");
    }
}

#[test]
fn a_time_is_accepted_up_to_the_fudge_and_refused_beyond_it_signed_with_our_time() {
    let keys = keys();
    for (off, held) in [(300, true), (301, false)] {
        let (message, _) = signed(&key(Algorithm::Sha256, 1), NOW);
        assert_eq!(keys.receive(&message, UnixSeconds(NOW.0 + off)).is_ok(), held);
        assert_eq!(keys.receive(&message, UnixSeconds(NOW.0 - off)).is_ok(), held);
    }
    let (message, mut asking) = signed(&key(Algorithm::Sha256, 1), NOW);
    let server_now = UnixSeconds(NOW.0 + 1000);
    let mut refused = keys.receive(&message, server_now).unwrap_err();
    assert_eq!((refused.cause, refused.rcode()), (TsigError::Time { off: 1000, fudge: 300 }, Rcode::NOTAUTH));
    let mut reply = reply_to(&refused.message);
    refused.sign(&mut reply, server_now);
    let (_, tsig) = split(&reply).unwrap();
    let tsig = tsig.unwrap();
    assert_eq!((tsig.time, tsig.code, tsig.other), (NOW.0, Rcode::BADTIME, server_now.0.to_be_bytes()[2..].to_vec()));
    assert_eq!(asking.verify(&reply, NOW), Err(TsigError::Peer(Rcode::BADTIME)));
}

#[test]
fn a_wrong_secret_an_unknown_key_and_another_algorithm_are_refused_without_a_signature() {
    let keys = keys();
    let stranger = Arc::new(Key::new(&name("stranger."), Algorithm::Sha256, &[1; 32]).unwrap());
    for (key, cause, code) in [
        (key(Algorithm::Sha256, 2), TsigError::Signature, BADSIG),
        (stranger, TsigError::Key, Rcode::BADKEY),
        (key(Algorithm::Sha512, 1), TsigError::Key, Rcode::BADKEY),
    ] {
        let (message, mut asking) = signed(&key, NOW);
        let mut refused = keys.receive(&message, NOW).unwrap_err();
        assert_eq!((refused.cause, refused.rcode()), (cause, Rcode::NOTAUTH));
        let mut reply = reply_to(&refused.message);
        refused.sign(&mut reply, NOW);
        let (_, tsig) = split(&reply).unwrap();
        assert_eq!(tsig.map(|tsig| (tsig.mac, tsig.code)), Some((Vec::new(), code)));
        assert_eq!(asking.verify(&reply, NOW), Err(TsigError::Peer(code)));
    }
}

#[test]
fn a_signature_cut_short_is_told_from_one_that_cannot_be() {
    let keys = keys();
    let cut = |octets: usize| {
        let (message, _) = signed(&key(Algorithm::Sha256, 1), NOW);
        let (mut unsigned, tsig) = split(&message).unwrap();
        let mut tsig = tsig.unwrap();
        tsig.mac.resize(octets, 0);
        tsig.append(&mut unsigned);
        keys.receive(&unsigned, NOW).unwrap_err().cause
    };
    assert_eq!(cut(31), TsigError::Truncated);
    assert_eq!(cut(16), TsigError::Truncated);
    assert_eq!(cut(15), TsigError::Form);
    assert_eq!(cut(33), TsigError::Form);
}

#[test]
fn a_signature_that_is_not_the_last_record_is_malformed() {
    let (message, _) = signed(&key(Algorithm::Sha256, 1), NOW);
    let mut twice = message.clone();
    let _ = Asking::sign(&key(Algorithm::Sha256, 1), &mut twice, NOW);
    let mut moved = message.clone();
    // As if OPT and TSIG were of the authority section.
    (moved[9], moved[11]) = (2, 0);
    for malformed in [twice, moved] {
        let refused = keys().receive(&malformed, NOW).unwrap_err();
        assert_eq!((refused.cause, refused.rcode()), (TsigError::Form, Rcode::FORMERR));
    }
}

#[test]
fn a_transfer_s_messages_build_on_each_other_and_some_may_lack_a_signature() {
    let (message, mut asking) = signed(&key(Algorithm::Sha256, 1), NOW);
    let Received { message, session } = keys().receive(&message, NOW).unwrap();
    let mut session = session.unwrap();
    let reply = |session: &mut Session, id: u8| {
        let mut reply = reply_to(&message);
        reply[1] = id;
        session.sign(&mut reply, NOW);
        reply
    };
    let (first, second, third) = (reply(&mut session, 1), reply(&mut session, 2), reply(&mut session, 3));
    assert!(asking.verify(&first, NOW).is_ok());
    // Out of order, and doubled.
    assert_eq!(asking.verify(&third, NOW), Err(TsigError::Signature));
    assert_eq!(asking.verify(&first, NOW), Err(TsigError::Signature));
    assert!(asking.verify(&second, NOW).is_ok());
    assert!(asking.verify(&third, NOW).is_ok());
    assert_eq!(asking.finish(), Ok(()));
    // A message without a signature counts with the next that has one.
    assert!(asking.verify(&reply_to(&message), NOW).is_ok());
    assert_eq!(asking.finish(), Err(TsigError::Missing));
}

#[test]
fn the_first_reply_and_the_hundredth_message_in_a_row_need_a_signature() {
    let (message, mut asking) = signed(&key(Algorithm::Sha256, 1), NOW);
    assert_eq!(asking.verify(&reply_to(&request()), NOW), Err(TsigError::Missing));
    let mut session = keys().receive(&message, NOW).unwrap().session.unwrap();
    let mut first = reply_to(&request());
    session.sign(&mut first, NOW);
    asking.verify(&first, NOW).unwrap();
    for _ in 0..MOST_UNSIGNED {
        assert!(asking.verify(&reply_to(&request()), NOW).is_ok());
    }
    assert_eq!(asking.verify(&reply_to(&request()), NOW), Err(TsigError::Missing));
}

#[test]
fn a_short_secret_is_refused_and_no_secret_is_printed() {
    assert_eq!(Key::new(&name("k."), Algorithm::Sha256, &[7; 15]).unwrap_err(), TsigError::Secret);
    assert_eq!(format!("{:?}", key(Algorithm::Sha256, 7)), "transfer.shop.peak. (hmac-sha256)");
}
