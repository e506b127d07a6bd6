//! A collector of our own, for the tests of every program that exports: it takes what is sent, finds numbers in it, and
//! notes whatever OTLP does not allow.

#![allow(clippy::unwrap_used, dead_code)]

use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, HistogramDataPoint, Metric, NumberDataPoint, metric::Data,
    number_data_point::Value,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

/// Labels of a point, or attributes of a resource.
pub type Labels = BTreeMap<String, String>;

/// What a collector was told, and how it behaves. Cheap to clone.
#[derive(Clone, Default)]
pub struct Collector {
    book: Arc<Mutex<Book>>,
    /// Answers that it takes only a part.
    pub takes_some: Arc<Mutex<bool>>,
}

#[derive(Default)]
struct Book {
    /// The newest of every series, by source, name and labels.
    series: BTreeMap<(Labels, String, Labels), Point>,
    /// What was said of a name.
    described: BTreeMap<String, (String, String)>,
    exports: usize,
    wrongs: BTreeSet<String>,
}

/// One series' newest point.
#[derive(Clone, Debug, PartialEq)]
pub enum Point {
    Counter { since_ns: u64, now_ns: u64, value: i64 },
    Gauge { now_ns: u64, value: f64 },
    Histogram { since_ns: u64, now_ns: u64, counts: Vec<u64>, bounds: Vec<f64>, sum: f64 },
}

/// A collector that listens, until it is dropped or stopped.
pub struct Listening {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Listening {
    /// Gone, connections too.
    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
    }
}

impl Collector {
    /// Listens at an address; port 0 is any.
    pub async fn listen(&self, at: SocketAddr, tls: Option<ServerTlsConfig>) -> (SocketAddr, Listening) {
        let listener = TcpListener::bind(at).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let mut server = Server::builder();
        if let Some(tls) = tls {
            server = server.tls_config(tls).unwrap();
        }
        let served = server
            .add_service(MetricsServiceServer::new(self.clone()))
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async {
                let _ = stopped.await;
            });
        (address, Listening { stop, task: tokio::spawn(async { served.await.unwrap() }) })
    }

    /// The newest points of a name whose labels, or whose source's attributes, have `label`.
    pub fn points(&self, name: &str, label: (&str, &str)) -> Vec<Point> {
        let book = self.book.lock().unwrap();
        let has = |labels: &Labels| labels.get(label.0).is_some_and(|value| value == label.1);
        let named =
            book.series.iter().filter(|((source, n, labels), _)| n == name && (has(source) || has(labels)));
        named.map(|(_, point)| point.clone()).collect()
    }

    /// A counter, summed over its series; None where there is none.
    pub fn counter(&self, name: &str, label: (&str, &str)) -> Option<i64> {
        let values = self.points(name, label).into_iter().map(|point| match point {
            Point::Counter { value, .. } => value,
            other => panic!("{name} is {other:?}"),
        });
        values.reduce(|a, b| a + b)
    }

    /// A gauge of one series.
    pub fn gauge(&self, name: &str, label: (&str, &str)) -> Option<f64> {
        match self.points(name, label)[..] {
            [] => None,
            [Point::Gauge { value, .. }] => Some(value),
            ref other => panic!("{name} is {other:?}"),
        }
    }

    /// Counts of the buckets and sum of a histogram of one series.
    pub fn histogram(&self, name: &str, label: (&str, &str)) -> Option<(Vec<u64>, Vec<f64>, f64)> {
        match &self.points(name, label)[..] {
            [] => None,
            [Point::Histogram { counts, bounds, sum, .. }] => Some((counts.clone(), bounds.clone(), *sum)),
            other => panic!("{name} is {other:?}"),
        }
    }

    /// Unit and meaning of a name.
    pub fn described(&self, name: &str) -> (String, String) {
        self.book.lock().unwrap().described.get(name).cloned().unwrap_or_default()
    }

    /// Those who told it something.
    pub fn sources(&self) -> BTreeSet<Labels> {
        self.book.lock().unwrap().series.keys().map(|(source, ..)| source.clone()).collect()
    }

    /// The names that it heard.
    pub fn names(&self) -> BTreeSet<String> {
        self.book.lock().unwrap().series.keys().map(|(_, name, _)| name.clone()).collect()
    }

    pub fn exports(&self) -> usize {
        self.book.lock().unwrap().exports
    }

    /// What OTLP does not allow.
    pub fn wrongs(&self) -> Vec<String> {
        self.book.lock().unwrap().wrongs.iter().cloned().collect()
    }

    /// Waits until something is found.
    pub async fn until<T>(&self, what: &str, found: impl Fn(&Self) -> Option<T>) -> T {
        for _ in 0..1000 {
            if let Some(found) = found(self) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{what}: not within 20 s; {:#?}", self.book.lock().unwrap().series)
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let mut book = self.book.lock().unwrap();
        book.exports += 1;
        for of_source in request.into_inner().resource_metrics {
            let source = labels(&of_source.resource.unwrap_or_default().attributes);
            for metric in of_source.scope_metrics.into_iter().flat_map(|scope| scope.metrics) {
                book.take(&source, metric);
            }
        }
        let partial_success = self.takes_some.lock().unwrap().then(|| ExportMetricsPartialSuccess {
            rejected_data_points: 1,
            error_message: "one too many".to_owned(),
        });
        Ok(Response::new(ExportMetricsServiceResponse { partial_success }))
    }
}

impl Book {
    fn take(&mut self, source: &Labels, metric: Metric) {
        self.described.insert(metric.name.clone(), (metric.unit, metric.description));
        let name = metric.name;
        let cumulative = AggregationTemporality::Cumulative as i32;
        match metric.data {
            Some(Data::Sum(sum)) => {
                if !sum.is_monotonic || sum.aggregation_temporality != cumulative {
                    self.wrongs.insert(format!("{name} is not monotonic and cumulative"));
                }
                sum.data_points.into_iter().for_each(|point| self.count(source, &name, &point));
            }
            Some(Data::Gauge(gauge)) => {
                for point in gauge.data_points {
                    let Some(Value::AsDouble(value)) = point.value else { panic!("{name}: {point:?}") };
                    let point_now = Point::Gauge { now_ns: point.time_unix_nano, value };
                    self.series.insert((source.clone(), name.clone(), labels(&point.attributes)), point_now);
                }
            }
            Some(Data::Histogram(histogram)) => {
                if histogram.aggregation_temporality != cumulative {
                    self.wrongs.insert(format!("{name} is not cumulative"));
                }
                histogram.data_points.into_iter().for_each(|point| self.sort(source, &name, point));
            }
            other => panic!("{name}: {other:?}"),
        }
    }

    fn count(&mut self, source: &Labels, name: &str, point: &NumberDataPoint) {
        let Some(Value::AsInt(value)) = point.value else { panic!("{name}: {point:?}") };
        let (since_ns, now_ns) = (point.start_time_unix_nano, point.time_unix_nano);
        let key = (source.clone(), name.to_owned(), labels(&point.attributes));
        let before = self.series.insert(key, Point::Counter { since_ns, now_ns, value });
        if let Some(Point::Counter { since_ns: begun, now_ns: then, value: had }) = before {
            self.went_on(name, (begun, then), (since_ns, now_ns), had <= value);
        }
        self.began(name, since_ns, now_ns);
    }

    fn sort(&mut self, source: &Labels, name: &str, point: HistogramDataPoint) {
        let HistogramDataPoint { bucket_counts: counts, explicit_bounds: bounds, .. } = point;
        let (since_ns, now_ns, sum) = (point.start_time_unix_nano, point.time_unix_nano, point.sum.unwrap());
        if counts.len() != bounds.len() + 1
            || counts.iter().sum::<u64>() != point.count
            || !bounds.is_sorted()
        {
            self.wrongs.insert(format!("{name}: {} in {counts:?} by {bounds:?}", point.count));
        }
        let key = (source.clone(), name.to_owned(), labels(&point.attributes));
        let now = Point::Histogram { since_ns, now_ns, counts: counts.clone(), bounds: bounds.clone(), sum };
        let before = self.series.insert(key, now);
        if let Some(Point::Histogram { since_ns: begun, now_ns: then, counts: had, bounds: by, .. }) = before
        {
            let grew = had.iter().zip(&counts).all(|(had, has)| had <= has) && by == bounds;
            self.went_on(name, (begun, then), (since_ns, now_ns), grew);
        }
        self.began(name, since_ns, now_ns);
    }

    fn began(&mut self, name: &str, since_ns: u64, now_ns: u64) {
        if since_ns == 0 || since_ns > now_ns {
            self.wrongs.insert(format!("{name} is of {since_ns} to {now_ns}"));
        }
    }

    /// A series that begins anew says so by its time; one that goes on has the same, and never has less.
    fn went_on(&mut self, name: &str, before: (u64, u64), now: (u64, u64), grew: bool) {
        if before.0 != now.0 {
            self.wrongs.insert(format!("{name} began at {}, and then at {}", before.0, now.0));
        }
        if before.1 > now.1 || !grew {
            self.wrongs.insert(format!("{name} went back"));
        }
    }
}

fn labels(attributes: &[KeyValue]) -> Labels {
    let text = |attribute: &KeyValue| match attribute.value.clone()?.value? {
        any_value::Value::StringValue(text) => Some((attribute.key.clone(), text)),
        _ => None,
    };
    attributes.iter().filter_map(text).collect()
}
