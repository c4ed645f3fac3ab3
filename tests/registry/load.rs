//! Clients of three programs while something happens to them, and what must hold afterwards.
//!
//! Writers exchange the contents of a few sets of records, each on condition of what it was before (RFC 2136 §2.4.2), and
//! read them strictly; askers ask every node for what `available` zones have. In the end all that was said is judged:
//! the strict operations are those of one register for each set, the serial has grown by one for each change, every node
//! that ran all the while has answered every question, and all replicas are the same to the octet.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use funicular::model::Name;
use funicular::wire::dns::{Class, Message, Opcode, Rcode, Record, Type};
use parking_lot::Mutex;

use super::bed::{Node, answer_to_datagram, ask, leads, until};
use super::linear::{self, Answer, Call, Members, Operation};

/// Clients that write and read strictly, each with a set of its own half of the time.
const WRITERS: u32 = 3;
/// Sets that they share.
const REGISTERS: u32 = 2;
/// Members of a set.
const MEMBERS: u32 = 10;
/// Between two questions of one client.
const BEAT: Duration = Duration::from_millis(5);
/// How long a client waits for an answer before it asks elsewhere.
const WITHIN: Duration = Duration::from_millis(1_500);
/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Three nodes under load.
pub(crate) struct Load {
    nodes: Vec<Mutex<Node>>,
    servers: Vec<SocketAddr>,
    /// Odd while a node runs; another number in each life.
    lives: Vec<AtomicU64>,
    clock: AtomicU64,
    history: Mutex<Vec<Operation>>,
    done: AtomicUsize,
    answered: AtomicUsize,
    unanswered: AtomicUsize,
    over: AtomicBool,
    /// The serial at the beginning.
    serial: u32,
}

/// Ends the load when it goes, also by a panic.
struct Over<'l>(&'l AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Load {
    /// Lets `happen` while there is load, and judges what came of it. Every node has to run in the end.
    pub(crate) fn during(folder: &Path, nodes: Vec<Node>, happen: impl FnOnce(&Self)) -> Vec<Node> {
        for register in 0..REGISTERS {
            until("the sets are empty", &nodes, || empty(nodes[0].dns, register) == Some(Rcode::NOERROR));
        }
        let serial = serial(&nodes[0]).unwrap();
        let load = Self {
            servers: nodes.iter().map(|node| node.dns).collect(),
            lives: nodes.iter().map(|_| AtomicU64::new(1)).collect(),
            nodes: nodes.into_iter().map(Mutex::new).collect(),
            clock: AtomicU64::new(0),
            history: Mutex::default(),
            done: AtomicUsize::new(0),
            answered: AtomicUsize::new(0),
            unanswered: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            serial,
        };
        std::thread::scope(|scope| {
            let load = &load;
            let _over = Over(&load.over);
            for writer in 0..WRITERS {
                scope.spawn(move || load.exchange(writer));
            }
            for at in 0..load.nodes.len() {
                scope.spawn(move || load.ask_available(at));
            }
            happen(load);
        });
        let (answered, unanswered) = (load.answered.into_inner(), load.unanswered.into_inner());
        println!("{} exchanges, {answered} questions answered and {unanswered} not", load.done.into_inner());
        assert!(unanswered == 0 && answered > 50, "{unanswered} questions were not answered, and {answered} were");
        let nodes: Vec<Node> = load.nodes.into_iter().map(Mutex::into_inner).collect();
        let history = load.history.into_inner();
        judge(&nodes, history, load.clock.into_inner(), load.serial);
        same(folder, &nodes);
        nodes
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// One client: whichever node it comes to.
    fn exchange(&self, writer: u32) {
        let mut known = [Some(0); REGISTERS as usize];
        // Numbers that seldom meet; what they are does not matter.
        let mut number = u64::from(writer) + 1;
        while !self.is_over() {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (register, server) = ((number >> 60) as u32 % REGISTERS, self.servers[(number >> 33) as usize % 3]);
            let call = match known[register as usize] {
                Some(held) if number >> 40 & 3 != 0 => Call::Swap(held, number >> 20 & ((1 << MEMBERS) - 1)),
                Some(_) | None => Call::Read,
            };
            let called = self.tick();
            let at = {
                let mut history = self.history.lock();
                history.push(Operation { register, call, called, answered: None });
                history.len() - 1
            };
            let answer = asked(server, register, call);
            known[register as usize] = match (call, answer) {
                (_, Some(Answer::Holds(held))) => Some(held),
                (Call::Swap(_, members), Some(Answer::Done(_))) => Some(members),
                _ => None,
            };
            if let Some(answer) = answer {
                let now = self.tick();
                self.history.lock()[at].answered = Some((now, answer));
                if matches!(answer, Answer::Done(_)) {
                    self.done.fetch_add(1, Ordering::Relaxed);
                }
            }
            std::thread::sleep(BEAT);
        }
    }

    /// Who asks one node for what it has, and counts what it is told while the node runs.
    fn ask_available(&self, at: usize) {
        while !self.is_over() {
            let life = self.lives[at].load(Ordering::SeqCst);
            if life % 2 == 1 {
                let right = answer_to_datagram(self.servers[at], "ns1.open.peak.") == Some((Rcode::NOERROR, 1));
                if self.lives[at].load(Ordering::SeqCst) == life {
                    let count = if right { &self.answered } else { &self.unanswered };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
            std::thread::sleep(BEAT);
        }
    }

    pub(crate) fn leader(&self) -> usize {
        let end = Instant::now() + PATIENCE;
        loop {
            // A cut-off leader may not know yet that there is a later one.
            let term = |at: &usize| {
                let status = self.nodes[*at].lock().status();
                status.map_or(0, |status| status["term"].as_u64().unwrap_or(0))
            };
            let leader = (0..self.nodes.len()).filter(|at| leads(&self.nodes[*at].lock())).max_by_key(term);
            if let Some(leader) = leader {
                return leader;
            }
            assert!(Instant::now() < end, "nobody leads");
            std::thread::sleep(BEAT);
        }
    }

    pub(crate) fn term(&self, at: usize) -> u64 {
        self.nodes[at].lock().status().map_or(0, |status| status["term"].as_u64().unwrap_or(0))
    }

    /// Waits until so many more exchanges were acknowledged than now.
    pub(crate) fn goes_on(&self, more: usize) {
        let (end, wanted) = (Instant::now() + PATIENCE, self.done.load(Ordering::Relaxed) + more);
        while self.done.load(Ordering::Relaxed) < wanted {
            if Instant::now() >= end {
                let logs: String = self.nodes.iter().map(|node| node.lock().log() + "\n---\n").collect();
                panic!("writes do not go on\n{logs}");
            }
            std::thread::sleep(BEAT);
        }
    }

    pub(crate) fn kill(&self, at: usize) {
        self.lives[at].fetch_add(1, Ordering::SeqCst);
        self.nodes[at].lock().kill();
    }

    /// Starts a node that was killed, and waits until it answers.
    pub(crate) fn restart(&self, at: usize) {
        self.nodes[at].lock().start();
        let end = Instant::now() + PATIENCE;
        while answer_to_datagram(self.servers[at], "ns1.open.peak.") != Some((Rcode::NOERROR, 1)) {
            assert!(Instant::now() < end, "the node does not come back:\n{}", self.nodes[at].lock().log());
            std::thread::sleep(BEAT);
        }
        self.lives[at].fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn node<T>(&self, at: usize, look: impl FnOnce(&Node) -> T) -> T {
        look(&self.nodes[at].lock())
    }
}

fn owner(register: u32) -> Name {
    format!("r{register}.shop.peak.").parse().unwrap()
}

fn members(held: Members) -> impl Iterator<Item = Ipv6Addr> {
    (0..MEMBERS as u16).filter(move |bit| held >> bit & 1 == 1).map(|bit| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, bit))
}

fn record(register: u32, class: Class, ttl: u32, rdata: &[u8]) -> Record {
    Record { name: owner(register), rtype: Type::AAAA, class, ttl, rdata: rdata.into() }
}

/// Asks for it; none when nobody says whether it happened.
fn asked(server: SocketAddr, register: u32, call: Call) -> Option<Answer> {
    let Call::Swap(expected, new) = call else { return read(server, register) };
    let mut message = Message::query(9, "shop.peak.".parse().unwrap(), Type::SOA);
    message.header.opcode = Opcode::UPDATE;
    // RFC 2136 §2.4.2 and §2.4.3: exactly these, or none.
    message.answers = members(expected).map(|member| record(register, Class::IN, 0, &member.octets())).collect();
    if expected == 0 {
        message.answers = vec![record(register, Class::NONE, 0, &[])];
    }
    message.authorities = vec![record(register, Class::ANY, 0, &[])];
    message.authorities.extend(members(new).map(|member| record(register, Class::IN, 60, &member.octets())));
    let rcode = ask(server, &message, WITHIN)?.header.rcode;
    match rcode {
        Rcode::NOERROR => Some(Answer::Done(expected != new)),
        Rcode::NXRRSET | Rcode::YXRRSET => Some(Answer::Differs),
        Rcode::SERVFAIL => None,
        _ => panic!("an update was answered {rcode:?}"),
    }
}

/// Takes all members away, as a history begins.
fn empty(server: SocketAddr, register: u32) -> Option<Rcode> {
    let mut message = Message::query(9, "shop.peak.".parse().unwrap(), Type::SOA);
    message.header.opcode = Opcode::UPDATE;
    message.authorities = vec![record(register, Class::ANY, 0, &[])];
    ask(server, &message, WITHIN).map(|reply| reply.header.rcode)
}

fn read(server: SocketAddr, register: u32) -> Option<Answer> {
    let reply = ask(server, &Message::query(7, owner(register), Type::AAAA), WITHIN)?;
    let held = reply.answers.iter().fold(0, |held, record| held | 1 << record.rdata.last().copied().unwrap_or(0));
    match reply.header.rcode {
        Rcode::NOERROR | Rcode::NXDOMAIN => Some(Answer::Holds(held)),
        Rcode::SERVFAIL => None,
        rcode => panic!("a question was answered {rcode:?}"),
    }
}

/// The zone's serial as a node answers it strictly.
fn serial(node: &Node) -> Option<u32> {
    let reply = node.ask(&Message::query(7, "shop.peak.".parse().unwrap(), Type::SOA))?;
    let soa = reply.answers.first()?;
    let numbers = soa.rdata.len().checked_sub(20)?;
    Some(u32::from_be_bytes(*soa.rdata[numbers..].first_chunk()?))
}

fn judge(nodes: &[Node], mut history: Vec<Operation>, clock: u64, before: u32) {
    for register in 0..REGISTERS {
        for node in nodes {
            let mut answer = None;
            until("a strict answer", nodes, || {
                answer = read(node.dns, register);
                answer.is_some()
            });
            let answered = answer.map(|answer| (clock + 1, answer));
            history.push(Operation { register, call: Call::Read, called: clock, answered });
        }
    }
    if let Err(impossible) = linear::judge(&history) {
        panic!("impossible: {impossible:?}");
    }
    let made = history.iter().filter(|one| matches!(one.answered, Some((_, Answer::Done(true))))).count();
    let open = history.iter().filter(|one| one.answered.is_none() && one.call != Call::Read).count();
    let changes = (serial(&nodes[0]).unwrap() - before) as usize;
    assert!((made..=made + open).contains(&changes), "{changes} changes of {made} acknowledged and {open} unanswered");
}

/// All nodes come to hold the same, to the octet of a backup.
fn same(folder: &Path, nodes: &[Node]) {
    let backup = |at: usize| -> Vec<u8> {
        let file: PathBuf = folder.join(format!("backup{at}"));
        let admin = nodes[at].admin.to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_funicular"));
        let made = command.args(["peak", "backup", file.to_str().unwrap(), "--admin", &admin]).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        std::fs::read(file).unwrap()
    };
    until("all replicas are the same", nodes, || {
        let first = backup(0);
        (1..nodes.len()).all(|at| backup(at) == first)
    });
}
