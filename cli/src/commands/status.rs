//! `millpool status`: the cluster and its plan at a glance. Every node is asked what it knows itself,
//! so that one that lags or differs shows.

use super::{Desk, json_of};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Output, Sheet, Tone};
use crate::shown;
use clap::Args;
use millpool_proto::v1::{GetPlanRequest, GetStatusRequest, GetStatusResponse, Node, PlanSummary};
use serde_json::{Value, json};
use std::time::Duration;

/// The longest that one node is waited for.
const NODE_PATIENCE: Duration = Duration::from_secs(2);

/// Shows the nodes, the leader, how far each is, and the plan's figures.
#[derive(Args, Debug)]
pub struct StatusArgs {}

/// A node of the cluster, and what it says of itself, where it could be asked.
struct Asked {
    node: Node,
    answer: Result<GetStatusResponse, String>,
}

/// Runs it.
pub async fn run(desk: &mut Desk<'_>) -> Result<(), Failure> {
    let client = desk.client()?;
    let view = client.get_status(GetStatusRequest {}).await?;
    let nodes = ask_each(&client, &view).await;
    let plan = plan(&client, desk.output.clock.now_s()).await;
    if desk.output.json {
        let nodes = nodes.iter().map(node_json).collect::<Result<Vec<_>, Failure>>()?;
        let plan = match &plan {
            Ok(plan) => json_of("PlanSummary", plan)?,
            Err(_) => Value::Null,
        };
        let all = json!({ "status": json_of("GetStatusResponse", &view)?, "nodes": nodes, "plan": plan });
        return Ok(desk.output.value(&all)?);
    }
    print(&view, &nodes, &mut desk.output)?;
    let holds = holds(&view);
    match plan {
        Ok(plan) => print_plan(holds, &plan, &mut desk.output),
        Err(error) => {
            desk.output.particulars(&[("holds", holds)])?;
            Ok(desk.output.notice(format!("The plan could not be read: {error}"))?)
        }
    }
}

/// Asks every node at its own address, all at once.
async fn ask_each(client: &Client, view: &GetStatusResponse) -> Vec<Asked> {
    let mut asking = tokio::task::JoinSet::new();
    for (index, node) in view.nodes.iter().cloned().enumerate() {
        let known = view.header.as_ref().is_some_and(|header| header.node_id == node.id);
        let (client, view) = (client.clone(), view.clone());
        asking.spawn(async move {
            if known {
                return (index, Asked { node, answer: Ok(view) });
            }
            let answer = match client.at(&node.public_address) {
                Ok(one) => {
                    one.with_patience(NODE_PATIENCE, NODE_PATIENCE).get_status(GetStatusRequest {}).await
                }
                Err(error) => Err(error),
            };
            let answer = answer.map_err(|error| error.details.message.clone());
            (index, Asked { node, answer })
        });
    }
    let mut asked = asking.join_all().await;
    asked.sort_by_key(|(index, _)| *index);
    asked.into_iter().map(|(_, asked)| asked).collect()
}

/// The plan's figures, without the plan: a moment of it is asked for.
async fn plan(client: &Client, now_s: i64) -> Result<PlanSummary, String> {
    let request = GetPlanRequest { from_s: now_s, until_s: now_s + 1, ..GetPlanRequest::default() };
    let answer = client.get_plan(request).await.map_err(|error| error.to_string())?;
    Ok(answer.summary.unwrap_or_default())
}

fn node_json(asked: &Asked) -> Result<Value, Failure> {
    let node = json_of("Node", &asked.node)?;
    Ok(match &asked.answer {
        Ok(answer) => json!({ "node": node, "status": json_of("GetStatusResponse", answer)? }),
        Err(error) => json!({ "node": node, "status": null, "error": error }),
    })
}

fn print(view: &GetStatusResponse, nodes: &[Asked], output: &mut Output) -> Result<(), Failure> {
    let header = view.header.clone().unwrap_or_default();
    let leader = match view.leader_id {
        0 => output.paint(Tone::Bad, "no leader"),
        id => format!("leader {id}"),
    };
    let name = output.paint(Tone::Strong, &header.cluster_id);
    output.line(format!("{name}  {leader}, term {}, revision {}\n", header.term, header.revision))?;
    let sheet = sheet(view, nodes);
    output.sheet(&sheet)?;
    if view.format < view.format_max {
        output.notice(format!(
            "The cluster writes format {}, and goes on to {} once every node understands it",
            view.format, view.format_max
        ))?;
    }
    for restoration in &view.restorations {
        output.notice(format!(
            "Restored {} from cluster {:?} at revision {}, as it stood {}: {}",
            shown::time(restoration.at_s, &output.clock),
            restoration.cluster_id,
            shown::grouped(restoration.revision),
            shown::time(restoration.state_at_s, &output.clock),
            restoration.reason
        ))?;
    }
    for asked in nodes {
        if let Err(error) = &asked.answer {
            output.notice(format!("Node {} could not be asked: {error}", asked.node.id))?;
        }
    }
    Ok(output.line("")?)
}

/// What the state holds.
fn holds(view: &GetStatusResponse) -> String {
    let counts = view.counts.unwrap_or_default();
    format!(
        "{} members, {} plants, {} machines, {} offers, {} bookings, {} request ids",
        counts.members, counts.plants, counts.machines, counts.offers, counts.bookings, counts.request_ids
    )
}

fn sheet(view: &GetStatusResponse, nodes: &[Asked]) -> Sheet {
    let columns =
        ["NODE", "ADDRESS", "ROLE", "VERSION", ">APPLIED", ">LAG", ">SNAPSHOT", "STATE HASH", ">AGENTS"];
    let mut sheet = Sheet::new(&columns);
    let head = nodes.iter().filter_map(|asked| asked.answer.as_ref().ok()).map(|a| a.last_log_index).max();
    let head = head.unwrap_or(view.last_log_index);
    for asked in nodes {
        let role = match asked.node.voter {
            _ if asked.node.id == view.leader_id => (Tone::Good, "leader"),
            true => (Tone::Plain, "follower"),
            false => (Tone::Warn, "learner"),
        };
        let mut row = vec![
            (Tone::Strong, asked.node.id.to_string()),
            (Tone::Plain, asked.node.public_address.clone()),
            (role.0, role.1.to_owned()),
        ];
        match &asked.answer {
            Ok(answer) => {
                let lag = head.saturating_sub(answer.applied_index);
                row.extend([
                    (Tone::Plain, answer.version.clone()),
                    (Tone::Plain, shown::grouped(answer.applied_index)),
                    (if lag > 1000 { Tone::Warn } else { Tone::Plain }, shown::grouped(lag)),
                    (Tone::Plain, shown::grouped(answer.snapshot_index)),
                    hash(answer, nodes),
                    (Tone::Plain, answer.agents_connected.to_string()),
                ]);
            }
            Err(_) => row.push((Tone::Bad, "silent".to_owned())),
        }
        sheet.toned(row);
    }
    sheet
}

/// A node's state hash, and whether another node at the same revision has another.
fn hash(answer: &GetStatusResponse, nodes: &[Asked]) -> (Tone, String) {
    let revision = |of: &GetStatusResponse| of.header.as_ref().map(|header| header.revision);
    let others = nodes.iter().filter_map(|asked| asked.answer.as_ref().ok());
    let differs = others
        .filter(|other| revision(other) == revision(answer))
        .any(|other| other.state_hash != answer.state_hash);
    let shown = format!("{:016x}", answer.state_hash);
    if differs { (Tone::Bad, format!("{shown} DIFFERS")) } else { (Tone::Plain, shown) }
}

fn print_plan(holds: String, plan: &PlanSummary, output: &mut Output) -> Result<(), Failure> {
    let risk = match plan.bookings_at_risk {
        0 => output.paint(Tone::Good, "none at risk"),
        count => output.paint(Tone::Bad, &format!("{count} at risk")),
    };
    let rows = [
        ("holds", holds),
        ("plan", format!("{} open bookings, {} assignments, {risk}", plan.bookings_open, plan.assignments)),
        ("cost", shown::money(plan.cost_fen)),
        ("last optimisation", optimisation(plan, output)),
        (
            "allocation",
            format!(
                "{} booked of {} open: {}",
                shown::duration(plan.booked_s),
                shown::duration(plan.open_s),
                shown::share(plan.booked_s, plan.open_s)
            ),
        ),
    ];
    Ok(output.particulars(&rows)?)
}

/// The last optimisation in one line.
pub fn optimisation(plan: &PlanSummary, output: &Output) -> String {
    let Some(last) = &plan.last_optimisation else { return "none yet".to_owned() };
    format!(
        "{} ({}): {} → {}, bound {}, gap {}, {} moved, took {} ms",
        shown::time(last.at_s, &output.clock),
        shown::relative(last.at_s, &output.clock),
        shown::amount(last.cost_before_fen),
        shown::amount(last.cost_fen),
        shown::amount(last.bound_fen),
        gap(last.cost_fen, last.bound_fen),
        last.moved,
        last.took_ms
    )
}

/// The gap between a cost and its bound, as a share of the cost.
pub fn gap(cost_fen: i64, bound_fen: i64) -> String {
    if cost_fen == bound_fen { "0.0 %".to_owned() } else { shown::share(cost_fen - bound_fen, cost_fen) }
}
