//! Many plants' agents at once, each machine with a change of state a second: how soon the leader knows of each, whether
//! every one arrives, and what it costs the coordinators.
//!
//! A change is put into an agent's outbox as its adapters do it, and counts as known when the leader says that it is
//! applied, which a majority has on disk by then.

use crate::args::Args;
use crate::asked;
use crate::floor::{Floor, Voice};
use crate::report::{Measured, Results};
use crate::sample::{Done, Sample};
use crate::stage::Stage;
use anyhow::{Context as _, ensure};
use millpool_cli::client::Client;
use millpool_proto::v1::agent_event::What;
use millpool_proto::v1::{self, MachineState, StateChanged};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Machines of each plant.
const MACHINES: usize = 10;
/// Clients that register plants and machines.
const CLERKS: usize = 8;
/// How long the last changes may take to be known.
const PATIENCE: Duration = Duration::from_secs(120);

/// Lets `plants` agents report for as long as a measurement takes.
pub(crate) async fn run(
    stage: &Stage,
    args: &Args,
    plants: usize,
    results: &mut Results,
) -> anyhow::Result<()> {
    register(stage, plants).await?;
    let machines = |plant| (0..MACHINES).map(|machine| machine_id(plant, machine)).collect();
    let floor = Floor::open(stage, (0..plants).map(|plant| (plant_id(plant), machines(plant)))).await?;
    let warm = Duration::from_secs(args.warm_up.max(2));
    let begun = Instant::now() + warm;
    let until = begun + Duration::from_secs(args.seconds);
    let voices = floor.plants.iter().map(|plant| plant.voice.clone()).enumerate();
    let mut reporting: JoinSet<_> =
        voices.map(|(plant, voice)| report(plant, plants, voice, begun, until)).collect();
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
    asked::run(stage, &plant_id(0), results).await?;
    floor.close().await
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

/// What a machine is last told to be.
const LAST: MachineState = MachineState::Held;

/// One plant's changes, machine after machine, each once a second; answers when the last is applied.
async fn report(
    plant: usize,
    plants: usize,
    voice: Voice,
    begun: Instant,
    until: Instant,
) -> anyhow::Result<(Sample, u64)> {
    let mut sample = Sample::new()?;
    let mut waiting: VecDeque<(u64, Instant)> = VecDeque::new();
    let mut status = voice.outbox.status();
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
                let since = Instant::now();
                let what = What::StateChanged(StateChanged { state: state.into() });
                voice.tell(&machine_id(plant, machine), what).await?;
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
