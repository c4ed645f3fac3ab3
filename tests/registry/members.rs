//! The life of a cluster as people have it: it begins with one command, grows, changes its certificates and its machines.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use funicular::wire::dns::Rcode;

use super::bed::{Node, Place, answer_to_datagram, certificates, leads, ports, prepare, three, until, voters};

fn funicular(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_funicular")).args(arguments).output().unwrap()
}

fn succeeds(arguments: &[&str]) -> String {
    let told = funicular(arguments);
    assert!(told.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&told.stderr));
    String::from_utf8_lossy(&told.stdout).into_owned()
}

#[test]
fn three_nodes_that_are_started_alike_are_a_cluster() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    // The same list for everybody, and nobody is the first to be started.
    let rafts = ports::<3>().map(|port| SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
    let nodes: Vec<Node> =
        [2, 0, 1].map(|at| Node::at(folder.path(), at + 1, "available", Place::here(), rafts[at], &rafts)).into();
    until("all three vote", &nodes, || nodes.iter().all(|node| voters(node) == 3));
    until("a write is taken", &nodes, || nodes[0].update("www") == Some(Rcode::NOERROR));
    until("all have it", &nodes, || nodes.iter().all(|node| node.answer("www") == Some((Rcode::NOERROR, 1))));
    let shown = succeeds(&["peak", "status", "-o", "json", "--admin", &nodes[1].admin.to_string()]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    for key in ["leader", "term", "stale_ms", "log_octets", "snapshot_octets", "applied_index", "schema"] {
        assert!(shown[key].is_u64(), "{key} of {shown:#}");
    }
    assert_eq!(shown["members"].as_array().unwrap().len(), 3);
}

#[test]
fn certificates_are_read_again_while_everything_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut nodes = three(folder.path(), "available");
    // Others, by an authority that nobody has heard of.
    certificates(folder.path());
    // One is told; the others see it.
    nodes[0].signal("-HUP");
    assert_eq!(nodes[0].update("meanwhile"), Some(Rcode::NOERROR));
    // Who is started anew knows only the new ones; without them the others would not talk to it.
    let back = (nodes.iter().position(leads).unwrap() + 1) % 3;
    nodes[back].kill();
    nodes[back].start();
    until("it has what was written", &nodes, || nodes[back].answer("meanwhile") == Some((Rcode::NOERROR, 1)));
    until("it takes writes", &nodes, || nodes[back].update("afterwards") == Some(Rcode::NOERROR));
}

#[test]
fn a_dead_node_is_replaced_by_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut nodes = three(folder.path(), "available");
    assert_eq!(nodes[0].update("kept"), Some(Rcode::NOERROR));
    let dead = nodes[2].status().unwrap()["node"].to_string();
    nodes[2].kill();
    std::fs::remove_dir_all(&nodes[2].state).unwrap();
    let admin = nodes[0].admin.to_string();
    succeeds(&["peak", "leave", &dead, "--admin", &admin]);
    assert!(!succeeds(&["peak", "status", "--admin", &admin]).contains(&dead));
    // The same configuration on another machine, with nothing on its disk.
    nodes[2].start();
    until("the new one votes", &nodes, || nodes.iter().all(|node| voters(node) == 3));
    assert_eq!(nodes[2].answer("kept"), Some((Rcode::NOERROR, 1)));
    assert_ne!(nodes[2].status().unwrap()["node"].to_string(), dead);
}

#[test]
fn a_node_that_comes_back_without_its_disk_takes_the_place_it_had() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let rafts = ports::<3>().map(|port| SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
    let mut nodes: Vec<Node> =
        (0..3).map(|at| Node::at(folder.path(), at + 1, "available", Place::here(), rafts[at], &rafts)).collect();
    until("all three vote", &nodes, || nodes.iter().all(|node| voters(node) == 3));
    until("a write is taken", &nodes, || nodes[0].update("kept") == Some(Rcode::NOERROR));
    // One disk after another, the leader's among them, until none of the first is left.
    for at in 0..3 {
        let numbers = |node: &Node| -> Vec<u64> {
            let members = node.status().and_then(|status| status["members"].as_array().cloned()).unwrap_or_default();
            members.iter().filter_map(|member| member["node"].as_u64()).collect()
        };
        let lost = nodes[at].status().unwrap()["node"].as_u64().unwrap();
        nodes[at].kill();
        std::fs::remove_dir_all(&nodes[at].state).unwrap();
        nodes[at].start();
        until("the new one votes in its place", &nodes, || {
            nodes.iter().all(|node| voters(node) == 3 && numbers(node).len() == 3 && !numbers(node).contains(&lost))
        });
        until("it has what was written", &nodes, || nodes[at].answer("kept") == Some((Rcode::NOERROR, 1)));
        until("it takes writes", &nodes, || nodes[at].update(&format!("after{at}")) == Some(Rcode::NOERROR));
    }
    until("nothing is lost", &nodes, || {
        let has = |node: &Node, host: &str| node.answer(host) == Some((Rcode::NOERROR, 1));
        nodes.iter().all(|node| ["kept", "after0", "after1", "after2"].iter().all(|host| has(node, host)))
    });
}

/// A node that is told nothing but which ports are free here.
struct Bare {
    process: Child,
    dns: SocketAddr,
    api: String,
    raft: SocketAddr,
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Bare {
    fn start(folder: &Path, [dns, raft, api, admin, metrics]: [u16; 5], join: Option<SocketAddr>) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let at = |port: u16| SocketAddr::from((Ipv6Addr::LOCALHOST, port));
        let mut command = Command::new(env!("CARGO_BIN_EXE_funicular"));
        command.arg("peak").current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(std::fs::File::create(folder.join("log")).unwrap());
        for (key, port) in [
            ("LISTEN", dns),
            ("CLUSTER_LISTEN", raft),
            ("API_LISTEN", api),
            ("ADMIN_LISTEN", admin),
            ("ADMIN_METRICS", metrics),
        ] {
            command.env(format!("FUNICULAR_{key}"), at(port).to_string());
        }
        if let Some(join) = join {
            command.env("FUNICULAR_CLUSTER_JOIN", format!("[\"{join}\"]"));
        }
        Self { process: command.spawn().unwrap(), dns: at(dns), api: format!("http://{}", at(api)), raft: at(raft) }
    }

    fn has(&self, name: &str) -> bool {
        answer_to_datagram(self.dns, name) == Some((Rcode::NOERROR, 1))
    }
}

#[test]
fn a_node_without_configuration_takes_records_and_grows_to_three_without_losing_any() {
    let folder = tempfile::tempdir().unwrap();
    let zone = folder.path().join("shop.zone");
    std::fs::write(&zone, "$TTL 60\n@ SOA ns1 admin 7 3600 600 86400 30\n@ NS ns1\nns1 AAAA ::1\n").unwrap();
    let (home, own) = (folder.path().join("1"), ports());
    let first = Bare::start(&home, own, None);
    until("it takes a zone", &[], || {
        funicular(&["record", "import", "shop.peak", zone.to_str().unwrap(), "--server", &first.api]).status.success()
    });
    succeeds(&["record", "add", "shop.peak", "www", "AAAA", "2001:db8::1", "--server", &first.api]);
    until("it answers", &[], || first.has("www.shop.peak."));
    let others = ["2", "3"].map(|number| Bare::start(&folder.path().join(number), ports(), Some(first.raft)));
    for other in &others {
        until("the others have it", &[], || other.has("www.shop.peak."));
    }
    until("the others take writes", &[], || {
        let add = ["record", "add", "shop.peak", "more", "AAAA", "2001:db8::2", "--server", &others[1].api];
        funicular(&add).status.success()
    });
    // Without the first, and its disk.
    drop(first);
    std::fs::remove_dir_all(home.join("funicular-state")).unwrap();
    until("the others go on without it", &[], || {
        let add = ["record", "add", "shop.peak", "last", "AAAA", "2001:db8::3", "--server", &others[0].api];
        funicular(&add).status.success()
    });
    for name in ["www.shop.peak.", "more.shop.peak.", "last.shop.peak."] {
        until(name, &[], || others.iter().all(|other| other.has(name)));
    }
}

#[test]
fn what_people_do_with_records_at_the_command_line_is_in_the_registry_and_comes_back_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let zone = folder.path().join("shop.zone");
    let file = zone.to_str().unwrap();
    std::fs::write(&zone, "$TTL 60\n@ SOA ns1 admin 7 3600 600 86400 30\n@ NS ns1\nns1 AAAA ::1\n").unwrap();
    let peak = Bare::start(&folder.path().join("1"), ports(), None);
    let server = ["--server", peak.api.as_str()];
    let tried = |arguments: &[&str]| funicular(&[&["record"][..], arguments, &server].concat());
    let done = |arguments: &[&str]| succeeds(&[&["record"][..], arguments, &server].concat());
    until("it takes a zone", &[], || tried(&["import", "shop.peak", file]).status.success());
    done(&["add", "shop.peak", "www", "AAAA", "2001:db8::1"]);
    done(&["add", "shop.peak", "www", "AAAA", "2001:db8::2"]);
    let both = done(&["export", "shop.peak"]);
    done(&["add", "shop.peak", "www", "AAAA", "2001:db8::2"]);
    assert_eq!(done(&["export", "shop.peak"]), both, "what is there already changes nothing");
    let swap = ["replace", "shop.peak", "www", "AAAA", "2001:db8::3", "--if", "2001:db8::1", "--if", "2001:db8::2"];
    done(&swap);
    assert_eq!(tried(&swap).status.code(), Some(1), "the set is another now");
    let listed = done(&["list", "shop.peak", "www", "AAAA"]);
    assert!(listed.contains("2001:db8::3") && !listed.contains("2001:db8::1"), "{listed}");
    done(&["remove", "shop.peak", "www", "--all"]);
    assert!(!done(&["export", "shop.peak"]).contains("2001:db8"));
    std::fs::write(&zone, both).unwrap();
    done(&["import", "shop.peak", file]);
    let listed = done(&["list", "shop.peak", "www", "AAAA"]);
    assert!(listed.contains("2001:db8::1") && listed.contains("2001:db8::2"), "{listed}");
}
