//! What the webhook counts.

use crate::ops::metrics::{Counters, Gauge, Histogram, Reason, Registry, SECONDS, labels};

labels! {
    /// What became of a pod.
    pub(super) enum Outcome: "result" {
        /// It got a sidecar.
        Injected = "injected",
        /// It stays as it is.
        Left = "left",
        /// It asked for a sidecar and cannot have one.
        Refused = "refused",
        /// The question could not be answered.
        Failed = "failed",
    }
}

labels! {
    /// What became of an event.
    pub(super) enum Told: "outcome" {
        /// The API server has it.
        Sent = "sent",
        /// There were too many at once.
        Dropped = "dropped",
        /// The API server did not take it.
        Failed = "failed",
    }
}

/// Handles to all of them.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    pub(super) pods: Counters<(Outcome, Reason)>,
    pub(super) seconds: Histogram,
    pub(super) events: Counters<Told>,
    pub(super) missing: Gauge,
    pub(super) expires: Gauge,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            pods: registry.counters("funicular_inject_total", "Pods that the API server asked about."),
            seconds: registry.histogram(
                "funicular_inject_seconds",
                "From a whole question to its whole answer.",
                SECONDS,
            ),
            events: registry.counters("funicular_inject_events_total", "Events for the makers of pods."),
            missing: registry.gauge(
                "funicular_inject_missing_pods",
                "Pods that should have a sidecar and have none, at the last survey.",
            ),
            expires: registry.gauge(
                "funicular_webhook_certificate_expiry_timestamp_seconds",
                "When the webhook's certificate runs out, in seconds since 1970.",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_lawful_name_and_is_registered_once() {
        let registry = Registry::new();
        let _metrics = Metrics::new(&registry);
        assert_eq!(registry.families().len(), 5);
    }
}
