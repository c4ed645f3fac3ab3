//! Addresses of services, computed for programs that must see them: those that speak UDP, and those that show or
//! compare what they connect to (`dns.answers: computed`).
//!
//! The address is the one that a connection of this pod would go to now, drawn anew for each question. A connection to it
//! is recognised by the space that it lies in; a datagram goes there as it is.

use std::net::Ipv6Addr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::model::Name;
use crate::ops::{clock, entropy};
use crate::sidecar::outbound::Sources;
use crate::sidecar::outbound::pick::{Candidates, InForce, NoCandidate};
use crate::sidecar::outbound::recognise::Called;
use crate::sidecar::outbound::source::NoRoute;
use crate::sidecar::resolve::Service;
use crate::sidecar::secrets::Secrets;

/// Why a service has no address for a question.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotComputed {
    /// No rule, or none that gives one.
    #[error(transparent)]
    NoCandidate(#[from] NoCandidate),
    /// Without a route there is no source address, which the address depends on.
    #[error(transparent)]
    NoRoute(#[from] NoRoute),
    /// No draw gave an address.
    #[error("no draw gave an address that fits the rule of the service")]
    Exhausted,
}

impl NotComputed {
    /// The stable label of metrics and logs.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::NoCandidate(cause) => cause.reason(),
            Self::NoRoute(_) => "no-route",
            Self::Exhausted => "no-address",
        }
    }
}

/// What addresses are computed with.
pub struct Computed {
    secrets: Arc<ArcSwap<Secrets>>,
    sources: Sources,
    mark: Option<u32>,
}

impl Computed {
    /// With the secrets of the rules that need one, as they are now, for calls whose sockets carry `mark`.
    #[must_use]
    pub fn new(secrets: Arc<ArcSwap<Secrets>>, mark: Option<u32>) -> Self {
        Self { secrets, sources: Sources::default(), mark }
    }

    /// An address of the service, called by the name `asked`.
    pub(super) async fn address(&self, service: &Arc<Service>, asked: &Name) -> Result<Ipv6Addr, NotComputed> {
        let now = clock::now();
        let in_force = InForce::at(service, now)?;
        let source = self.sources.toward(service.space.prefixes()[0].network(), self.mark)?;
        let called = Called { service: Arc::clone(service), asked: asked.clone(), dialled: None, port: 0 };
        let mut candidates = Candidates::new(&called, in_force, self.secrets.load_full(), source, now, entropy::draw);
        let picked = if candidates.are_heavy() {
            // Work that takes a while holds up no other question.
            tokio::task::spawn_blocking(move || candidates.pick()).await.unwrap_or(Ok(None))
        } else {
            candidates.pick()
        };
        picked?.map(|picked| *picked.destination_v6().ip()).ok_or(NotComputed::Exhausted)
    }
}

impl std::fmt::Debug for Computed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Computed").field("mark", &self.mark).finish_non_exhaustive()
    }
}
