//! What the desk asks of the registry: updates of the zones that it holds, and whether this node is behind.
//!
//! Whoever waits for the registry holds the desk weakly, or it would outlive its server.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Desk, Inner, Job, Pending};
use crate::model::Name;
use crate::model::UnixSeconds;
use crate::model::registry::{Applied, Command, Op, Refused, ZoneUpdate};
use crate::model::zone::{Update, UpdateError};
use crate::net::udp_batch::Origin;
use crate::peak::ledger::{Change, Outcome, Unmade};
use crate::peak::store::Store;

/// How long a strict question may wait for the leader; its asker waits longer (RFC 1035 §4.2.1 speaks of seconds).
const STRICT: Duration = Duration::from_secs(1);

impl Desk {
    /// Makes an update that came over TCP; gives the reply. Waits until the disk has it.
    pub(in crate::peak) async fn make(&self, pending: Pending, now: impl Fn() -> UnixSeconds) -> Vec<u8> {
        if let Some(store) = self.registry_of(&pending.apex) {
            let outcome = replicate(&store, &pending.apex, pending.update.clone()).await;
            return self.finish(pending, outcome, now());
        }
        let (done, outcome) = oneshot::channel();
        let job = Job::Update { apex: pending.apex.clone(), update: pending.update.clone(), done };
        let outcome = if self.enqueue(job) { outcome.await.ok() } else { None };
        self.finish(pending, outcome.unwrap_or(Err(Unmade::Unkept)), now())
    }

    /// Whether the update is one of the registry.
    pub(super) fn replicates(&self, pending: &Pending) -> bool {
        self.registry_of(&pending.apex).is_some()
    }

    /// Makes an update of the registry that came over UDP; what became of it comes back through the queue.
    pub(super) fn replicate(&self, origin: Origin, pending: Box<Pending>) {
        let Some(store) = self.registry_of(&pending.apex) else { return };
        let desk = Arc::downgrade(&self.0);
        store.clone().spawn(async move {
            let outcome = replicate(&store, &pending.apex, pending.update.clone()).await;
            enqueue(&desk, Job::Made { origin, pending, outcome });
        });
    }

    /// Looks whether the node is not behind, for a strict question that came over UDP; it comes back through the queue.
    pub(super) fn confirm(&self, origin: Origin, peer: SocketAddr, octets: Vec<u8>) {
        let Some(store) = self.0.store.get().cloned() else {
            self.enqueue(Job::Confirmed { origin, peer, octets, confirmed: false });
            return;
        };
        let desk = Arc::downgrade(&self.0);
        store.clone().spawn(async move {
            let confirmed = is_up_to_date(&store).await;
            enqueue(&desk, Job::Confirmed { origin, peer, octets, confirmed });
        });
    }

    /// Says where the registry is, once it is open.
    pub(in crate::peak) fn attach(&self, store: Store) {
        // A second one is never made.
        drop(self.0.store.set(store));
    }

    /// The registry, where it holds the zone.
    fn registry_of(&self, apex: &Name) -> Option<Store> {
        self.0.store.get().filter(|_| self.0.ledger.is_replicated(apex)).cloned()
    }

    /// Whether this node knows that it has all that was acknowledged before; asks the leader where it must.
    pub(in crate::peak) async fn is_up_to_date(&self) -> bool {
        match self.0.store.get() {
            Some(store) => is_up_to_date(store).await,
            None => false,
        }
    }
}

async fn is_up_to_date(store: &Store) -> bool {
    tokio::time::timeout(STRICT, store.read_index()).await.is_ok_and(|outcome| outcome.is_ok())
}

/// Puts it into the desk's queue, unless the desk is gone.
fn enqueue(desk: &Weak<Inner>, job: Job) {
    if let Some(inner) = desk.upgrade() {
        Desk(inner).enqueue(job);
    }
}

/// Makes an update of one of the registry's zones, at whichever node leads.
async fn replicate(store: &Store, apex: &Name, update: Update) -> Outcome {
    let op = Op::Update(vec![ZoneUpdate { zone: apex.clone(), update }]);
    match store.propose(Command { request: None, op }).await {
        Ok(Ok(Applied::Zones(steps))) => Ok(steps.first().map_or(Change::None, |step| match step.changed {
            true => Change::Made(step.serial),
            false => Change::None,
        })),
        Ok(Err(Refused::Update { cause, .. })) => Err(Unmade::Refused(cause)),
        Ok(Ok(_) | Err(_)) => Err(UpdateError::Unknown(apex.clone()).into()),
        Err(error) => {
            tracing::warn!(zone = %apex, %error, "an update could not be made");
            Err(Unmade::Unkept)
        }
    }
}
