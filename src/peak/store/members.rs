//! Who belongs to the cluster: joining it, leaving it, and how it begins.

use std::time::Duration;

use tokio::time::sleep;

use super::Store;
use super::leader::PATIENCE;
use super::message::{Ask, Lane, No, Tell, Unreached};
use super::types::NodeId;

/// How long between attempts to join.
const JOIN_AGAIN: Duration = Duration::from_millis(250);
/// How long joining may take once a leader does it: the new node is sent everything.
const JOINING: Duration = Duration::from_secs(600);

/// Why the members of the cluster are as before.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MemberError {
    /// The node belongs to a cluster already.
    #[error("this node belongs to a cluster already: leave it first, with an empty folder")]
    Member,
    /// Somebody could not be reached.
    #[error(transparent)]
    Unreached(#[from] Unreached),
    /// The leader says no.
    #[error("{0}")]
    No(#[from] No),
    /// Nobody leads.
    #[error("no leader: the members cannot be changed without a majority of them")]
    NoLeader,
    /// The disk does not keep it.
    #[error("the disk does not keep the cluster's number")]
    Unkept,
}

impl MemberError {
    /// A stable label for metrics and logs.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Member => "already-member",
            Self::Unreached(_) => "member-unreached",
            Self::No(no) => no.reason(),
            Self::NoLeader => "no-leader",
            Self::Unkept => "cluster-unkept",
        }
    }
}

impl Store {
    /// Joins the cluster of the node at `member`, which a node can that belongs to none. Ends when this node has all
    /// that the others have, and votes.
    ///
    /// # Errors
    /// [`MemberError`].
    pub async fn join(&self, member: &str) -> Result<(), MemberError> {
        let (store, member) = (self.clone(), member.to_owned());
        self.there(async move { store.join_here(&member).await }, MemberError::NoLeader).await
    }

    async fn join_here(&self, member: &str) -> Result<(), MemberError> {
        let _beginning = self.0.beginning.lock().await;
        let node = &self.0.node;
        let told = node.ask(member, Lane::Forward, Ask::Status, PATIENCE).await?;
        let Tell::Status(status) = told else { return Err(refusal(&told)) };
        let cluster = u128::from_str_radix(&status.cluster, 16).ok().filter(|cluster| *cluster != 0);
        let cluster = cluster.ok_or(MemberError::NoLeader)?;
        if node.cluster() != cluster {
            if self.has_begun() {
                return Err(MemberError::Member);
            }
            self.keep_cluster(cluster)?;
        }
        let leader =
            status.members.iter().find(|other| Some(other.node) == status.leader).ok_or(MemberError::NoLeader)?;
        let ask = Ask::Join { node: node.id(), peer: node.me().clone() };
        let told = node.ask(&leader.address, Lane::Forward, ask, JOINING).await?;
        if matches!(told, Tell::Joined(_)) { Ok(()) } else { Err(refusal(&told)) }
    }

    /// Takes the node's place: joins the cluster of any of its peers, however long it takes, or tells its own that it is
    /// reached at another address now, or has another program. Ends at once for a member that is as it was.
    ///
    /// Peers that are all new, and all name the same peers, make one cluster: the first of the list begins it.
    pub async fn settle(&self) {
        let node = &self.0.node;
        loop {
            let (known, votes) = {
                let metrics = node.metrics();
                let membership = metrics.membership_config.membership();
                let votes = membership.voter_ids().any(|voter| voter == node.id());
                (membership.get_node(&node.id()).cloned(), votes)
            };
            let has_peers = !self.0.peers.is_empty();
            let settled = match known {
                Some(known) if votes && known == *node.me() => true,
                Some(_) if votes || !has_peers => {
                    let ask = || Ask::Join { node: node.id(), peer: node.me().clone() };
                    matches!(self.at_leader(ask).await, Ok(Tell::Joined(_)))
                }
                Some(_) | None if has_peers => self.find_place().await,
                // One that belongs to a cluster and does not know yet who else does is told by its log.
                Some(_) | None => !self.has_begun(),
            };
            if settled {
                return;
            }
            tokio::select! {
                biased;
                () = sleep(JOIN_AGAIN) => {}
                () = node.stopped() => return,
            }
        }
    }

    /// Joins whoever takes this node in, or begins where all are new and it is the first; whether it has a place now.
    async fn find_place(&self) -> bool {
        let (me, peers) = (&self.0.node.me().address, &self.0.peers);
        for member in peers.iter().filter(|peer| *peer != me) {
            match self.join(member).await {
                Ok(()) => {
                    tracing::info!(member, "joined the cluster");
                    return true;
                }
                Err(error) => tracing::info!(member, %error, "not joined yet"),
            }
        }
        // One that is away may belong to a cluster, which must not become two.
        peers.first() == Some(me) && self.all_are_new().await && self.begin_alone().await.is_ok()
    }

    async fn all_are_new(&self) -> bool {
        let node = &self.0.node;
        for peer in self.0.peers.iter().filter(|peer| **peer != node.me().address) {
            let told = node.ask(peer, Lane::Forward, Ask::Status, PATIENCE).await;
            if !matches!(told, Ok(Tell::Status(status)) if status.cluster == "0") {
                return false;
            }
        }
        true
    }

    /// Takes a node out of the cluster: this one, or one that is dead.
    ///
    /// # Errors
    /// [`MemberError`].
    pub async fn leave(&self, node: NodeId) -> Result<(), MemberError> {
        let store = self.clone();
        self.there(async move { store.leave_here(node).await }, MemberError::NoLeader).await
    }

    async fn leave_here(&self, node: NodeId) -> Result<(), MemberError> {
        let told = self.at_leader(|| Ask::Leave(node)).await.map_err(|_| MemberError::NoLeader)?;
        if matches!(told, Tell::Heard) { Ok(()) } else { Err(refusal(&told)) }
    }
}

/// Why a node has not done what it was asked, by what it said instead.
fn refusal(told: &Tell) -> MemberError {
    if let Tell::No(no) = told { (*no).into() } else { No::Failed.into() }
}
