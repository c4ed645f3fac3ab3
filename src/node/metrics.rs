//! What the agent counts.

use crate::ops::metrics::{Counter, Counters, Gauge, Histogram, Reason, Registry, SECONDS};

/// The agent's metrics. Build it once per registry.
#[derive(Clone, Debug)]
pub(super) struct NodeMetrics {
    pub(super) pods: Gauge,
    pub(super) slices: Gauge,
    pub(super) strays: Gauge,
    pub(super) carries: Gauge,
    pub(super) changes: Counter,
    pub(super) repairs: Counter,
    pub(super) refusals: Counters<Reason>,
    pub(super) waits: Counters<Reason>,
    pub(super) change_seconds: Histogram,
    pub(super) mesh_nodes: Gauge,
}

impl NodeMetrics {
    /// Registers them.
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            pods: registry.gauge("funicular_node_pods", "Pods of this node that have claimed slices."),
            slices: registry.gauge("funicular_node_slice_routes", "Routes of slices in the agent's table."),
            strays: registry.gauge("funicular_node_stray_routes", "Slices whose strays are carried or kept."),
            carries: registry.gauge("funicular_node_carrying", "1 when strays can be carried to other nodes, else 0."),
            changes: registry.counter(
                "funicular_node_changes_total",
                "Routes and rules changed in the kernel, the table of packet rules counted as one.",
            ),
            repairs: registry.counter(
                "funicular_node_repairs_total",
                "Routes and rules found otherwise than the agent had left them, and put right.",
            ),
            refusals: registry
                .counters("funicular_node_refusals_total", "Sidecars and claims that were not heard, by why."),
            waits: registry
                .counters("funicular_node_waits_total", "Claims that could not be put in place at once, by why."),
            change_seconds: registry.histogram(
                "funicular_node_change_seconds",
                "From a claim to its being in place in the kernel.",
                SECONDS,
            ),
            mesh_nodes: registry
                .gauge("funicular_node_mesh_nodes", "Other agents that say what they route, with `routes: mesh`."),
        }
    }
}
