//! `millpool-scheduler`: settings in, a coordinator out.

use clap::Parser as _;
use millpool_scheduler::clock::Clock;
use millpool_scheduler::config::{Act, Config, Flags, exit};
use millpool_scheduler::recovery;
use millpool_scheduler::serve::{self, Failed};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Every entry makes and drops hundreds of small nodes of persistent maps.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let flags = Flags::parse();
    let (check_only, act) = (flags.check_config, flags.act.clone());
    let config = match Config::load(flags) {
        Ok(config) => config,
        Err(e) => {
            eprintln!("millpool-scheduler: {e}");
            return ExitCode::from(exit::CONFIG);
        }
    };
    if check_only {
        println!("{config:#?}");
        return ExitCode::from(exit::OK);
    }
    if let Err(e) = log(&config) {
        eprintln!("millpool-scheduler: log is {:?}; accepted: a tracing filter ({e})", config.log);
        return ExitCode::from(exit::CONFIG);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("millpool-scheduler: cannot start its threads: {e}");
            return ExitCode::from(exit::FAILED);
        }
    };
    if let Some(act) = act {
        return runtime.block_on(perform(&act, &config));
    }
    let outcome = runtime.block_on(serve::run(config, Box::pin(signalled())));
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    millpool_scheduler::planner::await_stragglers();
    match outcome {
        Ok(()) => ExitCode::from(exit::OK),
        Err(failed) => {
            tracing::error!("{failed}");
            eprintln!("millpool-scheduler: {failed}");
            ExitCode::from(match failed {
                Failed::Listen { .. } => exit::LISTEN,
                Failed::Data { .. } => exit::DATA,
                Failed::File { .. } | Failed::Setting(_) | Failed::Tls(_) => exit::CONFIG,
                Failed::Stopped(_) => exit::FAILED,
            })
        }
    }
}

/// Does something to the data folder, and tells what.
async fn perform(act: &Act, config: &Config) -> ExitCode {
    let done = match act {
        Act::Restore { backup, reason } => {
            recovery::restore(config, backup, reason, Clock::wall().now_s()).await
        }
        Act::Salvage { backup } => recovery::salvage(config, backup).await,
    };
    match done {
        Ok(told) => {
            println!("{told}");
            ExitCode::from(exit::OK)
        }
        Err(failed) => {
            eprintln!("millpool-scheduler: {failed}");
            ExitCode::from(match failed {
                recovery::Failed::Data { .. } => exit::DATA,
                _ => exit::CONFIG,
            })
        }
    }
}

fn log(config: &Config) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::try_new(&config.log)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if config.log_json {
        builder.json().init()
    } else {
        builder.init()
    }
    Ok(())
}

/// Resolves on SIGTERM and SIGINT.
async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals cannot be received; stop this process by SIGKILL, which is safe");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
