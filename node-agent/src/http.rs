//! Metrics and health over HTTP: `/metrics` for Prometheus, `/health` as JSON.
//!
//! `/health` answers 200 while every plant's line is up and its outbox takes events, else 503, with the
//! same body: a line that is cut is worth knowing, though the plant works on.

use crate::health::{Line, Report};
use crate::meters;
use crate::outbox::Status;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use futures::future::BoxFuture;
use millpool_meters::PrometheusHandle;
use serde::Serialize;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// One plant, as the page sees it.
#[derive(Clone)]
pub struct Plant {
    /// What it says about itself.
    pub health: crate::health::Health,
    /// Its outbox.
    pub outbox: watch::Receiver<Status>,
}

/// The health document.
#[derive(Debug, Serialize)]
pub struct Page {
    /// Whether every plant is connected and takes events.
    pub well: bool,
    /// The agent's version.
    pub version: &'static str,
    /// Plant time now, ms since the Unix epoch.
    pub plant_clock_ms: i64,
    /// The plants.
    pub plants: Vec<PlantPage>,
}

/// One plant in the health document.
#[derive(Debug, Serialize)]
pub struct PlantPage {
    /// What the plant says about itself.
    #[serde(flatten)]
    pub report: Report,
    /// Its outbox.
    pub outbox: OutboxPage,
}

/// An outbox in the health document.
#[derive(Debug, Serialize)]
pub struct OutboxPage {
    /// Its identity.
    pub id: String,
    /// Highest number given.
    pub last_seq: u64,
    /// Highest number applied.
    pub applied_seq: u64,
    /// Events not yet applied.
    pub depth: u64,
    /// Size on disk.
    pub bytes: u64,
    /// Appends that wait because it is full.
    pub waiting: u64,
    /// Why it has stopped, if it has.
    pub failed: Option<String>,
}

struct Shared {
    plants: Vec<Plant>,
    clock: crate::clock::Clock,
    prometheus: PrometheusHandle,
}

/// Binds and serves until `stop`.
pub async fn serve(
    listen: SocketAddr,
    plants: Vec<Plant>,
    clock: crate::clock::Clock,
    prometheus: PrometheusHandle,
    stop: CancellationToken,
) -> std::io::Result<BoxFuture<'static, std::io::Result<()>>> {
    let listener = TcpListener::bind(listen).await?;
    let shared = Arc::new(Shared { plants, clock, prometheus });
    let router =
        Router::new().route("/health", get(health)).route("/metrics", get(metrics)).with_state(shared);
    let serving = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    Ok(Box::pin(async move { serving.await }))
}

async fn health(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let page = page(&shared);
    let status = if page.well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::to_vec_pretty(&page).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, "application/json")], body)
}

async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    meters::gauges(&shared.plants);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], shared.prometheus.render())
}

fn page(shared: &Shared) -> Page {
    let plants: Vec<_> = shared.plants.iter().map(plant_page).collect();
    let up = |plant: &PlantPage| {
        matches!(plant.report.line, Line::Connected { .. })
            && plant.outbox.failed.is_none()
            && plant.outbox.waiting == 0
    };
    Page {
        well: plants.iter().all(up),
        version: env!("CARGO_PKG_VERSION"),
        plant_clock_ms: shared.clock.now_ms(),
        plants,
    }
}

fn plant_page(plant: &Plant) -> PlantPage {
    let status = plant.outbox.borrow().clone();
    let outbox = OutboxPage {
        id: status.outbox_id,
        last_seq: status.last_seq,
        applied_seq: status.acked_seq,
        depth: status.last_seq - status.acked_seq,
        bytes: status.bytes,
        waiting: status.waiting,
        failed: status.failed,
    };
    PlantPage { report: plant.health.report(), outbox }
}
