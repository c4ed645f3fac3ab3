//! Requests in somebody else's name: whoever is made to reply to whom, nobody goes on replying.
//!
//! The kernel of the namespace counts the datagrams; requests with forged sources go out by a raw socket, which it does
//! not count among them.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::process::Command;

use funicular::net::namespace::NetNs;
use socket2::{Domain, Protocol, Socket, Type};

use super::bed::{PATIENCE, Peak};
use super::octets::{ID, asked, header};

/// A namespace with a loopback that works.
fn pod() -> NetNs {
    let pod = NetNs::create().unwrap();
    let mut command = Command::new("ip");
    command.args(["link", "set", "lo", "up"]);
    assert!(pod.spawn(&mut command, &[]).unwrap().wait().unwrap().success());
    pod
}

/// Datagrams that the namespace has sent.
fn sent(pod: &NetNs) -> u64 {
    let text = pod.run(|| fs::read_to_string("/proc/thread-self/net/snmp").unwrap()).unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("Udp:"));
    let (names, numbers) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.split(' ').position(|name| name == "OutDatagrams").unwrap();
    numbers.split(' ').nth(at).unwrap().parse().unwrap()
}

fn v4(addr: SocketAddr) -> SocketAddrV4 {
    match addr {
        SocketAddr::V4(addr) => addr,
        SocketAddr::V6(addr) => panic!("{addr} is not IPv4"),
    }
}

/// Sends `request` to `to` as if it came from `from`.
fn forge(pod: &NetNs, from: SocketAddrV4, to: SocketAddrV4, request: &[u8]) {
    let mut datagram: Vec<u8> = Vec::new();
    // Ports, length, and a checksum that says there is none (RFC 768).
    for word in [from.port(), to.port(), request.len() as u16 + 8, 0] {
        datagram.extend(word.to_be_bytes());
    }
    datagram.extend(request);
    let send = || -> io::Result<()> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP))?;
        socket.bind(&SocketAddrV4::new(*from.ip(), 0).into())?;
        socket.send_to(&datagram, &SocketAddrV4::new(*to.ip(), 0).into())?;
        Ok(())
    };
    pod.run(send).unwrap().unwrap();
}

/// Asks each server a question of one's own and waits for the replies: all before is through then. Two datagrams each.
fn settle(pod: &NetNs, servers: &[SocketAddr]) {
    // Each of a server's sockets has its flows: many flows find them all.
    const FLOWS: usize = 32;
    let ask = || {
        for server in servers {
            for _ in 0..FLOWS {
                let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                socket.connect(server).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket.send(&asked("every.peak", 6, 0)).unwrap();
                let mut reply = [0; 512];
                assert!(socket.recv(&mut reply).unwrap() > 12);
                assert_eq!(reply[..2], ID.to_be_bytes());
            }
        }
    };
    pod.run(ask).unwrap();
}

/// How many datagrams the servers send on account of a forged request.
fn caused(pod: &NetNs, servers: &[SocketAddr], from: SocketAddrV4, request: &[u8]) -> u64 {
    settle(pod, servers);
    let before = sent(pod);
    settle(pod, servers);
    let of_settling = sent(pod) - before;
    let before = sent(pod);
    forge(pod, from, v4(servers[0]), request);
    // Twice: what a reply causes comes behind the first.
    settle(pod, servers);
    settle(pod, servers);
    sent(pod) - before - 2 * of_settling
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn a_forged_source_starts_no_loop() {
    let pod = pod();
    let start = || Peak::serving_every_type_in(&pod, "127.0.0.1:0");
    let (one, other) = (start(), start());
    let servers = [one.addr, other.addr];
    let at = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    let requests = [asked("every.peak", 6, 0), header(0x7800, [0; 4]), header(0, [1, 0, 0, 0])];
    for request in &requests {
        // To itself, and to another of its kind: a reply, and silence.
        assert_eq!(caused(&pod, &servers, v4(one.addr), request), 1, "itself");
        assert_eq!(caused(&pod, &servers, v4(other.addr), request), 1, "its like");
        // Nobody waits there, or somebody who answers anything: echo, daytime, quote, character generator, time.
        for port in [0, 7, 13, 17, 19, 37] {
            assert_eq!(caused(&pod, &servers, at(port), request), 0, "port {port}");
        }
    }
    for reply in requests.iter().map(|request| {
        let mut reply = request.clone();
        reply[2] |= 0x80;
        reply
    }) {
        assert_eq!(caused(&pod, &servers, v4(other.addr), &reply), 0, "a reply");
    }
}
