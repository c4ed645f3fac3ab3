//! The desk's thread: takes what waits, makes all updates among it together, replies.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, thread};

use tokio::sync::oneshot;

use super::{Carrier, Desk, Handled, Job, Pending};
use crate::model::Name;
use crate::model::zone::Update;
use crate::net::udp_batch::{Batch, Origin, Shared};
use crate::ops::clock;
use crate::peak::ledger::{Outcome, Unmade};

/// Requests looked at together: updates among them share one write to the disk.
const TOGETHER: usize = 256;

/// Replies sent together.
const SLOTS: usize = 16;

/// Octets of the largest reply over UDP: an IXFR's, in the largest size that anybody may ask for.
const ROOM: usize = 65_535;

/// How long nobody must have come before files are tidied.
const QUIET: Duration = Duration::from_millis(200);

/// What waits for the desk.
pub(in crate::peak) struct Queue(pub(super) Receiver<Job>);

/// Answers a plain question that came over UDP from this address: the message in, the reply out.
/// Whether the node is known not to be behind comes with it. No reply: it must be confirmed first.
pub(in crate::peak) type Answerer = Box<dyn FnMut(&[u8], SocketAddr, bool) -> Option<Vec<u8>> + Send>;

/// Who waits for an update's outcome.
enum Waiting {
    Datagram(Box<(Origin, Pending)>),
    Connection(oneshot::Sender<Outcome>),
}

/// Starts the thread; it ends when all desks are gone.
///
/// # Errors
/// No thread.
pub(in crate::peak) fn start(
    desk: &Desk,
    queue: Queue,
    socket: Shared,
    answerer: Answerer,
) -> io::Result<JoinHandle<()>> {
    // Held weakly, or the queue would never end.
    let desk = std::sync::Arc::downgrade(&desk.0);
    thread::Builder::new().name("dns-desk".to_owned()).spawn(move || {
        let mut worker = Worker { socket, batch: Batch::new(SLOTS, ROOM, 1), answerer, untidy: false };
        loop {
            let first = match queue.0.recv_timeout(QUIET) {
                Ok(job) => job,
                Err(RecvTimeoutError::Timeout) if !worker.untidy => match queue.0.recv() {
                    Ok(job) => job,
                    Err(_) => return,
                },
                Err(RecvTimeoutError::Timeout) => {
                    worker.untidy = false;
                    if let Some(inner) = desk.upgrade() {
                        inner.ledger.tidy();
                    }
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let Some(inner) = desk.upgrade() else { return };
            let jobs = std::iter::once(first).chain(queue.0.try_iter().take(TOGETHER - 1));
            worker.work(&Desk(inner), jobs);
        }
    })
}

struct Worker {
    socket: Shared,
    batch: Batch,
    answerer: Answerer,
    untidy: bool,
}

impl Worker {
    fn work(&mut self, desk: &Desk, jobs: impl Iterator<Item = Job>) {
        let mut replies: Vec<(Origin, Vec<u8>)> = Vec::new();
        let (mut updates, mut waiting): (Vec<(Name, Update)>, Vec<Waiting>) = (Vec::new(), Vec::new());
        for job in jobs {
            match job {
                Job::Datagram { origin, peer, octets } => {
                    let (answerer, mut unconfirmed) = (&mut self.answerer, false);
                    let mut answer = |octets: &[u8]| {
                        let answered = answerer(octets, peer, false);
                        unconfirmed |= answered.is_none();
                        answered.unwrap_or_default()
                    };
                    let handled = desk.handle(&octets, peer, Carrier::Udp, clock::now(), &mut answer);
                    if unconfirmed {
                        desk.confirm(origin, peer, octets);
                        continue;
                    }
                    match handled {
                        Handled::Reply(reply) => replies.push((origin, reply)),
                        Handled::Update(pending) if desk.replicates(&pending) => desk.replicate(origin, pending),
                        Handled::Update(pending) => {
                            updates.push((pending.apex.clone(), pending.update.clone()));
                            waiting.push(Waiting::Datagram(Box::new((origin, *pending))));
                        }
                        // A transfer goes over TCP.
                        Handled::Silence | Handled::Transfer(_) => {}
                    }
                }
                Job::Made { origin, pending, outcome } => {
                    replies.push((origin, desk.finish(*pending, outcome, clock::now())));
                }
                Job::Confirmed { origin, peer, octets, confirmed } => {
                    let (answerer, now) = (&mut self.answerer, clock::now());
                    let mut answer = |octets: &[u8]| match confirmed {
                        true => answerer(octets, peer, true).unwrap_or_default(),
                        false => super::failure(octets),
                    };
                    if let Handled::Reply(reply) = desk.handle(&octets, peer, Carrier::Udp, now, &mut answer) {
                        replies.push((origin, reply));
                    }
                }
                Job::Update { apex, update, done } => {
                    updates.push((apex, update));
                    waiting.push(Waiting::Connection(done));
                }
            }
        }
        let mut outcomes = if updates.is_empty() { Vec::new() } else { desk.0.ledger.update(&updates) }.into_iter();
        self.untidy |= !updates.is_empty();
        for waiting in waiting {
            let outcome = outcomes.next().unwrap_or(Err(Unmade::Unkept));
            match waiting {
                Waiting::Datagram(from) => {
                    let (origin, pending) = *from;
                    replies.push((origin, desk.finish(pending, outcome, clock::now())));
                }
                // Who has gone meanwhile will ask what became of it.
                Waiting::Connection(done) => drop(done.send(outcome)),
            }
        }
        let unsent = self.batch.reply_to(&self.socket, SLOTS, &replies);
        if unsent > 0 {
            desk.refuse("reply-unsent");
        }
    }
}
