//! The leader's loop: what sidecars say becomes commands, what the registry holds becomes plans and shares.
//!
//! ```text
//! words of streams ─┐
//! leases that end ──┼─▶ commands ─▶ plan on what they will make ─▶ one entry of the log ─▶ shares to sidecars
//! time to plan ─────┘                                                      │
//! renewals ───────────────▶ does a majority still know this leader? ───────┴─▶ Renewed
//! ```
//!
//! Words that come close together make one entry, and so do renewals one question to the majority: what standing still
//! costs does not grow with every pod's every word. A node that does not lead keeps nobody: sidecars go to who does.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::net::Ipv6Addr;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::deadlines::Deadlines;
use super::load::Load;
use super::metrics::Counts;
use super::space;
use super::spare::Spare;
use super::word::{StreamId, Word};
use crate::model::Name;
use crate::model::registry::lease::{Command, Decision, Ended, HandoverId, Leases, Outcome, Reported, decide};
use crate::model::registry::{Applied, Command as Change, Op};
use crate::model::ssa::plan::{Budget, Hysteresis, PodId};
use crate::ops::clock;
use crate::peak::dns::Served;
use crate::peak::store::{Leadership, Store};
use crate::wire::lease::FromPeak;

/// How long words are collected before they are acted on.
const PACE: Duration = Duration::from_millis(10);
/// How long the plan waits after a pod has come for others that come with it. Slices that nobody has do not wait.
const SETTLE: Duration = Duration::from_millis(200);
/// How often the registry is looked at for what others have changed.
const GLANCE: Duration = Duration::from_millis(250);
/// How often load and prefixes are looked at though nothing has happened.
const LOOK: Duration = Duration::from_secs(10);
/// How long the log may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Words taken together at most.
const TOGETHER: usize = 4096;

/// How much moves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) life: Duration,
    /// Slices of one service under way at once.
    pub(super) moving: u32,
    /// Slices in a minute for fewer prefixes.
    pub(super) defragment: u32,
    /// Whether this node may begin a registry: not one that is to join another's.
    pub(super) begins: bool,
}

/// A sidecar that is connected.
struct Session {
    pod: PodId,
    services: Vec<Name>,
    out: mpsc::Sender<FromPeak>,
    /// A digest of the share last sent, by service.
    sent: Vec<u64>,
}

/// The leader's loop. Every node runs one; it does nothing on those that do not lead.
pub(super) struct Desk {
    store: Store,
    served: Served,
    settings: Settings,
    counts: Counts,
    load: Load,
    leading: Option<u64>,
    deadlines: Deadlines,
    sessions: HashMap<StreamId, Session>,
    by_pod: BTreeMap<PodId, StreamId>,
    /// Services to plan for, and when.
    due: BTreeMap<Name, Instant>,
    looked: Instant,
    /// What each service may move for fewer prefixes.
    spare: BTreeMap<Name, Spare>,
    /// How many of the registry's commands this loop knows of.
    seen: u64,
}

/// A sidecar that has come in this round.
struct Came {
    /// Where its registration stands among the commands.
    at: usize,
    stream: StreamId,
    services: Vec<Name>,
    out: mpsc::Sender<FromPeak>,
}

/// What one round has to do.
#[derive(Default)]
struct Round {
    commands: Vec<Command>,
    /// The registrations among them.
    came: Vec<Came>,
    renewed: Vec<(StreamId, u64, Instant)>,
    reports: BTreeMap<Name, Vec<(PodId, HandoverId, Reported)>>,
    /// Services whose slices may have to move at once.
    touched: BTreeSet<Name>,
}

impl Desk {
    pub(super) fn new(store: Store, served: Served, settings: Settings, counts: Counts, load: Load) -> Self {
        Self {
            store,
            served,
            settings,
            counts,
            load,
            leading: None,
            deadlines: Deadlines::new(settings.life),
            sessions: HashMap::new(),
            by_pod: BTreeMap::new(),
            due: BTreeMap::new(),
            looked: Instant::now(),
            spare: BTreeMap::new(),
            seen: 0,
        }
    }

    /// Runs until nobody can say anything any more.
    pub(super) async fn run(mut self, mut words: mpsc::Receiver<Word>) {
        let mut leadership = self.store.leadership();
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                count = words.recv_many(&mut batch, TOGETHER) => {
                    if count == 0 {
                        return;
                    }
                    sleep(PACE).await;
                    while batch.len() < TOGETHER && let Ok(word) = words.try_recv() {
                        batch.push(word);
                    }
                }
                _ = leadership.changed() => {}
                () = sleep_until(self.next_look()) => {}
            }
            let now_leads = *leadership.borrow_and_update();
            self.follow(now_leads);
            if self.leading.is_some() {
                self.round(batch).await;
            } else {
                self.begin(&batch);
                batch.into_iter().for_each(Word::turn_away);
            }
        }
    }

    /// The first sidecar that comes is the first that is to be kept: a node that belongs to no cluster begins one then,
    /// as it does with the first record. The sidecar comes again in a moment.
    fn begin(&self, batch: &[Word]) {
        let comes = batch.iter().any(|word| matches!(word, Word::Came { .. }));
        if comes && self.settings.begins && !self.store.has_begun() {
            let store = self.store.clone();
            tokio::spawn(async move {
                if let Err(error) = store.read_index().await {
                    tracing::warn!(reason = error.reason(), "the registry of leases cannot begin: {error}");
                }
            });
        }
    }

    fn next_look(&self) -> Instant {
        let planned = self.due.values().copied();
        let ends = self.deadlines.next().filter(|_| self.leading.is_some());
        let glance = Instant::now() + GLANCE;
        planned.chain(ends).min().unwrap_or(glance).min(glance)
    }

    /// Takes the lead, or lets it go.
    fn follow(&mut self, leadership: Leadership) {
        let term = leadership.is_me.then_some(leadership.term);
        if term == self.leading {
            return;
        }
        self.leading = term;
        self.due.clear();
        self.load.clear();
        // Streams of an earlier term end: what they were told may be behind.
        self.by_pod.clear();
        for (_, session) in self.sessions.drain() {
            let _ = session.out.try_send(FromPeak::Elsewhere { leader: None });
        }
        if let Some(term) = term {
            let leases = self.leases();
            self.deadlines.lead(Instant::now(), leases.leases().map(|(pod, _)| pod));
            self.due.extend(leases.services().map(|(name, _)| (name.clone(), Instant::now())));
            tracing::info!(term, leases = leases.leases().count(), "this node gives out slices");
        }
    }

    fn leases(&self) -> std::sync::Arc<Leases> {
        self.store.read(|registry| registry.leases().clone())
    }

    async fn round(&mut self, batch: Vec<Word>) {
        let mut round = Round::default();
        for word in batch {
            self.hear(word, &mut round);
        }
        if !self.confirm(&round.renewed).await {
            self.sessions.clear();
            self.by_pod.clear();
            return;
        }
        let now = Instant::now();
        let ended = self.deadlines.ended(now);
        if !ended.is_empty() {
            tracing::warn!(leases = ended.len(), "leases were not renewed");
            self.counts.ended(Ended::Expired, ended.len());
            round.commands.push(Command::End { pods: ended, why: Ended::Expired });
            round.touched.extend(self.leases().services().map(|(name, _)| name.clone()));
        }
        for (service, reports) in std::mem::take(&mut round.reports) {
            round.touched.insert(service.clone());
            round.commands.push(Command::Advance { service, reports });
        }
        self.glance(&mut round);
        self.plan(&mut round, now);
        let touched = std::mem::take(&mut round.touched);
        if round.commands.is_empty() {
            return self.share(&touched);
        }
        match self.propose(std::mem::take(&mut round.commands)).await {
            Some(outcomes) => self.done(round, &outcomes, now),
            // What became of it is not known. Whoever comes back learns what holds.
            None => {
                self.sessions.clear();
                self.by_pod.clear();
                return;
            }
        }
        self.seen = self.leases().commands();
        self.share(&touched);
    }

    /// Turns one word into what the round has to do.
    fn hear(&mut self, word: Word, round: &mut Round) {
        match word {
            Word::Came { stream, registration, services, out } => {
                let zones = self.served.load();
                for service in &services {
                    match space::of(&zones, service, clock::now()) {
                        Ok((prefixes, slice_bits)) => {
                            let service = service.clone();
                            round.commands.push(Command::Define { service, prefixes, slice_bits });
                        }
                        Err(error) => {
                            tracing::warn!(reason = error.reason(), "a pod comes for what has no slices: {error}");
                        }
                    }
                    round.touched.insert(service.clone());
                }
                round.came.push(Came { at: round.commands.len(), stream, services, out });
                round.commands.push(Command::Register(registration));
            }
            Word::Renewed { stream, number, at, load } => {
                self.note_load(stream, load);
                round.renewed.push((stream, number, at));
            }
            Word::Reported { stream, service, handover, reported } => {
                if let Some((pod, name)) = self.named(stream, service) {
                    round.reports.entry(name).or_default().push((pod, handover, reported));
                }
            }
            Word::Waits { stream, service, handover, waits } => {
                if let Some((pod, service)) = self.named(stream, service) {
                    tracing::warn!(%service, %handover, "a handover waits: {waits}");
                    round.touched.insert(service.clone());
                    round.commands.push(Command::Wait { service, handover, pod, waits: Some(waits) });
                }
            }
            Word::Drains { stream } => {
                if let Some(session) = self.sessions.get(&stream) {
                    round.touched.extend(session.services.iter().cloned());
                    round.commands.push(Command::Drain { pod: session.pod, draining: true });
                }
            }
            Word::Returns { stream } => {
                if let Some(session) = self.sessions.remove(&stream) {
                    self.by_pod.remove(&session.pod);
                    self.deadlines.forget(session.pod);
                    self.load.forget(session.pod);
                    self.counts.ended(Ended::Returned, 1);
                    round.touched.extend(session.services);
                    round.commands.push(Command::End { pods: vec![session.pod], why: Ended::Returned });
                }
            }
            Word::Gone { stream } => {
                if let Some(session) = self.sessions.remove(&stream) {
                    self.by_pod.remove(&session.pod);
                }
            }
        }
    }

    fn named(&self, stream: StreamId, service: u16) -> Option<(PodId, Name)> {
        let session = self.sessions.get(&stream)?;
        Some((session.pod, session.services.get(usize::from(service))?.clone()))
    }

    fn note_load(&self, stream: StreamId, load: Vec<(u16, Ipv6Addr, u32)>) {
        let leases = self.leases();
        let Some(session) = self.sessions.get(&stream) else { return };
        let mut of_pod: BTreeMap<Name, BTreeMap<u32, u32>> = BTreeMap::new();
        for (service, address, connections) in load {
            let name = session.services.get(usize::from(service));
            let known = name.and_then(|name| Some((name, leases.service(name)?.slice_of(address)?)));
            if let Some((name, slice)) = known {
                of_pod.entry(name.clone()).or_default().insert(slice, connections);
            }
        }
        self.load.note(session.pod, of_pod);
    }

    /// Asks a majority whether this node leads, and lets renewals count if so.
    async fn confirm(&mut self, renewed: &[(StreamId, u64, Instant)]) -> bool {
        if renewed.is_empty() {
            return true;
        }
        let confirmed = timeout(PATIENCE, self.store.read_index()).await;
        // The index may have been another leader's, whom this node has come to know by it.
        let still = *self.store.leadership().borrow();
        let leads = still.is_me && Some(still.term) == self.leading;
        if !matches!(confirmed, Ok(Ok(()))) || !leads {
            tracing::warn!("renewals cannot be confirmed: too few of Peak's nodes answer");
            return false;
        }
        let leases = self.leases();
        for &(stream, number, at) in renewed {
            let Some(session) = self.sessions.get(&stream) else { continue };
            if leases.lease(session.pod).is_some() {
                self.deadlines.renew(session.pod, at);
                self.counts.renewals.increment();
                let _ = session.out.try_send(FromPeak::Renewed { number });
            }
        }
        true
    }

    /// Adds the handovers that are to begin, planned on what the round's commands will make.
    fn plan(&mut self, round: &mut Round, now: Instant) {
        if now >= self.looked + LOOK {
            self.looked = now;
            self.due.extend(self.leases().services().map(|(name, _)| (name.clone(), now)));
        }
        for name in &round.touched {
            let came = round.came.iter().any(|came| came.services.contains(name));
            let at = if came { now + SETTLE } else { now };
            let due = self.due.entry(name.clone()).or_insert(at);
            *due = if came { *due } else { now.min(*due) };
        }
        if self.due.is_empty() {
            return;
        }
        let mut leases = Leases::clone(&self.leases());
        for command in &round.commands {
            leases.apply(command);
        }
        let vacant = |service: &crate::model::registry::lease::Service| {
            service.ownership().runs().any(|(_, owner)| owner.is_none())
        };
        let is_due = |(name, &at): (&Name, &Instant)| at <= now || leases.service(name).is_some_and(vacant);
        let due: Vec<Name> = self.due.iter().filter(|&due| is_due(due)).map(|(name, _)| name.clone()).collect();
        for name in due {
            self.due.remove(&name);
            let spare = self.spare.entry(name.clone()).or_insert_with(|| Spare::full(self.settings.defragment, now));
            let budget = Budget {
                slices: self.settings.moving,
                defragment: spare.left(self.settings.defragment, now),
                load: Hysteresis::STANDARD,
            };
            let Decision { moves, postponed } = decide(&leases, &name, &self.load.of(&name), &budget);
            spare.spend(&moves);
            self.counts.planned(&moves);
            if !moves.is_empty() {
                tracing::debug!(service = %name, handovers = moves.len(), postponed, "slices are to move");
                round.touched.insert(name.clone());
                round.commands.push(Command::Begin { service: name, moves, at: clock::now() });
            }
        }
    }

    /// Looks whether others have changed the registry: operators, at any node.
    fn glance(&mut self, round: &mut Round) {
        let leases = self.leases();
        if leases.commands() != self.seen {
            self.seen = leases.commands();
            round.touched.extend(leases.services().map(|(name, _)| name.clone()));
        }
    }

    async fn propose(&self, commands: Vec<Command>) -> Option<Vec<Outcome>> {
        let change = Change { request: None, op: Op::Leases(commands) };
        match timeout(PATIENCE, self.store.propose(change)).await {
            Ok(Ok(Ok(Applied::Leases(outcomes)))) => Some(outcomes),
            Ok(Ok(Ok(Applied::Zones(_) | Applied::Removed) | Err(_))) => None,
            Ok(Err(error)) => {
                tracing::warn!(reason = error.reason(), "leases cannot be changed: {error}");
                None
            }
            Err(_) => {
                tracing::warn!("leases cannot be changed: the log takes too long");
                None
            }
        }
    }

    /// Answers whoever came and whoever asked.
    fn done(&mut self, round: Round, outcomes: &[Outcome], now: Instant) {
        let leases = self.leases();
        for Came { at, stream, services, out } in round.came {
            let Some(&Outcome::Registered(pod)) = outcomes.get(at) else { continue };
            self.deadlines.renew(pod, now);
            if let Some(earlier) = self.by_pod.insert(pod, stream) {
                self.sessions.remove(&earlier);
            }
            let life_ms = u32::try_from(self.settings.life.as_millis()).unwrap_or(u32::MAX);
            let _ = out.try_send(FromPeak::Registered { pod, life_ms });
            let count = services.len();
            let session = Session { pod, services, out, sent: vec![0; count] };
            self.sessions.insert(stream, session);
        }
        let gone: Vec<PodId> = self.by_pod.keys().copied().filter(|&pod| leases.lease(pod).is_none()).collect();
        for pod in gone {
            if let Some(session) = self.by_pod.remove(&pod).and_then(|stream| self.sessions.remove(&stream)) {
                let _ = session.out.try_send(FromPeak::Refused { reason: "lease-ended".into() });
            }
        }
        let known: BTreeSet<PodId> = leases.leases().map(|(pod, _)| pod).collect();
        for pod in self.deadlines.pods().filter(|pod| !known.contains(pod)).collect::<Vec<_>>() {
            self.deadlines.forget(pod);
            self.load.forget(pod);
        }
    }

    /// Sends everybody whose share has changed the new one.
    fn share(&mut self, touched: &BTreeSet<Name>) {
        let leases = self.leases();
        let mut stuck = Vec::new();
        for name in touched {
            let Some(service) = leases.service(name) else { continue };
            let mut shares = leases.shares(service);
            for (&stream, session) in &mut self.sessions {
                let Some(place) = session.services.iter().position(|served| served == name) else { continue };
                let share = shares.remove(&session.pod).unwrap_or_default();
                let digest = digest(&share);
                if std::mem::replace(&mut session.sent[place], digest) == digest {
                    continue;
                }
                let word = FromPeak::Share {
                    service: place as u16,
                    space: service.prefixes().to_vec(),
                    slice_length: service.slice_length(),
                    share,
                };
                if session.out.try_send(word).is_err() {
                    stuck.push(stream);
                }
            }
        }
        for stream in stuck {
            if let Some(session) = self.sessions.remove(&stream) {
                self.by_pod.remove(&session.pod);
            }
        }
    }
}

/// Never 0, which stands for nothing sent.
fn digest(share: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    share.hash(&mut hasher);
    hasher.finish() | 1
}
