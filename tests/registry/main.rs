//! The registry as three programs hold it: `funicular peak`, three times, over TLS, with a process killed.

#![allow(clippy::unwrap_used, reason = "a test that meets an error ends there")]

mod bed;
mod faults;
#[allow(dead_code, reason = "the judge of the simulation, which uses all of it")]
#[path = "../raft/linear.rs"]
mod linear;
mod load;
mod members;

use std::process::{Command, Output};
use std::time::Instant;

use bed::{Node, leads, three, until};
use funicular::wire::dns::Rcode;

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
    until("another leads and takes a write", &nodes, || nodes[other].update("after") == Some(Rcode::NOERROR));
    println!("the leader was killed, and {} ms later a write was acknowledged", killed.elapsed().as_millis());
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
    assert!(String::from_utf8_lossy(&restored.stdout).contains("2 zones"), "{restored:?}");
}
