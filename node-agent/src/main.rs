//! `millpool-node-agent`: reads its configuration, runs the plants' agents, and stops on a signal; or is the
//! operator's terminal.

use anyhow::Context;
use clap::{Parser, Subcommand};
use millpool_meters::Showing;
use millpool_meters::otlp::Collector;
use millpool_node_agent::agent::Agent;
use millpool_node_agent::config::otlp::OtlpFile;
use millpool_node_agent::config::{self, Config, Overrides};
use millpool_node_agent::console;
use millpool_node_agent::ground::Ground;
use millpool_node_agent::{http, meters, publish, samples};
use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Stopped on request.
const EXIT_STOPPED: u8 = 0;
/// An agent failed while it ran: the disk is full, or cannot be written.
const EXIT_FAILED: u8 = 1;
/// The configuration cannot be used.
const EXIT_CONFIG: u8 = 78;
/// At the start something on disk was damaged, not writable, or in use by another process.
const EXIT_DISK: u8 = 74;
/// The HTTP address cannot be bound.
const EXIT_ADDRESS: u8 = 69;

/// The plant's agent of a Millpool alliance.
///
/// It watches the plant's machines, keeps every event on disk until the coordinator has applied it, and
/// works through the plant's dispatch list, also while the line to the coordinator is cut. One process can
/// serve several plants, one [[agent]] section each.
#[derive(Debug, Parser)]
#[command(name = "millpool-node-agent", version, after_long_help = AFTER_HELP)]
struct Flags {
    /// The configuration, a TOML file; its fields are described in the agent's README.
    #[arg(
        long,
        short,
        env = "MILLPOOL_AGENT_CONFIG",
        value_name = "FILE",
        default_value = "/etc/millpool/agent.toml",
        global = true
    )]
    config: PathBuf,
    /// Check the configuration, say what is wrong with it, and stop.
    #[arg(long)]
    check_config: bool,
    /// Coordinators, host:port, separated by commas; for every agent.
    #[arg(long, env = "MILLPOOL_AGENT_COORDINATORS", value_name = "ADDRESSES", value_delimiter = ',')]
    coordinators: Vec<String>,
    /// File with the bearer token; for every agent.
    #[arg(long, env = "MILLPOOL_AGENT_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Plain text and no token, to coordinators on loopback only. For development.
    #[arg(long, env = "MILLPOOL_AGENT_INSECURE_DEV")]
    insecure_dev: bool,
    /// Folder under which plants without a data_dir of their own have one.
    #[arg(long, env = "MILLPOOL_AGENT_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address for /metrics and /health.
    #[arg(long, env = "MILLPOOL_AGENT_HTTP_LISTEN", value_name = "ADDRESS")]
    http_listen: Option<String>,
    /// Collector that meters are sent to by OTLP over gRPC, http://host:port or https://host:port.
    #[arg(long, env = "MILLPOOL_AGENT_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// Seconds between two exports to it.
    #[arg(long, env = "MILLPOOL_AGENT_OTLP_EVERY_S", value_name = "S")]
    otlp_every_s: Option<u64>,
    /// PEM file of the authority that signed its certificate, with https.
    #[arg(long, env = "MILLPOOL_AGENT_OTLP_CA_FILE", value_name = "FILE")]
    otlp_ca_file: Option<PathBuf>,
    /// Logs as text or json.
    #[arg(long, env = "MILLPOOL_AGENT_LOG_FORMAT", value_name = "FORMAT")]
    log_format: Option<String>,
    /// What is logged: error, warn, info, debug, trace, or a tracing filter.
    #[arg(long, env = "MILLPOOL_AGENT_LOG", value_name = "FILTER")]
    log: Option<String>,
    /// Plant seconds for each wall second; the coordinator's.
    #[arg(long, env = "MILLPOOL_AGENT_CLOCK_SCALE", value_name = "SCALE")]
    clock_scale: Option<f64>,
    /// Wall time from which the clock is scaled, RFC 3339 or ms since the Unix epoch; the coordinator's.
    #[arg(long, env = "MILLPOOL_AGENT_CLOCK_EPOCH", value_name = "TIME")]
    clock_epoch: Option<String>,
    /// Plant time at the clock's epoch; the same as the epoch where it is not given.
    #[arg(long, env = "MILLPOOL_AGENT_CLOCK_PLANT_EPOCH", value_name = "TIME")]
    clock_plant_epoch: Option<String>,
    /// Without a command it runs the plants' agents.
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The operator's terminal: the plant's list, and what was done.
    Console(console::command::Flags),
    /// The raw samples of a machine, as they were read: a summary, or CSV.
    Samples(console::samples::Flags),
}

const AFTER_HELP: &str = "\
Precedence: a flag wins over the environment, the environment over the file, the file over the default.
The bearer token itself is read from MILLPOOL_AGENT_TOKEN, never from a flag, which others could see.

Signals: SIGTERM and SIGINT stop it: machines are no longer watched, what happened is sent for up to three
seconds, the rest stays on disk and is sent after the next start.

Exit codes:
  0   stopped on request, or the configuration was checked and is good
  1   an agent failed while it ran: the disk is full, or cannot be written
  2   the command line cannot be understood
  69  the HTTP address cannot be bound
  74  at the start something on disk was damaged, not writable, or in use by another process
  78  the configuration cannot be used; every problem is named

Examples:
  millpool-node-agent --config agent.toml --check-config
  millpool-node-agent --config demo.toml --insecure-dev --clock-scale 60 --clock-epoch 2026-11-23T08:00:00Z
";

fn main() -> ExitCode {
    let mut flags = Flags::parse();
    match flags.command.take() {
        Some(Command::Console(console)) => return ExitCode::from(open_console(console, &flags)),
        Some(Command::Samples(samples)) => return ExitCode::from(ask_samples(samples, &flags)),
        None => {}
    }
    let config = match config::load(&flags.config, &overrides(&flags)) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("millpool-node-agent: {error}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    if flags.check_config {
        let machines: usize = config.agents.iter().map(|agent| agent.machines.len()).sum();
        println!("{} is good: {} plants, {machines} machines", flags.config.display(), config.agents.len());
        return ExitCode::from(EXIT_STOPPED);
    }
    if let Err(error) = start_logs(&config) {
        eprintln!("millpool-node-agent: {error:#}");
        return ExitCode::from(EXIT_CONFIG);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime.context("starting the runtime").map(|runtime| runtime.block_on(run(config))) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn open_console(console: console::command::Flags, flags: &Flags) -> u8 {
    let folders = match console.socket() {
        Some(_) => Ok(Vec::new()),
        None => config::folders(&flags.config, flags.data_dir.as_deref()),
    };
    match folders {
        Ok(folders) => console::command::run(console, &folders),
        Err(error) => {
            eprintln!("millpool-node-agent console: {error}");
            EXIT_CONFIG
        }
    }
}

fn ask_samples(samples: console::samples::Flags, flags: &Flags) -> u8 {
    let folders = match samples.socket() {
        Some(_) => Ok(Vec::new()),
        None => config::folders(&flags.config, flags.data_dir.as_deref()),
    };
    match folders {
        Ok(folders) => console::samples::run(&samples, &folders),
        Err(error) => {
            eprintln!("millpool-node-agent samples: {error}");
            EXIT_CONFIG
        }
    }
}

fn overrides(flags: &Flags) -> Overrides {
    Overrides {
        coordinators: flags.coordinators.clone(),
        token: std::env::var("MILLPOOL_AGENT_TOKEN").ok().filter(|token| !token.is_empty()),
        token_file: flags.token_file.clone(),
        insecure_dev: flags.insecure_dev,
        http_listen: flags.http_listen.clone(),
        otlp: OtlpFile {
            endpoint: flags.otlp_endpoint.clone(),
            every_s: flags.otlp_every_s,
            ca_file: flags.otlp_ca_file.clone(),
        },
        log_format: flags.log_format.clone(),
        log_level: flags.log.clone(),
        clock_scale: flags.clock_scale,
        clock_epoch: flags.clock_epoch.clone(),
        clock_plant_epoch: flags.clock_plant_epoch.clone(),
        data_dir: flags.data_dir.clone(),
    }
}

fn start_logs(config: &Config) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log_level);
    let mut filter = filter
        .with_context(|| format!("log.level = {:?}: accepted is a tracing filter", config.log_level))?;
    // Of its own doings the samples' store tells what goes wrong.
    let talks =
        filter.max_level_hint().is_none_or(|most| most > tracing_subscriber::filter::LevelFilter::WARN);
    if talks && !config.log_level.contains("fjall") {
        for library in ["fjall=warn", "lsm_tree=warn"] {
            filter = filter.add_directive(library.parse()?);
        }
    }
    // The library's lines say again, and less clearly, what the adapter says of each trouble.
    if !config.log_level.contains("opcua") {
        for library in ["opcua_client=off", "opcua_core=off", "opcua_crypto=off"] {
            filter = filter.add_directive(library.parse()?);
        }
    }
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    if config.log_json {
        logs.json().init()
    } else {
        logs.init()
    }
    Ok(())
}

/// Runs the agents until a signal, or until one fails.
async fn run(config: Config) -> u8 {
    let stop = CancellationToken::new();
    if config.insecure_dev {
        tracing::warn!("INSECURE: plain text, on loopback only; not for anything but development");
    }
    let mut agents = Vec::new();
    for options in config.agents {
        match Agent::open(options, config.clock, Ground::Machine) {
            Ok(mut agent) => {
                keep_samples(&mut agent, &config.samples, config.clock);
                agents.push(agent);
            }
            Err(error) => {
                tracing::error!(%error, "cannot start");
                return EXIT_DISK;
            }
        }
    }
    let showing = match show(config.http_listen, config.otlp, &agents, config.clock, &stop).await {
        Ok(showing) => showing,
        Err(error) => {
            tracing::error!("{error:#}");
            return EXIT_ADDRESS;
        }
    };
    open_consoles(&agents, config.clock, &stop);
    let mut publishers = start_publishers(&agents, &config.publish, config.clock, &stop);
    let mut running: JoinSet<_> = agents.into_iter().map(|agent| agent.run(stop.clone())).collect();
    tracing::info!(plants = running.len(), "running");
    let mut code = EXIT_STOPPED;
    tokio::select! {
        () = stopped() => tracing::info!("stopping"),
        Some(ended) = running.join_next() => code = outcome(ended),
    }
    stop.cancel();
    while let Some(ended) = running.join_next().await {
        code = code.max(outcome(ended));
    }
    // Each says that it goes, and takes a moment at most.
    while publishers.join_next().await.is_some() {}
    if let Some(showing) = showing {
        showing.end().await;
    }
    tracing::info!(code, "stopped");
    code
}

fn outcome(ended: Result<Result<(), millpool_node_agent::agent::AgentError>, tokio::task::JoinError>) -> u8 {
    match ended {
        Ok(Ok(())) => EXIT_STOPPED,
        Ok(Err(error)) => {
            tracing::error!(%error, "an agent failed");
            EXIT_FAILED
        }
        Err(died) => {
            tracing::error!(%died, "an agent died");
            EXIT_FAILED
        }
    }
}

/// Begins to count, where somebody wants to know.
async fn show(
    http_listen: Option<std::net::SocketAddr>,
    collector: Option<Collector>,
    agents: &[Agent],
    clock: millpool_node_agent::clock::Clock,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Showing>> {
    if http_listen.is_none() && collector.is_none() {
        return Ok(None);
    }
    let plant = |agent: &Agent| http::Plant { health: agent.health(), outbox: agent.outbox().status() };
    let plants: Vec<_> = agents.iter().map(plant).collect();
    let shown = meters::install(collector, &plants).context("installing the metrics recorder")?;
    if let Some(listen) = http_listen {
        let serving = http::serve(listen, plants.clone(), clock, shown.prometheus.clone(), stop.clone());
        let serving = serving.await.with_context(|| format!("http.listen = {listen}: cannot be bound"))?;
        tokio::spawn(serving);
        tracing::info!(%listen, "metrics and health");
    }
    Ok(Some(shown.begin(Box::new(move || meters::gauges(&plants)))))
}

/// Opens the agents' consoles. An agent without one works on: its machines are watched all the same.
fn open_consoles(agents: &[Agent], clock: millpool_node_agent::clock::Clock, stop: &CancellationToken) {
    for agent in agents {
        let plant = console::serve::Plant {
            clock,
            kept: agent.kept(),
            health: agent.health(),
            outbox: agent.outbox().status(),
            ears: agent.ears(),
            remote: agent.remote(),
            quarantine: agent.quarantine(),
            samples: agent.samples(),
        };
        match console::serve::serve(agent.data_dir(), plant, stop.clone()) {
            Ok(serving) => {
                tokio::spawn(serving);
            }
            Err(error) => {
                let path = agent.data_dir().join(console::SOCKET);
                tracing::error!(path = %path.display(), %error, "no console: its socket cannot be made");
            }
        }
    }
}

/// Keeps raw samples where the plant wants it. An agent that cannot works on without.
fn keep_samples(
    agent: &mut Agent,
    options: &BTreeMap<String, samples::Options>,
    clock: millpool_node_agent::clock::Clock,
) {
    let health = agent.health();
    let plant = health.report().plant_id;
    let Some(options) = options.get(&plant) else { return };
    match samples::Samples::open(agent.data_dir(), &plant, *options, clock, health) {
        Ok(samples) => agent.keep_samples(samples),
        Err(error) => tracing::error!(plant, %error, "no samples are kept: no thread can be started"),
    }
}

/// Publishes the plants that want it. What becomes of it is no matter of the agents.
fn start_publishers(
    agents: &[Agent],
    options: &BTreeMap<String, publish::Options>,
    clock: millpool_node_agent::clock::Clock,
    stop: &CancellationToken,
) -> JoinSet<()> {
    let mut publishers = JoinSet::new();
    for agent in agents {
        let health = agent.health();
        let report = health.report();
        if let Some(options) = options.get(&report.plant_id) {
            let plant = publish::Plant {
                id: report.plant_id,
                clock,
                machines: report.machines.into_keys().collect(),
                health,
                kept: agent.kept(),
                data_dir: agent.data_dir().to_owned(),
            };
            publishers.spawn(publish::run(options.clone(), plant, stop.clone()));
        }
    }
    publishers
}

/// SIGTERM or SIGINT.
async fn stopped() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals cannot be heard; stop it with SIGKILL");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
