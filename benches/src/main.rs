//! `millpool-load`: what a cluster of three coordinators bears, with every write on their disks.
//!
//! - [`args`]: the command line. [`stage`]: the cluster, the alliance, the clients.
//! - [`closed`]: clients that ask again as soon as they are answered; [`open`]: arrivals at a rate,
//!   whoever still waits.
//! - [`beside`]: bookings and puts into [`etcd`] in turn.
//! - [`agents`]: many plants' agents at once; [`disturbed`]: machines that fail. [`floor`]: the agents of both.
//! - [`kills`]: the leader killed under load. [`overload`]: many times more than it bears. [`year`]: many bookings known.
//!   [`soak`]: most of what it bears, for long.
//! - [`report`]: the table and the JSON.

mod agents;
mod args;
mod asked;
mod beside;
mod closed;
mod disturbed;
mod etcd;
mod floor;
mod kills;
mod open;
mod overload;
mod report;
mod sample;
mod soak;
mod stage;
mod year;

use anyhow::Context as _;
use clap::Parser as _;
use millpool_demo::interrupt::interrupted;
use report::Results;
use std::process::ExitCode;

/// The run could not be carried out.
const EXIT_FAILED: u8 = 2;

fn main() -> ExitCode {
    let args = args::Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    // Broken off, it takes the coordinators that it started with it.
    let measured = async {
        tokio::select! {
            done = run(args) => done,
            () = interrupted() => anyhow::bail!("interrupted"),
        }
    };
    let run = runtime.context("starting the runtime").and_then(|runtime| runtime.block_on(measured));
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("millpool-load: {error:#}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// Runs what is asked for.
async fn run(args: args::Args) -> anyhow::Result<()> {
    let mut stage = stage::Stage::set_up(&args).await?;
    let mut results = Results::new(&args);
    if let Some(repeats) = args.beside_etcd {
        beside::run(&stage, &args, repeats, &mut results).await?;
    } else if let Some(plants) = args.agents {
        agents::run(&stage, &args, plants, &mut results).await?;
    } else if let Some(failures) = args.failures {
        disturbed::run(&stage, &args, failures, &mut results).await?;
    } else if let Some(factor) = args.overload {
        overload::run(&stage, &args, factor, &mut results).await?;
    } else if let Some(minutes) = args.soak {
        soak::run(&stage, &args, minutes, &mut results).await?;
    } else if let Some(bookings) = args.year {
        year::run(&mut stage, &args, bookings, &mut results).await?;
    } else if args.kills.is_none() {
        for clients in &args.clients {
            closed::run(&stage, &args, *clients, &mut results).await?;
        }
    }
    if let Some(rate) = args.rate {
        open::run(&stage, &args, rate, &mut results).await?;
    }
    if let Some(kills) = args.kills {
        results.failovers = kills::run(&mut stage, kills).await?;
    }
    // First: a node that does not stop as it should must not take the figures with it.
    println!("{}", report::table(&results));
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&results).context("writing JSON")?;
        std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
    }
    stage.tear_down().await
}
