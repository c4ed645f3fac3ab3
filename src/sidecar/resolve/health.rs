//! Which name server to ask first: what is remembered of each.
//!
//! Pure: times are arguments. A server that answers is ranked by its smoothed round trip (RFC 6298 §2's first term); one
//! that was silent or refused is tried last, and asked on the side once its penalty is over, so that its return is
//! noticed without any caller waiting for it.
//!
//! ```text
//!            answered                    failed
//!  unknown ───────────▶ ranked by srtt ◀────────▶ last, probed after 0.5 s, 1 s, 2 s … 5 s
//!  (first)                              answered
//! ```

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The first penalty; it doubles with every further failure.
const FIRST_PENALTY: Duration = Duration::from_millis(500);
/// The longest time in which a returned server goes unnoticed.
const LONGEST_PENALTY: Duration = Duration::from_secs(5);
/// How long a server of unknown speed has before the next is asked as well.
const MOST_PATIENCE: Duration = Duration::from_millis(400);
/// Below this, waiting costs less than a second question.
const LEAST_PATIENCE: Duration = Duration::from_millis(50);
/// Delegations choose the addresses, so they must not choose how many are remembered.
const MOST_SERVERS: usize = 1024;

/// What is remembered of every server asked.
#[derive(Debug, Default)]
pub(in crate::sidecar) struct Health {
    servers: Mutex<HashMap<SocketAddr, State>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    smoothed: Option<Duration>,
    failures: u32,
    /// Until when it is not worth asking; set while it fails.
    penalty_ends: Option<Instant>,
}

/// Whom to ask, each list in its order.
#[derive(Debug, Default, Eq, PartialEq)]
pub(in crate::sidecar) struct Plan {
    /// Servers not known to fail.
    pub(in crate::sidecar) alive: Vec<SocketAddr>,
    /// A failing server whose time has come to be tried again.
    pub(in crate::sidecar) due: Option<SocketAddr>,
    /// Servers that failed a moment ago.
    pub(in crate::sidecar) failing: Vec<SocketAddr>,
}

impl Health {
    /// The order for these servers. Whoever calls carries out the plan: a server that is due now is due again only
    /// after another penalty.
    pub(in crate::sidecar) fn plan(&self, servers: &[SocketAddr], now: Instant) -> Plan {
        let mut known = self.servers.lock();
        let (mut alive, mut failing): (Vec<_>, Vec<_>) =
            servers.iter().partition(|server| known.get(*server).is_none_or(|state| state.penalty_ends.is_none()));
        alive.sort_by_key(|server| known.get(server).and_then(|state| state.smoothed).unwrap_or(Duration::ZERO));
        failing.sort_by_key(|server| known.get(server).and_then(|state| state.penalty_ends));
        let is_due = |server: &&SocketAddr| {
            known.get(*server).and_then(|state| state.penalty_ends).is_some_and(|penalty_ends| penalty_ends <= now)
        };
        let due = failing.first().filter(is_due).copied();
        if let Some(state) = due.and_then(|server| known.get_mut(&server)) {
            state.penalty_ends = Some(now + penalty(state.failures));
            failing.remove(0);
        }
        Plan { alive, due, failing }
    }

    /// `server` answered after `took`.
    pub(in crate::sidecar) fn answered(&self, server: SocketAddr, took: Duration) {
        self.with(server, |state| {
            let smoothed = state.smoothed.map_or(took, |old| (old * 7 + took) / 8);
            *state = State { smoothed: Some(smoothed), failures: 0, penalty_ends: None };
        });
    }

    /// `server` was silent for too long, or could not be asked.
    pub(in crate::sidecar) fn failed(&self, server: SocketAddr, now: Instant) {
        self.with(server, |state| {
            state.failures = state.failures.saturating_add(1);
            state.penalty_ends = Some(now + penalty(state.failures));
        });
    }

    /// How long `server` may take before the next is asked as well.
    pub(in crate::sidecar) fn patience(&self, server: SocketAddr) -> Duration {
        let smoothed = self.servers.lock().get(&server).and_then(|state| state.smoothed);
        smoothed.map_or(MOST_PATIENCE, |smoothed| (smoothed * 3).clamp(LEAST_PATIENCE, MOST_PATIENCE))
    }

    fn with(&self, server: SocketAddr, change: impl FnOnce(&mut State)) {
        let mut known = self.servers.lock();
        if known.len() >= MOST_SERVERS && !known.contains_key(&server) {
            // It is only memory of speed; starting over costs one round of unranked questions.
            known.clear();
        }
        change(known.entry(server).or_default());
    }
}

fn penalty(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(8);
    (FIRST_PENALTY * 2_u32.pow(doublings)).min(LONGEST_PENALTY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers() -> [SocketAddr; 3] {
        [1, 2, 3].map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn the_fastest_server_comes_first_and_an_unknown_one_before_all() {
        let (health, [a, b, c], now) = (Health::default(), servers(), Instant::now());
        health.answered(a, ms(30));
        health.answered(b, ms(10));
        assert_eq!(health.plan(&[a, b, c], now).alive, [c, b, a]);
    }

    #[test]
    fn a_failed_server_is_set_apart_until_it_answers() {
        let (health, [a, b, _], now) = (Health::default(), servers(), Instant::now());
        health.failed(a, now);
        assert_eq!(health.plan(&[a, b], now), Plan { alive: vec![b], due: None, failing: vec![a] });
        health.answered(a, ms(1));
        health.answered(b, ms(2));
        assert_eq!(health.plan(&[a, b], now).alive, [a, b]);
    }

    #[test]
    fn a_failed_server_is_due_when_its_penalty_is_over_and_once_only() {
        let (health, [a, b, _], now) = (Health::default(), servers(), Instant::now());
        health.failed(a, now);
        assert_eq!(health.plan(&[a, b], now + FIRST_PENALTY - ms(1)).due, None);
        let due = now + FIRST_PENALTY;
        assert_eq!(health.plan(&[a, b], due), Plan { alive: vec![b], due: Some(a), failing: vec![] });
        assert_eq!(health.plan(&[a, b], due), Plan { alive: vec![b], due: None, failing: vec![a] });
    }

    #[test]
    fn of_several_failing_servers_the_one_whose_penalty_ends_first_is_due_first() {
        let (health, [a, b, _], now) = (Health::default(), servers(), Instant::now());
        health.failed(b, now);
        health.failed(a, now + ms(1));
        let late = now + 2 * FIRST_PENALTY;
        assert_eq!(health.plan(&[a, b], late), Plan { alive: vec![], due: Some(b), failing: vec![a] });
    }

    #[test]
    fn penalties_double_up_to_five_seconds() {
        let penalties = [1, 2, 3, 4, 5, 6, u32::MAX].map(penalty);
        assert_eq!(penalties, [500, 1000, 2000, 4000, 5000, 5000, 5000].map(ms));
    }

    #[test]
    fn patience_follows_the_round_trip_within_its_bounds() {
        let (health, [a, b, c]) = (Health::default(), servers());
        health.answered(a, ms(1));
        health.answered(b, ms(100));
        assert_eq!((health.patience(a), health.patience(b), health.patience(c)), (ms(50), ms(300), ms(400)));
        health.answered(b, ms(1000));
        assert_eq!(health.patience(b), ms(400));
    }

    #[test]
    fn a_flood_of_servers_does_not_grow_the_memory() {
        let health = Health::default();
        for port in 0..=u16::MAX {
            health.answered(SocketAddr::from(([127, 0, 0, 1], port)), ms(1));
        }
        assert!(health.servers.lock().len() <= MOST_SERVERS);
    }
}
