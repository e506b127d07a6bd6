//! What was counted, kept as OTLP tells it: everything since the process began. A histogram is its buckets from the start,
//! so that nothing here grows with what happens between two exports, and whoever counts never waits.

use crate::bounds;
use metrics::atomics::AtomicU64;
use metrics::{
    Counter, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use metrics_util::registry::{Registry, Storage};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    self as pb, AggregationTemporality, HistogramDataPoint, Metric, NumberDataPoint, metric,
    number_data_point::Value,
};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

/// What was counted. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Counted(Arc<Inner>);

struct Inner {
    registry: Registry<Key, Cells>,
    /// Unit and meaning by name.
    described: Mutex<HashMap<String, (&'static str, SharedString)>>,
}

impl Default for Counted {
    fn default() -> Self {
        Self(Arc::new(Inner { registry: Registry::new(Cells), described: Mutex::default() }))
    }
}

/// How a meter is kept.
struct Cells;

impl Storage<Key> for Cells {
    type Counter = Arc<AtomicU64>;
    type Gauge = Arc<AtomicU64>;
    type Histogram = Arc<Buckets>;

    fn counter(&self, _: &Key) -> Self::Counter {
        Arc::default()
    }

    fn gauge(&self, _: &Key) -> Self::Gauge {
        Arc::default()
    }

    fn histogram(&self, key: &Key) -> Self::Histogram {
        Arc::new(Buckets::new(bounds(key.name())))
    }
}

/// What a histogram has seen.
struct Buckets {
    bounds: &'static [f64],
    /// One more than bounds: the last is of what lies above all.
    counts: Vec<AtomicU64>,
    /// The bits of a float, as a gauge has them.
    sum: AtomicU64,
}

impl Buckets {
    fn new(bounds: &'static [f64]) -> Self {
        let counts = std::iter::repeat_with(AtomicU64::default).take(bounds.len() + 1).collect();
        Self { bounds, counts, sum: AtomicU64::default() }
    }
}

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        // One that is no number would spoil the sum for good.
        if value.is_finite() {
            self.counts[self.bounds.partition_point(|bound| *bound < value)].fetch_add(1, Relaxed);
            GaugeFn::increment(&self.sum, value);
        }
    }
}

impl Counted {
    fn describe(&self, name: &KeyName, unit: Option<Unit>, meaning: SharedString) {
        let mut described = self.0.described.lock().unwrap_or_else(PoisonError::into_inner);
        described.insert(name.as_str().to_owned(), (unit.map_or("", ucum), meaning));
    }
}

/// A unit as OTLP writes it (<https://ucum.org>).
fn ucum(unit: Unit) -> &'static str {
    match unit {
        Unit::Bytes => "By",
        other => other.as_canonical_label(),
    }
}

impl Recorder for Counted {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.describe(&name, unit, meaning);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.describe(&name, unit, meaning);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.describe(&name, unit, meaning);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.0.registry.get_or_create_counter(key, |counter| counter.clone().into())
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.0.registry.get_or_create_gauge(key, |gauge| gauge.clone().into())
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.0.registry.get_or_create_histogram(key, |histogram| Histogram::from_arc(histogram.clone()))
    }
}

/// The time that points are of, ns since the Unix epoch.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    /// When the process began to count; the same in every export, so that counters are seen to go on.
    pub(crate) since_ns: u64,
    pub(crate) now_ns: u64,
}

/// The points of every meter of a kind, by name.
type Points<P> = BTreeMap<String, Vec<P>>;

impl Counted {
    /// Everything that was counted, in parts of at most `points_max` points.
    pub(crate) fn told(&self, span: Span, points_max: usize) -> Vec<Vec<Metric>> {
        let (mut sums, mut gauges, mut histograms) = (Points::new(), Points::new(), Points::new());
        let registry = &self.0.registry;
        registry.visit_counters(|key, counter| {
            let value = Value::AsInt(i64::try_from(counter.load(Relaxed)).unwrap_or(i64::MAX));
            add(&mut sums, key, number(key, value, span.since_ns, span.now_ns));
        });
        registry.visit_gauges(|key, gauge| {
            // A gauge is of now alone.
            let value = Value::AsDouble(f64::from_bits(gauge.load(Relaxed)));
            add(&mut gauges, key, number(key, value, 0, span.now_ns));
        });
        registry.visit_histograms(|key, seen| add(&mut histograms, key, histogram(key, seen, span)));
        let aggregation_temporality = AggregationTemporality::Cumulative.into();
        let sums = self.metrics(sums, points_max, |data_points| {
            metric::Data::Sum(pb::Sum { data_points, aggregation_temporality, is_monotonic: true })
        });
        let gauges =
            self.metrics(gauges, points_max, |data_points| metric::Data::Gauge(pb::Gauge { data_points }));
        let histograms = self.metrics(histograms, points_max, |data_points| {
            metric::Data::Histogram(pb::Histogram { data_points, aggregation_temporality })
        });
        parts(sums.chain(gauges).chain(histograms), points_max)
    }

    /// Metrics of at most `points_max` points, and how many each has.
    fn metrics<P: Clone>(
        &self,
        points: Points<P>,
        points_max: usize,
        data: impl Fn(Vec<P>) -> metric::Data,
    ) -> impl Iterator<Item = (usize, Metric)> {
        let mut metrics = Vec::new();
        let described = self.0.described.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, points) in points {
            let (unit, meaning) = described.get(&name).cloned().unwrap_or_default();
            for points in points.chunks(points_max) {
                let metric = Metric {
                    name: name.clone(),
                    description: meaning.to_string(),
                    unit: unit.to_owned(),
                    data: Some(data(points.to_vec())),
                    ..Metric::default()
                };
                metrics.push((points.len(), metric));
            }
        }
        metrics.into_iter()
    }
}

fn add<P>(points: &mut Points<P>, key: &Key, point: P) {
    points.entry(key.name().to_owned()).or_default().push(point);
}

/// What fits into one message goes together.
fn parts(metrics: impl Iterator<Item = (usize, Metric)>, points_max: usize) -> Vec<Vec<Metric>> {
    let (mut parts, mut room) = (vec![Vec::new()], points_max);
    for (points, metric) in metrics {
        if points > room {
            parts.push(Vec::new());
            room = points_max;
        }
        room -= points;
        parts.last_mut().expect("there is one").push(metric);
    }
    parts
}

fn number(key: &Key, value: Value, start_time_unix_nano: u64, time_unix_nano: u64) -> NumberDataPoint {
    let attributes = attributes(key);
    NumberDataPoint {
        attributes,
        start_time_unix_nano,
        time_unix_nano,
        value: Some(value),
        ..NumberDataPoint::default()
    }
}

fn histogram(key: &Key, seen: &Buckets, span: Span) -> HistogramDataPoint {
    let bucket_counts: Vec<_> = seen.counts.iter().map(|count| count.load(Relaxed)).collect();
    HistogramDataPoint {
        attributes: attributes(key),
        start_time_unix_nano: span.since_ns,
        time_unix_nano: span.now_ns,
        count: bucket_counts.iter().sum(),
        sum: Some(f64::from_bits(seen.sum.load(Relaxed))),
        bucket_counts,
        explicit_bounds: seen.bounds.to_vec(),
        ..HistogramDataPoint::default()
    }
}

fn attributes(key: &Key) -> Vec<KeyValue> {
    key.labels().map(|label| attribute(label.key(), label.value())).collect()
}

/// A name and a text.
pub(crate) fn attribute(name: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: name.to_owned(), value: Some(value), ..KeyValue::default() }
}
