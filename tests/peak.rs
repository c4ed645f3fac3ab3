//! `funicular peak` as its clients and its operator meet it: the program itself, over real sockets.

#![allow(clippy::unwrap_used, reason = "a test that meets an error ends there")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::Duration;

use funicular::model::Name;
use funicular::wire::dns::{Class, Edns, EdnsOption, Message, Opcode, Rcode, Type, zonefile};

const SHOP: &str = r#"
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
const PATIENCE: Duration = Duration::from_secs(20);

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, file: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(file);
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// A running server; ended when dropped.
struct Peak {
    process: Child,
    log: BufReader<ChildStderr>,
    addr: SocketAddr,
    _folder: Folder,
}

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_funicular"));
    command.arg("peak").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Peak {
    /// Serves `zone` as shop.peak with nothing else configured.
    fn serving(zone: &str) -> Self {
        let folder = Folder::new();
        let file = folder.write("shop.zone", zone);
        let mut command = command();
        command.args(["--listen", "127.0.0.1:0", "--zone", &format!("shop.peak={}", file.display())]);
        Self::start(command, folder, |_| {})
    }

    /// Serves [`SHOP`] with this configuration, which names the file `shop.zone`.
    fn configured(config: &str) -> Self {
        Self::configured_and(config, |_| {})
    }

    /// The same, and reads of the log what comes before it listens.
    fn configured_and(config: &str, before: impl FnOnce(&mut BufReader<ChildStderr>)) -> Self {
        let folder = Folder::new();
        folder.write("shop.zone", SHOP);
        let config = folder.write("peak.yaml", &format!("zones: [{{ name: shop.peak, file: shop.zone }}]\n{config}"));
        let mut command = command();
        command.arg("--config").arg(config);
        Self::start(command, folder, before)
    }

    fn start(mut command: Command, folder: Folder, before: impl FnOnce(&mut BufReader<ChildStderr>)) -> Self {
        let mut process = command.spawn().unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        before(&mut log);
        let line = wait_for(&mut log, "listening address=");
        let addr = line.rsplit_once("address=").unwrap().1.trim().parse().unwrap();
        Self { process, log, addr, _folder: folder }
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.process.id().to_string()]).status().unwrap().success());
    }

    fn zone_file(&self) -> PathBuf {
        self._folder.0.path().join("shop.zone")
    }

    fn udp(&self, request: &[u8]) -> Option<Vec<u8>> {
        udp(self.addr, request, PATIENCE)
    }

    fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn over_tcp(&self, request: &[u8]) -> Option<Vec<u8>> {
        let mut stream = self.tcp();
        stream.write_all(&framed(request)).unwrap();
        // So that silence is told by the end of the connection.
        stream.shutdown(Shutdown::Write).unwrap();
        read_framed(&mut stream)
    }

    fn ask(&self, name: &str, rtype: Type) -> Message {
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

fn wait_for(log: &mut impl BufRead, what: &str) -> String {
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

fn udp(to: SocketAddr, request: &[u8], patience: Duration) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind(if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(patience)).unwrap();
    socket.send(request).unwrap();
    let mut reply = vec![0; 65_535];
    let length = socket.recv(&mut reply).ok()?;
    reply.truncate(length);
    Some(reply)
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), message].concat()
}

fn read_framed(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).unwrap();
    Some(message)
}

fn query(name: &str, rtype: Type) -> Message {
    let mut message = Message::query(0x1234, name.parse().unwrap(), rtype);
    message.header.recursion_desired = false;
    message.edns = None;
    message
}

fn with_edns(name: &str, edns: Edns) -> Message {
    Message { edns: Some(edns), ..query(name, Type::SOA) }
}

fn option(code: u16, data: &[u8]) -> EdnsOption {
    EdnsOption { code, data: data.into() }
}

/// A question of RFC 8906 §8, as octets, and what the reply must be like; no judge: silence.
type Probe = (&'static str, Vec<u8>, Option<fn(&Message) -> bool>);

fn has_soa(reply: &Message) -> bool {
    let answered = reply.answers.iter().any(|record| record.rtype == Type::SOA);
    reply.header.rcode == Rcode::NOERROR && reply.header.authoritative && answered
}

fn negative(reply: &Message) -> bool {
    reply.answers.is_empty() && reply.authorities.iter().any(|record| record.rtype == Type::SOA)
}

fn is_bare(reply: &Message, rcode: Rcode) -> bool {
    reply.header.rcode == rcode && reply.answers.is_empty() && reply.authorities.is_empty()
}

fn bits(name: &str, second: u8, third: u8) -> Vec<u8> {
    let mut octets = query(name, Type::SOA).encode(512);
    octets[2] = second;
    octets[3] = third;
    octets
}

fn plain_probes() -> Vec<Probe> {
    let soa = || query("shop.peak.", Type::SOA).encode(512);
    let mut two_questions = query("shop.peak.", Type::SOA);
    two_questions.questions.push(two_questions.questions[0].clone());
    let mut chaos = query("shop.peak.", Type::SOA);
    chaos.questions[0].class = Class::CH;
    vec![
        ("a plain SOA", soa(), Some(|reply| has_soa(reply) && reply.edns.is_none())),
        ("a type nobody knows", query("shop.peak.", Type(1000)).encode(512), Some(negative)),
        (
            "a name that is not there",
            query("no.shop.peak.", Type::A).encode(512),
            Some(|reply| negative(reply) && reply.header.rcode == Rcode::NXDOMAIN && reply.authorities[0].ttl == 30),
        ),
        (
            "a name with only names below",
            query("_tcp.shop.peak.", Type::A).encode(512),
            Some(|reply| negative(reply) && reply.header.rcode == Rcode::NOERROR),
        ),
        ("CD", bits("shop.peak.", 0, 0x10), Some(has_soa)),
        ("AD", bits("shop.peak.", 0, 0x20), Some(|reply| has_soa(reply) && !reply.header.authentic_data)),
        ("the reserved bit", bits("shop.peak.", 0, 0x40), Some(has_soa)),
        (
            "RD",
            bits("shop.peak.", 1, 0),
            Some(|reply| has_soa(reply) && reply.header.recursion_desired && !reply.header.recursion_available),
        ),
        ("TC in a question", bits("shop.peak.", 2, 0), Some(|reply| has_soa(reply) && !reply.header.truncated)),
        (
            "operation 15",
            bits("shop.peak.", 15 << 3, 0),
            Some(|reply| is_bare(reply, Rcode::NOTIMP) && reply.header.opcode == Opcode::from_bits(15)),
        ),
        ("NOTIFY", bits("shop.peak.", 4 << 3, 0), Some(|reply| is_bare(reply, Rcode::NOTIMP))),
        ("UPDATE", bits("shop.peak.", 5 << 3, 0), Some(|reply| is_bare(reply, Rcode::NOTIMP))),
        ("a reply", bits("shop.peak.", 0x80, 0), None),
        ("a reply to another operation", bits("shop.peak.", 0x80 | 5 << 3, 0), None),
        ("eleven octets", soa()[..11].to_vec(), None),
        ("a header alone", soa()[..12].to_vec(), Some(|reply| is_bare(reply, Rcode::FORMERR))),
        ("half a question", soa()[..20].to_vec(), Some(|reply| is_bare(reply, Rcode::FORMERR))),
        ("octets after the end", [soa(), vec![0]].concat(), Some(|reply| is_bare(reply, Rcode::FORMERR))),
        ("two questions", two_questions.encode(512), Some(|reply| is_bare(reply, Rcode::FORMERR))),
        (
            "a pointer to itself",
            [&soa()[..12], &[0xC0, 12, 0, 6, 0, 1]].concat(),
            Some(|reply| is_bare(reply, Rcode::FORMERR)),
        ),
        ("class CH", chaos.encode(512), Some(|reply| is_bare(reply, Rcode::REFUSED))),
        ("another zone", query("example.net.", Type::A).encode(512), Some(|reply| is_bare(reply, Rcode::REFUSED))),
        ("the root", query(".", Type::NS).encode(512), Some(|reply| is_bare(reply, Rcode::REFUSED))),
        (
            "ANY",
            query("orders.shop.peak.", Type::ANY).encode(512),
            Some(|reply| {
                reply.header.rcode == Rcode::NOERROR
                    && !reply.answers.is_empty()
                    && reply.answers.iter().all(|record| record.rtype == reply.answers[0].rtype)
            }),
        ),
        ("a transfer", query("shop.peak.", Type::AXFR).encode(512), Some(|reply| is_bare(reply, Rcode::REFUSED))),
        ("MAILB", query("shop.peak.", Type::MAILB).encode(512), Some(|reply| is_bare(reply, Rcode::NOTIMP))),
    ]
}

fn edns_probes() -> Vec<Probe> {
    let ask = |edns| with_edns("shop.peak.", edns).encode(512);
    let basic = || ask(Edns::default());
    let version_1 = Edns { version: 1, ..Edns::default() };
    let mut flag = basic();
    let flags_at = flag.len() - 4;
    flag[flags_at] |= 0x40;
    let mut two = basic();
    two.extend_from_slice(&basic()[two.len() - 11..]);
    two[11] = 2;
    let unknown = || vec![option(100, b"")];
    vec![
        (
            "OPT",
            basic(),
            Some(|reply| {
                has_soa(reply) && reply.edns.as_ref().is_some_and(|edns| edns.version == 0 && edns.udp_size == 1232)
            }),
        ),
        (
            "version 1",
            ask(version_1.clone()),
            Some(|reply| is_bare(reply, Rcode::BADVERS) && reply.edns.as_ref().is_some_and(|edns| edns.version == 0)),
        ),
        (
            "an unknown option",
            ask(Edns { options: unknown(), ..Edns::default() }),
            Some(|reply| has_soa(reply) && reply.edns.as_ref().is_some_and(|edns| edns.options.is_empty())),
        ),
        (
            "version 1 and an unknown option",
            ask(Edns { options: unknown(), ..version_1 }),
            Some(|reply| {
                is_bare(reply, Rcode::BADVERS) && reply.edns.as_ref().is_some_and(|edns| edns.options.is_empty())
            }),
        ),
        (
            "an unknown flag",
            flag,
            Some(|reply| has_soa(reply) && reply.edns.as_ref().is_some_and(|edns| !edns.dnssec_ok)),
        ),
        (
            "DO",
            ask(Edns { dnssec_ok: true, ..Edns::default() }),
            Some(|reply| has_soa(reply) && reply.edns.as_ref().is_some_and(|edns| edns.dnssec_ok)),
        ),
        ("two OPT", two, Some(|reply| is_bare(reply, Rcode::FORMERR))),
        (
            "a cookie",
            ask(Edns { options: vec![option(10, b"12345678")], ..Edns::default() }),
            Some(|reply| {
                let options = &reply.edns.as_ref().unwrap().options;
                has_soa(reply)
                    && options.len() == 1
                    && options[0].data.len() == 24
                    && options[0].data.starts_with(b"12345678")
            }),
        ),
        (
            "a cookie of nine octets",
            ask(Edns { options: vec![option(10, &[0; 9])], ..Edns::default() }),
            Some(|reply| is_bare(reply, Rcode::FORMERR)),
        ),
        ("a size of 100", ask(Edns { udp_size: 100, ..Edns::default() }), Some(has_soa)),
    ]
}

#[test]
fn every_question_of_rfc_8906_is_answered_right_over_udp_and_tcp() {
    let peak = Peak::serving(SHOP);
    let mut wrong = Vec::new();
    for (what, request, judge) in plain_probes().into_iter().chain(edns_probes()) {
        // Silence over UDP is told by the next answer coming first: both go through the same socket's queue.
        let over_udp = match judge {
            Some(_) => peak.udp(&request),
            None => first_reply(&peak, &request),
        };
        for (transport, reply) in [("UDP", over_udp), ("TCP", peak.over_tcp(&request))] {
            let parsed = reply.as_ref().map(|octets| Message::parse(octets).unwrap());
            let right = match (&parsed, judge) {
                (Some(reply), Some(judge)) => reply.header.response && reply.header.id == 0x1234 && judge(reply),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            if !right {
                wrong.push(format!("{what} over {transport}: {parsed:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The reply to `request`, or none when a question sent right behind it is answered first.
fn first_reply(peak: &Peak, request: &[u8]) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(peak.addr).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send(request).unwrap();
    socket.send(&Message::query(0xFFFF, "shop.peak.".parse().unwrap(), Type::SOA).encode(512)).unwrap();
    let mut reply = [0; 512];
    let length = socket.recv(&mut reply).unwrap();
    (reply[..2] != [0xFF, 0xFF]).then(|| reply[..length].to_vec())
}

#[test]
fn every_record_of_the_file_is_answered_as_it_stands() {
    let peak = Peak::serving(SHOP);
    let apex: Name = "shop.peak.".parse().unwrap();
    for record in zonefile::parse(SHOP, &apex).unwrap() {
        let reply = peak.ask(&record.name.to_string(), record.rtype);
        if record.name.is_at_or_below(&"cluster.shop.peak.".parse().unwrap()) {
            assert!(!reply.header.authoritative && reply.answers.is_empty());
            assert_eq!((reply.authorities.len(), reply.additionals.len()), (1, 1));
        } else {
            assert!(reply.answers.contains(&record), "{record:?} is not in {reply:?}");
        }
    }
}

#[test]
fn an_address_space_brings_its_rules_along() {
    let reply = Peak::serving(SHOP).ask("orders.shop.peak.", Type::APL);
    let owners: Vec<_> = reply.additionals.iter().map(|record| (record.name.to_string(), record.rtype)).collect();
    assert_eq!(owners, [("_ssa.orders.shop.peak.".to_owned(), Type::SVCB)]);
}

fn large_zone() -> String {
    let addresses: String = (0..40).map(|last| format!("big AAAA 2001:db8::{last:x}\n")).collect();
    let huge: String = (0..2_000).map(|last| format!("huge AAAA 2001:db8::{last:x}\n")).collect();
    format!("{SHOP}{addresses}{huge}")
}

#[test]
fn what_does_not_fit_a_datagram_is_truncated_and_whole_over_tcp() {
    let peak = Peak::serving(&large_zone());
    let at = |size: Option<u16>| {
        let edns = size.map(|udp_size| Edns { udp_size, ..Edns::default() });
        let request = Message { edns, ..query("big.shop.peak.", Type::AAAA) }.encode(512);
        let octets = peak.udp(&request).unwrap();
        (octets.len(), Message::parse(&octets).unwrap())
    };
    for (size, limit) in [(None, 512), (Some(100), 512), (Some(1_000), 1_000)] {
        let (octets, reply) = at(size);
        assert!(octets <= limit && reply.header.truncated && reply.answers.is_empty(), "{size:?}");
    }
    // 40 records take 1,120 octets. What the client takes beyond the server's limit does not help it.
    for size in [1_232, 4_096] {
        let (octets, reply) = at(Some(size));
        assert!(octets <= 1_232 && !reply.header.truncated && reply.answers.len() == 40, "{size}");
    }
    let huge = query("huge.shop.peak.", Type::AAAA).encode(512);
    assert!(Message::parse(&peak.udp(&huge).unwrap()).unwrap().header.truncated);
    assert_eq!(Message::parse(&peak.over_tcp(&huge).unwrap()).unwrap().answers.len(), 2_000);
}

#[test]
fn questions_in_a_pipeline_are_all_answered_however_they_are_cut() {
    let peak = Peak::serving(&large_zone());
    let names = ["orders", "huge", "big", "no", "www"];
    let request = |id: u16| {
        let name = format!("{}.shop.peak.", names[usize::from(id) % names.len()]);
        framed(&Message::query(id, name.parse().unwrap(), Type::AAAA).encode(512))
    };
    // All at once, with replies of several megabytes; and octet by octet.
    for (count, piece) in [(200u16, usize::MAX), (20, 1)] {
        let mut stream = peak.tcp();
        let octets: Vec<u8> = (0..count).flat_map(request).collect();
        let mut writing = stream.try_clone().unwrap();
        let writer = std::thread::spawn(move || {
            octets.chunks(piece.min(octets.len())).for_each(|chunk| writing.write_all(chunk).unwrap());
        });
        let mut ids: Vec<u16> =
            (0..count).map(|_| Message::parse(&read_framed(&mut stream).unwrap()).unwrap().header.id).collect();
        writer.join().unwrap();
        ids.sort_unstable();
        assert!(ids.into_iter().eq(0..count));
    }
}

#[test]
fn an_idle_connection_is_closed_also_in_the_middle_of_a_question() {
    let peak = Peak::configured("listen: 127.0.0.1:0\ntcp: { idle: 100ms }\n");
    for begun in [&[][..], &[0], &[0, 30, 1, 2]] {
        let mut stream = peak.tcp();
        stream.write_all(begun).unwrap();
        assert_eq!(stream.read(&mut [0; 10]).unwrap(), 0);
    }
}

#[test]
fn a_connection_too_many_is_closed_and_a_place_given_back_is_taken() {
    let peak = Peak::configured("listen: 127.0.0.1:0\ntcp: { connections_per_peer: 2 }\n");
    let request = framed(&query("shop.peak.", Type::SOA).encode(512));
    let answered = |stream: &mut TcpStream| stream.write_all(&request).is_ok() && read_framed(stream).is_some();
    let (mut first, mut second) = (peak.tcp(), peak.tcp());
    assert!(answered(&mut first) && answered(&mut second));
    assert!(!answered(&mut peak.tcp()));
    first.shutdown(Shutdown::Both).unwrap();
    // The server learns of the end when it learns of it.
    while !answered(&mut peak.tcp()) {}
}

#[test]
fn a_server_at_all_addresses_replies_from_the_one_that_was_asked() {
    let peak = Peak::configured("listen: \"[::]:0\"\n");
    let request = query("shop.peak.", Type::SOA).encode(512);
    for asked in ["127.0.0.1", "127.7.7.7", "::1"] {
        // A connected socket takes nothing from another address.
        let to = SocketAddr::new(asked.parse().unwrap(), peak.addr.port());
        assert!(udp(to, &request, PATIENCE).is_some(), "{asked}");
    }
}

#[test]
fn garbage_harms_nobody() {
    let peak = Peak::serving(SHOP);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(peak.addr).unwrap();
    let template = with_edns("orders.shop.peak.", Edns { options: vec![option(10, &[7; 24])], ..Edns::default() });
    let template = template.encode(512);
    // A linear congruential generator: the same garbage every time.
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    for _ in 0..5_000 {
        let mut octets = template.clone();
        for _ in 0..1 + next() % 4 {
            let at = next() % octets.len();
            octets[at] = next() as u8;
        }
        octets.truncate(1 + next() % octets.len());
        socket.send(&octets).unwrap();
    }
    let mut stream = peak.tcp();
    let garbage: Vec<u8> = (0..10_000).map(|_| next() as u8).collect();
    // The server may close it at any time.
    let _ = stream.write_all(&garbage);
    assert!(has_soa(&peak.ask("shop.peak.", Type::SOA)));
}

#[test]
fn sighup_serves_the_new_file_and_keeps_the_old_zone_when_it_is_faulty() {
    let mut peak = Peak::serving(SHOP);
    let serial = |peak: &Peak| {
        let rdata = peak.ask("shop.peak.", Type::SOA).answers[0].rdata.clone();
        u32::from_be_bytes(rdata[rdata.len() - 20..][..4].try_into().unwrap())
    };
    assert_eq!(serial(&peak), 7);
    std::fs::write(peak.zone_file(), SHOP.replace(" 7 3600", " 8 3600") + "new A 192.0.2.99\n").unwrap();
    peak.signal("-HUP");
    wait_for(&mut peak.log, "zone loaded again");
    assert_eq!((serial(&peak), peak.ask("new.shop.peak.", Type::A).answers.len()), (8, 1));

    std::fs::write(peak.zone_file(), SHOP.replace(" 7 3600", " 9 3600") + "new A nonsense\n").unwrap();
    peak.signal("-HUP");
    wait_for(&mut peak.log, "the zone stays as it was");
    let line = wait_for(&mut peak.log, "shop.zone:");
    assert!(line.contains("shop.zone:21:7: "), "{line}");
    assert_eq!((serial(&peak), peak.ask("new.shop.peak.", Type::A).answers.len()), (8, 1));
}

#[test]
fn sigterm_ends_it_with_success() {
    for signal in ["-TERM", "-INT"] {
        let mut peak = Peak::serving(SHOP);
        let _open = peak.tcp();
        peak.signal(signal);
        assert!(peak.process.wait().unwrap().success(), "{signal}");
    }
}

fn fails(arguments: &[&str]) -> (i32, String) {
    let Output { status, stderr, .. } = command().args(arguments).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stderr).unwrap())
}

fn zone_argument(name: &str, file: &Path) -> String {
    format!("{name}={}", file.display())
}

#[test]
fn all_faults_of_all_files_are_told_with_file_line_and_column() {
    let folder = Folder::new();
    let text = folder
        .write("text.zone", "@ 60 SOA . . 1 2 3 4 5\n@ 60 NS x.example.\na 60 A 1.2.3\nb 60 MX mail\n$INCLUDE x\n");
    let sense =
        folder.write("sense.zone", "@ 60 NS ns1\nwww 60 CNAME ns1\nwww 60 A 192.0.2.1\nexample.net. 60 A 192.0.2.1\n");
    let whole = folder.write("whole.zone", "@ 60 NS ns1\ncut 60 NS ns.cut\n");
    let missing = folder.0.path().join("missing.zone");
    let zones = [("text", &text), ("sense", &sense), ("whole", &whole), ("missing", &missing)];
    let arguments: Vec<String> =
        zones.iter().flat_map(|(name, file)| ["--zone".to_owned(), zone_argument(name, file)]).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (code, told) = fails(&[&["--listen", "127.0.0.1:0"][..], &arguments].concat());
    assert_eq!(code, 1);
    let expected = [
        "text.zone:3:8: ",
        "text.zone:4:9: ",
        "text.zone:5:1: $INCLUDE",
        "sense.zone:2:1: www.sense. has a CNAME record",
        "sense.zone:4:1: example.net. is not in the zone sense.",
        "whole.zone: whole. has no SOA record",
        "whole.zone:1:1: whole. names the server ns1.whole.",
        "whole.zone:2:1: cut.whole. is delegated to ns.cut.whole.",
        "missing.zone: cannot be read",
    ];
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{told}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.contains(expected), "{expected:?} is not in {line:?}");
    }
}

#[test]
fn what_keeps_it_from_starting_is_said() {
    let folder = Folder::new();
    let file = folder.write("shop.zone", SHOP);
    let zone = zone_argument("shop.peak", &file);
    let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (arguments, code, told) in [
        (vec!["--listen", "127.0.0.1:0"], 1, "no zone to serve"),
        (vec!["--zone", "shop.peak"], 2, "expected NAME=FILE"),
        (vec!["--zone", "a..b=x"], 2, "is no domain name"),
        (vec!["--zone", &zone, "--zone", &zone, "--listen", "127.0.0.1:0"], 1, "is given twice"),
        (vec!["--zone", &zone, "--listen", &taken], 1, "another program answers there"),
        (vec!["--zone", &zone, "--listen", "192.0.2.1:0"], 1, "is not this machine's"),
        (vec!["--zone", &zone, "--listen", "nowhere"], 2, "--listen"),
    ] {
        let (ended, said) = fails(&arguments);
        assert!(ended == code && said.contains(told), "{arguments:?}: {ended} {said}");
    }
}

/// A server, its admin port, and its port for metrics.
fn administered() -> (Peak, SocketAddr, SocketAddr) {
    let ports = "admin: { listen: \"127.0.0.1:0\", metrics: \"127.0.0.1:0\" }";
    let mut seen = String::new();
    let peak = Peak::configured_and(&format!("listen: 127.0.0.1:0\n{ports}\n"), |lines| {
        seen = wait_for(lines, "admin ports are open");
    });
    let port = |name: &str| {
        let (_, rest) = seen.split_once(name).unwrap();
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    (peak, port("admin="), port("metrics="))
}

#[test]
fn questions_are_logged_on_request_and_not_before() {
    let (mut peak, admin, _) = administered();
    peak.ask("unlogged.shop.peak.", Type::A);
    let set = |every| http(admin, &format!("POST /query-log?every={every}"));
    assert!(set("often").starts_with("HTTP/1.1 400 "));
    assert!(set("1").starts_with("HTTP/1.1 200 "));
    peak.ask("logged.shop.peak.", Type::A);
    let line = wait_for(&mut peak.log, "name=");
    assert!(line.contains("name=logged.shop.peak. qtype=A rcode=NXDOMAIN"), "{line}");
}

#[test]
fn a_flood_is_limited_and_who_shows_a_cookie_is_not() {
    let peak = Peak::configured("listen: 127.0.0.1:0\nworkers: 1\nrate_limit: { per_second: 5 }\n");
    let cookie = |data: &[u8]| {
        let edns = Edns { options: vec![option(10, data)], ..Edns::default() };
        with_edns("shop.peak.", edns)
    };
    let shown = Message::parse(&peak.udp(&cookie(b"12345678").encode(512)).unwrap()).unwrap();
    let shown = shown.edns.unwrap().options[0].data.clone();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(peak.addr).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let (count, last) = (100u16, 0xFFFF);
    for id in 0..count {
        let mut plain = query("orders.shop.peak.", Type::AAAA);
        plain.header.id = id;
        socket.send(&plain.encode(512)).unwrap();
    }
    let mut proven = cookie(&shown);
    proven.header.id = last;
    socket.send(&proven.encode(512)).unwrap();
    let (mut whole, mut slipped) = (0, 0);
    loop {
        let mut reply = [0; 512];
        let length = socket.recv(&mut reply).unwrap();
        let reply = Message::parse(&reply[..length]).unwrap();
        match (reply.header.id == last, reply.header.truncated) {
            (true, truncated) => break assert!(!truncated && has_soa(&reply)),
            (false, true) => slipped += 1,
            (false, false) => whole += 1,
        }
    }
    // A second more or less may have begun meanwhile.
    assert!((5..50).contains(&whole) && (20..50).contains(&slipped), "{whole} whole, {slipped} slipped");
}

#[test]
fn what_was_answered_is_counted() {
    let (peak, _, metrics) = administered();
    peak.ask("orders.shop.peak.", Type::AAAA);
    peak.ask("no.shop.peak.", Type::AAAA);
    peak.ask("example.net.", Type(4711));
    peak.over_tcp(&query("shop.peak.", Type::SOA).encode(512)).unwrap();
    let server = format!("server=\"dns://:{}\"", peak.addr.port());
    let (udp, tcp) =
        (format!("{server},zone=\"shop.peak.\",proto=\"udp\""), format!("{server},zone=\"shop.peak.\",proto=\"tcp\""));
    let expected = [
        format!("funicular_dns_requests_total{{{udp},family=\"1\",type=\"AAAA\"}} 2"),
        format!("funicular_dns_requests_total{{{tcp},family=\"1\",type=\"SOA\"}} 1"),
        format!(
            "funicular_dns_requests_total{{{server},zone=\"dropped\",proto=\"udp\",family=\"1\",type=\"other\"}} 1"
        ),
        format!("funicular_dns_responses_total{{{udp},rcode=\"NXDOMAIN\"}} 1"),
        format!("funicular_dns_responses_total{{{server},zone=\"dropped\",proto=\"udp\",rcode=\"REFUSED\"}} 1"),
        format!("funicular_dns_request_size_bytes_count{{{server},proto=\"udp\"}} 3"),
        format!("funicular_dns_response_size_bytes_count{{{server},proto=\"tcp\"}} 1"),
        format!("funicular_dns_request_duration_seconds_count{{{server},proto=\"udp\"}} 3"),
        "funicular_dns_zone_serial{zone=\"shop.peak.\"} 7".to_owned(),
    ];
    // A batch's time is counted once its replies have left, so the last may show a moment after its reply.
    let patient_until = std::time::Instant::now() + PATIENCE;
    loop {
        let text = scraped(metrics);
        let missing: Vec<_> = expected.iter().filter(|line| !text.lines().any(|shown| shown == *line)).collect();
        if missing.is_empty() {
            break;
        }
        assert!(std::time::Instant::now() < patient_until, "{missing:?} not in\n{text}");
    }
}

fn scraped(addr: SocketAddr) -> String {
    http(addr, "GET /metrics")
}

fn http(addr: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// What another program makes of our octets; none where it is not installed, which tests/run reports.
fn decoded(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn kdig_dig_and_drill_read_every_type_as_we_wrote_it() {
    let peak = Peak::serving(SHOP);
    let (port, at) = (peak.addr.port().to_string(), "@127.0.0.1");
    for (name, rtype, text) in [
        ("shop.peak", "SOA", "ns1.shop.peak. admin.shop.peak. 7 3600 600 86400 30"),
        ("shop.peak", "MX", "10 mail.shop.peak."),
        ("orders.shop.peak", "APL", "2:2001:db8:5:1::/64"),
        ("_http._tcp.shop.peak", "SRV", "0 1 80 orders.shop.peak."),
        ("www.shop.peak", "CNAME", "orders.shop.peak."),
        ("ptr.shop.peak", "PTR", "orders.shop.peak."),
        ("shop.peak", "TXT", "\"peak\""),
        ("orders.shop.peak", "AAAA", "2001:db8:5:1::2"),
        ("mail.shop.peak", "A", "192.0.2.25"),
        ("shop.peak", "NS", "ns1.shop.peak."),
        ("odd.shop.peak", "TYPE65280", "\\# 3 010203"),
    ] {
        let asked = [
            ("kdig", vec!["-p", &port, at, name, rtype]),
            ("dig", vec!["-p", &port, at, name, rtype, "+norec"]),
            ("drill", vec!["-p", &port, at, name, rtype]),
        ];
        for (program, arguments) in asked {
            let Some(output) = decoded(program, &arguments) else { continue };
            // drill writes every group of an address list in full.
            let full = text.replace("2:2001:db8:5:1::/64", "2:2001:0db8:0005:0001:0000:0000:0000:0000/64");
            let says = |line: &&str| !line.starts_with(';') && (line.contains(text) || line.contains(&full));
            let line = output.lines().find(says);
            assert!(line.is_some(), "{program} {name} {rtype}:\n{output}");
        }
    }
}
