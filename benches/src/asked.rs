//! How soon those are answered who ask what machines did with their time: indicators, taken together in several ways, and
//! the leader's page of metrics.

use crate::report::{Measured, Results};
use crate::sample::{Done, Sample};
use crate::stage::Stage;
use anyhow::{Context as _, ensure};
use millpool_proto::v1::{GetIndicatorsRequest, IndicatorGrain as Grain, IndicatorGroup as Group};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Each is asked so often, one after the other.
const TIMES: usize = 20;
/// A page must be here whole within this.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks for the indicators of the last week, and for the metrics. `plant` is one whose machines are asked for by shift.
pub(crate) async fn run(stage: &Stage, plant: &str, results: &mut Results) -> anyhow::Result<()> {
    let ways = [
        ("the alliance by day", Group::All, Grain::Day, ""),
        ("plants by day", Group::Plant, Grain::Day, ""),
        ("machines in all", Group::Machine, Grain::Whole, ""),
        ("a plant's machines by shift", Group::Machine, Grain::Shift, plant),
    ];
    let client = stage.client("operator:load", 0)?;
    for (what, group, grain, plant_id) in ways {
        let (mut sample, mut rows) = (Sample::new()?, 0);
        for _ in 0..TIMES {
            let request = GetIndicatorsRequest {
                group: group.into(),
                grain: grain.into(),
                plant_id: plant_id.to_owned(),
                ..GetIndicatorsRequest::default()
            };
            let since = Instant::now();
            rows = client.get_indicators(request).await?.indicators.len();
            add(&mut sample, since);
        }
        ensure!(rows > 0, "no indicators of {what}");
        results.add(&format!("indicators of {what}, {rows} rows"), 1, Measured::closed(&sample));
    }
    let address = stage.metrics_address().context("a cluster of its own")?;
    let (mut sample, mut bytes) = (Sample::new()?, 0);
    for _ in 0..TIMES {
        let since = Instant::now();
        bytes = tokio::time::timeout(PATIENCE, page(address)).await.context("the page of metrics")??;
        add(&mut sample, since);
    }
    results.add(&format!("the leader's metrics, {} KiB", bytes >> 10), 1, Measured::closed(&sample));
    Ok(())
}

fn add(sample: &mut Sample, since: Instant) {
    sample.count(since.elapsed(), Done::Well);
    sample.elapsed += since.elapsed();
}

/// Length of the page of metrics, bytes.
async fn page(address: &str) -> anyhow::Result<usize> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await?;
    ensure!(page.contains("millpool_plants_silent"), "that is no page of metrics: {page:.100}");
    Ok(page.len())
}
