//! One update, and when it shows.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use funicular::model::UnixSeconds;
use funicular::wire::dns::tsig::{Algorithm, Asking, Key};
use funicular::wire::dns::{Message, Opcode, Rcode, Record, Type};

use crate::programs::{KEY, Server, name};

#[allow(clippy::disallowed_methods, reason = "signatures are compared with the server's own clock")]
fn now() -> UnixSeconds {
    UnixSeconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
}

/// Adds a name; gives how long it took until that was acknowledged, and until it was answered.
pub(crate) fn round(server: &Server, number: usize) -> (Duration, Duration) {
    let owner = format!("r{number}.shop.peak.");
    let key = Arc::new(Key::new(&name(KEY), Algorithm::Sha256, b"summit-summit-summit-summit-1234").unwrap());
    let mut update = Message::query(7, name("shop.peak."), Type::SOA);
    update.header.opcode = Opcode::UPDATE;
    update.edns = None;
    update.authorities = vec![Record::new(name(&owner), Type::A, 60, [192, 0, 2, 1])];
    let mut octets = update.encode(512);
    let _ = Asking::sign(&key, &mut octets, now());
    let question = Message::query(1, name(&owner), Type::A).encode(512);

    let (updater, asker) = (connected(server), connected(server));
    let sent = Instant::now();
    updater.send(&octets).unwrap();
    // Asked beside it, from a thread of its own, as another client would.
    let looking = std::thread::spawn(move || {
        let mut reply = [0; 1232];
        crate::poll(|| {
            asker.send(&question).unwrap();
            asker.recv(&mut reply).is_ok() && reply[7] > 0
        })
    });
    let mut reply = [0; 1232];
    let length = updater.recv(&mut reply).unwrap();
    let acknowledged = sent.elapsed();
    assert_eq!(Message::parse(&reply[..length]).unwrap().header.rcode, Rcode::NOERROR);
    (acknowledged, looking.join().unwrap() - sent)
}

fn connected(server: &Server) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    socket.connect(server.address).unwrap();
    socket
}
