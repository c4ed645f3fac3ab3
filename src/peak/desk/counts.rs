//! What is counted about updates, transfers and notices.

use crate::ops::metrics::{Counters, Reason, Registry, labels};

labels! {
    /// Which way something goes.
    pub(in crate::peak) enum Direction: "direction" {
        /// To another server.
        Out = "out",
        /// From another server.
        In = "in",
    }
}

labels! {
    /// What a transfer carries.
    pub(in crate::peak) enum Form: "form" {
        /// A whole zone.
        Whole = "axfr",
        /// Differences.
        Differences = "ixfr",
        /// The SOA alone.
        Soa = "soa",
    }
}

labels! {
    /// How something ended.
    pub(in crate::peak) enum Ended: "outcome" {
        /// As it should.
        Done = "done",
        /// There was nothing to do.
        Nothing = "nothing",
        /// A prerequisite did not hold.
        Unmet = "prerequisite",
        /// It was not wanted.
        Refused = "refused",
        /// It broke.
        Failed = "failed",
    }
}

/// The families.
#[derive(Clone, Debug)]
pub(in crate::peak) struct Counts {
    pub(in crate::peak) updates: Counters<Ended>,
    pub(in crate::peak) transfers: Counters<(Direction, Form, Ended)>,
    pub(in crate::peak) notices: Counters<(Direction, Ended)>,
    pub(in crate::peak) refusals: Counters<Reason>,
}

impl Counts {
    pub(in crate::peak) fn new(registry: &Registry) -> Self {
        Self {
            updates: registry.counters("funicular_dns_updates_total", "Updates of zones (RFC 2136), by outcome."),
            transfers: registry
                .counters("funicular_dns_transfers_total", "Zone transfers by direction, form and outcome."),
            notices: registry
                .counters("funicular_dns_notices_total", "Notices of changed zones (NOTIFY) by direction and outcome."),
            refusals: registry.counters(
                "funicular_dns_peer_refusals_total",
                "Requests of other servers and of updaters that were refused, by reason.",
            ),
        }
    }
}
