//! The operator: registers the alliance, and then hands leadership over, takes snapshots, adds and removes nodes, and
//! changes for how long what is over is known, while everything else breaks.

use crate::buyer::{MACHINES, client};
use crate::history::{Answer, Call, Operation};
use crate::node::member;
use crate::plant::PLANTS;
use crate::world::{Shared, clock};
use millpool_cli::client::{Client, ClientError};
use millpool_proto::v1;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::time::Duration;

/// Pause between two acts, on average.
const PAUSE_MS: u64 = 1500;
/// How long the operator lets what is over be known, seconds; 0 is for ever.
const HISTORIES_KEPT_S: [u32; 4] = [0, 60, 60, 1800];
/// Fewest voters that the operator leaves.
const VOTERS_MIN: usize = 3;

struct Operator {
    world: Shared,
    client: Client,
    random: StdRng,
    /// Nodes that vote, by index, as the operator believes.
    members: Vec<usize>,
    /// The next node that has never been a member.
    spare: usize,
}

/// Registers the alliance, and then acts until the faults are over.
pub async fn run(world: Shared, seed: u64) -> turmoil::Result {
    let (first, nodes) = (world.borrow().first, world.borrow().nodes.len());
    let client = client("operator:op", seed, nodes)?;
    let random = StdRng::seed_from_u64(seed);
    let members = (0..first).collect();
    let mut operator = Operator { world, client, random, members, spare: first };
    operator.found().await?;
    operator.world.borrow_mut().founded = true;
    while !operator.world.borrow().healed {
        let pause = operator.random.random_range(0..2 * PAUSE_MS);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        operator.act(nodes > first).await;
    }
    Ok(())
}

impl Operator {
    /// Two plants with mills between them, open for five days.
    async fn found(&mut self) -> Result<(), ClientError> {
        let now_s = clock::now_s(self.world.borrow().scale) / 60 * 60;
        for (member, plant, east_m) in [("acme", PLANTS[0], 0), ("beta", PLANTS[1], 10_000)] {
            let member = v1::Member { id: member.into(), name: member.into(), revision: 0 };
            let plant = v1::Plant {
                id: plant.into(),
                member_id: member.id.clone(),
                name: plant.into(),
                time_zone: "Asia/Shanghai".into(),
                east_m,
                grid_region: "CN-CQ".into(),
                ..Default::default()
            };
            let request = v1::PutMemberRequest { member: Some(member), ..Default::default() };
            self.client.put_member(request).await?;
            let request = v1::PutPlantRequest { plant: Some(plant), ..Default::default() };
            self.client.put_plant(request).await?;
        }
        for machine in 0..MACHINES {
            let id = name(machine);
            let request = v1::PutMachineRequest { machine: Some(mill(&id, machine)), ..Default::default() };
            self.client.put_machine(request).await?;
            let days = |day: i64| v1::Window {
                start_s: now_s + day * 86_400,
                end_s: now_s + day * 86_400 + 10 * 3600,
            };
            let offer = v1::Offer {
                id: format!("o-{machine}"),
                machine_id: id,
                windows: (0..5).map(days).collect(),
                ..Default::default()
            };
            let request = v1::CreateOfferRequest { offer: Some(offer), ..Default::default() };
            self.client.create_offer(request).await?;
        }
        Ok(())
    }

    async fn act(&mut self, changes_members: bool) {
        let act = self.random.random_range(0..if changes_members { 7 } else { 5 });
        let what = match act {
            0 | 1 => {
                let request = v1::TransferLeaderRequest { node_id: 0 };
                self.client.transfer_leader(request).await.map(|_| "leadership is handed over".to_owned())
            }
            2 => {
                let request = v1::TakeSnapshotRequest {};
                self.client.take_snapshot(request).await.map(|_| "a snapshot is taken".to_owned())
            }
            3 => self.lend_more().await,
            4 => self.forget().await,
            5 => self.add().await,
            _ => self.remove().await,
        };
        let told = what.unwrap_or_else(|error| format!("the operator's act failed: {error}"));
        self.world.borrow_mut().tell(turmoil::elapsed(), told);
    }

    /// A machine more, and its hours.
    async fn lend_more(&mut self) -> Result<String, ClientError> {
        let id = format!("more-{}", self.random.random::<u32>());
        let request_id = self.client.fresh_request_id();
        let machine = Some(mill(&id, self.random.random_range(0..2)));
        let request = v1::PutMachineRequest { request_id: request_id.clone(), machine, expected_revision: 0 };
        let began = turmoil::elapsed();
        let answered = self.client.put_machine(request).await.map(|answer| answer.header);
        self.note(request_id, began, &answered);
        answered.map(|_| format!("{id} is registered"))
    }

    /// What is over is to be known for another time.
    async fn forget(&mut self) -> Result<String, ClientError> {
        let known = self.client.get_policy(v1::GetPolicyRequest::default()).await?.policy.unwrap_or_default();
        let expected_revision = known.revision;
        let history_keep_s = HISTORIES_KEPT_S[self.random.random_range(0..HISTORIES_KEPT_S.len())];
        let request_id = self.client.fresh_request_id();
        let policy = Some(v1::Policy { history_keep_s, ..known });
        let request = v1::PutPolicyRequest { request_id: request_id.clone(), policy, expected_revision };
        let began = turmoil::elapsed();
        let answered = self.client.put_policy(request).await.map(|answer| answer.header);
        self.note(request_id, began, &answered);
        answered.map(|_| format!("what is over is known for {history_keep_s} s"))
    }

    fn note(&self, request_id: String, began: Duration, answered: &Result<Option<v1::Header>, ClientError>) {
        let operation = Operation {
            who: "operator".into(),
            call: Call::Operate { request_id },
            began,
            ended: turmoil::elapsed(),
            answer: Answer::of(answered.clone().map(|header| (header, None))),
        };
        self.world.borrow_mut().history.operations.push(operation);
    }

    async fn add(&mut self) -> Result<String, ClientError> {
        if self.spare == self.world.borrow().nodes.len() {
            return Ok("no node is left to add".into());
        }
        let index = self.spare;
        let member = member(index);
        let node = v1::Node {
            id: member.node_id,
            peer_address: member.peer_address,
            public_address: member.public_address,
            ..Default::default()
        };
        self.client.add_node(v1::AddNodeRequest { node: Some(node) }).await?;
        self.spare += 1;
        self.members.push(index);
        Ok(format!("node {} is added", index + 1))
    }

    async fn remove(&mut self) -> Result<String, ClientError> {
        if self.members.len() <= VOTERS_MIN {
            return Ok("no node is to spare".into());
        }
        let at = self.random.random_range(0..self.members.len());
        let node_id = self.members[at] as u64 + 1;
        self.client.remove_node(v1::RemoveNodeRequest { node_id }).await?;
        self.members.remove(at);
        Ok(format!("node {node_id} is removed"))
    }
}

fn name(machine: u32) -> String {
    format!("mill-{machine}")
}

/// The machines that a plant has from the beginning.
pub fn machines_of(plant: usize) -> impl Iterator<Item = String> {
    (0..MACHINES).filter(move |machine| *machine as usize % PLANTS.len() == plant).map(name)
}

fn mill(id: &str, at: u32) -> v1::Machine {
    let text = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
    v1::Machine {
        id: id.into(),
        plant_id: PLANTS[at as usize % PLANTS.len()].into(),
        name: id.into(),
        class: v1::MachineClass::Mill.into(),
        axes: 3,
        envelope: Some(v1::Size { x_mm: 500, y_mm: 500, z_mm: 500 }),
        mass_max_g: 100_000,
        tolerance_um: 10,
        materials: text(&["steel", "aluminium"]),
        setup_families: text(&["a", "b", "c"]),
        changeover_default_s: 1800,
        rate_fen_per_hour: 36_000,
        setup_rate_fen_per_hour: 18_000,
        speed_permille: 1000,
        power: Some(v1::PowerModel { idle_w: 100, setup_w: 1000, cutting_w: 10_000 }),
        ..Default::default()
    }
}
