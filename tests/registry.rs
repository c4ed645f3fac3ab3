//! The registry as three programs hold it: `funicular peak`, three times, over TLS, with a process killed.

#![allow(clippy::unwrap_used, reason = "a test that meets an error ends there")]

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use funicular::wire::dns::{Class, Message, Opcode, Rcode, Record, Type};
use serde_json::Value;

/// Long enough for the slowest machine, and never waited for when things work.
const PATIENCE: Duration = Duration::from_secs(30);

const ZONE: &str = "$TTL 60\n@ SOA ns1 admin 7 3600 600 86400 30\n@ NS ns1\nns1 AAAA ::1\n";

/// An authority and, for each node, a certificate for the cluster's name.
fn certificates(folder: &Path) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    std::fs::write(folder.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = rcgen::Issuer::new(params, key);
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["registry.peak".to_owned()]).unwrap();
    std::fs::write(folder.join("node.pem"), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    std::fs::write(folder.join("node.key"), key.serialize_pem()).unwrap();
}

/// Ports that nobody has now: a node that comes back listens where it did.
fn ports<const N: usize>() -> [u16; N] {
    let held: Vec<TcpListener> = (0..N).map(|_| TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap()).collect();
    std::array::from_fn(|at| held[at].local_addr().unwrap().port())
}

fn at(port: u16) -> SocketAddr {
    (Ipv6Addr::LOCALHOST, port).into()
}

/// A node; killed when dropped.
struct Node {
    process: Option<Child>,
    config: PathBuf,
    dns: SocketAddr,
    admin: SocketAddr,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Node {
    fn new(folder: &Path, number: usize, reads: &str, join: Option<u16>) -> (Self, u16) {
        let [dns, raft, admin, metrics] = ports();
        let join = join.map_or(String::new(), |port| format!("  join: [\"[::1]:{port}\"]\n"));
        let text = format!(
            "listen: \"[::1]:{dns}\"\nworkers: 1\nstate: {state}\nzones:\n  - name: shop.peak\n    file: {zone}\n    \
             replicated: true\n    reads: {reads}\n    allow_update: [{{ prefix: \"::1/128\" }}]\ncluster:\n  \
             listen: \"[::1]:{raft}\"\n{join}  tls: {{ authorities: ca.pem, certificate: node.pem, key: node.key }}\n\
             admin: {{ listen: \"[::1]:{admin}\", metrics: \"[::1]:{metrics}\" }}\n",
            state = folder.join(format!("state{number}")).display(),
            zone = folder.join("shop.zone").display(),
        );
        let config = folder.join(format!("peak{number}.yaml"));
        std::fs::write(&config, text).unwrap();
        let mut node = Self { process: None, config, dns: at(dns), admin: at(admin) };
        node.start();
        (node, raft)
    }

    fn start(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_funicular"));
        command.args(["peak", "--config"]).arg(&self.config);
        let log = std::fs::File::create(self.config.with_extension("log")).unwrap();
        self.process = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    /// SIGKILL: no word to anybody.
    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    fn status(&self) -> Option<Value> {
        let mut stream = TcpStream::connect(self.admin).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET /registry HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.admin).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let body = text.split_once("\r\n\r\n")?.1;
        Some(serde_json::from_str::<Value>(body).ok()?["status"].clone())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.config.with_extension("log")).unwrap_or_default()
    }

    /// A message over TCP; none where nobody answers.
    fn ask(&self, message: &Message) -> Option<Message> {
        let mut stream = TcpStream::connect(self.dns).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let octets = message.encode(65_535);
        stream.write_all(&[&(octets.len() as u16).to_be_bytes()[..], &octets].concat()).ok()?;
        let mut length = [0; 2];
        stream.read_exact(&mut length).ok()?;
        let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut reply).ok()?;
        Message::parse(&reply).ok()
    }

    fn update(&self, host: &str) -> Option<Rcode> {
        self.ask(&adding(host)).map(|reply| reply.header.rcode)
    }

    fn answer(&self, host: &str) -> Option<(Rcode, usize)> {
        let reply = self.ask(&Message::query(7, format!("{host}.shop.peak.").parse().unwrap(), Type::AAAA))?;
        Some((reply.header.rcode, reply.answers.len()))
    }

    /// The same over UDP.
    fn answer_to_datagram(&self, host: &str) -> Option<(Rcode, usize)> {
        let socket = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        let question = Message::query(7, format!("{host}.shop.peak.").parse().unwrap(), Type::AAAA);
        socket.send_to(&question.encode(512), self.dns).ok()?;
        let mut reply = [0; 2048];
        let (octets, _) = socket.recv_from(&mut reply).ok()?;
        let reply = Message::parse(&reply[..octets]).ok()?;
        Some((reply.header.rcode, reply.answers.len()))
    }
}

fn adding(host: &str) -> Message {
    let mut message = Message::query(9, "shop.peak.".parse().unwrap(), Type::SOA);
    message.header.opcode = Opcode::UPDATE;
    let name = format!("{host}.shop.peak.").parse().unwrap();
    let rdata = Ipv6Addr::LOCALHOST.octets().into();
    message.authorities = vec![Record { name, rtype: Type::AAAA, class: Class::IN, ttl: 60, rdata }];
    message
}

fn until(what: &str, nodes: &[Node], mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        let logs: String = nodes.iter().map(|node| format!("--- {}\n{}", node.config.display(), node.log())).collect();
        assert!(Instant::now() < end, "not in time: {what}\n{logs}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn voters(node: &Node) -> usize {
    let members = node.status().and_then(|status| status["members"].as_array().cloned()).unwrap_or_default();
    members.iter().filter(|member| member["voter"] == true).count()
}

fn leads(node: &Node) -> bool {
    node.status().is_some_and(|status| status["part"] == "leader")
}

fn three(folder: &Path, reads: &str) -> Vec<Node> {
    certificates(folder);
    std::fs::write(folder.join("shop.zone"), ZONE).unwrap();
    let (first, port) = Node::new(folder, 1, reads, None);
    let mut nodes = vec![first];
    until("the zone begins", &nodes, || nodes[0].answer("ns1") == Some((Rcode::NOERROR, 1)));
    for number in [2, 3] {
        nodes.push(Node::new(folder, number, reads, Some(port)).0);
    }
    until("all three vote", &nodes, || nodes.iter().all(|node| voters(node) == 3));
    nodes
}

#[test]
fn what_was_acknowledged_outlives_the_leader_and_every_node_takes_updates() {
    let folder = tempfile::tempdir().unwrap();
    let mut nodes = three(folder.path(), "available");
    let mut acknowledged = Vec::new();
    for (number, node) in nodes.iter().enumerate() {
        let host = format!("before{number}");
        assert_eq!(node.update(&host), Some(Rcode::NOERROR));
        acknowledged.push(host);
    }
    let leader = nodes.iter().position(leads).unwrap();
    nodes[leader].kill();
    let (killed, other) = (Instant::now(), (leader + 1) % 3);
    assert_eq!(nodes[other].update("after"), Some(Rcode::NOERROR));
    let taken = killed.elapsed();
    println!("the leader was killed, and {} ms later a write was acknowledged", taken.as_millis());
    assert!(taken < Duration::from_secs(2), "{taken:?}");
    acknowledged.push("after".to_owned());
    nodes[leader].start();
    for host in &acknowledged {
        until(host, &nodes, || nodes.iter().all(|node| node.answer(host) == Some((Rcode::NOERROR, 1))));
    }
    let serials: Vec<_> = nodes.iter().map(|node| node.status().unwrap()["applied_index"].clone()).collect();
    assert!(serials.iter().all(|serial| *serial == serials[0]), "{serials:?}");
}

#[test]
fn strict_answers_end_with_the_majority_and_available_ones_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut nodes = three(folder.path(), "strict");
    assert_eq!(nodes[0].update("www"), Some(Rcode::NOERROR));
    for node in &nodes {
        // At once, and at every node: that is what strict means.
        assert_eq!(node.answer("www"), Some((Rcode::NOERROR, 1)));
        assert_eq!(node.answer_to_datagram("www"), Some((Rcode::NOERROR, 1)));
    }
    let leader = nodes.iter().position(leads).unwrap();
    let alone = (leader + 1) % 3;
    nodes[leader].kill();
    nodes[(leader + 2) % 3].kill();
    assert_eq!(nodes[alone].answer("www"), Some((Rcode::SERVFAIL, 0)));
    assert_eq!(nodes[alone].answer_to_datagram("www"), Some((Rcode::SERVFAIL, 0)));
    assert_eq!(nodes[alone].update("never"), Some(Rcode::SERVFAIL));
    assert!(nodes[alone].status().unwrap()["stale_ms"].as_u64() > Some(0));
}

fn peak(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_funicular")).arg("peak").args(arguments).output().unwrap()
}

#[test]
fn people_see_the_nodes_back_the_registry_up_and_rescue_it_from_one_disk() {
    let folder = tempfile::tempdir().unwrap();
    let mut nodes = three(folder.path(), "available");
    assert_eq!(nodes[1].update("kept"), Some(Rcode::NOERROR));
    let admin = nodes[2].admin.to_string();
    let shown = String::from_utf8(peak(&["status", "--admin", &admin]).stdout).unwrap();
    assert_eq!(shown.matches("voter").count(), 2, "{shown}");
    let backup = folder.path().join("backup");
    let made = peak(&["backup", backup.to_str().unwrap(), "--admin", &admin]);
    assert!(made.status.success() && backup.exists(), "{made:?}");
    until("the last node has it", &nodes, || nodes[2].answer("kept") == Some((Rcode::NOERROR, 1)));
    nodes.iter_mut().for_each(Node::kill);
    let state = folder.path().join("state3");
    let state = ["--state", state.to_str().unwrap(), "--address", "[::1]:1"];
    let refused = peak(&[&["recover"], &state[..]].concat());
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("--the-others-are-lost"));
    let recovered = peak(&[&["recover", "--the-others-are-lost"], &state[..]].concat());
    assert!(String::from_utf8_lossy(&recovered.stdout).contains("A NEW CLUSTER"), "{recovered:?}");
    nodes[2].start();
    until("it answers alone", &nodes, || nodes[2].answer("kept") == Some((Rcode::NOERROR, 1)));
    until("it takes updates alone", &nodes, || nodes[2].update("afterwards") == Some(Rcode::NOERROR));
    let empty = folder.path().join("empty");
    let restored = peak(&["restore", backup.to_str().unwrap(), "--state", empty.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&restored.stdout).contains("1 zones"), "{restored:?}");
}
