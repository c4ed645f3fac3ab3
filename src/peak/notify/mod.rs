//! Telling secondaries that a zone has changed (RFC 1996).
//!
//! Each secondary of each zone has a task. A change while a notice is under way begins a new one: only the latest serial
//! is of interest. A secondary that does not answer is told again, ever more slowly, and then left to its refresh time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::desk::counts::{Counts, Direction, Ended};
use super::exchange::{Peer, socket_to};
use super::ledger::Ledger;
use crate::model::Name;
use crate::ops::{clock, entropy};
use crate::wire::dns::tsig::Asking;
use crate::wire::dns::{Message, Opcode, Rcode, Record, Type};

/// How often a secondary is told (RFC 1996 §3.6 suggests 5).
const ATTEMPTS: u32 = 7;

/// How long the first attempt waits for an answer; each later one waits twice as long as the one before. All seven
/// take two minutes.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// A datagram that is no longer than this is a reply to a notice.
const REPLY: usize = 2048;

/// Tells one secondary of one zone of its changes, the one at the start among them (RFC 1996 §3.12), until the ledger
/// is gone.
pub(super) async fn tell(apex: Name, secondary: Peer, ledger: Arc<Ledger>, counts: Counts) {
    let Some(mut news) = ledger.news(&apex) else { return };
    // Only the channel is needed from here on, so that the ledger can go.
    let ledger = Arc::downgrade(&ledger);
    news.mark_changed();
    while news.changed().await.is_ok() {
        let Some(soa) = ledger.upgrade().and_then(|ledger| ledger.zone(&apex)).and_then(|zone| zone.soa()) else {
            continue;
        };
        news.mark_unchanged();
        let soa = Record::new(soa.name, Type::SOA, soa.ttl, soa.rdata);
        match told(&apex, &secondary, &soa, &mut news).await {
            Told::Answered => counts.notices.increment(&(Direction::Out, Ended::Done)),
            Told::Refused(rcode) => {
                tracing::warn!(zone = %apex, secondary = %secondary.address, %rcode, "a secondary refuses notices");
                counts.notices.increment(&(Direction::Out, Ended::Refused));
            }
            Told::Silent => {
                tracing::warn!(zone = %apex, secondary = %secondary.address, "a secondary does not answer notices");
                counts.notices.increment(&(Direction::Out, Ended::Failed));
            }
            Told::Overtaken => {}
        }
    }
}

enum Told {
    Answered,
    Refused(Rcode),
    Silent,
    /// There is a newer version to tell of.
    Overtaken,
}

async fn told(apex: &Name, secondary: &Peer, soa: &Record, news: &mut watch::Receiver<u32>) -> Told {
    let mut wait = FIRST_WAIT;
    for number in 0..ATTEMPTS {
        let attempt = async {
            let deadline = Instant::now() + wait;
            let outcome = timeout_at(deadline, attempt(apex, secondary, soa)).await;
            if let Ok(Err(_)) = outcome {
                // Nobody there, perhaps not yet.
                sleep_until(deadline).await;
            }
            outcome
        };
        let outcome = tokio::select! {
            outcome = attempt => outcome,
            // The first attempt has its time: however fast changes come, one notice is under way.
            Ok(()) = news.changed(), if number > 0 => {
                news.mark_changed();
                return Told::Overtaken;
            }
        };
        match outcome {
            Ok(Ok(Rcode::NOERROR)) => return Told::Answered,
            Ok(Ok(rcode)) => return Told::Refused(rcode),
            Ok(Err(_)) | Err(_) => wait *= 2,
        }
    }
    Told::Silent
}

/// Sends one notice and waits for its answer.
async fn attempt(apex: &Name, secondary: &Peer, soa: &Record) -> std::io::Result<Rcode> {
    let id = entropy::draw() as u16;
    let mut notice = Message::query(id, apex.clone(), Type::SOA);
    notice.header.opcode = Opcode::NOTIFY;
    notice.header.authoritative = true;
    notice.answers.push(soa.clone());
    // Old servers know no EDNS in notices, and nothing here needs it.
    notice.edns = None;
    let mut octets = notice.encode(REPLY);
    let mut asking = secondary.key().map(|key| Asking::sign(&key, &mut octets, clock::now()));
    let socket = socket_to(secondary.address, secondary.source)?;
    socket.connect(secondary.address).await?;
    socket.send(&octets).await?;
    let mut reply = [0; REPLY];
    loop {
        let length = socket.recv(&mut reply).await?;
        let message = match &mut asking {
            Some(asking) => asking.verify(&reply[..length], clock::now()).ok(),
            None => Some(reply[..length].to_vec()),
        };
        let Some(message) = message.and_then(|octets| Message::parse(&octets).ok()) else { continue };
        if message.header.id == id && message.header.response && message.header.opcode == Opcode::NOTIFY {
            return Ok(message.header.rcode);
        }
    }
}
