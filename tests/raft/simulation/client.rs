//! Clients of the registry: each asks for one thing after another, at whichever node it likes, and writes down what it
//! asked and what it was told.
//!
//! A request that was not answered is made again under the same name, at another node, as real clients do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use funicular::model::Name;
use funicular::model::registry::{Applied, Command, Op, Reads, Refused, Registry, Reply, RequestId, ZoneUpdate};
use funicular::model::zone::{Change, Entry, Prerequisite, Update, UpdateError};
use funicular::peak::store::Store;
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};

use super::random::{below, between, chance, draw};
use crate::linear::{Answer, Call, Members, Operation};

/// Sets of records that clients fight for.
pub(super) const REGISTERS: u32 = 3;
/// Members of each.
const MEMBERS: u64 = 5;
/// How often a request is made before its client gives up.
const ATTEMPTS: u32 = 4;
/// How long a client waits for one answer.
const PATIENCE: Duration = Duration::from_millis(900);

const A: u16 = 1;
const SOA: u16 = 6;
const NS: u16 = 2;

/// What has happened, in the order of one clock that only counts.
#[derive(Debug, Default)]
pub(super) struct History {
    clock: AtomicU64,
    operations: Mutex<Vec<Operation>>,
}

impl History {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn operations(&self) -> Vec<Operation> {
        self.operations.lock().clone()
    }

    /// Adds what every node holds in the end.
    pub(super) fn end_with(&self, register: u32, held: Members) {
        let called = self.tick();
        let answered = Some((self.tick(), Answer::Holds(held)));
        self.operations.lock().push(Operation { register, call: Call::Read, called, answered });
    }
}

pub(super) fn apex() -> Name {
    "shop.peak.".parse().unwrap()
}

fn owner(register: u32) -> Name {
    Name::parse(&format!("r{register}"), &apex()).unwrap()
}

/// The zone in which the registers are.
pub(super) fn create() -> Op {
    let (ns, admin) = (Name::parse("ns1", &apex()).unwrap(), Name::parse("admin", &apex()).unwrap());
    let numbers = [1_u32, 3600, 600, 86400, 30].map(u32::to_be_bytes).concat();
    let soa = [ns.wire(), admin.wire(), &numbers].concat();
    let entry = |name: &Name, rtype, rdata: &[u8]| Entry { name: name.clone(), rtype, ttl: 60, rdata: rdata.into() };
    let entries = vec![entry(&apex(), SOA, &soa), entry(&apex(), NS, ns.wire()), entry(&ns, A, &[192, 0, 2, 1])];
    Op::Create { apex: apex(), reads: Reads::Strict, entries }
}

fn rdatas(members: Members) -> Vec<Box<[u8]>> {
    (0..MEMBERS as u8).filter(|bit| members >> bit & 1 == 1).map(|bit| Box::from([10, 0, 0, bit])).collect()
}

/// What a node's registry holds in a register.
pub(super) fn held(registry: &Registry, register: u32) -> Members {
    let Some(zone) = registry.zone(&apex()) else { return 0 };
    let zone = zone.zone();
    let Some(set) = zone.node(&owner(register)).and_then(|node| node.set(A)) else { return 0 };
    set.rdatas(&apex()).fold(0, |all, rdata| all | 1 << rdata[3])
}

fn op(register: u32, call: Call) -> Op {
    let name = owner(register);
    let add = |members| {
        let entry = |rdata| Change::Add(Entry { name: owner(register), rtype: A, ttl: 60, rdata });
        rdatas(members).into_iter().map(entry).collect::<Vec<_>>()
    };
    let exactly = |members| {
        vec![match rdatas(members) {
            none if none.is_empty() => Prerequisite::SetAbsent(owner(register), A),
            rdatas => Prerequisite::SetIs { name: owner(register), rtype: A, rdatas },
        }]
    };
    let replace = |members| [vec![Change::RemoveSet(owner(register), A)], add(members)].concat();
    let (prerequisites, changes) = match call {
        Call::Read => (vec![], vec![]),
        Call::Add(members) => (vec![], add(members)),
        Call::Remove(members) => {
            let remove = |rdata| Change::RemoveRecord { name: name.clone(), rtype: A, rdata };
            (vec![], rdatas(members).into_iter().map(remove).collect())
        }
        Call::Replace(members) => (vec![], replace(members)),
        Call::Swap(expected, members) => (exactly(expected), replace(members)),
    };
    Op::Update(vec![ZoneUpdate { zone: apex(), update: Update { prerequisites, changes } }])
}

/// What a reply says; none for one that no call here can have.
fn answer(reply: &Reply) -> Option<Answer> {
    match reply {
        Ok(Applied::Zones(steps)) => Some(Answer::Done(steps.first()?.changed)),
        Err(Refused::Update { cause, .. }) => match cause {
            UpdateError::SetDiffers(..) | UpdateError::SetExists(..) => Some(Answer::Differs),
            UpdateError::NameFree(_)
            | UpdateError::NameInUse(_)
            | UpdateError::SetAbsent(..)
            | UpdateError::Change(_)
            | UpdateError::WildcardNs(_)
            | UpdateError::Unknown(_) => None,
        },
        Ok(_) | Err(_) => None,
    }
}

/// The nodes as clients know them: those that run.
pub(super) type Nodes = Arc<Mutex<Vec<Option<Store>>>>;

fn any(nodes: &Nodes) -> Option<Store> {
    let nodes = nodes.lock();
    let running: Vec<&Store> = nodes.iter().flatten().collect();
    running.get(below(running.len() as u64) as usize).map(|store| (*store).clone())
}

/// Asks until it is stopped.
pub(super) async fn run(nodes: Nodes, history: Arc<History>) {
    let mut seen: [Members; REGISTERS as usize] = [0; REGISTERS as usize];
    loop {
        sleep(Duration::from_millis(between(5, 60))).await;
        let register = below(REGISTERS.into()) as u32;
        let (some, one) = (below(1 << MEMBERS), 1 << below(MEMBERS));
        let known = &mut seen[register as usize];
        let call = match below(10) {
            0..=2 => Call::Read,
            3..=4 => Call::Add(one),
            5 => Call::Remove(one),
            6 => Call::Replace(some),
            _ => Call::Swap(*known, some),
        };
        let called = history.tick();
        let at = {
            let mut operations = history.operations.lock();
            operations.push(Operation { register, call, called, answered: None });
            operations.len() - 1
        };
        let told = if call == Call::Read { read(&nodes, register).await } else { write(&nodes, register, call).await };
        if let Some(answer) = told {
            *known = match (call, answer) {
                (_, Answer::Holds(held)) => held,
                (Call::Replace(members) | Call::Swap(_, members), Answer::Done(_)) => members,
                _ => *known,
            };
            history.operations.lock()[at].answered = Some((history.tick(), answer));
        }
    }
}

async fn read(nodes: &Nodes, register: u32) -> Option<Answer> {
    let store = any(nodes)?;
    timeout(PATIENCE, store.read_index()).await.ok()?.ok()?;
    Some(Answer::Holds(store.read(|registry| held(registry, register))))
}

async fn write(nodes: &Nodes, register: u32, call: Call) -> Option<Answer> {
    let command = Command { request: Some(RequestId(draw())), op: op(register, call) };
    for _ in 0..ATTEMPTS {
        if let Some(store) = any(nodes)
            && let Ok(Ok(reply)) = timeout(PATIENCE, store.propose(command.clone())).await
        {
            // Some clients lose the answer, and ask again.
            if chance(950) {
                let answer = answer(&reply);
                assert!(answer.is_some(), "{call:?} was told {reply:?}");
                return answer;
            }
        }
        sleep(Duration::from_millis(between(1, 100))).await;
    }
    None
}
