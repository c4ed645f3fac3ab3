//! Updates, transfers and notices as octets of our own, for what no tool says.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use funicular::model::UnixSeconds;
use funicular::wire::dns::tsig::{Algorithm, Asking, Key, TsigError};
use funicular::wire::dns::{Class, Message, Opcode, Rcode, Record, Type};

use crate::programs::{GUEST, KEY, PATIENCE, SECRET, SHOP, Server, WRONG_SECRET, address, name, peak, peak_in, until};

/// The octets of [`SECRET`] and of [`WRONG_SECRET`].
const OCTETS: &[u8] = b"summit-summit-summit-summit-1234";
const OTHER_OCTETS: &[u8] = b"wrong-wrong-wrong-wrong-wrong-12";

pub(crate) fn txt(owner: &str, text: &str) -> Record {
    Record::new(name(owner), Type::TXT, 60, [&[text.len() as u8], text.as_bytes()].concat())
}

#[allow(clippy::disallowed_methods, reason = "signatures are compared with the server's own clock")]
fn now() -> UnixSeconds {
    UnixSeconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
}

fn key() -> Arc<Key> {
    Arc::new(Key::new(&name(KEY), Algorithm::Sha256, OCTETS).unwrap())
}

fn update(changes: &[Record]) -> Message {
    let mut message = Message::query(7, name("shop.peak."), Type::SOA);
    message.header.opcode = Opcode::UPDATE;
    message.edns = None;
    message.authorities = changes.to_vec();
    message
}

fn signed(message: &Message, at: UnixSeconds) -> (Vec<u8>, Asking) {
    signed_with(&key(), message, at)
}

fn signed_with(key: &Arc<Key>, message: &Message, at: UnixSeconds) -> (Vec<u8>, Asking) {
    let mut octets = message.encode(65_535);
    let asking = Asking::sign(key, &mut octets, at);
    (octets, asking)
}

/// What is replied to a message that is signed with this key, over UDP or TCP.
fn replied(server: &Server, key: &Arc<Key>, message: &Message, over_tcp: bool) -> Result<Rcode, TsigError> {
    let (octets, mut asking) = signed_with(key, message, now());
    let reply = if over_tcp {
        let mut stream = connected(server);
        stream.write_all(&framed(&octets)).unwrap();
        read(&mut stream)
    } else {
        server.exchange_octets(&octets).unwrap()
    };
    let reply = Message::parse(&asking.verify(&reply, now())?).unwrap();
    assert_eq!((reply.header.id, reply.header.opcode), (message.header.id, message.header.opcode));
    Ok(reply.header.rcode)
}

fn connected(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

pub(crate) fn signed_update(changes: &[Record]) -> Vec<u8> {
    signed(&update(changes), now()).0
}

const ZONE: &str = "  - name: shop.peak\n    file: shop.zone\n    allow_update: [{ key: summit.shop.peak }]\n    \
                    allow_transfer: [{ key: summit.shop.peak }]\n";

fn server() -> Server {
    peak(address(), ZONE)
}

fn rcode(server: &Server, message: &Message) -> Rcode {
    let (octets, mut asking) = signed(message, now());
    let reply = asking.verify(&server.exchange_octets(&octets).unwrap(), now()).unwrap();
    let reply = Message::parse(&reply).unwrap();
    assert!(reply.header.response && reply.header.opcode == Opcode::UPDATE && reply.header.id == 7);
    reply.header.rcode
}

#[test]
fn every_refusal_of_an_update_has_its_code() {
    let server = server();
    let with = |change: &dyn Fn(&mut Message)| {
        let mut message = update(&[txt("note.shop.peak.", "x")]);
        change(&mut message);
        message
    };
    let outside = with(&|it| it.authorities.push(txt("shop.example.", "x")));
    let other_zone = with(&|it| it.questions[0].name = name("example."));
    let two_zones = with(&|it| it.questions.push(it.questions[0].clone()));
    let no_soa = with(&|it| it.questions[0].rtype = Type::A);
    let chaos = with(&|it| it.questions[0].class = Class::CH);
    let malformed = with(&|it| it.authorities.push(Record::new(name("a.shop.peak."), Type::A, 60, [1, 2, 3])));
    let dname = with(&|it| it.authorities.push(Record::new(name("d.shop.peak."), Type::DNAME, 60, [0])));
    for (message, code) in [
        (outside, Rcode::NOTZONE),
        (other_zone, Rcode::NOTAUTH),
        (two_zones, Rcode::FORMERR),
        (no_soa, Rcode::FORMERR),
        (chaos, Rcode::NOTAUTH),
        (malformed, Rcode::FORMERR),
        (dname, Rcode::REFUSED),
    ] {
        assert_eq!(rcode(&server, &message), code, "{message}");
    }
    assert_eq!((server.serial(), server.txt("note.shop.peak.")), (Some(7), vec![]));
    assert_eq!(rcode(&server, &with(&|_| {})), Rcode::NOERROR);
    assert_eq!(rcode(&server, &with(&|_| {})), Rcode::NOERROR, "adding what is there changes nothing");
    assert_eq!(server.serial(), Some(8));
}

#[test]
fn an_update_signed_at_another_time_is_told_ours() {
    let server = server();
    let (octets, mut asking) = signed(&update(&[txt("note.shop.peak.", "late")]), UnixSeconds(now().0 - 1000));
    let reply = server.exchange_octets(&octets).unwrap();
    assert_eq!(Message::parse(&reply).unwrap().header.rcode, Rcode::NOTAUTH);
    let told = asking.verify(&reply, UnixSeconds(now().0 - 1000)).unwrap_err();
    assert_eq!(told, TsigError::Peer(Rcode::BADTIME));
    assert_eq!(server.serial(), Some(7));
}

fn read(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).unwrap();
    message
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), message].concat()
}

#[test]
fn questions_updates_and_transfers_take_turns_on_one_connection() {
    let server = server();
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let question = Message::query(1, name("shop.peak."), Type::SOA).encode(512);
    let (first, mut first_asking) = signed(&update(&[txt("note.shop.peak.", "one")]), now());
    let (transfer, mut transfer_asking) = signed(&Message::query(3, name("shop.peak."), Type::AXFR), now());
    let all = [framed(&question), framed(&first), framed(&transfer), framed(&question)].concat();
    stream.write_all(&all).unwrap();

    assert_eq!(Message::parse(&read(&mut stream)).unwrap().header.id, 1);
    let updated = Message::parse(&first_asking.verify(&read(&mut stream), now()).unwrap()).unwrap();
    assert_eq!((updated.header.id, updated.header.rcode), (7, Rcode::NOERROR));
    let zone = Message::parse(&transfer_asking.verify(&read(&mut stream), now()).unwrap()).unwrap();
    assert_eq!(zone.header.id, 3);
    assert_eq!(zone.answers.first(), zone.answers.last());
    assert!(zone.answers.iter().any(|record| record.name == name("note.shop.peak.")));
    assert_eq!(Message::parse(&read(&mut stream)).unwrap().header.id, 1);
}

#[test]
fn a_large_zone_travels_in_many_messages_each_signed() {
    let server = server();
    for block in 0..20 {
        let changes: Vec<Record> =
            (0..60).map(|number| txt(&format!("n{block}-{number}.shop.peak."), &"x".repeat(200))).collect();
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&framed(&signed_update(&changes))).unwrap();
        assert_eq!(Message::parse(&read(&mut stream)).unwrap().header.rcode, Rcode::NOERROR);
    }
    let (request, mut asking) = signed(&Message::query(3, name("shop.peak."), Type::AXFR), now());
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&framed(&request)).unwrap();
    let (mut messages, mut records) = (0, Vec::new());
    while records.len() < 2 || records.first() != records.last() {
        let message = Message::parse(&asking.verify(&read(&mut stream), now()).unwrap()).unwrap();
        assert!(message.header.authoritative && message.questions.len() == usize::from(messages == 0));
        messages += 1;
        records.extend(message.answers);
    }
    assert_eq!(asking.finish(), Ok(()));
    assert!(messages > 5, "{messages} messages");
    assert_eq!(records.iter().filter(|record| record.rtype == Type::TXT).count(), 1202);
}

#[test]
fn an_ixfr_over_udp_has_the_differences_when_they_fit_and_the_soa_when_not() {
    let server = server();
    let ask = |serial: u32| {
        let soa = server.ask("shop.peak.", Type::SOA).unwrap().answers.remove(0);
        let mut rdata = soa.rdata.to_vec();
        let at = rdata.len() - 20;
        rdata[at..at + 4].copy_from_slice(&serial.to_be_bytes());
        let mut request = Message::query(5, name("shop.peak."), Type::IXFR);
        request.authorities = vec![Record { rdata: rdata.into(), ..soa }];
        let (octets, mut asking) = signed(&request, now());
        let reply = asking.verify(&server.exchange_octets(&octets).unwrap(), now()).unwrap();
        let types: Vec<Type> = Message::parse(&reply).unwrap().answers.iter().map(|record| record.rtype).collect();
        types
    };
    assert_eq!(ask(7), [Type::SOA]);
    assert_eq!(rcode(&server, &update(&[txt("note.shop.peak.", "short")])), Rcode::NOERROR);
    assert_eq!(ask(7), [Type::SOA, Type::SOA, Type::SOA, Type::TXT, Type::SOA]);
    assert_eq!(ask(6), [Type::SOA], "from an unknown version only over TCP");
    let long: Vec<Record> =
        (0..7).map(|number| txt("note.shop.peak.", &format!("{number}{}", "y".repeat(190)))).collect();
    for record in long {
        assert_eq!(rcode(&server, &update(&[record])), Rcode::NOERROR);
    }
    assert_eq!(ask(8), [Type::SOA], "too large for a datagram");
}

#[test]
fn a_notice_is_answered_only_for_zones_that_come_from_elsewhere() {
    let mut notice = Message::query(9, name("shop.peak."), Type::SOA);
    notice.header.opcode = Opcode::NOTIFY;
    let primary = server();
    assert_eq!(primary.exchange(&notice.encode(512)).unwrap().header.rcode, Rcode::NOTAUTH);
    let away = address();
    let zones = format!(
        "  - name: shop.peak\n    primaries: [{{ address: \"{away}\" }}]\n    allow_notify: [{{ prefix: 127.0.0.1/32 }}]\n"
    );
    let open = peak(address(), &zones);
    let reply = open.exchange(&notice.encode(512)).unwrap();
    assert!(reply.header.rcode == Rcode::NOERROR && reply.header.authoritative && reply.answers.is_empty());
    let closed = peak(address(), &zones.replace("127.0.0.1/32", "192.0.2.0/24"));
    assert_eq!(closed.exchange(&notice.encode(512)).unwrap().header.rcode, Rcode::REFUSED);
}

/// A secondary of `primary` with these lines about who may have updates passed on.
fn passing_on(primary: &Server, allowed: &str) -> Server {
    let zones = format!(
        "  - name: shop.peak\n    primaries: [{{ address: \"{}\", key: {KEY} }}]\n    forward_update: [{allowed}]\n",
        primary.address
    );
    let secondary = peak(address(), &zones);
    secondary.until_serial(7);
    secondary
}

#[test]
fn a_secondary_passes_updates_on_and_signs_what_became_of_them() {
    let primary = server();
    let secondary = passing_on(&primary, &format!("{{ key: {KEY} }}"));
    for (over_tcp, text, serial) in [(false, "datagram", 8), (true, "stream", 9)] {
        let message = update(&[txt("note.shop.peak.", text)]);
        assert_eq!(replied(&secondary, &key(), &message, over_tcp), Ok(Rcode::NOERROR));
        assert_eq!((primary.serial(), primary.txt("note.shop.peak.").contains(&text.to_owned())), (Some(serial), true));
    }
    let outside = update(&[txt("note.example.", "x")]);
    assert_eq!(replied(&secondary, &key(), &outside, false), Ok(Rcode::NOTZONE), "the primary's own answer");
    let unsigned = secondary.exchange(&update(&[txt("note.shop.peak.", "x")]).encode(512)).unwrap();
    assert_eq!(unsigned.header.rcode, Rcode::REFUSED);
    drop(primary);
    let message = update(&[txt("note.shop.peak.", "late")]);
    assert_eq!(replied(&secondary, &key(), &message, false), Ok(Rcode::SERVFAIL));
}

#[test]
fn an_update_signed_with_a_key_that_only_the_primary_knows_goes_on_as_it_came() {
    let own = tempfile::tempdir().unwrap();
    for (file, text) in [("shop.zone", SHOP), ("key", SECRET), ("guest", SECRET)] {
        std::fs::write(own.path().join(file), text).unwrap();
    }
    let zone = ZONE.replace("allow_update: [{ key: summit", "allow_update: [{ key: guest");
    let primary = peak_in(address(), &zone, own.path().to_owned(), None);
    let guest = Arc::new(Key::new(&name(GUEST), Algorithm::Sha512, OCTETS).unwrap());
    let stranger = Arc::new(Key::new(&name(GUEST), Algorithm::Sha512, OTHER_OCTETS).unwrap());
    let secondary = passing_on(&primary, "{ prefix: 127.0.0.0/8 }");
    let closed = passing_on(&primary, &format!("{{ key: {KEY} }}"));
    for over_tcp in [false, true] {
        let message = update(&[txt("note.shop.peak.", if over_tcp { "tcp" } else { "udp" })]);
        assert_eq!(replied(&secondary, &guest, &message, over_tcp), Ok(Rcode::NOERROR));
        let refused = replied(&secondary, &stranger, &message, over_tcp);
        assert_eq!(refused, Err(TsigError::Peer(Rcode::BADVERS)), "BADSIG, as the primary says");
    }
    assert_eq!(primary.serial(), Some(9));
    let message = update(&[txt("note.shop.peak.", "closed")]);
    assert_eq!(replied(&closed, &guest, &message, false), Err(TsigError::Peer(Rcode::BADKEY)));
}

#[test]
fn a_key_whose_file_changes_counts_as_it_is_now_with_a_signal_or_without() {
    let server = server();
    let other = Arc::new(Key::new(&name(KEY), Algorithm::Sha256, OTHER_OCTETS).unwrap());
    let question = Message::query(5, name("shop.peak."), Type::SOA);
    let holds = |key: &Arc<Key>| replied(&server, key, &question, false) == Ok(Rcode::NOERROR);
    assert!(holds(&key()) && !holds(&other));
    std::fs::write(server.folder.join("key"), WRONG_SECRET).unwrap();
    server.signal("-HUP");
    until("the other secret is read", || holds(&other), |holds| *holds);
    assert!(!holds(&key()));
    std::fs::write(server.folder.join("key"), SECRET).unwrap();
    until("the first secret is read", || holds(&key()), |holds| *holds);
    assert!(!holds(&other));
}

#[test]
fn more_transfers_than_are_allowed_at_once_are_put_off() {
    let own = tempfile::tempdir().unwrap();
    // More than sockets take when nobody reads.
    let filler: String = (0..60_000).map(|number| format!("n{number} TXT \"{}\"\n", "x".repeat(200))).collect();
    std::fs::write(own.path().join("shop.zone"), format!("{SHOP}{filler}")).unwrap();
    std::fs::write(own.path().join("key"), SECRET).unwrap();
    let server = peak_in(address(), &format!("{ZONE}transfers: 1\n"), own.path().to_owned(), None);
    let (request, mut asking) = signed(&Message::query(3, name("shop.peak."), Type::AXFR), now());
    let mut first = connected(&server);
    first.write_all(&framed(&request)).unwrap();
    assert_eq!(Message::parse(&asking.verify(&read(&mut first), now()).unwrap()).unwrap().header.rcode, Rcode::NOERROR);
    let transfer = Message::query(4, name("shop.peak."), Type::AXFR);
    let second = || replied(&server, &key(), &transfer, true);
    assert_eq!(second(), Ok(Rcode::SERVFAIL));
    drop(first);
    let _ = until("the place is free", second, |rcode| *rcode == Ok(Rcode::NOERROR));
}
