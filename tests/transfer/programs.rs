//! Other people's name servers and tools, run on addresses and in folders of their own, and ended whatever happens.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use funicular::model::Name;
use funicular::wire::dns::{Message, Rcode, Type};

/// Servers listen on this port, each on an address of its own.
const PORT: u16 = 5300;

/// Long enough for the slowest machine, and never waited for when things work.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The secret of the key that all share, and one that nobody knows.
pub(crate) const SECRET: &str = "c3VtbWl0LXN1bW1pdC1zdW1taXQtc3VtbWl0LTEyMzQ=";
pub(crate) const WRONG_SECRET: &str = "d3Jvbmctd3Jvbmctd3Jvbmctd3Jvbmctd3JvbmctMTI=";
pub(crate) const KEY: &str = "summit.shop.peak";
/// A key that some servers know and others do not; its secret is [`SECRET`] as well.
pub(crate) const GUEST: &str = "guest.shop.peak";

pub(crate) const SHOP: &str = r#"
$TTL 3600
@ SOA ns1 admin 7 1 1 3600 30
@ NS ns1
@ MX 10 mail
@ TXT "peak; \"quoted\""
ns1 A 127.0.0.1
mail A 192.0.2.25
www CNAME orders
orders AAAA 2001:db8:5:1::1
orders AAAA 2001:db8:5:1::2
orders APL 2:2001:db8:5:1::/64
_ssa.orders 60 SVCB 1 orders.shop.peak. port=8080 key65400="v=ssa1 slices=14"
_http._tcp SRV 0 1 80 orders
web HTTPS 1 . alpn=h2
odd TYPE65280 \# 3 010203
*.wild TXT "any"
cluster NS ns1.cluster
ns1.cluster AAAA 2001:db8::53
"#;

/// Whether a program is there; tests/run names those that are not.
pub(crate) fn is_installed(program: &str) -> bool {
    let found = path_of(program).is_some();
    if !found {
        eprintln!("{program} is not installed: what it would say is not tested");
    }
    found
}

fn path_of(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/sbin"]);
    folders.map(|folder| Path::new(folder).join(program)).find(|path| path.is_file())
}

fn command(program: &str) -> Command {
    Command::new(path_of(program).unwrap_or_else(|| program.into()))
}

/// A loopback address that no other test has, in this process or another.
pub(crate) fn address() -> SocketAddrV4 {
    static NEXT: AtomicU8 = AtomicU8::new(2);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    SocketAddrV4::new(Ipv4Addr::new(127, high | 0x80, low, NEXT.fetch_add(1, Ordering::Relaxed)), PORT)
}

/// An address for BIND, which listens only on addresses that interfaces have: a port that was free a moment ago.
pub(crate) fn interface_address() -> SocketAddrV4 {
    loop {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        }
    }
}

/// Asks until `done` says so; fails with what was seen last.
pub(crate) fn until<T: std::fmt::Debug>(what: &str, mut look: impl FnMut() -> T, done: impl Fn(&T) -> bool) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = look();
        if done(&seen) {
            return seen;
        }
        assert!(Instant::now() < deadline, "{what}: still {seen:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A server with a folder of its own; ended when dropped.
pub(crate) struct Server {
    process: Child,
    pub(crate) address: SocketAddrV4,
    pub(crate) folder: PathBuf,
    log: PathBuf,
    _own: Option<tempfile::TempDir>,
}

impl Server {
    fn start(mut command: Command, address: SocketAddrV4, folder: PathBuf, own: Option<tempfile::TempDir>) -> Self {
        let log = folder.join("log");
        let file = File::options().create(true).append(true).open(&log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let process = command.spawn().unwrap();
        Self { process, address, folder, log, _own: own }
    }

    /// Where it is, as `dig` and `kdig` want it: `@IP` and the port.
    pub(crate) fn at(&self) -> (String, String) {
        (format!("@{}", self.address.ip()), self.address.port().to_string())
    }

    /// The reply to a question; none when there is none within a moment.
    pub(crate) fn ask(&self, name: &str, rtype: Type) -> Option<Message> {
        self.exchange(&Message::query(1, name.parse().unwrap(), rtype).encode(512))
    }

    /// The reply to a datagram.
    pub(crate) fn exchange(&self, request: &[u8]) -> Option<Message> {
        Message::parse(&self.exchange_octets(request)?).ok()
    }

    pub(crate) fn exchange_octets(&self, request: &[u8]) -> Option<Vec<u8>> {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.connect(self.address).unwrap();
        socket.send(request).ok()?;
        let mut reply = vec![0; 65_535];
        let length = socket.recv(&mut reply).ok()?;
        reply.truncate(length);
        Some(reply)
    }

    /// The serial it answers with.
    pub(crate) fn serial(&self) -> Option<u32> {
        let reply = self.ask("shop.peak.", Type::SOA)?;
        let soa = reply.answers.first().filter(|soa| soa.rtype == Type::SOA)?;
        soa.rdata[soa.rdata.len() - 20..].first_chunk().map(|octets| u32::from_be_bytes(*octets))
    }

    /// Waits until it has the version with this serial.
    pub(crate) fn until_serial(&self, serial: u32) {
        until(&format!("{} waits for serial {serial}", self.address), || self.serial(), |seen| *seen == Some(serial));
    }

    /// Waits until it answers at all.
    pub(crate) fn until_ready(&self) {
        until("waiting for a server", || self.ask("shop.peak.", Type::SOA).is_some(), |ready| *ready);
    }

    /// The texts of a TXT record, none when there is no such name.
    pub(crate) fn txt(&self, name: &str) -> Vec<String> {
        let reply = self.ask(name, Type::TXT).unwrap();
        assert!(matches!(reply.header.rcode, Rcode::NOERROR | Rcode::NXDOMAIN), "{:?}", reply.header);
        reply.answers.iter().map(|record| String::from_utf8_lossy(&record.rdata[1..]).into_owned()).collect()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.process.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// Ends it as a power failure would.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- {} said:\n{}", self.address, self.log());
        }
    }
}

/// `funicular peak`, its configuration written with `{folder}` and `{address}` filled in, zone file and key beside it.
pub(crate) fn peak(address: SocketAddrV4, zones: &str) -> Server {
    let own = tempfile::tempdir().unwrap();
    let folder = own.path().to_owned();
    std::fs::write(folder.join("shop.zone"), SHOP).unwrap();
    std::fs::write(folder.join("key"), SECRET).unwrap();
    peak_in(address, zones, folder, Some(own))
}

/// The same, in a folder that is there already; where a file `guest` lies in it, that is the secret of a second key.
pub(crate) fn peak_in(address: SocketAddrV4, zones: &str, folder: PathBuf, own: Option<tempfile::TempDir>) -> Server {
    let guest = if folder.join("guest").exists() {
        format!(", {{ name: {GUEST}, algorithm: hmac-sha512, secret_file: guest }}")
    } else {
        String::new()
    };
    let config = format!(
        "listen: {address}\nworkers: 1\nstate: {state}\nkeys: [{{ name: {KEY}, secret_file: key }}{guest}]\n\
         rate_limit: {{ per_second: 0 }}\nzones:\n{zones}",
        state = folder.join("state").display()
    );
    let file = folder.join("peak.yaml");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_funicular"));
    command.args(["peak", "--config"]).arg(file);
    let server = Server::start(command, address, folder, own);
    server.until_ready();
    server
}

/// BIND with one zone, whose statements are given.
pub(crate) fn named(address: SocketAddrV4, zone: &str) -> Server {
    let own = tempfile::tempdir().unwrap();
    let folder = own.path().to_owned();
    std::fs::write(folder.join("shop.zone"), SHOP).unwrap();
    let (directory, ip, port) = (folder.display(), address.ip(), address.port());
    let config = format!(
        "options {{ directory \"{directory}\"; listen-on port {port} {{ {ip}; }}; listen-on-v6 {{ none; }};\n\
         pid-file none; session-keyfile none; recursion no; dnssec-validation no; notify-source {ip};\n\
         transfer-source {ip}; min-refresh-time 1; min-retry-time 1; notify-delay 0; serial-query-rate 500;\n\
         allow-transfer {{ none; }}; querylog no; }};\n\
         controls {{ }};\n\
         key \"{KEY}\" {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};\n\
         zone \"shop.peak\" {{ {zone} }};\n"
    );
    std::fs::write(folder.join("named.conf"), config).unwrap();
    let mut command = command("named");
    command.args(["-g", "-n", "1", "-c"]).arg(folder.join("named.conf"));
    Server::start(command, address, folder, Some(own))
}

/// Knot with one zone; `sections` is what stands before `zone:`, `zone` what the zone says.
pub(crate) fn knotd(address: SocketAddrV4, sections: &str, zone: &str) -> Server {
    let own = tempfile::tempdir().unwrap();
    let folder = own.path().to_owned();
    std::fs::write(folder.join("primary.zone"), SHOP).unwrap();
    let (at, ip, port) = (folder.display(), address.ip(), address.port());
    let config = format!(
        "server:\n    rundir: {at}\n    listen: {ip}@{port}\n    udp-workers: 1\n    tcp-workers: 1\n    background-workers: 1\n\
         log:\n  - target: stderr\n    any: info\n\
         database:\n    storage: {at}\n    journal-db-max-size: 32M\n    kasp-db-max-size: 32M\n    timer-db-max-size: 8M\n\
         key:\n  - id: {KEY}\n    algorithm: hmac-sha256\n    secret: {SECRET}\n\
         {sections}zone:\n  - domain: shop.peak\n    storage: {at}\n{zone}"
    );
    std::fs::write(folder.join("knot.conf"), config).unwrap();
    let mut command = command("knotd");
    command.arg("-c").arg(folder.join("knot.conf"));
    Server::start(command, address, folder, Some(own))
}

/// Runs a tool with this input; gives its output.
pub(crate) fn tool(program: &str, arguments: &[&str], input: &str) -> Output {
    use std::io::Write as _;
    let mut command = command(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// What a tool said, both ways.
pub(crate) fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Updates through `nsupdate` or `knsupdate`, signed with this secret where one is given; gives what the tool said, and
/// whether it was content.
pub(crate) fn update(program: &str, server: &Server, secret: Option<&str>, lines: &str) -> (bool, String) {
    update_with(program, server, secret.map(|secret| format!("hmac-sha256:{KEY}:{secret}")), lines)
}

/// The same with any key, as the tools take it: `ALGORITHM:NAME:SECRET`.
pub(crate) fn update_with(program: &str, server: &Server, key: Option<String>, lines: &str) -> (bool, String) {
    let mut arguments = vec!["-t", "10"];
    if let Some(key) = &key {
        arguments.extend(["-y", key]);
    }
    let script =
        format!("server {} {}\nzone shop.peak.\n{lines}\nsend\nanswer\n", server.address.ip(), server.address.port());
    let output = tool(program, &arguments, &script);
    (output.status.success(), said(&output))
}

/// All records of a zone as `dig` transfers them, in canonical text, sorted.
pub(crate) fn transferred(server: &Server) -> Vec<String> {
    let (at, port) = server.at();
    let key = format!("hmac-sha256:{KEY}:{SECRET}");
    let arguments = ["-p", &port, &at, "-y", &key, "shop.peak", "AXFR", "+noall", "+answer", "+onesoa", "+nomultiline"];
    let output = tool("dig", &arguments, "");
    assert!(output.status.success(), "{}", said(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with(';') && !line.is_empty() && !line.contains("TSIG"));
    let mut lines: Vec<String> = lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    lines.sort();
    lines
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}
