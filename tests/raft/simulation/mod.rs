//! Thousands of short lives of a registry of several nodes, each with its own misfortunes, each repeatable by its number.
//!
//! The nodes are the real store with its real log, snapshots and elections; the disk, the network, the clocks and time
//! itself are stood in for, and everything that is left to chance follows from one number. In a run clients write and
//! read while nodes are cut off, stop, lose what they had not synced, fill up, come back. Then everything is mended, and:
//!
//! - every node comes to hold the same, to the octet, and no change of the members is left half done;
//! - the history of strict operations could be that of one register for each set (`linear`): so no acknowledged write is
//!   lost and none was made twice;
//! - the zone's serial has grown by one for each change, not more often;
//! - a node that runs has never stopped answering from what it has.
//!
//! `FUNICULAR_SIM_SEED=n cargo test --test raft thousands` replays number n and tells what happens;
//! `FUNICULAR_SIM_SEEDS=from..to` runs others.

mod client;
mod disk;
mod fate;
mod network;
mod random;

use std::sync::Arc;
use std::time::Duration;

use funicular::model::registry::{Command, Registry, SCHEMA};
use funicular::model::zone::Seed;
use funicular::peak::store::{Keep, Opening, Store};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use crate::linear::{self, Answer, Call, Operation};
use client::{History, Nodes};
use disk::Platter;
use network::Wire;

/// Runs in `tests/run`.
const SEEDS: std::ops::Range<u64> = 0..2_000;
/// Clients of a run.
const CLIENTS: usize = 3;
/// What stays of the log, as of a real one: no snapshot is made in so short a life.
const LONG: Keep = Keep { octets: 32 << 20, entries: 2_000 };
/// So little that snapshots are made all the time, and sent to whoever was away. Every eighth life, as they take longer.
const SHORT: Keep = Keep { octets: 6_000, entries: 20 };
/// How long a run goes on before everything is mended.
const LIFE: Duration = Duration::from_millis(2_000);
/// How long the nodes may take to agree again afterwards. The weather may have taken a part of a snapshot, for whose answer
/// a leader waits for a minute.
const MENDED: Duration = Duration::from_secs(180);

/// What is wrong with a run.
type Wrong = String;

/// One machine: its disk, and the node that runs on it.
struct Machine {
    platter: Platter,
    life: u64,
    /// The serial that the node has shown, in this life.
    shown: Option<u32>,
}

/// All machines of a run.
struct World {
    machines: Vec<Machine>,
    nodes: Nodes,
    wire: Wire,
    history: Arc<History>,
    keep: Keep,
    talkative: bool,
}

/// Nodes hold the wire and the wire holds nodes, until somebody lets go.
impl Drop for World {
    fn drop(&mut self) {
        (0..self.machines.len()).for_each(|at| self.wire.stop(at));
    }
}

impl World {
    fn new(machines: usize, keep: Keep, talkative: bool) -> Self {
        let machine = |_| Machine { platter: Platter::default(), life: 0, shown: None };
        Self {
            machines: (0..machines).map(machine).collect(),
            nodes: Arc::new(Mutex::new(vec![None; machines])),
            wire: Wire::new(),
            history: Arc::default(),
            keep,
            talkative,
        }
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if self.talkative {
            eprintln!("{:>8} ms  {}", random::elapsed().as_millis(), what());
        }
    }

    fn store(&self, at: usize) -> Option<Store> {
        self.nodes.lock()[at].clone()
    }

    fn is_running(&self, at: usize) -> bool {
        self.nodes.lock()[at].is_some()
    }

    async fn start(&mut self, at: usize) -> Result<(), Wrong> {
        let machine = &mut self.machines[at];
        machine.life += 1;
        machine.shown = None;
        let cluster = Arc::new(Mutex::new(0));
        let opening = Opening {
            disk: machine.platter.mount(),
            seed: Seed(at as u64),
            address: network::address(at),
            network: self.wire.port(at, machine.life, Arc::clone(&cluster)),
            show: Box::new(|_, _| {}),
            clock: random::clock,
            draw: random::draw,
            cluster,
            keep: self.keep,
            peers: Vec::new(),
            schema: SCHEMA,
        };
        let (life, wire) = (machine.life, self.wire.clone());
        let store = match Store::open(opening).await {
            Ok(store) => store,
            // The machine has stopped while it started, or nothing can be written: it is started again later.
            Err(_) if machine.platter.has_stopped() || machine.platter.is_full() => {
                machine.platter.lose_power();
                return Ok(());
            }
            Err(error) => return Err(format!("node {at} does not start: {error}")),
        };
        wire.start(at, life, store.node());
        self.nodes.lock()[at] = Some(store);
        self.tell(|| format!("node {at} starts"));
        Ok(())
    }

    /// The machine stops at once.
    async fn kill(&mut self, at: usize) {
        let Some(store) = self.nodes.lock()[at].take() else { return };
        self.wire.stop(at);
        self.machines[at].platter.lose_power();
        self.tell(|| format!("node {at} is killed"));
        // What is left of it runs against a wall: it has neither a disk nor a network any more.
        drop(tokio::spawn(async move { store.stop().await }));
    }

    /// Who leads, by what most nodes believe first.
    fn leader(&self) -> Option<usize> {
        let nodes = self.nodes.lock();
        nodes.iter().position(|store| store.as_ref().is_some_and(|store| store.leadership().borrow().is_me))
    }

    /// How all nodes are, for people.
    fn states(&self) -> String {
        let state = |at| self.store(at).map_or("not there".to_owned(), |store| format!("{:?}", store.status()));
        (0..self.machines.len()).map(state).collect::<Vec<_>>().join("\n")
    }

    /// Looks at every node as questions to `available` zones do.
    fn look(&mut self) -> Result<(), Wrong> {
        for at in 0..self.machines.len() {
            let Some(store) = self.store(at) else { continue };
            let serial = store.read(|registry| registry.zone(&client::apex()).map(|held| held.zone().serial()));
            let shown = self.machines[at].shown;
            if shown.is_some() && serial < shown {
                return Err(format!("node {at} has shown serial {shown:?}, and then {serial:?}"));
            }
            self.machines[at].shown = serial;
        }
        Ok(())
    }

    /// Every machine whose fuse has burnt down is off; it is found so now.
    async fn find_stopped(&mut self) {
        for at in 0..self.machines.len() {
            if self.machines[at].platter.has_stopped() && self.is_running(at) {
                self.kill(at).await;
            }
        }
    }
}

fn octets(registry: &Registry) -> Vec<u8> {
    let mut octets = Vec::new();
    let Ok::<(), std::convert::Infallible>(()) = registry.encode(|piece| {
        octets.extend_from_slice(piece);
        Ok(())
    });
    octets
}

/// What a run came to, for comparing two of one number.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Came {
    history: Vec<Operation>,
    octets: Vec<u8>,
}

/// One run.
fn live(seed: u64, talkative: bool) -> Result<Came, Wrong> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        random::begin(seed);
        let nodes = if random::chance(150) { 5 } else { 3 };
        let mut world = World::new(nodes, if seed % 8 == 1 { SHORT } else { LONG }, talkative);
        grow(&mut world).await?;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| tokio::spawn(client::run(Arc::clone(&world.nodes), Arc::clone(&world.history))))
            .collect();
        fate::strike(&mut world, LIFE).await?;
        for client in &clients {
            client.abort();
        }
        for client in clients {
            if let Err(error) = client.await
                && error.is_panic()
            {
                return Err(format!("a client was told something strange: {error}"));
            }
        }
        settle(&mut world).await
    })
}

/// One node begins, the others join. Now and then the one that takes the last of them in stops over it.
async fn grow(world: &mut World) -> Result<(), Wrong> {
    let all = world.machines.len();
    for at in 0..all {
        world.start(at).await?;
    }
    let first = world.store(0).ok_or("the first node is not there")?;
    let created = first.propose(Command { request: None, op: client::create() }).await;
    created.map_err(|error| error.to_string())?.map_err(|refused| refused.to_string())?;
    for at in 1..all {
        let store = world.store(at).ok_or("a node is not there")?;
        let votes = |store: &Store| {
            let status = store.status();
            status.members.iter().any(|member| member.node == status.node && member.voter)
        };
        let joining = tokio::spawn(timeout(MENDED, async move {
            while store.join(&network::address(0)).await.is_err() && !votes(&store) {
                sleep(Duration::from_millis(50)).await;
            }
        }));
        if at + 1 == all && random::chance(250) {
            sleep(Duration::from_millis(random::between(0, 40))).await;
            world.kill(0).await;
            sleep(Duration::from_millis(random::between(0, 400))).await;
            world.start(0).await?;
        }
        let joined = joining.await.map_err(|error| format!("node {at} joins: {error}"))?;
        joined.map_err(|_| format!("node {at} does not join:\n{}", world.states()))?;
    }
    Ok(())
}

/// Everything is mended; what is left is judged.
async fn settle(world: &mut World) -> Result<Came, Wrong> {
    world.tell(|| "everything is mended".to_owned());
    world.wire.cut(|_, _| false);
    world.wire.set_weather(network::Weather::FAIR);
    let all = world.machines.len();
    for at in 0..all {
        world.machines[at].platter.fill(false);
        world.find_stopped().await;
        if !world.is_running(at) {
            // A fuse may stop it once more.
            for _ in 0..3 {
                world.start(at).await?;
                if world.is_running(at) {
                    break;
                }
            }
        }
    }
    let end = Instant::now() + MENDED;
    loop {
        world.find_stopped().await;
        for at in 0..all {
            if !world.is_running(at) {
                world.start(at).await?;
            }
        }
        let octets: Vec<Vec<u8>> = (0..all).filter_map(|at| world.store(at)).map(|store| store.read(octets)).collect();
        let led = match world.store(0) {
            Some(store) => timeout(Duration::from_secs(1), store.read_index()).await.is_ok_and(|read| read.is_ok()),
            None => false,
        };
        // By its lease: a leader in the middle of a change of members has none.
        let led = led && (0..all).filter_map(|at| world.store(at)).any(|store| store.strict_until().is_some());
        if led && octets.len() == all && octets.iter().all(|other| *other == octets[0]) {
            break;
        }
        if Instant::now() > end {
            return Err(format!("the nodes do not agree again:\n{}", world.states()));
        }
        sleep(Duration::from_millis(50)).await;
    }
    world.look()?;
    judge(world)
}

fn judge(world: &World) -> Result<Came, Wrong> {
    let store = world.store(0).ok_or("the first node is not there")?;
    for register in 0..client::REGISTERS {
        world.history.end_with(register, store.read(|registry| client::held(registry, register)));
    }
    let history = world.history.operations();
    if let Err(impossible) = linear::judge(&history) {
        let operations: Vec<String> = impossible.operations.iter().map(|one| format!("{one:?}")).collect();
        return Err(format!(
            "the history of register {} is impossible after {} operations:\n{}",
            impossible.register,
            impossible.explained,
            operations.join("\n")
        ));
    }
    counted(&store, &history)?;
    Ok(Came { history, octets: store.read(octets) })
}

/// Whether the serial has grown by one for each change, those whose answers were lost perhaps among them.
fn counted(store: &Store, history: &[Operation]) -> Result<(), Wrong> {
    let serial = store.read(|registry| registry.zone(&client::apex()).map_or(0, |held| held.zone().serial()));
    let made = history.iter().filter(|one| matches!(one.answered, Some((_, Answer::Done(true))))).count();
    let open = history.iter().filter(|one| one.answered.is_none() && one.call != Call::Read).count();
    let changes = serial.saturating_sub(1) as usize;
    if (made..=made + open).contains(&changes) {
        return Ok(());
    }
    Err(format!("{changes} changes were made of {made} that were acknowledged and {open} that were not answered"))
}

fn given(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn seeds() -> std::ops::Range<u64> {
    let range = given("FUNICULAR_SIM_SEEDS");
    let range = range.as_deref().and_then(|text| text.split_once(".."));
    range.map_or(SEEDS, |(from, to)| from.parse().unwrap()..to.parse().unwrap())
}

#[test]
fn thousands_of_lives_end_well() {
    if let Some(seed) = given("FUNICULAR_SIM_SEED") {
        if let Err(wrong) = live(seed.parse().unwrap(), true) {
            panic!("{wrong}");
        }
        return;
    }
    let (seeds, next) = (seeds(), std::sync::atomic::AtomicU64::new(seeds().start));
    let failed: Mutex<Vec<(u64, Wrong)>> = Mutex::default();
    let one_after_another = || {
        loop {
            let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if seed >= seeds.end || failed.lock().len() >= 3 {
                return;
            }
            let lived = std::panic::catch_unwind(|| live(seed, false));
            if let Err(wrong) = lived.unwrap_or_else(|_| Err("it panicked".to_owned())) {
                failed.lock().push((seed, wrong));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(one_after_another);
        }
    });
    let failed = failed.into_inner();
    let told: Vec<String> = failed.iter().map(|(seed, wrong)| format!("FUNICULAR_SIM_SEED={seed}: {wrong}")).collect();
    assert!(told.is_empty(), "{}", told.join("\n\n"));
}

#[test]
fn a_number_tells_the_whole_story() {
    for seed in 0..3 {
        assert_eq!(live(seed, false), live(seed, false), "seed {seed}");
    }
}
