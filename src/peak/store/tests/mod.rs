//! The store as three nodes have it together, over loopback.

mod disk;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep, timeout};

use super::types::Metrics;
use super::*;
use crate::model::Name;
use crate::model::registry::{Command, FIRST_SCHEMA, Op, Reads, Reply, ZoneUpdate};
use crate::model::zone::{Change, Entry, Update};
use crate::ops::{clock, entropy};

fn folder(path: &Path) -> Arc<dyn Disk> {
    Arc::new(Folder::open(path.to_owned()).unwrap())
}

/// A node of its own, over loopback.
struct Running {
    scratch: Arc<TempDir>,
    address: SocketAddr,
    store: Store,
    serving: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn start() -> Self {
        Self::at("[::1]:0".parse().unwrap(), Arc::new(tempfile::tempdir().unwrap())).await
    }

    async fn at(address: SocketAddr, scratch: Arc<TempDir>) -> Self {
        Self::of(address, scratch, Vec::new(), SCHEMA).await
    }

    /// With these peers, by a program that knows this schema.
    async fn of(address: SocketAddr, scratch: Arc<TempDir>, peers: Vec<String>, schema: u8) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let cluster = Arc::new(Mutex::new(0));
        let links = Links::new(None, Arc::clone(&cluster));
        let opening = Opening {
            disk: folder(scratch.path()),
            seed: Seed(address.port().into()),
            address: address.to_string(),
            network: Arc::new(links.clone()),
            show: Box::new(|_, _| {}),
            clock: clock::millis,
            draw: entropy::draw,
            cluster,
            keep: Keep::default(),
            peers,
            schema,
        };
        let store = Store::open(opening).await.unwrap();
        links.introduce(store.status().node);
        let serving = tokio::spawn(serve(listener, None, store.node()));
        Self { scratch, address, store, serving }
    }

    /// Without a word: nobody answers there any more.
    async fn stop(self) -> (SocketAddr, Arc<TempDir>) {
        self.serving.abort();
        self.store.stop().await;
        (self.address, self.scratch)
    }

    async fn joins(&self, member: &Self) {
        let joined = async {
            while self.store.join(&member.address.to_string()).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(60), joined).await.unwrap();
    }

    async fn add(&self, host: &str) -> Reply {
        self.store.propose(Command { request: None, op: add(host) }).await.unwrap()
    }
}

async fn three() -> [Running; 3] {
    let nodes = [Running::start().await, Running::start().await, Running::start().await];
    nodes[0].store.propose(Command { request: None, op: create() }).await.unwrap().unwrap();
    for node in &nodes[1..] {
        node.joins(&nodes[0]).await;
    }
    nodes
}

fn name(text: &str) -> Name {
    Name::parse(text, &"shop.peak.".parse().unwrap()).unwrap()
}

fn entry(at: &str, rtype: u16, rdata: &[u8]) -> Entry {
    Entry { name: name(at), rtype, ttl: 60, rdata: rdata.into() }
}

fn create() -> Op {
    let numbers = [7_u32, 3600, 600, 86400, 30].map(u32::to_be_bytes).concat();
    let soa = [name("ns1").wire(), name("admin").wire(), &numbers].concat();
    let entries = vec![entry("@", 6, &soa), entry("@", 2, name("ns1").wire()), entry("ns1", 1, &[192, 0, 2, 1])];
    Op::Create { apex: name("@"), reads: Reads::Available, entries }
}

fn add(host: &str) -> Op {
    let changes = vec![Change::Add(entry(host, 1, &[192, 0, 2, 9]))];
    Op::Update(vec![ZoneUpdate { zone: name("@"), update: Update { prerequisites: vec![], changes } }])
}

fn has(store: &Store, host: &str) -> bool {
    store.read(|registry| registry.zone(&name("@")).is_some_and(|held| held.zone().node(&name(host)).is_some()))
}

/// Waits until it holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < end, "not in time: {what}");
        sleep(Duration::from_millis(2)).await;
    }
}

fn registry_octets(store: &Store) -> Vec<u8> {
    store.read(|registry| {
        let mut octets = Vec::new();
        let Ok::<(), std::convert::Infallible>(()) = registry.encode(|piece| {
            octets.extend_from_slice(piece);
            Ok(())
        });
        octets
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_grows_to_three_and_any_of_them_takes_a_write() {
    let nodes = three().await;
    for (at, node) in nodes.iter().enumerate() {
        node.add(&format!("www{at}")).await.unwrap();
    }
    for node in &nodes {
        node.store.read_index().await.unwrap();
        assert!((0..3).all(|at| has(&node.store, &format!("www{at}"))));
        assert_eq!(node.store.status().members.iter().filter(|member| member.voter).count(), 3);
    }
    let octets = registry_octets(&nodes[0].store);
    for node in &nodes[1..] {
        assert_eq!(registry_octets(&node.store), octets);
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stops_has_a_successor_and_comes_back_with_all_it_had() {
    let mut nodes = Vec::from(three().await);
    let leader = nodes[1].store.status().leader.unwrap();
    let at = nodes.iter().position(|node| node.store.status().node == leader).unwrap();
    let (address, scratch) = nodes.remove(at).stop().await;
    nodes[0].add("after").await.unwrap();
    let back = Running::at(address, scratch).await;
    until("the node has what it missed", || has(&back.store, "after")).await;
    nodes.push(back);
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_reads_go_on_and_writes_have_one_clear_error() {
    let [first, second, third] = three().await;
    first.add("before").await.unwrap();
    until("it is everywhere", || has(&third.store, "before")).await;
    first.stop().await;
    second.stop().await;
    let command = Command { request: None, op: add("never") };
    let error = third.store.propose(command).await.unwrap_err();
    assert_eq!(error.reason(), "no-leader");
    assert_eq!(third.store.strict_until(), None);
    assert!(has(&third.store, "before") && !has(&third.store, "never"));
    assert!(third.store.status().stale_ms >= 1_000);
    third.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_of_a_cluster_recovers_and_a_backup_restores() {
    let [first, second, third] = three().await;
    first.add("kept").await.unwrap();
    until("it is everywhere", || has(&third.store, "kept")).await;
    let (octets, backup) = (registry_octets(&third.store), third.store.backup());
    let before = third.store.node().cluster();
    first.stop().await;
    second.stop().await;
    let (address, scratch) = third.stop().await;
    let rescued = recover(scratch.path(), &address.to_string(), 77).unwrap();
    assert_eq!(rescued.zones, 1);
    // Twice does no harm.
    assert_eq!(recover(scratch.path(), &address.to_string(), 77).unwrap().zones, 1);
    let alone = Running::at(address, scratch).await;
    assert_eq!(registry_octets(&alone.store), octets);
    alone.add("afterwards").await.unwrap();
    assert_ne!(alone.store.node().cluster(), before);
    alone.stop().await;

    let (file, empty) = (tempfile::NamedTempFile::new().unwrap(), Arc::new(tempfile::tempdir().unwrap()));
    std::fs::write(file.path(), &backup).unwrap();
    restore(file.path(), empty.path(), &address.to_string(), entropy::draw).unwrap();
    let again = restore(file.path(), empty.path(), &address.to_string(), entropy::draw).unwrap_err();
    assert_eq!(again.reason(), "rescue-not-empty");
    let restored = Running::at(address, empty).await;
    assert_eq!(registry_octets(&restored.store), octets);
    restored.add("afterwards").await.unwrap();
    restored.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_long_away_is_sent_a_snapshot() {
    let [first, second, third] = three().await;
    let (address, scratch) = third.stop().await;
    for at in 0..50 {
        first.add(&format!("host{at}")).await.unwrap();
    }
    for node in [&first, &second] {
        node.store.node().raft().trigger().snapshot().await.unwrap();
        until("a snapshot is made", || node.store.status().snapshot_index > 40).await;
        let index = node.store.status().snapshot_index;
        let (end, mut more) = (Instant::now() + Duration::from_secs(60), 0);
        // What is on its way to the node that is away is not cut, and looked at again with the next entry.
        while node.store.node().log().first_index() <= 40 {
            assert!(Instant::now() < end, "the log is not cut");
            node.store.node().raft().trigger().purge_log(index).await.unwrap();
            first.add(&format!("more{more}")).await.unwrap();
            more += 1;
        }
    }
    let back = Running::at(address, scratch).await;
    until("the snapshot is there", || has(&back.store, "host49")).await;
    until("the node says so", || back.store.status().snapshot_index > 40).await;
    until("all have the same", || registry_octets(&back.store) == registry_octets(&first.store)).await;
    for node in [first, second, back] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_is_taken_out_and_a_stranger_is_not_let_in() {
    let [first, second, third] = three().await;
    let dead = third.store.status().node;
    third.stop().await;
    second.store.leave(dead).await.unwrap();
    until("two are left", || first.store.status().members.len() == 2).await;
    assert_eq!(second.store.leave(dead).await.unwrap_err().reason(), "no-member");
    let other = Running::start().await;
    other.store.propose(Command { request: None, op: create() }).await.unwrap().unwrap();
    assert_eq!(other.store.join(&first.address.to_string()).await.unwrap_err().reason(), "member-unreached");
    for node in [first, second, other] {
        node.stop().await;
    }
}

/// Begins to take one of the others out, and is gone when the first half of it is agreed on.
async fn leaves_half(leader: &Node, gone: NodeId) {
    let is_joint = |now: &Metrics| now.membership_config.membership().get_joint_config().len() > 1;
    let mut metrics = leader.watch_metrics();
    tokio::select! {
        biased;
        begun = metrics.wait_for(is_joint) => drop(begun.unwrap()),
        told = leader.leave(gone) => panic!("it was one step: {told:?}"),
    }
    drop(metrics.wait_for(|now| now.last_applied >= *now.membership_config.log_id()).await.unwrap());
    assert!(is_joint(&leader.metrics()) && leader.leads_until().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_is_left_half_done_is_finished_by_whoever_leads() {
    for leader_stops in [false, true] {
        let mut nodes = Vec::from(three().await);
        let leader = nodes[1].store.status().leader.unwrap();
        let at = nodes.iter().position(|node| node.store.status().node == leader).unwrap();
        leaves_half(&nodes[at].store.node(), nodes[(at + 1) % 3].store.status().node).await;
        if leader_stops {
            let (address, scratch) = nodes.remove(at).stop().await;
            nodes.push(Running::at(address, scratch).await);
        }
        until("two are left, and a majority is one of them", || {
            nodes.iter().any(|node| {
                let status = node.store.status();
                status.part == Part::Leader && status.members.len() == 2 && node.store.strict_until().is_some()
            })
        })
        .await;
        for node in nodes {
            node.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zone_larger_than_one_heartbeat_carries_reaches_all_nodes() {
    let nodes = three().await;
    let hosts = (0..20_000).map(|host| entry(&format!("host{host}"), 1, &[10, 0, (host >> 8) as u8, host as u8]));
    let Op::Create { entries, .. } = create() else { panic!("no zone") };
    let import = Op::Import { apex: name("@"), entries: entries.into_iter().chain(hosts).collect() };
    nodes[1].store.propose(Command { request: None, op: import }).await.unwrap().unwrap();
    for node in &nodes {
        until("the zone is there", || has(&node.store, "host19999")).await;
    }
    for node in nodes {
        node.stop().await;
    }
}

/// Addresses where nobody listens now.
fn addresses<const N: usize>() -> [SocketAddr; N] {
    let held: Vec<_> = (0..N).map(|_| std::net::TcpListener::bind("[::1]:0").unwrap()).collect();
    std::array::from_fn(|at| held[at].local_addr().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_nodes_that_name_the_same_peers_make_one_cluster_once_all_are_there() {
    let (addresses, folders) = (addresses::<3>(), [(); 3].map(|()| Arc::new(tempfile::tempdir().unwrap())));
    let peers: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    let start = |at: usize| Running::of(addresses[at], Arc::clone(&folders[at]), peers.clone(), SCHEMA);
    let first = start(0).await;
    let second = start(1).await;
    let settling =
        [first.store.clone(), second.store.clone()].map(|store| tokio::spawn(async move { store.settle().await }));
    // The third may belong to a cluster, for all that the others know.
    let early = first.store.propose(Command { request: None, op: create() }).await;
    assert_eq!(early.unwrap_err().reason(), "no-leader");
    let third = start(2).await;
    timeout(Duration::from_secs(60), third.store.settle()).await.unwrap();
    for settled in settling {
        timeout(Duration::from_secs(60), settled).await.unwrap().unwrap();
    }
    second.store.propose(Command { request: None, op: create() }).await.unwrap().unwrap();
    let cluster = first.store.node().cluster();
    for node in [&first, &second, &third] {
        until("all three vote", || node.store.status().members.iter().filter(|member| member.voter).count() == 3).await;
        assert_eq!(node.store.node().cluster(), cluster);
    }
    // Whoever lost its disk is not the first of a new cluster, although it is the first of the list.
    let lost = first.store.status().node;
    first.stop().await;
    second.store.leave(lost).await.unwrap();
    let again = Running::of(addresses[0], Arc::new(tempfile::tempdir().unwrap()), peers.clone(), SCHEMA).await;
    timeout(Duration::from_secs(60), again.store.settle()).await.unwrap();
    assert_eq!(again.store.node().cluster(), cluster);
    for node in [again, second, third] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_of_two_schemas_live_together_and_nobody_meets_what_it_does_not_know() {
    let nodes = three_with_one_of(FIRST_SCHEMA).await;
    let newer = || Command { request: None, op: Op::Leases(vec![]) };
    for node in &nodes {
        node.add("www").await.unwrap();
        let refused = node.store.propose(newer()).await.unwrap_err();
        assert_eq!(refused, ProposeError::Schema { needs: 2, knows: FIRST_SCHEMA });
        assert_eq!(node.store.read(Registry::schema), FIRST_SCHEMA);
    }
    let [first, second, old] = nodes;
    // Its program is renewed, and it says so by itself.
    let (address, scratch) = old.stop().await;
    let renewed = Running::at(address, scratch).await;
    timeout(Duration::from_secs(60), renewed.store.settle()).await.unwrap();
    second.store.propose(newer()).await.unwrap().unwrap();
    until("it is everywhere", || [&first, &second, &renewed].iter().all(|node| node.store.read(Registry::schema) == 2))
        .await;
    // From here on there is no way back for a program that does not know it.
    let late =
        Running::of("[::1]:0".parse().unwrap(), Arc::new(tempfile::tempdir().unwrap()), vec![], FIRST_SCHEMA).await;
    let refused = late.store.join(&first.address.to_string()).await.unwrap_err();
    assert!(["schema-not-everywhere", "not-leader"].contains(&refused.reason()), "{refused}");
    for node in [first, second, renewed, late] {
        node.stop().await;
    }
}

/// Three nodes, the last by a program that knows this schema.
async fn three_with_one_of(schema: u8) -> [Running; 3] {
    let scratch = || Arc::new(tempfile::tempdir().unwrap());
    let old = Running::of("[::1]:0".parse().unwrap(), scratch(), vec![], schema).await;
    let nodes = [Running::start().await, Running::start().await, old];
    nodes[0].store.propose(Command { request: None, op: create() }).await.unwrap().unwrap();
    for node in &nodes[1..] {
        node.joins(&nodes[0]).await;
    }
    nodes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_followed_says_so_to_who_would_vote() {
    let nodes = three().await;
    until("one leads", || nodes.iter().any(|node| node.store.leadership().borrow().is_me)).await;
    for node in &nodes {
        // However long the other's log is.
        let told = node.store.node().answer(Ask::WouldVote { last: node.store.0.node.last() }).await;
        match node.store.leadership().borrow().is_me {
            true => assert!(matches!(told, Tell::Leads), "{told:?}"),
            false => assert!(matches!(told, Tell::WouldVote(_)), "{told:?}"),
        }
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_took_a_write_shows_it_when_it_is_acknowledged() {
    let nodes = three().await;
    for at in 0..200 {
        let (node, host) = (&nodes[at % 3], format!("host{at}"));
        node.add(&host).await.unwrap();
        assert!(has(&node.store, &host), "{host} at node {}", at % 3);
    }
    for node in nodes {
        node.stop().await;
    }
}
