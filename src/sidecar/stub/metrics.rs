//! What the stub counts.

use crate::ops::metrics::{Counter, Counters, Gauge, Label, Reason, Registry, labels};
use crate::wire::dns::Rcode;

labels! {
    /// What carried a question.
    pub(super) enum Proto: "proto" {
        /// A datagram.
        Udp = "udp",
        /// A connection.
        Tcp = "tcp",
    }
}

labels! {
    /// Where an answer came from.
    pub(super) enum Origin: "origin" {
        /// A stand-in, made here.
        StandIn = "stand-in",
        /// An address of the service's own, computed here.
        Computed = "computed",
        /// Peak, by way of the resolver.
        Peak = "peak",
        /// A name server of the configuration or the system.
        Upstream = "upstream",
        /// Nobody: the question itself was refused.
        Nobody = "nobody",
    }
}

/// A response code, the common ones by name.
#[derive(Clone, Copy, Debug)]
pub(super) struct RcodeLabel(pub(super) Rcode);

impl Label for RcodeLabel {
    const NAME: &'static str = "rcode";

    fn value(&self) -> &str {
        match self.0 {
            Rcode::NOERROR => "NOERROR",
            Rcode::FORMERR => "FORMERR",
            Rcode::SERVFAIL => "SERVFAIL",
            Rcode::NXDOMAIN => "NXDOMAIN",
            Rcode::NOTIMP => "NOTIMP",
            Rcode::REFUSED => "REFUSED",
            Rcode::BADVERS => "BADVERS",
            _ => "other",
        }
    }
}

/// The stub's counters. Build it once per registry.
#[derive(Clone, Debug)]
pub struct StubMetrics {
    pub(super) answers: Counters<(Proto, Origin, RcodeLabel)>,
    pub(super) dropped: Counters<Reason>,
    pub(super) failures: Counters<Reason>,
    upstream: UpstreamMetrics,
    pub(super) stand_ins: Gauge,
}

/// What is counted of upstream name servers.
#[derive(Clone, Debug)]
pub(super) struct UpstreamMetrics {
    pub(super) failovers: Counter,
    pub(super) kept: Counter,
    pub(super) stale: Counter,
}

impl UpstreamMetrics {
    fn new(registry: &Registry) -> Self {
        Self {
            failovers: registry.counter(
                "funicular_stub_failovers_total",
                "Questions sent to a further upstream name server because an earlier one was slow, silent or failing.",
            ),
            kept: registry.counter(
                "funicular_stub_kept_total",
                "Answers of upstream name servers given again while they hold, without asking.",
            ),
            stale: registry.counter(
                "funicular_stub_stale_total",
                "Answers given past their TTL because no upstream name server answered.",
            ),
        }
    }
}

impl StubMetrics {
    /// What is counted of upstream name servers.
    pub(super) fn upstream(&self) -> UpstreamMetrics {
        self.upstream.clone()
    }

    /// Registers the counters.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        Self {
            answers: registry.counters("funicular_stub_answers_total", "Answers given to the pod's programs."),
            dropped: registry
                .counters("funicular_stub_dropped_total", "Messages and connections that got no answer, by why."),
            failures: registry.counters("funicular_stub_failures_total", "Questions answered with SERVFAIL, by why."),
            upstream: UpstreamMetrics::new(registry),
            stand_ins: registry.gauge("funicular_stub_stand_ins", "Names that have stand-in addresses."),
        }
    }
}
