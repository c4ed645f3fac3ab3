//! Three programs under load while one after another is killed, cut off, stopped, has no room on its disk, or another
//! idea of what time it is. What must hold afterwards is the load's.

use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use funicular::wire::dns::{Class, Message, Opcode, Rcode, Record, Type};

use super::bed::{Node, Place, ask, leads, three, three_at, until};
use super::load::Load;

/// How often the loops go round; `tests/soak` lets them go on for longer.
fn rounds(few: usize) -> usize {
    std::env::var("FUNICULAR_FAULT_ROUNDS").map_or(few, |rounds| rounds.parse().unwrap())
}

/// The file of the log that is written to.
fn log_file(node: &Node) -> PathBuf {
    let files = std::fs::read_dir(&node.state).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("log-")).max().unwrap()
}

/// Leaves half a frame behind the last one, as a machine does that stops in the middle of a write.
fn tear(node: &Node) {
    let file = log_file(node);
    let mut octets = std::fs::read(&file).unwrap();
    let end = octets.iter().rposition(|&octet| octet != 0).map_or(0, |last| last + 1);
    // Behind the zeros in which the last frame may end.
    let begin = end + 64;
    octets.resize(octets.len().max(begin + 40), 0);
    octets[begin..begin + 40].fill(0xa5);
    std::fs::write(&file, octets).unwrap();
}

#[test]
fn nodes_that_are_killed_in_turns_under_load_lose_nothing_and_do_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    Load::during(folder.path(), three(folder.path(), "strict"), |load| {
        for round in 0..rounds(6) {
            let leader = load.leader();
            let victim = if round % 2 == 0 { leader } else { (leader + 1) % 3 };
            load.kill(victim);
            load.goes_on(10);
            if round % 3 == 1 {
                load.node(victim, tear);
            }
            load.restart(victim);
            load.goes_on(10);
        }
    });
}

#[test]
fn a_leader_that_stands_still_and_wakes_up_does_not_answer_with_what_was() {
    let folder = tempfile::tempdir().unwrap();
    Load::during(folder.path(), three(folder.path(), "strict"), |load| {
        for _ in 0..rounds(2) {
            let leader = load.leader();
            // Its questions wait, and are answered once it goes on.
            load.node(leader, |node| node.signal("-STOP"));
            std::thread::sleep(Duration::from_millis(900));
            load.node(leader, |node| node.signal("-CONT"));
            load.goes_on(10);
        }
    });
}

/// Runs a program of the system, which must end well; gives what it printed.
fn run(program: &str, arguments: &[&str]) -> String {
    let told = Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(told.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&told.stderr));
    String::from_utf8_lossy(&told.stdout).trim().to_owned()
}

/// A small file system in a file; gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, image: &Path, size: u64) -> Self {
        std::fs::create_dir_all(at).unwrap();
        std::fs::File::create(image).unwrap().set_len(size).unwrap();
        run("mkfs.ext4", &["-q", "-m", "0", image.to_str().unwrap()]);
        run("mount", &["-o", "loop", image.to_str().unwrap(), at.to_str().unwrap()]);
        Self(at.to_owned())
    }

    /// Leaves less room than one more piece of the log needs.
    fn fill(&self) {
        // Ends when there is no room any more.
        let mut zeros = std::fs::File::open("/dev/zero").unwrap();
        let mut ballast = std::fs::File::create(self.0.join("ballast")).unwrap();
        std::io::copy(&mut zeros, &mut ballast).unwrap_err();
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.join("ballast")).unwrap();
    }

    /// Whoever writes waits, until it is thawed.
    fn freeze(&self, frozen: bool) {
        run("fsfreeze", &[if frozen { "-f" } else { "-u" }, self.0.to_str().unwrap()]);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("fsfreeze").arg("-u").arg(&self.0).stderr(Stdio::null()).status());
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

/// Gives one name some fifty thousand octets of text; another text each time.
fn large(node: &Node, zone: &str, number: u32) -> Option<Rcode> {
    let mut message = Message::query(9, zone.parse().unwrap(), Type::SOA);
    message.header.opcode = Opcode::UPDATE;
    let text: Vec<u8> = (0..200_u8).flat_map(|at| [&[250][..], &[at; 246], &number.to_be_bytes()].concat()).collect();
    let record = |class, ttl, rdata: &[u8]| {
        let name = format!("large.{zone}").parse().unwrap();
        Record { name, rtype: Type::TXT, class, ttl, rdata: rdata.into() }
    };
    message.authorities = vec![record(Class::ANY, 0, &[]), record(Class::IN, 60, &text)];
    ask(node.dns, &message, Duration::from_secs(10)).map(|reply| reply.header.rcode)
}

#[test]
#[ignore = "needs CAP_SYS_ADMIN and loop devices"]
fn a_node_whose_disk_is_full_or_stands_still_goes_on_answering_and_catches_up() {
    let folder = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(&folder.path().join("state3"), &folder.path().join("image"), 24 << 20);
    let nodes = Load::during(folder.path(), three(folder.path(), "strict"), |load| {
        load.goes_on(5);
        disk.fill();
        let full = |load: &Load| load.node(2, |node| node.log().contains("the disk is full"));
        let mut number = 0;
        while !full(load) {
            // What is filled with zeros ahead is used up by large writes sooner than by small ones.
            let _ = load.node((load.leader() + 1) % 2, |node| large(node, "open.peak.", number));
            number += 1;
            assert!(number < 200, "the disk does not get full");
        }
        load.goes_on(20);
        disk.make_room();
        load.goes_on(5);
        for _ in 0..rounds(4) {
            disk.freeze(true);
            std::thread::sleep(Duration::from_millis(300));
            disk.freeze(false);
            load.goes_on(3);
        }
    });
    // Before the disk that they use.
    drop(nodes);
    drop(disk);
}

/// Three namespaces on one bridge; the test's own end of it can talk to all of them whatever is cut between them.
struct Net {
    /// Tells these from those of another run.
    tag: String,
}

impl Net {
    fn host(at: usize) -> Ipv6Addr {
        Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, at as u16 + 1)
    }

    fn name(&self, at: usize) -> String {
        format!("raft-{}-{at}", self.tag)
    }

    fn bridge(&self) -> String {
        format!("rf{}", self.tag)
    }

    fn new() -> Self {
        let net = Self { tag: format!("{:x}", std::process::id()) };
        let bridge = net.bridge();
        run("ip", &["link", "add", &bridge, "type", "bridge"]);
        run("ip", &["addr", "add", "fd77::ff/64", "dev", &bridge, "nodad"]);
        run("ip", &["link", "set", &bridge, "up"]);
        for at in 0..3 {
            let (name, outside) = (net.name(at), format!("{bridge}-{at}"));
            run("ip", &["netns", "add", &name]);
            run("ip", &["link", "add", &outside, "type", "veth", "peer", "name", "eth0", "netns", &name]);
            run("ip", &["link", "set", &outside, "master", &bridge, "up"]);
            run("ip", &["-n", &name, "link", "set", "lo", "up"]);
            run("ip", &["-n", &name, "addr", "add", &format!("{}/64", Self::host(at)), "dev", "eth0", "nodad"]);
            run("ip", &["-n", &name, "link", "set", "eth0", "up"]);
        }
        net
    }

    fn places(&self) -> [Place; 3] {
        [0, 1, 2].map(|at| {
            let through = ["ip", "netns", "exec", &self.name(at)].map(str::to_owned).to_vec();
            Place { host: Self::host(at), through, ..Place::here() }
        })
    }

    /// From now on exactly these directions are cut.
    fn cut(&self, cut: impl Fn(usize, usize) -> bool) {
        for to in 0..3 {
            let dropped: String = (0..3)
                .filter(|from| cut(*from, to))
                .map(|from| format!("add rule inet cut in ip6 saddr {} drop\n", Self::host(from)))
                .collect();
            let rules = format!(
                "add table inet cut\nadd chain inet cut in {{ type filter hook input priority 0; }}\n\
                 flush chain inet cut in\n{dropped}"
            );
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), rules).unwrap();
            run("ip", &["netns", "exec", &self.name(to), "nft", "-f", file.path().to_str().unwrap()]);
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for at in 0..3 {
            drop(Command::new("ip").args(["netns", "del", &self.name(at)]).status());
        }
        drop(Command::new("ip").args(["link", "del", &self.bridge()]).status());
    }
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn nodes_that_are_cut_off_from_each_other_lose_nothing_and_go_on_answering() {
    let net = Net::new();
    let folder = tempfile::tempdir().unwrap();
    let nodes = Load::during(folder.path(), three_at(folder.path(), "strict", net.places()), |load| {
        for _ in 0..rounds(1) {
            load.goes_on(5);
            let leader = load.leader();
            // A minority: whoever led is alone.
            net.cut(|from, to| from == leader || to == leader);
            load.goes_on(10);
            // One way: it is not heard, and hears; and then the other way round.
            let leader = load.leader();
            net.cut(|from, _| from == leader);
            load.goes_on(10);
            let leader = load.leader();
            net.cut(|_, to| to == leader);
            load.goes_on(10);
            for flap in 0..6 {
                net.cut(|from, to| flap % 2 == 0 && from + to == 1);
                load.goes_on(1);
            }
            // No majority anywhere: nothing is acknowledged, everything is answered.
            net.cut(|_, _| true);
            std::thread::sleep(Duration::from_secs(1));
            net.cut(|_, _| false);
            load.goes_on(10);
            // A node that only cannot reach one of two others disturbs nobody.
            let (leader, term) = (load.leader(), load.term(load.leader()));
            let (one, other) = ((leader + 1) % 3, (leader + 2) % 3);
            net.cut(|from, to| (from, to) == (one, other) || (from, to) == (other, one));
            load.goes_on(20);
            assert_eq!((load.leader(), load.term(leader)), (leader, term));
            net.cut(|_, _| false);
        }
    });
    // Before the namespaces that they run in.
    drop(nodes);
    drop(net);
}

#[test]
#[ignore = "needs libfaketime"]
fn clocks_that_jump_by_a_week_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, library) = (folder.path().join("clock"), run("sh", &["-c", "ls /usr/lib/*/faketime/libfaketime.so.1"]));
    std::fs::write(&clock, "+0").unwrap();
    let environment = vec![
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        // Lengths of time are what they are: only the wall clock jumps.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    // Of three nodes one has the machine's own clock.
    let jumping = || Place { environment: environment.clone(), ..Place::here() };
    Load::during(folder.path(), three_at(folder.path(), "strict", [jumping(), jumping(), Place::here()]), |load| {
        let (leader, term) = (load.leader(), load.term(load.leader()));
        for jump in ["+7d", "-7d", "+1h", "-600s", "+0"] {
            std::fs::write(&clock, jump).unwrap();
            load.goes_on(10);
        }
        assert_eq!((load.leader(), load.term(leader)), (leader, term), "nobody is elected because of what time it is");
    });
}

#[test]
fn a_node_that_was_long_away_comes_back_by_a_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    Load::during(folder.path(), three(folder.path(), "strict"), |load| {
        let away = (load.leader() + 1) % 3;
        load.kill(away);
        let last = load.node(away, |node| std::fs::read_dir(&node.state).unwrap().count());
        assert!(last > 0);
        let leader = load.leader();
        let compacted = || load.node(leader, |node| node.status().unwrap()["snapshot_index"].as_u64() > Some(0));
        let mut number = 0;
        // The log is cut when it is longer than 32 MiB.
        while !compacted() {
            for _ in 0..50 {
                assert_eq!(load.node(leader, |node| large(node, "open.peak.", number)), Some(Rcode::NOERROR));
                number += 1;
            }
            assert!(number < 2_000, "no snapshot is made");
        }
        load.restart(away);
        load.goes_on(10);
        let end = Instant::now() + Duration::from_secs(30);
        while !load.node(away, |node| node.log().contains("the registry was received as a snapshot")) {
            assert!(Instant::now() < end, "no snapshot came");
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}

#[test]
fn load_alone_makes_nobody_stand_for_election() {
    let seconds = std::env::var("FUNICULAR_LOAD_SECONDS").map_or(3, |seconds| seconds.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let mut nodes = three(folder.path(), "strict");
    let leader = nodes.iter().position(leads).unwrap();
    let term = nodes[leader].status().unwrap()["term"].clone();
    // In pieces that a judge can hold in mind.
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        let piece = Duration::from_secs(60).min(end - Instant::now());
        nodes = Load::during(folder.path(), nodes, |_| std::thread::sleep(piece));
        assert_eq!(nodes[leader].status().unwrap()["term"], term);
        assert!(leads(&nodes[leader]));
    }
}

#[test]
fn a_leader_that_is_stopped_in_order_has_a_successor_before_anybody_waits() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = three(folder.path(), "available");
    let leader = nodes.iter().position(leads).unwrap();
    nodes[leader].signal("-TERM");
    let others = || nodes.iter().enumerate().filter(|(at, _)| *at != leader).map(|(_, node)| node);
    until("another leads", &nodes, || others().any(leads));
    assert_eq!(others().next().unwrap().update("www"), Some(Rcode::NOERROR));
}
