//! What operators ask of a service's slices.

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};

/// A change to leases and slices. Pods are named by number, or by a name that one alone has.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "do", deny_unknown_fields)]
pub enum SlicesAsk {
    /// Slices go to a pod, and stay there while it serves.
    Move {
        /// The service.
        service: String,
        /// One slice, or several that make one prefix.
        prefix: Ipv6Net,
        /// Who gets them.
        pod: String,
    },
    /// A pod is to have no slices, or its share again.
    Drain {
        /// The pod.
        pod: String,
        /// Whether it is to have its share again.
        #[serde(default)]
        undo: bool,
    },
    /// Slices stay with a pod while it serves; without a pod, no longer.
    Pin {
        /// The service.
        service: String,
        /// One slice, or several that make one prefix.
        prefix: Ipv6Net,
        /// The pod.
        #[serde(default)]
        pod: Option<String>,
    },
    /// Pods have as few prefixes as exchanging slices gives them, whatever the budget.
    Rebalance {
        /// The service.
        service: String,
    },
}
