//! `millpool watch`: changes as they come, one line each, whatever happens to the node that tells them.

use super::status::gap;
use super::{Desk, json_of};
use crate::client::WatchEvent;
use crate::client::watch::{Follow, Watch};
use crate::failure::Failure;
use crate::output::{Output, Tone};
use crate::shown;
use clap::Args;
use millpool_proto::v1::{
    Booking, OperationState, WatchBookingsRequest, WatchBookingsResponse, WatchPlanRequest, WatchPlanResponse,
};
use std::collections::BTreeMap;

/// Prints changes as they come, and goes on through the death of the node that tells them.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  millpool watch
  millpool watch b000042 --changes 1
  millpool watch --plan
  millpool watch --from 123456 --json | jq -c .bookings[].id")]
pub struct WatchArgs {
    /// Only this booking, e.g. b000042
    #[arg(conflicts_with = "plan")]
    booking: Option<String>,
    /// The plan's figures instead of bookings
    #[arg(long)]
    plan: bool,
    /// Begin with this revision instead of the present
    #[arg(long, value_name = "REVISION", default_value_t = 0)]
    from: u64,
    /// End after so many changes; 0 never ends
    #[arg(long, value_name = "N", default_value_t = 0)]
    changes: u64,
}

/// Runs it.
pub async fn run(args: &WatchArgs, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let client = desk.client()?;
    let start_revision = args.from;
    if args.plan {
        let watch = client.watch_plan(WatchPlanRequest { start_revision });
        return follow(watch, args.changes, desk, plan_changed).await;
    }
    let booking_id = args.booking.clone().unwrap_or_default();
    let watch = client.watch_bookings(WatchBookingsRequest { start_revision, booking_id });
    let mut known = BTreeMap::new();
    follow(watch, args.changes, desk, |answer, output| bookings_changed(answer, &mut known, output)).await
}

/// Follows a watch to its end, if it has one. `tell` prints a message and counts its changes.
async fn follow<Q: Follow>(
    mut watch: Watch<Q>,
    changes_max: u64,
    desk: &mut Desk<'_>,
    mut tell: impl FnMut(&Q::Answer, &mut Output) -> Result<u64, Failure>,
) -> Result<(), Failure> {
    let output = &mut desk.output;
    let mut changes = 0;
    loop {
        match watch.next().await? {
            WatchEvent::Changed(answer) => {
                changes += tell(&answer, output)?;
                output.answers.flush()?;
            }
            WatchEvent::Cut(error) => output.notice(format!("cut: {error}"))?,
            WatchEvent::Resumed { endpoint, start_revision: 0 } => {
                output.notice(format!("{endpoint} goes on, from the present"))?;
            }
            WatchEvent::Resumed { endpoint, start_revision } => {
                output.notice(format!("{endpoint} goes on, from revision {start_revision}"))?;
            }
            WatchEvent::Compacted { start_revision, compacted_revision } => output.notice(format!(
                "revision {start_revision} is no longer kept (the oldest is {compacted_revision}): changes before now \
                 are not shown; beginning anew with the present"
            ))?,
        }
        if changes_max > 0 && changes >= changes_max {
            return Ok(());
        }
    }
}

fn bookings_changed(
    answer: &WatchBookingsResponse,
    known: &mut BTreeMap<String, Booking>,
    output: &mut Output,
) -> Result<u64, Failure> {
    if output.json {
        output.value_line(&json_of("WatchBookingsResponse", answer)?)?;
        return Ok(answer.bookings.len() as u64);
    }
    let revision = answer.header.as_ref().map_or(0, |header| header.revision);
    for booking in &answer.bookings {
        let (tone, text) = match known.get(&booking.id) {
            None => (super::booking::status(booking).0, presented(booking, output)),
            Some(before) => (tone(before, booking), difference(before, booking, output)),
        };
        let id = output.paint(Tone::Strong, &booking.id);
        let text = output.paint(tone, &text);
        let revision = output.paint(Tone::Faint, &format!("{revision:<8}"));
        output.line(format!("{revision}  {id}  {text}"))?;
        known.insert(booking.id.clone(), booking.clone());
    }
    Ok(answer.bookings.len() as u64)
}

/// A booking that is seen for the first time.
fn presented(booking: &Booking, output: &Output) -> String {
    let (_, mut text) = super::booking::status(booking);
    let reference = booking.order.as_ref().map_or("", |order| &order.reference);
    if !reference.is_empty() {
        text = format!("{reference}: {text}");
    }
    if booking.completes_at_s > 0 {
        text += &format!(", done {}", shown::time(booking.completes_at_s, &output.clock));
    }
    if let Some(promise) = &booking.promise {
        text += &format!(", promised by {}", shown::time(promise.by_s, &output.clock));
    }
    text
}

fn tone(before: &Booking, after: &Booking) -> Tone {
    if after.at_risk && !before.at_risk {
        Tone::Bad
    } else if after.status != before.status {
        super::booking::status(after).0
    } else {
        Tone::Plain
    }
}

/// What changed in a booking.
fn difference(before: &Booking, after: &Booking, output: &Output) -> String {
    let mut changes = Vec::new();
    if after.status != before.status {
        changes.push(shown::booking_status(after.status()).to_owned());
    }
    for disturbance in after.disturbances.iter().skip(before.disturbances.len()) {
        let at = format!("operation {} on {}", disturbance.operation, disturbance.machine_id);
        changes.push(format!("{}: {at}: {}", shown::disturbance(disturbance.kind()), disturbance.reason));
    }
    for place in &after.assignments {
        let was = before.assignments.iter().find(|was| was.operation == place.operation);
        let number = place.operation;
        match was {
            Some(was) if was.state != place.state => changes.push(match place.state() {
                OperationState::Running => format!("operation {number} began on {}", place.machine_id),
                OperationState::Finished => format!("operation {number} is finished on {}", place.machine_id),
                OperationState::Planned => format!("operation {number} is to be done again"),
            }),
            Some(was) if was.machine_id != place.machine_id || was.start_s != place.start_s => {
                let start = shown::time(place.start_s, &output.clock);
                changes.push(format!("operation {number} moved to {} at {start}", place.machine_id));
            }
            Some(_) => {}
            None => changes.push(format!("operation {number} has a place on {}", place.machine_id)),
        }
    }
    if after.completes_at_s != before.completes_at_s && after.completes_at_s > 0 {
        changes.push(format!("done {}", shown::time(after.completes_at_s, &output.clock)));
    }
    match (before.at_risk, after.at_risk) {
        (false, true) => changes.push("AT RISK".to_owned()),
        (true, false) => changes.push("no longer at risk".to_owned()),
        _ => {}
    }
    if changes.is_empty() { "changed in detail".to_owned() } else { changes.join("; ") }
}

fn plan_changed(answer: &WatchPlanResponse, output: &mut Output) -> Result<u64, Failure> {
    if output.json {
        output.value_line(&json_of("WatchPlanResponse", answer)?)?;
        return Ok(1);
    }
    let plan = answer.summary.unwrap_or_default();
    let last = plan.last_optimisation.as_ref();
    let gap = last.map_or("–".to_owned(), |last| gap(last.cost_fen, last.bound_fen));
    let risk = match plan.bookings_at_risk {
        0 => String::new(),
        count => output.paint(Tone::Bad, &format!(", {count} at risk")),
    };
    let revision = output.paint(Tone::Faint, &format!("{:<8}", plan.revision));
    output.line(format!(
        "{revision}  {} open bookings, {} assignments, cost {}, last gap {gap}, {} of {} booked{risk}",
        plan.bookings_open,
        plan.assignments,
        shown::money(plan.cost_fen),
        shown::duration(plan.booked_s),
        shown::duration(plan.open_s),
    ))?;
    Ok(1)
}
