//! `funicular peak tree` on hierarchies of our own servers, healthy and with each fault.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU8, Ordering};

use funicular::wire::dns::{Message, Type};
use serde_json::Value;

use super::bed::{PATIENCE, Peak, command, text};

const SHOP: &str = "\
$TTL 60
@ SOA ns1 admin 7 3600 600 86400 30
@ NS ns1
@ NS ns2
ns1 A IP.1
ns2 A IP.2
east NS ns1.east
east NS ns2.east
ns1.east A IP.3
ns2.east A IP.4
west NS ns.west
ns.west A IP.5
";
const EAST: &str = "@ 60 SOA ns1 admin 3 3600 600 86400 30\n@ 60 NS ns1\n@ 60 NS ns2\nns1 60 A IP.3\nns2 60 A IP.4\n\
    deep 60 NS ns.deep\nns.deep 60 A IP.5\n";
const WEST: &str = "@ 60 SOA ns admin 1 3600 600 86400 30\n@ 60 NS ns\nns 60 A IP.5\n";
const DEEP: &str = "@ 60 SOA ns admin 4 3600 600 86400 30\n@ 60 NS ns\nns 60 A IP.5\n";

/// Servers on loopback addresses of their own, all at one port.
struct Hierarchy {
    servers: Vec<Peak>,
    folder: tempfile::TempDir,
    /// The first three numbers of the addresses.
    network: String,
    port: u16,
}

/// Networks are taken in turn, for tests run side by side.
static NETWORKS: AtomicU8 = AtomicU8::new(1);

impl Hierarchy {
    fn new() -> Self {
        let network = format!("127.53.{}", NETWORKS.fetch_add(1, Ordering::Relaxed));
        // A port that is free at one address is likely to be free at its neighbours: nobody else is there.
        let probe = UdpSocket::bind((network.clone() + ".1").parse::<Ipv4Addr>().map(|ip| (ip, 0)).unwrap()).unwrap();
        let port = probe.local_addr().unwrap().port();
        Self { servers: Vec::new(), folder: tempfile::tempdir().unwrap(), network, port }
    }

    /// Starts the server whose address ends so, with these zones.
    fn serve(&mut self, last: u8, zones: &[(&str, &str)]) {
        let listen = self.at(last).to_string();
        let mut command = command(&["--listen", &listen]);
        for (name, text) in zones {
            let file = self.folder.path().join(format!("{last}-{name}"));
            std::fs::write(&file, text.replace("IP", &self.network)).unwrap();
            command.args(["--zone", &format!("{name}={}", Path::new(&file).display())]);
        }
        self.servers.push(Peak::started(command).unwrap());
    }

    /// The same, with transfers for everybody.
    fn serve_openly(&mut self, last: u8, zones: &[(&str, &str)]) {
        self.serve_to("{ prefix: 127.0.0.0/8 }", last, zones);
    }

    /// The same, with transfers for these, one of which may be the holder of the key `walker`.
    fn serve_to(&mut self, allowed: &str, last: u8, zones: &[(&str, &str)]) {
        std::fs::write(self.key(), "d2Fsa2VyLXdhbGtlci13YWxrZXItd2Fsa2VyLTEyMzQ=").unwrap();
        let keys = format!("keys: [{{ name: walker, secret_file: \"{}\" }}]", self.key().display());
        let mut config = format!("listen: {}\n{keys}\nzones:\n", self.at(last));
        for (name, text) in zones {
            let file = self.folder.path().join(format!("{last}-{name}"));
            std::fs::write(&file, text.replace("IP", &self.network)).unwrap();
            config += &format!("  - name: {name}\n    file: \"{}\"\n    allow_transfer: [{allowed}]\n", file.display());
        }
        let file = self.folder.path().join(format!("{last}.yaml"));
        std::fs::write(&file, config).unwrap();
        self.servers.push(Peak::started(command(&["--config", file.to_str().unwrap()])).unwrap());
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("walker")
    }

    fn at(&self, last: u8) -> SocketAddr {
        format!("{}.{last}:{}", self.network, self.port).parse().unwrap()
    }

    /// The whole hierarchy, all in order.
    fn healthy() -> Self {
        let mut hierarchy = Self::new();
        hierarchy.serve(1, &[("shop.peak", SHOP)]);
        hierarchy.serve(2, &[("shop.peak", SHOP)]);
        hierarchy.serve(3, &[("east.shop.peak", EAST)]);
        hierarchy.serve(4, &[("east.shop.peak", EAST)]);
        hierarchy.serve(5, &[("west.shop.peak", WEST), ("deep.east.shop.peak", DEEP)]);
        hierarchy
    }

    fn tree(&self, arguments: &[&str]) -> Output {
        let server = self.at(1).to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_funicular"));
        command.args(["peak", "tree", "--server", &server]).args(arguments).output().unwrap()
    }

    /// The walk that looks for all zones: its exit code, and the faults of each zone by their stable words.
    fn faults(&self) -> (i32, Vec<(String, String)>) {
        let hints = ["--zone", "deep.east.shop.peak", "--zone", "west.shop.peak"];
        let output = self.tree(&[&["shop.peak", "-o", "json", "--timeout", "1000"], &hints[..]].concat());
        let tree: Value = serde_json::from_str(&text(&output)).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let mut faults = Vec::new();
        collect(&tree["tree"], &mut faults);
        assert_eq!(tree["faults"], faults.len());
        (output.status.code().unwrap(), faults)
    }
}

fn collect(zone: &Value, faults: &mut Vec<(String, String)>) {
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    for fault in zone["faults"].as_array().unwrap() {
        faults.push((word(&zone["apex"]), word(&fault["reason"])));
    }
    zone["zones"].as_array().unwrap().iter().for_each(|below| collect(below, faults));
}

/// The words of a drawing, without what holds it together.
fn unwrapped(drawn: &str) -> String {
    let words: Vec<&str> = drawn.split_whitespace().filter(|word| *word != "│").collect();
    words.join(" ")
}

fn pair(apex: &str, reason: &str) -> (String, String) {
    (apex.to_owned(), reason.to_owned())
}

#[test]
fn a_healthy_hierarchy_is_drawn_and_nothing_is_flagged() {
    let hierarchy = Hierarchy::healthy();
    let output = hierarchy.tree(&["shop.peak", "--zone", "deep.east.shop.peak", "--zone", "west.shop.peak"]);
    let server = |before: &str, name: &str, last: u8, serial: u32| {
        let room = 39 - before.chars().count();
        format!("{before}{name:room$} {:24} serial {serial}\n", hierarchy.at(last).to_string())
    };
    let expected = [
        "shop.peak.\n".to_owned(),
        server("│   ", "ns1.shop.peak.", 1, 7),
        server("│   ", "ns2.shop.peak.", 2, 7),
        "├── east.shop.peak.\n".to_owned(),
        server("│   │   ", "ns1.east.shop.peak.", 3, 3),
        server("│   │   ", "ns2.east.shop.peak.", 4, 3),
        "│   └── deep.east.shop.peak.\n".to_owned(),
        server("│           ", "ns.deep.east.shop.peak.", 5, 4),
        "└── west.shop.peak.\n".to_owned(),
        server("        ", "ns.west.shop.peak.", 5, 1),
        "\n4 zones, no faults\n".to_owned(),
    ];
    let said = text(&output);
    let without_remarks = |text: &str| {
        let remark =
            |line: &&str| !line.contains("(no transfer") && !line.contains("them)") && !line.contains("names them");
        text.lines().filter(remark).map(|line| format!("{line}\n")).collect::<String>()
    };
    assert_eq!(without_remarks(&said), without_remarks(&expected.concat()), "{said}{output:?}");
    assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(hierarchy.faults(), (0, vec![]));
}

#[test]
fn where_transfers_are_allowed_every_zone_is_found() {
    let mut hierarchy = Hierarchy::new();
    for last in [1, 2] {
        hierarchy.serve_openly(last, &[("shop.peak", SHOP)]);
    }
    for last in [3, 4] {
        hierarchy.serve_openly(last, &[("east.shop.peak", EAST)]);
    }
    hierarchy.serve_openly(5, &[("west.shop.peak", WEST), ("deep.east.shop.peak", DEEP)]);
    let output = hierarchy.tree(&["shop.peak"]);
    let said = text(&output);
    assert!(said.contains("│   └── deep.east.shop.peak.\n") && said.ends_with("\n4 zones, no faults\n"), "{said}");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn where_a_key_may_transfer_its_holder_finds_every_zone() {
    let mut hierarchy = Hierarchy::new();
    for last in [1, 2] {
        hierarchy.serve_to("{ key: walker }", last, &[("shop.peak", SHOP.split("east NS").next().unwrap())]);
    }
    let told = |arguments: &[&str]| text(&hierarchy.tree(&[&["shop.peak"], arguments].concat()));
    let key = format!("walker={}", hierarchy.key().display());
    let (with, without) = (told(&["--key", &key]), told(&[]));
    assert!(with.ends_with("1 zone, no faults\n") && with != without, "{with}\nand without the key\n{without}");
    assert!(told(&["--key", "walker=/nowhere"]).is_empty());
}

#[test]
fn a_server_that_does_not_serve_its_zone_is_lame() {
    let mut hierarchy = Hierarchy::new();
    hierarchy.serve(1, &[("shop.peak", SHOP)]);
    hierarchy.serve(2, &[("shop.peak", SHOP)]);
    hierarchy.serve(3, &[("east.shop.peak", EAST)]);
    // It serves something else, and the fifth is not there at all.
    hierarchy.serve(4, &[("west.shop.peak", WEST)]);
    let lame = |apex| pair(apex, "lame-delegation");
    let (code, faults) = hierarchy.faults();
    let unserved = |apex| pair(apex, "nobody-serves");
    let expected = [
        lame("east.shop.peak."),
        lame("deep.east.shop.peak."),
        unserved("deep.east.shop.peak."),
        lame("west.shop.peak."),
        unserved("west.shop.peak."),
    ];
    assert_eq!((code, &faults[..]), (1, &expected[..]));
    let said = text(&hierarchy.tree(&["shop.peak", "--zone", "east.shop.peak"]));
    let told = format!("! lame delegation: ns2.east.shop.peak. at {} answers REFUSED", hierarchy.at(4));
    assert!(unwrapped(&said).contains(&told), "{said}");
}

#[test]
fn a_server_with_an_older_copy_is_behind() {
    let mut hierarchy = Hierarchy::healthy();
    hierarchy.servers.remove(1);
    hierarchy.serve(2, &[("shop.peak", &SHOP.replace("admin 7", "admin 6"))]);
    assert_eq!(hierarchy.faults(), (1, vec![pair("shop.peak.", "serial-drift")]));
    let said = text(&hierarchy.tree(&["shop.peak"]));
    let told = format!("! serial drift: ns2.shop.peak. at {} has serial 6, the newest is 7", hierarchy.at(2));
    assert!(unwrapped(&said).contains(&told), "{said}");
}

#[test]
fn the_two_sides_of_a_cut_are_compared() {
    let mut hierarchy = Hierarchy::healthy();
    hierarchy.servers.pop();
    let west = WEST.replace("NS ns\n", "NS ns\n@ 60 NS other\n") + "other 60 A IP.5\n";
    hierarchy.serve(5, &[("west.shop.peak", &west), ("deep.east.shop.peak", DEEP)]);
    assert_eq!(hierarchy.faults(), (1, vec![pair("west.shop.peak.", "server-not-in-delegation")]));
}

#[test]
fn a_delegation_without_glue_is_flagged() {
    let mut hierarchy = Hierarchy::new();
    hierarchy.serve(2, &[("shop.peak", SHOP)]);
    hierarchy.serve(5, &[("west.shop.peak", WEST), ("deep.east.shop.peak", DEEP)]);
    for last in [3, 4] {
        hierarchy.serve(last, &[("east.shop.peak", EAST)]);
    }
    // A server of ours refuses such a zone, so one that leaves glue out stands before it.
    let _forgetful = Forgetful::between(hierarchy.at(1), hierarchy.at(2));
    let (code, faults) = hierarchy.faults();
    let expected = [
        // Below a zone that nobody can find, nothing is found.
        pair("shop.peak.", "zone-not-found"),
        pair("east.shop.peak.", "missing-glue"),
        pair("east.shop.peak.", "missing-glue"),
        pair("east.shop.peak.", "nobody-serves"),
        pair("west.shop.peak.", "missing-glue"),
        pair("west.shop.peak.", "nobody-serves"),
    ];
    assert_eq!((code, &faults[..]), (1, &expected[..]));
}

#[test]
fn a_zone_that_nobody_delegates_is_missed() {
    let hierarchy = Hierarchy::healthy();
    let output = hierarchy.tree(&["shop.peak", "--zone", "north.shop.peak"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("north.shop.peak. was asked for, and nothing here delegates it"));
}

#[test]
fn a_walk_begins_at_the_zone_above_when_the_server_does_not_serve_the_one_named() {
    let hierarchy = Hierarchy::healthy();
    let said = text(&hierarchy.tree(&["west.shop.peak"]));
    assert!(said.starts_with("shop.peak.\n") && said.contains("└── west.shop.peak.\n"), "{said}");
}

#[test]
fn what_keeps_a_walk_from_beginning_is_said() {
    let hierarchy = Hierarchy::healthy();
    let output = hierarchy.tree(&["example.net"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("has authority for no zone at or above example.net."), "{said}");
    let nobody = Hierarchy::new();
    let output = nobody.tree(&["shop.peak"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot ask"), "{output:?}");
    for wrong in [&["a..b"][..], &["shop.peak", "-4", "-6"], &[]] {
        assert_eq!(hierarchy.tree(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

/// A server that passes questions on, and leaves the addresses out of referrals.
struct Forgetful {
    addr: SocketAddr,
}

impl Forgetful {
    fn between(addr: SocketAddr, real: SocketAddr) -> Self {
        let socket = UdpSocket::bind(addr).unwrap();
        std::thread::spawn(move || {
            let mut octets = [0; 65_535];
            while let Ok((length, asker)) = socket.recv_from(&mut octets) {
                // One octet is no question: the test is over.
                if length == 1 {
                    return;
                }
                let behind = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                behind.set_read_timeout(Some(PATIENCE)).unwrap();
                behind.send_to(&octets[..length], real).unwrap();
                let length = behind.recv(&mut octets).unwrap();
                let mut reply = Message::parse(&octets[..length]).unwrap();
                if !reply.header.authoritative && reply.authorities.iter().any(|record| record.rtype == Type::NS) {
                    reply.additionals.clear();
                }
                socket.send_to(&reply.encode(65_535), asker).unwrap();
            }
        });
        Self { addr }
    }
}

impl Drop for Forgetful {
    fn drop(&mut self) {
        let _ = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.send_to(&[0], self.addr));
    }
}
