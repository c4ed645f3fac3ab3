//! Nodes of a registry as processes over loopback, shared with the benchmark.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use funicular::wire::dns::{Class, Message, Opcode, Rcode, Record, Type};
use serde_json::Value;

/// Long enough for the slowest machine, and never waited for when things work.
const PATIENCE: Duration = Duration::from_secs(60);

const ZONE: &str = "$TTL 60\n@ SOA ns1 admin 7 3600 600 86400 30\n@ NS ns1\nns1 AAAA ::1\n";

/// Where nodes run, and how.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The address of the node.
    pub(crate) host: Ipv6Addr,
    /// What the program is run by: a program and its arguments, before those of the node.
    pub(crate) through: Vec<String>,
    /// Its environment, beside the test's.
    pub(crate) environment: Vec<(&'static str, String)>,
}

impl Place {
    /// Beside the test.
    pub(crate) fn here() -> Self {
        Self { host: Ipv6Addr::LOCALHOST, through: Vec::new(), environment: Vec::new() }
    }
}

/// An authority and, for each node, a certificate for the cluster's name.
pub(crate) fn certificates(folder: &Path) {
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
pub(crate) fn ports<const N: usize>() -> [u16; N] {
    let held: Vec<TcpListener> = (0..N).map(|_| TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap()).collect();
    std::array::from_fn(|at| held[at].local_addr().unwrap().port())
}

/// A node; killed when dropped.
pub(crate) struct Node {
    process: Option<Child>,
    config: PathBuf,
    place: Place,
    /// Where its registry is on disk.
    pub(crate) state: PathBuf,
    pub(crate) dns: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Node {
    /// A node with two replicated zones: shop.peak, which may be strict, and open.peak, which never is. Gives where the
    /// others reach it.
    pub(crate) fn new(
        folder: &Path,
        number: usize,
        reads: &str,
        place: Place,
        join: &[SocketAddr],
    ) -> (Self, SocketAddr) {
        let raft = SocketAddr::from((place.host, ports::<1>()[0]));
        (Self::at(folder, number, reads, place, raft, join), raft)
    }

    /// The same, where the others reach it.
    pub(crate) fn at(
        folder: &Path,
        number: usize,
        reads: &str,
        place: Place,
        raft: SocketAddr,
        join: &[SocketAddr],
    ) -> Self {
        let [dns, admin, metrics] = ports().map(|port| SocketAddr::from((place.host, port)));
        let join: Vec<String> = join.iter().map(|address| format!("\"{address}\"")).collect();
        let state = folder.join(format!("state{number}"));
        let zone = |name: &str, reads: &str| {
            format!(
                "  - name: {name}\n    file: {}\n    replicated: true\n    reads: {reads}\n    \
                 allow_update: [{{ prefix: \"::/0\" }}]\n",
                folder.join("shop.zone").display()
            )
        };
        let text = format!(
            "listen: \"{dns}\"\nworkers: 1\nstate: {state}\nzones:\n{shop}{open}cluster:\n  listen: \"{raft}\"\n  \
             join: [{join}]\n  tls: {{ authorities: ca.pem, certificate: node.pem, key: node.key }}\n\
             admin: {{ listen: \"{admin}\", metrics: \"{metrics}\" }}\n",
            shop = zone("shop.peak", reads),
            open = zone("open.peak", "available"),
            join = join.join(", "),
            state = state.display(),
        );
        let config = folder.join(format!("peak{number}.yaml"));
        std::fs::write(&config, text).unwrap();
        let mut node = Self { process: None, config, place, state: state.join("registry"), dns, admin };
        node.start();
        node
    }

    pub(crate) fn start(&mut self) {
        let mut words = self.place.through.iter().map(String::as_str).chain([env!("CARGO_BIN_EXE_funicular")]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(["peak", "--config"]).arg(&self.config).envs(self.place.environment.iter().cloned());
        let log = std::fs::File::options().create(true).append(true).open(self.config.with_extension("log")).unwrap();
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

    /// Sends the process a signal, by number.
    pub(crate) fn signal(&self, name: &str) {
        let process = self.process.as_ref().unwrap().id();
        assert!(Command::new("kill").args([name, &process.to_string()]).status().unwrap().success());
    }

    /// A message over TCP; none where nobody answers.
    pub(crate) fn ask(&self, message: &Message) -> Option<Message> {
        ask(self.dns, message, PATIENCE)
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
        answer_to_datagram(self.dns, &format!("{host}.shop.peak."))
    }
}

/// Asks over TCP, and waits so long for the answer.
pub(crate) fn ask(server: SocketAddr, message: &Message, within: Duration) -> Option<Message> {
    let mut stream = TcpStream::connect_timeout(&server, within).ok()?;
    stream.set_read_timeout(Some(within)).unwrap();
    let octets = message.encode(65_535);
    stream.write_all(&[&(octets.len() as u16).to_be_bytes()[..], &octets].concat()).ok()?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut reply).ok()?;
    Message::parse(&reply).ok()
}

/// Asks for the addresses of a name over UDP: the code of the answer, and how many there are.
pub(crate) fn answer_to_datagram(server: SocketAddr, name: &str) -> Option<(Rcode, usize)> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let question = Message::query(7, name.parse().unwrap(), Type::AAAA);
    socket.send_to(&question.encode(512), server).ok()?;
    let mut reply = [0; 2048];
    let (octets, _) = socket.recv_from(&mut reply).ok()?;
    let reply = Message::parse(&reply[..octets]).ok()?;
    Some((reply.header.rcode, reply.answers.len()))
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
    three_at(folder, reads, [(); 3].map(|()| Place::here()))
}

pub(crate) fn three_at(folder: &Path, reads: &str, places: [Place; 3]) -> Vec<Node> {
    prepare(folder);
    let mut nodes: Vec<Node> = Vec::new();
    let mut first = Vec::new();
    for (at, place) in places.into_iter().enumerate() {
        let (node, raft) = Node::new(folder, at + 1, reads, place, &first);
        nodes.push(node);
        if at == 0 {
            until("the zone begins", &nodes, || nodes[0].answer("ns1") == Some((Rcode::NOERROR, 1)));
            first.push(raft);
        }
    }
    until("all three vote", &nodes, || nodes.iter().all(|node| voters(node) == 3));
    nodes
}

/// What every node needs in the folder.
pub(crate) fn prepare(folder: &Path) {
    certificates(folder);
    std::fs::write(folder.join("shop.zone"), ZONE).unwrap();
}
