//! Exports as a collector receives them, and fails to.

use super::*;
use crate::{Kind, Shown};
use collector::Collector as Counterpart;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Identity, ServerTlsConfig};

#[path = "../../tests/support/collector.rs"]
mod collector;

const BY_ANNA: (&str, &str) = ("by", "anna");
const EVERY: Duration = Duration::from_millis(50);

fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn settings(endpoint: &str) -> Settings {
    Settings::given(Some(endpoint.to_owned()), None, None).unwrap()
}

fn source() -> Source {
    let namespace = Some("valley".to_owned());
    Source { service: "mill", version: "1.2.3", namespace, instance: "7".to_owned() }
}

/// Counts for one test alone, and exports faster than anybody may set.
fn counting(settings: &Settings) -> (Box<dyn metrics::Recorder + Sync>, Shown) {
    let collector = Collector { every: EVERY, ..settings.collector().unwrap() };
    crate::recorder(Some((collector, source())))
}

fn count(recorder: &(dyn metrics::Recorder + Sync)) {
    metrics::with_local_recorder(recorder, || {
        metrics::counter!("made_total", "by" => "anna").increment(3);
        metrics::counter!("made_total", "by" => "bo").increment(1);
        metrics::gauge!("waiting", "by" => "anna").set(2.5);
        for seconds in [0.000_05, 0.1, 0.15, 700.0, f64::NAN] {
            metrics::histogram!("took_seconds", "by" => "anna").record(seconds);
        }
        metrics::histogram!("group_entries", "by" => "anna").record(3.0);
    });
}

#[tokio::test]
async fn a_collector_is_told_what_who_scrapes_reads() {
    let collector = Counterpart::default();
    let (address, _listening) = collector.listen(any(), None).await;
    let (recorder, shown) = counting(&settings(&format!("http://{address}")));
    metrics::with_local_recorder(&recorder, || {
        crate::describe(&[
            ("made_total", Kind::Counter, metrics::Unit::Count, "What was made, by whom"),
            ("waiting", Kind::Gauge, metrics::Unit::Bytes, "What waits"),
            ("took_seconds", Kind::Histogram, metrics::Unit::Seconds, "How long it took"),
        ]);
    });
    count(&recorder);
    let prometheus = shown.prometheus.clone();
    let showing = shown.begin(Box::new(|| {}));
    collector.until("an export", |c| c.counter("made_total", BY_ANNA)).await;

    assert_eq!(collector.counter("made_total", BY_ANNA), Some(3));
    assert_eq!(collector.counter("made_total", ("by", "bo")), Some(1));
    assert_eq!(collector.gauge("waiting", BY_ANNA), Some(2.5));
    let (counts, bounds, sum) = collector.histogram("took_seconds", BY_ANNA).unwrap();
    assert_eq!(bounds, crate::SECONDS);
    assert_eq!(sum, 0.000_05 + 0.1 + 0.15 + 700.0);
    let at = |bound: f64| counts[bounds.iter().position(|b| *b == bound).unwrap()];
    // A bound is in its bucket, as in Prometheus'; what is above all is in the last.
    assert_eq!((at(0.0001), at(0.1), at(0.2), counts[bounds.len()]), (1, 1, 1, 1), "{counts:?}");
    assert_eq!(counts.iter().sum::<u64>(), 4);
    let (counts, bounds, _) = collector.histogram("group_entries", BY_ANNA).unwrap();
    assert_eq!((bounds.as_slice(), counts[2]), (&crate::COUNTS[..], 1));

    assert_eq!(collector.described("made_total"), (String::new(), "What was made, by whom".to_owned()));
    assert_eq!(collector.described("waiting").0, "By");
    assert_eq!(collector.described("took_seconds"), ("s".to_owned(), "How long it took".to_owned()));
    let attributes = [
        ("service.name", "mill"),
        ("service.version", "1.2.3"),
        ("service.instance.id", "7"),
        ("service.namespace", "valley"),
    ];
    let attributes = attributes.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(collector.sources().into_iter().collect::<Vec<_>>(), [attributes.into()]);
    let text = prometheus.render();
    for line in [
        "made_total{by=\"anna\"} 3",
        "waiting{by=\"anna\"} 2.5",
        "took_seconds_bucket{by=\"anna\",le=\"0.1\"} 2",
        "group_entries_bucket{by=\"anna\",le=\"4\"} 1",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    showing.end().await;
    assert_eq!(collector.wrongs(), Vec::<String>::new());
}

#[tokio::test]
async fn a_collector_that_was_away_knows_all_after_the_next_export() {
    // Nobody listens there yet.
    let address = TcpListener::bind(any()).await.unwrap().local_addr().unwrap();
    let (recorder, shown) = counting(&settings(&format!("http://{address}")));
    count(&recorder);
    let looks = Arc::new(AtomicU32::new(0));
    let looked = looks.clone();
    let showing = shown.begin(Box::new(move || {
        looked.fetch_add(1, Ordering::Relaxed);
    }));
    let collector = Counterpart::default();
    collector.until("some tries", |_| (looks.load(Ordering::Relaxed) > 2).then_some(())).await;

    let mut listening = collector.listen(address, None).await.1;
    collector.until("it is told", |c| c.counter("made_total", BY_ANNA).filter(|n| *n == 3)).await;
    for made in [13, 23] {
        listening.stop().await;
        metrics::with_local_recorder(&recorder, || {
            metrics::counter!("made_total", "by" => "anna").increment(10);
            metrics::histogram!("took_seconds", "by" => "anna").record(0.1);
        });
        // It misses more than one export.
        let so_far = looks.load(Ordering::Relaxed);
        collector.until("more tries", |_| (looks.load(Ordering::Relaxed) > so_far + 2).then_some(())).await;
        listening = collector.listen(address, None).await.1;
        collector.until("it knows all", |c| c.counter("made_total", BY_ANNA).filter(|n| *n == made)).await;
    }
    assert_eq!(collector.histogram("took_seconds", BY_ANNA).unwrap().0.iter().sum::<u64>(), 6);
    showing.end().await;
    assert_eq!(collector.wrongs(), Vec::<String>::new());
}

#[tokio::test]
async fn the_last_export_tells_what_came_last() {
    let collector = Counterpart::default();
    let (address, _listening) = collector.listen(any(), None).await;
    let (recorder, mut shown) = counting(&settings(&format!("http://{address}")));
    shown.exporter.as_mut().unwrap().collector.every = Duration::from_secs(3600);
    count(&recorder);
    let looked = metrics::with_local_recorder(&recorder, || metrics::gauge!("looked", "by" => "anna"));
    let showing = shown.begin(Box::new(move || looked.increment(1.0)));
    collector.until("the first", |c| c.counter("made_total", BY_ANNA)).await;
    count(&recorder);
    showing.end().await;
    assert_eq!(collector.counter("made_total", BY_ANNA), Some(6));
    assert_eq!(collector.gauge("looked", BY_ANNA), Some(2.0));
    assert_eq!(collector.exports(), 2);
}

#[tokio::test]
async fn a_collector_that_says_nothing_does_not_keep_a_process_from_ending() {
    let silent = TcpListener::bind(any()).await.unwrap();
    let (_recorder, shown) = counting(&settings(&format!("http://{}", silent.local_addr().unwrap())));
    let showing = shown.begin(Box::new(|| {}));
    let (_held, _) = silent.accept().await.unwrap();
    let begun = Instant::now();
    showing.end().await;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

/// A way to a collector whose first connection goes dead without a word, as through a router that forgot it.
async fn half_dead_way(to: SocketAddr, dead: CancellationToken) -> SocketAddr {
    let listener = TcpListener::bind(any()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut first = Some(dead);
        while let Ok((mut from, _)) = listener.accept().await {
            let dead = first.take().unwrap_or_default();
            let mut to = TcpStream::connect(to).await.unwrap();
            tokio::spawn(async move {
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut from, &mut to) => {}
                    () = dead.cancelled() => std::future::pending().await,
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_connection_that_is_dead_and_does_not_say_so_is_given_up() {
    let collector = Counterpart::default();
    let (address, _listening) = collector.listen(any(), None).await;
    let dead = CancellationToken::new();
    let way = half_dead_way(address, dead.clone()).await;
    let (recorder, shown) = counting(&settings(&format!("http://{way}")));
    count(&recorder);
    let _showing = shown.begin(Box::new(|| {}));
    collector.until("it is told", |c| c.counter("made_total", BY_ANNA)).await;
    dead.cancel();
    count(&recorder);
    collector.until("it is told again", |c| c.counter("made_total", BY_ANNA).filter(|n| *n == 6)).await;
}

#[tokio::test]
async fn what_is_away_is_asked_less_often_and_what_is_refused_is_no_reason_for_it() {
    let address = TcpListener::bind(any()).await.unwrap().local_addr().unwrap();
    let (_recorder, shown) = counting(&settings(&format!("http://{address}")));
    let mut exporter = shown.exporter.unwrap();
    exporter.collector.every = Duration::from_secs(10);
    let mut client = exporter.client();
    let mut pauses = Vec::new();
    for _ in 0..6 {
        exporter.export(&mut client).await;
        pauses.push(exporter.pause().as_secs());
    }
    assert_eq!(pauses, [10, 20, 40, 60, 60, 60]);
    assert!(exporter.said == Said::Away);
    exporter.failures = u32::MAX;
    assert_eq!(exporter.pause(), PAUSE_MAX);
    exporter.collector.every = Duration::from_secs(600);
    assert_eq!(exporter.pause().as_secs(), 600);

    let collector = Counterpart::default();
    let _listening = collector.listen(address, None).await;
    *collector.takes_some.lock().unwrap() = true;
    exporter.export(&mut client).await;
    assert!(exporter.said == Said::TakesSome && exporter.failures == 0);
    *collector.takes_some.lock().unwrap() = false;
    exporter.export(&mut client).await;
    assert!(exporter.said == Said::Takes);
}

#[test]
fn what_does_not_fit_into_a_message_goes_in_several_and_nothing_goes_twice() {
    let (recorder, shown) = counting(&settings("http://localhost:4317"));
    metrics::with_local_recorder(&recorder, || {
        for at in 0..25 {
            metrics::counter!("made_total", "at" => at.to_string()).increment(at);
            metrics::histogram!("took_seconds", "at" => at.to_string()).record(1.0);
        }
        metrics::gauge!("waiting").set(1.0);
    });
    let exporter = shown.exporter.unwrap();
    let parts = exporter.counted.told(exporter.span, 10);
    let points = |metric: &Metric| match metric.data.as_ref().unwrap() {
        Data::Sum(sum) => sum.data_points.len(),
        Data::Gauge(gauge) => gauge.data_points.len(),
        Data::Histogram(histogram) => histogram.data_points.len(),
        other => panic!("{other:?}"),
    };
    let sizes: Vec<usize> = parts.iter().map(|part| part.iter().map(points).sum()).collect();
    assert!(sizes.iter().all(|size| (1..=10).contains(size)), "{sizes:?}");
    let of =
        |name: &str| parts.iter().flatten().filter(|metric| metric.name == name).map(points).sum::<usize>();
    assert_eq!((of("made_total"), of("took_seconds"), of("waiting")), (25, 25, 1));
    assert_eq!(exporter.counted.told(exporter.span, POINTS_MAX).len(), 1);
}

#[tokio::test]
async fn a_collector_behind_tls_is_told_only_if_its_authority_is_the_one_named() {
    let made = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (own, other) = (made(), made());
    let identity = Identity::from_pem(own.cert.pem(), own.signing_key.serialize_pem());
    let collector = Counterpart::default();
    let (address, _listening) =
        collector.listen(any(), Some(ServerTlsConfig::new().identity(identity))).await;
    let folder = tempfile::tempdir().unwrap();
    let sends = async |pem: String| {
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, pem).unwrap();
        let endpoint = format!("https://localhost:{}", address.port());
        let settings = Settings { ca_file: Some(file), ..settings(&endpoint) };
        let (recorder, shown) = counting(&settings);
        count(&recorder);
        let mut exporter = shown.exporter.unwrap();
        let mut client = exporter.client();
        exporter.export(&mut client).await;
        exporter.said == Said::Takes
    };
    assert!(!sends(other.cert.pem()).await);
    assert_eq!(collector.exports(), 0);
    assert!(sends(own.cert.pem()).await);
    assert_eq!(collector.counter("made_total", BY_ANNA), Some(3));
}

#[test]
fn what_is_wrong_is_named_with_what_is_accepted() {
    for endpoint in ["http://127.0.0.1:4317", "http://collector.local:4317/", "http://[::1]:4317"] {
        assert_eq!(settings(endpoint).check(), Ok(()), "{endpoint}");
    }
    for endpoint in [
        "127.0.0.1:4317",
        "http://collector",
        "http://",
        "http://:4317",
        "http://a:0",
        "grpc://a:1",
        "http://a:4318/v1/metrics",
        "http://a:4317?x=1",
        "http://user:secret@a:4317",
        "http://a b:4317",
    ] {
        let wrong = settings(endpoint).check().expect_err(endpoint);
        assert_eq!(wrong.setting, Setting::Endpoint, "{endpoint}");
        assert!(wrong.accepted.starts_with("http://host:port"), "{}", wrong.accepted);
    }
    let good = settings("http://a:4317");
    for every_s in [0, 3601, u64::MAX] {
        let wrong = Settings { every_s, ..good.clone() }.check().unwrap_err();
        assert_eq!((wrong.setting, wrong.accepted.as_str()), (Setting::EveryS, "1 to 3600 seconds"));
    }
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "nothing").unwrap();
    let broken = folder.path().join("broken.pem");
    std::fs::write(&broken, "-----BEGIN CERTIFICATE-----\n!no\n-----END CERTIFICATE-----\n").unwrap();
    for (endpoint, ca_file, accepted) in [
        ("https://a:4317", None, "a PEM file of the collector's authority, with https"),
        ("http://a:4317", Some("x".into()), "none, with http"),
        ("https://a:4317", Some(folder.path().join("none")), "a file that can be read (No such file"),
        ("https://a:4317", Some(empty), "a PEM file with a certificate"),
        ("https://a:4317", Some(broken), "a PEM file with a certificate"),
    ] {
        let wrong = Settings { ca_file: ca_file.clone(), ..settings(endpoint) }.collector();
        let wrong = wrong.expect_err(&format!("{ca_file:?}"));
        assert_eq!(wrong.setting, Setting::CaFile);
        assert!(wrong.accepted.starts_with(accepted), "{}", wrong.accepted);
    }
    assert_eq!(Settings::given(None, Some(5), None), None);
    assert_eq!(Settings::given(Some(String::new()), None, None), None, "an empty one switches it off");
}

/// The only test that counts for the whole process.
#[tokio::test]
async fn a_process_is_counted_for_once() {
    let shown = crate::install(&[], None).unwrap();
    metrics::counter!("made_here_total").increment(1);
    assert!(shown.prometheus.render().contains("made_here_total 1"));
    shown.begin(Box::new(|| {})).end().await;
    assert!(crate::install(&[], None).is_err());
}
