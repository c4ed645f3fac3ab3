//! Who was heard when: by it a leader knows that it still leads, and the others that they need no other one.
//!
//! ```text
//!  leader    ──ask at t──►  follower      A follower that has answered gives nobody else its vote, and wants nobody's,
//!            ◄──answer────                for LEASE after it heard. So until t + LEASE nobody else can lead, for each
//!            leads until t + LEASE − DRIFT majority that has answered what was asked at t or later.
//! ```
//!
//! Only lengths of time by monotonic clocks count, never what time it is; clocks may run at rates up to [`DRIFT`] apart.
//! A node that has just started does not know whom it has heard, and gives no vote for [`LEASE`].

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::types::{LogId, NodeId, Vote};

/// How long a node that has heard the leader holds to it.
pub(super) const LEASE: Duration = Duration::from_millis(200);
/// What a leader's own reckoning stays below it.
const DRIFT: Duration = Duration::from_millis(20);

/// What a node knows of who leads.
#[derive(Debug)]
pub(super) struct Lease {
    me: NodeId,
    started: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The leader that was heard last, and when.
    heard: Option<(Vote, Instant)>,
    /// The highest vote that may have been given since.
    promised: Option<Vote>,
    /// As leader: under which vote, and when what each node has answered was asked.
    led: Option<Vote>,
    acknowledged: BTreeMap<NodeId, Instant>,
    /// When everything was applied that the leader had applied at that time.
    fresh: Option<Instant>,
    /// What the leader had applied, and when it was heard.
    behind: Option<(LogId, Instant)>,
    /// As leader: when the core last sent anything.
    active: Option<Instant>,
}

impl Lease {
    pub(super) fn new(me: NodeId) -> Self {
        Self { me, started: Instant::now(), state: Mutex::default() }
    }

    /// The leader with this vote says that it is there. False when another may have been given a vote since: then it
    /// must not count on this node.
    pub(super) fn hear(&self, vote: Vote) -> bool {
        let mut state = self.state.lock();
        let leads = state.heard.is_none_or(|(known, _)| known <= vote) && state.promised <= Some(vote);
        if leads {
            state.heard = Some((vote, Instant::now()));
        }
        leads
    }

    /// The log was taken from the leader with this vote, so no higher vote has been given.
    pub(super) fn follow(&self, vote: Vote) {
        let mut state = self.state.lock();
        if state.heard.is_none_or(|(known, _)| known <= vote) {
            state.heard = Some((vote, Instant::now()));
            state.promised = state.promised.filter(|promised| *promised <= vote);
        }
    }

    /// The leader with this vote says that it leads no more.
    pub(super) fn forget(&self, vote: Vote) {
        let mut state = self.state.lock();
        if state.heard.is_some_and(|(known, _)| known <= vote) {
            state.heard = None;
        }
    }

    /// How long ago a leader was heard; with nobody heard, how long the node is there.
    pub(super) fn silence(&self) -> Duration {
        self.state.lock().heard.map_or(self.started, |(_, at)| at).elapsed()
    }

    /// Whether the node may give a vote to somebody else than the leader it hears.
    pub(super) fn may_vote(&self) -> bool {
        self.is_free(&self.state.lock())
    }

    /// Allows this vote to be given, unless a leader is heard.
    pub(super) fn promise(&self, vote: Vote) -> bool {
        let mut state = self.state.lock();
        let free = self.is_free(&state);
        if free {
            // Votes are ordered only in part to the compiler.
            if state.promised <= Some(vote) {
                state.promised = Some(vote);
            }
        }
        free
    }

    fn is_free(&self, state: &State) -> bool {
        state.heard.is_none_or(|(_, at)| at.elapsed() > LEASE) && self.started.elapsed() > LEASE
    }

    /// As leader: the core sends something to the others, as it does with every heartbeat.
    pub(super) fn acts(&self) {
        self.state.lock().active = Some(Instant::now());
    }

    /// Whether the core of this leader has done anything lately.
    pub(super) fn is_active(&self, within: Duration) -> bool {
        self.state.lock().active.is_some_and(|at| at.elapsed() < within)
    }

    /// A node has answered this leader what was asked at `asked`.
    pub(super) fn acknowledged(&self, vote: Vote, node: NodeId, asked: Instant) {
        let mut state = self.state.lock();
        if state.led != Some(vote) {
            if state.led.is_some_and(|led| led > vote) {
                return;
            }
            state.led = Some(vote);
            state.acknowledged.clear();
        }
        let latest = state.acknowledged.entry(node).or_insert(asked);
        *latest = asked.max(*latest);
    }

    /// Until when this node leads for certain under `vote`, with these voters. None: it cannot know.
    pub(super) fn leads_until(&self, vote: Vote, voters: &[NodeId]) -> Option<Instant> {
        if voters == [self.me] {
            return Some(Instant::now() + LEASE);
        }
        let state = self.state.lock();
        if state.led != Some(vote) {
            return None;
        }
        let mut asked: Vec<Instant> = voters
            .iter()
            .filter_map(
                |node| if *node == self.me { Some(Instant::now()) } else { state.acknowledged.get(node).copied() },
            )
            .collect();
        asked.sort_unstable_by(|one, other| other.cmp(one));
        asked.get(voters.len() / 2).map(|majority| *majority + LEASE - DRIFT)
    }

    /// The leader has applied the log up to `theirs`, and this node up to `ours`.
    pub(super) fn compare(&self, theirs: Option<LogId>, ours: Option<LogId>) {
        let (mut state, now) = (self.state.lock(), Instant::now());
        if let Some((awaited, at)) = state.behind
            && ours >= Some(awaited)
        {
            state.fresh = Some(at);
            state.behind = None;
        }
        match theirs {
            Some(theirs) if ours < Some(theirs) => {
                state.behind.get_or_insert((theirs, now));
            }
            Some(_) | None => state.fresh = Some(now),
        }
    }

    /// How old what this node knows may be at most.
    pub(super) fn staleness(&self) -> Duration {
        self.state.lock().fresh.unwrap_or(self.started).elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vote(term: u64) -> Vote {
        Vote::new_committed(term, 1)
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_leads_as_long_as_a_majority_would_elect_nobody_else() {
        let lease = Lease::new(1);
        assert_eq!(lease.leads_until(vote(1), &[1, 2, 3]), None);
        let asked = Instant::now();
        lease.acknowledged(vote(1), 2, asked);
        tokio::time::advance(Duration::from_millis(50)).await;
        assert_eq!(lease.leads_until(vote(1), &[1, 2, 3]), Some(asked + LEASE - DRIFT));
        assert_eq!(lease.leads_until(vote(1), &[1, 2, 3, 4, 5]), None);
        assert_eq!(lease.leads_until(vote(2), &[1, 2, 3]), None);
        lease.acknowledged(vote(2), 3, Instant::now());
        lease.acknowledged(vote(1), 2, Instant::now());
        assert_eq!(lease.leads_until(vote(1), &[1, 2, 3]), None);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_gets_a_vote_while_the_leader_is_heard_nor_right_after_the_start() {
        let lease = Lease::new(1);
        assert!(!lease.may_vote());
        tokio::time::advance(LEASE + Duration::from_millis(1)).await;
        assert!(lease.may_vote());
        assert!(lease.hear(vote(1)));
        tokio::time::advance(LEASE).await;
        assert!(!lease.may_vote());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(lease.may_vote());
        assert!(lease.hear(vote(2)));
        lease.forget(vote(1));
        assert!(!lease.may_vote());
        lease.forget(vote(2));
        assert!(lease.may_vote());
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_must_not_count_on_who_may_have_voted_for_another() {
        let lease = Lease::new(1);
        tokio::time::advance(LEASE * 2).await;
        assert!(lease.hear(vote(1)));
        assert!(!lease.promise(vote(2)));
        tokio::time::advance(LEASE * 2).await;
        assert!(lease.promise(vote(2)));
        assert!(!lease.hear(vote(1)));
        lease.follow(vote(1));
        assert!(lease.hear(vote(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn staleness_grows_from_the_last_time_that_everything_was_known() {
        let lease = Lease::new(1);
        let at = |index| Some(LogId::new(openraft::CommittedLeaderId::new(1, 1), index));
        lease.compare(at(5), at(5));
        tokio::time::advance(Duration::from_millis(30)).await;
        assert_eq!(lease.staleness(), Duration::from_millis(30));
        lease.compare(at(6), at(5));
        tokio::time::advance(Duration::from_millis(30)).await;
        assert_eq!(lease.staleness(), Duration::from_millis(60));
        lease.compare(at(9), at(6));
        assert_eq!(lease.staleness(), Duration::from_millis(30));
    }
}
