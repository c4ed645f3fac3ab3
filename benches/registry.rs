//! What does a write to the registry cost? Three nodes and their clients on this machine, each node a process with TLS
//! and a disk of its own folder; writes are updates (RFC 2136) over TCP, one at a time on each connection.
//!
//! `alone` is one client (ms: median / p99), `64 clients` the writes a second of all of them, `elsewhere` the time from
//! sending a write to one node to the first answer that has it from another, `failover` from SIGKILL of the leader to the
//! next acknowledged write. The folder is made where the benchmark runs, so that it is on a disk and not in memory.

#![allow(clippy::unwrap_used, reason = "a measurement that meets an error ends there")]
#![allow(missing_docs, reason = "a program, not a library")]

#[allow(dead_code, reason = "shared with the tests, which use more of it")]
#[path = "../tests/registry/bed.rs"]
mod bed;

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bed::{Node, adding, leads, three};
use funicular::wire::dns::{Message, Type};

/// One connection, one write at a time.
struct Client(TcpStream);

impl Client {
    fn of(node: &Node) -> Self {
        let stream = TcpStream::connect(node.dns).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    fn write(&mut self, host: &str) {
        let octets = adding(host).encode(512);
        self.0.write_all(&[&(octets.len() as u16).to_be_bytes()[..], &octets].concat()).unwrap();
        let mut reply = [0; 512];
        self.0.read_exact(&mut reply[..2]).unwrap();
        let length = usize::from(u16::from_be_bytes([reply[0], reply[1]]));
        self.0.read_exact(&mut reply[..length]).unwrap();
        assert_eq!(reply[3] & 15, 0, "{host} was not taken");
    }
}

fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1_000.0;
    format!("{:.2} / {:.2} ms", at(0.5), at(0.99))
}

fn main() {
    // Run by `cargo test --benches` as well, which only wants to know that it works.
    let bench = std::env::args().any(|argument| argument == "--bench");
    let (alone, seconds, kills) = if bench { (3_000, 5, 5) } else { (10, 0, 1) };
    let folder = tempfile::tempdir_in(".").unwrap();
    let mut nodes = three(folder.path(), "available");
    let leader = nodes.iter().position(leads).unwrap();
    let other = (leader + 1) % 3;
    for (what, at) in [("at the leader", leader), ("at another node", other)] {
        let mut client = Client::of(&nodes[at]);
        let times = (0..alone).map(|number| {
            let start = Instant::now();
            client.write(&format!("alone{at}-{number}"));
            start.elapsed()
        });
        println!("alone, {what:<16} {}", spread(times.collect()));
    }
    for (what, at) in [("at the leader", leader), ("at another node", other)] {
        println!("64 clients, {what:<11} {:.0} writes/s", together(&nodes[at], Duration::from_secs(seconds)));
    }
    let times = (0..alone / 10).map(|number| elsewhere(&nodes[leader], &nodes[other], &format!("shown{number}")));
    println!("elsewhere              {}", spread(times.collect()));
    let mut times = Vec::new();
    for round in 0..kills {
        let leader = nodes.iter().position(leads).unwrap();
        nodes[leader].kill();
        let (killed, other) = (Instant::now(), (leader + 1) % 3);
        Client::of(&nodes[other]).write(&format!("after{round}"));
        times.push(killed.elapsed());
        nodes[leader].start();
        let caught_up = || nodes[leader].answer(&format!("after{round}")).is_some_and(|(_, answers)| answers == 1);
        bed::until("the node is back", &nodes, caught_up);
    }
    println!("failover               {}", spread(times));
}

/// Writes a second of 64 clients.
fn together(node: &Node, time: Duration) -> f64 {
    let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for client in 0..64 {
            let (stop, count) = (&stop, &count);
            scope.spawn(move || {
                let mut connection = Client::of(node);
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    connection.write(&format!("c{client}-{}-{number}", node.dns.port()));
                    number += 1;
                }
                count.fetch_add(number, Ordering::Relaxed);
            });
        }
        std::thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
    });
    count.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
}

/// From a write to one node until another answers with it.
fn elsewhere(to: &Node, from: &Node, host: &str) -> Duration {
    let socket = UdpSocket::bind("[::1]:0").unwrap();
    socket.connect(from.dns).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let question = Message::query(7, format!("{host}.shop.peak.").parse().unwrap(), Type::AAAA).encode(512);
    let mut client = Client::of(to);
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| client.write(host));
        let mut reply = [0; 512];
        loop {
            socket.send(&question).unwrap();
            // The number of answers.
            if socket.recv(&mut reply).is_ok() && reply[7] > 0 {
                return start.elapsed();
            }
        }
    })
}
