//! The run: start, alliance, agents, buyers, the leader's death, the end, the checks.

use crate::args::Args;
use crate::market::{Appointment, Market};
use crate::observe::Observer;
use crate::outage::{self, Outage};
use crate::report::{self, Report};
use crate::screen::{Scene, Screen};
use anyhow::{Context as _, ensure};
use millpool_cli::client::Client;
use millpool_demo::agents::{Agents, Fate};
use millpool_demo::alliance::{Alliance, Blueprint, wishes};
use millpool_demo::checks::{Fault, agreement, evidence, logs, plan, promises, said};
use millpool_demo::clock::{AllianceClock, wall_ms};
use millpool_demo::cluster::{self, Cluster};
use millpool_demo::interrupt::interrupted;
use millpool_demo::setup;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the binaries are called that must lie beside this one.
const BINARIES: [&str; 3] = ["millpool-scheduler", "millpool-node-agent", "millpool"];
/// Marks a folder as one that may be made anew.
const MARKER: &str = ".millpool-demo";
/// How long a cluster may take to have its first leader.
const FIRST_LEADER: Duration = Duration::from_secs(30);
/// With so many bookings there is always something to optimise.
const WORTH_OPTIMISING: u64 = 200;
/// How long the checks at the end take, roughly.
const CHECKS: Duration = Duration::from_secs(9);
/// Request ids are remembered for a week, quotes are good for an hour of the alliance.
const REQUEST_ID_KEEP_S: u32 = 7 * 86_400;
/// See [`REQUEST_ID_KEEP_S`].
const QUOTE_VALID_S: u32 = 3600;
/// Acknowledged requests that are repeated at the end.
const REPEATED_MAX: usize = 400;
/// Without `--seconds` the buyers take this long for their orders.
const ORDERS_WITHIN: Duration = Duration::from_secs(60);

/// Everything that is running.
struct Stage {
    args: Args,
    bin_dir: PathBuf,
    alliance: Alliance,
    clock: AllianceClock,
    cluster: Cluster,
    agents: Agents,
    operator: Client,
    market: Arc<Market>,
    observer: Observer,
}

/// Runs the demonstration, and answers with the number of broken promises and invariants.
pub(crate) async fn run(args: Args) -> anyhow::Result<usize> {
    let mut screen = Screen::new(args.orders as u64);
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(until_interrupted(stop.clone()));
    let mut stage = set_up(args, &screen).await?;
    let outage = tokio::select! {
        played = play(&mut stage, &mut screen, &stopped, &stop) => played?,
        () = twice_interrupted() => anyhow::bail!("interrupted before the checks"),
    };
    let report = close(stage, &mut screen, outage).await?;
    println!("\n{}", report::table(&report));
    Ok(report::verdict(&report))
}

/// Ctrl-C and SIGTERM end the buyers' day; the checks follow.
async fn until_interrupted(stop: watch::Sender<bool>) {
    interrupted().await;
    let _ = stop.send(true);
}

async fn twice_interrupted() {
    interrupted().await;
    interrupted().await;
}

async fn set_up(args: Args, screen: &Screen) -> anyhow::Result<Stage> {
    let bin_dir = binaries()?;
    let data_dir = fresh_folder(&args.data)?;
    let clock = AllianceClock::from_monday(wall_ms(), args.scale);
    let start_s = clock.now_s().div_euclid(60) * 60;
    let alliance = Alliance::new(Blueprint::demo(args.seed, start_s));
    let mut options = cluster::Options::new(bin_dir.clone(), data_dir.clone());
    options.clock = clock;
    (options.optimise_every_ms, options.optimise_for_ms) = (500, 1000);
    options.log = "info,millpool_scheduler::planner=debug".to_owned();
    let mut cluster = Cluster::start(options)?;
    let leader = cluster.wait_for_leader(FIRST_LEADER).await?;
    screen.say(&format!(
        "three coordinators on {}; node {} leads",
        cluster.endpoints().join(", "),
        leader + 1
    ));

    let operator = cluster.client("operator:demo", 0)?;
    setup::lengthen_memory(&operator, REQUEST_ID_KEEP_S, QUOTE_VALID_S).await?;
    setup::create(&operator, &alliance).await.context("creating the alliance")?;
    screen.say(&format!(
        "{} members lend {} machines for two weeks from {}; {} of their shift hours are their own work",
        alliance.members.len(),
        alliance.machines.len(),
        report::time(start_s),
        report::share(alliance.shifts.own_s, alliance.shifts.shift_s),
    ));
    let fate = Fate::ordinary(args.seed);
    let agents = Agents::start(&bin_dir, &data_dir, &alliance, clock, &cluster.endpoints(), fate)?;
    screen.say(&format!(
        "the plants' agents are at work on simulated machines; the alliance's clock runs {} times as fast",
        clock.scale
    ));
    let market = Market::open(&cluster, clock, start_s, wall_ms() as u64)?;
    let observer = Observer::start(cluster.client("operator:demo", 1)?);
    Ok(Stage { args, bin_dir, alliance, clock, cluster, agents, operator, market, observer })
}

/// The folder that this binary and the others lie in.
fn binaries() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("finding this binary")?;
    let folder = own.parent().context("finding this binary's folder")?.to_owned();
    let missing: Vec<&str> = BINARIES.into_iter().filter(|name| !folder.join(name).is_file()).collect();
    ensure!(
        missing.is_empty(),
        "{} not found in {}; build them with: cargo build --release --workspace --bins",
        missing.join(", "),
        folder.display()
    );
    Ok(folder)
}

/// An empty folder; a former demonstration's is made anew, anybody else's is left alone.
fn fresh_folder(folder: &Path) -> anyhow::Result<PathBuf> {
    let what = || format!("making {} anew", folder.display());
    if folder.exists() {
        let empty = std::fs::read_dir(folder).with_context(what)?.next().is_none();
        ensure!(
            empty || folder.join(MARKER).exists(),
            "{} holds something else; name an empty folder with --data",
            folder.display()
        );
        std::fs::remove_dir_all(folder).with_context(what)?;
    }
    std::fs::create_dir_all(folder).with_context(what)?;
    std::fs::write(folder.join(MARKER), "made by millpool-demo, and made anew by its next run\n")
        .with_context(what)?;
    folder.canonicalize().with_context(what)
}

/// The buyers' day, with the leader's death in the middle of it. Ends by time, or when told to stop.
async fn play(
    stage: &mut Stage,
    screen: &mut Screen,
    stopped: &watch::Receiver<bool>,
    stop: &watch::Sender<bool>,
) -> anyhow::Result<Option<Outage>> {
    let total = stage.args.seconds.map(Duration::from_secs);
    let left = total.map(|total| total.saturating_sub(screen.elapsed() + CHECKS));
    let trading = left.map_or(ORDERS_WITHIN, |left| left.mul_f64(0.62));
    let began = Instant::now();
    let mut buyers = stage.market.trade(diary(stage, began, trading), stopped);
    let mut outage = None;
    let mut invited = false;
    loop {
        tick(stage, screen).await?;
        if *stopped.borrow() || left.is_some_and(|left| began.elapsed() >= left) {
            break;
        }
        if outage.is_none() && began.elapsed() >= trading / 2 {
            screen.say("killing the leader with SIGKILL while the buyers go on");
            let cost = outage::kill_leader(&mut stage.cluster, &stage.market, !buyers.is_empty()).await?;
            screen.say(&report::outage(&cost));
            outage = Some(cost);
        }
        while buyers.try_join_next().is_some() {}
        if total.is_none() && buyers.is_empty() && !invited {
            invited = true;
            screen.say(&report::invitation(&stage.cluster.endpoints(), &stage.bin_dir, stage.clock.now_s()));
        }
    }
    let _ = stop.send(true);
    wait_for(&mut buyers, stage, screen).await?;
    Ok(outage)
}

/// Every wish with its instant, evenly over the time.
fn diary(stage: &Stage, began: Instant, within: Duration) -> Vec<Appointment> {
    let count = stage.args.orders;
    let wishes = wishes(&stage.alliance, count).into_iter().enumerate();
    let at = |number: usize| began + within.mul_f64(number as f64 / count.max(1) as f64);
    wishes.map(|(number, wish)| Appointment { at: at(number), number, wish }).collect()
}

/// Shows how things stand, and looks after the processes.
async fn tick(stage: &mut Stage, screen: &mut Screen) -> anyhow::Result<()> {
    tokio::time::sleep(Duration::from_millis(250)).await;
    stage.cluster.check_alive()?;
    stage.agents.check_alive()?;
    let plan = report::plan_in_brief(&stage.observer.seen().summary);
    let tally = stage.market.tally();
    screen.show(&Scene {
        asked: tally.asked,
        orders: stage.args.orders as u64,
        promised: tally.promised,
        refused: tally.refused.values().sum(),
        time: report::time(stage.clock.now_s()),
        plan,
    });
    Ok(())
}

async fn wait_for(buyers: &mut JoinSet<()>, stage: &mut Stage, screen: &mut Screen) -> anyhow::Result<()> {
    while !buyers.is_empty() {
        tick(stage, screen).await?;
        while buyers.try_join_next().is_some() {}
    }
    Ok(())
}

/// Ends everything, and checks everything.
async fn close(stage: Stage, screen: &mut Screen, outage: Option<Outage>) -> anyhow::Result<Report> {
    let Stage { args, bin_dir, alliance, cluster, agents, operator, market, observer, .. } = stage;
    screen.clear();
    screen.say("the day is over; checking everything that was said");
    let clients = |buyer: &str| market.client_of(buyer);
    let in_doubt = said::settle_doubts(&clients, &market.ledger).await;
    agents.stop().await?;
    let (mut faults, repeated) = said::repeat(&clients, &market.ledger, REPEATED_MAX).await;
    let evidence =
        evidence::gather(&operator, alliance.blueprint.start_s).await.context("reading the bookings")?;
    if !evidence.at_one_revision {
        faults.push(Fault::new("the state comes to rest", "it changed during every look at it"));
    }
    if in_doubt > 0 {
        faults.push(Fault::new("every request is answered in the end", format!("{in_doubt} are in doubt")));
    }
    faults.extend(said::judge(&market.ledger, &evidence.bookings));
    faults.extend(plan::judge(&alliance, &evidence.policy, &evidence.plan, &evidence.bookings));
    let (promises, broken) = promises::judge(&evidence.bookings);
    faults.extend(broken);
    let agreed = agreement::compare(&cluster, Duration::from_secs(15)).await;
    let agreed_at = agreed.map_err(|fault| faults.push(fault)).ok();
    let drawing = draw(&bin_dir, &cluster, &alliance, &args.data).await?;
    let tally = market.tally().clone();
    let seen = observer.seen();
    drop(observer);
    if seen.moved == 0 && tally.promised >= WORTH_OPTIMISING {
        faults.push(Fault::new("the plan gets better in the background", "no optimisation moved anything"));
    }
    cluster.stop().await?;
    faults.extend(logs::judge(&args.data.join("logs")).context("reading the logs")?);
    if !args.keep {
        tidy(&args.data)?;
    }
    Ok(Report { alliance, tally, seen, evidence, promises, outage, faults, repeated, agreed_at, drawing })
}

/// Draws the plan through the command that everybody has.
async fn draw(
    bin_dir: &Path,
    cluster: &Cluster,
    alliance: &Alliance,
    data: &Path,
) -> anyhow::Result<PathBuf> {
    let drawing = data.join("plan.svg");
    let span = alliance.span();
    let output = tokio::process::Command::new(bin_dir.join("millpool"))
        .args(["--endpoints", &cluster.endpoints().join(","), "plan", "--group", "plant"])
        .args(["--from", &report::instant(span.start_s), "--until", &report::instant(span.end_s)])
        .arg("--svg")
        .arg(&drawing)
        .env("MILLPOOL_TOKEN", "operator:demo")
        .output()
        .await
        .context("starting millpool plan")?;
    ensure!(output.status.success(), "millpool plan: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(drawing)
}

/// Leaves the logs and the drawing.
fn tidy(data: &Path) -> anyhow::Result<()> {
    for folder in ["node-1", "node-2", "node-3", "agents"] {
        let folder = data.join(folder);
        if folder.exists() {
            std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
        }
    }
    Ok(())
}
