//! How requests fare, for each service and direction: how many, how they were answered, how long it took, how many are
//! under way.

use std::collections::HashMap;
use std::sync::Arc;

use hyper::StatusCode;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::model::Name;
use crate::ops::metrics::{
    Counter, Counters, Direction, Gauge, Gauges, Histogram, Histograms, Label, Registry, SECONDS, labels,
};

/// For how many services requests are told apart. Names come from DNS, so they are few, but not ours to bound.
const MOST_SERVICES: usize = 1_000;

labels! {
    /// How a request was answered.
    enum Answered: "answer" {
        /// 100 to 199: the connection went on as something else.
        Informational = "1xx",
        /// 200 to 299.
        Success = "2xx",
        /// 300 to 399.
        Redirection = "3xx",
        /// 400 to 499.
        ClientError = "4xx",
        /// 500 and more.
        ServerError = "5xx",
        /// Not at all: whoever asked has gone.
        Nothing = "none",
    }
}

const ANSWERS: [Answered; 6] = [
    Answered::Informational,
    Answered::Success,
    Answered::Redirection,
    Answered::ClientError,
    Answered::ServerError,
    Answered::Nothing,
];

impl Answered {
    fn by(status: StatusCode) -> Self {
        match status.as_u16() {
            0..=199 => Self::Informational,
            200..=299 => Self::Success,
            300..=399 => Self::Redirection,
            400..=499 => Self::ClientError,
            500.. => Self::ServerError,
        }
    }
}

/// A service's name, without its final dot; `other` for those past [`MOST_SERVICES`].
#[derive(Clone)]
struct ServiceLabel(String);

impl Label for ServiceLabel {
    const NAME: &'static str = "service";

    fn value(&self) -> &str {
        &self.0
    }
}

/// The families of metrics of requests. Clones share them.
#[derive(Clone)]
pub(in crate::sidecar) struct Requests {
    answered: Counters<(Direction, ServiceLabel, Answered)>,
    seconds: Histograms<(Direction, ServiceLabel)>,
    open: Gauges<(Direction, ServiceLabel)>,
    known: Arc<Mutex<ByService>>,
}

type ByService = HashMap<(Direction, Name), Arc<Golden>>;

/// Those of one service in one direction.
pub(in crate::sidecar) struct Golden {
    answered: [Counter; 6],
    seconds: Histogram,
    open: Gauge,
}

/// A request under way; counted when it is dropped.
pub(in crate::sidecar) struct Underway {
    golden: Arc<Golden>,
    begun: Instant,
    answered: Answered,
}

impl Requests {
    /// Registers them.
    pub(in crate::sidecar) fn new(registry: &Registry) -> Self {
        Self {
            answered: registry.counters("funicular_requests_total", "HTTP requests that have ended, by their answer."),
            seconds: registry.histograms(
                "funicular_request_seconds",
                "Time from an HTTP request's head to the last octet of its answer.",
                SECONDS,
            ),
            open: registry.gauges("funicular_requests_open", "HTTP requests that have not ended."),
            known: Arc::default(),
        }
    }

    /// Those of this service.
    pub(in crate::sidecar) fn of(&self, direction: Direction, service: &Name) -> Arc<Golden> {
        let mut known = self.known.lock();
        if let Some(golden) = known.get(&(direction, service.clone())) {
            return Arc::clone(golden);
        }
        let named = known.len() < MOST_SERVICES;
        let label = || ServiceLabel(if named { text(service) } else { "other".to_owned() });
        let golden = Arc::new(Golden {
            answered: ANSWERS.map(|answered| self.answered.with(&(direction, label(), answered))),
            seconds: self.seconds.with(&(direction, label())),
            open: self.open.with(&(direction, label())),
        });
        if named {
            known.insert((direction, service.clone()), Arc::clone(&golden));
        }
        golden
    }
}

fn text(service: &Name) -> String {
    let mut text = service.to_lowercase().to_string();
    text.pop();
    text
}

impl Golden {
    /// A request begins.
    pub(in crate::sidecar) fn begin(self: &Arc<Self>) -> Underway {
        self.open.add(1);
        Underway { golden: Arc::clone(self), begun: Instant::now(), answered: Answered::Nothing }
    }
}

impl Underway {
    /// It is being answered.
    pub(in crate::sidecar) fn answered(&mut self, status: StatusCode) {
        self.answered = Answered::by(status);
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        let place = ANSWERS.iter().position(|answered| *answered == self.answered).unwrap_or_default();
        self.golden.answered[place].increment();
        self.golden.seconds.observe(self.begun.elapsed().as_secs_f64());
        self.golden.open.add(-1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_by_its_answer_when_it_has_ended() {
        let registry = Registry::new();
        let golden = Requests::new(&registry).of(Direction::Inbound, &"Orders.shop.peak".parse().unwrap());
        let labels = "direction=\"inbound\",service=\"orders.shop.peak\"";
        let says = |line: &str| assert!(registry.text().lines().any(|said| said == line), "{line}");

        let mut one = golden.begin();
        let other = golden.begin();
        says(&format!("funicular_requests_open{{{labels}}} 2"));
        one.answered(StatusCode::NOT_FOUND);
        drop((one, other));

        says(&format!("funicular_requests_open{{{labels}}} 0"));
        says(&format!("funicular_requests_total{{answer=\"4xx\",{labels}}} 1"));
        says(&format!("funicular_requests_total{{answer=\"none\",{labels}}} 1"));
        says(&format!("funicular_request_seconds_count{{{labels}}} 2"));
    }

    #[test]
    fn services_past_the_bound_are_counted_together() {
        let registry = Registry::new();
        let requests = Requests::new(&registry);
        for number in 0..MOST_SERVICES + 2 {
            drop(requests.of(Direction::Outbound, &format!("s{number}.peak").parse().unwrap()).begin());
        }
        let text = registry.text();
        assert!(text.contains("funicular_requests_total{answer=\"none\",direction=\"outbound\",service=\"other\"} 2"));
        assert!(text.contains("service=\"s999.peak\"") && !text.contains("service=\"s1000.peak\""));
    }
}
