//! Plants: the shipped agent of each, with simulated machines that break down, overrun and scrap.

use crate::network;
use crate::node::member;
use crate::operator::machines_of;
use crate::world::{Shared, clock};
use millpool_node_agent::adapter::simulated;
use millpool_node_agent::agent::{Adapter, Agent, Machine, Options};
use millpool_node_agent::clock::Clock;
use millpool_node_agent::ground::Ground;
use millpool_node_agent::outbox::BYTES_MAX_DEFAULT;
use millpool_node_agent::session::{Timing, Token};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The plants of the simulated alliance.
pub const PLANTS: [&str; 2] = ["p-1", "p-2"];

/// How often things befall the machines, per thousand operations, and hours between breakdowns.
const OVERRUN_PERMILLE: u32 = 200;
const SCRAP_PERMILLE: u32 = 60;
const MTBF_H: u32 = 2;

/// Runs a plant's agent until it fails; a crash just drops it, and leaves what is on its disk.
pub async fn run(world: Shared, plant: usize, seed: u64) -> turmoil::Result {
    while !world.borrow().founded {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let plant_id = PLANTS[plant].to_owned();
    let machine = |id: String| Machine {
        id,
        adapter: Adapter::Simulated(simulated::Options {
            seed,
            progress_s: 300,
            mtbf_h: MTBF_H,
            repair_min: (1, 20),
            overrun_permille: OVERRUN_PERMILLE,
            scrap_permille: SCRAP_PERMILLE,
            ..simulated::Options::default()
        }),
        remote: None,
    };
    let (data_dir, nodes, scale) = {
        let mut world = world.borrow_mut();
        let starts = &mut world.plants[plant].starts;
        *starts += 1;
        (world.plants[plant].data_dir.clone(), world.nodes.len(), world.scale)
    };
    let options = Options {
        agent_id: format!("agent-of-{plant_id}"),
        data_dir,
        outbox_bytes_max: BYTES_MAX_DEFAULT,
        coordinators: (0..nodes).map(|index| member(index).public_address).collect(),
        token: Token::Given(format!("agent:{plant_id}")),
        tls: None,
        timing: Timing {
            heartbeat: Duration::from_secs(1),
            silence: Duration::from_secs(3),
            connect: Duration::from_secs(1),
            retry_max: Duration::from_secs(1),
            retry_slow: Duration::from_secs(2),
            ..Timing::default()
        },
        machines: machines_of(plant).map(machine).collect(),
        plant_id,
    };
    let seed = seed.wrapping_add(world.borrow().plants[plant].starts);
    let dial = Arc::new(|endpoint| Box::pin(network::connect(endpoint)) as _);
    let epoch_ms = clock::EPOCH_MS;
    let clock = Clock::new(epoch_ms, epoch_ms, scale as f64).read_by(clock::wall_ms);
    let agent = Agent::open(options, clock, Ground::Simulation { seed, dial })?;
    {
        let plant = &mut world.borrow_mut().plants[plant];
        plant.outbox = Some(agent.outbox().status());
        plant.kept = Some(agent.kept());
    }
    Ok(agent.run(CancellationToken::new()).await?)
}
