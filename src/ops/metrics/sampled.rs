//! Families whose numbers are kept elsewhere and read at each scrape.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto;

use super::Kind;

/// What a family's reader puts its values into.
#[derive(Debug)]
pub struct Samples {
    kind: Kind,
    labels: &'static [&'static str],
    metrics: Vec<proto::Metric>,
}

type Read = dyn Fn(&mut Samples) + Send + Sync;

/// One such family.
#[derive(Clone)]
pub(super) struct Sampled {
    description: Desc,
    kind: Kind,
    labels: &'static [&'static str],
    read: Arc<Read>,
}

impl Samples {
    /// Puts down the value for these labels' texts, each combination once.
    ///
    /// # Panics
    /// When the number of texts is not that of the family's labels, or the family is a histogram.
    pub fn put(&mut self, labels: &[&str], value: f64) {
        let mut metric = self.labelled(labels);
        match self.kind {
            Kind::Counter => {
                let mut counter = proto::Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            Kind::Gauge => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
            Kind::Histogram => panic!("a histogram's values are put down with put_histogram"),
        }
        self.metrics.push(metric);
    }

    /// Puts down a histogram for these labels' texts: for each rising upper bound, the number of values in its range
    /// alone; `above` are those over the last bound, `sum` is of all values.
    ///
    /// # Panics
    /// When the number of texts is not that of the family's labels, or the family is no histogram.
    pub fn put_histogram(&mut self, labels: &[&str], ranges: &[(f64, u64)], above: u64, sum: f64) {
        assert_eq!(self.kind, Kind::Histogram, "only a histogram has ranges");
        let mut metric = self.labelled(labels);
        let mut histogram = proto::Histogram::default();
        let mut so_far = 0;
        let mut buckets = Vec::with_capacity(ranges.len());
        for &(upper, count) in ranges {
            so_far += count;
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(upper);
            bucket.set_cumulative_count(so_far);
            buckets.push(bucket);
        }
        histogram.set_bucket(buckets);
        histogram.set_sample_count(so_far + above);
        histogram.set_sample_sum(sum);
        metric.set_histogram(histogram);
        self.metrics.push(metric);
    }

    fn labelled(&self, labels: &[&str]) -> proto::Metric {
        assert_eq!(labels.len(), self.labels.len(), "a text for each of the labels {:?}", self.labels);
        let mut metric = proto::Metric::default();
        metric.set_label(self.labels.iter().zip(labels).map(|(name, text)| pair(name, text)).collect());
        metric
    }
}

fn pair(name: &str, text: &str) -> proto::LabelPair {
    let mut pair = proto::LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(text.to_owned());
    pair
}

impl Sampled {
    /// # Panics
    /// For a name or label that Prometheus would not read.
    pub(super) fn new(
        name: &'static str,
        help: &str,
        kind: Kind,
        labels: &'static [&'static str],
        read: impl Fn(&mut Samples) + Send + Sync + 'static,
    ) -> Self {
        let names = labels.iter().map(|&label| label.to_owned()).collect();
        let description = super::made(Desc::new(name.to_owned(), help.to_owned(), names, Default::default()));
        Self { description, kind, labels, read: Arc::new(read) }
    }
}

impl Collector for Sampled {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.description]
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let mut samples = Samples { kind: self.kind, labels: self.labels, metrics: Vec::new() };
        (self.read)(&mut samples);
        let mut family = proto::MetricFamily::default();
        family.set_name(self.description.fq_name.clone());
        family.set_help(self.description.help.clone());
        family.set_field_type(match self.kind {
            Kind::Counter => proto::MetricType::COUNTER,
            Kind::Gauge => proto::MetricType::GAUGE,
            Kind::Histogram => proto::MetricType::HISTOGRAM,
        });
        family.set_metric(samples.metrics);
        vec![family]
    }
}
