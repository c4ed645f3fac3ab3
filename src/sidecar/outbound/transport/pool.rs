//! Connections to servers between two uses: tunnels between two streams, HTTP connections between two requests.
//!
//! What a new stream may share (a request is as good as a stream here) is decided in this module, so that reuse neither gathers a caller's load at one endpoint nor
//! outlives what it was allowed by:
//!
//! - An address is drawn first, as if for a new connection; only a tunnel into *its slice* is looked for. A rule with
//!   random slices spreads as it would without reuse.
//! - The tunnel's own address must be one that the rule might have given for this very call: the same source, the same
//!   content key, an epoch that still counts. They differ in random bits alone.
//! - The rule and the token must be the ones by which the tunnel was made or last renewed.
//! - A tunnel ends after [`MOST_STREAMS`] streams or [`LONGEST_LIFE`], whichever comes first, and when nobody has used
//!   it for [`LONGEST_IDLE`], well before the server would close it.
//!
//! The tunnel used last is used next, so that those that a burst has left over grow idle and end.

use std::collections::{HashMap, VecDeque};
use std::net::Ipv6Addr;
use std::time::Duration;

use ipnet::Ipv6Net;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::super::pick::{Candidates, Picked};
use crate::model::Name;
use crate::ops::metrics::Gauge;

/// How many streams a tunnel carries one after another.
pub const MOST_STREAMS: u32 = 1_000;
/// How old a tunnel may be when a stream begins in it.
pub const LONGEST_LIFE: Duration = Duration::from_secs(60);
/// How long a tunnel is kept that carries nothing. Servers wait for four times as long, so that ours end first.
pub const LONGEST_IDLE: Duration = Duration::from_secs(15);
/// How many idle tunnels are kept for one service.
pub const MOST_OF_A_SERVICE: usize = 64;
/// How many idle tunnels are kept in all.
pub const MOST: usize = 1_024;
/// How often idle tunnels are looked over.
const ROUND: Duration = Duration::from_secs(5);
/// How long the end of a stream waits for a next stream to go with.
const LAST_WORDS_WAIT: Duration = Duration::from_millis(5);

/// What tunnels must have in common to be taken for each other.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bundle {
    pub(super) service: Name,
    /// Where the connection comes from, which the destination was computed for.
    pub(super) source: Ipv6Addr,
    port: u16,
    slice: Option<Ipv6Net>,
}

impl Bundle {
    pub(in crate::sidecar::outbound) fn of(service: &Name, candidates: &Candidates, picked: &Picked) -> Self {
        let destination = picked.destination_v6();
        Self {
            service: service.clone(),
            source: picked.source(),
            port: destination.port(),
            slice: candidates.slice_of(*destination.ip()),
        }
    }
}

/// What a pool keeps.
pub trait Spare {
    /// What it has in common with those that serve as well.
    fn bundle(&self) -> &Bundle;

    /// Where it leads.
    fn destination(&self) -> Ipv6Addr;

    /// Whether it may serve once more, whomever.
    fn is_good(&mut self, now: Instant) -> bool;

    /// Whether something is to be said on it that may wait a little for its next use.
    fn has_last_words(&self) -> bool {
        false
    }

    /// Says that.
    fn say_last_words(&mut self) {}

    /// Ends it in good order.
    fn close(self);
}

/// The idle connections of a sidecar.
pub struct Pool<T: Spare> {
    shelves: Mutex<Shelves<T>>,
    idle: Gauge,
    /// Something was kept, so there is something to look over.
    kept: Notify,
    /// Last words wait.
    unsaid: Notify,
}

struct Shelves<T> {
    of: HashMap<Name, VecDeque<T>>,
    count: usize,
}

impl<T: Spare> Pool<T> {
    /// An empty pool that says in `idle` how many connections it holds.
    pub(crate) fn new(idle: Gauge) -> Self {
        Self {
            shelves: Mutex::new(Shelves { of: HashMap::new(), count: 0 }),
            idle,
            kept: Notify::new(),
            unsaid: Notify::new(),
        }
    }

    /// One into the slice of the picked address that serves as well as a new connection to it; `allowed` says whether what
    /// it was made by still holds.
    pub(in crate::sidecar::outbound) fn take(
        &self,
        bundle: &Bundle,
        candidates: &Candidates,
        picked: &Picked,
        allowed: impl Fn(&T) -> bool,
    ) -> Option<T> {
        let mut unfit = Vec::new();
        let now = Instant::now();
        let found = {
            let mut shelves = self.shelves.lock();
            let Shelves { of, count } = &mut *shelves;
            let shelf = of.get_mut(&bundle.service)?;
            let mut found = None;
            while found.is_none()
                && let Some(at) = shelf.iter().rposition(|idle| idle.bundle() == bundle)
                && let Some(mut idle) = shelf.remove(at)
            {
                *count -= 1;
                if idle.is_good(now) && allowed(&idle) {
                    if !candidates.serves(picked, idle.destination()) {
                        // Right for other calls, perhaps.
                        shelf.insert(at, idle);
                        *count += 1;
                        break;
                    }
                    found = Some(idle);
                } else {
                    unfit.push(idle);
                }
            }
            self.idle.set(*count as i64);
            found
        };
        unfit.into_iter().for_each(T::close);
        found
    }

    /// Keeps one if it may serve once more, and there is room.
    pub(in crate::sidecar::outbound) fn keep(&self, mut free: T) {
        if !free.is_good(Instant::now()) {
            return free.close();
        }
        if free.has_last_words() {
            self.unsaid.notify_one();
        }
        let surplus = {
            let mut shelves = self.shelves.lock();
            let Shelves { of, count } = &mut *shelves;
            if *count >= MOST {
                Some(free)
            } else {
                let shelf = of.entry(free.bundle().service.clone()).or_default();
                let oldest = if shelf.len() >= MOST_OF_A_SERVICE { shelf.pop_front() } else { None };
                shelf.push_back(free);
                *count += usize::from(oldest.is_none());
                self.idle.set(*count as i64);
                oldest
            }
        };
        if let Some(surplus) = surplus {
            surplus.close();
        }
        self.kept.notify_one();
    }

    /// Closes those that have been idle for too long or that the server has closed, and has last words said that no
    /// further use came for, for as long as it is polled.
    pub(crate) async fn look_after(&self) {
        tokio::join!(self.close_old(), self.say_last_words());
    }

    async fn say_last_words(&self) {
        loop {
            self.unsaid.notified().await;
            tokio::time::sleep(LAST_WORDS_WAIT).await;
            let mut shelves = self.shelves.lock();
            shelves.of.values_mut().flatten().for_each(T::say_last_words);
        }
    }

    async fn close_old(&self) {
        loop {
            self.kept.notified().await;
            while self.look_over(Instant::now()) > 0 {
                tokio::time::sleep(ROUND).await;
            }
        }
    }

    /// Closes what is no longer good; says how many are left.
    fn look_over(&self, now: Instant) -> usize {
        let mut unfit = Vec::new();
        let left = {
            let mut shelves = self.shelves.lock();
            let Shelves { of, count } = &mut *shelves;
            for shelf in of.values_mut() {
                let (good, bad): (VecDeque<_>, Vec<_>) = shelf
                    .drain(..)
                    .map(|mut idle| (idle.is_good(now), idle))
                    .fold((VecDeque::new(), Vec::new()), |(mut good, mut bad), (is_good, idle)| {
                        if is_good {
                            good.push_back(idle)
                        } else {
                            bad.push(idle)
                        }
                        (good, bad)
                    });
                *shelf = good;
                *count -= bad.len();
                unfit.extend(bad);
            }
            of.retain(|_, shelf| !shelf.is_empty());
            self.idle.set(*count as i64);
            *count
        };
        unfit.into_iter().for_each(T::close);
        left
    }
}

/// Whoever takes no more streams ends in good order what it has kept, last words included.
impl<T: Spare> Drop for Pool<T> {
    fn drop(&mut self) {
        self.shelves.get_mut().of.drain().flat_map(|(_, shelf)| shelf).for_each(T::close);
    }
}
