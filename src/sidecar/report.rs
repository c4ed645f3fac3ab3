//! What the data path reports: metrics, the access log's lines, and a warning for refusals, at most one of a kind a
//! second.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::http::golden::Requests;
use super::outbound::transport::http::Peers;
use super::outbound::transport::pool::Pool;
use super::outbound::transport::tunnel::{How, Tunnels};
use crate::net::copy::Transferred;
use crate::net::tls;
use crate::ops::access_log::Line;
use crate::ops::metrics::{
    Counter, Counters, Direction, Gauge, Gauges, Histogram, Kind, Label as _, Reason, Registry, SECONDS, labels,
};
use crate::trust::{Verdict, Verifier};
use crate::wire::jwt::TrustedIssuer;

/// How long a warning of one reason keeps others of the same silent.
const QUIET: Duration = Duration::from_secs(1);

labels! {
    /// How a connection is carried.
    pub enum Carriage: "mode" {
        /// A stream of a tunnel.
        Tunnel = "tunnel",
        /// A PROXY v2 header behind TLS.
        Pp2 = "pp2",
        /// HTTP, a token with each request.
        Header = "header",
        /// By the address rule alone: `token=none`.
        Plain = "none",
        /// No structured service on the other side: untouched.
        Legacy = "legacy",
        /// To another pod of the service, whose slice it is.
        Relay = "relay",
    }
}

labels! {
    /// Which way bytes go, seen from the one who connected.
    enum Way: "way" {
        /// To the server.
        Sent = "sent",
        /// To the client.
        Received = "received",
    }
}

labels! {
    /// How a stream came by its tunnel.
    enum Tunnelled: "how" {
        /// The tunnel was made for it.
        Fresh = "fresh",
        /// The tunnel had carried others before.
        Reused = "reused",
    }
}

/// An error that ends a connection.
pub trait Refusal: Display {
    /// Its stable word.
    fn reason(&self) -> &'static str;
}

/// The data path's metrics. Clones share them.
#[derive(Clone)]
pub struct Report {
    carried: Counters<(Direction, Carriage)>,
    open: Gauges<Direction>,
    refusals: Counters<(Direction, Reason)>,
    broken: Counters<(Direction, Reason)>,
    tolerated: Counters<Reason>,
    bytes: Counters<(Direction, Way)>,
    attempts_failed: Counters<Reason>,
    accept_failures: Counters<Direction>,
    accept_pauses: Counters<Direction>,
    verdicts: Counters<Verdict>,
    signed: Counter,
    streams: Counters<Tunnelled>,
    idle_tunnels: Gauges<Direction>,
    idle_http: Gauge,
    pub(in crate::sidecar) requests: Requests,
    repeated: Counter,
    connect_seconds: Histogram,
    quiet: Arc<Mutex<HashMap<(Direction, &'static str), Quiet>>>,
}

/// When a reason was last warned of, and how often it came since.
struct Quiet {
    since: Instant,
    suppressed: u64,
}

impl Report {
    /// Registers the data path's metrics.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        registry.sampled(
            "funicular_tls_handshakes_total",
            "TLS handshakes that succeeded, by our side in them and by whether a ticket made them shorter.",
            Kind::Counter,
            &["side", "how"],
            |samples| {
                for (side, how, number) in tls::handshakes() {
                    samples.put(&[side, how], number as f64);
                }
            },
        );
        Self {
            carried: registry.counters("funicular_connections_total", "Connections carried, by mode."),
            open: registry.gauges("funicular_connections_open", "Connections accepted and not ended."),
            refusals: registry.counters("funicular_refusals_total", "Connections and requests refused, by reason."),
            broken: registry.counters(
                "funicular_connections_broken_total",
                "Connections that broke off while they were carried, by who broke off.",
            ),
            tolerated: registry.counters(
                "funicular_tolerated_total",
                "Inbound connections let through that policy strict would refuse, by reason.",
            ),
            bytes: registry.counters("funicular_transferred_bytes_total", "Bytes carried."),
            attempts_failed: registry
                .counters("funicular_attempts_failed_total", "Candidate addresses that gave no connection, by reason."),
            accept_failures: registry.counters(
                "funicular_accept_failures_total",
                "Times accepting a connection failed, out of descriptors perhaps.",
            ),
            accept_pauses: registry.counters(
                "funicular_accept_pauses_total",
                "Times accepting connections paused because memory was short.",
            ),
            verdicts: registry.counters("funicular_token_verdicts_total", "Tokens of callers accepted, by how."),
            signed: registry.counter("funicular_tokens_signed_total", "Tokens signed for services called."),
            streams: registry.counters(
                "funicular_tunnel_streams_total",
                "Streams opened in tunnels to servers, by how they came by one.",
            ),
            idle_tunnels: registry.gauges("funicular_tunnels_idle", "Tunnels that carry no stream just now."),
            idle_http: registry
                .gauge("funicular_http_connections_idle", "HTTP connections to servers that wait for a request."),
            requests: Requests::new(registry),
            repeated: registry.counter(
                "funicular_requests_repeated_total",
                "HTTP requests sent once more because no octet of an answer came, or because they were misdirected.",
            ),
            connect_seconds: registry.histogram(
                "funicular_connect_seconds",
                "Time from an application's connection to the server's, handshake included.",
                SECONDS,
            ),
            quiet: Arc::default(),
        }
    }

    /// A connection was accepted; counts it as open until the value is dropped.
    pub(crate) fn opened(&self, direction: Direction) -> Open {
        let open = self.open.with(&direction);
        open.add(1);
        Open(open)
    }

    /// How many connections are open, either way.
    pub(crate) fn open(&self) -> i64 {
        [Direction::Inbound, Direction::Outbound].iter().map(|direction| self.open.with(direction).value()).sum()
    }

    /// A connection is about to be carried.
    pub(crate) fn carrying(&self, line: &Line, direction: Direction, how: Carriage) {
        self.carried.increment(&(direction, how));
        if direction == Direction::Outbound {
            self.connect_seconds.observe(line.age().as_secs_f64());
        }
    }

    /// A connection was carried and has ended.
    pub(crate) fn ended(&self, mut line: Line, direction: Direction, transferred: &Transferred) {
        self.bytes.with(&(direction, Way::Sent)).add(transferred.sent_bytes);
        self.bytes.with(&(direction, Way::Received)).add(transferred.received_bytes);
        line.sent_bytes = transferred.sent_bytes;
        line.received_bytes = transferred.received_bytes;
        match &transferred.end {
            Ok(()) => line.carried(),
            Err(broken) => {
                self.broken.increment(&(direction, Reason(broken.reason())));
                line.failed(broken.reason(), broken);
            }
        }
    }

    /// A connection was refused.
    pub(crate) fn refused(&self, line: Line, direction: Direction, refusal: &dyn Refusal) {
        let reason = refusal.reason();
        self.refusals.increment(&(direction, Reason(reason)));
        if let Some(suppressed) = self.may_warn(direction, reason) {
            tracing::warn!(direction = direction.value(), reason, suppressed, "connection refused: {refusal}");
        }
        line.failed(reason, &refusal);
    }

    /// A connection passes that strict would refuse.
    pub(crate) fn tolerated(&self, refusal: &dyn Refusal) {
        let reason = refusal.reason();
        self.tolerated.increment(&Reason(reason));
        if let Some(suppressed) = self.may_warn(Direction::Inbound, reason) {
            tracing::info!(reason, suppressed, "connection let through that policy strict would refuse: {refusal}");
        }
    }

    pub(crate) fn attempt_failed(&self, refusal: &dyn Refusal) {
        self.attempts_failed.increment(&Reason(refusal.reason()));
    }

    /// A candidate was so slow that a later one gave the connection.
    pub(crate) fn attempt_overtaken(&self) {
        self.attempts_failed.increment(&Reason("server-overtaken"));
    }

    /// A call may make no further attempt.
    pub(crate) fn retry_denied(&self) {
        self.attempts_failed.increment(&Reason("retry-budget-empty"));
    }

    pub(crate) fn accept_failed(&self, direction: Direction, error: &std::io::Error) {
        self.accept_failures.increment(&direction);
        if let Some(suppressed) = self.may_warn(direction, "accept") {
            tracing::warn!(direction = direction.value(), suppressed, "cannot accept a connection: {error}");
        }
    }

    /// Memory is short: connections have to wait.
    pub(crate) fn accept_paused(&self, direction: Direction) {
        self.accept_pauses.increment(&direction);
    }

    /// What verifies tokens by these issuers, and is counted here.
    #[must_use]
    pub fn verifier(&self, issuers: Vec<TrustedIssuer>) -> Verifier {
        let verdicts = self.verdicts.clone();
        Verifier::new(issuers, move |how| verdicts.increment(&how))
    }

    /// A stream is opened in a tunnel.
    pub(crate) fn stream(&self, how: How) {
        self.streams.increment(match how {
            How::Fresh => &Tunnelled::Fresh,
            How::Reused => &Tunnelled::Reused,
        });
    }

    /// The free tunnels to servers.
    #[must_use]
    pub fn pool(&self) -> Tunnels {
        Pool::new(self.idle_tunnels.with(&Direction::Outbound))
    }

    /// The connections of HTTP to servers that wait.
    pub(in crate::sidecar) fn peers(&self) -> Peers {
        Pool::new(self.idle_http.clone())
    }

    /// A request is sent once more.
    pub(in crate::sidecar) fn repeated(&self) {
        self.repeated.increment();
    }

    /// One request of a connection was refused; others go on.
    pub(in crate::sidecar) fn refused_request(&self, direction: Direction, refusal: &dyn Refusal) {
        let reason = refusal.reason();
        self.refusals.increment(&(direction, Reason(reason)));
        if let Some(suppressed) = self.may_warn(direction, reason) {
            tracing::warn!(direction = direction.value(), reason, suppressed, "request refused: {refusal}");
        }
    }

    /// A caller's tunnel waits for its next stream; counts it until the value is dropped.
    pub(crate) fn waiting(&self) -> Open {
        let idle = self.idle_tunnels.with(&Direction::Inbound);
        idle.add(1);
        Open(idle)
    }

    pub(crate) fn signed(&self) {
        self.signed.increment();
    }

    /// Whether a warning of this reason may be written now, and how many were not since the last. Reasons are
    /// constants, so the table stays small.
    fn may_warn(&self, direction: Direction, reason: &'static str) -> Option<u64> {
        let now = Instant::now();
        let mut quiet = self.quiet.lock();
        match quiet.get_mut(&(direction, reason)) {
            Some(last) if now - last.since < QUIET => {
                last.suppressed += 1;
                None
            }
            Some(last) => {
                last.since = now;
                Some(std::mem::take(&mut last.suppressed))
            }
            None => {
                quiet.insert((direction, reason), Quiet { since: now, suppressed: 0 });
                Some(0)
            }
        }
    }
}

/// One connection that counts as open.
pub(crate) struct Open(Gauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reason_is_warned_of_once_a_second_and_says_how_often_it_came_meanwhile() {
        let report = Report::new(&Registry::new());
        let warn = |reason| report.may_warn(Direction::Inbound, reason);
        assert_eq!(warn("token-expired"), Some(0));
        assert_eq!(warn("token-expired"), None);
        assert_eq!(warn("plaintext"), Some(0));
        tokio::time::advance(QUIET - Duration::from_millis(1)).await;
        assert_eq!(warn("token-expired"), None);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(warn("token-expired"), Some(2));
    }

    #[test]
    fn an_open_connection_is_counted_until_it_is_dropped_however_it_ends() {
        let registry = Registry::new();
        let report = Report::new(&registry);
        let open = report.opened(Direction::Inbound);
        assert!(registry.text().contains("funicular_connections_open{direction=\"inbound\"} 1"));
        drop(open);
        assert!(registry.text().contains("funicular_connections_open{direction=\"inbound\"} 0"));
    }
}
