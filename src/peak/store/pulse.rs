//! Signs of life, and what happens when they stop: a leader that is gone has a successor in a fraction of a second, and
//! one that is busy keeps its place.
//!
//! openraft's own elections are off. A leader tells every node each [`BEAT`] that it is there; these messages have a lane
//! of their own, so that neither a long write nor a slow disk on either side holds them up. A node that hears nothing
//! asks the others first whether they would vote (nobody would who hears the leader, and a leader that is asked says that it
//! leads), and only then begins an election:
//!
//! ```text
//!             nothing for SUSPECT, or nobody listens where the leader was and nothing for LEASE
//!  following ────────────────────────────────────────────────► asking ──a majority would──► election
//!      ▲                                                          │                            │
//!      └───────────────── a leader is heard ──────────────────────┴────────────────────────────┘
//! ```
//!
//! Nodes wait for each other in the order of their numbers, so that two seldom ask at once. A leader whose core makes no
//! progress for [`STUCK`] stops telling that it is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use openraft::ServerState;
use tokio::time::{Instant, sleep};

use super::lease::LEASE;
use super::message::{Ask, Lane, Tell};
use super::node::Node;
use super::types::{NodeId, Vote};

/// How often a leader says that it is there.
const BEAT: Duration = Duration::from_millis(30);
/// How long a leader may be silent before the others ask each other. One that was killed is known sooner: nobody listens where it
/// was. So this is for machines and networks that are gone, and longer than any hiccup of a machine that is not.
const SUSPECT: Duration = Duration::from_secs(1);
/// How much longer each node waits than the one before it.
const STAGGER: Duration = Duration::from_millis(25);
/// How long an election may take before the next.
const ELECTION: Duration = Duration::from_millis(150);
/// How long a message of this lane may take.
const WITHIN: Duration = Duration::from_millis(100);
/// How often a node looks whether it is time.
const LOOK: Duration = Duration::from_millis(10);
/// How long a leader's core may make no progress. Longer than any disk's hiccup.
pub(super) const STUCK: Duration = Duration::from_secs(4);
/// How much later than it wanted to a node may look without doubting what it has not heard.
const LATE: Duration = Duration::from_millis(60);
/// How long it listens then before it stands for election.
const EXCUSE: Duration = Duration::from_millis(150);
/// How long a leader may be silent whatever the excuse.
const EXCUSED: Duration = Duration::from_secs(2);

/// Says that this node leads, while it does, and asks to lead when nobody does. Ends with the node.
pub(super) async fn run(node: Arc<Node>) {
    let now = Instant::now();
    let (mut told, mut next_election, mut excused_until) = (now - BEAT, now, now);
    loop {
        // A node alone has nobody to tell.
        let pause = if node.others().is_empty() { BEAT } else { LOOK };
        let asleep = Instant::now();
        tokio::select! {
            biased;
            () = sleep(pause) => {}
            () = node.stopped() => return,
        }
        let metrics = node.metrics();
        if metrics.running_state.is_err() {
            continue;
        }
        if metrics.state == ServerState::Leader {
            if told.elapsed() >= BEAT && node.is_leading() {
                told = Instant::now();
                tell(&node, metrics.vote);
            }
            continue;
        }
        if asleep.elapsed() > pause + LATE {
            // Who did not get to run for so long has heard nobody for that reason: what waits is heard first.
            excused_until = Instant::now() + EXCUSE;
        }
        let voters: Vec<NodeId> = metrics.membership_config.membership().voter_ids().collect();
        let Some(rank) = voters.iter().position(|voter| *voter == node.id()) else { continue };
        let silence = node.lease().silence();
        let patience = if voters.len() == 1 {
            Duration::ZERO
        } else if node.leader_is_gone() {
            LEASE + STAGGER * rank as u32
        } else {
            SUSPECT + STAGGER * rank as u32
        };
        let excused = Instant::now() < excused_until && silence < EXCUSED;
        if silence > patience && !excused && Instant::now() >= next_election {
            if elect(&node, &voters).await {
                tracing::info!(term = metrics.current_term, ?silence, "no leader is heard: an election begins");
            }
            next_election = Instant::now() + ELECTION + STAGGER * rank as u32;
        }
    }
}

/// Tells all other members, none waiting for another, that this node leads.
fn tell(node: &Arc<Node>, vote: Vote) {
    let applied = node.applied();
    for (peer, address) in node.others() {
        let node = Arc::clone(node);
        tokio::spawn(async move {
            let asked = Instant::now();
            let answer = node.ask_member(peer, &address, Lane::Pulse, Ask::Beat { vote, applied }, WITHIN).await;
            if matches!(answer, Ok(Tell::Heard)) {
                node.lease().acknowledged(vote, peer, asked);
            }
        });
    }
}

/// Begins an election if a majority would vote for this node and nobody leads; whether it did.
async fn elect(node: &Arc<Node>, voters: &[NodeId]) -> bool {
    let last = node.last();
    let others: Vec<_> = node.others().into_iter().filter(|(peer, _)| voters.contains(peer)).collect();
    let asked = others
        .iter()
        .map(|(peer, address)| node.ask_member(*peer, address, Lane::Pulse, Ask::WouldVote { last }, WITHIN));
    let answers = join_all(asked).await;
    // A leader that answers was only not heard: on a busy machine all may miss it at once.
    let led = answers.iter().any(|answer| matches!(answer, Ok(Tell::Leads)));
    let would = answers.iter().filter(|answer| matches!(answer, Ok(Tell::WouldVote(true)))).count() + 1;
    !led && would > voters.len() / 2 && node.stand().await
}

/// Watches whether anybody listens where the leader was, after a connection to it broke.
#[derive(Debug, Default)]
pub(super) struct Watch {
    gone: AtomicBool,
}

impl Watch {
    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    pub(super) fn heard(&self) {
        self.gone.store(false, Ordering::Relaxed);
    }

    /// A connection that the leader had made is broken: asks at once, and once more, whether it is there.
    pub(super) async fn look(&self, node: &Node, address: &str) {
        for _ in 0..2 {
            match node.ask(address, Lane::Pulse, Ask::Status, WITHIN).await {
                Ok(_) => return,
                Err(super::message::Unreached::Late { .. }) => sleep(LOOK).await,
                Err(super::message::Unreached::Refused { .. }) => {
                    tracing::info!(address, "nobody listens where the leader was");
                    self.gone.store(true, Ordering::Relaxed);
                    return;
                }
            }
        }
    }
}
