//! `funicular peak` as a process, and messages to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use funicular::wire::dns::{Edns, EdnsOption, Message, Rcode, Type};

pub(crate) const SHOP: &str = r#"
$TTL 3600
@ SOA ns1 admin 7 3600 600 86400 30
@ NS ns1
@ MX 10 mail
@ TXT "peak"
ns1 A 127.0.0.1
ns1 AAAA ::1
mail A 192.0.2.25
www CNAME orders
orders AAAA 2001:db8:5:1::1
orders AAAA 2001:db8:5:1::2
orders APL 2:2001:db8:5:1::/64
_ssa.orders 60 SVCB 1 orders.shop.peak. port=8080 key65400="v=ssa1 slices=14"
_http._tcp SRV 0 1 80 orders
web HTTPS 1 . alpn=h2
ptr PTR orders
odd TYPE65280 \# 3 010203
cluster NS ns1.cluster
ns1.cluster AAAA 2001:db8::53
"#;

/// Long enough for the slowest machine, and never waited for when things work.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Folder(pub(crate) tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn write(&self, file: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(file);
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// A running server; ended when dropped.
pub(crate) struct Peak {
    pub(crate) process: Child,
    pub(crate) log: BufReader<ChildStderr>,
    pub(crate) addr: SocketAddr,
    folder: Folder,
}

pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_funicular"));
    command.arg("peak").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Peak {
    /// Serves `zone` as shop.peak with nothing else configured.
    pub(crate) fn serving(zone: &str) -> Self {
        let folder = Folder::new();
        let file = folder.write("shop.zone", zone);
        let mut command = command();
        command.args(["--listen", "127.0.0.1:0", "--zone", &format!("shop.peak={}", file.display())]);
        Self::start(command, folder, |_| {})
    }

    /// Serves [`SHOP`] with this configuration, which names the file `shop.zone`.
    pub(crate) fn configured(config: &str) -> Self {
        Self::configured_and(config, |_| {})
    }

    /// The same with another zone.
    pub(crate) fn configured_with(zone: &str, config: &str) -> Self {
        Self::of(zone, config, |_| {})
    }

    /// Serves [`SHOP`], and reads of the log what comes before it listens.
    pub(crate) fn configured_and(config: &str, before: impl FnOnce(&mut BufReader<ChildStderr>)) -> Self {
        Self::of(SHOP, config, before)
    }

    fn of(zone: &str, config: &str, before: impl FnOnce(&mut BufReader<ChildStderr>)) -> Self {
        let folder = Folder::new();
        folder.write("shop.zone", zone);
        let config = folder.write("peak.yaml", &format!("zones: [{{ name: shop.peak, file: shop.zone }}]\n{config}"));
        let mut command = command();
        command.arg("--config").arg(config);
        Self::start(command, folder, before)
    }

    pub(crate) fn start(
        mut command: Command,
        folder: Folder,
        before: impl FnOnce(&mut BufReader<ChildStderr>),
    ) -> Self {
        let mut process = command.spawn().unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        before(&mut log);
        let line = wait_for(&mut log, "listening address=");
        let addr = line.rsplit_once("address=").unwrap().1.trim().parse().unwrap();
        Self { process, log, addr, folder }
    }

    pub(crate) fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.process.id().to_string()]).status().unwrap().success());
    }

    pub(crate) fn zone_file(&self) -> PathBuf {
        self.folder.0.path().join("shop.zone")
    }

    pub(crate) fn udp(&self, request: &[u8]) -> Option<Vec<u8>> {
        udp(self.addr, request, PATIENCE)
    }

    pub(crate) fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub(crate) fn over_tcp(&self, request: &[u8]) -> Option<Vec<u8>> {
        let mut stream = self.tcp();
        stream.write_all(&framed(request)).unwrap();
        // So that silence is told by the end of the connection.
        stream.shutdown(Shutdown::Write).unwrap();
        read_framed(&mut stream)
    }

    pub(crate) fn ask(&self, name: &str, rtype: Type) -> Message {
        let request = Message::query(1, name.parse().unwrap(), rtype).encode(512);
        Message::parse(&self.udp(&request).unwrap()).unwrap()
    }
}

impl Drop for Peak {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn wait_for(log: &mut impl BufRead, what: &str) -> String {
    let mut seen = String::new();
    loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "the log ended without {what:?}:\n{seen}");
        if line.contains(what) {
            return line;
        }
        seen += &line;
    }
}

pub(crate) fn udp(to: SocketAddr, request: &[u8], patience: Duration) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind(if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(patience)).unwrap();
    socket.send(request).unwrap();
    let mut reply = vec![0; 65_535];
    let length = socket.recv(&mut reply).ok()?;
    reply.truncate(length);
    Some(reply)
}

pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), message].concat()
}

pub(crate) fn read_framed(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).unwrap();
    Some(message)
}

pub(crate) fn query(name: &str, rtype: Type) -> Message {
    let mut message = Message::query(0x1234, name.parse().unwrap(), rtype);
    message.header.recursion_desired = false;
    message.edns = None;
    message
}

pub(crate) fn with_edns(name: &str, edns: Edns) -> Message {
    Message { edns: Some(edns), ..query(name, Type::SOA) }
}

pub(crate) fn option(code: u16, data: &[u8]) -> EdnsOption {
    EdnsOption { code, data: data.into() }
}

/// Whether it is a zone's own answer to a question for the SOA record.
pub(crate) fn has_soa(reply: &Message) -> bool {
    let answered = reply.answers.iter().any(|record| record.rtype == Type::SOA);
    reply.header.rcode == Rcode::NOERROR && reply.header.authoritative && answered
}
