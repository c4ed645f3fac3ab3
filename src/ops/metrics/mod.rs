//! Metrics: families of numbers with enforced names, small labels, and the text that Prometheus reads.
//!
//! A role makes one [`Registry`], builds its struct of handles from it, and hands that struct to constructors; nothing
//! here is global. Names and labels are checked when they are registered: `funicular_` first, base units, `_total` for
//! what only grows. Label values come from [`Label`] types, never from a peer.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{HistogramOpts, Opts, TextEncoder};

mod labels;
mod names;
mod sampled;

pub(crate) use labels::labels;
pub use labels::{Label, Labels, Reason};
pub use names::{Kind, NameFault};
pub use sampled::Samples;

/// The content type of [`Registry::text`].
pub const TEXT_FORMAT: &str = prometheus::TEXT_FORMAT;

/// Buckets for times from a loopback call to the longest sensible deadline, in seconds.
pub const SECONDS: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Buckets for sizes of messages, in bytes: the limits of DNS among them.
pub const BYTES: &[f64] =
    &[0.0, 100.0, 200.0, 300.0, 400.0, 511.0, 1_023.0, 2_047.0, 4_095.0, 8_291.0, 16_000.0, 32_000.0, 65_536.0];

labels! {
    /// Which way calls go, seen from the pod.
    pub enum Direction: "direction" {
        /// Calls to this pod's services.
        Inbound = "inbound",
        /// Calls of this pod's programs.
        Outbound = "outbound",
    }
}

/// All metrics of one process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    families: prometheus::Registry,
    described: Arc<Mutex<Vec<Family>>>,
}

/// What is known of a registered family.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Family {
    /// The name, as it is scraped; a histogram's stands without `_bucket`.
    pub name: &'static str,
    /// What it counts or measures.
    pub kind: Kind,
    /// Names of its labels, in their order.
    pub labels: &'static [&'static str],
}

/// A number that only grows.
#[derive(Clone, Debug)]
pub struct Counter(prometheus::IntCounter);

/// A number that goes up and down.
#[derive(Clone, Debug)]
pub struct Gauge(prometheus::IntGauge);

/// How often values fell into each of some ranges.
#[derive(Clone, Debug)]
pub struct Histogram(prometheus::Histogram);

/// One [`Counter`] for each combination of labels.
#[derive(Clone, Debug)]
pub struct Counters<L>(prometheus::IntCounterVec, std::marker::PhantomData<fn(L)>);

/// One [`Gauge`] for each combination of labels.
#[derive(Clone, Debug)]
pub struct Gauges<L>(prometheus::IntGaugeVec, std::marker::PhantomData<fn(L)>);

/// One [`Histogram`] for each combination of labels.
#[derive(Clone, Debug)]
pub struct Histograms<L>(prometheus::HistogramVec, std::marker::PhantomData<fn(L)>);

/// Every constructor panics on a name that breaks the rules or is registered twice: names are constants of this
/// program, so whoever builds a struct of metrics once, as its test does, has seen it.
impl Registry {
    /// No metrics yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a counter; `name` ends in `_total`.
    #[must_use]
    pub fn counter(&self, name: &'static str, help: &str) -> Counter {
        Counter(self.add(name, Kind::Counter, &[], made(prometheus::IntCounter::with_opts(Opts::new(name, help)))))
    }

    /// Registers a family of counters; `name` ends in `_total`.
    #[must_use]
    pub fn counters<L: Labels>(&self, name: &'static str, help: &str) -> Counters<L> {
        let family = made(prometheus::IntCounterVec::new(Opts::new(name, help), L::NAMES));
        Counters(self.add(name, Kind::Counter, L::NAMES, family), std::marker::PhantomData)
    }

    /// Registers a gauge; a measured quantity ends in its base unit.
    #[must_use]
    pub fn gauge(&self, name: &'static str, help: &str) -> Gauge {
        Gauge(self.add(name, Kind::Gauge, &[], made(prometheus::IntGauge::with_opts(Opts::new(name, help)))))
    }

    /// Registers a family of gauges; a measured quantity ends in its base unit.
    #[must_use]
    pub fn gauges<L: Labels>(&self, name: &'static str, help: &str) -> Gauges<L> {
        let family = made(prometheus::IntGaugeVec::new(Opts::new(name, help), L::NAMES));
        Gauges(self.add(name, Kind::Gauge, L::NAMES, family), std::marker::PhantomData)
    }

    /// Registers a histogram; `name` ends in its base unit, `buckets` rise.
    #[must_use]
    pub fn histogram(&self, name: &'static str, help: &str, buckets: &[f64]) -> Histogram {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        Histogram(self.add(name, Kind::Histogram, &[], made(prometheus::Histogram::with_opts(options))))
    }

    /// Registers a family of histograms; `name` ends in its base unit, `buckets` rise.
    #[must_use]
    pub fn histograms<L: Labels>(&self, name: &'static str, help: &str, buckets: &[f64]) -> Histograms<L> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let family = made(prometheus::HistogramVec::new(options, L::NAMES));
        Histograms(self.add(name, Kind::Histogram, L::NAMES, family), std::marker::PhantomData)
    }

    /// Registers a family whose numbers are kept elsewhere (plain counters of a thread, the length of a cache) and
    /// read only when somebody asks: `read` is called at each scrape and puts down a value per combination of labels.
    pub fn sampled(
        &self,
        name: &'static str,
        help: &str,
        kind: Kind,
        labels: &'static [&'static str],
        read: impl Fn(&mut Samples) + Send + Sync + 'static,
    ) {
        self.add(name, kind, labels, sampled::Sampled::new(name, help, kind, labels, read));
    }

    /// What is registered, by name.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        let mut families = self.described.lock().clone();
        families.sort_unstable();
        families
    }

    /// All metrics in Prometheus's text format, version 0.0.4.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        match TextEncoder::new().encode_utf8(&self.families.gather(), &mut text) {
            Ok(()) => text,
            // Families are checked when they are registered, and a `String` takes everything.
            Err(error) => unreachable!("metrics could not be written as text: {error}"),
        }
    }

    fn add<C: Collector + Clone + 'static>(
        &self,
        name: &'static str,
        kind: Kind,
        labels: &'static [&'static str],
        family: C,
    ) -> C {
        if let Err(fault) = names::check(name, kind, labels) {
            panic!("metric {name}: {fault}");
        }
        if let Err(error) = self.families.register(Box::new(family.clone())) {
            panic!("metric {name}: {error}");
        }
        self.described.lock().push(Family { name, kind, labels });
        family
    }
}

/// What the library made of a family's options, which are constants of this program.
fn made<T>(family: prometheus::Result<T>) -> T {
    family.unwrap_or_else(|error| panic!("metric: {error}"))
}

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.0.inc();
    }

    /// `more` more.
    pub fn add(&self, more: u64) {
        self.0.inc_by(more);
    }

    /// The value now.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.get()
    }
}

impl Gauge {
    /// Replaces the value.
    pub fn set(&self, value: i64) {
        self.0.set(value);
    }

    /// Adds `difference`, which may be negative.
    pub fn add(&self, difference: i64) {
        self.0.add(difference);
    }

    /// The value now.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.0.get()
    }
}

impl Histogram {
    /// Counts one value, in the base unit of the histogram's name.
    pub fn observe(&self, value: f64) {
        self.0.observe(value);
    }

    /// How many values have been counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.get_sample_count()
    }
}

impl<L: Labels> Counters<L> {
    /// The counter of these labels. A look-up by hash: on a hot path, keep what it gives.
    #[must_use]
    pub fn with(&self, labels: &L) -> Counter {
        labels.with_values(|values| Counter(self.0.with_label_values(values)))
    }

    /// One more for these labels.
    pub fn increment(&self, labels: &L) {
        labels.with_values(|values| self.0.with_label_values(values).inc());
    }
}

impl<L: Labels> Gauges<L> {
    /// The gauge of these labels. A look-up by hash: on a hot path, keep what it gives.
    #[must_use]
    pub fn with(&self, labels: &L) -> Gauge {
        labels.with_values(|values| Gauge(self.0.with_label_values(values)))
    }
}

impl<L: Labels> Histograms<L> {
    /// The histogram of these labels. A look-up by hash: on a hot path, keep what it gives.
    #[must_use]
    pub fn with(&self, labels: &L) -> Histogram {
        labels.with_values(|values| Histogram(self.0.with_label_values(values)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    labels! {
        /// Colours, for tests.
        enum Colour: "colour" {
            /// As blood.
            Red = "red",
        }
    }

    #[test]
    fn a_family_is_written_with_its_labels() {
        let registry = Registry::new();
        let refusals = registry.counters::<(Direction, Reason)>("funicular_refusals_total", "Refused connections.");
        refusals.increment(&(Direction::Inbound, Reason("token-expired")));
        refusals.with(&(Direction::Inbound, Reason("token-expired"))).add(2);
        assert_eq!(
            registry.text(),
            "# HELP funicular_refusals_total Refused connections.\n\
             # TYPE funicular_refusals_total counter\n\
             funicular_refusals_total{direction=\"inbound\",reason=\"token-expired\"} 3\n"
        );
    }

    #[test]
    fn a_family_of_one_label_takes_it_bare() {
        let registry = Registry::new();
        let open = registry.gauges::<Colour>("funicular_open", "Open ones.");
        open.with(&Colour::Red).set(-2);
        assert!(registry.text().contains("funicular_open{colour=\"red\"} -2\n"));
    }

    #[test]
    fn a_histogram_counts_into_its_buckets() {
        let registry = Registry::new();
        let seconds = registry.histogram("funicular_connect_seconds", "Time to connect.", &[0.5, 1.0]);
        seconds.observe(0.5);
        seconds.observe(0.6);
        let text = registry.text();
        assert!(text.contains("funicular_connect_seconds_bucket{le=\"0.5\"} 1\n"), "{text}");
        assert!(text.contains("funicular_connect_seconds_bucket{le=\"+Inf\"} 2\n"), "{text}");
    }

    #[test]
    fn sampled_numbers_are_read_when_they_are_asked_for() {
        let registry = Registry::new();
        let length = Arc::new(Mutex::new(1_u64));
        let read = Arc::clone(&length);
        registry.sampled("funicular_cached_names", "Names held.", Kind::Gauge, &["kind"], move |samples| {
            samples.put(&["service"], *read.lock() as f64);
        });
        assert!(registry.text().contains("funicular_cached_names{kind=\"service\"} 1\n"));
        *length.lock() = 7;
        assert!(registry.text().contains("funicular_cached_names{kind=\"service\"} 7\n"));
    }

    #[test]
    fn a_sampled_histogram_is_written_cumulatively() {
        let registry = Registry::new();
        registry.sampled("funicular_wait_seconds", "Waits.", Kind::Histogram, &[], |samples| {
            samples.put_histogram(&[], &[(0.5, 2), (1.0, 3)], 4, 20.5);
        });
        let text = registry.text();
        for line in ["bucket{le=\"0.5\"} 2", "bucket{le=\"1\"} 5", "bucket{le=\"+Inf\"} 9", "sum 20.5", "count 9"] {
            assert!(text.contains(&format!("funicular_wait_seconds_{line}\n")), "{line} in {text}");
        }
    }

    #[test]
    #[should_panic(expected = "must begin with funicular_")]
    fn a_foreign_name_is_not_registered() {
        let _ = Registry::new().counter("refusals_total", "Refused connections.");
    }

    #[test]
    #[should_panic(expected = "Duplicate")]
    fn a_name_is_not_registered_twice() {
        let registry = Registry::new();
        let _first = registry.counter("funicular_refusals_total", "Refused connections.");
        let _second = registry.counter("funicular_refusals_total", "Refused connections.");
    }

    #[test]
    fn what_is_registered_can_be_listed() {
        let registry = Registry::new();
        let _refusals = registry.counters::<(Direction, Reason)>("funicular_refusals_total", "Refused connections.");
        let expected =
            Family { name: "funicular_refusals_total", kind: Kind::Counter, labels: &["direction", "reason"] };
        assert_eq!(registry.families(), [expected]);
    }
}
