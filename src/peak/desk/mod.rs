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

mod case;
pub(super) mod counts;
pub(super) mod policy;
mod registry;
mod thread;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

pub(super) use thread::{Queue, start};

use super::exchange::Peer;
use super::keys::Keyring;
use super::ledger::{Change, Ledger, Outcome, Unmade};
use super::store::Store;
use super::transfer::out::{self, Outgoing};
use super::update;
use super::update::forward::{Form as Passed, Forward};
use crate::model::Name;
use crate::model::UnixSeconds;
use crate::model::zone::{Update, UpdateError};
use crate::net::udp_batch::Origin;
use crate::ops::clock;
use crate::ops::metrics::{Label as _, Reason};
use crate::wire::dns::tsig::{Received, Refused as NotSigned, Session, TsigError};
use crate::wire::dns::{Class, Message, Opcode, Rcode, Type, WireError};
use case::Case;
use counts::{Counts, Direction, Ended, Form};
use policy::{Caller, Policy};

/// Requests that may wait for the desk.
const QUEUE: usize = 1024;

/// Updates that may be on their way to primaries at once.
const FORWARDS: usize = 64;

/// The least that everybody takes over UDP (RFC 1035 §4.2.1).
const LEAST: usize = 512;
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
    /// A reply that took its time.
    Reply { origin: Origin, octets: Vec<u8> },
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
    Transfer(Box<Granted>),
    /// An update to be passed on.
    Forward(Box<Passing>),
}

/// A transfer that has its place among those under way.
#[derive(Debug)]
pub(super) struct Granted {
    outgoing: Outgoing,
    _place: OwnedSemaphorePermit,
}

/// An update that has its place among those being passed on.
#[derive(Debug)]
pub(super) struct Passing {
    forward: Forward,
    _place: OwnedSemaphorePermit,
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
    keyring: Arc<Keyring>,
    policies: HashMap<Name, Policy>,
    /// Who has the zones that we are secondary of.
    primaries: HashMap<Name, Vec<Peer>>,
    /// Places for zones that are being sent, and for updates that are being passed on.
    transfers: Arc<Semaphore>,
    forwards: Arc<Semaphore>,
    /// What waits for others on behalf of the desk's thread.
    runtime: Handle,
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

    /// Sends a zone over TCP. `idle` is how long the peer may take for one message.
    ///
    /// # Errors
    /// The connection's.
    pub(super) async fn send(
        &self,
        granted: Granted,
        stream: &mut TcpStream,
        peer: SocketAddr,
        idle: Duration,
    ) -> io::Result<()> {
        let Granted { outgoing, _place } = granted;
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

    /// Passes an update on; gives the reply.
    pub(super) async fn forward(passing: Passing) -> Vec<u8> {
        passing.forward.send(clock::now).await
    }

    /// The same for an update that came over UDP; its reply waits for the desk's thread.
    fn forward_datagram(&self, passing: Passing, origin: Origin) {
        // Held weakly, or the desk would outlive its server.
        let desk = Arc::downgrade(&self.0);
        self.0.runtime.spawn(async move {
            let octets = Self::forward(passing).await;
            if let Some(inner) = desk.upgrade().filter(|_| !octets.is_empty()) {
                Self(inner).enqueue(Job::Reply { origin, octets });
            }
        });
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
        match self.0.keyring.now().receive(octets, now) {
            Ok(Received { message, session }) => self.received(&message, session, peer, carrier, now, answer),
            Err(mut refused) => {
                if let Some(forward) = self.unknown_to_us(octets, peer, &refused) {
                    return forward;
                }
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

    /// An update that is signed with a key that is none of ours: where somebody at this address may have updates passed
    /// on, the primary is to say what it thinks of it (RFC 8945 §5.5).
    fn unknown_to_us(&self, octets: &[u8], peer: SocketAddr, refused: &NotSigned) -> Option<Handled> {
        if !matches!(refused.cause, TsigError::Key) {
            return None;
        }
        let request = Message::parse(&refused.message).ok().filter(|it| it.header.opcode == Opcode::UPDATE)?;
        let (apex, class) = update::zone(&request).ok()?;
        let policy = self.0.policies.get(apex).filter(|_| class == Class::IN)?;
        let may = policy.may_forward(Caller { peer, key: None });
        may.then(|| self.pass_on(apex, Passed::AsItCame(octets.to_vec()))).flatten()
    }

    /// Passes an update on, where there is a place and a primary.
    fn pass_on(&self, apex: &Name, form: Passed) -> Option<Handled> {
        let primaries = self.0.primaries.get(apex)?.clone();
        let Ok(place) = Arc::clone(&self.0.forwards).try_acquire_owned() else {
            self.refuse("update-forwards-full");
            return None;
        };
        let forward = Forward { apex: apex.clone(), primaries, form };
        Some(Handled::Forward(Box::new(Passing { forward, _place: place })))
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

/// What a desk needs.
pub(super) struct Furnishing {
    pub(super) ledger: Arc<Ledger>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) policies: HashMap<Name, Policy>,
    pub(super) primaries: HashMap<Name, Vec<Peer>>,
    pub(super) wakers: HashMap<Name, mpsc::Sender<()>>,
    pub(super) counts: Counts,
    /// Zones that may be on their way at once.
    pub(super) transfers: u16,
}

/// Makes the desk, and what [`start`] takes. Needs a tokio runtime to be entered.
pub(super) fn furnish(furnishing: Furnishing) -> (Desk, Queue) {
    let Furnishing { ledger, keyring, policies, primaries, wakers, counts, transfers } = furnishing;
    let (queue, waiting) = std::sync::mpsc::sync_channel(QUEUE);
    let [transfers, forwards] = [usize::from(transfers), FORWARDS].map(|places| Arc::new(Semaphore::new(places)));
    let runtime = Handle::current();
    let store = OnceLock::new();
    let inner =
        Inner { ledger, keyring, policies, primaries, transfers, forwards, runtime, wakers, counts, queue, store };
    (Desk(Arc::new(inner)), Queue(waiting))
}
