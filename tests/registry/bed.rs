//! Nodes of a registry as processes over loopback, shared with the benchmark.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
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
pub(crate) struct Node {
    process: Option<Child>,
    config: PathBuf,
    pub(crate) dns: SocketAddr,
    pub(crate) admin: SocketAddr,
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

    pub(crate) fn start(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_funicular"));
        command.args(["peak", "--config"]).arg(&self.config);
        let log = std::fs::File::create(self.config.with_extension("log")).unwrap();
        self.process = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    /// SIGKILL: no word to anybody.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub(crate) fn status(&self) -> Option<Value> {
        let mut stream = TcpStream::connect(self.admin).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET /registry HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.admin).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let body = text.split_once("\r\n\r\n")?.1;
        Some(serde_json::from_str::<Value>(body).ok()?["status"].clone())
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.config.with_extension("log")).unwrap_or_default()
    }

    /// A message over TCP; none where nobody answers.
    pub(crate) fn ask(&self, message: &Message) -> Option<Message> {
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

    pub(crate) fn update(&self, host: &str) -> Option<Rcode> {
        self.ask(&adding(host)).map(|reply| reply.header.rcode)
    }

    pub(crate) fn answer(&self, host: &str) -> Option<(Rcode, usize)> {
        let reply = self.ask(&Message::query(7, format!("{host}.shop.peak.").parse().unwrap(), Type::AAAA))?;
        Some((reply.header.rcode, reply.answers.len()))
    }

    /// The same over UDP.
    pub(crate) fn answer_to_datagram(&self, host: &str) -> Option<(Rcode, usize)> {
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

pub(crate) fn adding(host: &str) -> Message {
    let mut message = Message::query(9, "shop.peak.".parse().unwrap(), Type::SOA);
    message.header.opcode = Opcode::UPDATE;
    let name = format!("{host}.shop.peak.").parse().unwrap();
    let rdata = Ipv6Addr::LOCALHOST.octets().into();
    message.authorities = vec![Record { name, rtype: Type::AAAA, class: Class::IN, ttl: 60, rdata }];
    message
}

pub(crate) fn until(what: &str, nodes: &[Node], mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        let logs: String = nodes.iter().map(|node| format!("--- {}\n{}", node.config.display(), node.log())).collect();
        assert!(Instant::now() < end, "not in time: {what}\n{logs}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn voters(node: &Node) -> usize {
    let members = node.status().and_then(|status| status["members"].as_array().cloned()).unwrap_or_default();
    members.iter().filter(|member| member["voter"] == true).count()
}

pub(crate) fn leads(node: &Node) -> bool {
    node.status().is_some_and(|status| status["part"] == "leader")
}

pub(crate) fn three(folder: &Path, reads: &str) -> Vec<Node> {
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
