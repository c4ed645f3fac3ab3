//! How the leader changes the members: one step for each node, and none of them left half done.
//!
//! A change goes through a joint configuration, in which a majority is one of the members before it and one of those
//! after. Whoever makes the change ends it; where it is gone meanwhile, whoever leads does ([`finish_changes`]), because
//! until then the loss of one node may be the loss of a majority.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::error::{ClientWriteError, RaftError};
use openraft::{ChangeMembers, ServerState};
use tokio::time::{sleep, timeout};

use super::message::{Ask, Lane, No, Tell};
use super::node::{Node, WRITE};
use super::types::{LogId, Metrics, NodeId, Peer};
use crate::model::registry::Registry;

/// How long a new member may take to catch up.
const CATCH_UP: Duration = Duration::from_secs(600);
/// How long after its first half is agreed on the second half of a change is overdue: who makes the change asks for it at once.
const OVERDUE: Duration = Duration::from_millis(500);

impl Node {
    /// Takes a node in: it is given the log first, and votes once it has it. Where a member was at its address that is there no
    /// more, it takes that member's place, in one step.
    pub(super) async fn join(&self, node: NodeId, peer: Peer) -> Tell {
        let (needs, knows) = (self.read(Registry::schema), peer.schema);
        if needs > knows {
            return Tell::No(No::Schema { needs, knows });
        }
        let taken = async {
            let gone = self.gone_from(node, &peer.address).await?;
            self.take_in(node, &peer, &gone).await?;
            gone.into_iter().for_each(|gone| tracing::warn!(gone, node, address = %peer, "a node has another's place"));
            // Agreed on; who asks next shall find that the leader acts by it.
            let mut metrics = self.watch_metrics();
            let acts = metrics.wait_for(|now| now.membership_config.membership().get_node(&node) == Some(&peer));
            drop(timeout(WRITE, acts).await);
            Ok(())
        };
        match self.as_leader(taken).await {
            Some(Ok(())) => {
                tracing::info!(node, address = %peer, "a node has joined");
                Tell::Joined(self.cluster())
            }
            Some(Err(no)) => Tell::No(no),
            None => Tell::No(No::NotLeader),
        }
    }

    /// The members whose address `newcomer` has, all of which are there no more: whoever answers there says so. One that has
    /// lost its disk has another number, and the number it had is never used again.
    async fn gone_from(&self, newcomer: NodeId, address: &str) -> Result<BTreeSet<NodeId>, No> {
        if newcomer != self.id() && address == self.me().address {
            return Err(No::Taken);
        }
        let mut gone = BTreeSet::new();
        for (member, _) in self.others().into_iter().filter(|(other, at)| *other != newcomer && at == address) {
            match self.ask_member(member, address, Lane::Forward, Ask::Status, WRITE).await {
                Ok(Tell::No(No::NotMe)) => gone.insert(member),
                Ok(_) => return Err(No::Taken),
                Err(_) => return Err(No::Unreached),
            };
        }
        Ok(gone)
    }

    async fn take_in(&self, node: NodeId, peer: &Peer, gone: &BTreeSet<NodeId>) -> Result<(), No> {
        let known = self.metrics().membership_config.membership().get_node(&node).cloned();
        if known.as_ref().is_some_and(|known| known != peer) {
            // The same node at another address, or with another program: it still has what it has agreed to.
            self.change(ChangeMembers::SetNodes([(node, peer.clone())].into())).await?;
        } else if known.is_none() {
            let caught_up = timeout(CATCH_UP, self.raft().add_learner(node, peer.clone(), true)).await;
            caught_up.map_err(|_| No::Changing)?.map_err(|error| unchanged(&error))?;
        }
        if gone.is_empty() {
            return self.change(ChangeMembers::AddVoterIds(BTreeSet::from([node]))).await;
        }
        let membership = || self.metrics().membership_config.membership().clone();
        let stay = membership().voter_ids().filter(|voter| !gone.contains(voter)).chain([node]).collect();
        // Voters that do not stay are no members any more; learners are taken out by name.
        self.change(ChangeMembers::ReplaceAllVoters(stay)).await?;
        let learners: BTreeSet<NodeId> =
            gone.iter().copied().filter(|gone| membership().get_node(gone).is_some()).collect();
        if learners.is_empty() { Ok(()) } else { self.change(ChangeMembers::RemoveNodes(learners)).await }
    }

    /// Changes the members, to the end. Voters that it takes out are no members any more.
    async fn change(&self, change: ChangeMembers<NodeId, Peer>) -> Result<(), No> {
        self.raft().change_membership(change, false).await.map(drop).map_err(|error| unchanged(&error))
    }

    /// Does what only a leader can, for as long as this node is it; none when it is not. What a deposed leader had begun may
    /// never be answered.
    async fn as_leader<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut metrics = self.watch_metrics();
        tokio::select! {
            biased;
            _ = metrics.wait_for(|now| now.current_leader != Some(self.id())) => None,
            done = work => Some(done),
        }
    }

    pub(super) async fn leave(&self, node: NodeId) -> Tell {
        let metrics = self.metrics();
        let membership = metrics.membership_config.membership();
        let voters: Vec<NodeId> = membership.voter_ids().collect();
        if membership.get_node(&node).is_none() || voters == [node] {
            return Tell::No(No::NoMember);
        }
        let one = || BTreeSet::from([node]);
        let change =
            if voters.contains(&node) { ChangeMembers::RemoveVoters(one()) } else { ChangeMembers::RemoveNodes(one()) };
        match self.as_leader(self.change(change)).await {
            Some(Ok(())) => {
                tracing::info!(node, "a node has left");
                Tell::Heard
            }
            Some(Err(no)) => Tell::No(no),
            None => Tell::No(No::NotLeader),
        }
    }
}

/// Finishes what was left half done. Ends with the node.
pub(super) async fn finish_changes(node: Arc<Node>) {
    let mut metrics = node.watch_metrics();
    loop {
        tokio::select! {
            biased;
            found = metrics.wait_for(|now| half_done(now).is_some()) => if found.is_err() { return },
            () = node.stopped() => return,
        }
        let found = half_done(&node.metrics());
        tokio::select! {
            biased;
            () = sleep(OVERDUE) => {}
            () = node.stopped() => return,
        }
        if found.is_none() || half_done(&node.metrics()) != found {
            continue;
        }
        // Nobody is added: the change goes on to where it was to end.
        match node.as_leader(node.change(ChangeMembers::AddVoterIds(BTreeSet::new()))).await {
            Some(Ok(())) => tracing::info!("a change of the members that was left half done is finished"),
            Some(Err(error)) => tracing::info!(%error, "a change of the members is not finished yet"),
            None => {}
        }
    }
}

/// The entry by which this node, as leader, is in the middle of a change that is agreed on.
fn half_done(now: &Metrics) -> Option<LogId> {
    let members = &now.membership_config;
    let joint = now.state == ServerState::Leader && members.membership().get_joint_config().len() > 1;
    members.log_id().filter(|begun| joint && now.last_applied >= Some(*begun))
}

fn unchanged(error: &RaftError<NodeId, ClientWriteError<NodeId, Peer>>) -> No {
    match error {
        RaftError::Fatal(_) => No::Failed,
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => No::NotLeader,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(_)) => No::Changing,
    }
}
