//! A worker's TCP side: connections that may ask one question after another without waiting (RFC 7766).
//!
//! Whatever has come in one read is answered together and leaves in one write. A connection holds no buffer of its
//! own while it is idle: a worker's connections take turns with one pair of buffers, because reading, answering and
//! trying to write never wait. What cannot be written at once, and the beginning of a request whose rest is under way,
//! is copied aside.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::respond::{Asker, Outcome, Responder};
use crate::model::zone::Zones;
use crate::ops::clock;
use crate::peak::desk::{Carrier, Desk as Apart, Handled, failure};

/// Octets of the length before a message (RFC 1035 §4.2.2).
const PREFIX: usize = 2;
/// A message with its length.
const LARGEST: usize = PREFIX + 65_535;
/// Octets answered in one go: room for one of the largest replies, and for many ordinary ones.
const OUT: usize = 4 * LARGEST;
/// Octets read at once.
const READ: usize = LARGEST;
/// After an error of accepting, which is too many open files in all likelihood.
const PAUSE: Duration = Duration::from_millis(50);

/// How much TCP a server puts up with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TcpLimits {
    /// Connections at once, of all peers.
    pub(crate) connections: usize,
    /// Connections at once of one address.
    pub(crate) connections_per_peer: usize,
    /// How long a connection may go without a whole request (RFC 7766 §6.2.3), and a reply without being taken.
    pub(crate) idle: Duration,
}

/// What the connections of all workers share.
#[derive(Debug)]
pub(super) struct Open {
    limits: TcpLimits,
    count: AtomicUsize,
    peers: parking_lot::Mutex<HashMap<IpAddr, usize>>,
    refused: AtomicUsize,
}

impl Open {
    pub(super) fn new(limits: TcpLimits) -> Self {
        Self { limits, count: AtomicUsize::new(0), peers: parking_lot::Mutex::default(), refused: AtomicUsize::new(0) }
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub(super) fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    /// A place for one more connection of `peer`, if there is one.
    fn admit(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let mut peers = self.peers.lock();
        let of_peer = peers.get(&peer).copied().unwrap_or(0);
        if self.count() >= self.limits.connections || of_peer >= self.limits.connections_per_peer {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        peers.insert(peer, of_peer + 1);
        self.count.fetch_add(1, Ordering::Relaxed);
        Some(Place { open: Arc::clone(self), peer })
    }
}

/// A connection's place among the open ones, given back when dropped.
struct Place {
    open: Arc<Open>,
    peer: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut peers = self.open.peers.lock();
        if let Some(count) = peers.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                peers.remove(&self.peer);
            }
        }
        self.open.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a worker's connections take turns with.
struct Desk {
    responder: Responder,
    input: Box<[u8]>,
    output: Box<[u8]>,
}

/// Serves connections until told to stop; then those that are open get one more idle time to end.
pub(super) async fn serve(
    listener: TcpListener,
    responder: Responder,
    apart: Apart,
    zones: Arc<ArcSwap<Zones>>,
    open: Arc<Open>,
    mut stopped: watch::Receiver<bool>,
) {
    let desk = Rc::new(RefCell::new(Desk {
        responder,
        input: vec![0; LARGEST + READ].into_boxed_slice(),
        output: vec![0; OUT].into_boxed_slice(),
    }));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stopped| *stopped) => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Some(place) = open.admit(peer.ip().to_canonical()) {
                    let (zones, desk, apart) = (Arc::clone(&zones), Rc::clone(&desk), apart.clone());
                    let connection = Connection { stream, peer, zones, desk, apart };
                    let (idle, stopped) = (open.limits.idle, stopped.clone());
                    tokio::task::spawn_local(async move {
                        let _place = place;
                        connection.serve(idle, stopped).await;
                    });
                }
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    zones: Arc<ArcSwap<Zones>>,
    desk: Rc<RefCell<Desk>>,
    apart: Apart,
}

/// Whether this node is known not to be behind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Certainty {
    /// Nobody has looked.
    Open,
    /// It is not.
    Confirmed,
    /// It may be: the leader could not be asked.
    Denied,
}

/// How one turn at the desk ended.
struct Turn {
    /// Requests answered.
    answered: usize,
    /// Replies that the socket did not take at once.
    unwritten: Vec<u8>,
    /// Input that is no whole request yet, or whose answers had no room.
    carried: Vec<u8>,
    /// Whether `carried` begins with a whole request.
    more: bool,
    /// A request that is no plain question, whose turn it is when everything is written.
    apart: Option<Vec<u8>>,
}

/// What was done with some input.
struct Answered {
    /// Octets of input that were used, and of output written.
    used: usize,
    written: usize,
    /// How many requests those were.
    requests: usize,
    apart: Option<Vec<u8>>,
}

impl Connection {
    /// Answers until the peer has ended, is idle too long, or breaks the rules; nobody needs to be told which.
    async fn serve(mut self, idle: Duration, mut stopped: watch::Receiver<bool>) {
        let _ = self.stream.set_nodelay(true);
        let mut carried = Vec::new();
        let mut more = false;
        let mut deadline = Instant::now() + idle;
        loop {
            if !more {
                let readable = tokio::select! {
                    readable = timeout_at(deadline, self.stream.readable()) => readable,
                    _ = stopped.wait_for(|stopped| *stopped) => return,
                };
                if !matches!(readable, Ok(Ok(()))) {
                    return;
                }
            }
            let turn = match self.turn(&carried, more) {
                Ok(turn) => turn,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(_) => return,
            };
            if !turn.unwritten.is_empty()
                && !matches!(timeout(idle, self.stream.write_all(&turn.unwritten)).await, Ok(Ok(())))
            {
                return;
            }
            if let Some(request) = turn.apart
                && self.serve_apart(&request, idle).await.is_err()
            {
                return;
            }
            if turn.answered > 0 {
                deadline = Instant::now() + idle;
            }
            (carried, more) = (turn.carried, turn.more);
        }
    }

    /// Answers a request that is no plain question, however long that takes; what the peer sends meanwhile waits.
    async fn serve_apart(&mut self, request: &[u8], idle: Duration) -> io::Result<()> {
        let handled = match self.handle_apart(request, Certainty::Open) {
            Some(handled) => handled,
            None => {
                let certainty = if self.apart.is_up_to_date().await { Certainty::Confirmed } else { Certainty::Denied };
                self.handle_apart(request, certainty).unwrap_or(Handled::Silence)
            }
        };
        match handled {
            Handled::Silence => Ok(()),
            Handled::Reply(reply) => self.write(&reply, idle).await,
            Handled::Update(pending) => {
                let reply = self.apart.make(*pending, clock::now).await;
                self.write(&reply, idle).await
            }
            Handled::Transfer(outgoing) => self.apart.send(*outgoing, &mut self.stream, self.peer, idle).await,
        }
    }

    /// None: the node has to know first whether it is behind.
    fn handle_apart(&self, request: &[u8], certainty: Certainty) -> Option<Handled> {
        let (zones, now) = (self.zones.load(), clock::now());
        let asker = Asker { peer: self.peer.ip(), now };
        let mut unconfirmed = false;
        let mut answer = |question: &[u8]| {
            if certainty == Certainty::Denied {
                return failure(question);
            }
            let mut desk = self.desk.borrow_mut();
            let Desk { responder, output, .. } = &mut *desk;
            output[..question.len()].copy_from_slice(question);
            responder.confirmed = certainty == Certainty::Confirmed;
            let outcome = responder.respond(&zones, &mut output[..LARGEST - PREFIX], question.len(), asker);
            responder.confirmed = false;
            match outcome {
                Outcome::Reply(octets) => output[..octets].to_vec(),
                Outcome::Silence => Vec::new(),
                Outcome::Apart => {
                    unconfirmed = true;
                    Vec::new()
                }
            }
        };
        let handled = self.apart.handle(request, self.peer, Carrier::Tcp, now, &mut answer);
        (!unconfirmed).then_some(handled)
    }

    async fn write(&mut self, reply: &[u8], idle: Duration) -> io::Result<()> {
        let length = u16::try_from(reply.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        let message = [&length.to_be_bytes()[..], reply].concat();
        timeout(idle, self.stream.write_all(&message)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    /// Reads, unless `carried` is to be answered first; answers all whole requests that fit; writes.
    fn turn(&self, carried: &[u8], answer_first: bool) -> io::Result<Turn> {
        let mut desk = self.desk.borrow_mut();
        let desk = &mut *desk;
        desk.input[..carried.len()].copy_from_slice(carried);
        let mut filled = carried.len();
        if !answer_first {
            let read = self.stream.try_read(&mut desk.input[filled..])?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
        }
        let Answered { used, written, requests: answered, apart } = self.answer_all(desk, filled);
        let sent = match self.stream.try_write(&desk.output[..written]) {
            Ok(sent) => sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        let carried = desk.input[used..filled].to_vec();
        let more = request(&carried).is_some();
        Ok(Turn { answered, unwritten: desk.output[sent..written].to_vec(), carried, more, apart })
    }

    /// Answers requests from the input's first `filled` octets while there is room, up to one that is no plain question.
    fn answer_all(&self, desk: &mut Desk, filled: usize) -> Answered {
        let (started, zones) = (std::time::Instant::now(), self.zones.load());
        let asker = Asker { peer: self.peer.ip(), now: clock::now() };
        let (mut used, mut written, mut answered, mut apart) = (0, 0, 0, None);
        while written + LARGEST <= desk.output.len()
            && let Some(length) = request(&desk.input[used..filled])
        {
            let from = &desk.input[used + PREFIX..used + PREFIX + length];
            let room = &mut desk.output[written..written + LARGEST];
            let (prefix, message) = room.split_at_mut(PREFIX);
            message[..length].copy_from_slice(from);
            used += PREFIX + length;
            answered += 1;
            match desk.responder.respond(&zones, message, length, asker) {
                Outcome::Reply(octets) => {
                    prefix.copy_from_slice(&(octets as u16).to_be_bytes());
                    written += PREFIX + octets;
                }
                Outcome::Silence => {}
                // What stands before it has its replies first, and what follows waits.
                Outcome::Apart => {
                    apart = Some(message[..length].to_vec());
                    break;
                }
            }
        }
        desk.responder.tally.batch(answered, started.elapsed(), 0);
        Answered { used, written, requests: answered, apart }
    }
}

/// The length of the whole request that `input` begins with.
fn request(input: &[u8]) -> Option<usize> {
    let (prefix, rest) = input.split_first_chunk::<PREFIX>()?;
    let length = usize::from(u16::from_be_bytes(*prefix));
    (rest.len() >= length).then_some(length)
}
