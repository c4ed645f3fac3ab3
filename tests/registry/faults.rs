//! Three programs under load while one after another is killed, cut off, or has no room on its disk. After each: what was
//! acknowledged is at every node, and whoever ran all the time has answered every question.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use super::bed::{Node, Place, leads, three, three_at, until};
use funicular::wire::dns::Rcode;

/// Clients that write, each one host after another.
const WRITERS: usize = 2;
/// Between two questions to one node.
const BEAT: Duration = Duration::from_millis(10);

/// Nodes that are written to and asked while something happens to them.
struct Load {
    nodes: Vec<RwLock<Node>>,
    acknowledged: Mutex<BTreeSet<String>>,
    /// Questions answered, and those that a node did not answer although it ran all the time.
    answered: AtomicUsize,
    unanswered: AtomicUsize,
    over: AtomicBool,
}

impl Load {
    /// Lets `happen` while there is load; gives the nodes and what was acknowledged.
    fn during(nodes: Vec<Node>, happen: impl FnOnce(&Self)) -> (Vec<Node>, BTreeSet<String>) {
        let load = Self {
            nodes: nodes.into_iter().map(RwLock::new).collect(),
            acknowledged: Mutex::default(),
            answered: AtomicUsize::new(0),
            unanswered: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        };
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                scope.spawn({
                    let load = &load;
                    move || load.write(writer)
                });
            }
            for node in &load.nodes {
                scope.spawn(|| load.ask(node));
            }
            happen(&load);
            load.over.store(true, Ordering::Relaxed);
        });
        let (answered, unanswered) = (load.answered.into_inner(), load.unanswered.into_inner());
        assert!(unanswered == 0 && answered > 100, "{unanswered} questions were not answered, and {answered} were");
        (load.nodes.into_iter().map(RwLock::into_inner).collect(), load.acknowledged.into_inner())
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn write(&self, writer: usize) {
        for number in 0.. {
            let host = format!("w{writer}-{number}");
            for at in writer.. {
                if self.is_over() {
                    return;
                }
                // Adding what is there changes nothing, so who gets no answer asks the next node.
                let node = self.nodes[at % self.nodes.len()].read();
                if node.is_running() && node.update(&host) == Some(Rcode::NOERROR) {
                    self.acknowledged.lock().insert(host);
                    break;
                }
                drop(node);
                std::thread::sleep(BEAT);
            }
        }
    }

    fn ask(&self, node: &RwLock<Node>) {
        while !self.is_over() {
            {
                // Held for as long as the question takes, so that nobody kills the node meanwhile.
                let node = node.read();
                if node.is_running() {
                    let right = node.answer_to_datagram("ns1") == Some((Rcode::NOERROR, 1));
                    let count = if right { &self.answered } else { &self.unanswered };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
            std::thread::sleep(BEAT);
        }
    }

    fn leader(&self) -> Option<usize> {
        self.nodes.iter().position(|node| leads(&node.read()))
    }

    /// Waits until so many more writes were acknowledged than now.
    fn goes_on(&self, more: usize) {
        let (end, wanted) = (Instant::now() + Duration::from_secs(30), self.acknowledged.lock().len() + more);
        while self.acknowledged.lock().len() < wanted {
            assert!(Instant::now() < end, "writes do not go on");
            std::thread::sleep(BEAT);
        }
    }

    fn restart(&self, at: usize) {
        let mut node = self.nodes[at].write();
        node.start();
        let end = Instant::now() + Duration::from_secs(30);
        while node.answer_to_datagram("ns1") != Some((Rcode::NOERROR, 1)) {
            assert!(Instant::now() < end, "the node does not come back:\n{}", node.log());
            std::thread::sleep(BEAT);
        }
    }
}

/// Every node comes to have all of it.
fn all_have(nodes: &[Node], acknowledged: &BTreeSet<String>) {
    for host in acknowledged {
        until(host, nodes, || nodes.iter().all(|node| node.answer(host) == Some((Rcode::NOERROR, 1))));
    }
    let applied = |node: &Node| node.status().map(|status| status["applied_index"].clone());
    until("all have applied the same", nodes, || nodes.iter().all(|node| applied(node) == applied(&nodes[0])));
}

#[test]
fn nodes_that_are_killed_in_turns_under_load_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (nodes, acknowledged) = Load::during(three(folder.path(), "available"), |load| {
        for round in 0..6 {
            let leader = load.leader().unwrap_or(0);
            let victim = if round % 2 == 0 { leader } else { (leader + 1) % 3 };
            load.nodes[victim].write().kill();
            load.goes_on(10);
            load.restart(victim);
            load.goes_on(10);
        }
    });
    all_have(&nodes, &acknowledged);
}

/// Runs a program of the system, which must end well.
fn run(program: &str, arguments: &[&str]) {
    let told = Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(told.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&told.stderr));
}

/// A small file system; gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, size: &str) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let at = at.to_owned();
        run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", at.to_str().unwrap()]);
        Self(at)
    }

    fn fill(&self) {
        // Ends when there is no room any more.
        let mut zeros = std::fs::File::open("/dev/zero").unwrap();
        let mut ballast = std::fs::File::create(self.0.join("ballast")).unwrap();
        std::io::copy(&mut zeros, &mut ballast).unwrap_err();
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

#[test]
#[ignore = "needs CAP_SYS_ADMIN"]
fn a_node_whose_disk_is_full_answers_and_catches_up_once_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(&folder.path().join("state3"), "8m");
    let (nodes, acknowledged) = Load::during(three(folder.path(), "available"), |load| {
        load.goes_on(5);
        disk.fill();
        load.goes_on(30);
        disk.make_room();
        load.goes_on(5);
    });
    all_have(&nodes, &acknowledged);
    drop(nodes);
}

/// Three namespaces on one bridge; the test's own end of it can talk to all of them whatever is cut between them.
struct Net {
    /// Tells these from those of another run.
    tag: String,
    names: [String; 3],
}

impl Net {
    fn host(at: usize) -> Ipv6Addr {
        Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, at as u16 + 1)
    }

    fn new() -> Self {
        let tag = format!("{:x}", std::process::id());
        let net = Self { names: [0, 1, 2].map(|at| format!("raft-{tag}-{at}")), tag };
        let bridge = net.bridge();
        run("ip", &["link", "add", &bridge, "type", "bridge"]);
        run("ip", &["addr", "add", "fd77::ff/64", "dev", &bridge, "nodad"]);
        run("ip", &["link", "set", &bridge, "up"]);
        for (at, name) in net.names.iter().enumerate() {
            let (outside, address) = (format!("rf{}{at}", net.tag), format!("{}/64", Self::host(at)));
            run("ip", &["netns", "add", name]);
            run("ip", &["link", "add", &outside, "type", "veth", "peer", "name", "eth0", "netns", name]);
            run("ip", &["link", "set", &outside, "master", &bridge, "up"]);
            run("ip", &["-n", name, "link", "set", "lo", "up"]);
            run("ip", &["-n", name, "addr", "add", &address, "dev", "eth0", "nodad"]);
            run("ip", &["-n", name, "link", "set", "eth0", "up"]);
        }
        net
    }

    fn bridge(&self) -> String {
        format!("rf{}", self.tag)
    }

    fn places(&self) -> [Place<'_>; 3] {
        [0, 1, 2].map(|at| Place { host: Self::host(at), namespace: Some(&self.names[at]) })
    }

    /// From now on exactly these directions are cut.
    fn cut(&self, cut: impl Fn(usize, usize) -> bool) {
        for (to, name) in self.names.iter().enumerate() {
            let dropped: String = (0..3)
                .filter(|from| cut(*from, to))
                .map(|from| format!("add rule inet cut in ip6 saddr {} drop\n", Self::host(from)))
                .collect();
            let rules = format!(
                "add table inet cut\nadd chain inet cut in {{ type filter hook input priority 0; }}\nflush chain inet cut in\n\
                 {dropped}"
            );
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), rules).unwrap();
            run("ip", &["netns", "exec", name, "nft", "-f", file.path().to_str().unwrap()]);
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in &self.names {
            drop(Command::new("ip").args(["netns", "del", name]).status());
        }
        drop(Command::new("ip").args(["link", "del", &self.bridge()]).status());
    }
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn nodes_that_are_cut_off_from_each_other_lose_nothing_and_go_on_answering() {
    let net = Net::new();
    let folder = tempfile::tempdir().unwrap();
    let (nodes, acknowledged) = Load::during(three_at(folder.path(), "available", net.places()), |load| {
        load.goes_on(5);
        let leader = load.leader().unwrap_or(0);
        // A minority: whoever led is alone.
        net.cut(|from, to| from == leader || to == leader);
        load.goes_on(10);
        // One way: it hears, and is not heard; and then the other way round.
        net.cut(|from, _| from == leader);
        load.goes_on(10);
        let leader = load.leader().unwrap_or(0);
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
    });
    all_have(&nodes, &acknowledged);
    drop(nodes);
}
