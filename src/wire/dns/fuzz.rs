//! Entry points for fuzzing: one per parser, each taking any octets and panicking exactly when an invariant is broken.
//!
//! They state what holds for all input: nothing panics or loops, and what one form says, the other says back. Property
//! tests run them on generated input (`tests/wire_dns.rs`), and so can any fuzzer.

use std::sync::Arc;

use crate::model::zone::Entry;
use crate::model::{Name, UnixSeconds};

use super::rdata::svcb::Svcb;
use super::rdata::{self, apl};
use super::ssa_records::{self, Sources};
use super::tsig::{Algorithm, Asking, Key, Keys};
use super::{Header, Message, Type, state, zonefile};

/// The types whose data has a text form of its own.
pub const TYPED: [Type; 12] = [
    Type::A,
    Type::AAAA,
    Type::APL,
    Type::CNAME,
    Type::HTTPS,
    Type::MX,
    Type::NS,
    Type::PTR,
    Type::SOA,
    Type::SRV,
    Type::SVCB,
    Type::TXT,
];

/// Whole messages: what is read is written as a message that says the same, within any limit.
///
/// # Panics
/// When the codec is wrong.
pub fn message(octets: &[u8]) {
    let header = Header::parse(octets);
    assert_eq!(header.is_ok(), octets.len() >= 4);
    let Ok(message) = Message::parse(octets) else { return };
    // Whatever was read can be printed as well.
    assert!(!message.to_string().is_empty());
    // Taken apart, a message may be longer than messages can be; then some of it is left out.
    if uncompressed_octets(&message) <= 65_535 {
        assert_eq!(Message::parse(&message.encode(65_535)).as_ref(), Ok(&message));
    }
    for limit in [512, 1232, 65_535] {
        let short = message.encode(limit);
        assert!(Message::parse(&short).is_ok(), "a shortened message is a message");
    }
}

/// An upper bound of what a message takes.
fn uncompressed_octets(message: &Message) -> usize {
    let questions = message.questions.iter().map(|question| question.name.wire().len() + 4);
    let records = [&message.answers, &message.authorities, &message.additionals].into_iter().flatten();
    let records = records.map(|record| record.name.wire().len() + 10 + record.rdata.len());
    let options = message.edns.iter().flat_map(|edns| &edns.options).map(|option| option.data.len() + 4);
    23 + questions.sum::<usize>() + records.sum::<usize>() + options.sum::<usize>()
}

/// One record's data, of the type that the first two octets say: its text reads back as it.
///
/// # Panics
/// When the codec is wrong.
pub fn rdata(octets: &[u8]) {
    let Some((rtype, data)) = octets.split_first_chunk() else { return };
    let rtype = Type(u16::from_be_bytes(*rtype));
    for rtype in TYPED.into_iter().chain([rtype]) {
        let text = rdata::to_text(rtype, data);
        let _ = rdata::target(rtype, data);
        let read = rdata::from_text(rtype, &text, &Name::root());
        if rdata::is_well_formed(rtype, data) && data.len() <= 65_535 {
            assert_eq!(read.as_deref(), Ok(data), "{rtype} {text}");
        } else {
            assert!(read.is_err(), "{rtype} {text}");
        }
    }
    if let Ok(svcb) = Svcb::decode(data) {
        assert_eq!(svcb.encode(), data);
    }
    if let Ok(items) = apl::decode(data) {
        assert_eq!(apl::decode(&apl::encode(&items)), Ok(items));
    }
}

/// The text of one record's data, of the type that the first two octets say: the octets that it stands for are well formed
/// and print as a text that stands for them.
///
/// # Panics
/// When the codec is wrong.
pub fn rdata_text(octets: &[u8]) {
    let Some((rtype, text)) = octets.split_first_chunk() else { return };
    let text = String::from_utf8_lossy(text);
    for rtype in TYPED.into_iter().chain([Type(u16::from_be_bytes(*rtype))]) {
        if let Ok(data) = rdata::from_text(rtype, &text, &Name::root()) {
            assert!(rdata::is_well_formed(rtype, &data), "{rtype} {text}");
            let written = rdata::to_text(rtype, &data);
            assert_eq!(rdata::from_text(rtype, &written, &Name::root()), Ok(data), "{rtype} {text}");
        }
    }
}

/// A zone file: its records, printed, are a zone file with the same records; its faults are at least one, in order.
///
/// # Panics
/// When the parser is wrong.
pub fn zone_file(octets: &[u8]) {
    let text = String::from_utf8_lossy(octets);
    let origin = Name::root();
    match zonefile::parse(&text, &origin) {
        Ok(records) => {
            let written: String = records.iter().map(|record| format!("{record}\n")).collect();
            assert_eq!(zonefile::parse(&written, &origin), Ok(records), "{written}");
        }
        Err(errors) => {
            assert!(!errors.is_empty());
            assert!(errors.iter().all(|error| error.line > 0 && error.column > 0));
        }
    }
}

/// Signed messages: nothing that is made up passes for signed, and what is signed is given back as it was.
///
/// # Panics
/// When the checker is wrong.
pub fn tsig(octets: &[u8]) {
    const NOW: UnixSeconds = UnixSeconds(1_700_000_000);
    let key = Key::new(&Name::root(), Algorithm::Sha256, b"0123456789abcdef").expect("a key");
    let key = Arc::new(key);
    let keys: Keys = [Arc::clone(&key)].into_iter().collect();
    match keys.receive(octets, NOW) {
        Ok(received) => assert!(received.session.is_none() && received.message == octets),
        Err(mut refused) => {
            let mut reply = octets.get(..12).map_or_else(Vec::new, <[u8]>::to_vec);
            refused.sign(&mut reply, NOW);
        }
    }
    let Ok(message) = Message::parse(octets) else { return };
    let sections = [&message.answers, &message.authorities, &message.additionals];
    // Anywhere else than at the end, a signature is a fault (RFC 8945 §5.2), and signing does not mend it.
    let unsigned = sections.into_iter().flatten().all(|record| record.rtype != Type::TSIG);
    if unsigned && octets.len() < 60_000 && message.additionals.len() < 60_000 {
        let mut signed = octets.to_vec();
        let _ = Asking::sign(&key, &mut signed, NOW);
        let received = keys.receive(&signed, NOW).expect("what was signed is accepted");
        assert!(received.session.is_some() && received.message == octets);
    }
}

/// A zone's state: whatever is read is written as a state that says the same.
///
/// # Panics
/// When the codec is wrong.
pub fn zone_state(octets: &[u8]) {
    let apex = Name::root();
    let written = [&state::base(&apex, std::iter::empty::<Entry>())[..], octets].concat();
    for octets in [octets, &written] {
        let Ok(read) = state::read(octets, &apex) else { continue };
        let mut again = state::base(&apex, read.base.iter().cloned());
        read.deltas.iter().for_each(|delta| state::append_delta(delta, &mut again));
        read.confirmed.into_iter().for_each(|at| state::append_confirmed(at, &mut again));
        let reread = state::read(&again, &apex).expect("what was written is read");
        assert_eq!((reread.base, reread.deltas, reread.confirmed), (read.base, read.deltas, read.confirmed));
    }
}

/// The records of a service, as whoever publishes them likes: cut at every octet 255 into APL, SVCB and TXT in turn.
///
/// # Panics
/// When the reader is wrong.
pub fn service(octets: &[u8]) {
    let records: Vec<&[u8]> = octets.split(|octet| *octet == 0xff).collect();
    let third = records.len() / 3;
    let (apl, rest) = records.split_at(third);
    let (svcb, txt) = rest.split_at(third);
    let space = apl::encode(&["2:2001:db8::/32".parse().expect("an item")]);
    for apl in [apl, &[&space]] {
        if let Ok(published) = ssa_records::service(&Sources { apl, svcb, txt, local: &[] }) {
            assert!(!published.rules.is_empty());
        }
    }
}
