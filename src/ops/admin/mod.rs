//! The admin port: how a role is asked how it is, and told to change.
//!
//! | path | method | what |
//! |---|---|---|
//! | `/live` | GET | 200 as long as the process answers |
//! | `/ready` | GET | 200, or 503 with the tasks that are pending |
//! | `/metrics` | GET | Prometheus's text format |
//! | `/config` | GET | the settings in effect and where each comes from |
//! | `/logging` | GET, POST `?level=` | what is logged |
//! | `/drain` | POST | stop gracefully |
//!
//! A role adds its own. The first three are also served to the network ([`health()`]); everything is served on loopback
//! alone ([`routes()`]). Loopback is no protection from a browser on the same machine, so there a request must name a
//! loopback host and a change must not come from a web page.

mod routes;
mod serve;

use serde_json::Value;

pub use routes::{Query, Reply, Routes};
pub use serve::{Audience, serve, suspicion};

use super::logging::Logging;
use super::metrics::{self, Registry};
use super::ready::{Readiness, Ready};

/// What every role's admin port shows and changes.
pub struct Shown<C, D> {
    /// Whether the role is ready.
    pub ready: Ready,
    /// Its metrics.
    pub metrics: Registry,
    /// Its log.
    pub logging: Logging,
    /// The settings in effect, without secrets; asked at each request, because they may be read anew.
    pub config: C,
    /// Begins a graceful stop, and returns at once.
    pub drain: D,
}

impl<C, D> std::fmt::Debug for Shown<C, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shown").field("ready", &self.ready).field("logging", &self.logging).finish_non_exhaustive()
    }
}

/// What anybody may see: `/live`, `/ready`, `/metrics`.
#[must_use]
pub fn health(ready: &Ready, metrics: &Registry) -> Routes {
    let (ready, metrics) = (ready.clone(), metrics.clone());
    Routes::new()
        .get("/live", |_| Reply::text("live\n"))
        .get("/ready", move |_| readiness(&ready))
        .get("/metrics", move |_| Reply::typed(metrics::TEXT_FORMAT, metrics.text()))
}

/// Everything: [`health`], `/config`, `/logging`, `/drain`.
#[must_use]
pub fn routes<C, D>(shown: Shown<C, D>) -> Routes
where
    C: Fn() -> Value + Send + Sync + 'static,
    D: Fn() + Send + Sync + 'static,
{
    let Shown { ready, metrics, logging, config, drain } = shown;
    let changed = logging.clone();
    health(&ready, &metrics)
        .get("/config", move |_| Reply::json(&config()))
        .get("/logging", move |_| Reply::text(logging.levels() + "\n"))
        .post("/logging", move |query| set_levels(&changed, query))
        .post("/drain", move |_| {
            drain();
            Reply::text("draining\n").status(202)
        })
}

fn readiness(ready: &Ready) -> Reply {
    match ready.check() {
        Readiness::Ready => Reply::text("ready\n"),
        Readiness::Pending(tasks) => Reply::text(format!("pending: {}\n", tasks.join(", "))).status(503),
        Readiness::Stopping => Reply::text("stopping\n").status(503),
    }
}

fn set_levels(logging: &Logging, query: &Query) -> Reply {
    let Some(levels) = query.value("level") else {
        return Reply::text("say which: POST /logging?level=debug\n").status(400);
    };
    match logging.set(&levels) {
        Ok(()) => {
            tracing::info!(%levels, "log levels changed");
            Reply::text(levels + "\n")
        }
        Err(error) => Reply::text(format!("{error}\n")).status(400),
    }
}
