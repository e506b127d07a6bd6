//! Meters sent to a collector by OTLP over gRPC (<https://opentelemetry.io/docs/specs/otlp/>), every so many seconds.
//!
//! Every export tells everything since the process began, so that one that is lost loses nothing but its moment: a
//! collector that comes back knows all after the next. Nothing is kept for it meanwhile. One that is away is asked less and
//! less often, and said to be away once.

use crate::counted::{Counted, Span, attribute};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use std::error::Error;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

/// Between two exports, where nothing else is said, s.
pub const EVERY_S_DEFAULT: u64 = 10;
/// What may be said, s.
pub const EVERY_S: RangeInclusive<u64> = 1..=3600;
/// A message takes at most this long.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The last export takes at most this long: the process wants to end.
const LAST: Duration = Duration::from_secs(2);
/// A collector that is away is asked at least this often, or as often as it is told.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Points in a message: collectors read 4 MiB, and a histogram's point takes half a KiB.
const POINTS_MAX: usize = 4000;

/// Where to export and how often, as it was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `http://host:port` or `https://host:port`.
    pub endpoint: String,
    /// Between two exports, s.
    pub every_s: u64,
    /// PEM file of the authority that signed the collector's certificate, with https.
    pub ca_file: Option<PathBuf>,
}

/// One of [`Settings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// The endpoint.
    Endpoint,
    /// The seconds.
    EveryS,
    /// The certificate.
    CaFile,
}

/// A setting that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Which.
    pub setting: Setting,
    /// What is accepted.
    pub accepted: String,
}

impl Settings {
    /// None without an endpoint: then nothing is exported.
    pub fn given(endpoint: Option<String>, every_s: Option<u64>, ca_file: Option<PathBuf>) -> Option<Self> {
        let endpoint = endpoint.filter(|endpoint| !endpoint.is_empty())?;
        Some(Self { endpoint, every_s: every_s.unwrap_or(EVERY_S_DEFAULT), ca_file })
    }

    /// Finds what is wrong without a look at the disk.
    pub fn check(&self) -> Result<(), Wrong> {
        let endpoint = self.parsed()?;
        if !EVERY_S.contains(&self.every_s) {
            let accepted = format!("{} to {} seconds", EVERY_S.start(), EVERY_S.end());
            return Err(Wrong { setting: Setting::EveryS, accepted });
        }
        let accepted = match (endpoint.uri().scheme_str() == Some("https"), &self.ca_file) {
            (true, None) => "a PEM file of the collector's authority, with https",
            (false, Some(_)) => "none, with http",
            _ => return Ok(()),
        };
        Err(Wrong { setting: Setting::CaFile, accepted: accepted.to_owned() })
    }

    /// The collector. Reads its authority's certificate.
    pub fn collector(&self) -> Result<Collector, Wrong> {
        self.check()?;
        let mut endpoint = self.parsed()?.connect_timeout(TIMEOUT).timeout(TIMEOUT);
        if let Some(file) = &self.ca_file {
            let wrong = |accepted: String| Wrong { setting: Setting::CaFile, accepted };
            let pem = std::fs::read(file).map_err(|e| wrong(format!("a file that can be read ({e})")))?;
            // One without a certificate would be taken, and trust nobody.
            if !String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
                return Err(wrong("a PEM file with a certificate".to_owned()));
            }
            let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
            endpoint = endpoint
                .tls_config(tls)
                .map_err(|e| wrong(format!("a PEM file with a certificate ({})", whole(&e))))?;
        }
        Ok(Collector { endpoint, every: Duration::from_secs(self.every_s) })
    }

    fn parsed(&self) -> Result<Endpoint, Wrong> {
        let fine = |endpoint: &Endpoint| {
            let uri = endpoint.uri();
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.port_u16().is_some_and(|port| port > 0)
                && uri.host().is_some_and(|host| !host.is_empty())
                && uri.path_and_query().is_none_or(|path| path.as_str() == "/")
                && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
        };
        Endpoint::from_shared(self.endpoint.clone()).ok().filter(fine).ok_or_else(|| {
            let accepted = "http://host:port or https://host:port of OTLP over gRPC, without a path";
            Wrong { setting: Setting::Endpoint, accepted: accepted.to_owned() }
        })
    }
}

/// A collector that can be sent to.
#[derive(Clone, Debug)]
pub struct Collector {
    endpoint: Endpoint,
    every: Duration,
}

/// Who tells it; instance, service and namespace together are of one process alone.
#[derive(Clone, Debug)]
pub struct Source {
    /// The program's name.
    pub service: &'static str,
    /// Its version.
    pub version: &'static str,
    /// What it is a part of.
    pub namespace: Option<String>,
    /// Which of them it is; the same after a restart.
    pub instance: String,
}

impl Source {
    /// <https://opentelemetry.io/docs/specs/semconv/resource/service/>
    fn resource(&self) -> Resource {
        let of = |name, value: &str| Some(attribute(name, value));
        let attributes = [
            of("service.name", self.service),
            of("service.version", self.version),
            of("service.instance.id", &self.instance),
            self.namespace.as_deref().and_then(|namespace| of("service.namespace", namespace)),
        ];
        Resource { attributes: attributes.into_iter().flatten().collect(), ..Resource::default() }
    }
}

/// Sends what was counted.
pub(crate) struct Exporter {
    counted: Counted,
    collector: Collector,
    source: Source,
    span: Span,
    /// Exports in a row that came to nothing.
    failures: u32,
    /// What was last said of the collector.
    said: Said,
}

/// What can be said of a collector.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    Takes,
    /// Of some points it wants nothing.
    TakesSome,
    Away,
}

impl Exporter {
    pub(crate) fn new(counted: Counted, collector: Collector, source: Source) -> Self {
        let now_ns = now_ns();
        let span = Span { since_ns: now_ns, now_ns };
        Self { counted, collector, source, span, failures: 0, said: Said::Takes }
    }

    /// Exports until `stop`, and once more then. An export that `stop` finds under way is given up: the last tells it all.
    pub(crate) async fn run(mut self, mut look: impl FnMut(), stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let mut client = self.client();
        tracing::info!(collector = %self.collector.endpoint.uri(), every = ?self.collector.every, "meters are sent");
        loop {
            look();
            let next = Instant::now();
            let exported_and_paused = async {
                self.export(&mut client).await;
                tokio::time::sleep_until(next + self.pause()).await;
            };
            tokio::select! {
                () = exported_and_paused => {}
                () = &mut stop => break,
            }
        }
        look();
        if tokio::time::timeout(LAST, self.export(&mut client)).await.is_err() {
            tracing::info!(collector = %self.collector.endpoint.uri(), "the last of the meters was not sent");
        }
    }

    fn client(&self) -> MetricsServiceClient<Channel> {
        MetricsServiceClient::new(self.collector.endpoint.connect_lazy())
    }

    /// From the begin of an export to that of the next: twice as long after each that fails, but for the first.
    fn pause(&self) -> Duration {
        let every = self.collector.every;
        let doubled = every.saturating_mul(1 << self.failures.saturating_sub(1).min(16));
        doubled.min(PAUSE_MAX.max(every))
    }

    async fn export(&mut self, client: &mut MetricsServiceClient<Channel>) {
        // A clock that was set back does not take the counters back with it.
        self.span.now_ns = self.span.now_ns.max(now_ns());
        let (said, why) = match self.send(client).await {
            Ok(None) => (Said::Takes, String::new()),
            Ok(Some(why)) => (Said::TakesSome, why),
            Err(why) => (Said::Away, why),
        };
        self.failures = if said == Said::Away { self.failures.saturating_add(1) } else { 0 };
        if said == Said::Away {
            // A connection that is no more can look whole for a quarter of an hour.
            *client = self.client();
        }
        let collector = self.collector.endpoint.uri();
        match (self.said == said, said) {
            (true, _) => {}
            (false, Said::Takes) => tracing::info!(%collector, "meters are sent again"),
            (false, Said::TakesSome) => {
                tracing::warn!(%collector, why, "the collector does not take all meters")
            }
            (false, Said::Away) => tracing::warn!(%collector, why, "meters cannot be sent; trying on"),
        }
        self.said = said;
    }

    /// Sends everything; answers why some of it was not wanted, or why it did not arrive.
    async fn send(&self, client: &mut MetricsServiceClient<Channel>) -> Result<Option<String>, String> {
        let mut unwanted = None;
        for metrics in self.counted.told(self.span, POINTS_MAX) {
            let sent = tokio::time::timeout(TIMEOUT, client.export(self.request(metrics))).await;
            let answer =
                sent.map_err(|_| format!("no answer within {TIMEOUT:?}"))?.map_err(|e| status(&e))?;
            let partly = answer.into_inner().partial_success.filter(|partly| partly.rejected_data_points > 0);
            unwanted = partly
                .map(|partly| format!("{} points: {}", partly.rejected_data_points, partly.error_message))
                .or(unwanted);
        }
        Ok(unwanted)
    }

    fn request(&self, metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
        let scope = InstrumentationScope {
            name: "millpool".to_owned(),
            version: self.source.version.to_owned(),
            ..InstrumentationScope::default()
        };
        let scope_metrics = ScopeMetrics { scope: Some(scope), metrics, ..ScopeMetrics::default() };
        let resource_metrics = ResourceMetrics {
            resource: Some(self.source.resource()),
            scope_metrics: vec![scope_metrics],
            ..ResourceMetrics::default()
        };
        ExportMetricsServiceRequest { resource_metrics: vec![resource_metrics] }
    }
}

/// What a status says, and what it comes from: by itself it says no more than "transport error".
fn status(status: &Status) -> String {
    let cause = status.source().map(|cause| format!(": {}", whole(cause))).unwrap_or_default();
    format!("{:?}: {}{cause}", status.code(), status.message())
}

/// An error with its sources.
fn whole(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", whole(source)),
        None => error.to_string(),
    }
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
