//! The access log: one line per connection, written when it has ended, however it ended.
//!
//! Lines are events of target `access` at level `info`, so `access=off` in the log's levels silences them and the
//! log's format (text or JSON) is theirs too. A [`Line`] that is dropped unfinished is written all the same.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::metrics::{Direction, Label};
use super::tap::TAP;

/// The target of the access log's events.
pub const TARGET: &str = "access";

/// What one connection's line will say; what is not known stays away from it.
#[derive(Debug)]
pub struct Line {
    direction: Direction,
    client: SocketAddr,
    begun: Instant,
    /// Where the client wanted to go: the original destination of the redirected connection.
    pub orig_dst: Option<SocketAddr>,
    /// Where the connection was carried: the computed address, or the application's.
    pub server: Option<SocketAddr>,
    /// The service, with its final dot.
    pub service: Option<String>,
    /// Generation of the rule by which the address was computed or checked.
    pub generation: Option<u32>,
    /// The caller's name, once its token has been verified.
    pub caller: Option<String>,
    /// How the caller's token travels.
    pub mode: Option<&'static str>,
    /// How many addresses were tried.
    pub attempts: u32,
    /// How many HTTP requests came on it, where that is known.
    pub requests: Option<u64>,
    /// Bytes from client to server.
    pub sent_bytes: u64,
    /// Bytes from server to client.
    pub received_bytes: u64,
    outcome: &'static str,
    detail: Option<String>,
}

impl Line {
    /// A connection has been accepted.
    #[must_use]
    pub fn open(direction: Direction, client: SocketAddr) -> Self {
        Self {
            direction,
            client: SocketAddr::new(unmapped(client.ip()), client.port()),
            begun: Instant::now(),
            orig_dst: None,
            server: None,
            service: None,
            generation: None,
            caller: None,
            mode: None,
            attempts: 0,
            requests: None,
            sent_bytes: 0,
            received_bytes: 0,
            outcome: "dropped",
            detail: None,
        }
    }

    /// How long ago the connection was accepted.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// It was carried to its end.
    pub fn carried(mut self) {
        self.outcome = "carried";
    }

    /// It was refused or failed: `reason` is the error's stable word, `error` its message, which holds no secret.
    pub fn failed(mut self, reason: &'static str, error: &dyn std::fmt::Display) {
        self.outcome = reason;
        self.detail = Some(error.to_string());
    }
}

/// An IPv4 client of a dual-stack listener is shown as what it is.
fn unmapped(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

impl Line {
    /// For whoever looks on: as in the log, what is not known left out.
    fn as_json(&self) -> Value {
        let mut line = json!({
            "direction": self.direction.value(),
            "outcome": self.outcome,
            "client": self.client.to_string(),
            "orig_dst": self.orig_dst.map(|address| address.to_string()),
            "server": self.server.map(|address| address.to_string()),
            "service": self.service,
            "generation": self.generation,
            "caller": self.caller,
            "mode": self.mode,
            "attempts": self.attempts,
            "requests": self.requests,
            "sent_bytes": self.sent_bytes,
            "received_bytes": self.received_bytes,
            "duration_seconds": self.begun.elapsed().as_secs_f64(),
            "error": self.detail,
        });
        if let Some(members) = line.as_object_mut() {
            members.retain(|_, value| !value.is_null());
        }
        line
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if TAP.is_open() {
            TAP.keep(self.as_json());
        }
        tracing::info!(
            target: TARGET,
            direction = self.direction.value(),
            outcome = self.outcome,
            client = %self.client,
            orig_dst = self.orig_dst.map(tracing::field::display),
            server = self.server.map(tracing::field::display),
            service = self.service.as_deref(),
            generation = self.generation,
            caller = self.caller.as_deref(),
            mode = self.mode,
            attempts = self.attempts,
            requests = self.requests,
            sent_bytes = self.sent_bytes,
            received_bytes = self.received_bytes,
            duration_seconds = self.begun.elapsed().as_secs_f64(),
            error = self.detail.as_deref(),
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::ops::logging::Format;
    use crate::ops::logging::kept::started;

    /// The lines written while `work` runs, read back.
    fn lines(levels: &str, work: impl FnOnce()) -> Vec<Value> {
        let (_logging, subscriber, kept) = started(levels, Format::Json);
        tracing::subscriber::with_default(subscriber, work);
        kept.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn open() -> Line {
        Line::open(Direction::Outbound, "[::ffff:192.0.2.7]:4711".parse().unwrap())
    }

    #[test]
    fn a_carried_connection_says_what_was_known_of_it() {
        let written = lines("info", || {
            let mut line = open();
            line.service = Some("orders.shop.peak.".to_owned());
            line.server = Some("[2001:db8:5:1::42]:8080".parse().unwrap());
            line.mode = Some("pp2");
            (line.attempts, line.sent_bytes, line.received_bytes) = (2, 10, 4_000);
            line.carried();
        });
        assert_eq!(written.len(), 1);
        let line = &written[0];
        assert_eq!(line["target"], "access");
        assert_eq!(line["direction"], "outbound");
        assert_eq!(line["outcome"], "carried");
        assert_eq!(line["client"], "192.0.2.7:4711");
        assert_eq!(line["service"], "orders.shop.peak.");
        assert_eq!(line["server"], "[2001:db8:5:1::42]:8080");
        assert_eq!((&line["attempts"], &line["received_bytes"]), (&2.into(), &4_000.into()));
        for unknown in ["orig_dst", "caller", "generation", "error"] {
            assert!(line.get(unknown).is_none(), "{unknown} in {line}");
        }
    }

    #[test]
    fn a_failed_connection_says_why() {
        let written = lines("info", || open().failed("no-name", &"nobody knows it"));
        assert_eq!((&written[0]["outcome"], &written[0]["error"]), (&"no-name".into(), &"nobody knows it".into()));
    }

    #[test]
    fn a_connection_dropped_half_way_is_written_all_the_same() {
        let written = lines("info", || drop(open()));
        assert_eq!(written[0]["outcome"], "dropped");
    }

    #[test]
    fn the_access_log_alone_can_be_silenced() {
        let written = lines("info,access=off", || {
            tracing::info!("heard");
            open().carried();
        });
        assert_eq!(written.len(), 1);
        assert_eq!(written[0]["message"], "heard");
    }
}
