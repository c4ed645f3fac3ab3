//! The way to the leader, wherever it is: for writes, and for reads that must not be behind.

use std::pin::pin;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::Store;
use super::message::{Ask, Lane, No, Tell};
use super::types::{LogId, NodeId};
use crate::model::registry::{Command, Reply, RequestId};

/// How long a write or a strict read may take before its sender is told that nobody leads.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait before the leader is asked again.
const AGAIN: Duration = Duration::from_millis(10);
/// How long a write that is agreed on waits until the node that took it has applied it as well.
const HERE: Duration = Duration::from_secs(1);

/// Why there is no reply to a command.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ProposeError {
    /// The nodes agree on nobody: too few of them are there. The command may still be applied if it was sent before;
    /// asking again with the same request's name is safe.
    #[error("no leader within {} ms: fewer than half of the nodes reach each other", .0.as_millis())]
    NoLeader(Duration),
    /// A node of the cluster has a program that would not know the command. Nothing has happened.
    #[error("it needs schema {needs}, and a node of the cluster knows {knows}: renew that node's program first")]
    Schema {
        /// What the command needs.
        needs: u8,
        /// What all members know.
        knows: u8,
    },
    /// The node has failed, and says why in its log.
    #[error("the registry of this node has failed: its log says why")]
    Failed,
}

impl ProposeError {
    /// A stable label for metrics and logs.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoLeader(_) => "no-leader",
            Self::Schema { .. } => "schema-not-everywhere",
            Self::Failed => "registry-failed",
        }
    }
}

/// Questions of the leader how far the log must be applied: those that come while one is on its way share the next.
#[derive(Debug, Default)]
pub(super) struct Rounds(Mutex<Round>);

/// What the leader said.
type Index = Result<Option<LogId>, ProposeError>;

#[derive(Debug, Default)]
struct Round {
    going: bool,
    waiting: Vec<oneshot::Sender<Index>>,
}

impl Rounds {
    /// Takes part in the next round; true for who has to start it.
    fn enter(&self) -> (bool, oneshot::Receiver<Index>) {
        let (told, answer) = oneshot::channel();
        let mut round = self.0.lock();
        round.waiting.push(told);
        (!std::mem::replace(&mut round.going, true), answer)
    }

    /// Those for whom a round begins now; none when nobody waits, and then the rounds end.
    fn next(&self) -> Option<Vec<oneshot::Sender<Index>>> {
        let mut round = self.0.lock();
        round.going = !round.waiting.is_empty();
        round.going.then(|| std::mem::take(&mut round.waiting))
    }
}

impl Store {
    /// Gives the command to the leader, wherever it is; its reply comes when it is applied for good. A command without
    /// a request's name is given one, so that it is applied once whatever happens on the way.
    ///
    /// # Errors
    /// [`ProposeError`]; what was asked for may have happened all the same.
    pub async fn propose(&self, mut command: Command) -> Result<Reply, ProposeError> {
        command.request.get_or_insert_with(|| RequestId((self.0.draw)()));
        let octets = command.encode().into_boxed_slice();
        if let Some(reply) = self.lead(&octets).await {
            return Ok(reply);
        }
        let store = self.clone();
        self.there(async move { store.propose_there(octets).await }, ProposeError::Failed).await
    }

    /// Where this node leads, its batcher is all that a command has to reach, from whichever thread. None when it does
    /// not lead, or not to the end.
    async fn lead(&self, octets: &[u8]) -> Option<Reply> {
        let node = &self.0.node;
        if node.leader() != Some(node.id()) {
            return None;
        }
        tokio::select! {
            biased;
            told = node.answer(Ask::Propose(octets.into())) => if let Tell::Proposed(reply, _) = told { Some(reply) } else { None },
            () = another_leader(self, Some(node.id())) => None,
        }
    }

    async fn propose_there(&self, octets: Box<[u8]>) -> Result<Reply, ProposeError> {
        self.begin().await?;
        let told = self.at_leader(|| Ask::Propose(octets.clone())).await?;
        if let Tell::No(No::Schema { needs, knows }) = told {
            return Err(ProposeError::Schema { needs, knows });
        }
        let Tell::Proposed(reply, entry) = told else { return Err(ProposeError::Failed) };
        // Whoever asks this node next finds the write here. It is agreed on, so that a node that is far behind need not
        // keep its sender waiting for ever.
        drop(timeout(HERE, self.0.node.machine().reached(Some(entry))).await);
        Ok(reply)
    }

    /// Waits until the node has applied everything that was acknowledged, anywhere, before the call.
    ///
    /// # Errors
    /// [`ProposeError`].
    pub async fn read_index(&self) -> Result<(), ProposeError> {
        if self.strict_until().is_some() {
            return Ok(());
        }
        let end = Instant::now() + PATIENCE;
        let (first, answer) = self.0.rounds.enter();
        if first {
            let store = self.clone();
            self.spawn(async move { store.go_round().await });
        }
        let read = async {
            let index = answer.await.map_err(|_| ProposeError::Failed)??;
            self.0.node.machine().reached(index).await;
            Ok(())
        };
        timeout_at(end, read).await.unwrap_or(Err(ProposeError::NoLeader(PATIENCE)))
    }

    /// Asks the leader for all who wait, and then for those who came meanwhile.
    async fn go_round(&self) {
        while let Some(waiting) = self.0.rounds.next() {
            let index = self.ask_index().await;
            // Who has given up is not told.
            waiting.into_iter().for_each(|one| {
                let _ = one.send(index);
            });
        }
    }

    async fn ask_index(&self) -> Index {
        self.begin().await?;
        let told = self.at_leader(|| Ask::ReadIndex).await?;
        if let Tell::ReadIndex(index) = told { Ok(index) } else { Err(ProposeError::Failed) }
    }

    /// Asks the leader, and again whoever leads next, until it answers or patience ends.
    pub(super) async fn at_leader(&self, ask: impl Fn() -> Ask) -> Result<Tell, ProposeError> {
        let (start, node) = (Instant::now(), &self.0.node);
        loop {
            let (leader, address) = {
                let metrics = node.metrics();
                if metrics.running_state.is_err() {
                    return Err(ProposeError::Failed);
                }
                let leader = metrics.current_leader;
                let peer = leader.and_then(|leader| metrics.membership_config.membership().get_node(&leader).cloned());
                (leader, peer.map(|peer| peer.address))
            };
            let left = PATIENCE.saturating_sub(start.elapsed());
            let told = async {
                match (leader, address) {
                    (Some(leader), _) if leader == node.id() => Some(node.answer(ask()).await),
                    (Some(_), Some(address)) => node.ask(&address, Lane::Forward, ask(), left).await.ok(),
                    _ => None,
                }
            };
            let told = tokio::select! {
                biased;
                told = told => told,
                // A leader that is gone without a word never answers.
                () = another_leader(self, leader), if leader.is_some() => None,
            };
            match told {
                Some(Tell::No(No::NotLeader | No::Failed)) | None => {}
                Some(tell) => return Ok(tell),
            }
            if left <= AGAIN {
                return Err(ProposeError::NoLeader(PATIENCE));
            }
            sleep(AGAIN).await;
        }
    }
}

/// Ends when somebody else leads than `leader`.
async fn another_leader(store: &Store, leader: Option<NodeId>) {
    let node = &store.0.node;
    loop {
        // All wake in the order in which they came, so that a simulated life is the same each time.
        let mut changed = pin!(store.0.led.notified());
        changed.as_mut().enable();
        if node.leader().is_some_and(|now| Some(now) != leader) {
            return;
        }
        changed.await;
    }
}
