//! What machines did with their time, through the shipped coordinators: counted from reports, shown to whom it concerns,
//! and not forgotten by a restart.

use crate::agents::{Agent, event, finished, started};
use crate::harness::*;
use millpool_proto::v1::{self, IndicatorGrain, IndicatorGroup, Indicators, MachineState, agent_event::What};
use std::time::Duration;
use tonic::{Code, Status};

async fn indicators(client: &Client, request: v1::GetIndicatorsRequest) -> Result<Vec<Indicators>, Status> {
    // The day that now is began at most a day ago.
    let request = v1::GetIndicatorsRequest { from_s: now_s() - 2 * 86_400, ..request };
    Ok(client.plan().get_indicators(request).await?.into_inner().indicators)
}

fn by(group: IndicatorGroup, grain: IndicatorGrain) -> v1::GetIndicatorsRequest {
    v1::GetIndicatorsRequest { group: group.into(), grain: grain.into(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_time_is_counted_shown_to_whom_it_concerns_and_kept() {
    let mut cluster = Cluster::start(1).await;
    cluster.leader().await;
    let operator = cluster.operator(0);
    found_alliance(&operator).await;
    let raised = || async { cluster.status(0).await.filter(|s| s.format >= 5).map(drop) };
    eventually("the format to rise", raised).await;
    let mut wanted = order(vec![operation("a", 60)]);
    wanted.excluded_plants = vec!["p-2".into()];
    let booking = cluster.client(0, "buyer:bo").book(wanted).await;
    let machine = booking.assignments[0].machine_id.clone();
    let mut agent = Agent::attach(&cluster.client(0, "agent:p-1"), "p-1", "a-1", "box").await.unwrap();
    let state = |seq, state: MachineState| {
        event(seq, &machine, What::StateChanged(v1::StateChanged { state: state.into() }))
    };
    agent.report(vec![started(1, &machine, &booking.id, 0), state(2, MachineState::Producing)]).await;
    assert_eq!(agent.applied().await.seq, 2);
    tokio::time::sleep(Duration::from_millis(2100)).await;

    // What is in hand counts up to now.
    let all = indicators(&operator, by(IndicatorGroup::Machine, IndicatorGrain::Day)).await.unwrap();
    let busy = all.iter().find(|i| i.group_id == machine).expect("the machine that works");
    assert!(busy.busy_s >= 2 && busy.production_s >= 1 && busy.production_s <= busy.busy_s, "{busy:?}");
    assert!(
        busy.planned_busy_s >= busy.busy_s && busy.allocation.is_some() && busy.oee == Some(0.0),
        "{busy:?}"
    );
    assert!(all.iter().all(|i| i.group_id == machine || i.busy_s == 0), "{all:?}");

    agent.report(vec![finished(3, &machine, &booking.id, 0), state(4, MachineState::Idle)]).await;
    assert_eq!(agent.applied().await.seq, 4);
    let done = || async {
        let all = indicators(&operator, by(IndicatorGroup::Member, IndicatorGrain::Whole)).await.unwrap();
        let (acme, beta) = (all[0].clone(), all[1].clone());
        assert_eq!((acme.group_id.as_str(), acme.machines, beta.group_id.as_str()), ("acme", 2, "beta"));
        assert_eq!((acme.pieces_good, acme.quality, beta.quality), (1, Some(1.0), None));
        assert_eq!((acme.energy_measured_wh, acme.energy_modelled_wh), (777, 0));
        assert_eq!(acme.carbon_g, 407, "777 Wh at 0.5227 kg/kWh");
        acme
    };
    let before = done().await;

    // Each member its own machines, the alliance as a whole, and nothing else.
    let beta = cluster.client(0, "member:beta");
    let own = indicators(&beta, by(IndicatorGroup::Machine, IndicatorGrain::Whole)).await.unwrap();
    assert_eq!(own.iter().map(|i| i.group_id.as_str()).collect::<Vec<_>>(), ["mill-3"]);
    // Of two members each would know what the other did: the whole is of three.
    let all = || async { indicators(&beta, by(IndicatorGroup::All, IndicatorGrain::Whole)).await.unwrap() };
    assert_eq!((all().await.len(), all().await[0].machines), (1, 1));
    let mut capacity = operator.capacity();
    capacity.put_member(put_member("gamma")).await.unwrap();
    capacity.put_plant(put_plant(plant("p-3", "gamma", 20_000))).await.unwrap();
    capacity.put_machine(put_machine(mill("mill-4", "p-3"))).await.unwrap();
    capacity.create_offer(create_offer(offer("o-4", "mill-4", minutes(-60), minutes(600)))).await.unwrap();
    // Its first second has to pass.
    let four = || async { Some(all().await).filter(|whole| whole[0].machines == 4) };
    let whole = eventually("the fourth machine to count", four).await;
    assert_eq!((whole.len(), whole[0].pieces_good), (1, 1));
    let shifts = indicators(&beta, by(IndicatorGroup::All, IndicatorGrain::Shift)).await.unwrap();
    assert!(shifts.iter().all(|shift| shift.machines == 1), "{shifts:?}");
    let others = v1::GetIndicatorsRequest { plant_id: "p-1".into(), ..Default::default() };
    assert_eq!(indicators(&beta, others).await.unwrap(), []);
    let refused = indicators(&cluster.client(0, "buyer:bo"), Default::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    for (field, request) in [
        ("group", v1::GetIndicatorsRequest { group: 9, ..Default::default() }),
        ("grain", v1::GetIndicatorsRequest { grain: -1, ..Default::default() }),
        ("until_s", v1::GetIndicatorsRequest { until_s: 1, ..Default::default() }),
    ] {
        assert_eq!(said(&indicators(&operator, request).await.unwrap_err()).field, field);
    }

    drop(agent);
    operator.admin().take_snapshot(v1::TakeSnapshotRequest::default()).await.unwrap();
    cluster.kill(0);
    cluster.start_node(0);
    cluster.leader().await;
    let after = done().await;
    assert_eq!((after.busy_s, after.production_s), (before.busy_s, before.production_s));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_plant_whose_agent_is_gone_nobody_knows_and_whoever_leads_says_so() {
    let mut cluster = Cluster::with(3, &[("optimise-for-ms", "0"), ("silent-after-s", "2")]).await;
    let leader = cluster.leader().await;
    let operator = cluster.operator(leader);
    found_alliance(&operator).await;
    let raised = || async { cluster.status(leader).await.filter(|s| s.format >= 7).map(drop) };
    eventually("the format to rise", raised).await;
    let producing = v1::StateChanged { state: MachineState::Producing.into() };
    let tell = |seq| event(seq, "mill-1", What::StateChanged(producing));
    let mut agent = Agent::attach(&cluster.client(leader, "agent:p-1"), "p-1", "a-1", "box").await.unwrap();
    agent.report(vec![tell(1)]).await;
    assert_eq!(agent.applied().await.seq, 1);
    let mill = |client: Client| async move {
        let machines = client.capacity().list_machines(v1::ListMachinesRequest::default()).await.ok()?;
        machines.into_inner().machines.into_iter().find(|machine| machine.id == "mill-1")
    };
    assert_eq!(mill(operator.clone()).await.unwrap().state(), MachineState::Producing);

    drop(agent);
    let unknown = |client: Client| async move {
        mill(client).await.filter(|machine| machine.state() == MachineState::Unknown)
    };
    let gone = eventually("the plant to count as silent", || unknown(operator.clone())).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let all = indicators(&operator, by(IndicatorGroup::Machine, IndicatorGrain::Whole)).await.unwrap();
    let of_mill = all.iter().find(|i| i.group_id == "mill-1").unwrap();
    assert!(of_mill.unknown_s >= 1, "{of_mill:?}");

    // Another leader knows it, and since when.
    cluster.kill(leader);
    let next = cluster.leader().await;
    let operator = cluster.operator(next);
    let still = eventually("an answer", || unknown(operator.clone())).await;
    assert_eq!(still.state_since_s, gone.state_since_s);
    let mut agent = Agent::attach(&cluster.client(next, "agent:p-1"), "p-1", "a-1", "box").await.unwrap();
    let heard = || async { mill(operator.clone()).await.filter(|m| m.state() == MachineState::Producing) };
    eventually("the plant to be heard again", heard).await;
    agent.report(vec![tell(2)]).await;
    assert_eq!(agent.applied().await.seq, 2);
}
