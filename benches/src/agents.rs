//! Many plants' agents at once, each machine with a change of state a second: how soon the leader knows of each, whether
//! every one arrives, and what it costs the coordinators.
//!
//! The agents are the shipped ones, in this process; a change is put into an agent's outbox as its adapters do it, and
//! counts as known when the leader says that it is applied, which a majority has on disk by then. In reality every agent
//! has a disk of its own: here their outboxes are in memory (`/dev/shm`, where there is one).

use crate::args::Args;
use crate::report::{Measured, Results};
use crate::sample::{Done, Sample};
use crate::stage::Stage;
use anyhow::{Context as _, ensure};
use millpool_cli::client::Client;
use millpool_node_agent::adapter::{Power, manual};
use millpool_node_agent::agent::{Adapter, Agent, Machine, Options};
use millpool_node_agent::clock::Clock;
use millpool_node_agent::ground::Ground;
use millpool_node_agent::health::{Health, Line};
use millpool_node_agent::outbox::{BYTES_MAX_LEAST, Entry, Outbox};
use millpool_node_agent::session::{Timing, Token};
use millpool_proto::v1::agent_event::What;
use millpool_proto::v1::{self, AgentEvent, MachineState, StateChanged};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Machines of each plant.
const MACHINES: usize = 10;
/// Clients that register plants and machines.
const CLERKS: usize = 8;
/// How long all agents may take to be connected, and the last changes to be known.
const PATIENCE: Duration = Duration::from_secs(120);

/// Lets `plants` agents report for as long as a measurement takes.
pub(crate) async fn run(
    stage: &Stage,
    args: &Args,
    plants: usize,
    results: &mut Results,
) -> anyhow::Result<()> {
    register(stage, plants).await?;
    let dir = folder()?;
    let stop = CancellationToken::new();
    let mut running = JoinSet::new();
    let mut floor = Vec::new();
    for plant in 0..plants {
        let agent = Agent::open(options(stage, plant, &dir), Clock::default(), Ground::Machine)?;
        floor.push((plant, agent.outbox(), agent.health()));
        running.spawn(agent.run(stop.clone()));
    }
    connected(&floor).await?;
    let warm = Duration::from_secs(args.warm_up.max(2));
    let begun = Instant::now() + warm;
    let until = begun + Duration::from_secs(args.seconds);
    let mut reporting: JoinSet<_> =
        floor.iter().map(|(plant, outbox, _)| report(*plant, plants, outbox.clone(), begun, until)).collect();
    tokio::time::sleep_until(begun.into()).await;
    let before = stage.busy_s();
    tokio::time::sleep_until(until.into()).await;
    let busy_s: Vec<f64> = stage.busy_s().iter().zip(&before).map(|(after, before)| after - before).collect();
    let mut sample = Sample::new()?;
    let mut changes = 0;
    while let Some(reported) = reporting.join_next().await {
        let (seen, count) = reported??;
        sample.add(&seen);
        changes += count;
    }
    sample.elapsed = until - begun;
    results.add(&format!("state changes of {plants} agents"), plants, Measured::open(&sample));
    let cores =
        busy_s.iter().map(|s| format!("{:.2}", s / args.seconds as f64)).collect::<Vec<_>>().join(", ");
    results.note(format!(
        "{} machines; {changes} changes, all of them applied; cores of the coordinators: {cores}",
        plants * MACHINES
    ));
    check(stage, plants).await?;
    stop.cancel();
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    std::fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))
}

fn plant_id(plant: usize) -> String {
    format!("bench-{plant}")
}

fn machine_id(plant: usize, machine: usize) -> String {
    format!("bench-{plant}-{machine}")
}

/// Plants and machines that nothing is booked on.
async fn register(stage: &Stage, plants: usize) -> anyhow::Result<()> {
    eprintln!("registering {plants} plants of {MACHINES} machines");
    let operator = stage.client("operator:load", 0)?;
    let member = v1::Member { id: "bench".to_owned(), name: "Bench".to_owned(), revision: 0 };
    let request = v1::PutMemberRequest { member: Some(member), ..v1::PutMemberRequest::default() };
    operator.put_member(request).await?;
    let mut clerks = JoinSet::new();
    for clerk in 0..CLERKS {
        let client = stage.client("operator:load", 0)?;
        clerks.spawn(async move {
            for plant in (clerk..plants).step_by(CLERKS) {
                register_plant(&client, plant).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = clerks.join_next().await {
        done??;
    }
    Ok(())
}

async fn register_plant(client: &Client, plant: usize) -> anyhow::Result<()> {
    let plant_as = v1::Plant {
        id: plant_id(plant),
        member_id: "bench".to_owned(),
        name: plant_id(plant),
        time_zone: "Asia/Shanghai".to_owned(),
        east_m: plant as i64 * 100,
        north_m: 0,
        grid_region: "CN-CQ".to_owned(),
        revision: 0,
    };
    let request = v1::PutPlantRequest { plant: Some(plant_as), ..v1::PutPlantRequest::default() };
    client.put_plant(request).await?;
    for machine in 0..MACHINES {
        let machine_as = v1::Machine {
            id: machine_id(plant, machine),
            plant_id: plant_id(plant),
            name: machine_id(plant, machine),
            class: v1::MachineClass::Mill.into(),
            axes: 3,
            envelope: Some(v1::Size { x_mm: 500, y_mm: 500, z_mm: 500 }),
            mass_max_g: 100_000,
            tolerance_um: 10,
            materials: vec!["steel".to_owned()],
            setup_families: vec!["a".to_owned()],
            changeover_default_s: 1_800,
            rate_fen_per_hour: 36_000,
            setup_rate_fen_per_hour: 18_000,
            speed_permille: 1_000,
            power: Some(v1::PowerModel { idle_w: 100, setup_w: 1_000, cutting_w: 10_000 }),
            ..v1::Machine::default()
        };
        let request = v1::PutMachineRequest { machine: Some(machine_as), ..v1::PutMachineRequest::default() };
        client.put_machine(request).await?;
    }
    Ok(())
}

/// A new folder, in memory where there is one.
fn folder() -> anyhow::Result<PathBuf> {
    let memory = Path::new("/dev/shm");
    let root = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let dir = root.join(format!("millpool-agents-{}", std::process::id()));
    std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    Ok(dir)
}

fn options(stage: &Stage, plant: usize, dir: &Path) -> Options {
    let adapter = || Adapter::Manual(manual::Options { progress_s: 900, power: Power::default() });
    let machine = |machine| Machine { id: machine_id(plant, machine), adapter: adapter(), remote: None };
    Options {
        plant_id: plant_id(plant),
        agent_id: "agent".to_owned(),
        data_dir: dir.join(plant_id(plant)),
        outbox_bytes_max: BYTES_MAX_LEAST,
        coordinators: stage.endpoints().to_vec(),
        token: Token::Given(format!("agent:{}", plant_id(plant))),
        tls: None,
        timing: Timing::default(),
        machines: (0..MACHINES).map(machine).collect(),
    }
}

async fn connected(floor: &[(usize, Outbox, Health)]) -> anyhow::Result<()> {
    let begun = Instant::now();
    let up = |health: &Health| matches!(health.report().line, Line::Connected { .. });
    loop {
        let count = floor.iter().filter(|(_, _, health)| up(health)).count();
        if count == floor.len() {
            eprintln!("{count} agents connected after {:.1} s", begun.elapsed().as_secs_f64());
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "{count} of {} agents are connected", floor.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What a machine is last told to be.
const LAST: MachineState = MachineState::Held;

/// One plant's changes, machine after machine, each once a second; answers when the last is applied.
async fn report(
    plant: usize,
    plants: usize,
    outbox: Outbox,
    begun: Instant,
    until: Instant,
) -> anyhow::Result<(Sample, u64)> {
    let mut sample = Sample::new()?;
    let mut waiting: VecDeque<(u64, Instant)> = VecDeque::new();
    let mut status = outbox.status();
    let every = Duration::from_secs(1) / MACHINES as u32;
    // Plants do not beat in time with one another.
    let mut next = Instant::now() + every * plant as u32 / plants as u32;
    let (mut count, mut last) = (0_u64, 0);
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(next.into()), if next < until || last < MACHINES => {
                let over = next >= until;
                let states = [MachineState::Producing, MachineState::Idle];
                let state = if over { LAST } else { states[(count as usize / MACHINES) % 2] };
                let machine = if over { last } else { count as usize % MACHINES };
                last += usize::from(over);
                let change = AgentEvent {
                    seq: 0,
                    at_ms: Clock::default().now_ms(),
                    machine_id: machine_id(plant, machine),
                    what: Some(What::StateChanged(StateChanged { state: state.into() })),
                };
                let since = Instant::now();
                outbox.append(Entry { events: vec![change], mark: None }).await?;
                count += 1;
                waiting.push_back((status.borrow().last_seq, since));
                next += every;
            }
            changed = status.changed() => {
                changed.context("the outbox has stopped")?;
                let acked = status.borrow_and_update().acked_seq;
                while waiting.front().is_some_and(|(seq, _)| *seq <= acked) {
                    let Some((_, since)) = waiting.pop_front() else { break };
                    if since >= begun && since < until {
                        sample.count(since.elapsed(), Done::Well);
                    }
                }
            }
            () = tokio::time::sleep_until((until + PATIENCE).into()) => {
                anyhow::bail!("{} changes of {} are not applied", waiting.len(), plant_id(plant));
            }
        }
        if last == MACHINES && waiting.is_empty() {
            return Ok((sample, count));
        }
    }
}

/// The alliance knows of every machine what it was told last.
async fn check(stage: &Stage, plants: usize) -> anyhow::Result<()> {
    let client = stage.client("operator:load", 0)?;
    let mut token = String::new();
    let mut known = 0;
    loop {
        let page = Some(v1::Page { size: 1000, token });
        let answer = client
            .list_machines(v1::ListMachinesRequest { page, ..v1::ListMachinesRequest::default() })
            .await?;
        let told = |machine: &&v1::Machine| machine.id.starts_with("bench-") && machine.state() == LAST;
        known += answer.machines.iter().filter(told).count();
        token = answer.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    ensure!(known == plants * MACHINES, "{known} of {} machines are known as they are", plants * MACHINES);
    Ok(())
}

/// A process' time on processors, seconds.
pub(crate) fn busy_s(process: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // After the name, which may hold anything: utime and stime are the 12th and 13th, in hundredths of a second.
    let rest = text.rsplit_once(')')?.1;
    let mut fields = rest.split_whitespace().skip(11);
    let ticks: f64 =
        [fields.next()?, fields.next()?].iter().filter_map(|field| field.parse::<f64>().ok()).sum();
    Some(ticks / 100.0)
}
