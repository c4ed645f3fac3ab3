//! A worker's UDP side: take a batch, answer each datagram in place, send the replies together.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};

use super::respond::Responder;
use crate::model::zone::Zones;
use crate::net::udp_batch::{Batch, Shared};
use crate::ops::clock;
use crate::peak::desk::Desk as Apart;

/// Datagrams taken at once. More gains nothing and makes the last of them wait.
const SLOTS: usize = 64;

/// Octets of a request that are looked at: what is longer is malformed. Over a round number, so that the slots do not
/// all fall on the same lines of the cache.
const RECEIVED: usize = 2048 + 64;

/// After an error of the socket, which is out of memory in all likelihood.
const PAUSE: Duration = Duration::from_millis(10);

/// Serves until `stopped` and the socket is woken.
pub(super) fn serve(
    socket: &Shared,
    responder: &mut Responder,
    apart: &Apart,
    zones: &Arc<ArcSwap<Zones>>,
    stopped: &AtomicBool,
    room: u16,
) {
    let mut zones = Cache::new(Arc::clone(zones));
    let mut batch = Batch::new(SLOTS, RECEIVED.max(usize::from(room) + 64), RECEIVED);
    loop {
        let received = batch.receive(socket);
        if stopped.load(Ordering::Relaxed) {
            return;
        }
        match received {
            Ok(count) => answer(socket, responder, apart, zones.load(), &mut batch, count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::warn!(%error, "receiving datagrams failed");
                std::thread::sleep(PAUSE);
            }
        }
    }
}

#[inline]
fn answer(socket: &Shared, responder: &mut Responder, apart: &Apart, zones: &Zones, batch: &mut Batch, count: usize) {
    let (started, now) = (Instant::now(), clock::now());
    responder.respond_to_all(zones, batch, count, now, |batch, slot, peer| hand_over(apart, batch, slot, peer));
    let unsent = batch.send(socket);
    responder.tally.batch(count, started.elapsed(), unsent);
}

/// Leaves a request to who takes its time.
#[cold]
fn hand_over(apart: &Apart, batch: &mut Batch, slot: usize, peer: SocketAddr) {
    let origin = batch.origin(slot);
    let (message, length) = batch.datagram(slot);
    // When there is no room, its sender comes again.
    apart.take_datagram(origin, peer, &message[..length]);
}
