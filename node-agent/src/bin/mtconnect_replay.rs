//! `millpool-mtconnect-replay`: serves a recorded day as an MTConnect agent.

use anyhow::Context;
use clap::Parser;
use millpool_node_agent::replay::{Options, Replay};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// An MTConnect agent that serves a recorded day: probe, current, sample and streaming sample.
///
/// SIGUSR1 restarts its instance, as an MTConnect agent's restart does: another instanceId, sequence
/// numbers from 1, streams cut. SIGTERM and SIGINT stop it.
#[derive(Debug, Parser)]
#[command(name = "millpool-mtconnect-replay", version)]
struct Flags {
    /// The device model, an MTConnectDevices document; may be gzipped.
    devices: PathBuf,
    /// The recording, SHDR lines; may be gzipped.
    recording: PathBuf,
    /// The device in the model; by default what stands before the first dash in the recording's name.
    #[arg(long)]
    device: Option<String>,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    listen: IpAddr,
    /// Port to listen on.
    #[arg(long, default_value_t = 5000)]
    port: u16,
    /// Recorded seconds for each wall second.
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// Observations that the buffer holds.
    #[arg(long, default_value_t = 16_384)]
    buffer: usize,
    /// Recorded silence longer than this takes no time, seconds.
    #[arg(long, default_value_t = 3600)]
    skip_gap_s: u64,
    /// Time that the recording is moved to, RFC 3339; recorded times without.
    #[arg(long)]
    start_at: Option<String>,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let flags = Flags::parse();
    anyhow::ensure!(flags.speed > 0.0, "--speed {}: accepted is more than 0", flags.speed);
    anyhow::ensure!(flags.buffer > 0, "--buffer 0: accepted is at least 1");
    let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("reading {}", path.display()));
    let devices = unzip(read(&flags.devices)?)?;
    let recording = read(&flags.recording)?;
    let named =
        flags.recording.file_name().and_then(|name| name.to_str()).and_then(|name| name.split('-').next());
    let device = flags.device.or(named.map(str::to_owned)).context("--device is needed")?;
    let start_at =
        flags.start_at.map(|text| text.parse::<jiff::Timestamp>().context("--start-at")).transpose()?;
    let options = Options {
        speed: flags.speed,
        buffer: flags.buffer,
        gap_skipped: Duration::from_secs(flags.skip_gap_s),
        start_at_ms: start_at.map(jiff::Timestamp::as_millisecond),
        ..Options::new(&device)
    };
    let replay = Replay::new(&String::from_utf8_lossy(&devices), &recording, options)?;
    let address = SocketAddr::new(flags.listen, flags.port);
    let listener =
        tokio::net::TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
    tracing::info!(%address, device, speed = flags.speed, "serving");
    tokio::spawn(restart_on_signal(replay.clone()));
    let feeding = replay.clone();
    tokio::spawn(async move {
        feeding.feed().await;
        tracing::info!("the recording is over; its last values stay");
    });
    tokio::select! {
        served = axum::serve(listener, replay.router()) => served.context("serving"),
        stopped = stop_signal() => stopped,
    }
}

fn unzip(bytes: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(bytes);
    }
    let mut unzipped = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(bytes.as_slice()), &mut unzipped)?;
    Ok(unzipped)
}

async fn restart_on_signal(replay: Replay) {
    let Ok(mut restart) = signal(SignalKind::user_defined1()) else { return };
    while restart.recv().await.is_some() {
        replay.restart();
        tracing::info!("restarted as another instance");
    }
}

async fn stop_signal() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("hearing SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("hearing SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
