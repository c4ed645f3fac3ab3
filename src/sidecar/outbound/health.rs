//! Where connections failed lately: learned from the connections themselves, no probe is ever sent.
//!
//! ```text
//!  unknown ──failed──▶ shunned 0.5 s, 1 s, 2 s … 30 s ──time over──▶ one connection tries ──failed──▶ shunned, longer
//!     ▲                                                                    │ worked
//!     └────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! What is remembered is a place: a slice at a port, since all addresses of a slice lead to one endpoint. Shunning
//! only sets an order: when there is nothing better, a shunned place is tried all the same.
//!
//! Pure: times are arguments.

use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::time::Duration;

use ipnet::Ipv6Net;
use parking_lot::Mutex;
use tokio::time::Instant;

/// For how long a place is shunned first; it doubles with every further failure.
const FIRST: Duration = Duration::from_millis(500);
/// The longest time in which a place that is well again goes unnoticed.
const LONGEST: Duration = Duration::from_secs(30);
/// How long the one that tries a shunned place has before another may.
const TRIAL: Duration = Duration::from_secs(2);
/// How many places are remembered; beyond that, those whose time is over make room.
const MOST: usize = 4_096;

/// Where connections go: a slice, or one address where the rule knows no slices; and the port.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Place {
    prefix: Ipv6Net,
    port: u16,
}

impl Place {
    pub(super) fn new(slice: Option<Ipv6Net>, address: Ipv6Addr, port: u16) -> Self {
        Self { prefix: slice.unwrap_or_else(|| address.into()), port }
    }
}

/// What went wrong at a place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Failure {
    /// No connection came about.
    Connecting,
    /// It did, and broke off before the server had said anything: the application behind it may be down.
    Serving,
}

/// What is remembered of places.
#[derive(Debug, Default)]
pub struct Health {
    places: Mutex<HashMap<Place, Record>>,
}

#[derive(Debug)]
struct Record {
    last: Failure,
    failures: u32,
    until: Instant,
}

impl Health {
    /// Whether another place should be preferred. When the time is over, the one who asks first is to try.
    pub(super) fn shuns(&self, place: Place, now: Instant) -> bool {
        match self.places.lock().get_mut(&place) {
            None => false,
            Some(record) if now < record.until => true,
            Some(record) => {
                record.until = now + TRIAL;
                false
            }
        }
    }

    /// A connection to the place failed.
    pub(super) fn failed(&self, place: Place, failure: Failure, now: Instant) {
        let mut places = self.places.lock();
        if places.len() >= MOST && !places.contains_key(&place) {
            places.retain(|_, record| now < record.until);
            if places.len() >= MOST {
                return;
            }
        }
        let record = places.entry(place).or_insert(Record { last: failure, failures: 0, until: now });
        record.failures = record.failures.saturating_add(1);
        record.last = failure;
        record.until = now + (FIRST * 2_u32.pow(record.failures.saturating_sub(1).min(8))).min(LONGEST);
    }

    /// A connection to the place came about. That says nothing of the application behind it.
    pub(super) fn connected(&self, place: Place) {
        let mut places = self.places.lock();
        if places.get(&place).is_some_and(|record| record.last == Failure::Connecting) {
            places.remove(&place);
        }
    }

    /// The server said something, or ended in good order.
    pub(super) fn served(&self, place: Place) {
        self.places.lock().remove(&place);
    }

    /// How many places have failed and not worked since.
    #[must_use]
    pub fn failing(&self) -> usize {
        self.places.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    fn place(text: &str) -> Place {
        Place::new(Some(text.parse().unwrap()), Ipv6Addr::UNSPECIFIED, 80)
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_shunned_for_longer_with_every_failure_up_to_half_a_minute() {
        let (health, a, mut now) = (Health::default(), place("2001:db8::/78"), Instant::now());
        assert!(!health.shuns(a, now));
        for milliseconds in [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            health.failed(a, Failure::Connecting, now);
            now += Duration::from_millis(milliseconds) - MOMENT;
            assert!(health.shuns(a, now), "{milliseconds}");
            now += MOMENT;
            assert!(!health.shuns(a, now), "{milliseconds}");
        }
        assert!(!health.shuns(place("2001:db8:0:0:8000::/78"), now));
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_time_is_over_one_connection_tries_and_the_others_still_go_elsewhere() {
        let (health, a, now) = (Health::default(), place("2001:db8::/78"), Instant::now());
        health.failed(a, Failure::Connecting, now);
        let over = now + FIRST;
        assert!(!health.shuns(a, over));
        assert!(health.shuns(a, over));
        health.connected(a);
        assert!(!health.shuns(a, over));
        assert_eq!(health.failing(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_takes_connections_and_drops_them_is_well_only_when_it_serves() {
        let (health, a, now) = (Health::default(), place("2001:db8::/78"), Instant::now());
        health.failed(a, Failure::Serving, now);
        health.connected(a);
        assert!(health.shuns(a, now));
        health.served(a);
        assert!(!health.shuns(a, now));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded_and_old_failures_make_room() {
        let (health, now) = (Health::default(), Instant::now());
        let at = |n: usize| Place::new(None, Ipv6Addr::from(n as u128), 80);
        (0..=MOST).for_each(|n| health.failed(at(n), Failure::Connecting, now));
        assert_eq!(health.failing(), MOST);
        assert!(!health.shuns(at(MOST), now));
        health.failed(at(MOST), Failure::Connecting, now + FIRST);
        assert_eq!(health.failing(), 1);
    }
}
