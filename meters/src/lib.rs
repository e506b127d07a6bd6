//! How Millpool's programs show what they count and time: to who scrapes it (Prometheus), and, where one is named, to a
//! collector of OpenTelemetry ([`otlp`]). Both are told the same. What there is to count stands in each program, as a table
//! of [`Meter`]s.
//!
//! [`install`] begins to count for the whole process; [`Shown::begin`] keeps it going, and [`Showing::end`] tells the
//! collector the last of it.

mod counted;
pub mod otlp;

pub use metrics_exporter_prometheus::PrometheusHandle;

use counted::Counted;
use metrics::{Recorder, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use metrics_util::layers::FanoutBuilder;
use otlp::{Collector, Exporter, Source};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// What a meter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, and begins at 0 with the process.
    Counter,
    /// The value of now.
    Gauge,
    /// How often which size was seen, in buckets, so that several processes' can be added up.
    Histogram,
}

/// Name, kind, unit, meaning (with its labels).
pub type Meter = (&'static str, Kind, Unit, &'static str);

/// Upper ends of the buckets of what is timed, seconds: from an fsync to a snapshot, each about twice the last.
const SECONDS: [f64; 18] = [
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0,
    60.0,
];
/// How the names of what is timed end.
const TIMED: &str = "_seconds";
/// Upper ends of the buckets of what is counted.
const COUNTS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// How often what was timed is sorted into Prometheus' buckets: what nobody scrapes would be kept one by one.
const UPKEEP: Duration = Duration::from_secs(5);

/// Upper ends of a histogram's buckets, rising.
fn bounds(name: &str) -> &'static [f64] {
    if name.ends_with(TIMED) { &SECONDS } else { &COUNTS }
}

/// Two cannot count for one process.
#[derive(Debug, thiserror::Error)]
#[error("something else counts for this process already")]
pub struct Again;

/// What was counted, for who wants to see it.
pub struct Shown {
    /// Renders it for who scrapes.
    pub prometheus: PrometheusHandle,
    exporter: Option<Exporter>,
}

/// Begins to count, for the whole process. Fails the second time.
pub fn install(meters: &[Meter], collector: Option<(Collector, Source)>) -> Result<Shown, Again> {
    let (recorder, shown) = recorder(collector);
    metrics::set_global_recorder(recorder).map_err(|_| Again)?;
    describe(meters);
    Ok(shown)
}

/// What counts, not yet for anybody.
fn recorder(collector: Option<(Collector, Source)>) -> (Box<dyn Recorder + Sync>, Shown) {
    let by_default = PrometheusBuilder::new().set_buckets(&COUNTS);
    let timed = by_default.and_then(|b| b.set_buckets_for_metric(Matcher::Suffix(TIMED.into()), &SECONDS));
    let recorder = timed.expect("no histogram is without buckets").build_recorder();
    let prometheus = recorder.handle();
    let Some((collector, source)) = collector else {
        return (Box::new(recorder), Shown { prometheus, exporter: None });
    };
    let counted = Counted::default();
    let both = FanoutBuilder::default().add_recorder(recorder).add_recorder(counted.clone()).build();
    (Box::new(both), Shown { prometheus, exporter: Some(Exporter::new(counted, collector, source)) })
}

fn describe(meters: &[Meter]) {
    for &(name, kind, unit, meaning) in meters {
        match kind {
            Kind::Counter => metrics::describe_counter!(name, unit, meaning),
            Kind::Gauge => metrics::describe_gauge!(name, unit, meaning),
            Kind::Histogram => metrics::describe_histogram!(name, unit, meaning),
        }
    }
}

impl Shown {
    /// Shows it until [`Showing::end`]. `look` sets those gauges that are cheaper to reckon when somebody looks than at
    /// every change; it is called before every export.
    pub fn begin(self, look: Box<dyn FnMut() + Send>) -> Showing {
        let (end, ended) = oneshot::channel::<()>();
        let Self { prometheus, exporter } = self;
        let task = tokio::spawn(async move {
            let stop = async {
                let _ = ended.await;
            };
            match exporter {
                Some(exporter) => tokio::select! {
                    () = keep(prometheus) => {}
                    () = exporter.run(look, stop) => {}
                },
                None => tokio::select! {
                    () = keep(prometheus) => {}
                    () = stop => {}
                },
            }
        });
        Showing { end, task }
    }
}

/// For ever.
async fn keep(prometheus: PrometheusHandle) {
    loop {
        tokio::time::sleep(UPKEEP).await;
        prometheus.run_upkeep();
    }
}

/// What was counted is being shown.
pub struct Showing {
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Showing {
    /// Tells the collector the last of it, which takes two seconds at most, and ends.
    pub async fn end(self) {
        let _ = self.end.send(());
        let _ = self.task.await;
    }
}
