//! What the resolver counts.

use crate::ops::metrics::{Counter, Counters, Label, Reason, Registry};

/// How a lookup ended: `service`, or the reason of the error.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome(pub(super) &'static str);

impl Label for Outcome {
    const NAME: &'static str = "outcome";

    fn value(&self) -> &str {
        self.0
    }
}

/// The resolver's counters. Build it once per registry.
#[derive(Clone, Debug)]
pub struct ResolveMetrics {
    /// Lookups that gave a service: one a connection, so without a search by label.
    pub(super) found: Counter,
    pub(super) lookups: Counters<Outcome>,
    pub(super) cache_hits: Counter,
    pub(super) stale: Counter,
    pub(super) questions: Counter,
    pub(super) failovers: Counter,
    pub(super) unusable_answers: Counters<Reason>,
    pub(super) malformed_rules: Counter,
    pub(super) refused_glue: Counter,
}

impl ResolveMetrics {
    /// Registers the counters.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let lookups = registry.counters(
            "funicular_resolver_lookups_total",
            "Names looked up, by what came of it: a service, or why none.",
        );
        Self {
            found: lookups.with(&Outcome("service")),
            lookups,
            cache_hits: registry
                .counter("funicular_resolver_cache_hits_total", "Lookups answered without asking any name server."),
            stale: registry.counter(
                "funicular_resolver_stale_total",
                "Services used past their TTL because no name server could be asked.",
            ),
            questions: registry.counter("funicular_resolver_questions_total", "Questions sent to Peak's name servers."),
            failovers: registry.counter(
                "funicular_resolver_failovers_total",
                "Questions sent again because an earlier name server was slow, silent or unusable.",
            ),
            unusable_answers: registry
                .counters("funicular_resolver_unusable_answers_total", "Name server answers not used, by why."),
            malformed_rules: registry.counter(
                "funicular_resolver_malformed_rules_total",
                "Published rules left out because they are malformed, counted each time they are read.",
            ),
            refused_glue: registry.counter(
                "funicular_resolver_refused_glue_total",
                "Name server addresses in referrals that lie outside the zone that refers, and were not believed.",
            ),
        }
    }
}
