//! The door to the replicated registry: whoever changes it or asks about it comes through here.
//!
//! A write is a [`Command`] given to [`Store::propose`] at any node; it comes back once it is applied. A read looks at
//! the node's own registry ([`Store::read`]), after [`Store::read_index`] where it must not be behind.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::watch;

use crate::model::registry::{Command, Registry, Reply};
use crate::model::zone::Seed;
use crate::ops::clock;

/// A node's number in its cluster.
pub type NodeId = u64;

/// The store of this node. Clones share everything.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: RwLock<Registry>,
    leadership: watch::Sender<Leadership>,
}

/// Who leads, as far as this node knows.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Leadership {
    /// The election that it is of; each has one leader at most.
    pub term: u64,
    /// The leader; none while there is none, or none is known.
    pub leader: Option<NodeId>,
    /// Whether this node is it, and has applied everything that was agreed on before it was.
    pub is_me: bool,
}

/// Why there is no reply to a command.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ProposeError {
    /// The nodes agree on nobody: too few of them are there. The command may still be applied if it was sent before;
    /// asking again with the same request's name is safe.
    #[error("no leader within {} ms: fewer than half of the nodes reach each other", .0.as_millis())]
    NoLeader(Duration),
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

impl ProposeError {
    /// A stable label for metrics and logs.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoLeader(_) => "no-leader",
            Self::Stopping => "stopping",
        }
    }
}

/// How the node is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Status {
    /// This node.
    pub node: NodeId,
    /// Who leads.
    pub leadership: Leadership,
}

impl Store {
    /// A store of one node, in memory.
    #[must_use]
    pub fn alone(seed: Seed) -> Self {
        let leadership = Leadership { term: 1, leader: Some(1), is_me: true };
        Self(Arc::new(Inner { registry: RwLock::new(Registry::new(seed)), leadership: watch::Sender::new(leadership) }))
    }

    /// Gives the command to the leader; its reply comes when this node knows that it is applied for good.
    ///
    /// # Errors
    /// [`ProposeError`].
    #[allow(clippy::unused_async, reason = "the nodes will have to agree")]
    pub async fn propose(&self, command: Command) -> Result<Reply, ProposeError> {
        Ok(self.0.registry.write().apply(clock::millis(), &command).reply)
    }

    /// Waits until the node has applied everything that was acknowledged, anywhere, before the call.
    ///
    /// # Errors
    /// [`ProposeError`].
    #[allow(clippy::unused_async, reason = "the nodes will have to agree")]
    pub async fn read_index(&self) -> Result<(), ProposeError> {
        Ok(())
    }

    /// Looks at what this node has applied. Keeps the registry from changing meanwhile: look, do not stay.
    pub fn read<T>(&self, look: impl FnOnce(&Registry) -> T) -> T {
        look(&self.0.registry.read())
    }

    /// Who leads, now and whenever it changes.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.0.leadership.subscribe()
    }

    /// How the node is.
    #[must_use]
    pub fn status(&self) -> Status {
        Status { node: 1, leadership: *self.0.leadership.borrow() }
    }
}
