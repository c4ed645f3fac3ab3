//! From candidates to a connection: the next one is tried when the last has failed, and beside it when it is slow.
//!
//! ```text
//! candidate 1  ───── no answer ──────────────────────╴╴╴ given up: counts as failed
//! candidate 2       ├delay┤── refused                ╷
//! candidate 3             │   ├── TCP, TLS, name ────▶ connection
//! ```
//!
//! The idea is that of Happy Eyeballs (RFC 8305 §5) over computed addresses. A place that failed lately comes last, and
//! what every attempt shows is remembered ([`super::health`]). Attempts after the first are paid from the service's
//! budget ([`super::retries`]). A connection that loses the race is closed; only the winner is told who calls.

use std::collections::VecDeque;
use std::net::SocketAddr;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

use super::health::{Failure, Place};
use super::pick::{Candidates, NoCandidate, Picked};
use super::transport::{self, Attempt, AttemptError, Call, Remote, Way};
use super::{Outbound, OutboundError};

/// The most attempts beside each other.
const MOST_AT_ONCE: usize = 3;

/// How one connection is reached.
pub(super) struct Reach<'a> {
    pub(super) of: &'a Outbound,
    pub(super) way: &'a Way<'a>,
    pub(super) call: Call<'a>,
    pub(super) deadline: Instant,
}

/// A connection, and what it leads to.
pub(super) struct Reached {
    pub(super) remote: Remote,
    pub(super) place: Place,
}

/// What has been tried.
#[derive(Clone, Copy, Default)]
pub(super) struct Attempts {
    pub(super) count: u32,
    /// Where the connection leads, or the address that was tried last.
    pub(super) server: Option<SocketAddr>,
}

impl Attempts {
    fn reached(&mut self, remote: Remote, picked: &Picked, place: Place) -> Reached {
        self.server = Some(remote.destination().unwrap_or(picked.destination()));
        Reached { remote, place }
    }
}

/// An attempt that has neither failed nor won yet.
struct UnderWay {
    destination: SocketAddr,
    place: Place,
    since: Instant,
}

/// What is left to try.
struct Left {
    candidates: Candidates,
    /// Picked, and put off: their places failed lately.
    shunned: VecDeque<Picked>,
}

impl Reach<'_> {
    /// Tries candidates until one gives a connection, none is left, or the deadline passes.
    pub(super) async fn reach(&self, candidates: Candidates, tried: &mut Attempts) -> Result<Reached, OutboundError> {
        let mut left = Some(Left { candidates, shunned: VecDeque::new() });
        let mut attempts = FuturesUnordered::new();
        let mut under_way: Vec<UnderWay> = Vec::new();
        let mut last = None;
        let mut start_next = true;
        let mut next_due = Instant::now();
        while Instant::now() < self.deadline {
            if start_next {
                let allowed = tried.count == 0 || self.may_try_again();
                left = if allowed { left } else { None };
                let next = match left.take() {
                    Some(rest) => self.next(rest).await?,
                    None => None,
                };
                if let Some((rest, picked)) = next {
                    tried.count += 1;
                    tried.server = Some(picked.destination());
                    let place = place(&rest.candidates, &picked);
                    match transport::reuse(self.way, self.call, &rest.candidates, &picked) {
                        Some(Ok(remote)) => return Ok(tried.reached(remote, &picked, place)),
                        Some(Err(error)) => {
                            self.of.report.attempt_failed(&error);
                            last = Some(error);
                        }
                        None => {
                            let attempt = Attempt::at(picked, self.call.service, &rest.candidates);
                            let destination = picked.destination();
                            under_way.push(UnderWay { destination, place, since: Instant::now() });
                            attempts.push(self.attempt(attempt, picked, place));
                        }
                    }
                    left = Some(rest);
                    next_due = Instant::now() + self.of.limits.attempt_delay;
                }
            }
            if attempts.is_empty() {
                if left.is_none() {
                    break;
                }
                start_next = true;
                continue;
            }
            // Where computing an address is work, one is worth waiting for.
            let may_race =
                attempts.len() < MOST_AT_ONCE && left.as_ref().is_some_and(|left| !left.candidates.are_heavy());
            start_next = tokio::select! {
                Some((picked, place, opened)) = attempts.next() => {
                    under_way.retain(|other| other.destination != picked.destination());
                    match opened {
                        Ok(remote) => {
                            self.won(place, &under_way);
                            return Ok(tried.reached(remote, &picked, place));
                        }
                        Err(error) => {
                            self.lost(place, &error, left.as_mut());
                            last = Some(error);
                            true
                        }
                    }
                }
                () = sleep_until(next_due), if may_race => true,
                () = sleep_until(self.deadline) => break,
            };
        }
        self.too_late(&under_way);
        Err(unreached(*tried, last, under_way.is_empty()))
    }

    async fn attempt(
        &self,
        attempt: Attempt,
        picked: Picked,
        place: Place,
    ) -> (Picked, Place, Result<Remote, AttemptError>) {
        let until = self.deadline.min(Instant::now() + self.of.limits.attempt_timeout);
        (picked, place, transport::open(self.way, self.call, attempt, until).await)
    }

    /// The next candidate, those in places that failed lately last; `None` when there are no more.
    async fn next(&self, mut left: Left) -> Result<Option<(Left, Picked)>, NoCandidate> {
        loop {
            let (candidates, picked) = pick(left.candidates).await;
            left.candidates = candidates;
            match picked? {
                Some(picked) if self.is_shunned(&left.candidates, &picked) => left.shunned.push_back(picked),
                Some(picked) => return Ok(Some((left, picked))),
                None => return Ok(left.shunned.pop_front().map(|picked| (left, picked))),
            }
        }
    }

    /// An address that the application chose itself is for it to judge.
    fn is_shunned(&self, candidates: &Candidates, picked: &Picked) -> bool {
        !picked.is_dialled() && self.of.health.shuns(place(candidates, picked), Instant::now())
    }

    fn may_try_again(&self) -> bool {
        let may = self.of.retries.may(self.call.service);
        if !may {
            self.of.report.retry_denied();
        }
        may
    }

    /// Whoever had the chance to be first and let another overtake is as good as silent.
    fn won(&self, place: Place, others: &[UnderWay]) {
        self.of.health.connected(place);
        let now = Instant::now();
        let overtaken = |other: &&UnderWay| now.saturating_duration_since(other.since) >= self.of.limits.attempt_delay;
        others.iter().filter(overtaken).for_each(|other| {
            self.of.report.attempt_overtaken();
            self.of.health.failed(other.place, Failure::Connecting, now);
        });
    }

    fn lost(&self, place: Place, error: &AttemptError, left: Option<&mut Left>) {
        self.of.report.attempt_failed(error);
        if error.is_of_the_server() {
            self.of.health.failed(place, Failure::Connecting, Instant::now());
        }
        if let (AttemptError::Source { actual, .. }, Some(left)) = (error, left) {
            left.candidates.come_from(*actual);
            left.shunned.clear();
        }
        tracing::debug!(service = %self.call.service, "next candidate: {error}");
    }

    fn too_late(&self, under_way: &[UnderWay]) {
        let now = Instant::now();
        under_way.iter().for_each(|other| self.of.health.failed(other.place, Failure::Connecting, now));
    }
}

fn place(candidates: &Candidates, picked: &Picked) -> Place {
    let destination = picked.destination_v6();
    Place::new(candidates.slice_of(*destination.ip()), *destination.ip(), destination.port())
}

fn unreached(tried: Attempts, last: Option<AttemptError>, all_answered: bool) -> OutboundError {
    let attempts = tried.count;
    match (last, tried.server) {
        (Some(last), _) if all_answered => OutboundError::Unreached { attempts, last },
        // What was still under way at the deadline was the last.
        (_, Some(dst)) if attempts > 0 => OutboundError::Unreached { attempts, last: AttemptError::TimedOut { dst } },
        (_, Some(_) | None) => OutboundError::Deadline,
    }
}

/// The next candidate; on a thread of its own where computing it is work.
async fn pick(mut candidates: Candidates) -> (Candidates, Result<Option<Picked>, NoCandidate>) {
    if !candidates.are_heavy() {
        let picked = candidates.pick();
        return (candidates, picked);
    }
    let working = tokio::task::spawn_blocking(move || {
        let picked = candidates.pick();
        (candidates, picked)
    });
    match working.await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}
