//! Requests that are no plain questions: updates, transfers, notices, and whatever is signed.
//!
//! ```text
//!  worker, UDP ──► queue ──► the desk's thread ──┬─► reply
//!  worker, TCP ─────────────► the connection ────┤
//!                                                ├─► update ──► queue ──► made together, one write ──► replies
//!                                                └─► transfer, message by message
//! ```
//!
//! The workers' fast path knows only that a request is none of its own. Signatures are looked at first, then who may,
//! then what. A request that comes while the queue is full is dropped: over UDP its sender comes again.

pub(super) mod counts;
pub(super) mod policy;
mod thread;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

pub(super) use thread::{Queue, start};

use super::ledger::{Change, Ledger, Outcome, Unmade};
use super::store::Store;
use super::transfer::out::{self, Outgoing};
use super::update;
use crate::model::Name;
use crate::model::UnixSeconds;
use crate::model::registry::{Applied, Command, Op, Refused, ZoneUpdate};
use crate::model::zone::{Update, UpdateError};
use crate::net::udp_batch::Origin;
use crate::ops::metrics::{Label as _, Reason};
use crate::wire::dns::tsig::{Keys, Received, Session};
use crate::wire::dns::{Class, Message, Opcode, Rcode, Type, WireError};
use counts::{Counts, Direction, Ended, Form};
use policy::{Caller, Policy};

/// Requests that may wait for the desk.
const QUEUE: usize = 1024;

/// How long a strict question may wait for the leader; its asker waits longer (RFC 1035 §4.2.1 speaks of seconds).
const STRICT: Duration = Duration::from_secs(1);

/// The least that everybody takes over UDP (RFC 1035 §4.2.1).
const LEAST: usize = 512;
/// The most that a message can have (RFC 1035 §4.2.2).
const MOST: usize = 65_535;

/// How a request came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Carrier {
    Udp,
    Tcp,
}

/// What waits for the desk's thread.
pub(super) enum Job {
    /// A request that came over UDP.
    Datagram { origin: Origin, peer: SocketAddr, octets: Vec<u8> },
    /// An update that came over TCP and was found in order.
    Update { apex: Name, update: Update, done: oneshot::Sender<Outcome> },
    /// An update of the registry that came over UDP, made or not.
    Made { origin: Origin, pending: Box<Pending>, outcome: Outcome },
    /// A question for a zone that is answered strictly, which came over UDP; whether the node is not behind.
    Confirmed { origin: Origin, peer: SocketAddr, octets: Vec<u8>, confirmed: bool },
}

/// What becomes of a request.
#[derive(Debug)]
pub(super) enum Handled {
    /// This is the reply.
    Reply(Vec<u8>),
    /// There is none.
    Silence,
    /// An update to be made.
    Update(Box<Pending>),
    /// A zone to be sent.
    Transfer(Box<Outgoing>),
}

/// An update that may be made, and what its reply needs.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) apex: Name,
    pub(super) update: Update,
    request: Message,
    session: Option<Session>,
    peer: SocketAddr,
}

/// The desk. Clones share everything.
#[derive(Clone, Debug)]
pub(super) struct Desk(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ledger: Arc<Ledger>,
    keys: Arc<Keys>,
    policies: HashMap<Name, Policy>,
    /// Wakes the task that looks after a secondary zone.
    wakers: HashMap<Name, mpsc::Sender<()>>,
    counts: Counts,
    queue: SyncSender<Job>,
    store: OnceLock<Store>,
}

/// A plain question, answered: the message without its signature in, the reply out.
pub(super) type Answer<'a> = &'a mut dyn FnMut(&[u8]) -> Vec<u8>;

impl Desk {
    /// Puts a request that came over UDP into the queue; false when that is full.
    pub(super) fn take_datagram(&self, origin: Origin, peer: SocketAddr, octets: &[u8]) -> bool {
        self.enqueue(Job::Datagram { origin, peer, octets: octets.to_vec() })
    }

    fn enqueue(&self, job: Job) -> bool {
        match self.0.queue.try_send(job) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.refuse("queue-full");
                false
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }

    /// Makes an update that came over TCP; gives the reply. Waits until the disk has it.
    pub(super) async fn make(&self, pending: Pending, now: impl Fn() -> UnixSeconds) -> Vec<u8> {
        if let Some(store) = self.registry_of(&pending.apex) {
            let outcome = replicate(&store, &pending.apex, pending.update.clone()).await;
            return self.finish(pending, outcome, now());
        }
        let (done, outcome) = oneshot::channel();
        let job = Job::Update { apex: pending.apex.clone(), update: pending.update.clone(), done };
        let outcome = if self.enqueue(job) { outcome.await.ok() } else { None };
        self.finish(pending, outcome.unwrap_or(Err(Unmade::Unkept)), now())
    }

    /// Whether the update is one of the registry.
    fn replicates(&self, pending: &Pending) -> bool {
        self.registry_of(&pending.apex).is_some()
    }

    /// Makes an update of the registry that came over UDP; what became of it comes back through the queue.
    fn replicate(&self, origin: Origin, pending: Box<Pending>) {
        let Some(store) = self.registry_of(&pending.apex) else { return };
        let desk = self.clone();
        store.clone().spawn(async move {
            let outcome = replicate(&store, &pending.apex, pending.update.clone()).await;
            desk.enqueue(Job::Made { origin, pending, outcome });
        });
    }

    /// Looks whether the node is not behind, for a strict question that came over UDP; it comes back through the queue.
    fn confirm(&self, origin: Origin, peer: SocketAddr, octets: Vec<u8>) {
        let desk = self.clone();
        let Some(store) = self.0.store.get() else {
            self.enqueue(Job::Confirmed { origin, peer, octets, confirmed: false });
            return;
        };
        store.spawn(async move {
            let confirmed = desk.is_up_to_date().await;
            desk.enqueue(Job::Confirmed { origin, peer, octets, confirmed });
        });
    }

    /// Says where the registry is, once it is open.
    pub(super) fn attach(&self, store: Store) {
        // A second one is never made.
        drop(self.0.store.set(store));
    }

    /// The registry, where it holds the zone.
    fn registry_of(&self, apex: &Name) -> Option<Store> {
        self.0.store.get().filter(|_| self.0.ledger.is_replicated(apex)).cloned()
    }

    /// Whether this node knows that it has all that was acknowledged before; asks the leader where it must.
    pub(super) async fn is_up_to_date(&self) -> bool {
        let Some(store) = self.0.store.get() else { return false };
        tokio::time::timeout(STRICT, store.read_index()).await.is_ok_and(|outcome| outcome.is_ok())
    }

    /// Sends a zone over TCP. `idle` is how long the peer may take for one message.
    ///
    /// # Errors
    /// The connection's.
    pub(super) async fn send(
        &self,
        outgoing: Outgoing,
        stream: &mut TcpStream,
        peer: SocketAddr,
        idle: Duration,
    ) -> io::Result<()> {
        let form = match outgoing.form {
            out::Form::Soa => Form::Soa,
            out::Form::Differences => Form::Differences,
            out::Form::Whole => Form::Whole,
        };
        let (zone, serial) = (outgoing.apex().clone(), outgoing.serial());
        let outcome = outgoing.send(stream, idle).await;
        let ended = if outcome.is_ok() { Ended::Done } else { Ended::Failed };
        self.0.counts.transfers.increment(&(Direction::Out, form, ended));
        match outcome {
            Ok(out::Sent { messages, octets }) => {
                tracing::info!(%zone, serial, %peer, form = form.value(), messages, octets, "zone sent");
                Ok(())
            }
            Err(error) => {
                tracing::info!(%zone, serial, %peer, form = form.value(), %error, "sending a zone failed");
                Err(error)
            }
        }
    }

    fn refuse(&self, reason: &'static str) {
        self.0.counts.refusals.increment(&Reason(reason));
    }

    /// Decides what becomes of a request.
    pub(super) fn handle(
        &self,
        octets: &[u8],
        peer: SocketAddr,
        carrier: Carrier,
        now: UnixSeconds,
        answer: Answer<'_>,
    ) -> Handled {
        match self.0.keys.receive(octets, now) {
            Ok(Received { message, session }) => self.received(&message, session, peer, carrier, now, answer),
            Err(mut refused) => {
                self.refuse(refused.cause.reason());
                tracing::info!(%peer, cause = %refused.cause, "a signature was refused");
                let Some(mut reply) = bare(&refused.message, refused.rcode()) else { return Handled::Silence };
                refused.sign(&mut reply, now);
                Handled::Reply(reply)
            }
        }
    }

    fn received(
        &self,
        octets: &[u8],
        session: Option<Session>,
        peer: SocketAddr,
        carrier: Carrier,
        now: UnixSeconds,
        answer: Answer<'_>,
    ) -> Handled {
        let request = match Message::parse(octets) {
            Ok(request) => request,
            Err(error) => return self.malformed(octets, session, &error, now),
        };
        let asked = request.questions.first().map(|question| question.rtype);
        let case = Case { desk: self, session, peer, carrier, now };
        match (request.header.opcode, asked) {
            (Opcode::UPDATE, _) => case.update(request),
            (Opcode::NOTIFY, _) => case.notice(&request),
            (Opcode::QUERY, Some(Type::AXFR | Type::IXFR)) => case.transfer(request),
            (Opcode::QUERY, _) => case.question(octets, &request, answer),
            _ => case.reply(&request.response(Rcode::NOTIMP)),
        }
    }

    fn malformed(&self, octets: &[u8], session: Option<Session>, error: &WireError, now: UnixSeconds) -> Handled {
        self.refuse(error.reason());
        let Some(mut reply) = bare(octets, Rcode::FORMERR) else { return Handled::Silence };
        if let Some(mut session) = session {
            session.sign(&mut reply, now);
        }
        Handled::Reply(reply)
    }

    /// The reply that says what became of an update.
    fn finish(&self, pending: Pending, outcome: Outcome, now: UnixSeconds) -> Vec<u8> {
        let Pending { apex, request, mut session, peer, .. } = pending;
        let rcode = update::rcode(&outcome);
        let key = session.as_ref().map(|session| session.key().name().to_string()).unwrap_or_default();
        let ended = match &outcome {
            Ok(Change::Made(serial)) => {
                tracing::info!(zone = %apex, serial, %peer, key, "zone updated");
                Ended::Done
            }
            Ok(Change::None) => Ended::Nothing,
            Err(unmade) => {
                tracing::info!(zone = %apex, %peer, key, cause = %unmade, %rcode, "update not made");
                unmade_as(unmade)
            }
        };
        self.0.counts.updates.increment(&ended);
        let mut reply = request.response(rcode).encode(LEAST);
        if let Some(session) = &mut session {
            session.sign(&mut reply, now);
        }
        reply
    }
}

/// Makes an update of one of the registry's zones, at whichever node leads.
async fn replicate(store: &Store, apex: &Name, update: Update) -> Outcome {
    let op = Op::Update(vec![ZoneUpdate { zone: apex.clone(), update }]);
    match store.propose(Command { request: None, op }).await {
        Ok(Ok(Applied::Zones(steps))) => Ok(steps.first().map_or(Change::None, |step| match step.changed {
            true => Change::Made(step.serial),
            false => Change::None,
        })),
        Ok(Err(Refused::Update { cause, .. })) => Err(Unmade::Refused(cause)),
        Ok(Ok(_) | Err(_)) => Err(UpdateError::Unknown(apex.clone()).into()),
        Err(error) => {
            tracing::warn!(zone = %apex, %error, "an update could not be made");
            Err(Unmade::Unkept)
        }
    }
}

fn unmade_as(unmade: &Unmade) -> Ended {
    match unmade {
        Unmade::Unkept | Unmade::Refused(UpdateError::Unknown(_)) => Ended::Failed,
        Unmade::Refused(
            UpdateError::NameFree(_)
            | UpdateError::NameInUse(_)
            | UpdateError::SetAbsent(..)
            | UpdateError::SetExists(..)
            | UpdateError::SetDiffers(..),
        ) => Ended::Unmet,
        Unmade::Refused(UpdateError::Change(_) | UpdateError::WildcardNs(_)) => Ended::Refused,
    }
}

/// The reply of a server that does not know.
pub(super) fn failure(question: &[u8]) -> Vec<u8> {
    bare(question, Rcode::SERVFAIL).unwrap_or_default()
}

/// A reply of header and question at most, to a message that may be malformed.
fn bare(octets: &[u8], rcode: Rcode) -> Option<Vec<u8>> {
    let request = match Message::parse(octets) {
        Ok(message) => message,
        Err(_) => Message { header: crate::wire::dns::Header::parse(octets).ok()?, ..Message::default() },
    };
    // Never a reply to a reply.
    (!request.header.response).then(|| request.response(rcode).encode(LEAST))
}

/// One request, its signature looked at.
struct Case<'d> {
    desk: &'d Desk,
    session: Option<Session>,
    peer: SocketAddr,
    carrier: Carrier,
    now: UnixSeconds,
}

impl Case<'_> {
    fn caller(&self) -> Caller<'_> {
        Caller { peer: self.peer, key: self.session.as_ref().map(|session| session.key().name()) }
    }

    fn reply(self, reply: &Message) -> Handled {
        self.signed(reply.encode(LEAST))
    }

    fn signed(mut self, mut reply: Vec<u8>) -> Handled {
        if let Some(session) = &mut self.session {
            session.sign(&mut reply, self.now);
        }
        Handled::Reply(reply)
    }

    fn refuse(self, request: &Message, rcode: Rcode, reason: &'static str) -> Handled {
        self.desk.refuse(reason);
        self.reply(&request.response(rcode))
    }

    /// A signed question: the answer is the same, signed.
    fn question(self, octets: &[u8], request: &Message, answer: Answer<'_>) -> Handled {
        let reply = answer(octets);
        if reply.is_empty() {
            return Handled::Silence;
        }
        let limit = match self.carrier {
            Carrier::Tcp => MOST,
            Carrier::Udp => request.edns.as_ref().map_or(LEAST, |edns| usize::from(edns.udp_size).max(LEAST)),
        };
        let signature = self.session.as_ref().map_or(0, |session| session.key().octets());
        if reply.len() + signature <= limit {
            return self.signed(reply);
        }
        // RFC 8945 §5.3: an answer that leaves no room for its signature is cut to the question.
        let mut cut = request.response(Rcode::NOERROR);
        (cut.header.truncated, cut.header.authoritative) = (true, true);
        self.reply(&cut)
    }

    /// RFC 2136 §3.1 to §3.3. Who may is asked before what holds, or prerequisites would tell what a zone holds.
    fn update(self, request: Message) -> Handled {
        let (apex, class) = match update::zone(&request) {
            Ok(zone) => zone,
            Err(misformed) => return self.refuse(&request, misformed.rcode(), misformed.reason()),
        };
        let apex = apex.clone();
        let policies = &self.desk.0.policies;
        if policies.is_empty() {
            return self.reply(&request.response(Rcode::NOTIMP));
        }
        let Some(policy) = policies.get(&apex).filter(|_| class == Class::IN) else {
            return self.refuse(&request, Rcode::NOTAUTH, "update-not-auth");
        };
        if !policy.may_update(self.caller()) {
            tracing::info!(zone = %apex, peer = %self.peer, key = ?self.caller().key, "update refused");
            self.desk.0.counts.updates.increment(&Ended::Refused);
            return self.refuse(&request, Rcode::REFUSED, "update-not-allowed");
        }
        match update::read(&request, &apex) {
            Ok(update) => {
                let Case { session, peer, .. } = self;
                Handled::Update(Box::new(Pending { apex, update, request, session, peer }))
            }
            Err(misformed) => self.refuse(&request, misformed.rcode(), misformed.reason()),
        }
    }

    /// RFC 5936 §2.2, RFC 1995 §4.
    fn transfer(self, request: Message) -> Handled {
        let [question] = &request.questions[..] else {
            return self.refuse(&request, Rcode::FORMERR, "transfer-form");
        };
        let form = if question.rtype == Type::AXFR { Form::Whole } else { Form::Differences };
        let policy = self.desk.0.policies.get(&question.name).filter(|_| question.class == Class::IN);
        let may = policy.is_some_and(|policy| policy.may_transfer(self.caller()));
        if !may || (form == Form::Whole && self.carrier == Carrier::Udp) {
            tracing::info!(zone = %question.name, peer = %self.peer, key = ?self.caller().key, "transfer refused");
            self.desk.0.counts.transfers.increment(&(Direction::Out, form, Ended::Refused));
            return self.refuse(&request, Rcode::REFUSED, "transfer-not-allowed");
        }
        let version = self.desk.0.ledger.version(&question.name, out::serial_had(&request));
        let Some(version) = version.filter(|version| version.zone.is_known()) else {
            return self.refuse(&request, Rcode::SERVFAIL, "transfer-unknown");
        };
        let limit = request.edns.as_ref().map_or(LEAST, |edns| usize::from(edns.udp_size).max(LEAST));
        let (signed, carrier) = (self.session.is_some(), self.carrier);
        let outgoing = Outgoing::new(request, self.session, version);
        match carrier {
            Carrier::Tcp => Handled::Transfer(Box::new(outgoing)),
            // Without a signature anybody can ask in somebody else's name: no more than the SOA.
            Carrier::Udp => Handled::Reply(outgoing.datagram(if signed { limit } else { LEAST.min(limit) })),
        }
    }

    /// RFC 1996 §3.7 to §3.10.
    fn notice(self, request: &Message) -> Handled {
        let policies = &self.desk.0.policies;
        if policies.is_empty() {
            return self.reply(&request.response(Rcode::NOTIMP));
        }
        let [question] = &request.questions[..] else {
            return self.refuse(request, Rcode::FORMERR, "notice-form");
        };
        let notices = &self.desk.0.counts.notices;
        let policy = policies.get(&question.name).filter(|policy| policy.secondary && question.class == Class::IN);
        let Some(policy) = policy else {
            notices.increment(&(Direction::In, Ended::Refused));
            return self.refuse(request, Rcode::NOTAUTH, "notice-not-auth");
        };
        if !policy.may_notify(self.caller()) {
            notices.increment(&(Direction::In, Ended::Refused));
            tracing::info!(zone = %question.name, peer = %self.peer, "notice refused");
            return self.refuse(request, Rcode::REFUSED, "notice-not-allowed");
        }
        notices.increment(&(Direction::In, Ended::Done));
        if let Some(waker) = self.desk.0.wakers.get(&question.name) {
            // Full: a look at the primary is due already.
            let _ = waker.try_send(());
        }
        let mut reply = request.response(Rcode::NOERROR);
        reply.header.authoritative = true;
        self.reply(&reply)
    }
}

/// What a desk needs.
pub(super) struct Furnishing {
    pub(super) ledger: Arc<Ledger>,
    pub(super) keys: Arc<Keys>,
    pub(super) policies: HashMap<Name, Policy>,
    pub(super) wakers: HashMap<Name, mpsc::Sender<()>>,
    pub(super) counts: Counts,
}

/// Makes the desk, and what [`start`] takes.
pub(super) fn furnish(furnishing: Furnishing) -> (Desk, Queue) {
    let Furnishing { ledger, keys, policies, wakers, counts } = furnishing;
    let (queue, waiting) = std::sync::mpsc::sync_channel(QUEUE);
    let inner = Inner { ledger, keys, policies, wakers, counts, queue, store: OnceLock::new() };
    (Desk(Arc::new(inner)), Queue(waiting))
}
